"""What Prefect calls a run: a name that says its parameters, and tags to filter by."""

from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from flows.forms.form import Settings, name_of


def run_name() -> str:
    """The name of the flow run that is starting, from its form."""
    form: Settings = flow_run.parameters["params"]
    return form.run_name()


def tag(form: Settings) -> None:
    """Add what is tuned or asked, as runs are named by it, to the tags of this flow run."""
    context: Any = FlowRunContext.get()
    run: FlowRun | None = context.flow_run if context else None
    if run is None:
        return
    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, tags={*run.tags, name_of(form.values())})
