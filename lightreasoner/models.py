"""Models and tokenizers: found by name, checked before they are loaded, safetensors only."""

import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightreasoner import artifacts
from lightreasoner.artifacts import Artifact
from lightreasoner.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MICROWORLD = Path(__file__).parent / "microworld" / "models"
PICKLED_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt"}
HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja"]
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
STOP_TOKENS = ("<|im_end|>", "<|endoftext|>", "</s>")


def resolve(name: str) -> Artifact:
    """The directory of a model and what identifies it.

    `microworld/expert` and `microworld/amateur` are the shipped ones; an existing directory is
    identified by its files' digest; `owner/name@commit` is fetched from the hub (weights in
    safetensors, no code) and identified by its name and commit. Raises ModelError.
    """
    shipped = MICROWORLD / name.removeprefix("microworld/")
    if name.startswith("microworld/") and shipped.is_dir():
        return _checked(shipped, artifacts.digest(shipped))
    if Path(name).is_dir():
        return _checked(Path(name), artifacts.digest(Path(name)))
    if not artifacts.is_pinned(name):
        raise ModelError(
            f"model {name!r} is neither a directory nor owner/name@commit of the hub (40 "
            "hexadecimal digits); give one of these, or microworld/expert"
        )
    owner_and_name, _, revision = name.partition("@")
    return _checked(_download(owner_and_name, revision), name)


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


def _checked(path: Path, digest: str) -> Artifact:
    """Refuse a directory that is no model, or that holds pickled weights only."""
    if not (path / "config.json").is_file():
        raise ModelError(f"{path}: no config.json; give a directory in the Hugging Face layout")
    if not any(path.glob("*.safetensors")):
        pickled = sorted(file.name for file in path.iterdir() if file.suffix in PICKLED_SUFFIXES)
        found = f"pickled weights only ({', '.join(pickled)})" if pickled else "no weights"
        raise ModelError(
            f"{path}: holds {found}; only safetensors are read, so convert them with "
            "save_pretrained(..., safe_serialization=True)"
        )
    if not (path / "tokenizer.json").is_file():
        raise ModelError(f"{path}: no tokenizer.json; save the model's fast tokenizer beside it")
    return Artifact(path, digest)


@dataclass(frozen=True)
class Vocabulary:
    """The ids of a tokenizer.json: `ordinary` tokens, and `added` ones (special or not)."""

    path: Path

    @cached_property
    def _tree(self) -> dict[str, Any]:
        return json.loads((self.path / "tokenizer.json").read_text(encoding="utf-8"))

    @cached_property
    def added(self) -> dict[int, str]:
        """Added tokens by id."""
        return {token["id"]: token["content"] for token in self._tree.get("added_tokens", [])}

    @cached_property
    def tokens(self) -> dict[int, str]:
        """All tokens by id."""
        vocab = self._tree["model"]["vocab"]
        if isinstance(vocab, list):  # a unigram model's pairs of token and score
            return {id_: token for id_, (token, _) in enumerate(vocab)} | self.added
        return {id_: token for token, id_ in vocab.items()} | self.added

    @property
    def ordinary(self) -> set[int]:
        """Ids of the model's own tokens, added ones left out."""
        return self.tokens.keys() - self.added.keys()


def check_pair(expert: Path, amateur: Path) -> list[int]:
    """The ids that mean the same token in both vocabularies, ascending.

    Every ordinary token must have the same id in both, else ModelError names the first id that
    differs. Added tokens may differ; those that do are left out, as are those that one of the
    models has no row for.
    """
    pair = Vocabulary(expert), Vocabulary(amateur)
    ours, theirs = (vocabulary.tokens for vocabulary in pair)
    for id_ in sorted(pair[0].ordinary | pair[1].ordinary):
        if ours.get(id_) != theirs.get(id_):
            raise ModelError(
                f"expert {expert} and amateur {amateur} differ in ordinary token {id_}: "
                f"{ours.get(id_)!r} against {theirs.get(id_)!r}; give models.expert and "
                "models.amateur of one vocabulary"
            )
    rows = min(vocabulary_size(expert), vocabulary_size(amateur))
    return sorted(id_ for id_, token in ours.items() if theirs.get(id_) == token and id_ < rows)


def differing_tokens(expert: Path, amateur: Path) -> dict[int, tuple[str | None, str | None]]:
    """Added tokens that the two vocabularies do not share: id to (expert's, amateur's)."""
    ours, theirs = Vocabulary(expert).tokens, Vocabulary(amateur).tokens
    return {
        id_: (ours.get(id_), theirs.get(id_))
        for id_ in sorted(ours.keys() | theirs.keys())
        if ours.get(id_) != theirs.get(id_)
    }


def context_length(path: Path) -> int:
    """How many tokens the model's positions reach. Raises ModelError.

    Those of a model with long RoPE end where it takes other frequencies, for a whole batch at once:
    what it computes for one row would depend on the others.
    """
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    original = "original_max_position_embeddings"
    if "longrope" in (rope.get("rope_type"), rope.get("type")):
        return int(rope.get(original) or _configured(path / "config.json", original))
    return _configured(path / "config.json", "max_position_embeddings")


def vocabulary_size(path: Path) -> int:
    """How many token ids the model has a row for. Raises ModelError."""
    return _configured(path / "config.json", "vocab_size")


def _configured(config: Path, field: str) -> int:
    """A number at the top level of a model's config.json."""
    value = json.loads(config.read_text(encoding="utf-8")).get(field)
    if not isinstance(value, int):
        raise ModelError(
            f"{config}: {field} must be a number at its top level, got {value!r}; models that "
            "name or nest it otherwise are not supported"
        )
    return value


def load_model(path: Path, device: str, dtype: str) -> "PreTrainedModel":
    """A causal language model in inference mode. Raises ModelError for what cannot be loaded."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (ImportError, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first_line = (str(error).strip() or "no detail").splitlines()[0]
        raise ModelError(f"{path}: cannot be loaded ({first_line})") from error
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(
            f"{path}: {len(missing)} weights are missing, the first is {missing[0]}; they would be "
            "random, so fetch or save the model again"
        )
    _check_cache(path, model)
    return model.to(device).eval()


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

    return AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)


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
    declared: list[int | None] = []
    for file in (path / "generation_config.json", path / "config.json"):
        if file.is_file():
            eos = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
            declared += eos if isinstance(eos, list) else [eos]
    return [id_ for id_ in (*declared, tokenizer.eos_token_id) if id_ is not None]
