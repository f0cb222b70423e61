"""A LoRA adapter from a directory: whose it is, and whether its tensors are the expert's, one by
one; only then is it put onto a model.

peft itself leaves out what it has no place for, and keeps zeros where a tensor is missing: the
model would be the expert still, or half tuned, and nothing would say so.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightreasoner.errors import ArtifactError, LightReasonerError, ModelError
from lightreasoner.inference import loading
from lightreasoner.inference.model_files import ADAPTER_CONFIG, check_links, read_settings, reading
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.untrusted import one_line, shown

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
KINDS: dict[str, tuple[type, ...]] = {
    "base_model_name_or_path": (str,),
    "r": (int,),
    "lora_alpha": (int, float),
    "target_modules": (list, str),
}
"""The fields of every adapter's settings, and their types."""
SHAPING = {
    *KINDS, "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias", "bias",
    "layers_to_transform", "layers_pattern", "exclude_modules", "fan_in_fan_out", "modules_to_save",
}  # fmt: skip
"""The settings that say what an adapter computes; peft's other kinds of LoRA are refused."""
SILENT = {"revision", "task_type", "peft_version", "inference_mode", "auto_mapping", "lora_dropout"}
PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern")
"""The settings whose texts peft takes for regular expressions."""

SLOW = re.compile(r"\)[*+{]|([*+{].*){4}", re.DOTALL)
"""Of these, what can take for ever to match: a repeated group, or four parts of any length."""

FRESH = (True, False, "gaussian", "orthogonal")
"""Values of init_lora_weights that leave the expert's own weights alone."""


@dataclass(frozen=True)
class Adapter:
    """An adapter's directory and its settings, checked as far as they go without a model."""

    path: Path
    settings: dict[str, Any]

    def config(self) -> "LoraConfig":
        """The settings as peft's. Raises ArtifactError for those that are not plain LoRA."""
        from peft import LoraConfig

        default = LoraConfig().to_dict() | {"peft_type": "LORA"}
        start = self.settings.get("init_lora_weights", True)
        odd = [
            f"{name} {value!r:.40}"
            for name, value in self.settings.items()
            if name not in SHAPING | SILENT | {"init_lora_weights"}
            and (name == "peft_type" or value)
            and value != default.get(name)
        ]
        odd += [] if start in FRESH else [f"init_lora_weights {start!r:.40}"]
        if odd:
            raise ArtifactError(
                f"{self.path / ADAPTER_CONFIG}: {odd[0]} is not plain LoRA, and nothing else "
                "is merged here; convert it, or merge it with peft"
            )
        shaping = {name: self.settings[name] for name in SHAPING & self.settings.keys()}
        return LoraConfig(**shaping, task_type="CAUSAL_LM", inference_mode=True)


def read_adapter(directory: Path) -> Adapter:
    """The adapter of a directory in peft's layout. Raises ArtifactError for a damaged one."""
    path = directory / ADAPTER_CONFIG
    for file in (path, directory / WEIGHTS):
        if not file.is_file():
            raise ArtifactError(f"{file}: no such file; give a directory that finetune wrote")
    try:
        check_links(directory)
        settings = read_settings(path)
    except ModelError as error:
        raise ArtifactError(f"not an adapter's files: {error}") from error
    if missing := [name for name in KINDS if name not in settings]:
        raise ArtifactError(f"{path}: lacks {', '.join(missing)}; give an adapter of finetune")
    for name, kinds in KINDS.items():
        if type(value := settings[name]) not in kinds:
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise ArtifactError(
                f"{path}: {name} must be {wanted}, got {shown(value, 80)}; save it again"
            )
    if settings["r"] < 1 or not all(isinstance(name, str) for name in settings["target_modules"]):
        raise ArtifactError(
            f"{path}: r must be at least 1 and target_modules names, got {settings['r']} and "
            f"{shown(settings['target_modules'], 80)}; save it again"
        )
    _check_patterns(path, settings)
    return Adapter(directory, settings)


