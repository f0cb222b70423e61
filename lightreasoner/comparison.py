"""Methods side by side: accuracies, differences to the base on the same problems, what each cost.

Reads what the stages wrote; no model. Accuracies and intervals are fractions in the tree and in
percent in the table; differences are points there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from lightreasoner import report
from lightreasoner.config import Params
from lightreasoner.evaluate import summarise
from lightreasoner.methods import METHODS, Name, seeds

NONE = "–"
SUMMARISED = ("verdict", "finish_reason")


@dataclass(frozen=True)
class Tuning:
    """Where a tuned method's sample set and adapter lie, and the seconds of its fine-tuning."""

    samples: Path
    adapter: Path
    seconds: float


@dataclass(frozen=True)
class Result:
    """Where a method's scores lie, and how it was tuned; the base was not."""

    scores: Path
    tuning: Tuning | None = None


def compare(results: Mapping[Name, Result | str], params: Params) -> dict[str, Any]:
    """The comparison as a tree: `problems` a set, `seeds`, and an entry a method.

    A method's result is the reason as text where it has none; the base must have one. Raises
    ArtifactError if two methods' scores are not of the same problems.
    """
    base = results["base"]
    assert isinstance(base, Result), "the base is not tuned, so nothing keeps it from its scores"
    methods = {
        name: {"title": METHODS[name].title, **_entry(result, base)}
        for name, result in results.items()
    }
    problems = {name: score["n"] for name, score in methods["base"]["scores"].items()}
    return {"problems": problems, "seeds": seeds(params), "methods": methods}


def _entry(result: Result | str, base: Result) -> dict[str, Any]:
    if isinstance(result, str):
        return {"missing": result}
    pairs = report.pair(base.scores, result.scores)
    paired = report.paired(pairs)
    scores = {
        str(name): {**_score(rows), **paired[str(name)]}
        for name, rows in pairs.groupby("problem_set", sort=False)
    }
    return {"scores": scores, "tuning": _tuning(result.tuning) if result.tuning else None}


def _score(rows: pd.DataFrame) -> dict[str, Any]:
    """One set's summary, and its accuracy's difference to the base."""
    before, after = (
        summarise(rows.rename(columns={f"{name}_{side}": name for name in SUMMARISED}))
        for side in ("base", "lightreasoner")
    )
    return {**after, "difference": after["accuracy"] - before["accuracy"]}


def _tuning(tuning: Tuning) -> dict[str, Any]:
    """Optimizer updates, samples of the set (labelled positions), seconds of the fine-tuning."""
    return {
        "updates": len(pd.read_csv(tuning.adapter / "curve.csv")),
        "samples": pq.read_metadata(tuning.samples / "samples.parquet").num_rows,
        "seconds": tuning.seconds,
    }


def headings(comparison: Mapping[str, Any]) -> list[str]:
    """The table's columns: a set's accuracy in percent, under it the difference to the base."""
    sets = [f"{name} (n {n})" for name, n in comparison["problems"].items()]
    return ["method", *sets, "updates", "samples", "seconds"]


def rows(comparison: Mapping[str, Any], line_break: str = "\n") -> list[list[str]]:
    """A row a method under `headings`; a method without a result has dashes, `notes` says why."""
    return [
        [entry["title"], *_cells(entry, list(comparison["problems"]), line_break)]
        for entry in comparison["methods"].values()
    ]


def _cells(entry: Mapping[str, Any], sets: list[str], line_break: str) -> list[str]:
    if "missing" in entry:
        return [NONE] * (len(sets) + 3)
    tuning = entry["tuning"]
    scores = [entry["scores"][name] for name in sets]
    if tuning is None:
        return [*map(_accuracy, scores), NONE, NONE, NONE]
    cells = [f"{_accuracy(score)}{line_break}{_difference(score)}" for score in scores]
    return [*cells, str(tuning["updates"]), f"{tuning['samples']:,}", f"{tuning['seconds']:.1f}"]


def _accuracy(score: Mapping[str, Any]) -> str:
    low, high = score["ci95"]
    return f"{100 * score['accuracy']:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _difference(score: Mapping[str, Any]) -> str:
    return f"{100 * score['difference']:+.1f} (p {report.p_value(score['p'])})"


def notes(comparison: Mapping[str, Any]) -> list[str]:
    """What the table needs to be read: how its numbers are made, and why a row has none."""
    seeds = ", ".join(f"{name} {seed}" for name, seed in comparison["seeds"].items())
    return [
        "Greedy pass@1 in percent with Wilson 95% intervals; difference to the base in points "
        "with McNemar's exact p on the same problems. Samples: labelled positions of the sample "
        "set. Seconds: of the fine-tuning.",
        f"Seeds: {seeds}.",
        *(
            f"{entry['title']}: {entry['missing']}"
            for entry in comparison["methods"].values()
            if "missing" in entry
        ),
    ]


def markdown(comparison: Mapping[str, Any]) -> str:
    """The table and its notes."""
    columns = headings(comparison)
    rule = ["---", *["---:"] * (len(columns) - 1)]
    lines = [f"| {' | '.join(row)} |" for row in (columns, rule, *rows(comparison, "<br>"))]
    return "\n\n".join(["\n".join(lines), *notes(comparison)]) + "\n"


def metrics(comparison: Mapping[str, Any]) -> dict[str, float]:
    """`<method>/<set>/accuracy` and `/difference`, fractions, of the methods that have scores."""
    return {
        f"{method}/{name}/{key}": score[key]
        for method, entry in comparison["methods"].items()
        for name, score in entry.get("scores", {}).items()
        for key in ("accuracy", "difference")
    }
