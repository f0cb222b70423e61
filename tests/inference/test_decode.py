"""Decoding: equal to transformers' own greedy search, for any batch and order."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lightreasoner.errors import ModelError
from lightreasoner.inference import decode as decoding
from lightreasoner.inference import loading
from lightreasoner.inference.decode import Completion, decode

SEEDS = [11, 12, 13, 14, 15]
PROMPTS = [[10, 20, 30], [7], [1, 2, 3, 4, 5, 6, 7, 8], [99, 98], [200, 100, 50, 25]]
STOPS = {258, *range(60, 90)}


def completions(
    directory: Path, prompts: list[list[int]] = PROMPTS, **options: object
) -> list[Completion]:
    model = loading.load_model(directory, "cpu", "float32")
    return decode(model, prompts, STOPS, max_new_tokens=24, **options)  # type: ignore[arg-type]


def test_equals_one_prompt_at_a_time_without_a_cache(tiny_expert: Path) -> None:
    """The oracle runs the whole prefix anew for each token, in float64."""
    model = AutoModelForCausalLM.from_pretrained(tiny_expert, dtype=torch.float64)
    for prompt, found in zip(PROMPTS, completions(tiny_expert), strict=True):
        ids: list[int] = []
        while len(ids) < 24 and not (ids and ids[-1] in STOPS):
            with torch.no_grad():
                ids.append(model(torch.tensor([prompt + ids])).logits[0, -1].argmax().item())
        assert found.ids == ids
        assert found.finish_reason == ("stop" if ids[-1] in STOPS else "length")


@pytest.mark.parametrize("prefix", [[42], [9, 8, 7] * 10])
def test_a_prefix_that_all_prompts_share_is_read_once(tiny_expert: Path, prefix: list[int]) -> None:
    shared = [prefix + prompt for prompt in PROMPTS]
    assert completions(tiny_expert, shared) == completions(tiny_expert, shared, batch_size=1)


@pytest.mark.parametrize("family", ["mistral", "gemma3_text", "qwen2"])
def test_windows_shorter_than_the_prompts(tiny_expert: Path, tmp_path: Path, family: str) -> None:
    """A window is counted in places of the cache, padding included; here it passes a shared prefix
    in the middle of the answers."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=259,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.3,
        sliding_window=16,
        use_sliding_window=True,
        max_window_layers=1,
        layer_types=["sliding_attention", "full_attention"] if family != "mistral" else None,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    shutil.copy(tiny_expert / "tokenizer.json", tmp_path)
    shared = [[*range(100, 112), *prompt] for prompt in PROMPTS]
    alone = completions(tmp_path, shared, batch_size=1)
    for size in (2, 3, 5):
        assert completions(tmp_path, shared, batch_size=size) == alone


MANY = [[7, 7, *range(row % 9), 100 + row] for row in range(60)]
"""Sixty prompts of nine lengths, which share their beginning."""


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("prompts", [MANY, [[200 + row % 50, *p] for row, p in enumerate(MANY)]])
def test_rows_that_end_are_filled_again(
    tiny_expert: Path, prompts: list[list[int]], temperature: float
) -> None:
    """Each prompt as if it were alone, and most rows at work: 60 prompts in 8 rows one batch after
    the other would take a live row in two."""
    model = loading.load_model(tiny_expert, "cpu", "float32")
    steps: list[int] = []

    def count(_: object, args: object, kwargs: dict[str, Any], output: object) -> None:
        steps.append(len(kwargs["input_ids"]) if kwargs["input_ids"].shape[1] == 1 else 0)

    def written(batch_size: int) -> list[Completion]:
        return decode(model, prompts, STOPS, 24, temperature, batch_size=batch_size)

    alone = written(1)
    model.register_forward_hook(count, with_kwargs=True)
    assert written(8) == alone
    live = sum(len(completion.ids) - 1 for completion in alone)
    assert live / (8 * sum(rows > 0 for rows in steps)) > 0.7
    assert max(steps) == 8


@pytest.mark.parametrize("prompts", [[[5, 6]] * 3, [[5, 6], [5, 6, 7], [5, 6, 7, 8]]])
def test_a_prompt_that_is_the_shared_prefix(tiny_expert: Path, prompts: list[list[int]]) -> None:
    assert completions(tiny_expert, prompts) == completions(tiny_expert, prompts, batch_size=1)


def test_some_end_and_some_run_out(tiny_expert: Path) -> None:
    reasons = {completion.finish_reason for completion in completions(tiny_expert)}
    assert reasons == {"stop", "length"}


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_any_batch_size_gives_the_same(tiny_expert: Path, size: int) -> None:
    assert completions(tiny_expert, batch_size=size) == completions(tiny_expert)


@pytest.mark.parametrize("size", [1, 4])
def test_sampling_depends_on_the_seed_alone(tiny_expert: Path, size: int) -> None:
    drawn = completions(tiny_expert, temperature=1.0, seeds=SEEDS, batch_size=size)
    assert drawn == completions(tiny_expert, temperature=1.0, seeds=SEEDS)
    assert drawn != completions(tiny_expert, temperature=1.0, seeds=[7 + seed for seed in SEEDS])


@pytest.mark.parametrize("every", [2, 16])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_how_often_the_host_looks_changes_nothing(
    tiny_expert: Path, monkeypatch: pytest.MonkeyPatch, every: int, temperature: float
) -> None:
    """Rows end by a stop id, by their length and by what the host reads in them."""
    model = loading.load_model(tiny_expert, "cpu", "float32")

    def written() -> list[Completion]:
        return decode(
            model, MANY, STOPS, 24, temperature, batch_size=8,
            is_over=lambda ids: len(ids) > 5 and sum(ids[-2:]) % 7 == 0,
        )  # fmt: skip

    expected = written()
    monkeypatch.setitem(decoding.LOOK_EVERY, "cpu", every)
    assert written() == expected


@pytest.mark.parametrize("every", [1, 16])
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_logits_that_are_not_finite_are_refused_whenever_the_host_looks(
    tiny_expert: Path, monkeypatch: pytest.MonkeyPatch, every: int, temperature: float
) -> None:
    """Those of the fourth token; what is then written until the host looks has rows to read."""
    monkeypatch.setitem(decoding.LOOK_EVERY, "cpu", every)
    model = loading.load_model(tiny_expert, "cpu", "float32")
    passes = itertools.count(1)
    model.lm_head.register_forward_hook(
        lambda _, states, logits: logits.fill_(torch.nan) if next(passes) == 4 else None
    )
    with pytest.raises(ModelError, match="NaN or infinite logits"):
        decode(model, PROMPTS[:1], set(), 24, temperature)
    assert next(passes) == (5 if every == 1 else 18)
