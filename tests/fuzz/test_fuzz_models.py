"""Model and adapter directories, damaged: they load, or are refused in a line that names them."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import model_faults
import pytest
from fuzzing import cope
from model_faults import Files

from lightreasoner.inference import loading, prompts, vocabulary
from lightreasoner.inference.decode import decode
from lightreasoner.inference.token_text import Texts
from lightreasoner.tuning import adapters

ADAPTER = {
    "base_model_name_or_path": "x", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"],
    "peft_type": "LORA", "task_type": "CAUSAL_LM",
}  # fmt: skip
EVERY = 60
"""Of the corpus, what the default tests try."""


def use(model: Path) -> None:
    """All that the stages do with a model's directory."""
    loading.resolve(str(model))
    vocabulary.check_pair(model, model)
    context = loading.context_length(model)
    tokenizer = loading.load_tokenizer(model)
    stop_ids = set(loading.ordered_stop_ids(model, tokenizer))
    ids = prompts.encode("1+1?", "qwen25-math-cot", tokenizer)
    if tokenizer.chat_template and len(ids) < context:
        prompts.encode("1", "chat", tokenizer)
    loading.load_skeleton(model)
    completion = decode(loading.load_model(model, "cpu", "float32"), [ids], stop_ids, 2)[0]
    prompts.response(completion.ids, False, "cot", tokenizer)
    Texts(model).running(ids)


@pytest.fixture(scope="module")
def good(tiny_expert: Path) -> dict[str, bytes]:
    return model_faults.files_of(tiny_expert)


@pytest.fixture
def attempt(tmp_path: Path, good: dict[str, bytes]) -> Callable[[Files], None]:
    """Uses the good model with some files in the place of its own."""
    case = tmp_path / "case"
    case.mkdir()

    def attempt(files: Files) -> None:
        for file in case.iterdir():
            file.unlink()
        for name, content in {**good, **files}.items():
            if content is not None:
                (case / name).write_bytes(content)
        use(case)

    return attempt


def test_the_good_model_is_used(attempt: Callable[[Files], None]) -> None:
    attempt({})


def try_corpus(good: dict[str, bytes], attempt: Callable[[Files], None], step: int) -> None:
    for name, files in list(model_faults.corpus(good))[::step]:
        try:
            cope(lambda files=files: attempt(files))  # type: ignore[misc]
        except BaseException as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error


def test_some_known_faults(good: dict[str, bytes], attempt: Callable[[Files], None]) -> None:
    try_corpus(good, attempt, EVERY)


@pytest.mark.nightly
def test_all_known_faults(good: dict[str, bytes], attempt: Callable[[Files], None]) -> None:
    try_corpus(good, attempt, 1)


def test_random_faults(good: dict[str, bytes], attempt: Callable[[Files], None], fuzz: Any) -> None:
    fuzz(lambda rng: model_faults.random_files(rng, good), attempt, quick=25)


def test_adapters(tiny_expert: Path, tmp_path: Path, fuzz: Any) -> None:
    """Settings and weights damaged at random."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        loading.load_model(tiny_expert, "cpu", "float32"),
        LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"]),
    )
    model.save_pretrained(tmp_path / "good", save_embedding_layers=False)
    weights = (tmp_path / "good" / adapters.WEIGHTS).read_bytes()
    case = tmp_path / "case"
    case.mkdir()

    def make(rng: Random) -> tuple[bytes, bytes]:
        settings = json.dumps(ADAPTER).encode()
        if rng.random() < 0.8:
            settings = model_faults.odd(rng, {**ADAPTER, "rank_pattern": {}, "bias": "none"})
        return settings, model_faults.odd_weights(rng, weights) if rng.random() < 0.5 else weights

    def attempt(content: tuple[bytes, bytes]) -> None:
        (case / adapters.ADAPTER_CONFIG).write_bytes(content[0])
        (case / adapters.WEIGHTS).write_bytes(content[1])
        adapters.check_tensors(adapters.read_adapter(case), tiny_expert)

    attempt((json.dumps(ADAPTER).encode(), weights))
    fuzz(make, attempt, quick=20)
