"""The console script `lightreasoner`: Ctrl-C is heard before what takes time is imported."""

from importlib.util import find_spec
from pathlib import Path

from lightreasoner.cli import last_door

NEEDED = ("prefect", "mlflow", "supervisor")
"""Of the extra `pipeline`."""


def main() -> None:
    """Run the command line; whatever comes up leaves by the last door."""
    last_door.hear()
    last_door.through(_run, _home)


def _run() -> None:
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        from lightreasoner.errors import ConfigError

        raise ConfigError(
            [
                f"{', '.join(missing)}: not installed; pip install 'lightreasoner[pipeline]', or "
                "run single stages by `python -m lightreasoner`, which needs none of it"
            ]
        )
    from flows.cli import app

    app.main()


def _home() -> Path:
    from flows import environment

    return environment.home()
