"""What the runs came to: accuracies, paired differences, costs, drift. Reads tables; no model."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from lightreasoner.evaluation import gains, pairing
from lightreasoner.evaluation.pairing import Scores
from lightreasoner.experiments import comparison
from lightreasoner.experiments.comparison import Tuning
from lightreasoner.sampling import sample_stats
from lightreasoner.storage import tables
from recipes.study.arms import ARMS, OURS
from recipes.study.run import Run, maker_of

BASE = "base"
SAMPLED = ("generate", "score", "select", "keep", "gold")
Entry = dict[str, Any]


def seed(runs: Mapping[str, Run]) -> dict[str, Entry]:
    """An entry for each arm of a seed."""
    read = {
        name: pairing.read_scores(run.path("evaluate_base" if name == BASE else "evaluate"))
        for name, run in runs.items()
        if not run.missing
    }
    return {
        name: {"missing": run.missing} if run.missing else _entry(name, run, read)
        for name, run in runs.items()
    }


def _entry(name: str, run: Run, read: Mapping[str, Scores]) -> Entry:
    by_set = gains.by_set(read[name].rows)
    found = {
        "scores": {each: gains.score(rows) for each, rows in by_set.items()},
        "to_base": difference(read[BASE], read[name]),
        "to_ours": difference(read[OURS], read[name]),
    }
    if name == BASE:
        return found
    found |= {**costs(name, run), "drift": drift(run)}
    if "amateur" in run.outcomes:
        amateur = pairing.read_scores(run.path("amateur"))
        found |= {
            "gap": difference(amateur, read[BASE])["mean"]["difference"],
            "pull": tables.provenance(run.path("select") / "samples.parquet")["pull"],
            "statistics": statistics(run),
        }
    return found


def difference(before: Scores, after: Scores) -> dict[str, Any]:
    """The paired difference per set and its mean over the sets, strict, as `gains.gain` has it."""
    pairing.check_comparable(before, after)
    old, new = gains.by_set(before.rows), gains.by_set(after.rows)
    return gains.gain(old, new, list(old), "strict")


def costs(name: str, run: Run) -> dict[str, Any]:
    """Problems and tokens sampled, samples and tuned tokens, seconds, of the last round."""
    maker = maker_of(ARMS[name])
    assert maker, name
    finetune = run.outcomes["finetune"]
    seconds = {stage: float(each.manifest["seconds"]) for stage, each in run.outcomes.items()}
    samples = run.path(maker)
    tuned = comparison.costs(
        Tuning(samples, finetune.artifact.path, run.params.finetune, seconds["finetune"])
    )
    path = run.path("generate") / "trajectories.parquet"
    written = tables.read_table(path, tables.TRAJECTORIES)["completion_ids"]
    return {
        "problems": run.params.prepare.n_problems,
        "sampled_tokens": pc.sum(pc.list_value_length(written)).as_py(),
        "sampling_seconds": sum(seconds.get(stage, 0.0) for stage in SAMPLED),
        **tuned,
    }


def drift(run: Run) -> dict[str, float]:
    """Of the adapter that was kept, from the round's own expert: the curves' row."""
    folder = run.path("finetune")
    kept = json.loads((folder / "validation.json").read_text(encoding="utf-8"))["kept_update"]
    curve = pd.read_csv(folder / "validation.csv").set_index("update")
    row = curve.loc[kept if kept is not None else curve.index[-1]].dropna()
    return {str(name): float(value) for name, value in row.items()}


def curve(run: Run) -> dict[str, list[float]]:
    """Loss, entropy and gold perplexity on held-out problems, by update."""
    frame = pd.read_csv(run.path("finetune") / "validation.csv")
    return {str(name): frame[name].tolist() for name in frame}


def statistics(run: Run) -> dict[str, Any]:
    """The paper's statistics of the scored steps, by name."""
    config = run.params.select
    found = sample_stats.step_statistics(run.path("score"), config.alpha, config.beta)
    return {each.name: {"value": each.value, "n": each.n, "paper": each.paper} for each in found}


def label_mass(run: Run, decode: Any, most: int = 15) -> dict[str, Any]:
    """Where the labels' mass lies: the tokens with most of it, beside what the expert gave them.

    `mass` sums v_C over the samples, `expert` pi_E on the same supports, renormalised there.
    `not_top` is the share of the mass on tokens other than the expert's likeliest.
    """
    samples = tables.read_table(run.path("select") / "samples.parquet", tables.SAMPLES).to_pandas()
    steps = tables.read_table(run.path("score") / "steps.parquet", tables.STEPS).to_pandas()
    at = ["problem_id", "step"]
    both = samples.merge(steps, on=at, suffixes=("", "_scored"))
    rows = pd.DataFrame(
        [
            (token, weight, token == row.expert_top1, ours)
            for row in both.itertuples()
            for token, weight, ours in zip(row.token_ids, row.weights, _expert(row), strict=True)
        ],
        columns=["token", "mass", "is_top", "expert"],
    )
    total = float(rows["mass"].sum())
    by_token = rows.groupby("token")[["mass", "expert"]].sum().nlargest(most, "mass")
    return {
        "samples": len(samples),
        "not_top": float(rows.loc[~rows["is_top"], "mass"].sum() / total),
        "tokens": [
            {"token": decode(token), "mass": row.mass / total, "expert": row.expert / total}
            for token, row in by_token.iterrows()
        ],
    }


def _expert(row: Any) -> Any:
    """pi_E on the label's support, renormalised."""
    logs = dict(zip(row.token_ids_scored, row.expert_log_probs, strict=True))
    found = np.exp(np.array([logs[token] for token in row.token_ids], dtype=np.float64))
    return found / found.sum()
