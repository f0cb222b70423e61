"""The console script `lightreasoner`: Ctrl-C is heard before what takes time is imported."""

from pathlib import Path

from lightreasoner.cli import last_door


def main() -> None:
    """Run the command line; whatever comes up leaves by the last door."""
    last_door.hear()
    last_door.through(_run, _home)


def _run() -> None:
    from flows.cli import app

    app.main()


def _home() -> Path:
    from flows import environment

    return environment.home()
