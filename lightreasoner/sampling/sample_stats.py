"""What a sample set amounts to, and how two of them differ. Reads tables only: no model, seconds.

The statistics are the paper's (section 2.2 and appendix F.3.2), beside what it reports. Intervals
are Wilson's for independent steps; the steps of one trajectory are not independent, so the true
ones are wider.
"""

import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.compute as pc

from lightreasoner.config import Select
from lightreasoner.sampling.select import pull, refuse_unstored, support_sizes
from lightreasoner.statistics import wilson_interval
from lightreasoner.storage import tables

KL_EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 2.0, 5.0, math.inf)
SUBTLE_KL = 0.4
"""Nats over which agreeing top-1 tokens hide a disagreement (section 2.2)."""

PAPER = {
    "KL in [0, 0.1)": "60%",
    "KL > 0.4": "20%",
    "KL > 0.4 where top-1 agree": "10%",
    "mean KL where top-1 agree": "0.166",
    "mean KL where top-1 differ": "1.99",
    "single-token labels, difference": "+35.6, +33.5, +27.4",
}
"""The paper's, of scored steps. Differences: Qwen2.5-Math-1.5B, -7B and -1.5B-Instruct."""


@dataclass(frozen=True)
class Statistic:
    """One statistic: of `n` steps or samples, `value` in `unit` (share, nats, points, tokens).

    A share has its Wilson 95% interval. `value` is None where there is nothing to count; `paper`
    is what the paper reports for the same statistic, empty where it is silent.
    """

    name: str
    n: int
    value: float | None
    unit: str
    interval: tuple[float, float] | None = None
    paper: str = ""


def step_statistics(steps_dir: Path, alpha: float, beta: float) -> list[Statistic]:
    """The paper's statistics of all scored steps, labels as `alpha` and `beta` would give them.

    Raises SelectionError if `alpha` is below what the steps store.
    """
    path = steps_dir / "steps.parquet"
    steps = tables.read_table(path, tables.STEPS)
    refuse_unstored(alpha, tables.provenance(path))
    kl = steps["kl"].to_numpy()
    agree = steps["expert_top1"].to_numpy() == steps["amateur_top1"].to_numpy()
    single = support_sizes(steps, alpha) == 1 if len(steps) else np.zeros(0, dtype=bool)
    selected = kl > np.float32(beta)
    pulled = (
        pull(steps, Select.model_validate({"alpha": alpha, "beta": beta}))
        if selected.any()
        else None
    )
    over = kl > np.float32(SUBTLE_KL)
    rows = [
        *kl_shares(kl),
        _share("KL > 0.4", over),
        _share("top-1 agree", agree),
        _share("KL > 0.4 where top-1 agree", over[agree]),
        _mean("mean KL", kl, "nats"),
        _mean("mean KL where top-1 agree", kl[agree], "nats"),
        _mean("mean KL where top-1 differ", kl[~agree], "nats"),
        *_single_token(single, selected, beta),
        *_pull(f", KL > {beta:g}", int(selected.sum()), pulled),
    ]
    return [replace(row, paper=PAPER.get(row.name, "")) for row in rows]


def sample_statistics(samples_dir: Path) -> list[Statistic]:
    """What a sample set holds, as it was selected; the KL of those samples that have one."""
    samples, trajectories = tables.read_sample_set(samples_dir)
    pulled = tables.provenance(samples_dir / "samples.parquet").get("pull")
    kl = pc.drop_null(samples["kl"]).to_numpy()
    sizes = np.array([len(ids) for ids in samples["token_ids"].to_pylist()], dtype=int)
    with_sample = set(samples["problem_id"].to_pylist())
    has_sample = np.array([id_ in with_sample for id_ in trajectories["problem_id"].to_pylist()])
    return [
        *kl_shares(kl),
        _mean("mean KL", kl, "nats"),
        _share("single-token labels", sizes == 1),
        _share("labels of several tokens", sizes > 1),
        _mean("mean tokens per label", sizes, "tokens"),
        _share("trajectories with a sample", has_sample),
        *_pull("", len(samples), pulled),
    ]


def kl_shares(kl: npt.NDArray[np.floating[Any]]) -> list[Statistic]:
    """Share of steps by KL, nats: each bin with its lower edge, without its upper one."""
    edges = np.array(KL_EDGES, dtype=kl.dtype)
    bins = np.searchsorted(edges, kl, side="right") - 1
    names = [f"[{low:g}, {high:g})" for low, high in itertools.pairwise(KL_EDGES)]
    return [_share(f"KL in {name}", bins == index) for index, name in enumerate(names)]


def _pull(which: str, n: int, pulled: float | None) -> list[Statistic]:
    """The pull of `n` samples, in sum and on average."""
    mean = None if pulled is None or not n else pulled / n
    return [
        Statistic(f"pull{which}", n, pulled, "nats"),
        Statistic(f"pull per sample{which}", n, mean, "nats"),
    ]


