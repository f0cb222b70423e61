"""Publishing a run to DVC: a real DVC on a checkout of its own; results written by hand."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import dvc_checkout
import pytest
import stored_pipeline
import yaml
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.dvc import program, publish
from flows.dvc.program import DvcError
from flows.dvc.publish import PublishError
from flows.results import records
from flows.results.records import Record
from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.pipeline.graph import STAGES
from lightreasoner.presets import PRESETS
from lightreasoner.storage import artifacts
from tasks.stages import StageRun

pytestmark = pytest.mark.skipif(not dvc_checkout.DVC.is_file(), reason="needs .venv/bin/dvc")
CHANGED = ["select.beta=0.5"]
MODEL = {"name": "m", "version": "3", "alias": "candidate", "gate": {"verdict": "kept"}}


@pytest.fixture(scope="module")
def params() -> Params:
    """The run's parameters: those of the checkout but for beta."""
    return config.changed(PRESETS["microworld"], CHANGED)


@pytest.fixture(scope="module")
def run(params: Params, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A home with a finished run's results and record."""
    home = tmp_path_factory.mktemp("home")
    outcomes = stored_pipeline.write_keyed(home, params)
    state: Any = None
    stages = {name: StageRun(outcome, state, 1.0) for name, outcome in outcomes.items()}
    ids = {"name": "microworld beta=0.5 abc", "prefect": "p-1", "mlflow": "m-1"}
    record = records.of(ids, params, stages, MODEL)
    records.keep(home, record)
    return home, record


@pytest.fixture
def home(run: tuple[Path, Record]) -> Path:
    return run[0]


@pytest.fixture
def record(run: tuple[Path, Record]) -> Record:
    return run[1]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dvc_checkout.make(tmp_path_factory.mktemp("start") / "it", PRESETS["microworld"])


@pytest.fixture
def checkout(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which nothing was run yet, as the current folder."""
    made = tmp_path / "checkout"
    shutil.copytree(start, made, symlinks=True)
    for name, value in dvc_checkout.environment(made).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(made)
    return made


def call(home: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setenv("LIGHTREASONER_HOME", str(home))
    return CliRunner().invoke(app.application(), arguments)


def test_a_run_is_published_and_its_samples_are_a_version(
    checkout: Path, home: Path, record: Record, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = [home / "store" / name for name in record.digests]
    before = [*map(artifacts.digest, stored)]
    result = call(home, monkeypatch, "publish")
    assert result.exit_code == 0, result.output
    first, second, third, last = result.stdout.splitlines()
    assert first.startswith("published: microworld beta=0.5 abc, which finished 2")
    assert second == "params.yaml: select.beta=0.5"
    assert third.startswith("dvc.lock: 10 results from the store, in ")
    assert last.startswith("next: git add params.yaml dvc.lock; git commit -m 'microworld beta")
    assert (checkout / "params.yaml").read_text(encoding="utf-8") == config.dump(params)
    data = checkout / ".lightreasoner" / "data"
    assert {path.name for path in data.iterdir()} == {
        *(STAGES[name].output for name in record.digests),
        "registered",
    }
    version = data / "registered" / "registered_model.json"
    assert json.loads(version.read_text(encoding="utf-8")) == MODEL
    assert [*map(artifacts.digest, stored)] == before
    locked = yaml.safe_load((checkout / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    assert locked["select"]["outs"][0]["md5"] == record.digests["select"]
    assert locked["select"]["params"]["params.yaml"]["select"]["beta"] == 0.5

    dvc_checkout.commit(checkout, "published")
    dvc_checkout.git(checkout, "tag", "samples@v0.0.1")
    (data / "samples").rename(checkout / "mine")
    diff = call(home, monkeypatch, "samples", "diff", "samples@v0.0.1", "mine")
    assert diff.exit_code == 0, diff.output
    assert diff.stdout.startswith("samples@v0.0.1 and mine\n")
    assert "in both, equal label" in diff.stdout


def test_what_fails_midway_leaves_all_as_it_was(
    checkout: Path, home: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = checkout / ".lightreasoner" / "data"
    (data / "samples").mkdir(parents=True)
    (data / "samples" / "old").touch()
    (data / ".publish-killed").mkdir()
    (checkout / "dvc.lock").write_text("old", encoding="utf-8")
    (checkout / ".dvc" / "config").write_text("[core", encoding="utf-8")
    before = dvc_checkout.git(checkout, "status", "--porcelain", "--ignored")
    with pytest.raises(DvcError, match=r"dvc commit failed: .*; nothing was published, and param"):
        publish.publish_run(record, checkout, home)
    assert [path.name for path in data.iterdir()] == ["samples"]
    assert [path.name for path in (data / "samples").iterdir()] == ["old"]
    assert (checkout / "dvc.lock").read_text(encoding="utf-8") == "old"
    assert dvc_checkout.git(checkout, "status", "--porcelain", "--ignored") == before


def test_what_changes_meanwhile_is_not_published_over(
    checkout: Path, home: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit while results are looked up is refused; one while DVC works undoes all."""
    look_up, dvc = publish.results, program.dvc

    def slowly(*call: Any) -> Any:
        edit_params(checkout)
        return look_up(*call)

    monkeypatch.setattr(publish, "results", slowly)
    with pytest.raises(PublishError, match=r"params\.yaml: has uncommitted edits"):
        publish.publish_run(record, checkout, home)
    monkeypatch.setattr(publish, "results", look_up)
    dvc_checkout.git(checkout, "restore", "params.yaml")

    def edited(folder: Path, *arguments: str) -> str:
        said = dvc(folder, *arguments)
        (checkout / "params.yaml").write_text("{}", encoding="utf-8")
        return said

    monkeypatch.setattr(program, "dvc", edited)
    with pytest.raises(DvcError, match=r"params\.yaml was changed in the meantime; nothing"):
        publish.publish_run(record, checkout, home)
    assert not (checkout / "dvc.lock").exists()


def edit_params(checkout: Path) -> None:
    text = (checkout / "params.yaml").read_text(encoding="utf-8")
    (checkout / "params.yaml").write_text(text.replace("beta: 0.4", "beta: 0.9"), encoding="utf-8")


def break_params(checkout: Path) -> None:
    (checkout / "params.yaml").write_text("models: [", encoding="utf-8")


def be_busy(checkout: Path) -> None:
    (checkout / ".dvc" / "tmp").mkdir()
    lock = {"x": {"write": {"pid": os.getpid(), "cmd": "dvc repro"}}}
    (checkout / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(lock), encoding="utf-8")


def forget_git(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")


def change_code(checkout: Path) -> None:
    (checkout / "lightreasoner" / "sampling" / "select.py").write_text("# mine\n", encoding="utf-8")


def leave(checkout: Path) -> None:
    (checkout / "dvc.yaml").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (edit_params, "has uncommitted edits that this would overwrite; commit"),
        (break_params, "has uncommitted edits"),
        (forget_git, "has uncommitted edits"),
        (be_busy, r"DVC is busy: `dvc repro` \(process \d+\) works there; wait"),
        (change_code, "select.py: is not the running code, "),
        (leave, "no dvc.yaml; go to the checkout and publish there"),
    ],
)
def test_what_would_be_lost_or_wrong_is_refused(
    spoil: Callable[[Path], None], said: str, checkout: Path, home: Path, record: Record
) -> None:
    spoil(checkout)
    with pytest.raises((PublishError, DvcError), match=said) as error:
        publish.publish_run(record, checkout, home)
    assert "\n" not in str(error.value)
    assert not (checkout / ".lightreasoner" / "data").exists()


def test_a_project_has_no_code_to_compare(checkout: Path) -> None:
    shutil.rmtree(checkout / "lightreasoner")
    publish._check_checkout(checkout)


def test_edits_that_git_has_are_no_obstacle(checkout: Path) -> None:
    edit_params(checkout)
    with pytest.raises(PublishError):
        publish._refuse_unsaved(checkout)
    dvc_checkout.git(checkout, "add", "params.yaml")
    publish._refuse_unsaved(checkout)
    (checkout / "params.yaml").unlink()
    publish._refuse_unsaved(checkout)


def test_a_dead_holder_does_not_count_as_busy(checkout: Path) -> None:
    (checkout / ".dvc" / "tmp").mkdir()
    lock = {"x": {"read": [{"pid": 2**22 + 1, "cmd": "dvc repro"}]}}
    (checkout / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(lock), encoding="utf-8")
    program.refuse_busy(checkout)


def test_one_publishes_at_a_time(checkout: Path, home: Path, record: Record) -> None:
    (checkout / ".lightreasoner").mkdir()
    with (checkout / ".lightreasoner" / "publish.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(PublishError, match="another `lightreasoner publish` is running"):
            publish.publish_run(record, checkout, home)


def test_a_result_that_is_gone_is_named(
    home: Path, record: Record, params: Params, tmp_path: Path
) -> None:
    shutil.copytree(home / "store", tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "select" / record.fingerprints["select"])
    with pytest.raises(PublishError, match=r"store no longer has its result of select \(.*; run"):
        publish.results(record, params, tmp_path)


def test_code_that_has_changed_is_named(
    home: Path, record: Record, params: Params, tmp_path: Path
) -> None:
    """The stored manifest of that fingerprint says what it was made with."""
    old = "0" * 32
    then = replace(record, fingerprints={**record.fingerprints, "select": old})
    with pytest.raises(PublishError, match="its code, packages or inputs changed since the run;"):
        publish.results(then, params, home)
    shutil.copytree(home / "store", tmp_path / "store")
    folder = tmp_path / "store" / "select"
    shutil.copytree(folder / record.fingerprints["select"], folder / old)
    manifest = json.loads((folder / old / "manifest.json").read_text(encoding="utf-8"))
    manifest |= {"code": "another", "commit": "0123456789abcdef"}
    (folder / old / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    said = "select would no longer be the same, its code changed since the run, as of commit 01234"
    with pytest.raises(PublishError, match=said):
        publish.results(then, params, tmp_path)


def test_mistakes_are_one_line(checkout: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_params(checkout)
    result = call(home, monkeypatch, "publish", "m-1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    unknown = call(home, monkeypatch, "samples", "diff", "nix", "nix")
    assert "'nix' is neither a sample set's directory nor a git revision here" in unknown.stderr
    without = call(home, monkeypatch, "samples", "diff", "HEAD", "HEAD")
    assert (
        "revision HEAD: its sample set is not in DVC's cache, and no remote is set; name a rev"
        in (without.stderr)
    )
    assert len(without.stderr.splitlines()) == 1


def test_dvc_is_the_program_of_set_up() -> None:
    assert program._program() == str(dvc_checkout.DVC)


def test_the_record_is_plain(home: Path, record: Record, params: Params) -> None:
    assert Record(**json.loads(json.dumps(asdict(record)))) == record
    assert record.values() == params
    assert records.newest_first(home) == [record]
