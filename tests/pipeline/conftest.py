"""The results of a finished run in a store, as if last used 40 days ago."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import stored_pipeline

from lightreasoner.pipeline.store import Outcome
from lightreasoner.presets import PRESETS


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Outcome]]:
    """A home with a finished run's results, and these by stage."""
    home = tmp_path_factory.mktemp("full")
    return home, stored_pipeline.write_keyed(home, PRESETS["microworld"])


@pytest.fixture
def made(full: tuple[Path, dict[str, Outcome]], tmp_path: Path) -> dict[str, Outcome]:
    """The same under `tmp_path`, last used 40 days ago."""
    home, outcomes = full
    shutil.copytree(home / "store", tmp_path / "store")
    for path in (tmp_path / "store").glob("*/*"):
        stored_pipeline.age(path, 40)

    def moved(outcome: Outcome) -> Outcome:
        path = tmp_path / outcome.artifact.path.relative_to(home)
        return replace(outcome, artifact=replace(outcome.artifact, path=path))

    return {name: moved(outcome) for name, outcome in outcomes.items()}
