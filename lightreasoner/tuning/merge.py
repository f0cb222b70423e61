"""Merge: fold the adapter into the expert, and prove that both compute the same.

The sum of a weight and its update is taken in float32, whatever `compute.dtype` is, and there it
must be exact: base + adapter and the folded weights speak the same distributions (`max_fold_kl`).
Then the weights are rounded once to `compute.dtype`, in which the model is evaluated, and the saved
model is held against base + adapter in float32. How far that may move it is measured by what the
same rounding, of weights and arithmetic, does to the untouched expert (`max_cast_ratio`).

One copy of the weights is held at a time, in the dtype of the expert's files or in `compute.dtype`
(widening.py): each model is let go before the next is loaded.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor

from lightreasoner.data.problems import problem_of
from lightreasoner.errors import ArtifactError, MergeError
from lightreasoner.inference import loading
from lightreasoner.inference.model_files import read_settings
from lightreasoner.storage import tables
from lightreasoner.storage.artifacts import Artifact, Inputs, Workspace
from lightreasoner.tuning import adapters, model_card
from lightreasoner.tuning.adapters import Adapter
from lightreasoner.tuning.kept_dtype import kept_dtype
from lightreasoner.tuning.parity import NONE, distance, logits
from lightreasoner.tuning.rows import check_samples
from lightreasoner.tuning.widening import Widening

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightreasoner.config import Compute, Merge
    from lightreasoner.progress import Watcher

Distance = dict[str, float]
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
GENERATION_CONFIG = "generation_config.json"
SHARD_SIZE = "5GB"  # of one safetensors file, as the hub advises
LIMITED = {"kl_mean": ("mean", 1.0), "kl_max": ("largest", 5.0)}
"""What `max_cast_ratio` limits, and how many times it: one position varies more than their mean."""
SHARE_OF_GPU = 0.8  # what the weights may take of its memory, else they are folded on the CPU


def write(inputs: Inputs, config: "Merge", work: Workspace, watcher: "Watcher") -> None:
    """Write the merged model as a Hugging Face directory, with `parity.json` and a model card.

    Raises ArtifactError, ModelError or SelectionError, before weights are loaded, for an adapter
    that is damaged, of another expert or whose tensors are not those of the expert's layers, and
    for a sample set that is not this expert's; MergeError if any of its weights is not finite or
    the distributions differ by more than `config` allows.
    """
    expert, samples, adapter_dir = inputs["expert"], inputs["samples"], inputs["adapter"].path
    compute, out = work.compute, work.out
    adapter = adapters.read_adapter(adapter_dir)
    adapters.check_base(adapter, expert)
    check_samples(samples.path, expert.path)
    rows, held_out = parity_rows(samples.path, adapter_dir, config.parity_prompts)
    skeleton = adapters.check_tensors(adapter, expert.path)
    _refuse_non_finite(adapter)
    exact = _fold_device(skeleton, kept_dtype(expert.path), compute.device)
    own = None if compute.dtype == "float32" else _logits_of(expert.path, compute, rows)
    watcher.progress(1, 3, "models")
    before, cast = _fold(expert, adapter, rows, exact, own, config.max_fold_kl, compute.dtype, out)
    watcher.progress(2, 3, "models")
    found = distance(before, _logits_of(out, compute, rows))
    _refuse_cast(found, cast, config, compute.dtype)
    report = {
        **found,
        **{f"cast_{name}": cast[name] for name in NONE},
        "prompts": len(rows),
        "held_out_prompts": held_out,
    }
    (out / "parity.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    provenance = tables.provenance(samples.path / "samples.parquet")
    text = model_card.card_text(expert.digest, adapter.settings, samples.digest, provenance, report)
    (out / "README.md").write_text(text, encoding="utf-8")
    watcher.progress(3, 3, "models")


def _fold_device(skeleton: "PreTrainedModel", dtype: str, device: str) -> str:
    """The device, or the CPU where the weights as they are kept do not fit a GPU."""
    if device != "cuda":
        return device
    room = SHARE_OF_GPU * torch.cuda.get_device_properties(device).total_memory
    needed = skeleton.num_parameters() * getattr(torch, dtype).itemsize
    return device if needed <= room else "cpu"


def _logits_of(model_dir: Path, compute: "Compute", rows: list[list[int]]) -> list[Tensor]:
    """The logits of a model as it is evaluated; its weights are let go."""
    return list(logits(loading.load_model(model_dir, compute.device, compute.dtype), rows))


def parity_rows(samples_dir: Path, adapter_dir: Path, n: int) -> tuple[list[list[int]], int]:
    """The ids of at most n trajectories, and how many of these the tuning held out (they lead).

    What it held out are all trajectories of the problems in the adapter's `validation.json`;
    without that file, nothing is. Older adapters name the trajectories there. Raises ArtifactError.
    """
    path = adapter_dir / "validation.json"
    names = read_settings(path).get("problem_ids") if path.is_file() else []
    if not isinstance(names, list):
        raise ArtifactError(f"{path}: problem_ids must be a list, got {names!r:.80}; tune again")
    held_out = {problem_of(str(name)) for name in names}
    table = tables.read_table(samples_dir / "trajectories.parquet", tables.TRAJECTORIES)
    is_trained = [problem_of(id_) not in held_out for id_ in table["problem_id"].to_pylist()]
    order = sorted(range(len(table)), key=is_trained.__getitem__)[:n]
    rows = table.take(order).to_pylist()
    ids = [row["prompt_ids"] + row["completion_ids"] for row in rows]
    return ids, sum(not is_trained[place] for place in order)


def _fold(
    expert: Artifact,
    adapter: Adapter,
    rows: list[list[int]],
    device: str,
    own: list[Tensor] | None,
    limit: float,
    dtype: str,
    out: Path,
) -> tuple[list[Tensor], Distance]:
    """Write the merged weights, tokenizer and configuration; float32 logits of base + adapter.

    Also how far the cast alone moves the expert, whose logits in `dtype` are `own`.
    """
    widening = Widening()
    base = widening.load_model(expert.path, device)
    cast = NONE if own is None else distance(logits(base, rows), own)
    tuned = adapters.put_on(base, adapter)
    before = list(logits(tuned.get_base_model(), rows))
    widening.fold_as_they_run(tuned)
    _refuse_fold(distance(before, logits(tuned.get_base_model(), rows)), limit)
    folded = widening.fold(tuned, getattr(torch, dtype))
    folded.save_pretrained(out, max_shard_size=SHARD_SIZE)
    for name in (*TOKENIZER_FILES, GENERATION_CONFIG):
        if (expert.path / name).is_file():
            shutil.copyfile(expert.path / name, out / name)
    _name_stop_ids(expert.path, out / GENERATION_CONFIG)
    return before, cast


def _name_stop_ids(expert: Path, path: Path) -> None:
    """Let generation_config.json name every id that ends a response here, all else as it is.

    Servers such as vLLM end one at no other id. The expert's own stay first: `models.end_id` is the
    first of them.
    """
    ends = loading.ordered_stop_ids(expert, loading.load_tokenizer(expert))
    settings = read_settings(path) if path.is_file() else {}
    if ends and settings.get("eos_token_id") != ends:
        text = json.dumps({**settings, "eos_token_id": ends}, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def _refuse_fold(found: Distance, limit: float) -> None:
    if not found["kl_max"] <= limit:  # NaN is refused, too
        raise MergeError(
            f"in float32 the folded weights differ from base + adapter by a KL of "
            f"{found['kl_max']:.3g} nats at one position, limit merge.max_fold_kl {limit:g}; the "
            "fold is not the adapter, so report it with the adapter's settings"
        )


def _refuse_cast(found: Distance, cast: Distance, config: "Merge", dtype: str) -> None:
    """Hold mean and largest KL to what the cast does to the expert; in float32 that is nothing."""
    for name, (what, times) in LIMITED.items():
        ratio = times * config.max_cast_ratio
        limit = ratio * cast[name] + config.max_fold_kl
        if not found[name] <= limit:
            raise MergeError(
                f"the merged model in {dtype} differs from base + adapter by a {what} KL of "
                f"{found[name]:.3g} nats, limit {limit:.3g}: {ratio:g} times the {cast[name]:.3g} "
                f"of the expert's own cast, plus merge.max_fold_kl {config.max_fold_kl:g}; raise "
                "merge.max_cast_ratio, or use compute.dtype float32"
            )


def _refuse_non_finite(adapter: Adapter) -> None:
    for name, weight in load_file(adapter.path / adapters.WEIGHTS).items():
        if not torch.isfinite(weight).all():
            raise MergeError(f"{name} of the adapter is not finite; tune again at a lower rate")
