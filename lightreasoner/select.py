"""Select: steps with KL > beta become samples; a softmax over the support becomes their label.

Reads stored steps only: no model, seconds (paper, sections 2.3.1 and 2.3.2).
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightreasoner import tables
from lightreasoner.artifacts import Artifact
from lightreasoner.contrast import soft_labels
from lightreasoner.errors import SelectionError

if TYPE_CHECKING:
    from lightreasoner.config import Select


def write_samples(steps: Artifact, config: "Select", out: Path) -> None:
    """Write the sample set: `samples.parquet` and the `trajectories.parquet` it points into."""
    table = tables.read(steps.path / "steps.parquet", tables.STEPS)
    provenance = {
        "steps": steps.digest,
        "alpha": config.alpha,
        "beta": config.beta,
        "scoring": tables.provenance(steps.path / "steps.parquet"),
    }
    samples = select_samples(table, config.alpha, config.beta)
    tables.write(samples, tables.SAMPLES, out / "samples.parquet", provenance)
    trajectories = tables.read(steps.path / "trajectories.parquet", tables.TRAJECTORIES)
    tables.write(trajectories, tables.TRAJECTORIES, out / "trajectories.parquet", provenance)


def select_samples(steps: pa.Table, alpha: float, beta: float) -> pa.Table:
    """Samples (schema `tables.SAMPLES`) of the steps with KL > beta nats, in the steps' order.

    Raises SelectionError if none is left.
    """
    kept = steps.filter(pc.greater(steps["kl"], pa.scalar(beta, pa.float32()))).combine_chunks()
    if len(kept) == 0:
        largest = pc.max(steps["kl"]).as_py()
        found = f"the largest KL is {largest:.4g} nats" if len(steps) else "no step was scored"
        raise SelectionError(
            f"select.beta {beta}: none of {len(steps)} steps has a larger KL; {found}; "
            "lower select.beta"
        )
    tokens = _list_column(kept, "token_ids")
    offsets = tokens.offsets.to_numpy()
    on_support, weights = soft_labels(
        _list_column(kept, "expert_log_probs").flatten().to_numpy(),
        _list_column(kept, "amateur_log_probs").flatten().to_numpy(),
        offsets,
        alpha,
    )
    sizes = np.add.reduceat(on_support, offsets[:-1], dtype=np.int32)
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    ids = tokens.flatten().to_numpy()[on_support]
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


def _list_column(table: pa.Table, name: str) -> pa.ListArray:
    """A list column as one array whose offsets start at 0."""
    return pa.concat_arrays(table[name].chunks)
