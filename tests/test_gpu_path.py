"""What runs on a GPU: no tensor on the wrong device, and the host waits no more often than it says.

On the pretended card (pretended_gpu.py) the results are the CPU's, bit for bit, and every wait is
counted; with `-m gpu` the same runs on a real one, where torch itself tells of waits.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pretended_gpu
import pytest
import torch
from pretended_gpu import Wait
from test_decode import MANY, PROMPTS, STOPS
from test_score import trajectories
from test_trainer import settings

from lightreasoner.config import Compute
from lightreasoner.inference import loading, vocabulary
from lightreasoner.inference.decode import LOOK_EVERY, Completion, decode
from lightreasoner.progress import Silent
from lightreasoner.sampling.score import Scorer
from lightreasoner.tuning.finetune import objective, plan_updates, with_lora
from lightreasoner.tuning.loss import collate, summed_divergence
from lightreasoner.tuning.rows import TrainingRow, one_hot_row, read_rows
from lightreasoner.tuning.trainer import train
from lightreasoner.tuning.validation import Validation

READS_OF_A_BLOCK = 6
"""By score, of each block of steps: how many tokens are plausible, and the five tensors stored."""


class RealCard:
    """A GPU; `waits` are those that torch warned of."""

    def __init__(self, warned: list[warnings.WarningMessage]):
        self.warned = warned

    @property
    def waits(self) -> list[Wait]:
        return [
            Wait("any", f"{each.filename}:{each.lineno}")
            for each in self.warned
            if "synchronizing" in str(each.message)
        ]


@contextmanager
def real() -> Iterator[RealCard]:
    """A GPU in this machine, whose waits are noted."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield RealCard(warned)
        finally:
            torch.cuda.set_sync_debug_mode("default")


Card = Callable[[], AbstractContextManager[Any]]


@pytest.fixture(
    params=[pretended_gpu.at_hand, pytest.param(real, marks=pytest.mark.gpu)],
    ids=["pretended", "real"],
)
def card(request: pytest.FixtureRequest) -> Card:
    found: Card = request.param
    return found


def on_both(
    card: Card, act: Callable[[str], Any], ready: Callable[[str], Any]
) -> tuple[Any, Any, list[Wait]]:
    """What `act(ready(device))` gives on the CPU and on the card, and what it waited for there."""
    expected = act(ready("cpu"))
    with card() as gpu:
        given = ready("cuda")
        before = len(gpu.waits)
        found = act(given)
        return expected, found, gpu.waits[before:]


def lines(waits: list[Wait]) -> set[str]:
    """The files that asked for them."""
    return {Path(wait.line.rpartition(":")[0]).name for wait in waits}


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_decoding_waits_once_for_sixteen_tokens(
    tiny_expert: Path, card: Card, temperature: float
) -> None:
    """33 tokens of each row: the first after the prompts, then twice 16."""
    assert LOOK_EVERY["cuda"] == 16

    def write(model: Any) -> list[Completion]:
        return decode(model, PROMPTS, set(), 33, temperature, batch_size=5)

    expected, found, waits = on_both(
        card, write, lambda device: loading.load_model(tiny_expert, device, "float32")
    )
    assert found == expected
    assert {len(completion.ids) for completion in found} == {33}
    assert len(waits) == 3
    assert lines(waits) == {"decode.py"}


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_decoding_waits_once_more_where_rows_are_filled_again(
    tiny_expert: Path, card: Card, temperature: float
) -> None:
    """Twenty prompts in four rows: a wait for sixteen steps or fewer, and one for each time that
    prompts are read."""
    reads: list[int] = []

    def write(model: Any) -> list[Completion]:
        model.register_forward_hook(
            lambda _, args, kwargs, output: reads.append(kwargs["input_ids"].shape[1]),
            with_kwargs=True,
        )
        found = decode(model, MANY[:20], STOPS, 24, temperature, batch_size=4)
        steps.append(reads.count(1))
        reads.clear()
        return found

    steps: list[int] = []
    expected, found, waits = on_both(
        card, write, lambda device: loading.load_model(tiny_expert, device, "float32")
    )
    assert found == expected
    assert len(waits) <= steps[-1] / 3
    assert lines(waits) == {"decode.py"}


