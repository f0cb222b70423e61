"""The pull of labels by hand, and against a slow oracle."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightreasoner.sampling import pull

SHARE = st.floats(0.01, 1.0)
LABEL = st.lists(st.tuples(SHARE, st.one_of(st.just(0.0), SHARE)), min_size=1, max_size=5).filter(
    lambda label: sum(weight for _, weight in label) > 0
)


def test_by_hand() -> None:
    """pi_E (.6, .3) of the support is (2/3, 1/3), v_C (6/7, 1/7): 6/7 ln 9/7 + 1/7 ln 3/7. A label
    of one token pulls nothing, and (1, 0) against (1/2, 1/2) ln 2."""
    log_probs = np.log([0.6, 0.3, 0.05, 0.2, 0.2])
    found = pull.divergences(np.array([6 / 7, 1 / 7, 1, 1, 0]), log_probs, np.array([0, 2, 3, 5]))
    expected = [6 / 7 * math.log(9 / 7) + 1 / 7 * math.log(3 / 7), 0, math.log(2)]
    np.testing.assert_allclose(found, expected, atol=1e-15)


@given(st.lists(LABEL, min_size=1, max_size=6))
def test_labels_together_are_each_by_itself(labels: list[list[tuple[float, float]]]) -> None:
    weights, expected = [], []
    for label in labels:
        total, mass = sum(weight for _, weight in label), sum(share for share, _ in label)
        weights += [weight / total for _, weight in label]
        expected.append(
            sum(
                weight / total * (math.log(weight / total) - math.log(share / mass))
                for share, weight in label
                if weight
            )
        )
    offsets = np.cumsum([0, *map(len, labels)])
    log_probs = np.log([share / 9 for label in labels for share, _ in label])
    found = pull.divergences(np.array(weights), log_probs, offsets)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found.min() > -1e-12


@pytest.mark.parametrize(
    ("found", "samples", "warned"),
    [(4.99, 10, True), (5.0, 10, False), (9.99, 200, True), (10.0, 200, False), (None, 9, False)],
)
def test_too_little_in_sum_or_per_sample_is_warned_of(
    found: float | None, samples: int, warned: bool
) -> None:
    assert (pull.warning(found, samples) is not None) is warned
