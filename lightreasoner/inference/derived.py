"""Amateurs that are made of the expert as it is loaded: no second model, no files of their own.

self:layers:N   config.json with N layers less: the last N are not read, and what the layer before
                them puts out goes to the expert's own last norm and LM head ("early exit")
self:bits:N     each row w of each matrix (embeddings and head, too; a row of a linear layer is an
                output channel) becomes s round(w / s), s = max |w| / (2^(N-1) - 1): symmetric,
                round to nearest, so that 2 bits leave -s, 0 and s; computed in float32
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightreasoner.derivation import Derivation
from lightreasoner.errors import ModelError
from lightreasoner.inference.model_files import configured, read_settings
from lightreasoner.storage.artifacts import Artifact

if TYPE_CHECKING:
    from torch import nn

LAYERS = "num_hidden_layers"


def of(expert: Artifact, derivation: Derivation) -> Artifact:
    """The amateur: the expert's files, the expert's digest and the derivation's name for its own.

    Raises ModelError for as many layers as the expert has, if its files are here.
    """
    config = expert.path / "config.json"
    if derivation.kind == "layers" and config.is_file():
        has = configured(config, LAYERS)
        if derivation.n >= has:
            raise ModelError(
                f"{derivation}: leaves none of the {has} layers of {expert.path}; leave out fewer"
            )
    return replace(expert, digest=f"{expert.digest}+{derivation}", derivation=derivation)


def settings(path: Path, derivation: Derivation | None) -> dict[str, Any]:
    """What replaces entries of the expert's config.json."""
    if derivation is None or derivation.kind != "layers":
        return {}
    kept = configured(path / "config.json", LAYERS) - derivation.n
    kinds = read_settings(path / "config.json").get("layer_types")
    return {LAYERS: kept, **({"layer_types": kinds[:kept]} if kinds else {})}


def round_rows(model: "nn.Module", bits: int) -> None:
    """Round each row of each matrix to `bits` bits, in place."""
    import torch

    most = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for weight in model.parameters():  # tied ones come once
            if weight.dim() > 1:
                wide = weight.float()
                scale = wide.abs().amax(dim=-1, keepdim=True) / most
                weight.copy_((wide / scale.clamp(min=1e-30)).round() * scale)
