"""Batch plans: rows by the machine's whole memory, shards by prompts."""

from pathlib import Path

import pretended_gpu
import psutil
import pytest

from lightreasoner.config import Compute
from lightreasoner.inference import loading
from lightreasoner.inference.batching import fitting_rows, rows_within, shard_prompts

GB = 10**9


def test_rows_are_what_the_whole_memory_holds(tiny_expert: Path) -> None:
    """A token's keys and values: 2 x 2 layers x 2 heads x 8 x 4 bytes = 256; a row's logits: 32 x
    259 bytes; a prompt's token in reading: 256 + (3 x 64 + 8 x 32) x 4 bytes, 1,024 at a time.

    What is free at the moment does not count, so that a second run plans as the first did."""
    model = loading.load_model(tiny_expert, "cpu", "float32")
    weights = 4 * model.num_parameters()
    tokens = psutil.virtual_memory().total // 100_000  # 40 rows or so
    quarter = int(0.25 * (psutil.virtual_memory().total - weights))
    row, reading = 256 * tokens + 32 * 259, 1024 * (256 + 448 * 4)
    assert fitting_rows(model, tokens) == (quarter - reading) // row > 1


@pytest.mark.parametrize(
    ("memory", "parameters", "kept", "tokens", "rows"),
    [
        (141 * GB, 7.6e9, 57_344, 2_400, 128),  # Qwen2.5-Math-7B on an H200
        (80 * GB, 7.6e9, 57_344, 4_096, 128),  # with mmlu_stem's five demos before each question
        (24 * GB, 7.6e9, 57_344, 2_400, 20),
        (24 * GB, 1.5e9, 28_672, 2_400, 128),
        (8 * GB, 7.6e9, 57_344, 2_400, 1),
    ],
)
def test_rows_of_the_papers_models_in_bfloat16(
    memory: int, parameters: float, kept: int, tokens: int, rows: int
) -> None:
    reading = 16_384 * (kept + 2 * (3 * 18_944 + 8 * 3_584))
    memory = int(0.75 * (memory - 2 * parameters))
    assert rows_within(memory, reading, tokens * kept + 32 * 151_936) == rows


@pytest.mark.parametrize(
    ("memory", "free", "kept", "rows"),
    [
        (80 << 30, None, 0, 128),
        (80 << 30, 1 << 30, 0, 128),  # what is needed is still free
        (500 << 20, None, 0, 56),  # a small card, empty: 0.75 of it
        (500 << 20, 430 << 20, 0, 56),
        (500 << 20, 100 << 20, 0, 7),
        (500 << 20, 100 << 20, 300 << 20, 43),  # torch's own cache is free to it
    ],
)
def test_rows_are_fewer_where_others_hold_the_gpu(
    tiny_expert: Path, caplog: pytest.LogCaptureFixture, memory: int, free: int | None, kept: int,
    rows: int,
) -> None:  # fmt: skip
    """A row of 25,000 tokens is 6.408 MB, reading 16,384 tokens of prompts 33.6 MB: of
    500 MiB (393.2 - 33.6) / 6.408 = 56; of 400 that are free (314.6 - 33.6) / 6.408 = 43."""
    with pretended_gpu.at_hand(memory, free, kept):
        found = fitting_rows(loading.load_model(tiny_expert, "cuda", "float32"), 25_000)
    assert found == rows
    assert ("GiB are free" in caplog.text) == (free == 100 << 20)


def test_a_shard_fills_each_row_four_times(tiny_expert: Path) -> None:
    model = loading.load_model(tiny_expert, "cpu", "float32")
    assert shard_prompts(model, 100, 10**6, Compute()) == 4 * 128
    assert shard_prompts(model, 100, 10**6, Compute(batch_size=5)) == 20


def test_each_worker_gets_a_shard(tiny_expert: Path) -> None:
    model = loading.load_model(tiny_expert, "cpu", "float32")
    assert shard_prompts(model, 100, 90, Compute(workers=4)) == 23
    assert shard_prompts(model, 100, 3, Compute(workers=4)) == 1


def test_on_a_cpu_a_shard_is_a_minute_or_each_row_once(tiny_expert: Path) -> None:
    """6e12 FLOP, 2 a parameter and token, are a minute of two cores."""
    model = loading.load_model(tiny_expert, "cpu", "float32")
    tokens = int(3e12 / model.num_parameters() / 12)
    assert shard_prompts(model, tokens, 10**6, Compute(batch_size=5)) == 12
    assert shard_prompts(model, tokens, 10**6, Compute(batch_size=30)) == 30
