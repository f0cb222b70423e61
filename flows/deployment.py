"""The runner of the flows' deployments: `lightreasoner up` starts it as a process."""

import sys
from pathlib import Path
from typing import cast

import prefect
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import EntrypointType

from flows.compare import compare
from flows.pipeline import lightreasoner
from flows.table1 import table1
from lightreasoner.config import Params

NAME = "local"


def serve(params: Params) -> None:
    """Run what Prefect's interface asks for, one run at a time, until the process is ended.

    The form's fields start with `params`. Runs are processes of their own, which import the flow
    by its module, so that they may start in any folder.
    """
    deployments = cast(
        list[RunnerDeployment],
        [
            flow.to_deployment(
                name=NAME,
                description="The form starts with params.yaml as it was when the server started.",
                parameters={"params": params.model_dump(mode="json")},
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
            for flow in (lightreasoner, compare, table1)
        ],
    )
    prefect.serve(
        *deployments, name=NAME, limit=1, pause_on_shutdown=False, print_starting_message=False
    )


if __name__ == "__main__":
    serve(Params.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8")))
