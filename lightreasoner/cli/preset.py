"""`lightreasoner preset`: another starting point for params.yaml."""

from pathlib import Path
from typing import Annotated

import typer

from lightreasoner import config
from lightreasoner.cli import completion
from lightreasoner.cli.options import ParamsFile
from lightreasoner.errors import ConfigError
from lightreasoner.storage import artifacts
from lightreasoner.untrusted import shown


def preset(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="One of the presets.", autocompletion=completion.presets
        ),
    ],
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Rewrite params.yaml with the settings of a preset.

    An unknown name lists the presets.

    Example: lightreasoner preset microworld
    """
    from lightreasoner.presets import PRESETS

    if name not in PRESETS:
        raise ConfigError([f"no preset {shown(name)}; there are {', '.join(sorted(PRESETS))}"])
    artifacts.write_text(params, config.dump(PRESETS[name]))
    typer.echo(f"{params}: {name}")
