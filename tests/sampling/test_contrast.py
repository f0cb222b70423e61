"""Contrast, by hand on three tokens, and by properties.

pi_E = (0.6, 0.3, 0.1), pi_A = (0.2, 0.6, 0.2):
KL(E || A) = 0.6 ln 3 + 0.3 ln 0.5 + 0.1 ln 0.5 = 0.6592 - 0.2079 - 0.0693 = 0.3819 nats.
alpha = 0.2: the threshold is 0.12, so tokens 0 and 1 are the support;
v_C is proportional to (0.6 / 0.2, 0.3 / 0.6) = (3, 0.5), so it is (6/7, 1/7).
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightreasoner.sampling.contrast import (
    entropy,
    kl_divergence,
    plausible,
    shared_log_probs,
    soft_labels,
)

EXPERT = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log()
AMATEUR = torch.tensor([[0.2, 0.6, 0.2]], dtype=torch.float64).log()
WHOLE = np.array([0, 3])

logit = st.floats(-20, 20, allow_nan=False)
logits = st.lists(logit, min_size=2, max_size=12)


def log_probs(values: list[float]) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64).log_softmax(-1)


def test_kl_by_hand() -> None:
    expected = 0.6 * math.log(3) + 0.4 * math.log(0.5)
    assert kl_divergence(EXPERT, AMATEUR).item() == pytest.approx(expected, abs=1e-12)


def test_kl_is_of_the_expert_from_the_amateur() -> None:
    """Swapped, it is 0.2 ln(1/3) + 0.6 ln 2 + 0.2 ln 2 = 0.3348, not 0.3819."""
    swapped = kl_divergence(AMATEUR, EXPERT).item()
    assert swapped == pytest.approx(0.2 * math.log(1 / 3) + 0.8 * math.log(2), abs=1e-12)


def test_entropy_by_hand() -> None:
    half = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    assert entropy(half).item() == pytest.approx(math.log(2))


def test_support_and_label_by_hand() -> None:
    on_support, weights = soft_labels(EXPERT[0].numpy(), AMATEUR[0].numpy(), WHOLE, alpha=0.2)
    assert on_support.tolist() == [True, True, False]
    np.testing.assert_allclose(weights, [6 / 7, 1 / 7], atol=1e-12)
    assert plausible(EXPERT, 0.2).tolist() == [[True, True, False]]


def test_labels_of_several_steps_do_not_mix() -> None:
    expert = np.concatenate([EXPERT[0].numpy(), np.log([0.9]), EXPERT[0].numpy()])
    amateur = np.concatenate([AMATEUR[0].numpy(), np.log([0.1]), AMATEUR[0].numpy()])
    on_support, weights = soft_labels(expert, amateur, np.array([0, 3, 4, 7]), alpha=0.2)
    assert on_support.tolist() == [True, True, False, True, True, True, False]
    np.testing.assert_allclose(weights, [6 / 7, 1 / 7, 1, 6 / 7, 1 / 7], atol=1e-12)


@given(logits)
def test_kl_of_equal_distributions_is_zero(values: list[float]) -> None:
    same = log_probs(values)
    assert kl_divergence(same, same).item() == 0


@given(logits, st.data())
def test_kl_is_positive_where_they_differ(values: list[float], data: st.DataObject) -> None:
    other = data.draw(st.lists(logit, min_size=len(values), max_size=len(values)))
    expert, amateur = log_probs(values), log_probs(other)
    kl = kl_divergence(expert, amateur).item()
    assert kl >= 0
    if (expert.exp() - amateur.exp()).abs().max() > 1e-3:
        assert kl > 1e-7


@given(logits, st.data(), st.floats(0.01, 1), st.floats(0.01, 1))
def test_labels_sum_to_one_and_a_larger_alpha_never_widens(
    values: list[float], data: st.DataObject, one: float, two: float
) -> None:
    other = data.draw(st.lists(logit, min_size=len(values), max_size=len(values)))
    expert, amateur = log_probs(values)[0].numpy(), log_probs(other)[0].numpy()
    whole = np.array([0, len(values)])
    wide, weights = soft_labels(expert, amateur, whole, min(one, two))
    narrow, _ = soft_labels(expert, amateur, whole, max(one, two))
    assert weights.sum() == pytest.approx(1)
    assert len(weights) == wide.sum()
    assert not (narrow & ~wide).any()
    assert narrow[expert.argmax()]


@given(logits, st.integers(0, 5))
def test_rows_beyond_the_tokenizer_change_nothing(values: list[float], padding: int) -> None:
    shared = torch.arange(len(values))
    plain = torch.tensor([values])
    padded = torch.cat([plain, torch.full((1, padding), 50.0)], dim=-1)
    torch.testing.assert_close(shared_log_probs(padded, shared), shared_log_probs(plain, shared))


def test_cutting_without_renormalising_is_wrong() -> None:
    """deviations.md: the authors cut vocabularies of different size; mass on the rest is lost."""
    wide = torch.tensor([[2.0, 1.0, 0.0, 3.0]])
    cut = wide.softmax(-1)[:, :3]
    assert cut.sum() < 0.5
    assert shared_log_probs(wide, torch.arange(3)).exp().sum() == pytest.approx(1)
