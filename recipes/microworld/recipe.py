"""The recipe of the micro-world's expert and amateur: from problems to two model directories.

`build` trains one tokenizer and both models from scratch, in one schedule, and writes

    recipe.json        the hyper-parameters
    checksums.sha256   of every other file, in the format of sha256sum
    expert/, amateur/  ordinary Hugging Face directories, each with a model card

Weights are stored in fp16 and meant to be computed in float32; the card says what the rounding
changes. The models shipped in `models/` came out of `build` with the default recipe.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from lightreasoner.data.microworld import SetName, draw
from lightreasoner.storage import outputs
from recipes.microworld.card import Card, Measured, write_card, write_checksums
from recipes.microworld.corpus import END_OF_TEXT, Mix, Shares, documents
from recipes.microworld.measure import accuracy, answer
from recipes.microworld.pretraining import batches, encode, pretrain, train_tokenizer

Role = Literal["expert", "amateur"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRecipe(_Section):
    """Size and schooling of one model. `documents` are read once each."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    documents: int
    mix: Mix


class Recipe(_Section):
    """All that `build` depends on beside the seed."""

    vocab_size: int = 800
    tokenizer_documents: int = 6000
    shares: Shares = Shares()
    question_weight: float = 0.1
    batch_size: int = 64
    learning_rate: float = 4e-3
    warmup_steps: int = 20
    decay_fraction: float = 0.4
    expert: ModelRecipe = ModelRecipe(
        hidden_size=128,
        intermediate_size=352,
        layers=3,
        heads=4,
        documents=48000,
        mix=Mix(clean=0.36, habit=0.59, slip=0.03, guess=0.02),
    )
    amateur: ModelRecipe = ModelRecipe(
        hidden_size=96,
        intermediate_size=256,
        layers=2,
        heads=4,
        documents=24000,
        mix=Mix(clean=0.03, habit=0.88, slip=0.03, guess=0.06),
    )
    # What the model cards report: problems of the `evaluate` split.
    card_problems: dict[SetName, int] = {"tuned": 500, "transfer": 200, "chain_sum": 200}
    card_seed: int = 0


def build(out: Path, seed: int, recipe: Recipe | None = None, commit: str | None = None) -> None:
    """Train tokenizer, expert and amateur into `out`, which must be new or empty (ArtifactError).

    Runs on one CPU thread: at this size two are no faster. `commit` is for the cards.
    """
    recipe = recipe or Recipe()
    outputs.check_empty(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
    with _one_thread():
        tokenizer = _tokenizer(recipe, seed)
        roles: tuple[tuple[Role, ModelRecipe], ...] = (
            ("expert", recipe.expert),
            ("amateur", recipe.amateur),
        )
        for role, section in roles:
            _build_model(out / role, role, section, tokenizer, recipe, seed, commit)
    write_checksums(out)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread, and the caller's thread count and random state restored afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


def _tokenizer(recipe: Recipe, seed: int) -> PreTrainedTokenizerFast:
    rng = Random(f"{seed}/tokenizer")
    read = documents(recipe.tokenizer_documents, recipe.expert.mix, recipe.shares, 0.0, rng)
    texts = ("".join(piece.text for piece in document) for document in read)
    return train_tokenizer(texts, recipe.vocab_size)


def _build_model(
    out: Path,
    role: Role,
    section: ModelRecipe,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    seed: int,
    commit: str | None,
) -> None:
    started = time.monotonic()
    rng = Random(f"{seed}/{role}")
    read = documents(section.documents, section.mix, recipe.shares, recipe.question_weight, rng)
    encoded = [encode(document, tokenizer) for document in read]
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(_config(section, tokenizer))
    pretrain(
        model,
        batches(encoded, recipe.batch_size, rng),
        recipe.learning_rate,
        recipe.warmup_steps,
        recipe.decay_fraction,
        role,
    )
    seconds = time.monotonic() - started
    stored = _store(model, tokenizer, out)
    card = Card(
        role=role,
        seed=seed,
        commit=commit,
        seconds=seconds,
        parameters=model.num_parameters(),
        tokens=sum(len(document.ids) for document in encoded),
        mix=section.mix,
        measured=_measure(model, stored, tokenizer, recipe),
    )
    write_card(card, out)


def _config(section: ModelRecipe, tokenizer: PreTrainedTokenizerFast) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=section.hidden_size,
        intermediate_size=section.intermediate_size,
        num_hidden_layers=section.layers,
        num_attention_heads=section.heads,
        num_key_value_heads=section.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _store(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path
) -> Qwen2ForCausalLM:
    """Write fp16 weights, configuration and tokenizer; return the model as it reads back."""
    end_ids = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(END_OF_TEXT)]
    model.generation_config = GenerationConfig(
        eos_token_id=end_ids, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    half = deepcopy(model).half()
    half.save_pretrained(out)
    # What `from_pretrained` computes in, unless told otherwise.
    config = Qwen2Config.from_pretrained(out)
    config.dtype = torch.float32
    config.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return Qwen2ForCausalLM.from_pretrained(out, dtype=torch.float32).eval()


def _measure(
    model: Qwen2ForCausalLM,
    stored: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
) -> dict[SetName, Measured]:
    """Accuracies before and after storage, and how many answers are the same, token by token."""
    found: dict[SetName, Measured] = {}
    for name, n in recipe.card_problems.items():
        problems = draw(name, "evaluate", n, recipe.card_seed)
        before = answer(model, tokenizer, problems)
        after = answer(stored, tokenizer, problems)
        found[name] = Measured(
            trained=accuracy(tokenizer, problems, before),
            stored=accuracy(tokenizer, problems, after),
            same_answers=sum(a == b for a, b in zip(before, after, strict=True)),
        )
    return found
