"""Deployments: their forms, and against a real server what people do with them.

The nightly part starts one Prefect server and one runner, on a home of their own, for all its
tests.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
import yaml
from checkout import ROOT
from ports import free_port
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelling
from prefect.utilities.callables import parameter_schema

from flows import deployments, environment
from flows.forms.form import Form
from flows.servers import local, watch
from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.presets import PRESETS
from tasks import accelerator

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Prefect
RUNNING = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING"]}}})
Started = Iterator[subprocess.Popen[bytes]]


def test_every_flow_is_deployed_with_its_form_filled_in() -> None:
    params = config.changed(PRESETS["qwen2.5-math-7b"], ["select.beta=0.5", "generate.seed=1"])
    made = {each.flow_name: each for each in deployments.deployments(params)}
    assert {flow: each.name for flow, each in made.items()} == local.DEPLOYED
    assert tuple(deployments.FLOWS) == tuple(local.DEPLOYED.values())
    for each in made.values():
        assert each.parameters["params"]["preset"] == "qwen2.5-math-7b"
        assert each.tags == ["lightreasoner", each.name]
    said = made["lightreasoner"].parameters["params"]
    assert said == {"preset": "qwen2.5-math-7b", "beta": 0.5, "more": ["generate.seed=1"]}
    evaluation = made["lightreasoner-evaluation"].parameters["params"]
    assert evaluation["model"] == "models:/lightreasoner-qwen2-5-math-7b@candidate"
    assert "more" not in evaluation


@pytest.mark.parametrize("tag", deployments.FLOWS)
def test_every_field_of_every_form_explains_itself(tag: str) -> None:
    flow, form = deployments.FLOWS[tag]
    schema = parameter_schema(flow).model_dump()
    fields = schema["definitions"][form.__name__]["properties"]
    assert fields["preset"]["enum"] == list(PRESETS)
    assert schema["definitions"][form.__name__]["additionalProperties"] is False
    for name, field in fields.items():
        assert field["title"] == form.model_fields[name].title
        assert len(field["description"]) > 20
        assert any(map(_is_bounded, [field, *field.get("anyOf", ())])), name


def _is_bounded(field: dict[str, Any]) -> bool:
    limits = {"minimum", "exclusiveMinimum", "maximum", "enum", "minLength", "minItems"}
    items = field.get("items", {})
    return bool(limits & field.keys()) or bool({"pattern", "enum", "minimum"} & items.keys())


def test_prefect_yaml_has_the_same_deployments_and_no_place() -> None:
    text = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    assert not [line for line in text.splitlines() if line.split("#")[0].strip().startswith("/")]
    assert ": /" not in text
    tree = yaml.safe_load(text)
    made = {each["tags"][1]: each for each in tree["deployments"]}
    assert list(made) == list(deployments.FLOWS)
    known = {**environment.NO_PHONING_HOME, **environment.SETTINGS}
    for tag, each in made.items():
        flow, _ = deployments.FLOWS[tag]
        module, _, name = each["entrypoint"].rpartition(".")
        assert getattr(sys.modules[module], name) is flow
        assert each["build"][0]["flows.deployments.read_form"]["flow"] == tag
        assert each["name"] == f"{tag}-pool"
        assert each["work_pool"]["name"] == deployments.NAME
        environ = each["work_pool"]["job_variables"]["env"]
        assert {key: known[key] for key in environ} == environ
        assert environment.NO_PHONING_HOME.keys() - environ.keys() == {
            # Of servers alone.
            "PREFECT_SERVER_ANALYTICS_ENABLED",
            "PREFECT_SERVER_UI_V2_ENABLED",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT",
            "RAY_USAGE_STATS_ENABLED",
        }


def test_the_watch_waits_for_a_heartbeat_or_an_end() -> None:
    wanted = watch.automation()
    assert wanted.trigger.within.total_seconds() == watch.SILENT_SECONDS
    assert watch.HEARTBEAT in wanted.trigger.after
    assert {watch.HEARTBEAT, "prefect.flow-run.Completed"} <= wanted.trigger.expect


LOGIN = "me:my own secret"


@dataclass(frozen=True)
class Server:
    """A Prefect server of somebody's own, with a login of its own, and the environment to use."""

    api: str
    home: Path
    environ: dict[str, str]

    def client(self) -> SyncPrefectClient:
        return SyncPrefectClient(self.api, auth_string=LOGIN)

    def start(self, flow: str, pool: str = "", **fields: Any) -> UUID:
        """A run of a deployment with these fields of its form."""
        with self.client() as client:
            found = client.read_deployment_by_name(f"{flow}/{local.DEPLOYED[flow]}{pool}")
            made = client.create_flow_run_from_deployment(found.id, parameters={"params": fields})
            return made.id

    def state(self, run: UUID) -> str:
        with self.client() as client:
            state = client.read_flow_run(run).state
        return state.type.value if state else "none"

    def wait(self, run: UUID, wanted: str, seconds: float) -> float:
        """Wait for a state; the seconds that it took."""
        return until(lambda: self.state(run) == wanted, seconds, lambda: self.state(run))

    def process(self, run: UUID) -> psutil.Process:
        """The process of a run, which the runner has started."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                given = process.environ()
                if given.get("PREFECT__FLOW_RUN_ID") == str(run):
                    return process
        raise AssertionError(f"no process of run {run}")


def until(holds: Callable[[], bool], seconds: float, said: Callable[[], str] = lambda: "") -> float:
    """Wait until something holds; the seconds that it took."""
    clock = time.monotonic()
    while not holds():
        assert time.monotonic() < clock + seconds, f"not within {seconds} s {said()}"
        time.sleep(0.2)
    return time.monotonic() - clock


@contextlib.contextmanager
def started(module: list[str], environ: dict[str, str], log: Path, cwd: Path) -> Started:
    """A process of ours, ended with all of its children."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            env=environ,
            cwd=cwd,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        mine = [psutil.Process(process.pid)] if alive(process) else []
        mine += [child for each in mine for child in each.children(recursive=True)]
        process.terminate()
        _, left = psutil.wait_procs(mine, timeout=10)
        for each in left:
            with contextlib.suppress(psutil.Error):
                each.kill()
        process.wait()


