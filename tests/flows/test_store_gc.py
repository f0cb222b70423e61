"""`lightreasoner store gc`: what a run, a version, dvc.lock or a folder in place needs stays."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stored_pipeline
from command_line import call, faults
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.entities.logged_model import LoggedModel

from flows.results import records
from flows.results.records import Record
from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.pipeline import contents
from lightreasoner.pipeline.store import Outcome
from lightreasoner.presets import PRESETS
from lightreasoner.storage import artifacts
from tasks.registry import versions
from tasks.tracking import mlflow_runs

DAY = 86400.0
Stored = dict[str, Outcome]


@pytest.fixture
def home(
    new_database: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A home with MLflow's database, named by the environment."""
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTREASONER_HOME", str(path))
    monkeypatch.setenv("PREFECT_HOME", str(path / "prefect"))
    mlflow_runs.configure(new_database(path), path)
    return path


def run(home: Path, days: float, **select: float) -> Stored:
    """A finished run's results, last used some days ago."""
    tree = PRESETS["microworld"].model_dump(mode="json")
    tree["select"] |= select
    found = stored_pipeline.write_keyed(home, config.parse(tree, "test"))
    then = time.time() - days * DAY
    for outcome in found.values():
        os.utime(outcome.artifact.path.parent, (then, then))
    return found


def keys(outcomes: Stored) -> set[str]:
    return {outcome.manifest["fingerprint"] for outcome in outcomes.values()}


def there(home: Path) -> set[str]:
    return {each.key for each in contents.results(home)}


def keep(home: Path, name: str, outcomes: Stored, days: float) -> None:
    """The record of a run that ended some days ago."""
    records.keep(
        home,
        Record(
            name=name,
            prefect=name,
            mlflow="",
            finished=time.time() - days * DAY,
            params={},
            fingerprints={k: each.manifest["fingerprint"] for k, each in outcomes.items()},
            digests={},
            registered_model=None,
        ),
    )


def logged(client: MlflowClient, status: LoggedModelStatus) -> LoggedModel:
    """A logged model with a file."""
    made = client.create_logged_model(mlflow_runs.experiment_id(), "model")
    folder = Path(made.artifact_location.removeprefix("file://"))
    folder.mkdir(parents=True)
    (folder / "weights").write_text("w")
    return client.finalize_logged_model(made.model_id, status)


def version(client: MlflowClient, outcomes: Stored, params: Params) -> LoggedModel:
    """A registered version that these results led to."""
    model = logged(client, LoggedModelStatus.READY)
    client.create_registered_model("name")
    client.create_model_version(
        "name",
        f"models:/{model.model_id}",
        tags=versions.origin(outcomes, params),
        model_id=model.model_id,
    )
    return model


def gc(*options: str) -> dict[str, Any]:
    done = call("store", "gc", "--json", *options)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_runs_versions_and_dvc_need_stays(home: Path, tmp_path: Path) -> None:
    """Five runs that share their first stages; one is needed by nobody."""
    by_run, old, registered, locked, placed = (
        run(home, 40, beta=beta) for beta in (0.1, 0.2, 0.3, 0.4, 0.5)
    )
    keep(home, "old", old, 36)
    keep(home, "newest", by_run, 35)
    version(MlflowClient(), registered, PRESETS["microworld"])
    (tmp_path / "dvc.lock").write_text(f"  md5: {locked['report'].artifact.digest}\n")
    artifacts.place(placed["merge"].artifact, home / "data" / "model")
    before, wanted = there(home), keys(by_run) | keys(registered) | keys(locked)
    wanted |= keys({name: each for name, each in placed.items() if name != "report"}) - {
        placed["evaluate"].manifest["fingerprint"]
    }
    planned = gc("--keep-runs", "1", "--dry-run")
    assert there(home) == before
    done = gc("--keep-runs", "1")
    assert {**planned, "dry_run": False} == done
    assert there(home) == wanted
    assert {each["key"] for each in done["removed"]} == before - wanted >= keys(old) - wanted
    assert keys(old) - wanted
    assert gc("--keep-runs", "1")["removed"] == []


@pytest.mark.parametrize("options", [["--keep-runs", "2"], ["--older-than", "37d"]])
def test_what_is_kept_can_be_more(home: Path, options: list[str]) -> None:
    first, second = run(home, 40, beta=0.1), run(home, 40, beta=0.2)
    keep(home, "first", first, 36)
    keep(home, "second", second, 35)
    assert gc("--keep-runs", "0", *options)["removed"] == []
    done = call("store", "gc", "--keep-runs", "0").stdout.splitlines()
    assert len(done) == len(keys(first) | keys(second)) + 2
    assert done[-1] == "stays: nothing"


def test_what_mlflow_deleted_goes_for_good(home: Path) -> None:
    """A version's model stays, though it was deleted; what a killed registering left goes."""
    client, outcomes = MlflowClient(), run(home, 0)
    kept = version(client, outcomes, PRESETS["microworld"])
    client.delete_logged_model(kept.model_id)
    fine = logged(client, LoggedModelStatus.READY)
    failed = logged(client, LoggedModelStatus.FAILED)
    runs = [client.create_run(mlflow_runs.experiment_id()).info.run_id for _ in range(2)]
    for each in runs:
        client.log_text(each, "x" * 10_000, "page.html")
    client.delete_run(runs[0])
    assert gc("--older-than", "1h")["mlflow"] == {"runs": [], "models": []}
    time.sleep(0.01)
    done = gc("--older-than", "0h")
    assert done["mlflow"] == {"runs": runs[:1], "models": [failed.model_id]}
    assert done["bytes"] >= 10_000
    files = [path for path in (home / "mlflow" / "artifacts").rglob("*") if path.is_file()]
    assert {path.parts[-3] for path in files} == {runs[1], kept.model_id, fine.model_id}
    assert gc("--older-than", "0h")["mlflow"] == {"runs": [], "models": []}


def test_what_is_not_known_to_be_free_stays(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that is away, or a dvc.lock that cannot be read, may need anything."""
    before = keys(run(home, 40))
    (tmp_path / "dvc.lock").mkdir()
    assert "dvc.lock" in faults(call("store", "gc"))[0]
    (tmp_path / "dvc.lock").rmdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert "nothing was removed" in faults(call("store", "gc"))[0]
    assert there(home) == before


def test_a_home_without_databases_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTREASONER_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    results = keys(run(tmp_path, 40))
    assert {each["key"] for each in gc()["removed"]} == results
    assert not {"mlflow", "prefect"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("age", ["", "30", "d", "-1d", "1y", "٣d", "1000000000d"])
def test_an_age_that_is_none_is_refused(age: str) -> None:
    (said,) = faults(call("store", "gc", "--older-than", age))
    assert "must be a number of hours, days or weeks" in said
