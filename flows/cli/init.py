"""`lightreasoner init`: a new project, which needs no checkout."""

from pathlib import Path
from typing import Annotated

import typer

from flows.dvc import dvcfile
from lightreasoner import config
from lightreasoner.errors import ConfigError
from lightreasoner.storage import artifacts
from lightreasoner.untrusted import listed

PREFECT_YAML = Path(__file__).parent / "templates" / "prefect.yaml"
GITIGNORE = """\
# environments
.venv*

# all local state: store, caches, databases, DVC's workspace outs
.lightreasoner/
dvc_plots/
"""


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made if it is not there.")],
) -> None:
    """Start a project of your own in a folder.

    Writes params.yaml (the embedded default's parameters), dvc.yaml, prefect.yaml and .gitignore;
    refuses a folder that has one of them. Commands that are called there read them, and keep
    results, databases and logs in .lightreasoner beside them.

    Example: lightreasoner init my-project
    """
    from lightreasoner.presets import PRESETS

    texts = {
        "params.yaml": config.dump(PRESETS["microworld"]),
        "dvc.yaml": dvcfile.dvc_yaml(in_checkout=False),
        "prefect.yaml": PREFECT_YAML.read_text(encoding="utf-8"),
        ".gitignore": GITIGNORE,
    }
    places = [folder / name for name in texts]
    if taken := [path.name for path in places if path.exists() or path.is_symlink()]:
        raise ConfigError([f"{folder}: has {listed(taken)} already; name another folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in zip(places, texts.values(), strict=True):
        artifacts.write_text(path, text)
    typer.echo(f"{folder}: {', '.join(texts)}")
    typer.echo("next: in it, edit params.yaml, then `lightreasoner run`, or `lightreasoner up`")
    typer.echo("with DVC (pipx install dvc): git init; dvc init; dvc repro")
