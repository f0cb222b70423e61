"""JSON files in payloads, read back: a payload may be damaged, or another program's."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightreasoner import untrusted
from lightreasoner.errors import ABSENT, ArtifactError

AGAIN = "run the stage that writes it again"


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file of a payload says, an object. Raises ArtifactError."""
    try:
        tree = untrusted.read_json(path, ArtifactError)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: {ABSENT}") from None
    if not isinstance(tree, dict):
        said = untrusted.shown(tree, 60)
        raise ArtifactError(f"{path}: must be an object, not {said}; {AGAIN}")
    return tree


@contextlib.contextmanager
def expected(path: Path) -> Iterator[None]:
    """What a block looks up in `path` and does not find there is an ArtifactError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        said = untrusted.shown(str(error), 80)
        raise ArtifactError(
            f"{path}: not as its stage writes it ({type(error).__name__}: {said}); {AGAIN}"
        ) from error
