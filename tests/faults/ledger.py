"""What was done to the pipeline and what became of it: a line a try, a table at the end.

    with ledger.trial("SIGKILL", "generate") as trial:
        ...                                   # the fault, the next run, the checks
        trial.repeated = 1                    # shards that were made twice

A block that raises is a try that was lost. FAULTS_SEED sets all moments and choices.
"""

import contextlib
import json
import os
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import pytest
from checkout import ROOT

SEED = os.environ.get("FAULTS_SEED", "1")
TRIES = ROOT / "build" / "faults.jsonl"
TABLE = ROOT / "build" / "faults.md"
COLUMNS = ("fault", "stage", "tries", "survived", "lost", "repeated shards")


@dataclass
class Trial:
    """One fault; `survived` says that all was right after it."""

    fault: str
    stage: str
    survived: bool = False
    repeated: int = 0


def chance(*names: object) -> random.Random:
    """The random numbers of one test, which depend on the seed and on its name alone."""
    return random.Random("/".join(map(str, (SEED, *names))))


@contextlib.contextmanager
def trial(fault: str, stage: str) -> Iterator[Trial]:
    """Note what becomes of the block, but for one that is skipped or that a person ends."""
    tried = Trial(fault, stage)
    try:
        yield tried
        tried.survived = True
    except (pytest.skip.Exception, KeyboardInterrupt):
        raise
    except BaseException:
        _note(tried)
        raise
    _note(tried)


def _note(tried: Trial) -> None:
    """Several processes may do so at once."""
    TRIES.parent.mkdir(exist_ok=True)
    with TRIES.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(tried)) + "\n")


def forget() -> None:
    """Begin a new table."""
    TRIES.unlink(missing_ok=True)


def table() -> list[str]:
    """The lines of the table so far, as Markdown; none if nothing was tried."""
    groups = defaultdict[tuple[str, str], list[Trial]](list)
    lines = TRIES.read_text(encoding="utf-8").splitlines() if TRIES.exists() else []
    for tried in (Trial(**json.loads(line)) for line in lines):
        groups[tried.fault, tried.stage].append(tried)
    rows = [(*names, *_counts(tries)) for names, tries in sorted(groups.items())]
    if not rows:
        return []
    rows.append(("all", "", *(sum(column) for column in zip(*(row[2:] for row in rows)))))  # noqa: B905
    cells = [[*map(str, row)] for row in (COLUMNS, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = [
        [
            f"{cell:{'<' if at < 2 else '>'}{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in cells
    ]
    padded.insert(
        1, ["-" * width if at < 2 else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
    )
    return [f"| {' | '.join(row)} |" for row in padded]


def _counts(tries: list[Trial]) -> tuple[int, int, int, int]:
    survived = sum(tried.survived for tried in tries)
    return len(tries), survived, len(tries) - survived, sum(tried.repeated for tried in tries)
