import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightreasoner.statistics import mcnemar_p, wilson_interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # by hand, z^2 = 3.8415: 0 of 10 ends at z^2 / (n + z^2) = 3.8415 / 13.8415
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        # 5 of 10: 1/2 -+ z sqrt(1/40 + z^2/400) / (1 + z^2/10) = 1/2 -+ 0.2634
        (5, 10, 0.2366, 0.7634),
    ],
)
def test_wilson_interval_of_worked_examples(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_accuracy_and_mirrors(counts: tuple[int, int]) -> None:
    correct, n = counts
    low, high = wilson_interval(correct, n)
    assert 0 <= low <= correct / n + 1e-12
    assert correct / n - 1e-12 <= high <= 1
    assert low < high
    mirrored = wilson_interval(n - correct, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        # nothing changed, or as much either way
        (0, 0, 1.0),
        (3, 3, 1.0),
        # by hand: 2 (1 + 10) / 2^10, 2 / 2^5, 2 (1 + 8 + 28) / 2^8
        (1, 9, 22 / 1024),
        (0, 5, 1 / 16),
        (6, 2, 74 / 256),
    ],
)
def test_mcnemar_of_worked_examples(gained: int, lost: int, p: float) -> None:
    assert mcnemar_p(gained, lost) == pytest.approx(p)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_doubled_smaller_tail_and_symmetric(gained: int, lost: int) -> None:
    p = mcnemar_p(gained, lost)
    assert 0 < p <= 1
    assert p == pytest.approx(mcnemar_p(lost, gained))
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1)) / 2**changed
    assert p == pytest.approx(min(1.0, 2 * tail))
