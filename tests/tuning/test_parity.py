"""The distance of two models' next-token distributions, by hand."""

import math

import pytest
import torch

from lightreasoner.tuning.parity import NONE, distance


def test_by_hand() -> None:
    """Two positions of two tokens: KL((3/4, 1/4) || (1/2, 1/2)) = 3/4 ln 3/2 + 1/4 ln 1/2, and 0.

    The first keeps its likeliest token, as the second does.
    """
    before = [torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, 1.0]])]
    after = [torch.tensor([[5.0, 5.0]]), torch.tensor([[7.0, 8.0]])]
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert distance(before, after) == {
        "kl_mean": pytest.approx(kl / 2),
        "kl_max": pytest.approx(kl),
        "top1_agreement": 1.0,
        "positions": 2,
    }


def test_another_likeliest_token_is_counted() -> None:
    before, after = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert distance([before], [after])["top1_agreement"] == 0.5


def test_itself_is_nowhere_and_nan_is_never_lost() -> None:
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    assert distance([logits], [logits]) == {**NONE, "positions": 3}
    found = distance([logits, logits], [logits, logits * float("nan")])
    assert math.isnan(found["kl_mean"])
    assert math.isnan(found["kl_max"])
