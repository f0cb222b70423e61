"""Select: steps with KL > beta become samples; a softmax over the support becomes their label.

Reads stored steps only: no model, seconds (paper, sections 2.3.1 and 2.3.2). The paper's ablations
(section 3.5) are settings: `select.steps: all` drops step selection, `select.label: one_hot` drops
the contrast, both together drop both; `select.label: expert` keeps pi_E on the support instead.
"""

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lightreasoner.errors import ArtifactError, SelectionError
from lightreasoner.sampling.contrast import soft_labels
from lightreasoner.sampling.pull import divergences
from lightreasoner.sampling.pull import warning as warning_of
from lightreasoner.storage import tables
from lightreasoner.storage.artifacts import Inputs, Workspace
from lightreasoner.storage.fingerprint import running_code
from lightreasoner.untrusted import printable

if TYPE_CHECKING:
    from lightreasoner.config import Select
    from lightreasoner.progress import Watcher

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]


def write(inputs: Inputs, config: "Select", work: Workspace, watcher: "Watcher") -> None:
    """Write the sample set: `samples.parquet` and the `trajectories.parquet` it points into.

    The provenance of both is select's own and, under `generate` and `score`, what those stages
    wrote into their tables (docs/sample-set.md).
    """
    steps, out = inputs["steps"], work.out
    paths = [steps.path / f"{name}.parquet" for name in ("steps", "trajectories")]
    table = tables.read_table(paths[0], tables.STEPS)
    trajectories = tables.read_table(paths[1], tables.TRAJECTORIES)
    score, generate = (tables.provenance(path) for path in paths)
    refuse_unstored(config.alpha, score)
    samples = select_samples(table, trajectories, config)
    pulled = pull(table, config)
    if warning := warning_of(pulled, len(samples)):
        log.warning("select: %s", warning)
    provenance = {
        **config.model_dump(mode="json"),
        "threshold": threshold(table["kl"], config),
        "pull": pulled,
        "steps_digest": steps.digest,
        "code": running_code("lightreasoner.sampling.select"),
        "score": score,
        "generate": generate,
    }
    tables.write_table(samples, tables.SAMPLES, out / "samples.parquet", provenance)
    tables.write_table(trajectories, tables.TRAJECTORIES, out / "trajectories.parquet", provenance)
    watcher.progress(1, 1, "sample sets")


def refuse_unstored(alpha: float, score: dict[str, Any]) -> None:
    """Refuse an alpha whose support reaches below what was stored; `score`: the steps' provenance.

    Raises SelectionError.
    """
    if alpha < score.get("alpha_min", 0):
        raise SelectionError(
            f"alpha {alpha}: these steps store only tokens above alpha_min {score['alpha_min']}; "
            "raise select.alpha, or score with a lower score.alpha_min"
        )


def select_samples(steps: pa.Table, trajectories: pa.Table, config: "Select") -> pa.Table:
    """Samples (schema `tables.SAMPLES`) of the selected steps, in the steps' order.

    Raises SelectionError if there are none, ArtifactError if `one_hot` finds a step without the
    token that the expert wrote there.
    """
    kept = _selected(steps, config)
    if config.label == "one_hot":
        ids = written_tokens(kept, trajectories)
        bounds, weights = np.arange(len(kept) + 1), np.ones(len(kept))
    else:
        bounds, ids, weights, _ = _labels_on_support(kept, config)
    bounds = bounds.astype(np.int32)
    return pa.table(
        [
            kept["problem_id"],
            kept["step"],
            pa.ListArray.from_arrays(bounds, ids),
            pa.ListArray.from_arrays(bounds, weights.astype(np.float32)),
            kept["kl"],
        ],
        schema=tables.SAMPLES,
    )


def threshold(kl: pa.ChunkedArray, config: "Select") -> float | None:
    """The KL in nats above which a step is selected; None where every step is.

    A quantile is the smallest observed KL that at least that share of all steps does not exceed.
    """
    if config.steps == "all":
        return None
    if config.quantile is None or len(kl) == 0:
        return config.beta
    # rounded, for 0.07 of 100 is a little more than 7 in floating point
    rank = math.ceil(round(len(kl) * config.quantile, 9))
    return float(np.sort(kl.to_numpy())[max(0, rank - 1)])


