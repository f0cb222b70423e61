"""`lightreasoner preset`: another starting point for params.yaml."""

from pathlib import Path
from typing import Annotated

import typer

from lightreasoner import config, untrusted
from lightreasoner.cli import completion
from lightreasoner.cli.options import OverwriteFile, ParamsFile
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
    overwrite: OverwriteFile = False,
) -> None:
    """Rewrite params.yaml with the settings of a preset.

    An unknown name lists the presets. A file that is not as `preset` wrote it is kept, unless
    --overwrite is given.

    Example: lightreasoner preset microworld
    """
    from lightreasoner.presets import PRESETS

    if name not in PRESETS:
        raise ConfigError([f"no preset {shown(name)}; there are {', '.join(sorted(PRESETS))}"])
    written = {config.dump(each) for each in PRESETS.values()}
    if not overwrite and (params.exists() or params.is_symlink()) and _text(params) not in written:
        raise ConfigError(
            [
                f"{params}: is not as `preset` wrote it, and would be lost; name another file by "
                "--params, or replace it by --overwrite"
            ]
        )
    artifacts.write_text(params, config.dump(PRESETS[name]))
    typer.echo(f"{params}: {name}")


def _text(file: Path) -> str | None:
    """What a small text file holds; None if it is none."""
    try:
        return untrusted.read_text(file, ValueError, untrusted.SETTINGS_BYTES)
    except (ValueError, OSError):
        return None
