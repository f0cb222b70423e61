"""Rounds: a tuned model becomes the next round's expert, writes anew and is tuned on that.

The paper has one round; more are no part of its method. The base of every comparison is the expert
as it came. Reads what the stages wrote; no model. In the tree accuracies are fractions, KL and
drift nats.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from lightreasoner.evaluation import pairing, power
from lightreasoner.formatting import (
    NONE,
    accuracy,
    difference,
    markdown_table,
    number,
    p_value,
    percent,
    prompt_notes,
)
from lightreasoner.report import page
from lightreasoner.storage import tables
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.storage.payload import read_json

LATER: dict[str, str] = {
    "same": "the same",
    "previous": "the expert of the round before",
}
Entry = Mapping[str, Any]
"""A round of the tree."""


@dataclass(frozen=True)
class Round:
    """Where a round's report and scores lie, and `moved`: the steps of the base's trajectories,
    scored with the base as the expert and the round's model as the amateur."""

    report: Path
    scores: Path
    moved: Path


def pair(models: Sequence[Artifact], amateur: Artifact, later: str) -> tuple[Artifact, Artifact]:
    """Expert and amateur of the next round; `models` are the base and each round's model.

    `later` says who is the amateur from the second round on: always `amateur` (same), or the
    expert of the round before (previous).
    """
    if later == "previous" and len(models) > 1:
        return models[-1], models[-2]
    return models[-1], amateur


def entry(rounds: Sequence[Round]) -> dict[str, Any]:
    """The last of these rounds as a tree: its report's numbers, how far the model is from the base,
    and the paired difference to the round before it, if there is one.

    Raises ArtifactError if two rounds' scores are not of the same problems.
    """
    report, paths = read_json(rounds[-1].report / "tables.json"), [each.scores for each in rounds]
    return {
        "samples": report["samples"],
        "drift": report["drift"],
        "drift_from_base": drift_from_base(rounds[-1].moved),
        "styles": report["styles"],
        "base": report["scores"]["base"],
        "scores": report["scores"]["lightreasoner"],
        "paired": report["paired"],
        "paired_before": _paired(*paths[-2:]) if len(paths) > 1 else None,
    }


def drift_from_base(moved: Path) -> dict[str, float]:
    """`drift`: mean KL(base || tuned), nats, over all steps of the base's own trajectories;
    `top1_kept`: the share of them whose likeliest token is the base's.
    """
    steps = tables.read_table(moved / "steps.parquet", tables.STEPS)
    kept = pc.equal(steps["expert_top1"], steps["amateur_top1"])
    return {"drift": pc.mean(steps["kl"]).as_py(), "top1_kept": pc.mean(kept).as_py()}


def _paired(before: Path, after: Path) -> dict[str, Any]:
    old, new = pairing.read_scores(before), pairing.read_scores(after)
    pairing.check_comparable(old, new)
    return page.paired(old, new)


def metrics(each: Entry) -> dict[str, float]:
    """What a round adds to the numbers of its report."""
    gains = each["paired_before"] or {}
    return {
        **{name: each["samples"][name] for name in ("selected", "selected_share", "mean_kl")},
        **{f"{name}_from_base": value for name, value in each["drift_from_base"].items()},
        **{f"gain_before/{name}": paired["difference"] for name, paired in gains.items()},
    }


def _drift(read: Entry) -> str:
    return f"{number(read['drift'])} ({percent(read['top1_kept'])})" if read else NONE


MEASURES: dict[str, Callable[[Any], str]] = {
    "trajectories": lambda each: f"{each['samples']['trajectories']:,}",
    "steps": lambda each: f"{each['samples']['steps']:,}",
    "samples (share of steps)": lambda each: (
        f"{each['samples']['selected']:,} ({percent(each['samples']['selected_share'])})"
    ),
    "mean KL to the amateur, nats": lambda each: number(each["samples"]["mean_kl"]),
    "drift from the round's expert, nats (top-1 kept)": lambda each: _drift(each["drift"]),
    "drift from the base, nats (top-1 kept)": lambda each: _drift(each["drift_from_base"]),
}


def table(found: Mapping[str, Any]) -> list[list[str]]:
    """A row per measure, with the base's cell and each round's; the first row is the headings.

    A round without a model has dashes; `notes` says why.
    """
    rounds: list[Entry] = found["rounds"]
    headings = ["measure", "base", *(f"round {place}" for place, _ in enumerate(rounds, 1))]
    rows = [_row(title, NONE, show, rounds) for title, show in MEASURES.items()]
    for name, score in rounds[0]["base"].items():
        for verdict in ("strict", "qwen"):
            of = f"{name}, {verdict}"
            shows = {
                key: partial(_difference, key, name, verdict) for key in ("paired", "paired_before")
            }
            rows += [
                _row(
                    f"{of} (n {score['problems']:,})",
                    accuracy(_by(score, verdict)),
                    partial(_accuracy, name, verdict),
                    rounds,
                ),
                _row(f"{of}: to the base, points", NONE, shows["paired"], rounds),
                _row(f"{of}: to the round before, points", NONE, shows["paired_before"], rounds),
            ]
    return [headings, *rows]


def _row(title: str, base: str, show: Callable[[Entry], str], rounds: Sequence[Entry]) -> list[str]:
    return [title, base, *(NONE if "missing" in each else show(each) for each in rounds)]


def _by(score: Entry, verdict: str) -> Entry:
    found: Entry = score if verdict == "strict" else score["qwen"]
    return found


def _accuracy(name: str, verdict: str, each: Entry) -> str:
    return accuracy(_by(each["scores"][name], verdict))


def _difference(key: str, name: str, verdict: str, each: Entry) -> str:
    if each[key] is None:
        return NONE
    paired = _by(each[key][name], verdict)
    return f"{difference(paired)}, p {p_value(paired['p_holm'])}"


def notes(found: Mapping[str, Any]) -> list[str]:
    """What the table needs to be read, why a round has no model, and what lies where."""
    rounds: list[Entry] = found["rounds"]
    styles = prompt_notes(rounds[0]["styles"])
    return [
        f"Amateur from the second round on: {LATER[found['later_amateur']]}.",
        "Accuracy with 95% intervals; differences on the same problems with the paired bootstrap's "
        "95% interval and McNemar's exact p, corrected for the number of sets, not for the number "
        "of rounds: the best of several rounds owes part of its lead to having been picked.",
        power.note({name: score["problems"] for name, score in rounds[0]["base"].items()}),
        "Drift from the round's expert is read on held-out steps that were not taught; drift from "
        "the base on all steps of the base's own trajectories, KL(base || tuned).",
        *styles,
        "Nothing is registered. The next round as a run of its own, taken from the store, reported "
        "and registered: `lightreasoner run --set models.expert=DIR` with the model of the round "
        "before as DIR"
        + (
            ", and models.amateur as that round's expert."
            if found["later_amateur"] == "previous"
            else "."
        ),
        *(
            f"Round {place}: {each.get('missing') or each['model']}"
            for place, each in enumerate(rounds, 1)
        ),
    ]


def markdown(found: Mapping[str, Any]) -> str:
    """The table and its notes."""
    headings, *rows = table(found)
    return "\n\n".join([markdown_table(headings, rows), *notes(found)]) + "\n"
