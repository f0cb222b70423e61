"""What changes a stage's fingerprint, and what does not."""

import importlib
import inspect
import shutil
from pathlib import Path

import pytest

from lightreasoner.pipeline.graph import BASELINES, GRAPH, STAGES, Stage, walk
from lightreasoner.storage import fingerprint
from lightreasoner.storage.artifacts import Artifact, Inputs


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package whose files a test may change."""
    copy = tmp_path / "lightreasoner"
    ignored = shutil.ignore_patterns("__pycache__", "models")
    shutil.copytree(fingerprint.PACKAGE_DIR, copy, ignore=ignored)
    monkeypatch.setattr(fingerprint, "PACKAGE_DIR", copy)
    return copy


def digests() -> dict[str, str]:
    return {stage.name: fingerprint.code_digest(stage.module) for stage in GRAPH}


def changed(before: dict[str, str]) -> set[str]:
    after = digests()
    return {name for name in before if before[name] != after[name]}


def test_a_line_of_contrast_changes_what_depends_on_it(package: Path) -> None:
    before = digests()
    path = package / "sampling" / "contrast.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(".clamp(min=0)", ".clamp(min=0.0)"), encoding="utf-8")
    found = changed(before)
    assert {"score", "select"} <= found
    assert not {"prepare", "generate", "evaluate"} & found


def test_comments_docstrings_and_layout_change_nothing(package: Path) -> None:
    before = digests()
    path = package / "sampling" / "contrast.py"
    text = path.read_text(encoding="utf-8")
    text = text.replace('"""Entropy of each step', '"""The entropy of a step')
    path.write_text("# a comment\n\n" + text + "\n\n", encoding="utf-8")
    assert changed(before) == set()


def test_configuration_is_no_code(package: Path) -> None:
    """Sections enter by value, so that a new field of one stage leaves the others alone."""
    before = digests()
    path = package / "config.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nNEW = 1\n", encoding="utf-8")
    assert changed(before) == set()
    names = {p.name for stage in GRAPH for p in fingerprint.code_files(stage.module)}
    assert not {"config.py", "graph.py", "store.py", "app.py"} & names


def test_imports_within_functions_count() -> None:
    names = {path.name for path in fingerprint.code_files("lightreasoner.data.sources")}
    assert "microworld.py" in names


def test_grading_is_no_part_of_the_trajectories() -> None:
    """What reads a benchmark's gold answers may change without the expert writing anew."""
    names = {path.name for path in fingerprint.code_files("lightreasoner.sampling.generate")}
    assert not {"sources.py", "grade.py"} & names


def test_each_part_counts() -> None:
    parts = ("s", "lightreasoner.errors", {"beta": 0.4}, {"steps": "d"}, {"device": "cpu"})
    plain = fingerprint.fingerprint(*parts)
    for place, other in enumerate(
        ("t", "lightreasoner.storage.tables", {"beta": 0.5}, {"steps": "e"}, {"device": "cuda"})
    ):
        varied = (*parts[:place], other, *parts[place + 1 :])
        assert fingerprint.fingerprint(*varied) != plain  # type: ignore[arg-type]
    assert fingerprint.fingerprint(*parts) == plain


def test_the_graph_is_in_order() -> None:
    """Each stage reads what the outside or an earlier stage gives."""
    known = {"expert", "amateur", "problem_source", "benchmark_source"}
    for stage in GRAPH:
        assert set(stage.inputs) <= known, stage.name
        known.add(stage.output)
    assert list(STAGES) == [stage.name for stage in (*GRAPH, *BASELINES)]


@pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
def test_a_stage_is_a_function_of_its_module(stage: Stage) -> None:
    """It is looked up by name, so no type checker sees it."""
    function = getattr(importlib.import_module(stage.module), stage.function)
    assert list(inspect.signature(function).parameters)[:4] == [
        "inputs",
        "config",
        "work",
        "watcher",
    ]


def test_a_walk_feeds_each_stage_what_those_before_it_put_out() -> None:
    """Every artifact's digest is here the name of who made it."""
    seen: dict[str, dict[str, str]] = {}

    def make(stage: Stage, inputs: Inputs) -> Artifact:
        seen[stage.name] = {name: artifact.digest for name, artifact in inputs.items()}
        return Artifact(Path(stage.output), stage.name)

    chain = [STAGES[name] for name in ("prepare", "generate", "gold", "finetune")]
    outside = {name: Artifact(Path(name), "outside") for name in ("expert", "problem_source")}
    made = walk(chain, outside, make)
    assert seen == {
        "prepare": {"problem_source": "outside"},
        "generate": {"expert": "outside", "problems": "prepare"},
        "gold": {"expert": "outside", "problems": "prepare", "trajectories": "generate"},
        "finetune": {"expert": "outside", "samples": "gold", "problems": "prepare"},
    }
    assert list(made) == ["problems", "trajectories", "samples", "adapter"]