def _single_token(
    single: npt.NDArray[np.bool_], selected: npt.NDArray[np.bool_], beta: float
) -> list[Statistic]:
    """Single-token labels of all steps and of the selected ones, and the difference in points."""
    without = _share("single-token labels, every step", single)
    with_beta = _share(f"single-token labels, KL > {beta:g}", single[selected])
    difference = None
    if without.value is not None and with_beta.value is not None:
        difference = 100 * (without.value - with_beta.value)
    return [
        without,
        with_beta,
        Statistic("single-token labels, difference", len(single), difference, "points"),
    ]


def _share(name: str, holds: npt.NDArray[np.bool_]) -> Statistic:
    n, count = len(holds), int(holds.sum())
    if n == 0:
        return Statistic(name, 0, None, "share")
    return Statistic(name, n, count / n, "share", wilson_interval(count, n))


def _mean(name: str, values: npt.NDArray[Any], unit: str) -> Statistic:
    value = float(values.mean(dtype=np.float64)) if len(values) else None
    return Statistic(name, len(values), value, unit)


@dataclass(frozen=True)
class Example:
    """A sample that two sets tell apart: which, how, and by how much its weights differ."""

    problem_id: str
    step: int
    kind: str
    weight_difference: float | None = None


@dataclass(frozen=True)
class SampleSetDiff:
    """Two sample sets side by side. Samples are the same if problem, step and prefix are."""

    counts: dict[str, int]
    largest_weight_difference: float
    largest_kl_difference: float
    settings: dict[str, tuple[Any, Any]]
    examples: list[Example]


KINDS = {
    "equal": "in both, equal label",
    "label": "in both, another label",
    "prefix": "in both, after another prefix",
    "first": "only in the first",
    "second": "only in the second",
}


def diff(
    first_dir: Path, second_dir: Path, examples: int = 3, tolerance: float = 0.0
) -> SampleSetDiff:
    """Compare two sample sets; labels are equal if no token's weights differ by over `tolerance`.

    The largest differences are over samples that both have after the same prefix; a token off a
    label's support has weight 0. `examples` of each kind are named, the largest differences first.
    """
    sets = [_by_sample(directory) for directory in (first_dir, second_dir)]
    rows = [
        _compare(key, sets[0].get(key), sets[1].get(key), tolerance)
        for key in {**sets[0], **sets[1]}
    ]
    table = pd.DataFrame(rows, columns=["problem_id", "step", "kind", "weight", "kl"])
    table = table.astype({"weight": float, "kl": float})
    counts = table["kind"].value_counts()
    provenances = [tables.provenance(path / "samples.parquet") for path in (first_dir, second_dir)]
    return SampleSetDiff(
        {kind: int(counts.get(kind, 0)) for kind in KINDS},
        float(table["weight"].fillna(0).max()) if rows else 0.0,
        float(table["kl"].fillna(0).max()) if rows else 0.0,
        differing_settings(*provenances),
        _examples(table[table["kind"] != "equal"], examples),
    )


def _examples(table: pd.DataFrame, n: int) -> list[Example]:
    """`n` rows of each kind, the largest weight difference first."""
    table = table.sort_values("weight", ascending=False, kind="stable")
    rows = pd.concat([table[table["kind"] == kind].head(n) for kind in KINDS])
    return [
        Example(row.problem_id, row.step, row.kind, None if np.isnan(row.weight) else row.weight)
        for row in rows.itertuples()
    ]


@dataclass(frozen=True)
class _Sample:
    step: int
    trajectory: dict[str, Any]
    label: dict[int, float]
    kl: float | None

    def prefix(self) -> tuple[list[int], list[int]]:
        return self.trajectory["prompt_ids"], self.trajectory["completion_ids"][: self.step]


def _by_sample(directory: Path) -> dict[tuple[str, int], _Sample]:
    samples, trajectories = tables.read_sample_set(directory)
    by_id = {row["problem_id"]: row for row in trajectories.to_pylist()}
    found = {}
    for row in samples.to_pylist():
        id_, step = row["problem_id"], row["step"]
        label = dict(zip(row["token_ids"], row["weights"], strict=True))
        found[id_, step] = _Sample(step, by_id[id_], label, row["kl"])
    return found


def _compare(
    key: tuple[str, int], first: _Sample | None, second: _Sample | None, tolerance: float
) -> tuple[str, int, str, float | None, float | None]:
    """Kind and, for a sample of both after the same prefix, the weight and KL differences."""
    if first is None or second is None:
        return (*key, "first" if second is None else "second", None, None)
    if first.prefix() != second.prefix():
        return (*key, "prefix", None, None)
    weight = max(
        abs(first.label.get(id_, 0.0) - second.label.get(id_, 0.0))
        for id_ in first.label.keys() | second.label.keys()
    )
    kl = None if first.kl is None or second.kl is None else abs(first.kl - second.kl)
    return (*key, "label" if weight > tolerance else "equal", weight, kl)


def differing_settings(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings whose values differ, by dotted name; None where a side has no such setting."""
    ours, theirs = flattened(first), flattened(second)
    return {
        name: (ours.get(name), theirs.get(name))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    }


def flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings as one level: {"a": {"b": 1}} is {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
