"""What evaluation does, step by step on the command line: the prompts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from lightreasoner import config
from lightreasoner.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from lightreasoner.config import PromptStyle

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
