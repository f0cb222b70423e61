"""The loss by hand, against float64, and its hand-written gradient."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightreasoner.tuning import loss
from lightreasoner.tuning.loss import _SummedDivergence


def summed(states: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None = None) -> Tensor:
    """The loss of dense labels (samples, vocab), given to it in their sparse form."""
    rows, ids = labels.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(labels))
    offsets = [0, *counts.cumsum(0).tolist()]
    return _SummedDivergence.apply(states, weight, bias, ids, labels[rows, ids], offsets)


def dense(states: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None = None) -> Tensor:
    """torch's kl_div takes the log of pi first and v second: KL(v || pi)."""
    log_probs = torch.nn.functional.linear(states, weight, bias).log_softmax(-1)
    return torch.nn.functional.kl_div(log_probs, labels, reduction="sum")


def random_case(samples: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    states, weight = torch.randn(samples, 8).double(), torch.randn(50, 8).double()
    labels = torch.rand(samples, 50).double() * (torch.rand(samples, 50) < 0.1)
    labels[:, 7] = 0.3
    return states, weight, labels / labels.sum(-1, keepdim=True)


def test_by_hand() -> None:
    """pi = (.5, .25, .25), v = (.75, .25, 0): .75 ln 1.5 + .25 ln 1 = 0.3041 nats."""
    pi, v = (torch.tensor([row]).double() for row in ([0.5, 0.25, 0.25], [0.75, 0.25, 0.0]))
    found = summed(pi.log(), torch.eye(3).double(), v)
    assert found.item() == pytest.approx(0.75 * math.log(1.5), abs=1e-12)


def test_it_is_zero_where_pi_is_the_label() -> None:
    pi = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64)
    states = pi.log().requires_grad_()
    found = summed(states, torch.eye(3).double(), pi)
    found.backward()
    assert found.item() == pytest.approx(0, abs=1e-12)
    assert states.grad is not None
    torch.testing.assert_close(states.grad, torch.zeros_like(states))


@given(samples=st.integers(1, 9), seed=st.integers(0, 99), in_flight=st.sampled_from([1, 120, 999]))
def test_equals_a_dense_oracle_whatever_the_pieces(samples: int, seed: int, in_flight: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(loss.LOGITS_IN_FLIGHT, "cpu", in_flight)
        states, weight, labels = random_case(samples, seed)
        found = summed(ours := states.clone().requires_grad_(), weight, labels)
        oracle = dense(theirs := states.clone().requires_grad_(), weight, labels)
        found.backward()
        oracle.backward()
    torch.testing.assert_close(found, oracle, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_gradient_of_labels_that_were_cut_and_of_a_bias() -> None:
    """Weights that sum to less than 1, as the authors' cut ones do; an LM head with a bias."""
    states, weight, labels = random_case(5)
    bias = torch.randn(50).double()
    labels[2:, 7] = 0
    labels[4] = 0
    ours, theirs = (states.clone().requires_grad_() for _ in range(2))
    (3 * summed(ours, weight, labels, bias)).backward()
    (3 * dense(theirs, weight, labels, bias)).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_float32_is_near_float64() -> None:
    """Measured: 2e-8 relative."""
    states, weight, labels = random_case(64)
    found = summed(states.float(), weight.float(), labels.float())
    torch.testing.assert_close(found.double(), dense(states, weight, labels), rtol=1e-5, atol=0)
