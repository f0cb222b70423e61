"""`python -m lightreasoner STAGE`: the pure commands, on a machine without Prefect and MLflow."""

import os

from lightreasoner.cli import last_door


def _run() -> None:
    from lightreasoner.cli.app import application
    from lightreasoner.processes import PATIENT, threads
    from lightreasoner.repeatable import CUBLAS

    for name, value in (CUBLAS | PATIENT | threads()).items():
        os.environ.setdefault(name, value)
    application()(prog_name="python -m lightreasoner")


def _home() -> "last_door.Path":
    from lightreasoner.storage import outputs

    return outputs.HOME


if __name__ == "__main__":
    last_door.through(_run, _home)
