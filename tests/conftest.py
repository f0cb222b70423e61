"""Shared parts: two tiny random models of one vocabulary, and problems for them."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsing
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from flows import environment
from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.data import problems
from lightreasoner.data.problems import Problem
from lightreasoner.storage import tables

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pytest_configure(config: pytest.Config) -> None:
    """Before any test imports Prefect: nothing phones home, and no state is the user's."""
    folder = tempfile.TemporaryDirectory(prefix="lightreasoner-tests-")
    config.add_cleanup(folder.cleanup)
    environment.prepare_environment(Path(folder.name))


@pytest.fixture(autouse=True)
def shell() -> Iterator[None]:
    """What a command line sets in the environment (flows/environment.py) ends with its test.

    But for what Ray reads once in a process, its token.
    """
    before = dict(os.environ)
    yield
    kept = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    os.environ.clear()
    os.environ.update(before | kept)


def write_tokenizer(path: Path, extra: list[str] | None = None) -> None:
    """A byte-level tokenizer of 256 bytes and three special tokens, ChatML as its template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(alphabet + (extra or []))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(path)


def write_model(path: Path, seed: int, hidden: int, layers: int, vocab_size: int = 259) -> Path:
    """A random Qwen2 model with a wide spread of logits, so that labels have several tokens."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=258,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(path)
    write_tokenizer(path)
    return path


@pytest.fixture(scope="session")
def tiny_expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Qwen2 model's directory."""
    return write_model(tmp_path_factory.mktemp("expert"), seed=1, hidden=32, layers=2)


@pytest.fixture(scope="session")
def tiny_amateur(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller random model of the same vocabulary."""
    return write_model(tmp_path_factory.mktemp("amateur"), seed=2, hidden=16, layers=1)


@pytest.fixture(scope="session")
def problems_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small problems as JSONL."""
    path = tmp_path_factory.mktemp("problems") / "train.jsonl"
    rows = [
        {"question": f"What is {n} + {n + 1}?", "answer": f"{n}+{n + 1}\n#### {2 * n + 1}"}
        for n in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright."""
    with browsing.chromium() as running:
        yield running


@pytest.fixture
def samples_dir(tmp_path: Path) -> Path:
    """Three trajectories with 1, 2 and 3 samples, of one and two tokens; `problems` beside them."""
    directory = tmp_path / "samples"
    directory.mkdir()
    one, two = ([40], [1.0]), ([41, 42], [0.75, 0.25])
    rows = [("a", 0, *one), ("b", 1, *two), ("b", 3, *one)]
    rows += [("c", 0, *two), ("c", 2, *two), ("c", 4, *one)]
    columns = [*map(list, zip(*rows, strict=True)), [0.5] * 6]
    tables.write(pa.table(columns, tables.SAMPLES), tables.SAMPLES, directory / "samples.parquet")
    trajectories = pa.table(
        [["a", "b", "c"], [[1, 2], [3, 4, 5], [6]], [[9, 8], [7] * 5, [6] * 6], ["stop"] * 3],
        tables.TRAJECTORIES,
    )
    tables.write(trajectories, tables.TRAJECTORIES, directory / "trajectories.parquet")
    (tmp_path / "problems").mkdir()
    rows = [Problem(name, "What is it?", "7", "so it is 7") for name in "abc"]
    problems.write(rows, tmp_path / "problems" / "problems.jsonl")
    return directory


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is out of reach at once, without the seconds of its clients' retries."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def tiny_params(tiny_expert: Path, tiny_amateur: Path, problems_file: Path) -> Params:
    """Parameters of a pipeline of seconds: two random models, six problems, two updates."""
    source = {"source": str(problems_file), "n_problems": 6}
    tree = {
        "models": {"expert": str(tiny_expert), "amateur": str(tiny_amateur)},
        "compute": {"device": "cpu"},
        "prepare": {**source, "problem_set": "small"},
        "generate": {"max_new_tokens": 6},
        "score": {},
        "select": {"beta": 0.0},
        "finetune": {"updates": 2, "samples_per_update": 4, "samples_per_forward": 4},
        "merge": {"parity_prompts": 2},
        "evaluate": {**source, "problem_sets": ["small"], "max_new_tokens": 4},
        "register": {"name": "tiny"},
        "sft": {"n_problems": 6, "max_new_tokens": 4, "updates": 1},
    }
    return config.parse(tree, "test")
