"""The numbers of a payload that belong in MLflow's tables, a reader per stage."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.compute as pc

from lightreasoner.statistics import detectable_gain
from lightreasoner.storage import tables
from lightreasoner.storage.payload import expected, read_json

Metrics = dict[str, float]
PAIRED = ("gained", "lost", "p", "p_holm")
TAUGHT = ("pull", "several_tokens_share")
MEANS = ("accuracy_base", "accuracy", "gain")
"""What a report's metrics have per set and, under the bare name, in the mean over the sets."""


def of_payload(stage: str, payload: Path) -> Metrics:
    """What the stage's payload amounts to; empty for stages whose curves say it all."""
    reader = _READERS.get(stage)
    with expected(payload):
        return reader(payload) if reader else {}


def of_report(payload: Path) -> Metrics:
    """The headline: accuracy of base and tuned expert per set (and in the mean over the sets, each
    counting alike: MEANS), what was gained and lost, paired p,
    the gain that so many problems show with 80% power where so many change, the drift on held-out
    steps, the samples' pull and share of labels of several tokens, and what contamination.py found.

    Accuracies and gains are fractions, gained and lost counts of problems; all by the strict
    verdict, and under `qwen/` by the toolkit's. Contamination's are by the strict one alone.
    """
    report = read_json(payload / "tables.json")
    before, after = report["scores"]["base"], report["scores"]["lightreasoner"]
    taught = {key: report["samples"].get(key) for key in TAUGHT}
    metrics: dict[str, Any] = {**report["drift"], **taught}
    for name in after:
        n = after[name]["problems"]
        scores = before[name], after[name], report["paired"][name]
        for verdict, (old, new, paired) in (
            ("", scores),
            ("qwen/", tuple(score["qwen"] for score in scores)),
        ):
            metrics |= {
                f"{verdict}accuracy/{name}": new["accuracy"],
                f"{verdict}accuracy_base/{name}": old["accuracy"],
                f"{verdict}gain/{name}": paired["difference"],
                f"{verdict}gain_low/{name}": paired["ci95"][0],
                f"{verdict}gain_high/{name}": paired["ci95"][1],
                f"{verdict}gain_that_shows/{name}": detectable_gain(
                    n, (paired["gained"] + paired["lost"]) / n
                ),
                **{f"{verdict}{key}/{name}": paired[key] for key in PAIRED},
            }
        metrics |= _contamination(name, report["contamination"][name])
    metrics |= {key: fmean(metrics[f"{key}/{name}"] for name in after) for key in MEANS}
    return _numbers(metrics)


def _contamination(name: str, found: dict[str, Any]) -> Metrics:
    """How many of a set's questions share 8 or 13 words with what was read, and the gain without
    those that share 8, if any is left."""
    metrics = {
        f"contamination_{length}_{kind}/{name}": count
        for length, kinds in found["shared"].items()
        for kind, count in kinds.items()
    }
    if (without := found["without"]) is not None:
        values = without["difference"], *without["ci95"]
        for end, value in zip(("", "_low", "_high"), values, strict=True):
            metrics[f"gain_without_contamination{end}/{name}"] = value
    return metrics


def _problems(payload: Path) -> Metrics:
    with (payload / "problems.jsonl").open("rb") as file:
        return {"problems": sum(1 for _ in file)}


def _trajectories(payload: Path) -> Metrics:
    table = tables.read_table(payload / "trajectories.parquet", tables.TRAJECTORIES)
    return {
        "trajectories": table.num_rows,
        "completion_tokens": pc.sum(pc.list_value_length(table["completion_ids"])).as_py(),
        "truncated": pc.sum(pc.equal(table["finish_reason"], "length")).as_py(),
    }


def _steps(payload: Path) -> Metrics:
    return {"steps": tables.count(payload / "steps.parquet")}


def _samples(payload: Path) -> Metrics:
    """Samples, trajectories with one, mean KL and pull (nats; none in baselines), mean tokens per
    label, share of labels of several."""
    table = tables.read_table(payload / "samples.parquet", tables.SAMPLES)
    sizes = pc.list_value_length(table["token_ids"])
    found = {
        "samples": table.num_rows,
        "problems": pc.count_distinct(table["problem_id"]).as_py(),
        "kl_mean": pc.mean(table["kl"]).as_py(),
        "support_mean": pc.mean(sizes).as_py(),
        "several_tokens_share": pc.mean(pc.greater(sizes, 1)).as_py(),
        "pull": tables.provenance(payload / "samples.parquet").get("pull"),
    }
    return _numbers(found)


def _parity(payload: Path) -> Metrics:
    return {
        f"parity/{key}": value
        for key, value in _numbers(read_json(payload / "parity.json")).items()
    }


def _scores(payload: Path) -> Metrics:
    """By the strict verdict, and under `qwen/` by the toolkit's; pass@k and maj@n if they are."""
    metrics: Metrics = {}
    for name, score in read_json(payload / "summary.json").items():
        for verdict, found in (("", score), ("qwen/", score["qwen"])):
            low, high = found["ci95"]
            flat = {**found, "accuracy_low": low, "accuracy_high": high}
            for several in ("pass_at", "maj_at"):
                flat |= {f"{several}_{k}": share for k, share in found.get(several, {}).items()}
            metrics |= {f"{verdict}{key}/{name}": value for key, value in _numbers(flat).items()}
    return metrics


_READERS: dict[str, Callable[[Path], Metrics]] = {
    "prepare": _problems,
    "generate": _trajectories,
    "score": _steps,
    "select": _samples,
    "keep": _samples,
    "gold": _samples,
    "merge": _parity,
    "evaluate_base": _scores,
    "evaluate": _scores,
    "report": of_report,
}


def _numbers(tree: dict[str, Any]) -> Metrics:
    return {key: float(value) for key, value in tree.items() if isinstance(value, int | float)}
