"""Merge: fold the adapter into the expert, and prove that both compute the same."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightreasoner import models, tables
from lightreasoner.artifacts import Artifact
from lightreasoner.errors import ArtifactError, MergeError
from lightreasoner.forward import hidden_states, logits_of, pad_right

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
    "generation_config.json",
)
CARD = """---
base_model: {base}
library_name: transformers
pipeline_tag: text-generation
tags: [lightreasoner, lora, merged]
---
# A model tuned with LightReasoner

The expert `{base}`, LoRA-tuned on the steps where a weaker amateur of the same vocabulary parts
from it (arXiv 2510.07962), without gold answers; the adapter is folded into the weights.

- adapter: rank {r}, lora_alpha {lora_alpha}, on {modules}
- sample set: {samples}
- parity of base + adapter against this model, {positions} positions: largest logit difference
  {max_logit_difference:.2e}, mean {mean_logit_difference:.2e}, top-1 agreement {top1_agreement:.4f}

Accuracies stand in the registry's description of this version and in the run's report.
"""


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

    Raises MergeError if any weight is not finite or the saved model's logits differ from those of
    base + adapter by more than `config.max_logit_difference`.
    """
    from peft import PeftModel

    adapter = _adapter_settings(adapter_dir, expert)
    rows = _parity_rows(samples.path, config.parity_prompts)
    base = models.load_model(expert.path, compute.device, compute.dtype)
    tuned = PeftModel.from_pretrained(base, adapter_dir).eval()
    before = logits(tuned.get_base_model(), rows)
    watcher.progress(1, 3, "steps")
    merged = tuned.merge_and_unload()
    _refuse_non_finite(merged)
    merged.save_pretrained(out)
    for name in TOKENIZER_FILES:
        if (expert.path / name).is_file():
            shutil.copyfile(expert.path / name, out / name)
    watcher.progress(2, 3, "steps")
    after = logits(models.load_model(out, compute.device, compute.dtype), rows)
    report = parity(before, after)
    (out / "parity.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if report["max_logit_difference"] > config.max_logit_difference:
        raise MergeError(
            f"merged logits differ from base + adapter by {report['max_logit_difference']:.3g}, "
            f"limit merge.max_logit_difference {config.max_logit_difference:g}; "
            "merge in float32 (compute.dtype) or raise the limit"
        )
    card = CARD.format(
        base=expert.digest,
        r=adapter["r"],
        lora_alpha=adapter["lora_alpha"],
        modules=", ".join(adapter["target_modules"]),
        samples=samples.digest,
        **report,
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    watcher.progress(3, 3, "steps")


def parity(before: Tensor, after: Tensor) -> dict[str, float]:
    """How far two sets of logits (positions, vocab) are apart."""
    difference = (before - after).abs()
    same_top = before.argmax(dim=-1) == after.argmax(dim=-1)
    return {
        "max_logit_difference": difference.max().item(),
        "mean_logit_difference": difference.mean().item(),
        "top1_agreement": same_top.float().mean().item(),
        "positions": len(before),
    }


@torch.inference_mode()
def logits(model: "PreTrainedModel", rows: list[list[int]]) -> Tensor:
    """float32 logits (positions, vocab) at the last positions of each row, at most 32 a row."""
    found = []
    for row in rows:
        hidden = hidden_states(model, pad_right([row], model.device))
        found.append(logits_of(model, hidden[0, -32:]).float().cpu())
    return torch.cat(found)


def _parity_rows(samples_dir: Path, n: int) -> list[list[int]]:
    table = tables.read(samples_dir / "trajectories.parquet", tables.TRAJECTORIES)
    return [row["prompt_ids"] + row["completion_ids"] for row in table.slice(0, n).to_pylist()]


def _adapter_settings(adapter_dir: Path, expert: Artifact) -> dict[str, Any]:
    """The adapter's settings; refuses one that was tuned on another model."""
    settings = json.loads((adapter_dir / "adapter_config.json").read_text(encoding="utf-8"))
    tuned_on = settings["base_model_name_or_path"]
    if tuned_on != expert.digest:
        raise ArtifactError(
            f"{adapter_dir}: tuned on {tuned_on}, not on this expert ({expert.digest}); "
            "give the adapter's own base model"
        )
    return settings


def _refuse_non_finite(model: "PreTrainedModel") -> None:
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise MergeError(f"merged weight {name} is not finite; tune again at a lower rate")
