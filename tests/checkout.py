"""Where this checkout lies, and what may lie beside it."""

import os
from pathlib import Path

from flows.environment import ROOT

__all__ = ["PATHS", "ROOT", "SHARED", "TESTS"]

TESTS = ROOT / "tests"

PATHS = os.pathsep.join(
    map(str, (ROOT, TESTS, *(each for each in TESTS.iterdir() if each.is_dir())))
)
"""PYTHONPATH with which another process finds the checkout and the tests."""

SHARED = Path(os.environ.get("LIGHTREASONER_SHARED", ROOT.parent / "shared"))
"""Inputs that are no part of the project; what needs them skips where they are absent."""
