"""The command line: help, the stages' commands, and one clear line for every mistake."""

import importlib.metadata
import itertools
import json
import logging
import os
import runpy
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml
from command_line import call, faults
from ports import free_port
from typer.testing import CliRunner

from flows import environment
from flows.cli import app as flows_cli
from flows.cli import pipelines
from flows.servers import local, up
from lightreasoner import config
from lightreasoner.cli import app as pure_cli
from lightreasoner.cli import options, output
from lightreasoner.cli.stage import EXAMPLES
from lightreasoner.pipeline.graph import STAGES
from lightreasoner.presets import PRESETS
from lightreasoner.storage import artifacts

COMMANDS = [options.command_name(stage) for stage in STAGES.values()]
FLOWS = ["run", "compare", "sweep", "rounds", "table1", "controls", "register", "up", "plan"]
OTHERS = [
    "preset", "prompts", "grade", "explain", "push", "publish", "down", "status",
    "sync", "adapter", "init",
]  # fmt: skip
CONSOLE = "from flows.cli.console import main; main()"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problems_file: Path) -> Path:
    """A current folder with params.yaml for twelve problems of a file."""
    monkeypatch.chdir(tmp_path)
    tree = PRESETS["microworld"].model_dump(mode="json")
    tree["prepare"] |= {"source": str(problems_file), "n_problems": 12}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [*COMMANDS, "pair", *OTHERS, *FLOWS],
)
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = call(name, "--help")
    assert result.exit_code == 0
    assert f"Example: lightreasoner {name}" in result.stdout
    if name not in OTHERS:
        assert "--params FILE" in result.stdout
        assert "--set SECTION.KEY=VALUE" in result.stdout


@pytest.mark.parametrize("name", ["ls", "du", "show", "gc", "push", "pull"])
def test_every_command_of_the_store_has_help_with_an_example(name: str) -> None:
    result = call("store", name, "--help")
    assert result.exit_code == 0
    assert f"Example: lightreasoner store {name}" in result.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_name_real_parameters(name: str) -> None:
    words = EXAMPLES[name].split()
    overrides = [value for option, value in itertools.pairwise(words) if option == "--set"]
    tree = PRESETS["microworld"].model_dump(mode="json")
    for override in overrides:
        section, _, key = override.partition("=")[0].partition(".")
        assert key in tree[section]


def test_a_stage_is_computed_then_cached_and_placed(workspace: Path) -> None:
    first, second = call("prepare"), call("prepare", "--out", "elsewhere")
    digest = artifacts.digest(workspace / ".lightreasoner/data/problems")
    assert first.stdout.startswith("prepare: computed in ")
    assert first.stdout.endswith(f"  {digest}  .lightreasoner/data/problems\n")
    assert second.stdout == f"prepare: cached  {digest}  elsewhere\n"
    assert artifacts.digest(workspace / "elsewhere") == digest


def test_what_is_in_place_is_left_alone(workspace: Path) -> None:
    call("prepare")
    out = workspace / ".lightreasoner/data/problems"
    before = out.stat().st_ino
    call("prepare")
    assert out.stat().st_ino == before
    call("prepare", "--set", "prepare.seed=1", "--set", "prepare.n_problems=5")
    assert out.stat().st_ino != before


@pytest.mark.parametrize(
    ("out", "fault"),
    [
        ("mine", "mine: holds other files (thesis.txt); choose a new directory, or replace all"),
        ("keep.txt", "keep.txt: is a file; choose a new directory"),
        (".", ".: holds the current folder, or "),
    ],
)
def test_what_a_stage_did_not_write_is_never_replaced(
    workspace: Path, out: str, fault: str
) -> None:
    """Refused before anything is computed."""
    (workspace / "mine").mkdir()
    (workspace / "mine" / "thesis.txt").write_text("x")
    (workspace / "keep.txt").write_text("y")
    before = artifacts.digest(workspace)
    (line,) = faults(call("prepare", "--out", out))
    assert line.startswith(fault)
    assert artifacts.digest(workspace) == before


