"""The commands for models: register one, push one to the hub."""

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from flows import environment
from flows.servers import local
from lightreasoner import config
from lightreasoner.cli import output
from lightreasoner.cli.options import Overrides, OverwriteFile, ParamsFile
from lightreasoner.errors import ConfigError
from lightreasoner.storage import artifacts, aside, outputs
from lightreasoner.storage.outputs import DATA
from lightreasoner.untrusted import printable


def register(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    model: Annotated[
        Path, typer.Option("--model", metavar="DIR", help="The merged model to register.")
    ] = DATA / "model",
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where to write the version.")
    ] = DATA / "registered" / "registered_model.json",
    overwrite: OverwriteFile = False,
) -> None:
    """Register the merged model of these parameters.

    A model that is registered already is found, not registered again. It becomes `champion` if it
    is better than the base and the champion on register.gate_set. All results are looked up in the
    store, so run the stages first (`dvc repro` does).

    Example: lightreasoner register --set register.gate_set=transfer
    """
    outputs.check_file(out, ("name", "version"), overwrite)
    values = config.load(params, set_ or ())
    wanted = artifacts.of(model)
    home = environment.make(environment.home())
    local.connect(home)
    from flows import registering

    output.log_to_stderr("tasks", logging.WARNING)
    found = registering.register_stored(values, wanted, home)
    artifacts.write_text(out, json.dumps(found, indent=1) + "\n")
    typer.echo(f"register: {found['name']} version {found['version']}  {wanted.digest}  {out}")
    typer.echo(f"gate: {found['gate']['verdict']}. {found['gate']['reason']}")


def push(
    repo: Annotated[
        str, typer.Option(metavar="OWNER/NAME", help="On the hub; a new one is private.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="M", help="models:/NAME@ALIAS, or a model's directory.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A sample set, or its export, instead.")
    ] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Only the adapter: that of M, or M itself.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be uploaded; no network.")
    ] = False,
) -> None:
    """Upload a model, an adapter or a sample set to the hub.

    It goes to the Hugging Face hub with its card; only safetensors, json, txt, jinja and md files
    are uploaded, of a sample set parquet and md. The login is that of the hub's client
    (`hf auth login`).

    Example: lightreasoner push --model models:/NAME@champion --repo owner/name --dry-run
    """
    from lightreasoner.tuning import upload

    if (model is None) == (dataset is None) or (adapter and model is None):
        raise ConfigError(["push: give --model, with or without --adapter, or --dataset"])
    upload.check_repository(repo)
    home = environment.make(environment.home())
    (home / "work").mkdir(exist_ok=True)
    with aside.beside(home / "work" / "push") as scratch:
        if dataset is not None:
            folder = upload.prepare_dataset(dataset, scratch / "new")
        elif model is not None:
            files, card = _files_to_push(model, adapter, home, scratch)
            folder = upload.prepare(files, card, scratch / "new", adapter)
        for name, size in folder.sizes.items():
            typer.echo(f"{size:>14,}  {printable(name)}")
        typer.echo(f"{sum(folder.sizes.values()):>14,}  bytes in {len(folder.sizes)} files")
        if dry_run:
            typer.echo(f"dry run: nothing was sent to {repo}; the card is valid")
        else:
            typer.echo(f"pushed: {upload.send(folder, repo)}")


def _files_to_push(model: str, adapter: bool, home: Path, scratch: Path) -> tuple[Path, Path]:
    """The directory that M names, from the registry or the disk, and its card."""
    if not model.startswith("models:/"):
        return Path(model), Path(model) / "README.md"
    local.connect(home)
    from tasks.registry import versions

    if not local.look(home):
        raise versions.RegistryError(
            f"{model}: no model is registered under {home} yet; `lightreasoner run` registers one"
        )
    (scratch / "version").mkdir()
    version = versions.download(model, scratch / "version")
    if adapter:
        from lightreasoner.tuning import adapters

        adapters.check_tensors(adapters.read_adapter(version / "adapter"), version / "model")
    return version / ("adapter" if adapter else "model"), version / "README.md"
