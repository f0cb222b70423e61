"""Merge: fold the adapter into the expert, and prove that both compute the same.

One copy of the weights is held at a time: the adapter is folded in place, and that model is let go
before the saved one is read back. Base and result are in `compute.dtype`, in which the model is
tuned and evaluated, too. A weight's sum with its update is taken in the adapter's float32 and
rounded once; what bfloat16 loses of the update there, the parity check measures and limits.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightreasoner import card, models, tables
from lightreasoner.artifacts import Artifact
from lightreasoner.errors import ArtifactError, MergeError
from lightreasoner.forward import hidden_states, logits_of, pad_right
from lightreasoner.problems import problem_of
from lightreasoner.rows import check_samples

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightreasoner.config import Compute, Merge
    from lightreasoner.progress import Watcher

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
ADAPTER_FIELDS = ("base_model_name_or_path", "r", "lora_alpha", "target_modules")


def write_model(
    expert: Artifact,
    adapter_dir: Path,
    samples: Artifact,
    config: "Merge",
    compute: "Compute",
    out: Path,
    watcher: "Watcher",
) -> None:
    """Write the merged model as a Hugging Face directory, with `parity.json` and a model card.

    Raises ArtifactError or SelectionError, before a model is loaded, for an adapter that is damaged
    or of another expert and for a sample set that is not this expert's; MergeError if any weight is
    not finite or the saved model's logits differ from those of base + adapter by more than
    `config.max_logit_difference`.
    """
    adapter = adapter_settings(adapter_dir, expert)
    check_samples(samples.path, expert.path)
    rows, held_out = parity_rows(samples.path, adapter_dir, config.parity_prompts)
    before = _fold(expert, adapter_dir, rows, compute, out)
    watcher.progress(1, 2, "models")
    after = logits(models.load_model(out, compute.device, compute.dtype), rows)
    report = {**parity(before, after), "prompts": len(rows), "held_out_prompts": held_out}
    _refuse_difference(report["max_logit_difference"], config.max_logit_difference)
    (out / "parity.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    provenance = tables.provenance(samples.path / "samples.parquet")
    text = card.render(expert.digest, adapter, samples.digest, provenance, report)
    (out / "README.md").write_text(text, encoding="utf-8")
    watcher.progress(2, 2, "models")


def adapter_settings(adapter_dir: Path, expert: Artifact) -> dict[str, Any]:
    """The adapter's settings; refuses a damaged one and one that was tuned on another model."""
    path = adapter_dir / "adapter_config.json"
    for file in (path, adapter_dir / "adapter_model.safetensors"):
        if not file.is_file():
            raise ArtifactError(f"{file}: no such file; give a directory that finetune wrote")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        missing = [field for field in ADAPTER_FIELDS if field not in settings]
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: not an adapter's settings ({error}); tune again") from error
    if missing:
        raise ArtifactError(f"{path}: lacks {', '.join(missing)}; give an adapter of finetune")
    tuned_on = settings["base_model_name_or_path"]
    if tuned_on != expert.digest:
        raise ArtifactError(
            f"{adapter_dir}: tuned on {tuned_on}, not on this expert ({expert.digest}); "
            "give the adapter's own base model"
        )
    return settings


def parity_rows(samples_dir: Path, adapter_dir: Path, n: int) -> tuple[list[list[int]], int]:
    """The ids of at most n trajectories, and how many of these the tuning held out (they lead).

    What it held out are all trajectories of the problems in the adapter's `validation.json`;
    without that file, nothing is. Older adapters name the trajectories there.
    """
    path = adapter_dir / "validation.json"
    names = json.loads(path.read_text(encoding="utf-8"))["problem_ids"] if path.is_file() else []
    held_out = {problem_of(name) for name in names}
    table = tables.read(samples_dir / "trajectories.parquet", tables.TRAJECTORIES)
    is_trained = [problem_of(id_) not in held_out for id_ in table["problem_id"].to_pylist()]
    order = sorted(range(len(table)), key=is_trained.__getitem__)[:n]
    rows = table.take(order).to_pylist()
    ids = [row["prompt_ids"] + row["completion_ids"] for row in rows]
    return ids, sum(not is_trained[place] for place in order)


def _fold(
    expert: Artifact, adapter_dir: Path, rows: list[list[int]], compute: "Compute", out: Path
) -> list[Tensor]:
    """Write the merged weights, tokenizer and configuration; the logits of base + adapter."""
    from peft import PeftModel

    base = models.load_model(expert.path, compute.device, compute.dtype)
    tuned = PeftModel.from_pretrained(base, adapter_dir).eval()
    before = list(logits(tuned.get_base_model(), rows))
    merged = tuned.merge_and_unload()
    _refuse_non_finite(merged)
    merged.save_pretrained(out, max_shard_size=SHARD_SIZE)
    for name in (*TOKENIZER_FILES, GENERATION_CONFIG):
        if (expert.path / name).is_file():
            shutil.copyfile(expert.path / name, out / name)
    _name_stop_ids(expert.path, out / GENERATION_CONFIG)
    return before


def _name_stop_ids(expert: Path, path: Path) -> None:
    """Let generation_config.json name every id that ends a response here, all else as it is.

    Servers such as vLLM end one at no other id. The expert's own stay first: `models.end_id` is the
    first of them.
    """
    ends = models.ordered_stop_ids(expert, models.load_tokenizer(expert))
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if ends and settings.get("eos_token_id") != ends:
        text = json.dumps({**settings, "eos_token_id": ends}, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


@torch.inference_mode()
def logits(model: "PreTrainedModel", rows: list[list[int]]) -> Iterator[Tensor]:
    """Row by row, the float32 logits (positions, vocab) at its last positions, at most 32."""
    for row in rows:
        hidden = hidden_states(model, pad_right([row], model.device))
        yield logits_of(model, hidden[0, -32:]).float().cpu()


def parity(before: Iterable[Tensor], after: Iterable[Tensor]) -> dict[str, float]:
    """How far two models' logits, (positions, vocab) a row, are apart; NaN is never lost."""
    largest, means, agreements = [], [], []
    for one, other in zip(before, after, strict=True):
        difference = (one - other).abs()
        largest.append(difference.max())
        means.append(difference.mean(dim=-1))
        agreements.append(one.argmax(dim=-1) == other.argmax(dim=-1))
    agree = torch.cat(agreements)
    return {
        "max_logit_difference": torch.stack(largest).max().item(),
        "mean_logit_difference": torch.cat(means).mean().item(),
        "top1_agreement": agree.float().mean().item(),
        "positions": len(agree),
    }


def _refuse_difference(found: float, limit: float) -> None:
    if not found <= limit:  # NaN is refused, too
        raise MergeError(
            f"merged logits differ from base + adapter by {found:.3g}, "
            f"limit merge.max_logit_difference {limit:g}; "
            "merge in float32 (compute.dtype) or raise the limit"
        )


def _refuse_non_finite(model: "PreTrainedModel") -> None:
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise MergeError(f"merged weight {name} is not finite; tune again at a lower rate")
