"""The server of MLflow's API and pages, as an application."""

from typing import Any


def application() -> Any:
    """MLflow's own application, on the stores that `mlflow server` has set."""
    from mlflow.server.fastapi_app import app

    return app
