"""Scores written by hand: a mark a response, for the tests of what is read from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lightreasoner.storage import tables

MARKS: dict[str, dict[str, Any]] = {
    # right by both verdicts
    "+": {"qwen": "correct", "strict": "correct", "extracted": "4", "response": r"\boxed{4}"},
    # right by the toolkit's alone: a last number, no box, no answer
    "~": {"qwen": "correct", "strict": "unparsed", "extracted": None, "response": "It is 4"},
    # right by the toolkit's alone, where it reads on behind the box
    "t": {"qwen": "correct", "strict": "wrong", "extracted": "5", "response": r"\boxed{5}, no, 4"},
    # right by the strict one alone
    "!": {"qwen": "wrong", "strict": "correct", "extracted": "50%", "response": r"\boxed{50\%}"},
    # wrong by both
    "-": {"qwen": "wrong", "strict": "wrong", "extracted": "5", "response": r"\boxed{5}"},
    # runs on to the limit, in a box that does not end
    "l": {"qwen": "wrong", "strict": "unparsed", "extracted": None, "finish_reason": "length",
          "response": r"So \boxed{5 + 5 +"},
}  # fmt: skip


def write_scores(
    out: Path, style: str, sets: Mapping[str, str], responses: int = 1, **conditions: Any
) -> Path:
    """Scores of each set's marks, `responses` consecutive ones a problem; returns `out`."""
    out.mkdir(parents=True)
    rows = [
        {
            "problem_set": name,
            "problem_id": f"{name}/{place // responses:05d}",
            "k": place % responses,
            "question": f"{place // responses}?",
            "prompt": f"{style}: {place // responses}?",
            "gold": "4",
            "pred": "4",
            "tokens": 9,
            "finish_reason": "stop",
            **MARKS[mark],
        }
        for name, marks in sets.items()
        for place, mark in enumerate(marks)
    ]
    frame = pd.DataFrame(rows, columns=tables.SCORES.names)
    write_frame(out, frame, {"style": style, "max_new_tokens": 2048, **conditions})
    return out


def write_frame(out: Path, rows: pd.DataFrame, conditions: dict[str, Any]) -> None:
    """`scores.parquet` in `out`, over what is there."""
    tables.write_table(rows, tables.SCORES, out / "scores.parquet", conditions)
