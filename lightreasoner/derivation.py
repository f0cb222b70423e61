"""Amateurs that are made of the expert, by their names in `models.amateur`.

self:layers:N   the expert without its last N layers
self:bits:N     the expert with its matrices rounded to N bits
"""

import re
from typing import NamedTuple

PREFIX = "self:"
LIMITS = {"layers": (1, 9_999), "bits": (2, 8)}
_NAME = re.compile(r"self:(layers|bits):([0-9]{1,4})")


class Derivation(NamedTuple):
    """How an amateur is made of the expert: `n` layers less, or `n` bits a weight."""

    kind: str
    n: int

    def __str__(self) -> str:
        return f"{PREFIX}{self.kind}:{self.n}"


def parse(name: str) -> Derivation | None:
    """What a model's name says of its making; None for a model of its own. Raises ValueError."""
    if not name.startswith(PREFIX):
        return None
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError("must be self:layers:N or self:bits:N")
    made = Derivation(found[1], int(found[2]))
    low, high = LIMITS[made.kind]
    if not low <= made.n <= high:
        raise ValueError(f"must be self:{made.kind}:N with N from {low} to {high:,}")
    return made
