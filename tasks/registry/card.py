"""A registered version in words: its description, and the model's card with what it scores.

The merged model's own card cannot tell that, as merging comes before evaluating and knows the
digests of its inputs only. The fuller card lies beside the model, whose digest it leaves alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from lightreasoner.config import Params
from lightreasoner.formatting import (
    ACCURACY_HEADINGS,
    accuracy_rows,
    markdown_table,
    result_notes,
)
from lightreasoner.pipeline.store import Outcome
from lightreasoner.storage import artifacts, payload

FILE = "README.md"
DESCRIPTION_LENGTH = 5000  # characters that MLflow's registry tables hold


def description(
    model: Path, outcomes: Mapping[str, Outcome], params: Params, gate: str | None = None
) -> str:
    """The version's description: what was tuned, what it scores, the card's text.

    `gate` is why the version became champion, or why not; None before the gate.
    """
    parts = [
        f"{params.models.expert}, tuned by LightReasoner with {params.models.amateur} as its "
        "amateur, adapter merged.",
        *_results(outcomes),
    ]
    if gate:
        parts.append(f"**Gate:** {gate}")
    if (model / FILE).is_file():
        # The card's own title would be the largest text of the page.
        parts.append(ModelCard.load(model / FILE).text.strip().replace("# ", "#### ", 1))
    return "\n\n".join(parts)[:DESCRIPTION_LENGTH]


def with_results(model: Path, outcomes: Mapping[str, Outcome], params: Params) -> str:
    """The model's card with its data set on the hub, its registered name and accuracies.

    `outcomes` by stage; what they lack is left out.
    """
    card = ModelCard.load(model / FILE)
    if "prepare" in outcomes:
        name, commit = _named(outcomes["prepare"].manifest["inputs"]["problem_source"])
        card.data.datasets = [name] if commit else None
    if "report" in outcomes:
        card.data.model_name = params.register.name
        card.data.metrics = ["accuracy"]
        card.data.eval_results = _eval_results(outcomes)
        card.text = "\n\n".join([card.text.rstrip(), "## Results", *_results(outcomes)]) + "\n"
    return str(card)


def _eval_results(outcomes: Mapping[str, Outcome]) -> list[EvalResult]:
    """The tuned model's accuracy on each set; a source that is not the hub's goes by its digest."""
    name, commit = _named(outcomes["evaluate"].manifest["inputs"]["benchmark_source"])
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=name,
            dataset_name=set_name,
            dataset_config=set_name,
            dataset_split="test",
            dataset_revision=commit,
            metric_type="accuracy",
            metric_name="pass@1, strict verdict",
            metric_value=score["accuracy"],
        )
        for set_name, score in tables(outcomes)["scores"]["lightreasoner"].items()
    ]


def _named(source: str) -> tuple[str, str | None]:
    """A source of problems as the hub's name and commit; what is not the hub's has no commit."""
    name, _, commit = source.partition("@")
    return (name, commit) if artifacts.is_pinned(source) else (source, None)


def _results(outcomes: Mapping[str, Outcome]) -> list[str]:
    """The accuracy table and what it needs to be read, if there is a report."""
    if "report" not in outcomes:
        return []
    found = tables(outcomes)
    return [
        markdown_table(ACCURACY_HEADINGS, accuracy_rows(found)),
        *result_notes(found),
    ]


def tables(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """What the report's tables.json says."""
    path = outcomes["report"].artifact.path / "tables.json"
    return payload.read_json(path)