def _check_patterns(path: Path, settings: dict[str, Any]) -> None:
    for name in PATTERNS:
        value = settings.get(name)
        for text in [value] if isinstance(value, str) else value if isinstance(value, dict) else ():
            if SLOW.search(text):
                raise ArtifactError(
                    f"{path}: {name} has {shown(text, 80)}, whose repeated parts can take for ever "
                    "to match; name the layers one by one"
                )


def check_base(adapter: Adapter, expert: Artifact) -> None:
    """Refuse an adapter that names another model than this expert as its base; ArtifactError.

    It may name it by its digest, as `revision` also, by the hub's id with or without the commit, or
    by its directory as seen from here.
    """
    base = adapter.settings["base_model_name_or_path"]
    revision = adapter.settings.get("revision")
    if expert.digest in (base, revision) or loading.is_model_at(base, expert.path):
        return
    name, _, commit = expert.digest.partition("@")
    if artifacts.is_pinned(expert.digest) and base == name and revision in (None, "main", commit):
        return
    at = f" at {revision!r:.60}" if revision else ""
    raise ArtifactError(
        f"{adapter.path}: its base is {base!r:.200}{at}, this expert is {expert.path} "
        f"({expert.digest}); give models.expert that base, or correct base_model_name_or_path in "
        f"{ADAPTER_CONFIG}"
    )


def check_tensors(adapter: Adapter, model_dir: Path) -> "PreTrainedModel":
    """The model without weights, wearing the adapter's layers, if their tensors are those that the
    file has: every one, of its shape, and no other. Raises ArtifactError that names the first.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    skeleton = loading.load_skeleton(model_dir)
    wanted = {
        name: list(tensor.shape)
        for name, tensor in get_peft_model_state_dict(
            _dress(skeleton, adapter), save_embedding_layers=False
        ).items()
    }
    path = adapter.path / WEIGHTS
    try:
        with reading(path), safe_open(path, "pt") as file:
            found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except ModelError as error:
        raise ArtifactError(f"not an adapter's weights: {error}") from error
    again = f"give an adapter that peft saved for {model_dir}"
    if missing := [name for name in wanted if name not in found]:
        raise ArtifactError(
            f"{path}: lacks {len(missing)} of the {len(wanted)} tensors of the model's LoRA layers,"
            f" the first is {missing[0]}; {again}"
        )
    if unexpected := [name for name in found if name not in wanted]:
        raise ArtifactError(
            f"{path}: {len(unexpected)} tensors have no place in the model, the first is "
            f"{unexpected[0]}; {again}"
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise ArtifactError(
                f"{path}: {name} has the shape {found[name]}, but {shape} by the model and r "
                f"{adapter.settings['r']} in {ADAPTER_CONFIG}; {again}"
            )
    return skeleton


def put_on(model: "PreTrainedModel", adapter: Adapter) -> "PeftModel":
    """The model wearing an adapter whose tensors were checked, in inference mode.

    What of the model's own the adapter may replace, biases and `modules_to_save`, is float32.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    tuned, path = _dress(model, adapter), adapter.path / WEIGHTS
    for name, weight in tuned.named_parameters():
        if weight.dim() == 1 or "modules_to_save" in name:
            weight.data = weight.data.float()
    with reading(path):
        set_peft_model_state_dict(tuned, load_file(path))
    return tuned.eval()


def _dress(model: "PreTrainedModel", adapter: Adapter) -> "PeftModel":
    """The model with the adapter's layers, new ones."""
    from peft import PeftModel

    try:
        return PeftModel(model, adapter.config())
    except LightReasonerError:
        raise
    except Exception as error:  # whatever peft makes of settings of another kind
        raise ArtifactError(
            f"{adapter.path / ADAPTER_CONFIG}: peft cannot put it on this model "
            f"({one_line(error)}); give an adapter of this expert"
        ) from error