def test_an_earlier_result_is_replaced_while_the_store_has_it(workspace: Path) -> None:
    """Without it, only if --overwrite says so."""
    assert call("prepare", "--out", "mine").exit_code == 0
    fewer = ("prepare", "--out", "mine", "--set", "prepare.n_problems=5")
    result = call(*fewer)
    assert result.exit_code == 0, result.stderr
    assert len((workspace / "mine/problems.jsonl").read_text("utf-8").splitlines()) == 5
    shutil.rmtree(workspace / ".lightreasoner/store")
    again = (*fewer[:-1], "prepare.n_problems=4")
    (line,) = faults(call(*again))
    assert line.endswith("choose a new directory, or replace all that it holds by --overwrite")
    result = call(*again, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert len((workspace / "mine/problems.jsonl").read_text("utf-8").splitlines()) == 4


@pytest.mark.parametrize("damage", ["no manifest", "no folder"])
def test_a_result_in_place_is_no_obstacle_to_making_it_again(workspace: Path, damage: str) -> None:
    """Its entry in the store is damaged, which is then no witness for what lies in place."""
    call("prepare")
    (entry,) = (workspace / ".lightreasoner/store/prepare").iterdir()
    (entry / "manifest.json").unlink()
    if damage == "no folder":
        shutil.rmtree(entry)
        entry.symlink_to("nowhere")
    for how in ("computed in", "cached"):
        result = call("prepare")
        assert result.stdout.startswith(f"prepare: {how} "), result.stderr


def test_home_and_inputs_may_lie_elsewhere(workspace: Path) -> None:
    result = call("prepare", "--home", "h", "--params", str(workspace / "params.yaml"))
    assert result.exit_code == 0
    assert len(list((workspace / "h/store/prepare").iterdir())) == 1
    assert stat.S_IMODE((workspace / "h").stat().st_mode) == 0o700
    assert "steps.parquet" in faults(call("select", "--steps", "h"))[0]


def test_a_missing_params_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (*COMMANDS, "pair", *FLOWS):
        assert faults(call(command)) == [
            "params.yaml: no such file; `lightreasoner preset microworld` writes one"
        ]
    assert not list(tmp_path.iterdir())


def test_a_malformed_params_file(workspace: Path) -> None:
    (workspace / "params.yaml").write_text("models: [", encoding="utf-8")
    (line,) = faults(call("run"))
    assert line.startswith("params.yaml: not valid YAML")


def test_all_faults_at_once_and_nothing_touched(workspace: Path) -> None:
    call("prepare")
    before = artifacts.digest(workspace / ".lightreasoner")
    tree = (workspace / "params.yaml").read_text(encoding="utf-8")
    (workspace / "params.yaml").write_text(tree.replace("alpha_min: 0.01", "alpha_min: 0"))
    wrong = ["select.beta=-0.4", "select.alfa=0.2", "finetune.r=0", "prepare.problem_set=3"]
    options = [part for value in wrong for part in ("--set", value)]
    for command in ("run", "prepare"):
        lines = faults(call(command, *options))
        assert "--set: select.beta must be >= 0 nats, got -0.4" in lines
        assert "--set: select.alfa is not a known key; did you mean alpha?" in lines
        assert "--set: finetune.r must be >= 1, got 0" in lines
        assert "params.yaml: score.alpha_min must be > 0, got 0" in lines
        assert len(lines) == 5
    assert artifacts.digest(workspace / ".lightreasoner") == before


def test_an_unknown_method_is_named(workspace: Path) -> None:
    (line,) = faults(call("compare", "--methods", "sft,dpo"))
    assert line.startswith("no method 'dpo'; there are base, lightreasoner, sft, gold")


def test_debug_shows_the_traceback(workspace: Path) -> None:
    result = call("--debug", "select", "--set", "select.beta=-1")
    assert result.exit_code == 2
    first, *_, last = result.stderr.splitlines()
    assert first == "Traceback (most recent call last):"
    assert last == "error: --set: select.beta must be >= 0 nats, got -1"


def test_both_command_lines_know_their_version() -> None:
    for each in (flows_cli.application(), pure_cli.application()):
        result = CliRunner().invoke(each, ["--version"])
        assert result.exit_code == 0
        assert result.stdout == f"lightreasoner {importlib.metadata.version('lightreasoner')}\n"


def test_an_unwritable_home_is_one_line(workspace: Path) -> None:
    (workspace / "file").write_text("", encoding="utf-8")
    (line,) = faults(call("prepare", "--home", "file"))
    assert "file" in line


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_written_and_read_back(name: str, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    result = call("preset", name, "--params", str(file))
    assert result.stdout == f"{file}: {name}\n"
    assert config.load(file) == PRESETS[name]
    assert [entry.name for entry in tmp_path.iterdir()] == ["params.yaml"]


def test_a_preset_replaces_another_one_and_no_edits(tmp_path: Path) -> None:
    """A comment of the user's own, another file: only if told so."""
    file = tmp_path / "params.yaml"
    for name in ("qwen2.5-math-1.5b", "microworld"):
        assert call("preset", name, "--params", str(file)).exit_code == 0
    preset = file.read_text(encoding="utf-8")
    for text in (f"# mine\n{preset}", "\x00"):
        file.write_text(text, encoding="utf-8")
        (line,) = faults(call("preset", "microworld", "--params", str(file)))
        assert line == (
            f"{file}: is not as `preset` wrote it, and would be lost; name another file by "
            "--params, or replace it by --overwrite"
        )
        assert file.read_text(encoding="utf-8") == text
    assert call("preset", "microworld", "--params", str(file), "--overwrite").exit_code == 0
    assert file.read_text(encoding="utf-8") == preset


def test_the_checkouts_parameters_are_a_presets() -> None:
    """So that `preset` may replace them."""
    text = (environment.ROOT / "params.yaml").read_text(encoding="utf-8")
    assert text in {config.dump(each) for each in PRESETS.values()}


def test_an_unknown_preset_lists_the_presets(workspace: Path) -> None:
    before = (workspace / "params.yaml").read_bytes()
    (line,) = faults(call("preset", "gpt"))
    assert line.startswith("no preset 'gpt'")
    assert all(name in line for name in PRESETS)
    assert (workspace / "params.yaml").read_bytes() == before


def python(code: str, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code in a process of its own, in the checkout's environment."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(environment.ROOT), **environ},
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *([name, "--params", "none.yaml"] for name in ("run", "compare", "controls"))],
)
def test_help_and_bad_parameters_load_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from flows.cli.console import main
sys.argv[1:] = {arguments!r}
try:
    main()
finally:
    heavy = {{"torch", "prefect", "mlflow", "transformers", "pandas"}} & set(sys.modules)
    assert not heavy, heavy
"""
    result = python(code)
    assert result.returncode == (0 if arguments == ["--help"] else 2), result.stderr
    assert "Traceback" not in result.stderr


def test_the_bare_module_needs_neither_prefect_nor_mlflow(workspace: Path) -> None:
    code = """
import runpy, sys
sys.modules["prefect"] = sys.modules["mlflow"] = None
sys.argv = ["lightreasoner", "prepare"]
runpy.run_module("lightreasoner", run_name="__main__")
"""
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert (workspace / ".lightreasoner/data/problems/problems.jsonl").is_file()


def test_the_console_script_has_its_store_at_home(workspace: Path) -> None:
    result = python(CONSOLE, "prepare", LIGHTREASONER_HOME=str(workspace / "home"))
    assert result.returncode == 0, result.stderr
    assert (workspace / "home/store/prepare").is_dir()
    assert not (workspace / ".lightreasoner/store").exists()


def test_the_environment_is_prepared_but_not_overruled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment.os, "environ", {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60"})
    environment.prepare_environment(tmp_path)
    assert environment.os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "60"
    assert environment.os.environ["DO_NOT_TRACK"] == "true"
    assert environment.os.environ["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert environment.os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert environment.os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment.os.environ["WANDB_DIR"] == str(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("CUBLAS_WORKSPACE_CONFIG", ":4096:8"), ("OMP_WAIT_POLICY", "PASSIVE")]
)
def test_the_bare_module_prepares_its_libraries(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["lightreasoner", "--help"])
    monkeypatch.setenv(name, "to be restored")
    monkeypatch.delenv(name)
    with pytest.raises(SystemExit):
        runpy.run_module("lightreasoner", run_name="__main__")
    assert os.environ[name] == value


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_worktree_shares_the_main_checkouts_home(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path / "main", check=True)

    (tmp_path / "main").mkdir()
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("worktree", "add", "-q", str(tmp_path / "other"))
    assert environment._main_checkout(tmp_path / "other") == tmp_path / "main"
    assert environment._main_checkout(tmp_path / "main") == tmp_path / "main"


def test_a_taken_port_is_named(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTREASONER_HOME", str(workspace / "home"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (line,) = faults(call("up", "--mlflow-port", str(port), "--prefect-port", str(free_port())))
    assert line.startswith(f"port {port} on 127.0.0.1 is taken")
    assert line.endswith("--mlflow-port")


def test_without_servers_records_go_to_the_databases_under_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert local.running(tmp_path) is None
    line = local.connect(tmp_path)
    assert line == (
        f"records: Prefect {tmp_path}/prefect, MLflow sqlite:///{tmp_path}/mlflow/mlflow.db; "
        "no server runs, `lightreasoner up` shows them"
    )


def test_a_prefect_server_that_is_down_is_named(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTREASONER_HOME", str(workspace / "home"))
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    monkeypatch.setattr(pipelines, "external_inputs", lambda params: {})
    result = call("run")
    assert result.exit_code == 2
    assert "error: PREFECT_API_URL http://127.0.0.1:" in result.stderr
    assert "start that server, or unset the variable" in result.stderr


def asked(page: str, login: str, **headers: str) -> int:
    """The status that a server answers with."""
    known = tuple(login.split(":")) if login else None
    return httpx.get(page, auth=known, headers=headers).status_code  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_up_serves_runs_and_ends_with_all_its_processes(workspace: Path) -> None:
    """Both servers and the deployment answer, `run`'s address is announced, SIGTERM ends all."""
    home, ports = workspace / "home", (free_port(), free_port())
    options = ["up", "--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])]
    environ = {**os.environ, "PYTHONPATH": str(environment.ROOT), "LIGHTREASONER_HOME": str(home)}
    log = workspace / "up.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", CONSOLE, *options], env=environ, stdout=file, stderr=file
        )
    try:
        end = time.monotonic() + 400
        while b"Ctrl-C" not in log.read_bytes():
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < end
            time.sleep(0.5)
        servers = local.running(home)
        assert servers is not None
        assert up.status(home)
        for page, login, status in (
            (f"{servers.prefect}/api/flows/count", "", 401),
            (servers.mlflow, "", 401),
            (servers.mlflow, environment.login(home), 200),
        ):
            assert asked(page, login) == status
            assert asked(page, login, Host="evil.example") == 400
        for each in local.addresses():
            address = f"{servers.prefect}/api/deployments/name/{each}"
            answer = local._get(address, environment.login(home))
            form = json.loads(answer)["parameters"]["params"]
            assert form["preset"] == "microworld"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert local.announced(home) is None
    for port in ports:
        up._check_free(port, "")


