"""The numbers of a payload that belong in MLflow's tables, a reader per stage."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

Metrics = dict[str, float]
PAIRED = ("gained", "lost", "p", "p_holm")


def of_payload(stage: str, payload: Path) -> Metrics:
    """What the stage's payload amounts to; empty for stages whose curves say it all."""
    reader = _READERS.get(stage)
    return reader(payload) if reader else {}


def of_report(payload: Path) -> Metrics:
    """The headline: accuracy of base and tuned expert per set, what was gained and lost, paired p.

    Accuracies and gains are fractions, gained and lost counts of problems; all by the strict
    verdict, and under `qwen/` by the toolkit's.
    """
    tables = _read_json(payload / "tables.json")
    before, after = tables["scores"]["base"], tables["scores"]["lightreasoner"]
    metrics: Metrics = {}
    for name in after:
        scores = before[name], after[name], tables["paired"][name]
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
                **{f"{verdict}{key}/{name}": paired[key] for key in PAIRED},
            }
    return _numbers(metrics)


def _problems(payload: Path) -> Metrics:
    with (payload / "problems.jsonl").open("rb") as file:
        return {"problems": sum(1 for _ in file)}


def _trajectories(payload: Path) -> Metrics:
    table = pq.read_table(
        payload / "trajectories.parquet", columns=["completion_ids", "finish_reason"]
    )
    return {
        "trajectories": table.num_rows,
        "completion_tokens": pc.sum(pc.list_value_length(table["completion_ids"])).as_py(),
        "truncated": pc.sum(pc.equal(table["finish_reason"], "length")).as_py(),
    }


def _steps(payload: Path) -> Metrics:
    return {"steps": pq.read_metadata(payload / "steps.parquet").num_rows}


def _samples(payload: Path) -> Metrics:
    """Samples, trajectories with one, mean KL (nats; none in baselines), mean tokens per label."""
    table = pq.read_table(payload / "samples.parquet", columns=["problem_id", "token_ids", "kl"])
    found = {
        "samples": table.num_rows,
        "problems": pc.count_distinct(table["problem_id"]).as_py(),
        "kl_mean": pc.mean(table["kl"]).as_py(),
        "support_mean": pc.mean(pc.list_value_length(table["token_ids"])).as_py(),
    }
    return _numbers(found)


def _parity(payload: Path) -> Metrics:
    return {
        f"parity/{key}": value
        for key, value in _numbers(_read_json(payload / "parity.json")).items()
    }


def _scores(payload: Path) -> Metrics:
    """By the strict verdict, and under `qwen/` by the toolkit's; pass@k and maj@n if they are."""
    metrics: Metrics = {}
    for name, score in _read_json(payload / "summary.json").items():
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


def _read_json(path: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return tree


def _numbers(tree: dict[str, Any]) -> Metrics:
    return {key: float(value) for key, value in tree.items() if isinstance(value, int | float)}
