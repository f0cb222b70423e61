"""Prefect's and MLflow's pages in Chromium, against what one cold `lightreasoner up` serves.

The runs are of the embedded micro-world with few problems and updates. Pictures of the pages are
written to build/screenshots/.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import browsing
import dvc_checkout
import httpx
import psutil
import pytest
from checkout import ROOT
from ports import free_port
from test_deployments import checkpoints, until

from flows import environment, registering
from flows.forms.form import Form
from lightreasoner import config
from lightreasoner.pipeline.graph import GRAPH
from lightreasoner.presets import PRESETS

pytestmark = [*browsing.marks, pytest.mark.timeout(600)]
SECONDS = 180  # of a run, of a page: two busy cores are slow
SMALL = {
    "Problems to learn from": 40,
    "Updates": 10,
    "Problems per set to evaluate on": 20,
}
"""Fields of the form that make a run of half a minute."""

FIELDS = {found.title: name for name, found in Form.model_fields.items()}


@dataclass
class Servers:
    """What `up` serves, and what the browser has asked so far."""

    home: Path
    prefect: str
    mlflow: str
    asked: list[str] = field(default_factory=list)

    def ask(self, path: str, **body: Any) -> Any:
        """Prefect's API: what a path answers to a body, or to nothing."""
        call = httpx.post if body else httpx.get
        user, _, secret = environment.login(self.home).partition(":")
        options: dict[str, Any] = {"timeout": 30, "auth": (user, secret)}
        answer = call(f"{self.prefect}/api/{path}", **options, **({"json": body} if body else {}))
        answer.raise_for_status()
        return answer.json()

    def state(self, run: str) -> str:
        return str(self.ask(f"flow_runs/{run}")["state"]["name"])

    def end(self, *runs: str) -> None:
        """Wait until runs are completed."""

        def is_so() -> bool:
            states = [self.state(run) for run in runs]
            assert not {"Failed", "Crashed", "Cancelled"} & set(states), states
            return set(states) == {"Completed"}

        until(is_so, SECONDS)

    def tasks(self, *runs: str) -> dict[str, list[str]]:
        """The names of the states of each task in these runs."""
        found = self.ask("task_runs/filter", flow_runs={"id": {"any_": runs}}, limit=200)
        states = defaultdict(list)
        for task in found:
            states[task["name"]].append(task["state"]["name"])
        return states

    def artifacts(self, run: str) -> dict[str, dict[str, Any]]:
        """The artifacts of a run by their key."""
        found = self.ask("artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}})
        return {each["key"]: each for each in found}

    def stored(self) -> dict[str, float]:
        """Every entry of the store, and when it was written."""
        found = (self.home / "store").glob("*/*/manifest.json")
        return {"/".join(path.parts[-3:-1]): path.stat().st_mtime for path in found}


def environ(home: Path) -> dict[str, str]:
    """That of somebody's shell: nothing of the tests' own Prefect and MLflow."""
    ours = ("PREFECT_", "MLFLOW_", "LIGHTREASONER_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    own = {"LIGHTREASONER_HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return {**kept, **own}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from flows.cli.console import main; main()", *arguments]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One cold `lightreasoner up`, ended whatever happens."""
    home = tmp_path_factory.mktemp("ui") / "home"
    ports = free_port(), free_port()
    options = ["--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])]
    up = command("up", "--detach", "--params", str(ROOT / "params.yaml"), *options)
    try:
        subprocess.run(up, env=environ(home), cwd=home.parent, check=True, timeout=400)
        yield Servers(home, *(f"http://127.0.0.1:{port}" for port in ports))
    finally:
        subprocess.run(command("down"), env=environ(home), cwd=home.parent, check=True)


@pytest.fixture(scope="module", autouse=True)
def checkout() -> Iterator[None]:
    """The runs write nothing into the checkout."""
    before = changes(ROOT)
    yield
    assert changes(ROOT) == before


def changes(root: Path) -> str:
    """What git says of a checkout, params.yaml and all."""
    told = subprocess.run(
        ["git", "-C", str(root), "status", "--porcelain"], capture_output=True, text=True
    )
    return told.stdout + (root / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def logged_in(servers: Servers, browser: Any, expect: Any) -> Any:
    """What a browser keeps once a person has given it the password that `up` names."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("request", lambda request: servers.asked.append(request.url))
    page.goto(f"{servers.prefect}/deployments")
    for password in ("lightreasoner:guess", environment.login(servers.home)):
        field = page.locator("input[type=password]")
        field.fill(password)
        with page.expect_response(lambda it: it.url.endswith("/admin/version")) as found:
            page.get_by_role("button", name="Login", exact=True).click()
        assert found.value.ok is (password != "lightreasoner:guess")
        browsing.shoot(page, "prefect-login")
    expect(page.get_by_role("link", name="lightreasoner", exact=True)).to_be_visible()
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def new_page(servers: Servers, browser: Any, logged_in: Any) -> Iterator[Callable[[], Any]]:
    """Opens pages; at the end, none of them has asked another machine."""
    window = {"width": 1280, "height": 1000}
    user, _, secret = environment.login(servers.home).partition(":")
    typed = {"username": user, "password": secret, "origin": servers.mlflow}  # for MLflow's page
    context = browser.new_context(viewport=window, storage_state=logged_in, http_credentials=typed)
    context.set_default_timeout(60_000)
    context.on("request", lambda request: servers.asked.append(request.url))

    def new() -> Any:
        page = context.new_page()
        page.on("websocket", lambda made: servers.asked.append(made.url))
        return page

    yield new
    context.close()
    assert [url for url in servers.asked if browsing.is_outside(url)] == []


@pytest.fixture(scope="module")
def expect() -> Any:
    sync_api = pytest.importorskip("playwright.sync_api")
    sync_api.expect.set_options(timeout=60_000)
    return sync_api.expect


def open_form(page: Any, servers: Servers) -> None:
    """Deployments > pipeline > Run > Custom run."""
    page.goto(f"{servers.prefect}/deployments")
    flow = page.get_by_role("link", name="lightreasoner", exact=True)
    page.locator("tr", has=flow).get_by_role("link", name="pipeline").click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    entry(page, "Preset").wait_for()


def entry(page: Any, title: str) -> Any:
    """A field of the form with its title, description and input."""
    label = page.get_by_text(f"{title} (Optional)", exact=True)
    return page.locator(".p-label.schema-form-property", has=label).last


def choose(page: Any, title: str, value: str) -> list[str]:
    """Choose from a drop-down; what it offered."""
    # In a headless browser the list closes at once after a click.
    entry(page, title).locator("button.p-select-button__control").focus()
    page.keyboard.press("ArrowDown")
    options = page.get_by_role("option")
    options.first.wait_for()
    offered = options.all_inner_texts()
    page.get_by_role("option", name=value, exact=True).click()
    return list(offered)


def fill(page: Any, fields: dict[str, float], more: tuple[str, ...] = ()) -> None:
    for title, value in fields.items():
        entry(page, title).locator("input").fill(str(value))
    for override in more:
        field = entry(page, "More parameters")
        lines = field.locator("textarea")
        place = lines.count()
        field.get_by_role("button", name="Add item").click()
        lines.nth(place).fill(override)


def submit(page: Any) -> str:
    """Start the run that the form says; its id.

    Presses again, as a person would, where SQLite was busy: Prefect's own client does that too,
    its page does not.
    """
    for _ in range(5):
        with page.expect_response(lambda it: it.url.endswith("/create_flow_run")) as found:
            page.get_by_role("button", name="Submit").click()
        if found.value.status != 503:
            break
        page.wait_for_timeout(1000)
    assert found.value.ok, found.value.text()
    return str(found.value.json()["id"])


def says(fields: dict[str, float], more: tuple[str, ...] = ()) -> config.Params:
    """The parameters of a form that is filled in with these."""
    return Form(**{FIELDS[title]: value for title, value in fields.items()}, more=more).values()  # type: ignore[arg-type]


def heading(page: Any) -> Any:
    """The top of a page: name, state, what can be done."""
    return page.locator(".page-heading").first


FIRST: dict[str, float] = {**SMALL, "Beta, nats": 0.3}
MORE = ("generate.max_new_tokens=120",)


@pytest.fixture(scope="module")
def first_run(servers: Servers, browser: Any, logged_in: Any, expect: Any) -> str:
    """A run from the form, another beta and an override in it, watched to its end."""
    window = {"width": 1280, "height": 1000}
    page = browser.new_page(viewport=window, storage_state=logged_in)
    page.set_default_timeout(60_000)
    page.on("request", lambda request: servers.asked.append(request.url))
    open_form(page, servers)
    assert choose(page, "Preset", "microworld") == list(PRESETS)
    fill(page, FIRST, MORE)
    page.mouse.wheel(0, -5000)
    browsing.shoot(page, "prefect-form")
    run = submit(page)
    page.goto(f"{servers.prefect}/runs/flow-run/{run}")
    for state in ("Running", "Completed"):
        expect(heading(page).get_by_text(state, exact=True)).to_be_visible(timeout=SECONDS * 1000)
    page.wait_for_timeout(2000)  # the graph comes to rest
    browsing.shoot(page, "prefect-run")
    page.close()
    return run


def test_a_run_from_the_form_ends_with_a_report(
    servers: Servers, first_run: str, new_page: Callable[[], Any], expect: Any
) -> None:
    page = new_page()
    page.goto(f"{servers.prefect}/runs/flow-run/{first_run}")
    expect(page.get_by_text(Form.of(says(FIRST, MORE)).run_name()).first).to_be_visible()
    page.get_by_text("Artifacts", exact=True).last.click()
    expect(page.get_by_text("kl-histogram").first).to_be_visible()
    browsing.shoot(page, "prefect-artifacts")
    artifacts = servers.artifacts(first_run)
    links = {"mlflow-run", "mlflow-runs", "report-page", "registered-model", "sample-set"}
    progress = {"generate", "score", "finetune", "merge", "evaluate-base", "evaluate"}
    assert {"plan", "report", "scores", "kl-histogram"} | links | progress == artifacts.keys()
    for key in progress:
        assert float(artifacts[key]["data"]) == 100
    show = f"{servers.prefect}/artifacts/artifact/"
    page.goto(f"{show}{artifacts['report']['id']}")
    expect(page.get_by_role("heading", name="Accuracy")).to_be_visible()
    expect(page.get_by_text("above 0.3 nats").first).to_be_visible()
    assert page.locator("article img").evaluate("image => image.naturalWidth") > 500
    browsing.shoot(page, "prefect-report")
    page.goto(f"{show}{artifacts['scores']['id']}")
    expect(page.get_by_text("chain_sum", exact=True).first).to_be_visible()
    browsing.shoot(page, "prefect-scores")
    page.goto(f"{show}{artifacts['kl-histogram']['id']}")
    picture = page.locator("img").last
    expect(picture).to_be_visible()
    until(lambda: picture.evaluate("image => image.naturalWidth") > 500, 30)
    browsing.shoot(page, "prefect-kl")
    for key in links:
        page.goto(f"{show}{artifacts[key]['id']}")
        link = page.locator(f"a[href^='{servers.mlflow}']").last
        expect(link).to_be_visible()


def test_the_second_interface_is_not_offered(
    servers: Servers, new_page: Callable[[], Any], expect: Any
) -> None:
    """It asks an outside host."""
    page = new_page()
    page.goto(f"{servers.prefect}/v2/dashboard")
    expect(page.get_by_role("button", name="Deployments")).to_be_visible()
    assert "/v2" not in page.url
    assert page.get_by_text("Switch to V2").count() == 0


def test_a_value_out_of_range_is_refused_in_the_form(
    servers: Servers, new_page: Callable[[], Any], expect: Any
) -> None:
    before = servers.ask("flow_runs/count", flow_runs={})
    page = new_page()
    for title, value, said in (
        ("Beta, nats", -1, "-1 is less than the minimum of 0"),
        ("Alpha", 2, "2 is greater than the maximum of 1"),
    ):
        open_form(page, servers)
        fill(page, {title: value})
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_text(said).first).to_be_visible()
    page.wait_for_timeout(500)  # the message has come up
    browsing.shoot(page, "prefect-refused")
    assert servers.ask("flow_runs/count", flow_runs={}) == before


def family(run: str) -> list[psutil.Process]:
    """The process of a run, which the runner has started, and its children."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PREFECT__FLOW_RUN_ID") == run:
                return [process, *process.children(recursive=True)]
    raise AssertionError(f"no process of run {run}")


def test_cancelling_stops_the_work_and_a_copy_goes_on(
    servers: Servers, new_page: Callable[[], Any], expect: Any
) -> None:
    page = new_page()
    open_form(page, servers)
    fill(page, {**SMALL, "Beta, nats": 0.3, "Updates": 80}, (*MORE, "finetune.validate_every=10"))
    run = submit(page)
    page.goto(f"{servers.prefect}/runs/flow-run/{run}")
    until(lambda: max(checkpoints(servers.home), default=0) >= 20, SECONDS)
    processes = family(run)
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    seconds = until(lambda: not any(each.is_running() for each in processes), 60)
    print(f"cancelled: processes gone after {seconds:.1f} s")
    expect(heading(page).get_by_text("Cancelled", exact=True)).to_be_visible()
    browsing.shoot(page, "prefect-cancelled")
    reached = max(checkpoints(servers.home))
    heading(page).get_by_role("button").last.click()
    page.get_by_text("Copy to new run").click()
    entry(page, "Preset").wait_for()
    again, seen = submit(page), set[int]()

    def is_done() -> bool:
        seen.update(checkpoints(servers.home))
        return servers.state(again) == "Completed"

    until(is_done, SECONDS)
    assert min(seen) >= reached - 10
    tasks = servers.tasks(again)
    for stage in ("prepare", "generate", "score", "select"):
        assert tasks[stage] == ["Cached"]


def start_together(
    servers: Servers, new_page: Callable[[], Any], forms: list[dict[str, float]]
) -> list[str]:
    """Runs that were filled in on pages of their own, started at once; all are under way."""
    pages = [new_page() for _ in forms]
    for page, fields in zip(pages, forms, strict=True):
        open_form(page, servers)
        fill(page, fields, MORE)
    runs = [submit(page) for page in pages]
    until(lambda: {servers.state(run) for run in runs} == {"Running"}, 90)
    return runs


@pytest.mark.nightly
def test_two_runs_at_once_do_not_disturb_each_other(
    servers: Servers, new_page: Callable[[], Any], expect: Any
) -> None:
    before = changes(ROOT)
    forms = [{**SMALL, "Beta, nats": beta} for beta in (0.5, 0.8)]
    runs = start_together(servers, new_page, forms)
    page = new_page()
    page.goto(f"{servers.prefect}/runs")
    expect(page.get_by_text("Running").first).to_be_visible()
    browsing.shoot(page, "prefect-two-runs")
    servers.end(*runs)
    assert changes(ROOT) == before
    for run, fields in zip(runs, forms, strict=True):
        beta = fields["Beta, nats"]
        assert f"beta={beta} " in servers.ask(f"flow_runs/{run}")["name"]
        artifacts = servers.artifacts(run)
        assert f"above {beta} nats" in artifacts["report"]["data"]
        assert f"above {beta} nats" in artifacts["kl-histogram"]["description"]
        outcomes = registering.stored_outcomes(says(fields, MORE), servers.home)
        assert outcomes["select"].manifest["config"]["beta"] == beta
        assert str(outcomes["select"].artifact.path) in artifacts["report"]["data"]


@pytest.mark.nightly  # two at once: also test_at_once.py, in CI
def test_two_equal_runs_at_once_compute_once(servers: Servers, new_page: Callable[[], Any]) -> None:
    before = servers.stored().keys()
    fields = {**SMALL, "Beta, nats": 0.3, "Seed of fine-tuning": 7}
    runs = start_together(servers, new_page, [fields, fields])
    servers.end(*runs)
    tasks = servers.tasks(*runs)
    for stage in GRAPH:
        assert len(tasks[stage.name]) == 2
        assert tasks[stage.name].count("Cached") >= 1, stage.name
    for stage in ("finetune", "merge", "evaluate"):
        assert sorted(tasks[stage]) == ["Cached", "Completed"]
    made = [entry.partition("/")[0] for entry in servers.stored().keys() - before]
    assert {"finetune", "merge", "evaluate", "report"} <= set(made)
    assert len(made) == len(set(made))


def copy_of_checkout(to: Path) -> Path:
    """The checkout as it is now, in a git repository of its own."""
    told = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    for name in told.stdout.decode().split("\0")[:-1]:
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    subprocess.run(["git", "init", "--quiet", str(to)], check=True)
    return to


@pytest.mark.usefixtures("first_run")
def test_dvc_repro_after_a_run_computes_nothing(servers: Servers, tmp_path: Path) -> None:
    root = copy_of_checkout(tmp_path / "checkout")
    (root / "params.yaml").write_text(config.dump(says(FIRST, MORE)), encoding="utf-8")
    before = servers.stored()
    told = subprocess.run(
        [str(dvc_checkout.DVC), "repro"],
        env={
            **environ(servers.home),
            "PYTHONPATH": str(root),
            "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
        },
        cwd=root,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    for stage in GRAPH:
        assert f"{stage.name}: cached" in told.stdout
    assert servers.stored() == before
    tables = root / ".lightreasoner" / "data" / "report" / "tables.json"
    assert json.loads(tables.read_text(encoding="utf-8"))["samples"]["threshold"] == 0.3


def test_mlflows_page_asks_for_the_login(
    servers: Servers, browser: Any, new_page: Callable[[], Any], expect: Any
) -> None:
    stranger = browser.new_page()
    with pytest.raises(Exception, match="ERR_INVALID_AUTH_CREDENTIALS"):
        stranger.goto(servers.mlflow)
    stranger.close()
    page = new_page()
    page.goto(f"{servers.mlflow}/#/experiments")
    expect(page.get_by_role("heading", name="Experiments")).to_be_visible()


def open_mlflow(page: Any, servers: Servers) -> None:
    """The experiments; the assistant beside every page is closed, the pages for agents are left."""
    page.goto(f"{servers.mlflow}/#/experiments")
    page.get_by_role("button", name="Close", exact=True).click()
    page.get_by_text("Model training", exact=True).click()


def test_mlflow_shows_the_run_and_its_curves(
    servers: Servers, first_run: str, new_page: Callable[[], Any], expect: Any
) -> None:
    name = servers.ask(f"flow_runs/{first_run}")["name"]
    page = new_page()
    open_mlflow(page, servers)
    page.get_by_role("link", name="lightreasoner", exact=True).first.click()
    expect(page.get_by_role("link", name=name).first).to_be_visible()
    links = servers.artifacts(first_run)
    page.goto(address(links["mlflow-runs"]))
    for column in ("Dataset", "accuracy", "accuracy_base"):  # the others are beyond the window
        expect(page.get_by_role("columnheader", name=column, exact=True).last).to_be_visible()
    browsing.shoot(page, "mlflow-runs")
    page.goto(address(links["mlflow-run"]))
    expect(page.get_by_text(name).first).to_be_visible()
    expect(page.get_by_text("accuracy/tuned").first).to_be_visible()
    for stage in GRAPH:
        expect(page.get_by_role("link", name=stage.name, exact=True).first).to_be_visible()
    browsing.shoot(page, "mlflow-run")
    page.get_by_role("link", name="finetune", exact=True).click()
    page.get_by_text("Model metrics", exact=True).first.click()
    for chart in ("loss", "validation_drift"):
        expect(page.get_by_text(chart, exact=True).first).to_be_visible()
    page.locator(".js-plotly-plot").first.wait_for()
    page.wait_for_timeout(1500)
    browsing.shoot(page, "mlflow-curves")
    page.goto(address(links["report-page"]))
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name="What LightReasoner changed")).to_be_visible()
    browsing.shoot(page, "mlflow-report")
    page.goto(address(links["sample-set"]))
    expect(page.get_by_text("select.beta").first).to_be_visible()
    browsing.shoot(page, "mlflow-sample-set")


def test_mlflow_shows_the_version_under_its_alias(
    servers: Servers, first_run: str, new_page: Callable[[], Any], expect: Any
) -> None:
    page = new_page()
    open_mlflow(page, servers)
    page.goto(f"{servers.mlflow}/#/models/lightreasoner-microworld")
    expect(page.get_by_text("candidate").first).to_be_visible()
    browsing.shoot(page, "mlflow-model")
    data = servers.artifacts(first_run)
    page.goto(address(data["registered-model"]))
    expect(
        page.get_by_text(re.compile("accuracy on the set tuned .*seed 42", re.I)).first
    ).to_be_visible()
    expect(page.get_by_text("Gate:").first).to_be_visible()
    for tag in ("digest.samples", "code.select", "parity.kl_max"):
        expect(page.get_by_text(tag).first).to_be_attached()
    aliases = page.get_by_text("@ champion")
    expect(aliases).to_have_count(int("Gate: promoted" in data["report"]["data"]))
    browsing.shoot(page, "mlflow-version")


@pytest.mark.usefixtures("first_run")
def test_runs_leave_the_login_nowhere(servers: Servers) -> None:
    """Neither in records nor in logs nor in results: in its own file alone."""
    secret = environment.login(servers.home).partition(":")[2].encode()
    files = [file for file in servers.home.rglob("*") if file.is_file()]
    assert [file.name for file in files if secret in file.read_bytes()] == [environment.LOGIN]


def address(link: dict[str, Any]) -> str:
    """Where a link artifact leads."""
    return str(link["data"]).rpartition("](")[2].rstrip(")")