def test_every_stage_has_an_example() -> None:
    for stage in STAGES.values():
        assert "\n  Example: lightreasoner " in call(options.command_name(stage), "--help").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        "run --set select.beta=-1",
        "preset nope",
        "compare --methods nope",
        "sweep --betas a,b",
        "rounds --rounds 0",
        "rounds --later-amateur nope",
        "push --model nowhere --repo a/b --dry-run",
        "push --model x --repo nobody",
        "explain nope",
        "samples stats --steps nowhere",
        "samples diff nowhere elsewhere",
        "grade nowhere.jsonl out.jsonl",
        "evaluate --model nowhere",
        "evaluate --style nope",
        "prompts --benchmark gsm8k --data nowhere",
        "register --model nowhere",
        "merge --adapter nowhere",
        "up --prefect-port 4200 --mlflow-port 4200",
        "prepare --home {file}",
    ],
)
def test_a_mistake_is_told_in_one_line(workspace: Path, arguments: str) -> None:
    file = workspace / "file"
    file.write_text("in the way of a folder", encoding="utf-8")
    (line,) = faults(call(*arguments.format(file=file).split()))
    assert len(line) > 20
    assert not line.startswith("[Errno")


def test_a_home_that_cannot_be_written_is_named(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each command that makes it; the folder's place is taken by a file."""
    (workspace / "home").write_text("", encoding="utf-8")
    monkeypatch.setenv("LIGHTREASONER_HOME", str(workspace / "home"))
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    free = ("--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
    model = ("--model", "models:/m@champion", "--repo", "a/b", "--dry-run")
    for command in (("run",), ("up", *free), ("push", *model), ("publish",)):
        (line,) = faults(call(*command))
        assert line == (
            f"LIGHTREASONER_HOME {workspace}/home: cannot be created (file exists); "
            "use a folder that you may write to"
        )
    assert call("down").stdout == f"nothing was running for {workspace}/home\n"


def test_a_relative_path_of_mlflows_database_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a command in another folder makes a second registry there."""
    monkeypatch.setenv("LIGHTREASONER_HOME", str(workspace / "home"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(pipelines, "external_inputs", lambda params: {})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow/mlflow.db")
    (line,) = faults(call("run"))
    assert line.startswith("MLFLOW_TRACKING_URI sqlite:///mlflow/mlflow.db: a relative path ")
    assert line.endswith('give the whole path, such as "sqlite:///$PWD/mlflow.db"')
    for whole in (f"sqlite:///{workspace}/mlflow.db", "http://127.0.0.1:5000"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", whole)
        assert environment.tracking_uri(workspace / "home") == whole


def test_a_run_ends_with_where_its_records_can_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    assert local.pages(tmp_path) == "lightreasoner up"
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4201/api")
    assert local.pages(tmp_path) == "http://127.0.0.1:4201"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5001")
    assert local.pages(tmp_path) == "http://127.0.0.1:4201  http://127.0.0.1:5001"


@pytest.mark.parametrize("option", ["--betas", "--alphas"])
def test_a_sweep_over_nothing_is_refused(workspace: Path, option: str) -> None:
    assert (workspace / "params.yaml").is_file()
    for nothing in ("", " , "):
        assert faults(call("sweep", option, nothing)) == [
            f"{option}: must be at least one number, such as 0.2,0.4"
        ]


def test_what_a_flow_lets_through_for_prefect_is_not_shown_to_who_asked_for_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = logging.getLogger("lightreasoner.quiet")
    output.log_to_stderr(logger.name, logging.WARNING)
    logger.setLevel(logging.INFO)  # as flows/pipeline.py does
    logger.info("a stage is done")
    logger.warning("a fault")
    assert capsys.readouterr().err == "a fault\n"


def test_a_comparison_that_needs_answers_is_refused_before_prefect_starts(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(pipelines, "_prefect_for", started)
    (workspace / "q.jsonl").write_text('{"question": "1 + 1?"}\n' * 12, encoding="utf-8")
    asked = ("compare", "--set", "prepare.source=q.jsonl", "--set", "prepare.n_problems=12")
    (line,) = faults(call(*asked, "--methods", "sft"))
    assert "q.jsonl:1: answer missing" in line
    assert call(*asked, "--methods", "no_contrast").exit_code == 1  # it gets as far as that