def _selected(steps: pa.Table, config: "Select") -> pa.Table:
    """The steps over the threshold, in one chunk. Raises SelectionError if there are none."""
    least = threshold(steps["kl"], config)
    if least is not None and len(steps):
        kept = steps.filter(pc.greater(steps["kl"], pa.scalar(least, pa.float32())))
    else:
        kept = steps
    over = len(kept)
    if "skip_first_step" in config.reference:
        kept = kept.filter(pc.greater(kept["step"], 0))
    if len(kept):
        return kept.combine_chunks()
    if not len(steps):
        raise SelectionError("no step was scored, so none can be selected; score some trajectories")
    if over:
        raise SelectionError(
            f"select.reference skip_first_step: all {over} selected steps are first steps, so none "
            f"of {len(steps)} is left; lower the threshold or remove skip_first_step"
        )
    name = "beta" if config.quantile is None else "quantile"
    raise SelectionError(
        f"select.{name} {getattr(config, name)}: none of {len(steps)} steps has a larger KL; "
        f"the largest KL is {pc.max(steps['kl']).as_py():.4g} nats; lower select.{name}"
    )


def pull(steps: pa.Table, config: "Select") -> float | None:
    """The sum of the labels' divergences (pull.py), nats, to 6 digits; None for `one_hot`.

    Raises SelectionError as `select_samples`.
    """
    if config.label == "one_hot":
        return None
    bounds, _, weights, expert = _labels_on_support(_selected(steps, config), config)
    found = round(float(divergences(weights, expert, bounds).sum()), 9)
    return float(f"{max(0, found):.6g}")


def _labels_on_support(kept: pa.Table, config: "Select") -> tuple[Array, Array, Array, Array]:
    """Bounds, token ids, weights (v_C, or pi_E renormalised) and log pi_E of labels on the support.

    pi_E on the support is the softmax of log pi_E - 0: v_C against an amateur without opinion.
    """
    ids, offsets = tables.values_and_offsets(kept, "token_ids")
    expert, _ = tables.values_and_offsets(kept, "expert_log_probs")
    amateur, _ = tables.values_and_offsets(kept, "amateur_log_probs")
    if config.label == "expert":
        amateur = np.zeros_like(expert)
    on_support, weights = soft_labels(expert, amateur, offsets, config.alpha)
    return _bounds(on_support, offsets), ids[on_support], weights, expert[on_support]


def support_sizes(steps: pa.Table, alpha: float) -> Array:
    """How many tokens each step's support has (steps,): 1 is a single-token label."""
    expert, offsets = tables.values_and_offsets(steps, "expert_log_probs")
    on_support, _ = soft_labels(expert, np.zeros_like(expert), offsets, alpha)
    return np.diff(_bounds(on_support, offsets))


def _bounds(on_support: Array, offsets: Array) -> Array:
    sizes = np.add.reduceat(on_support, offsets[:-1], dtype=np.int32)
    return np.concatenate([[0], np.cumsum(sizes)])


def written_tokens(steps: pa.Table, trajectories: pa.Table) -> Array:
    """The token that the expert wrote at each step (steps,). Raises ArtifactError if one is
    missing."""
    ids = trajectories["problem_id"].combine_chunks()
    rows = pc.fill_null(pc.index_in(steps["problem_id"], value_set=ids), -1).to_numpy()
    tokens, offsets = tables.values_and_offsets(trajectories, "completion_ids")
    positions = offsets[rows] + steps["step"].to_numpy()
    lacking = np.flatnonzero((rows < 0) | (positions >= offsets[rows + 1]))
    if len(lacking):
        step = steps.slice(int(lacking[0]), 1).to_pylist()[0]
        raise ArtifactError(
            f"problem {printable(step['problem_id'])}, step {step['step']}: its trajectory has no "
            "such step; score the trajectories again"
        )
    return tokens[positions]
