"""Models and tokenizers: found by name, checked before they are loaded, safetensors only."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightreasoner import derivation, untrusted
from lightreasoner.derivation import Derivation
from lightreasoner.errors import ModelError
from lightreasoner.inference import derived
from lightreasoner.inference.model_files import (
    check_tokenizer,
    check_weights,
    configured,
    read_settings,
    reading,
)
from lightreasoner.inference.vocabulary import Vocabulary, vocabulary_size
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MICROWORLD = Path(__file__).parents[1] / "microworld" / "models"
HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja"]
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
SAFELY: dict[str, Any] = {
    "use_safetensors": True,
    "trust_remote_code": False,
    "local_files_only": True,
}
"""How a model's files are read: no pickles, no code, no network."""

STOP_TOKENS = ("<|im_end|>", "<|endoftext|>", "</s>")


def resolve(name: str) -> Artifact:
    """The directory of a model and what identifies it.

    `microworld/expert` and `microworld/amateur` are the shipped ones; an existing directory is
    identified by its files' digest, `.cache` and `.git` left out; `owner/name@commit` is fetched
    from the hub (weights in safetensors, no code) and identified by its name and commit. Raises
    ModelError.
    """
    if directory := _directory(name):
        return _checked(directory)
    if not artifacts.is_pinned(name):
        raise ModelError(
            f"model {untrusted.shown(name)} is neither a directory nor owner/name@commit of the "
            "hub (40 hexadecimal digits); give one of these, or microworld/expert"
        )
    owner_and_name, _, revision = name.partition("@")
    return _checked(_download(owner_and_name, revision), name)


def resolve_amateur(name: str, expert: str) -> Artifact:
    """As `resolve`, or what a derivation makes of the expert. Raises ModelError."""
    made = derivation.parse(name)
    return derived.of(resolve(expert), made) if made else resolve(name)


def is_model_at(name: str, directory: Path) -> bool:
    """Whether a name means the model of this directory, whatever the current folder."""
    named = _directory(name)
    return named is not None and named.samefile(directory)


def _directory(name: str) -> Path | None:
    """The directory that a name means, if it is one here."""
    shipped = MICROWORLD / name.removeprefix("microworld/")
    if name.startswith("microworld/") and shipped.is_dir():
        return shipped
    return Path(name) if os.path.isdir(name) else None  # noqa: PTH112, False for odd names


def _download(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    # It tells of every retry, and then of the last one's reason again.
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"model {name}@{revision} cannot be fetched from the hub ({reason}); check the name, "
            "the commit and the network, or give a local directory"
        ) from error


def _checked(path: Path, digest: str | None = None) -> Artifact:
    """Raise ModelError for a directory that is not a model, or one that cannot be read here."""
    check_weights(path)
    check_tokenizer(path)
    _ends_in_files(path)
    return Artifact(path, digest) if digest else artifacts.given(path)


def context_length(path: Path) -> int:
    """How many tokens the model's positions reach. Raises ModelError.

    Those of a model with long RoPE end where it takes other frequencies, for a whole batch at once:
    what it computes for one row would depend on the others.
    """
    config = read_settings(path / "config.json")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ModelError(
            f"{path / 'config.json'}: rope_parameters must be an object, got "
            f"{untrusted.shown(rope, 80)}; fetch the file again"
        )
    original = "original_max_position_embeddings"
    if "longrope" in (rope.get("rope_type"), rope.get("type")):
        return configured(path / "config.json", original, rope)
    return configured(path / "config.json", "max_position_embeddings")


def load_model(
    path: Path, device: str, dtype: str, made: Derivation | None = None
) -> "PreTrainedModel":
    """A causal language model in inference mode, or what a derivation makes of it.

    Raises ModelError for what cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as progress

    check_weights(path)
    progress.disable_progress_bar()
    _check_fit(path)
    with reading(path):
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, dtype), **derived.settings(path, made), **SAFELY
        )
        _check_cache(path, model)
        model = model.to(device).eval()
        if made and made.kind == "bits":
            derived.round_rows(model, made.n)
        _check_numbers(path, model)
    return model


def _check_fit(path: Path) -> None:
    """Refuse weights that are not the configuration's, one by one, before any is read or made."""
    from transformers import AutoModelForCausalLM

    for name in ("modeling_utils", "distributed.tensor_parallel"):  # tables of what does not fit
        logging.getLogger(f"transformers.{name}").setLevel(logging.ERROR)
    with reading(path):
        _, found = AutoModelForCausalLM.from_pretrained(
            path,
            device_map="meta",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **SAFELY,
        )
    again = "fetch or save the model again"
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f"{path}: {len(missing)} weights are missing, the first is {missing[0]}; they would be "
            f"random, so {again}"
        )
    for name, there, wanted in sorted(found["mismatched_keys"]):
        raise ModelError(
            f"{path}: {name} has the shape {list(there)}, by config.json {list(wanted)}; {again}"
        )
    if unexpected := sorted(found["unexpected_keys"]):
        raise ModelError(
            f"{path}: {len(unexpected)} weights have no place in a model of config.json, the first "
            f"is {untrusted.shown(unexpected[0], 80)}; {again}"
        )


