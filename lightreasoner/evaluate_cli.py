"""What evaluation does, step by step on the command line: the prompts, and a pair's gap."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from lightreasoner import config
from lightreasoner.cli import HOME, Home, Overrides, ParamsFile
from lightreasoner.errors import ConfigError, ModelError
from lightreasoner.stages import STAGES, Inputs, external_inputs

if TYPE_CHECKING:
    from lightreasoner.config import Params, PromptStyle

STYLES: tuple["PromptStyle", ...] = get_args(config.PromptStyle)


def prompts(
    benchmark: Annotated[
        str, typer.Option(metavar="NAME", help="The set, such as gsm8k or mmlu_stem.")
    ],
    data: Annotated[
        str,
        typer.Option(metavar="DIR", help="Holds NAME/test.jsonl; else a file or a hub source."),
    ],
    style: Annotated[
        str, typer.Option(metavar="STYLE", help=f"One of {', '.join(STYLES)}.")
    ] = "qwen25-math-cot",
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="Whose template the style chat renders.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N records only.")
    ] = None,
) -> None:
    """Print each record's prompt and gold answer, as the official toolkit has them.

    One JSON object a line, in the file's order: idx (the record, from 0), prompt, and gold, the
    normalised gold answer of the official verdict.

    Example: lightreasoner prompts --benchmark gsm8k --data benchmarks --limit 3
    """
    if style not in STYLES:
        raise ConfigError([f"no prompt style {style!r}; there are {', '.join(STYLES)}"])
    tokenizer = _chat_tokenizer(model) if style == "chat" else None
    from lightreasoner import answers, sources
    from lightreasoner.prompts import render

    if not Path(data).exists():
        sources.resolve(data)
    demos = sources.demos(data, benchmark)
    problems = sources.read(data, benchmark, "test", None, seed=0)[:limit]
    for index, problem in enumerate(problems):
        prompt = render(problem.question, style, tokenizer, demos)
        gold = answers.gold(problem.answer, benchmark)
        line = json.dumps({"idx": index, "prompt": prompt, "gold": gold}, ensure_ascii=False)
        typer.echo(line.encode())  # bytes: UTF-8 whatever the locale


def _chat_tokenizer(model: str | None) -> Any:
    """The tokenizer of a model that has a chat template."""
    if model is None:
        raise ConfigError(["the style chat renders a model's own template; give --model DIR"])
    from lightreasoner import models

    tokenizer = models.load_tokenizer(models.resolve(model).path)
    if not tokenizer.chat_template:
        raise ModelError(f"{model}: its tokenizer has no chat template; give another --style")
    return tokenizer


def pair(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Problems a set: short for evaluate.n_problems."),
    ] = None,
    home: Home = HOME,
) -> None:
    """Grade expert and amateur on the same problems: is the one far enough ahead of the other?

    The authors' rule of thumb (README of HKUDS/LightReasoner): the expert clearly better, the
    amateur still able to reason. A set on which the expert is not ahead, its gap's interval not
    above 0 by the strict verdict, is warned of. Responses and verdicts are kept in the store; the
    expert's are those of `evaluate-base`.

    Example: lightreasoner pair --limit 200
    """
    shorthand = [f"evaluate.n_problems={limit}"] if limit else []
    values = config.load(params, [*(set_ or ()), *shorthand])
    inputs = external_inputs(values, ("expert", "amateur", "benchmark_source"))
    from lightreasoner import gap

    found = gap.gap(*(_graded(model, inputs, values, home) for model in gap.MODELS))
    _print(gap.HEADINGS, gap.rows(found))
    for warning in gap.warnings(found):
        typer.echo(f"warning: {warning}", err=True)


def _graded(model: str, inputs: Inputs, params: "Params", home: Path) -> Path:
    """The scores of one model of the pair: the base's stage, with that model for its expert."""
    from lightreasoner.progress import TerminalBar
    from lightreasoner.store import Store

    stage = STAGES["evaluate_base"]
    given = {name: inputs[model if name == "expert" else name] for name in stage.inputs}
    with TerminalBar(model) as bar:
        return Store(home.absolute()).run(stage, given, params, bar).artifact.path


def _print(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; a narrow terminal wraps lines, it never loses a column."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, 140)
    console.print(table, crop=False)
