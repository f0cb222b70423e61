"""The main job with Prefect and MLflow on PostgreSQL, files and DVC's remote on S3.

Real servers (shared_servers.py), everything as a user runs it: programs in a checkout of its own,
pulled into a second one. Minutes.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dvc_checkout
import pytest
import shared_servers
from checkout import ROOT
from dvc_checkout import git
from ports import free_port
from shared_servers import objects, rows

from flows import environment
from flows.servers import local
from flows.servers.manager import Manager
from lightreasoner.config import Params
from lightreasoner.pipeline.graph import GRAPH

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(shared_servers.LACKS), reason=f"needs {shared_servers.LACKS}"),
]
CONSOLE = "from flows.cli.console import main; main()"
S3_PLUGIN = [*(ROOT / ".venv-dvc").glob("lib/python*/site-packages/dvc_s3")]
PUBLISHED = "Data and pipelines are up to date.\n"


@dataclass(frozen=True)
class Team:
    """A checkout whose `up` runs on the shared stores; what these are."""

    checkout: Path
    login: str
    s3: dict[str, str]

    @property
    def variables(self) -> dict[str, str]:
        """What docs/deploy.md tells a user to set."""
        return {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{self.login}/prefect",
            "MLFLOW_BACKEND_STORE_URI": f"postgresql://{self.login}/mlflow",
            "MLFLOW_ARTIFACTS_DESTINATION": "s3://team/mlflow",
            **self.s3,
        }

    def call(self, *command: str, **variables: str) -> str:
        """What a program prints in the checkout."""
        shell = {**dvc_checkout.environment(self.checkout), **variables}
        done = subprocess.run(command, cwd=self.checkout, env=shell, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def lightreasoner(self, *arguments: str, **variables: str) -> str:
        return self.call(sys.executable, "-c", CONSOLE, *arguments, **variables)

    def dvc(self, *arguments: str) -> str:
        return self.call(str(dvc_checkout.DVC), *arguments, **self.s3)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, tiny_params: Params) -> Iterator[Team]:
    """The servers are up, and a run has finished; `said` in the checkout has what was printed."""
    root = tmp_path_factory.mktemp("team")
    ports = ["--prefect-port", str(free_port()), "--mlflow-port", str(free_port())]
    with (
        shared_servers.postgresql("prefect", "mlflow") as login,
        shared_servers.s3(root, "team") as s3,
    ):
        made = Team(dvc_checkout.make(root / "checkout", tiny_params), login, s3)
        try:
            said = made.lightreasoner("up", "--detach", *ports, **made.variables)
            said += made.lightreasoner("run")
            (root / "said").write_text(said, encoding="utf-8")
            yield made
        finally:
            made.lightreasoner("down")


def test_runs_and_versions_are_in_postgresql_and_their_files_on_s3(team: Team) -> None:
    """The run's own shell names neither; `up` says what it keeps."""
    (flow,) = rows(team.login, "prefect", "SELECT state_name FROM flow_run")
    assert flow == ("Completed",)
    names = {name for (name,) in rows(team.login, "mlflow", "SELECT name FROM runs")}
    assert {"prepare", "generate", "finetune", "evaluate", "report"} <= names
    version = rows(team.login, "mlflow", "SELECT name, version FROM model_versions")
    assert version == [("tiny", 1)]
    kept = objects(team.s3, "team")
    assert [name for name in kept if name.endswith("/report.html")]
    assert [name for name in kept if name.endswith("/model.safetensors")]
    home = team.checkout / ".lightreasoner"
    assert not (home / "prefect" / "prefect.db").exists()
    assert not list((home / "mlflow" / "unsent").iterdir())


