"""What the values of the tables must be: checked once, where a table is read (`tables.read_table`).

A table may be a stranger's, or damaged: a weight of NaN, a list shorter than the one beside it or
a token id of -1 would only be noticed far from here, or not at all. All checks are of whole
columns; a million steps with three tokens each take half a second.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lightreasoner.errors import ArtifactError
from lightreasoner.untrusted import shown

Array = npt.NDArray[Any]

INF, ROUNDING = float("inf"), 1e-3
LIMITS = {
    **dict.fromkeys(("step", "k", "tokens"), (0, INF)),
    **dict.fromkeys(("prompt_ids", "completion_ids", "token_ids"), (0, INF)),
    **dict.fromkeys(("expert_top1", "amateur_top1"), (0, INF)),
    **dict.fromkeys(("kl", "expert_entropy", "amateur_entropy"), (-ROUNDING, INF)),
    **dict.fromkeys(("expert_log_probs", "amateur_log_probs"), (-INF, ROUNDING)),
    "weights": (0, 1 + ROUNDING),
}
"""Of numbers, alone or in lists, by column; all are finite. Float32 rounds by far less."""

OUTCOMES = ("correct", "wrong", "unparsed", "timeout")
WORDS = {"strict": OUTCOMES, "qwen": OUTCOMES, "finish_reason": ("stop", "length", "imported")}
NULL = ("extracted", "pred")
"""Columns that may hold nulls: a response may give no answer. A sample's `kl` may be null as well,
since the baselines ask no amateur."""

FILLED = ("prompt_ids", "token_ids")
BESIDE_IDS = ("weights", "expert_log_probs", "amateur_log_probs")
"""Columns whose lists are as long as those of `token_ids`."""

KEYS = (("problem_set", "problem_id", "k"), ("problem_id", "step"), ("problem_id",))
"""What names a row: the first of these whose columns the table has."""


def check(path: Path, table: pa.Table) -> None:
    """Refuse a table of tables.py that holds what no stage writes. Raises ArtifactError."""
    rows = Rows(path, table)
    for name in table.column_names:
        rows.check_column(name)
    for name in BESIDE_IDS:
        if name in table.column_names:
            lengths = [np.diff(rows.flat(each)[1]) for each in (name, "token_ids")]
            rows.refuse(lengths[0] != lengths[1], name, "must have as many entries as token_ids")
    if "token_ids" in table.column_names:
        rows.check_labels()
    rows.check_keys()


def check_ids(path: Path, table: pa.Table, size: int, whose: str) -> None:
    """Refuse token ids outside a vocabulary of `size`. Raises ArtifactError."""
    rows = Rows(path, table, f"give the {whose} that wrote them")
    for name in ("prompt_ids", "completion_ids", "token_ids"):
        if name in table.column_names:
            bad = rows.flat(name)[0] >= size
            rows.refuse_entry(bad, name, f"the {whose}'s vocabulary is 0 to {size - 1:,}")


def check_sample_set(path: Path, samples: pa.Table, trajectories: pa.Table) -> None:
    """Refuse samples whose trajectory is not there or ends before their step.

    An imported trajectory ends before the token of its last step, which is not known.
    """
    lengths = pc.list_value_length(trajectories["completion_ids"]).to_numpy()
    names = trajectories["problem_id"].combine_chunks()
    found = pc.fill_null(pc.index_in(samples["problem_id"], value_set=names), -1).to_numpy()
    rows = Rows(path, samples, "select or import the samples again")
    rows.refuse(found < 0, "problem_id", "must be a trajectory's in trajectories.parquet beside it")
    limits = lengths[found] if len(lengths) else found
    rows.refuse(samples["step"].to_numpy() > limits, "step", "is past its trajectory's end")


@dataclass(frozen=True)
class Rows:
    """The rows of a table that came from `path`, and what to do about one that is refused."""

    path: Path
    table: pa.Table
    remedy: str = "make the table again with the stage that writes it"

    def flat(self, name: str) -> tuple[Array, Array]:
        """The column's entries and, for i rows, i + 1 offsets: row i has those from i to i + 1."""
        column = self.table[name].combine_chunks()
        if not pa.types.is_list(column.type):
            return column.to_numpy(zero_copy_only=False), np.arange(len(column) + 1)
        offsets = column.offsets.to_numpy()
        return column.flatten().to_numpy(zero_copy_only=False), offsets - offsets[0]

    def refuse(self, bad: Array, name: str, limit: str) -> None:
        """Refuse the first row for which `bad` (rows,) is true, if there is one."""
        if bad.any():
            row = int(bad.argmax())
            self._raise(row, name, self.table[name][row].as_py(), limit)

    def refuse_entry(self, bad: Array, name: str, limit: str) -> None:
        """Refuse the row of the first entry for which `bad` (entries,) is true."""
        if bad.any():
            at = int(bad.argmax())
            values, offsets = self.flat(name)
            row = int(np.searchsorted(offsets, at, side="right")) - 1
            self._raise(row, name, values[at : at + 1].tolist()[0], limit)

    def _raise(self, row: int, name: str, value: Any, limit: str) -> None:
        raise ArtifactError(
            f"{self.path}: row {row + 1}, {name} {shown(value, 80)}: {limit}; {self.remedy}"
        )

    def check_column(self, name: str) -> None:
        """Refuse nulls, numbers outside LIMITS, words that are none, lists without an entry."""
        column = self.table[name]
        is_list = pa.types.is_list(column.type)
        may_be_null = name in NULL or (name == "kl" and "weights" in self.table.column_names)
        if column.null_count and not may_be_null:
            self.refuse(column.is_null().to_numpy(), name, "a value must be there")
        if is_list and pc.list_flatten(column).null_count:
            nulls = pc.list_flatten(column).is_null().to_numpy()
            self.refuse_entry(nulls, name, "a number must be there")
        if name in LIMITS:
            low, high = LIMITS[name]
            values, _ = self.flat(name)
            bad = ~((values >= low) & (values <= high) & np.isfinite(values))
            if column.null_count:
                bad &= ~column.is_null().to_numpy()
            said = f"<= {high:g}" if low == -INF else f">= {low:g}" if high == INF else "0 to 1"
            self.refuse_entry(bad, name, f"must be a finite number {said}")
        elif name in WORDS:
            bad = pc.invert(pc.is_in(column, pa.array(WORDS[name]))).to_numpy()
            self.refuse(bad, name, f"must be one of {', '.join(WORDS[name])}")
        if name in FILLED:
            empty = pc.equal(pc.list_value_length(column), 0).to_numpy()
            self.refuse(empty, name, "must have an entry")

    def check_keys(self) -> None:
        """No row is there twice."""
        key = next(key for key in KEYS if set(key) <= set(self.table.column_names))
        coded = {}
        for name in key:
            column = self.table[name]
            if pa.types.is_string(column.type):  # numbers are hashed faster, and fit one array
                column = column.dictionary_encode()
            whole = column.combine_chunks()
            coded[name] = whole.indices if pa.types.is_dictionary(whole.type) else whole
        repeated = pa.table(coded).to_pandas().duplicated().to_numpy()
        if repeated.any():
            row = int(repeated.argmax())
            value = [self.table[name][row].as_py() for name in key]
            self._raise(row, ", ".join(key), value, "appears twice")

    def check_labels(self) -> None:
        """Each step has a token but once; weights sum to 1."""
        ids, offsets = self.flat("token_ids")
        row_of = np.repeat(np.arange(len(self.table)), np.diff(offsets))
        pairs = row_of << 32 | ids
        ordered = np.sort(pairs)  # which costs a tenth of hashing them
        if (ordered[1:] == ordered[:-1]).any():
            repeated = pd.Series(pairs).duplicated().to_numpy()
            self.refuse_entry(repeated, "token_ids", "is there twice")
        if "weights" in self.table.column_names:
            weights, _ = self.flat("weights")
            sums = np.bincount(row_of, weights.astype(np.float64), len(self.table))
            bad = ~(np.abs(sums - 1) <= ROUNDING)
            said = sums[bad.argmax()] if bad.any() else 1
            self.refuse(bad, "weights", f"must sum to 1, not {said:.4g}")
