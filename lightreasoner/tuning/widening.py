"""A model that computes in float32 and is kept in bfloat16: a module is widened while it runs.

That is the arithmetic of a model which is float32 as a whole, bit for bit, in the memory of its
files and of its largest module. A LoRA layer can run with its update folded in, likewise.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightreasoner.inference import loading
from lightreasoner.tuning.kept_dtype import kept_dtype

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from transformers import PreTrainedModel


class Widening:
    """One model's: what the modules that run had for weights, the innermost last, and spare memory.

    That is used again: to get it anew takes ten times as long as to widen into it.
    """

    def __init__(self) -> None:
        self._running: list[dict[nn.Parameter, Tensor]] = []
        self._spare: dict[int, Tensor] = {}

    def load_model(self, model_dir: Path, device: str) -> "PreTrainedModel":
        """A model that computes in float32, its weights kept in `kept_dtype`. Raises ModelError.

        But one that makes buffers in the dtype of its weights, as Gemma does, is float32 as a
        whole.
        """
        model = loading.load_model(model_dir, device, kept_dtype(model_dir))
        if any(buffer.dtype == torch.bfloat16 for buffer in model.buffers()):
            del model
            return loading.load_model(model_dir, device, "float32")
        for module in model.modules():
            module.register_forward_pre_hook(self._widen)
            module.register_forward_hook(self._narrow)
        return model

    def fold_as_they_run(self, tuned: "PeftModel") -> None:
        """Let the LoRA layers compute with folded weights.

        Those kept in float32 are folded for good. Embeddings and head, which may share their
        weights, are made to be of these, so that both are folded, whichever runs.
        """
        model = tuned.get_base_model()
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        for layer in _lora_layers(tuned):
            if layer in ends:
                layer.get_base_layer().float()
            if layer.weight.dtype == torch.float32:
                layer.merge()
            else:
                layer.register_forward_pre_hook(self._merge)
                layer.register_forward_hook(self._unmerge)

    def fold(self, tuned: "PeftModel", dtype: torch.dtype) -> "PreTrainedModel":
        """The model with the adapter folded in: a sum in float32, rounded once to the dtype."""
        self._spare.clear()
        for layer in _lora_layers(tuned):
            self._widen(layer.get_base_layer())
            if not layer.merged:
                layer.merge()
            for weight, narrow in self._running.pop().items():
                same = narrow.dtype == dtype  # then its memory serves, be it a file's
                weight.data = narrow.copy_(weight.data) if same else weight.data.to(dtype)
            layer.merged_adapters.clear()
        merged: PreTrainedModel = tuned.merge_and_unload(adapter_names=[])
        return merged.to(dtype)

    def _widen(self, module: nn.Module, *_: object) -> None:
        """Make a module's own weights float32 copies, unless all are float32."""
        own = {weight: weight.data for weight in module.parameters(recurse=False)}
        if all(data.dtype == torch.float32 for data in own.values()):
            own = {}
        for weight, data in own.items():
            spare = self._spare.pop(data.numel(), None)
            wide = torch.empty_like(data, dtype=torch.float32) if spare is None else spare
            weight.data = wide.reshape(data.shape).copy_(data)
        self._running.append(own)

    def _narrow(self, *_: object) -> None:
        for weight, data in self._running.pop().items():
            self._spare[data.numel()] = weight.data
            weight.data = data

    def _merge(self, layer: "LoraLayer", _: object) -> None:
        self._widen(layer.get_base_layer())
        layer.merge()

    def _unmerge(self, layer: "LoraLayer", *_: object) -> None:
        self._narrow()
        layer.merged_adapters.clear()


def _lora_layers(tuned: "PeftModel") -> Iterator["LoraLayer"]:
    from peft.tuners.lora import LoraLayer

    return (module for module in tuned.modules() if isinstance(module, LoraLayer))