def test_a_version_comes_back_from_s3(team: Team, tmp_path: Path) -> None:
    """By its alias, through the server and its login; the client has no key of S3's."""
    home = team.checkout / ".lightreasoner"
    servers = local.announced(home)
    assert servers is not None
    user, _, secret = environment.login(home).partition(":")
    code = (
        "import mlflow.artifacts as a;"
        f"print(a.download_artifacts('models:/tiny@candidate', dst_path={str(tmp_path)!r}))"
    )
    team.call(sys.executable, "-c", code, MLFLOW_TRACKING_URI=servers.mlflow,
        MLFLOW_TRACKING_USERNAME=user, MLFLOW_TRACKING_PASSWORD=secret)  # fmt: skip
    (weights,) = tmp_path.rglob("model/model.safetensors")
    (stored,) = (home / "store" / "merge").rglob("model.safetensors")
    assert weights.read_bytes() == stored.read_bytes()


def test_no_password_is_written_shown_or_on_a_command_line(team: Team) -> None:
    """Neither PostgreSQL's, plain or encoded, nor the key of S3; logs and records included."""
    secrets = [shared_servers.PASSWORD, shared_servers.ENCODED, shared_servers.SECRET]
    root = team.checkout.parent
    files = [file for file in root.rglob("*") if file.is_file() and file.name != "s3.log"]
    assert len(files) > 100
    found = [file for file in files if any(each.encode() in file.read_bytes() for each in secrets)]
    assert found == []
    processes = Manager(team.checkout / ".lightreasoner").left()
    assert len(processes) >= 4
    lines = " ".join(word for each in processes for word in each.cmdline())
    assert not [each for each in secrets if each in lines]


@pytest.mark.skipif(not S3_PLUGIN, reason="needs dvc-s3 in .venv-dvc")
def test_dvc_pulls_from_s3_into_a_second_checkout(team: Team, tmp_path: Path) -> None:
    """`dvc repro` then computes nothing; the store of that checkout stays empty."""
    team.lightreasoner("publish")
    team.dvc("remote", "add", "--default", "backup", "s3://team/dvc")
    dvc_checkout.commit(team.checkout, "published")
    assert "pushed" in team.dvc("push")
    assert [name for name in objects(team.s3, "team") if name.startswith("dvc/files/md5/")]

    git(tmp_path, "clone", "--quiet", str(team.checkout), str(tmp_path / "clone"))
    other = Team(tmp_path / "clone", team.login, team.s3)
    other.dvc("pull")
    assert other.dvc("status") == PUBLISHED
    assert "Running stage" not in other.dvc("repro")
    assert not (other.checkout / ".lightreasoner" / "store").exists()
    tables = other.checkout / ".lightreasoner" / "data" / "report" / "tables.json"
    assert json.loads(tables.read_text(encoding="utf-8"))


def test_the_store_pulls_from_s3_and_a_run_computes_nothing(
    team: Team, tiny_params: Params, tmp_path: Path
) -> None:
    """On a machine that has none of the servers."""
    place = "s3://team/store"
    sent = team.lightreasoner("store", "push", place, **team.s3)
    assert sent.count("  sent, ") == len(GRAPH)
    assert team.lightreasoner("store", "push", place, **team.s3).count("  is there") == len(GRAPH)
    with pytest.raises(AssertionError, match=r"error: s3://misspelt/store: .*does not exist; "):
        team.lightreasoner("store", "push", "s3://misspelt/store", **team.s3)
    other = Team(dvc_checkout.make(tmp_path / "other", tiny_params), team.login, team.s3)
    fetched = other.lightreasoner("store", "pull", place, **team.s3)
    assert fetched.count("  fetched, ") == len(GRAPH)
    said = other.lightreasoner("run")
    assert [name for stage in GRAPH for name in re.findall(rf"^{stage.name} +(\w+) ", said, re.M)
            ] == ["cached"] * len(GRAPH)  # fmt: skip


def test_a_run_without_up_is_in_postgresql_too(team: Team) -> None:
    """Prefect's server of the run's own; all is taken from the store."""
    team.lightreasoner("down")
    said = team.lightreasoner("run", **team.variables)
    assert "records: Prefect PREFECT_SERVER_DATABASE_CONNECTION_URL, MLflow sqlite:///" in said
    states = rows(team.login, "prefect", "SELECT state_name FROM flow_run")
    assert states == [("Completed",)] * 2
    assert shared_servers.ENCODED not in said
