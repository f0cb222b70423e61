"""JSON that shows whether it still is as it was written.

A byte that a disk loses can turn a number or a digest into another one, which no reader would
notice: `{"size": 32}` is as good a plan as `{"size": 36}`.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lightreasoner import untrusted

SEAL = "seal"


def closed(tree: Mapping[str, Any]) -> str:
    """The text of a tree, with a sha256 of all else that it says."""
    said = {key: value for key, value in tree.items() if key != SEAL}
    return _text({**said, SEAL: hashlib.sha256(_text(said).encode()).hexdigest()})


def opened(text: str) -> dict[str, Any]:
    """The tree of a text that `closed` made, its seal included.

    Raises ValueError where a character was changed.
    """
    tree = untrusted.json_value(text)
    if not isinstance(tree, dict) or text != closed(tree):
        raise ValueError("it was changed")
    return tree


def _text(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, indent=1, sort_keys=True) + "\n"
