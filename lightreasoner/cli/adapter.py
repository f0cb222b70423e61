"""`lightreasoner adapter`: an adapter as peft loads it."""

from pathlib import Path
from typing import Annotated

import typer

from lightreasoner import config
from lightreasoner.cli.options import Overrides, ParamsFile
from lightreasoner.storage import outputs
from lightreasoner.storage.outputs import DATA


def adapter(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new directory.")],
    adapter: Annotated[
        Path, typer.Option("--adapter", metavar="DIR", help="What finetune wrote.")
    ] = DATA / "adapter",
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
) -> None:
    """Write an adapter as peft loads it.

    Its settings name models.expert by directory, or by hub id and commit, as
    AutoPeftModelForCausalLM looks it up; a card says how to load it.

    Example: lightreasoner adapter --out my-adapter
    """
    outputs.check_new(out)
    values = config.load(params, set_ or ())
    from lightreasoner.inference import loading
    from lightreasoner.tuning import peft_form

    peft_form.export(adapter, loading.resolve(values.models.expert), out)
    typer.echo(f"adapter: {out}")
