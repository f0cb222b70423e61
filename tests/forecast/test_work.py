"""FLOP against torch's own counter on real models, and by hand.

The counter knows no kernel of a CPU's attention, so the models here compute it in plain products.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import write_model
from torch.utils.flop_counter import FlopCounterMode

from lightreasoner.config import Finetune
from lightreasoner.forecast import shapes, work
from lightreasoner.forecast.shapes import PUBLISHED, Shape
from lightreasoner.forecast.work import Work
from lightreasoner.inference import loading
from lightreasoner.inference.decode import decode
from lightreasoner.inference.forward import hidden_states, logits_of
from lightreasoner.tuning.finetune import with_lora
from lightreasoner.tuning.loss import collate, summed_divergence
from lightreasoner.tuning.rows import TrainingRow

MATH = PUBLISHED["Qwen/Qwen2.5-Math-1.5B"]
ROWS, PROMPT, NEW = 3, 7, 6


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), seed=1, hidden=32, layers=3)


@pytest.fixture
def model(directory: Path) -> Any:
    model = loading.load_model(directory, "cpu", "float32")
    model.set_attn_implementation("eager")
    return model


@pytest.fixture(scope="module")
def shape(directory: Path) -> Shape:
    found = shapes.of("x", directory)
    assert found is not None
    return found


def prompts() -> list[list[int]]:
    """Without a common beginning, which would be read once."""
    return [[row, *range(10, 9 + PROMPT)] for row in range(ROWS)]


def test_reading_is_counted_to_the_flop(model: Any, shape: Shape) -> None:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        logits_of(model, hidden_states(model, torch.tensor(prompts()))[:, :2].flatten(0, 1))
    found = work.read(shape, ROWS, PROMPT, 2 * ROWS, 1024, "float32")
    assert found.flop == counter.get_total_flops() > 0


def test_decoding_is_counted_to_the_flop(model: Any, shape: Shape) -> None:
    with FlopCounterMode(display=False) as counter:
        decode(model, prompts(), set(), NEW, batch_size=ROWS)
    reading = work.read(shape, ROWS, PROMPT, ROWS, 1024, "float32")
    writing = work.decode(shape, ROWS, PROMPT, NEW, NEW - 1, "float32")
    assert (reading + writing).flop == counter.get_total_flops()


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("k_proj", "o_proj", "down_proj")])
def test_an_updates_flop_are_counted(model: Any, shape: Shape, targets: tuple[str, ...]) -> None:
    """To the FLOP, but for the lowest layer's attention, of which backward leaves out the product
    for the keys, or the values, where these have no adapter: 1 of 6 products of one layer."""
    config = Finetune(r=4, target_modules=targets)
    rows = [TrainingRow("p", ids, [1, 4], [([5], [1.0])] * 2) for ids in prompts()]
    tuned = with_lora(model, config)
    with FlopCounterMode(display=False) as counter:
        summed_divergence(tuned.get_base_model(), collate(rows, model.device)).backward()
    found = work.train(shape, config, ROWS, PROMPT, 2 * ROWS, 1, "float32", False)
    product = 2 * shape.width * ROWS * PROMPT**2
    assert 0 <= found.flop - counter.get_total_flops() <= 2 * product
    assert (found.flop - counter.get_total_flops()) % product == 0


def test_recomputing_runs_forward_again(shape: Shape) -> None:
    once, again = (
        work.train(shape, Finetune(), 2, 50, 4, 1, "float32", recompute)
        for recompute in (False, True)
    )
    forward = work.read(shape, 2, 50, 0, 100, "float32").flop
    adapter = 2.0 * shape.adapter(Finetune()) * 100
    assert again.flop - once.flop == pytest.approx(forward + adapter)


def test_a_token_of_qwen25_math_15b_by_hand() -> None:
    """2 x (1,310,195,712 + 233,373,696) FLOP and 4 x 28 x 1536 a pair; a step reads 3.09 GB of
    weights once and 28,672 bytes for every token before."""
    one = work.decode(MATH, 1, 100, 2, 1, "bfloat16")
    assert one.flop == 2 * 1_543_569_408 + 4 * 28 * 1536 * 101
    assert one.bytes == 2 * 1_543_569_408 + 2 * 151_936 + 28_672 * 101
    assert one.layer_calls == 28
    many = work.decode(MATH, 64, 100, 2, 1, "bfloat16")
    assert many.flop == 64 * one.flop
    assert many.bytes < 2 * one.bytes


def test_steps_by_hand() -> None:
    """128 rows for 1,000 completions of 100 tokens, 512 a shard: two shards, 500 / 128 times 100
    steps, and in each the longest, of 120, may end 20 later."""
    assert work.steps(1000, 100, 100, 128, 512) == pytest.approx(2 * 500 / 128 * 100)
    assert work.steps(1000, 100, 120, 128, 512) == pytest.approx(2 * (500 / 128 * 100 + 20))
    assert work.steps(5, 100, 120, 128, 5) == 120


def test_work_adds_up() -> None:
    assert Work(1, 2, 3) + Work(1, 2, 3).times(10) == Work(11, 22, 33)
