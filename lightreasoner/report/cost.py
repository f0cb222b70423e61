"""What one pass over the samples costs, against whole-solution tuning on the same trajectories.

Counted, not run: `lightreasoner compare` runs both.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightreasoner.errors import ArtifactError
from lightreasoner.storage import tables

Counts = dict[str, int]


def of(samples_dir: Path, trajectories_dir: Path) -> dict[str, Counts]:
    """Trajectories, labelled tokens and tokens read in one pass over each, by method.

    A trajectory is read once, to its last label: `prompt_ids` and as much of `completion_ids` as
    precedes that label. Whole solutions label each token of the completion; `scoring` is what the
    contrast costs before, where each model reads every trajectory whole.
    """
    trajectories = tables.read_table(trajectories_dir / "trajectories.parquet", tables.TRAJECTORIES)
    samples = tables.read_table(samples_dir / "samples.parquet", tables.SAMPLES)
    prompts, completions = (
        pc.list_value_length(trajectories[name]).to_numpy()
        for name in ("prompt_ids", "completion_ids")
    )
    written = completions > 0
    whole = int((prompts + completions - 1)[written].sum())
    last = _last_steps(samples, trajectories)
    taught = last >= 0
    return {
        "lightreasoner": {
            "trajectories": int(taught.sum()),
            "labels": len(samples),
            "read": int((prompts + last)[taught].sum()),
        },
        "sft": {
            "trajectories": int(written.sum()),
            "labels": int(completions.sum()),
            "read": whole,
        },
        "scoring": {"models": 2, "read": 2 * whole},
    }


def _last_steps(samples: pa.Table, trajectories: pa.Table) -> np.ndarray:
    """The last selected step of each trajectory, -1 where none was selected."""
    last = samples.group_by("problem_id").aggregate([("step", "max")])
    rows = pc.index_in(last["problem_id"], value_set=trajectories["problem_id"].combine_chunks())
    if rows.null_count:
        raise ArtifactError(
            f"samples of {rows.null_count:,} trajectories are not of these; run select again"
        )
    steps = np.full(len(trajectories), -1)
    steps[rows.to_numpy()] = last["step_max"].to_numpy()
    return steps