def alive(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a free port of this machine."""
    home = tmp_path_factory.mktemp("served")
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environ = {
        **os.environ,
        "LIGHTREASONER_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_API_AUTH_STRING": LOGIN,
        "PREFECT_SERVER_API_AUTH_STRING": LOGIN,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    environ.pop("MLFLOW_TRACKING_URI", None)
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with started(command, environ, home / "server.log", home):
        until(lambda: answers(f"{api}/health"), 180)
        yield Server(api, home, environ)


def answers(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        user, _, secret = LOGIN.partition(":")
        return httpx.get(address, auth=(user, secret), timeout=2).status_code == 200
    return False


@pytest.fixture(scope="module")
def runner(server: Server, tiny_params: Params) -> Iterator[Server]:
    """The server, with the runner of the deployments."""
    said, log = server.home / "params.json", server.home / "runner.log"
    said.write_text(tiny_params.model_dump_json(), encoding="utf-8")
    command = ["flows.deployments", str(said)]
    address = f"{server.api}/deployments/name/{local.addresses()[-1]}"
    with started(command, server.environ, log, server.home) as process:
        until(lambda: answers(address) or not alive(process), 120)
        assert alive(process), log.read_text(encoding="utf-8")
        yield server


@pytest.fixture(scope="module")
def fields(tiny_params: Params) -> dict[str, Any]:
    """The form that says the parameters."""
    return Form.of(tiny_params).model_dump(mode="json", exclude_unset=True)


def finetunings(home: Path) -> list[tuple[float, float]]:
    """When each stored adapter was trained: start and end."""
    entries = (home / "store" / "finetune").glob("*/manifest.json")
    manifests = [yaml.safe_load(entry.read_text(encoding="utf-8")) for entry in entries]
    return sorted((each["started"], each["started"] + each["seconds"]) for each in manifests)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_value_out_of_range_is_refused_before_there_is_a_run(
    runner: Server, fields: dict[str, Any]
) -> None:
    for wrong in (
        {"beta": -0.5},
        {"alpha": 1.5},
        {"preset": "nonsense"},
        {"more": ["beta"]},
        {"more": ["select.beta=2001-99-99"]},
        {"n_problems": 10**30},
    ):
        with pytest.raises(PrefectHTTPStatusError) as error:
            runner.start("lightreasoner", **{**fields, **wrong})
        assert error.value.response.status_code in (409, 422)
        assert str(next(iter(wrong.values()))).strip("[']") in error.value.response.text


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_two_runs_go_together_and_take_turns(runner: Server, fields: dict[str, Any]) -> None:
    before = set(finetunings(runner.home))
    runs = [
        runner.start("lightreasoner", **{**fields, "updates": 200, "seed": seed}) for seed in (1, 2)
    ]
    until(lambda: [runner.state(run) for run in runs] == ["RUNNING"] * 2, 90)
    for run in runs:
        runner.wait(run, "COMPLETED", 240)
    (_, first_ends), (second_starts, _) = sorted(set(finetunings(runner.home)) - before)
    assert first_ends <= second_starts
    with runner.client() as client:
        found = [client.read_flow_run(run) for run in runs]
        assert accelerator.ensure_limit(client) == (1, 0)
    assert len({run.name for run in found}) == 2
    for run in found:
        assert "beta=0" in run.name.split()
        assert {"lightreasoner", "pipeline", run.name.split()[0]} <= set(run.tags)


def checkpoints(home: Path) -> set[int]:
    """The numbers of the checkpoints of work in progress; none while that is being removed."""
    with contextlib.suppress(FileNotFoundError):
        found = (home / "work").glob("*/shards/**/checkpoint-*")
        return {int(path.name.partition("-")[2]) for path in found if path.name[-1].isdigit()}
    return set()


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_cancelling_stops_the_work_and_a_new_run_goes_on(
    runner: Server, fields: dict[str, Any]
) -> None:
    wanted = {**fields, "updates": 800, "seed": 3}
    run = runner.start("lightreasoner", **wanted)
    until(lambda: max(checkpoints(runner.home), default=0) >= 200, 120)
    process = runner.process(run)
    family = [process, *process.children(recursive=True)]
    with runner.client() as client:
        client.set_flow_run_state(run, Cancelling())
    seconds = until(lambda: not any(each.is_running() for each in family), 60)
    print(f"cancelled: processes gone after {seconds:.1f} s")
    runner.wait(run, "CANCELLED", 15)
    reached = max(checkpoints(runner.home))
    with runner.client() as client:
        until(lambda: accelerator.ensure_limit(client)[1] == 0, 5)
    again = runner.start("lightreasoner", **wanted)
    seen: set[int] = set()

    def is_done() -> bool:
        seen.update(checkpoints(runner.home))
        return runner.state(again) == "COMPLETED"

    until(is_done, 180, lambda: runner.state(again))
    assert min(seen) >= reached - 50


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_killed_run_becomes_crashed_and_gives_its_turn_back(
    runner: Server, fields: dict[str, Any], tiny_params: Params, tmp_path: Path
) -> None:
    file = tmp_path / "params.yaml"
    longer = config.changed(tiny_params, ["finetune.updates=5000", "finetune.seed=4"])
    file.write_text(config.dump(longer), encoding="utf-8")
    code = ["-c", "from flows.cli.console import main; main()", "run", "--params", str(file)]
    process = subprocess.Popen([sys.executable, *code], env=runner.environ, cwd=tmp_path)
    with runner.client() as client:
        until(lambda: accelerator.ensure_limit(client) == (1, 1), 120)
        (run,) = client.read_flow_runs(flow_run_filter=RUNNING)
    process.kill()
    process.wait()
    waiting = runner.start("lightreasoner", **{**fields, "seed": 5})
    print(f"next run done after {runner.wait(waiting, 'COMPLETED', 150):.0f} s")
    seconds = runner.wait(run.id, "CRASHED", 150)
    print(f"crashed another {seconds:.0f} s later")


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_server_is_prepared_once(runner: Server) -> None:
    with runner.client() as client:
        watch.ensure(client)
        assert len(client.read_automations_by_name(watch.NAME)) == 1


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_prefect_deploy_works_from_a_fresh_checkout(server: Server, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0")[:-1]:
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    environ = {**server.environ, "PYTHONPATH": str(checkout)}

    def call(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *command],
            env=environ,
            cwd=checkout,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call("work-pool", "create", "local", "--type", "process")
    said = call("deploy", "--all")
    assert said.count("successfully created") == len(deployments.FLOWS)
    assert call("deploy", "--all")
    assert "name: local" in (checkout / "prefect.yaml").read_text(encoding="utf-8")
    command = ["prefect", "worker", "start", "--pool", "local", "--limit", "2"]
    with started(command, environ, tmp_path / "worker.log", checkout):
        run = server.start(
            "lightreasoner-evaluation",
            "-pool",
            model="microworld/amateur",
            problem_sets=["tuned"],
            n_evaluated=4,
        )
        server.wait(run, "COMPLETED", 180)
