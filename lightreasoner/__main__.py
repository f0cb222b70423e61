"""`python -m lightreasoner STAGE`: the pure commands, on a machine without Prefect and MLflow."""

import os

from lightreasoner.cli.app import application
from lightreasoner.repeatable import CUBLAS

if __name__ == "__main__":
    for name, value in CUBLAS.items():
        os.environ.setdefault(name, value)
    application()(prog_name="python -m lightreasoner")