def _check_numbers(path: Path, model: "PreTrainedModel") -> None:
    """Refuse weights and buffers that are not finite, and a model that fails on a few tokens."""
    import torch

    for name, weight in model.named_parameters():
        # The sum is quick, but finite weights may have one that is not.
        if not weight.sum(dtype=torch.float32).isfinite() and not weight.isfinite().all():
            raise ModelError(f"{path}: the weight {name} is not finite; fetch or make it again")
    for name, buffer in model.named_buffers():  # some CPUs' attention passes over their NaN
        if not buffer.isfinite().all():
            raise ModelError(f"{path}: config.json makes {name} not finite; fetch or make it again")
    with torch.inference_mode():
        few = torch.zeros(1, 8, dtype=torch.long, device=model.device)
        logits = model(input_ids=few, use_cache=False).logits
    if not logits.isfinite().all():
        raise ModelError(
            f"{path}: gives NaN or infinite logits in {model.dtype}; try compute.dtype float32 or "
            "check the weights and config.json"
        )


def load_skeleton(path: Path) -> "PreTrainedModel":
    """The model without its weights, its tensors on the device `meta`. Raises ModelError."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with reading(path), torch.device("meta"):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        return AutoModelForCausalLM.from_config(config)


def _check_cache(path: Path, model: "PreTrainedModel") -> None:
    """Refuse a model whose state is more than keys and values of each layer."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ()) - ATTENTION
    if kinds or getattr(config, "num_kv_shared_layers", None) or model._is_stateful:
        found = ", ".join(sorted(kinds)) or "states or layers that share them"
        raise ModelError(
            f"{path}: {config.model_type} keeps more than keys and values of each layer ({found}), "
            "which decoding here does not support; use a decoder such as Qwen2 or Llama"
        )


def load_tokenizer(path: Path) -> "PreTrainedTokenizerBase":
    """The model's fast tokenizer."""
    from transformers import AutoTokenizer

    check_tokenizer(path)
    with reading(path):
        tokenizer = AutoTokenizer.from_pretrained(
            path, trust_remote_code=False, local_files_only=True
        )
        if not tokenizer.decode(tokenizer("1 + 1 = 2")["input_ids"]).strip():
            raise ValueError("it makes nothing of a text")
    return tokenizer


def stop_ids(path: Path, tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The ids that end a response: end-of-text and end-of-turn, by the model's own files."""
    added = {token: id_ for id_, token in Vocabulary(path).added.items()}
    known = {added[token] for token in STOP_TOKENS if token in added}
    return known | set(_declared_ends(path, tokenizer))


def end_id(path: Path, tokenizer: "PreTrainedTokenizerBase") -> int:
    """The id that ends a response which the model is taught: one of `stop_ids`.

    It is the first that generation_config.json names, else config.json, else the tokenizer: what
    the model's makers end its own responses with. Raises ModelError if none names any.
    """
    declared = _declared_ends(path, tokenizer)
    if not declared:
        raise ModelError(
            f"{path}: no file names an end token; set eos_token_id in generation_config.json"
        )
    return declared[0]


def ordered_stop_ids(path: Path, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """`stop_ids`, those that a file of the model names before the others: the first is `end_id`."""
    named = _declared_ends(path, tokenizer)
    return list(dict.fromkeys([*named, *sorted(stop_ids(path, tokenizer))]))


def _declared_ends(path: Path, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """End ids by the generation's, the model's and the tokenizer's settings, in this order."""
    last = tokenizer.eos_token_id
    return _ends_in_files(path) if last is None else [*_ends_in_files(path), last]


def _ends_in_files(path: Path) -> list[int]:
    """Those by the generation's and the model's settings. Raises ModelError for other kinds."""
    declared: list[int] = []
    size = vocabulary_size(path)
    for file in (path / "generation_config.json", path / "config.json"):
        eos = read_settings(file).get("eos_token_id") if file.is_file() else None
        ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
        if any(type(id_) is not int or not 0 <= id_ < size for id_ in ids):
            raise ModelError(
                f"{file}: eos_token_id must be an id or a list of ids below the vocabulary's "
                f"{size}, got {untrusted.shown(eos, 80)}; write the token's number"
            )
        declared += ids
    return declared
