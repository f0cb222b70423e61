"""What a model answered, as a table for MLflow's pages."""

from pathlib import Path

import pandas as pd

from lightreasoner.storage import tables

FILE = "predictions.json"
ROWS = 600
"""A page does not show more comfortably; scores.parquet in the store has all."""

COLUMNS = [
    "problem_set", "problem_id", "k", "question", "response", "gold", "extracted", "strict",
    "pred", "qwen", "tokens", "finish_reason",
]  # fmt: skip


def of_payload(payload: Path) -> pd.DataFrame | None:
    """The first responses of each set, ROWS in all; None for a payload without scores."""
    path = payload / "scores.parquet"
    if not path.exists():
        return None
    scores = tables.read_table(path, tables.SCORES).to_pandas()[COLUMNS].astype(object)
    sets = scores.groupby("problem_set", sort=False)
    shown = sets.head(max(1, ROWS // sets.ngroups))
    return shown.where(shown.notna(), None)
