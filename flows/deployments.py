"""The deployments: what Prefect's interface offers to start, each with a form.

`lightreasoner up` serves them (`serve`, as a process of its own); `prefect deploy --all` makes the
same ones for a work pool (prefect.yaml at the top of the checkout or project calls `read_form`).
"""

import os
import sys
from pathlib import Path
from typing import Any, cast

import prefect
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import EntrypointType

from flows.compare import compare
from flows.controls import controls
from flows.evaluation import evaluation
from flows.forms import naming
from flows.forms.form import (
    ControlsForm,
    EvaluationForm,
    Form,
    RoundsForm,
    Settings,
    SweepForm,
)
from flows.pipeline import lightreasoner
from flows.rounds import rounds
from flows.servers import watch
from flows.sweep import sweep
from flows.table1 import table1
from lightreasoner import config
from lightreasoner.config import Params
from tasks import accelerator

NAME = "local"
"""Of the runner, and of the work pool in prefect.yaml."""

AT_ONCE = 4
"""Runs that the runner takes together; their heavy tasks take turns (tasks/accelerator.py)."""

FLOWS: dict[str, tuple[Flow[..., Any], type[Settings]]] = {
    "pipeline": (lightreasoner, Form),
    "comparison": (compare, Form),
    "table1": (table1, Form),
    "controls": (controls, ControlsForm),
    "sweep": (sweep, SweepForm),
    "rounds": (rounds, RoundsForm),
    "evaluation": (evaluation, EvaluationForm),
}
"""The flows by what they do (local.DEPLOYED), each with its form."""


def serve(params: Params) -> None:
    """Run what Prefect's interface asks for until the process is ended.

    The forms start with `params`. Runs are processes of their own, which import the flow by its
    module, so that they may start in any folder.
    """
    prepare_server()
    prefect.serve(
        *deployments(params),
        name=NAME,
        limit=AT_ONCE,
        pause_on_shutdown=False,
        print_starting_message=False,
    )


def deployments(params: Params) -> list[RunnerDeployment]:
    """The deployments, their forms filled in with these parameters."""
    return [
        cast(
            RunnerDeployment,
            flow.to_deployment(
                name=tag,
                description=f"{flow.description} The form starts with params.yaml as it was when "
                "the server started.",
                tags=[naming.TAG, tag],
                parameters=parameters(form, params),
                entrypoint_type=EntrypointType.MODULE_PATH,
            ),
        )
        for tag, (flow, form) in FLOWS.items()
    ]


def parameters(form: type[Settings], params: Params) -> dict[str, Any]:
    """A form filled in; fields that keep the preset's values are left out."""
    filled = form.of(params).model_dump(mode="json", exclude_unset=True)
    return {"params": filled}


def prepare_server() -> None:
    """Make the accelerator's limit and the watch over dead runs, if they are not there."""
    with get_client(sync_client=True) as client:
        accelerator.ensure_limit(client)
        watch.ensure(client)


def read_form(flow: str) -> dict[str, Any]:
    """A build step of prefect.yaml: the filled form of the flow with this tag, and the checkout.

    Reads params.yaml of the current folder. Raises ConfigError.
    """
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    prepare_server()
    filled = parameters(FLOWS[flow][1], config.load(Path("params.yaml")))
    return {"form": filled["params"], "directory": str(Path.cwd())}


if __name__ == "__main__":
    serve(Params.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8")))
