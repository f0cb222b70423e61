"""Validation: one forward pass per trajectory, the same readings however samples are batched."""

from pathlib import Path

import pytest
import torch

from lightreasoner.inference import loading
from lightreasoner.tuning.rows import one_hot_row, read_rows
from lightreasoner.tuning.validation import Validation


@pytest.fixture
def tokens_read(tiny_expert: Path) -> tuple[torch.nn.Module, list[int]]:
    """A model in float64 and the number of tokens in each forward pass of its decoder."""
    model = loading.load_model(tiny_expert, "cpu", "float64")
    passes: list[int] = []
    model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    return model, passes


def test_samples_of_a_trajectory_are_read_together(
    tokens_read: tuple[torch.nn.Module, list[int]], samples_dir: Path
) -> None:
    """Prefixes one by one would be 2 + 4 + 6 + 1 + 3 + 5 tokens, twice for loss and entropy."""
    model, passes = tokens_read
    found = Validation(read_rows(samples_dir, "sample"), [], []).measure(model)
    trajectories = read_rows(samples_dir, "trajectory")
    lengths = [len(row.input_ids) for row in trajectories]
    assert lengths == [2, 6, 5]
    assert passes == [3 * max(lengths)]
    together = Validation(trajectories, [], []).measure(model)
    assert found == pytest.approx(together, rel=1e-12)


def test_the_readings_equal_a_dense_oracle(
    tokens_read: tuple[torch.nn.Module, list[int]], samples_dir: Path
) -> None:
    """Each prefix alone, its whole distribution in float64; a solution token by token."""
    model, _ = tokens_read
    rows = read_rows(samples_dir, "sample")
    losses, entropies = [], []
    for row in rows:
        log_probs = model(torch.tensor([row.input_ids])).logits[0, -1].log_softmax(-1)
        (ids, weights), v = row.labels[0], torch.zeros_like(log_probs)
        v[ids] = torch.tensor(weights, dtype=torch.float64)
        losses.append(torch.special.xlogy(v, v).sum() - v @ log_probs)
        entropies.append(-(log_probs.exp() @ log_probs))
    solution = [5, 9, 4]
    found = Validation(rows, [one_hot_row("a", [1, 2], solution)], []).measure(model)
    log_probs = model(torch.tensor([[1, 2, *solution]])).logits[0].log_softmax(-1)
    nll = -sum(log_probs[1 + i, token] for i, token in enumerate(solution)) / len(solution)
    assert found["loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)
    assert found["entropy"] == pytest.approx(torch.stack(entropies).mean().item(), rel=1e-9)
    assert found["gold_perplexity"] == pytest.approx(nll.exp().item(), rel=1e-9)
