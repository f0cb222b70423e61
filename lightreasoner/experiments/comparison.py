"""Methods side by side: accuracies, differences to the base on the same problems, what each cost.

Reads what the stages wrote; no model. Accuracies and intervals are fractions in the tree and in
percent in the table; differences are points there.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from lightreasoner.config import Finetune, Params
from lightreasoner.evaluation import pairing, power
from lightreasoner.evaluation.evaluate import summarise
from lightreasoner.experiments.methods import METHODS, seeds
from lightreasoner.formatting import NONE, accuracy, difference, markdown_table, p_value
from lightreasoner.report import page
from lightreasoner.storage import tables
from lightreasoner.tuning.finetune import plan_updates
from lightreasoner.tuning.rows import hold_out, read_rows

Named = TypeVar("Named", bound=str)
COSTS = ("updates", "samples", "trained", "seconds")


@dataclass(frozen=True)
class Tuning:
    """Where a method's sample set and adapter lie, how it was tuned and in how many seconds."""

    samples: Path
    adapter: Path
    config: Finetune
    seconds: float


@dataclass(frozen=True)
class Result:
    """Where a method's scores lie, and how it was tuned; the base was not."""

    scores: Path
    tuning: Tuning | None = None


TITLES: dict[str, str] = {name: method.title for name, method in METHODS.items()}


def compare(
    results: Mapping[Named, Result | str], params: Params, titles: Mapping[str, str] = TITLES
) -> dict[str, Any]:
    """The comparison as a tree: `problems` per set, `seeds`, and an entry per method.

    A method's result is the reason as text where it has none; the base must have one. `titles` are
    the methods' names in tables. Raises ArtifactError if two methods' scores are not of the same
    problems.
    """
    by_name = {str(name): result for name, result in results.items()}
    base = by_name["base"]
    assert isinstance(base, Result), "the base is not tuned, so nothing keeps it from its scores"
    methods = {
        name: {"title": titles[name], **_entry(result, base)} for name, result in by_name.items()
    }
    problems = {name: score["problems"] for name, score in methods["base"]["scores"].items()}
    return {"problems": problems, "seeds": seeds(params), "methods": methods}


def _entry(result: Result | str, base: Result) -> dict[str, Any]:
    if isinstance(result, str):
        return {"missing": result}
    before, after = (pairing.read_scores(each.scores) for each in (base, result))
    pairing.check_comparable(before, after)
    paired = page.paired(before, after)
    scores = {
        str(name): {**summarise(rows), "paired": paired[str(name)]}
        for name, rows in after.rows.groupby("problem_set", sort=False)
    }
    return {"scores": scores, "tuning": costs(result.tuning) if result.tuning else None}


def costs(tuning: Tuning) -> dict[str, Any]:
    """Optimizer updates, samples of the set, samples of all updates, seconds of fine-tuning."""
    updates = len(pd.read_csv(tuning.adapter / "curve.csv"))
    return {
        "updates": updates,
        "samples": tables.count(tuning.samples / "samples.parquet"),
        "trained_samples": trained_samples(tuning.samples, tuning.config, updates),
        "seconds": tuning.seconds,
    }


def trained_samples(samples_dir: Path, config: Finetune, updates: int) -> int:
    """Labelled positions that the first `updates` updates train on, epochs counted again.

    The plan of `finetune` is a function of its samples and section, so it is made here once more.
    """
    rows, _ = hold_out(
        read_rows(samples_dir, config.batching), config.validation_share, config.seed
    )
    plan = itertools.islice(plan_updates(rows, config), updates)
    return sum(len(row.positions) for update in plan for forward in update for row in forward)


def headings(comparison: Mapping[str, Any]) -> list[str]:
    """The table's columns: a set's accuracy in percent, under it the difference to the base."""
    sets = [f"{name} (strict, n {n})" for name, n in comparison["problems"].items()]
    return ["method", *sets, *COSTS]


def method_rows(comparison: Mapping[str, Any], line_break: str = "\n") -> list[list[str]]:
    """A row per method under `headings`; a method without a result has dashes, `notes` says why."""
    return [
        [entry["title"], *_cells(entry, list(comparison["problems"]), line_break)]
        for entry in comparison["methods"].values()
    ]


def _cells(entry: Mapping[str, Any], sets: list[str], line_break: str) -> list[str]:
    if "missing" in entry:
        return [NONE] * (len(sets) + len(COSTS))
    tuning = entry["tuning"]
    scores = [entry["scores"][name] for name in sets]
    if tuning is None:
        return [*map(accuracy, scores), *[NONE] * len(COSTS)]
    cells = [
        f"{accuracy(score)}{line_break}{difference(paired)}, p {p_value(paired['p_holm'])}"
        for score in scores
        for paired in [score["paired"]]
    ]
    counts = [f"{tuning[name]:,}" for name in ("updates", "samples", "trained_samples")]
    return [*cells, *counts, f"{tuning['seconds']:.1f}"]


def notes(comparison: Mapping[str, Any]) -> list[str]:
    """What the table needs to be read: how its numbers are made, and why a row has none."""
    seeds = ", ".join(f"{name} {seed}" for name, seed in comparison["seeds"].items())
    return [
        "Pass@1 by the strict verdict in percent with 95% intervals (Wilson's; the "
        "bootstrap's over problems where each has several responses); difference to the base "
        "in points with the paired bootstrap's 95% interval and the exact p of McNemar's test "
        "(the sign test's where each has several), corrected for the number of sets (Holm), on the "
        "same problems. Samples: labelled positions of the "
        "sample set; trained: of all updates, repeats counted. Seconds: of the stage finetune, its "
        "last attempt where it was resumed.",
        power.note(comparison["problems"]),
        f"Seeds: {seeds}.",
        *comparison.get("notes", ()),
        *(
            f"{entry['title']}: {entry['missing']}"
            for entry in comparison["methods"].values()
            if "missing" in entry
        ),
    ]


def markdown(comparison: Mapping[str, Any]) -> str:
    """The table and its notes."""
    table = markdown_table(headings(comparison), method_rows(comparison, "<br>"))
    return "\n\n".join([table, *notes(comparison)]) + "\n"


def metrics(comparison: Mapping[str, Any]) -> dict[str, float]:
    """`<method>/<set>/accuracy`, `/accuracy_qwen` (by the toolkit's verdict) and `/difference`,
    fractions, of the methods that have scores.
    """
    return {
        f"{method}/{name}/{key}": value
        for method, entry in comparison["methods"].items()
        for name, score in entry.get("scores", {}).items()
        for key, value in (
            ("accuracy", score["accuracy"]),
            ("accuracy_qwen", score["qwen"]["accuracy"]),
            ("difference", score["paired"]["difference"]),
        )
    }
