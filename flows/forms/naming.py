"""What Prefect says of a run: its name, tags to filter by, and that it was interrupted."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import Abort
from prefect.runtime import flow_run
from prefect.states import Cancelled, State

from flows.forms.form import Settings, name_of

TAG = "lightreasoner"
"""Of all runs and deployments."""

log = logging.getLogger(__name__)


def run_name() -> str:
    """The name of the flow run that is starting, from its form."""
    form: Settings = flow_run.parameters["params"]
    return form.run_name()


def name_here() -> str:
    """The name of this flow run."""
    return flow_run.name or "lightreasoner"


def tag(form: Settings, kind: str) -> None:
    """Give this flow run the tags of its deployment, started by one or not, and its subject."""
    if run := _here():
        with get_client(sync_client=True) as client:
            tags = {*run.tags, TAG, kind, name_of(form.values())}
            client.update_flow_run(run.id, tags=tags)


class Interrupted(KeyboardInterrupt, Abort):
    """Ctrl-C in a flow run whose state Prefect has been told; it leaves a run alone that aborts."""

    state: State[Any]


@contextlib.contextmanager
def cancelled_by_ctrl_c() -> Iterator[None]:
    """At Ctrl-C this flow run becomes Cancelled, where Prefect would say Crashed.

    Raises Interrupted for it; KeyboardInterrupt, as ever, where the server is gone.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        run, ended = _here(), Interrupted()
        if run is None:
            raise
        ended.state = Cancelled(message="Interrupted; a run with the same parameters goes on.")
        try:
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(run.id, ended.state, force=True)
        except (httpx.HTTPError, RuntimeError) as lost:
            log.warning("Prefect was not told that the run was interrupted (%s)", lost)
            raise error from None
        raise ended from error


def _here() -> FlowRun | None:
    context: Any = FlowRunContext.get()
    return context.flow_run if context else None
