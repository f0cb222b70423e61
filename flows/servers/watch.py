"""The watch over dead runs: a run whose process is gone becomes Crashed, not Running forever.

A flow run sends a heartbeat every 30 s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY, environment.py). An
automation of Prefect's server waits for the next one, or for the run's end, for SILENT_SECONDS.
A machine that sleeps longer than that looks dead, too; what such a run has stored is not lost.
"""

from datetime import timedelta

from prefect.automations import AutomationCore, ChangeFlowRunState, EventTrigger, Posture
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType

NAME = "lightreasoner: dead runs become Crashed"
SILENT_SECONDS = 90
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = tuple(
    f"prefect.flow-run.{state}"
    for state in ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut", "Paused", "Suspended")
)


def automation() -> AutomationCore:
    """The automation, as it should be."""
    return AutomationCore(
        name=NAME,
        description=f"No heartbeat for {SILENT_SECONDS} s: the process is gone.",
        enabled=True,
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            after={HEARTBEAT},
            expect={HEARTBEAT, *ENDS},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENT_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                force=False,
                message=f"No heartbeat for {SILENT_SECONDS} s: the process is gone. A new run "
                "with the same parameters goes on where this one stopped.",
            )
        ],
    )


def ensure(client: SyncPrefectClient) -> None:
    """Make the automation if the server has none of this name; one that is there stays."""
    if not client.read_automations_by_name(NAME):
        client.create_automation(automation())
