"""A registered version in words: its description, and the model's card with what it scores.

The merged model's own card cannot tell that, as merging comes before evaluating and knows the
digests of its inputs only. The fuller card lies beside the model, whose digest it leaves alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from lightreasoner.config import Params
from lightreasoner.data import hub
from lightreasoner.formatting import (
    ACCURACY_HEADINGS,
    accuracy_rows,
    headline,
    markdown_table,
    result_notes,
)
from lightreasoner.pipeline.store import Outcome
from lightreasoner.report import head
from lightreasoner.storage import artifacts, payload
from lightreasoner.tuning import upload
from tasks.tracking import measures, mlflow_runs

FILE = "README.md"
DESCRIPTION_LENGTH = 5000  # characters that MLflow's registry tables hold
BATCHES = {
    "sample": "{:,} samples",
    "trajectory": "at least {:,} samples",
    "solution": "{:,} trajectories",
}
"""What `finetune.samples_per_update` counts, by batching."""


def description(
    model: Path,
    outcomes: Mapping[str, Outcome],
    params: Params,
    tags: Mapping[str, str],
    gate: str | None = None,
) -> str:
    """The version's description: what it gained, what it was made of, scores, the card's text.

    `tags` are the version's. `gate` is why the version became champion, or why not; None before the
    gate.
    """
    parts = [*_head(outcomes, params, tags), *_results(outcomes)]
    if gate:
        parts.append(f"**Gate:** {gate}")
    if (model / FILE).is_file():
        # The card's own title would be the largest text of the page.
        parts.append(ModelCard.load(model / FILE).text.strip().replace("# ", "#### ", 1))
    return "\n\n".join(parts)[:DESCRIPTION_LENGTH]


def with_results(
    model: Path, outcomes: Mapping[str, Outcome], params: Params, tags: Mapping[str, str]
) -> str:
    """The model's card with its data set on the hub, its registered name, what it gained and what
    it was made of.

    `outcomes` by stage; what they lack is left out. `tags` are the version's.
    """
    card = ModelCard.load(model / FILE)
    if "prepare" in outcomes:
        name, commit = _named(outcomes["prepare"].manifest["inputs"]["problem_source"])
        card.data.datasets = [name] if commit else None
    if "report" in outcomes:
        card.data.model_name = params.register.name
        card.data.metrics = ["accuracy"]
        card.data.eval_results = _eval_results(outcomes)
        title, _, text = card.text.strip().partition("\n")
        first = [title, *_head(outcomes, params, tags), text.strip()]
        card.text = "\n\n".join(filter(None, [*first, "## Results", *_results(outcomes)])) + "\n"
    return str(card)


def facts(
    outcomes: Mapping[str, Outcome], params: Params, tags: Mapping[str, str]
) -> dict[str, str]:
    """What a result was made of, in words; what `outcomes` and a run's `tags` lack is left out."""
    inputs = [outcome.manifest["inputs"] for outcome in outcomes.values()]
    digests = {name: digest for each in inputs for name, digest in each.items()}
    models, problems, tuning = params.models, params.prepare, params.finetune
    run = [tags[key] for key in (mlflow_runs.NAME_TAG, mlflow_runs.DATE_TAG) if key in tags]
    source = head.named(problems.source, digests.get("problem_source", ""))
    count = BATCHES[tuning.batching].format(tuning.samples_per_update)
    return {
        **({"run": ", ".join(run)} if run else {}),
        "expert": head.named(models.expert, digests.get("expert", "")),
        "amateur": head.named(models.amateur, digests.get("amateur", "")),
        "problems": f"{_count(outcomes)}{source}, set {problems.problem_set}",
        "seeds": f"problems {problems.seed}, trajectories {params.generate.seed}, "
        f"tuning {tuning.seed}, evaluation {params.evaluate.seed}",
        "batching": f"by {tuning.batching}, {count} an update",
    }


def _count(outcomes: Mapping[str, Outcome]) -> str:
    """`300 of `, the problems that were drawn, if that is known."""
    if "prepare" not in outcomes:
        return ""
    found = measures.of_payload("prepare", outcomes["prepare"].artifact.path)
    return f"{found['problems']:,.0f} of "


def _head(outcomes: Mapping[str, Outcome], params: Params, tags: Mapping[str, str]) -> list[str]:
    """The result in a sentence, if there is a report, and what it was made of."""
    made_of = facts(outcomes, params, tags).items()
    listed = "\n".join(f"- {name}: {value}" for name, value in made_of)
    if "report" not in outcomes:
        return [listed]
    asked = params.evaluate
    said = headline(tables(outcomes), asked.seed, asked.base_style, asked.style)
    return [f"**{said}**", listed]


def _eval_results(outcomes: Mapping[str, Outcome]) -> list[EvalResult]:
    """The tuned model's accuracy on each set; a source that is not the hub's goes by its digest."""
    manifest = outcomes["evaluate"].manifest
    source = manifest["inputs"]["benchmark_source"]
    asked_all = manifest["config"]["n_problems"] is None
    results = []
    for set_name, score in tables(outcomes)["scores"]["lightreasoner"].items():
        found = _hub_set(source, set_name)
        is_whole = found is not None and asked_all and _is_test_split(found)
        result = EvalResult(
            task_type="text-generation",
            dataset_type=found.repository if found else source,
            dataset_name=set_name,
            dataset_config=set_name,
            dataset_split="test",
            dataset_revision=found.revision if found else None,
            dataset_args=upload.WHOLE if is_whole else {"problems": score["problems"]},
            metric_type="accuracy",
            metric_name="pass@1, strict verdict",
            metric_value=score["accuracy"],
        )
        results.append(result)
    return results


def _hub_set(source: str, set_name: str) -> hub.HubSet | None:
    """The set on the hub that a source's identity and a name mean; None for a source elsewhere."""
    if source == hub.identity():
        return hub.find(hub.SOURCE, set_name)
    return hub.find(source, set_name) if artifacts.is_pinned(source) else None


def _is_test_split(found: hub.HubSet) -> bool:
    """Whether a set is its repository's own test split: no part of it, and no more."""
    is_part = found.file is not None or found.keep is not hub.HubSet.keep
    return not is_part and len(found.configurations) == 1 and found.splits.get("test") == "test"


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
