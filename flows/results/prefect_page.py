"""What a pipeline shows in Prefect's interface: its artifacts, made at the end of the run but one.

    plan               what the run will take, by stage; made at its beginning
    report             all of it on a page, in Markdown, with the figure of KL
    scores             the table of accuracies, gains and p
    kl-histogram       which steps were selected
    mlflow-run, mlflow-runs, report-page, registered-model, sample-set    links into MLflow, where a
                       server runs

Prefect's interface opens no file of this machine, so figures are in the page as data, and links
lead to MLflow's server.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from flows.results import terminal
from flows.results.records import Record
from lightreasoner.config import Params
from lightreasoner.forecast.plan import TIME, WORK, Plan, lines, time_rows, work_rows
from lightreasoner.formatting import (
    ACCURACY_HEADINGS,
    accuracy_rows,
    headline,
    markdown_table,
    percent,
    result_notes,
    selection,
)
from lightreasoner.storage.payload import read_json
from tasks.stages import StageRun
from tasks.tracking import mlflow_runs

BESIDE = (0, 1, 2, 3, 4, 6)  # columns of the accuracy table that fit beside each other on a page
VERDICTS = "Pass@1 by the strict verdict and by qwen, the Qwen2.5-Math toolkit's"
KL = "kl_histogram"
LINKS = {
    "mlflow-run": (
        "MLflow's run",
        "Parameters, metrics, figures and files, with a nested run per stage.",
    ),
    "mlflow-runs": ("All runs with their scores", "MLflow's list, with mean accuracy and gain."),
    "report-page": ("report.html", "The whole report: trajectories coloured by KL, problems won."),
    "registered-model": ("The registered model", "Its version, with tags, card and files."),
    "sample-set": ("The sample set", "The run of `select`: its parameters, numbers and digest."),
}
"""The links by key: text and description."""


@dataclass(frozen=True)
class Finished:
    """A pipeline's run at its end: its record, what report.json says, where MLflow has it.

    `addresses` are those of LINKS that there are, and of the figure.
    """

    record: Record
    report: Mapping[str, Any]
    runs: Mapping[str, StageRun]
    params: Params
    addresses: Mapping[str, str]

    @property
    def payload(self) -> Path:
        """The report's directory in the store."""
        return self.runs["report"].outcome.artifact.path


def show_plan(found: Plan) -> None:
    """Make the first artifact of the flow run that is under way."""
    rows = [
        {**dict(zip(WORK, work, strict=True)), **dict(zip(TIME, time, strict=True))}
        for work, time in zip(work_rows(found), time_rows(found)[:-1], strict=True)
    ]
    create_table_artifact(rows, key="plan", description="; ".join(lines(found)))


def make_artifacts(run: Finished) -> None:
    """Make the artifacts of the flow run that is under way."""
    figure = _data(run.payload, KL)
    create_markdown_artifact(
        f"# {run.record.name}\n\n" + markdown(run, f"![How many steps have which KL]({figure})"),
        key="report",
        description="What was run, what it came to, and where everything is.",
    )
    rows = [dict(zip(ACCURACY_HEADINGS, row, strict=True)) for row in accuracy_rows(run.report)]
    said = f"{VERDICTS}; {_reading(run.report)}"
    create_table_artifact(rows, key="scores", description=said)
    create_image_artifact(
        run.addresses.get("figure", figure), key="kl-histogram", description=_selected(run)
    )
    for key, (text, description) in LINKS.items():
        if key in run.addresses:
            create_link_artifact(run.addresses[key], text, key=key, description=description)


def addresses(tracking_uri: str, run: str, model: Mapping[str, Any]) -> dict[str, str]:
    """Where MLflow's server shows a pipeline's run and what came of it; empty without a server."""
    page = mlflow_runs.run_address(tracking_uri, run)
    if page is None:
        return {}
    figure = f"get-artifact?path=figures/{KL}.png&run_uuid={mlflow_runs.run_here(run)}"
    found = {
        "mlflow-run": page,
        "mlflow-runs": mlflow_runs.list_address(page),
        "report-page": f"{page}/artifacts/report.html",
        "figure": f"{tracking_uri}/{figure}",
        "registered-model": f"{tracking_uri}/#/models/{model['name']}/versions/{model['version']}",
    }
    samples = mlflow_runs.run_address(tracking_uri, mlflow_runs.find_stage(run, "select"))
    return found | ({"sample-set": samples} if samples else {})


def markdown(run: Finished, picture: str = "") -> str:
    """The report of a run: what was selected, accuracies, the model, where all of it is."""
    model, models = run.report["registered_model"], run.params.models
    version = f"{model['name']}, version {model['version']}"
    asked = run.params.evaluate
    parts = [
        f"**{headline(run.report, asked.seed, asked.base_style, asked.style)}**",
        f"`{models.expert}`, tuned with `{models.amateur}` as its amateur. {_selected(run)}",
        "## Accuracy",
        _accuracies(run.report),
        f"Pass@1 by the strict verdict; {_reading(run.report)}",
        *(["## What was selected", picture] if picture else []),
        "## The model",
        f"{_link(version, run.addresses.get('registered-model'))}, alias `{model['alias']}`.",
        f"Gate: {terminal.gate_line(model)}",
        "## Where it is",
        "\n".join(_places(run)),
        "## What it took",
        markdown_table(terminal.STAGE_HEADINGS, terminal.stage_rows(run.report)),
    ]
    return "\n\n".join(parts) + "\n"


def _accuracies(report: Mapping[str, Any]) -> str:
    """The accuracy table's columns BESIDE."""
    table = (ACCURACY_HEADINGS, *accuracy_rows(report))
    headings, *rows = ([row[place] for place in BESIDE] for row in table)
    return markdown_table(headings, rows)


def _reading(report: Mapping[str, Any]) -> str:
    """How the table is to be read."""
    said = [
        "p is McNemar's on the same problems (the sign test's where each has several responses), "
        "corrected for the number of sets (Holm).",
        *result_notes(report),
    ]
    return " ".join(said)


def _selected(run: Finished) -> str:
    """How many steps became samples, by which rule, and their labels."""
    found = read_json(run.payload / "tables.json")["samples"]
    share = percent(found["selected_share"])
    return (
        f"{found['selected']:,} of {found['steps']:,} steps ({share}) were selected. "
        f"{selection(found)}"
    )


def _places(run: Finished) -> list[str]:
    """The links, one per line, and the sample set's folder."""
    lines = [
        f"- {_link(text, run.addresses[key])}: {description[0].lower()}{description[1:]}"
        for key, (text, description) in LINKS.items()
        if key in run.addresses and key != "registered-model"
    ]
    samples = run.runs["select"].outcome.artifact
    return [
        *lines,
        f"- The sample set's files, digest `{samples.digest}`: `{samples.path}`",
        f"- To DVC, from the checkout: `lightreasoner publish {run.record.prefect}`",
    ]


def _link(text: str, address: str | None) -> str:
    return f"[{text}]({address})" if address else text


def _data(payload: Path, figure: str) -> str:
    """A figure of the report as a data URI."""
    image = (payload / "figures" / f"{figure}.png").read_bytes()
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
