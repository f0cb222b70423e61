"""What was run, as far as a report's inputs say: settings, seeds, digests, versions.

Only what belongs to the report's fingerprint is read, so that equal inputs give equal bytes. The
commit, seconds and memory of each stage are in the manifests beside the stored results.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightreasoner.storage import tables
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.storage.fingerprint import package_versions

if TYPE_CHECKING:
    from lightreasoner.config import Compute

Facts = dict[str, dict[str, Any]]
PACKAGES = ("torch", "transformers", "tokenizers", "peft", "numpy")
SELECT = ("alpha", "beta", "quantile", "steps", "label", "reference")
GENERATE = ("style", "max_new_tokens", "n", "temperature", "seed")
TUNING = ("r", "lora_alpha", "lora_dropout", "target_modules", "updates", "learning_rate")
EVALUATE = (*GENERATE, "engine")


def of(
    inputs: Mapping[str, Artifact],
    conditions: Mapping[str, Any],
    tuning: Mapping[str, Any],
    compute: "Compute",
) -> Facts:
    """Facts by group; one that the inputs do not hold is left out.

    `conditions` are those of the evaluation, `tuning` what is known of the adapter.
    """
    select = tables.provenance(inputs["samples"].path / "samples.parquet")
    score, generate = select.get("score", {}), select.get("generate", {})
    groups = {
        "Models": {
            "expert": score.get("expert"),
            "amateur": score.get("amateur"),
            "tokenizer": generate.get("tokenizer"),
            "shared vocabulary": score.get("shared_vocabulary"),
        },
        "Trajectories": _some(generate, GENERATE) | _some(score, ("alpha_min",)),
        "Samples": _some(select, SELECT),
        "Tuning": _some(tuning, TUNING),
        "Evaluation": {
            **_some(conditions, EVALUATE),
            **_base_style(conditions),
            "worked examples": _worked_examples(conditions),
        },
        "Computed with": {
            "device": f"{compute.device}, {compute.dtype}",
            **_some(package_versions(), PACKAGES),
        },
        "Artifacts": {name: artifact.digest for name, artifact in inputs.items()},
    }
    said = {
        group: {name: _formatted(value) for name, value in facts.items() if value not in (None, [])}
        for group, facts in groups.items()
    }
    return {group: facts for group, facts in said.items() if facts}


def _some(settings: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: settings[name] for name in names if name in settings}


def _base_style(conditions: Mapping[str, Any]) -> dict[str, Any]:
    differs = conditions["base_style"] != conditions["style"]
    return {"style of the base": conditions["base_style"]} if differs else {}


def _worked_examples(conditions: Mapping[str, Any]) -> list[str]:
    """How many precede each question of a set, and which, where `evaluate.shots` chose them."""
    named = conditions.get("demos", {})
    return [
        f"{name} {count}" + (f" ({', '.join(named[name])})" if name in named else "")
        for name, count in conditions.get("shots", {}).items()
        if count
    ]


def _formatted(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