def test_score_waits_six_times_for_a_block_and_once_for_each_model(
    tiny_expert: Path, tiny_amateur: Path, card: Card
) -> None:
    """A batch of five trajectories, in one block of steps. transformers looks once in each forward
    pass whether several sequences lie in one row."""
    shared = torch.tensor(vocabulary.check_pair(tiny_expert, tiny_amateur))

    def pair(device: str) -> Scorer:
        models = (
            loading.load_model(directory, device, "float32")
            for directory in (tiny_expert, tiny_amateur)
        )
        return Scorer(*models, shared, 0.05)

    rows = trajectories()
    expected, found, waits = on_both(card, lambda scorer: scorer.score(rows), pair)
    same = [found[name].equals(expected[name]) for name in ("problem_id", "step", "token_ids")]
    assert all(same)
    for name in ("kl", "expert_entropy", "amateur_entropy"):
        torch.testing.assert_close(
            torch.tensor(found[name].to_pylist()), torch.tensor(expected[name].to_pylist()),
            rtol=1e-4, atol=1e-5,
        )  # fmt: skip
    assert len(waits) == READS_OF_A_BLOCK + 2


def test_the_loss_and_its_gradient_wait_for_no_value(
    tiny_expert: Path, samples_dir: Path, card: Card
) -> None:
    """But for what transformers looks at in the forward pass."""
    rows = read_rows(samples_dir, "trajectory")

    def gradient(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        batch = collate(rows, model.device)
        loss = summed_divergence(model, batch)
        return loss.detach(), torch.autograd.grad(
            loss, model.model.layers[0].self_attn.q_proj.weight
        )[0]

    expected, found, waits = on_both(
        card, gradient, lambda device: loading.load_model(tiny_expert, device, "float32")
    )
    assert lines(waits) <= {"masking_utils.py"}
    assert len(waits) == 1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=1e-6)


def test_validation_waits_for_its_two_readings(
    tiny_expert: Path, samples_dir: Path, card: Card
) -> None:
    """And once in each of its forward passes, one for the samples and one for the solution."""
    gold = [one_hot_row("a", [1, 2], [5, 9, 4])]
    held_out = Validation(read_rows(samples_dir, "sample"), gold, [])
    expected, found, waits = on_both(
        card, held_out.measure, lambda device: loading.load_model(tiny_expert, device, "float32")
    )
    assert found == pytest.approx(expected, rel=1e-4)
    assert len(waits) == 2 + 2


class Noting(Silent):
    """A watcher that notes how many waits there were when each update was done."""

    def __init__(self, gpu: Any):
        self.gpu, self.seen = gpu, list[int]()

    def progress(self, done: int, total: int, unit: str) -> None:
        self.seen.append(len(self.gpu.waits))


def test_an_update_waits_for_its_loss_and_the_gradients_norm(
    tiny_expert: Path, tmp_path: Path, card: Card
) -> None:
    """For the curves, and once in each of its two forward passes."""
    labels = [([5], [1.0]), ([6, 7], [0.25, 0.75])]
    rows = [TrainingRow(f"p{i}", list(range(4, 14 + i)), [3, 8 + i], labels) for i in range(6)]
    config = settings(updates=4, samples_per_update=4, samples_per_forward=2, lora_dropout=0.0)
    updates = list(plan_updates(rows, config))
    assert {len(update) for update in updates} == {2}

    def tune(device: str, gpu: Any) -> tuple[list[dict[str, float]], list[int]]:
        torch.manual_seed(1)
        model = with_lora(loading.load_model(tiny_expert, device, "float32"), config)
        aim = objective(config, loading.load_tokenizer(tiny_expert))
        compute = Compute(device=device, dtype="float32")  # type: ignore[arg-type]
        noting = Noting(gpu)
        curves = train(model, updates, None, None, aim, config, compute, tmp_path / device, noting)
        return curves.training, noting.seen

    expected, _ = tune("cpu", pretended_gpu.Card())
    takes = pretended_gpu.for_trainer() if card is pretended_gpu.at_hand else nullcontext()
    with card() as gpu, takes:
        found, seen = tune("cuda", gpu)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert [after - before for before, after in pairwise(seen)] == [4, 4, 4, 4]
