"""`lightreasoner prompts` and `lightreasoner evaluate`: what a model is asked, and how well it
answers."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from lightreasoner import config, untrusted
from lightreasoner.cli import completion, last_door, output
from lightreasoner.cli.options import AsJson, Home, Overrides, Overwrite, ParamsFile
from lightreasoner.cli.stage import take
from lightreasoner.errors import ConfigError, EndpointError
from lightreasoner.formatting import EVALUATION_HEADINGS, evaluation_rows, print_table, rich_table
from lightreasoner.pipeline.graph import STAGES, external_inputs
from lightreasoner.storage import artifacts, digests, outputs
from lightreasoner.storage.artifacts import Workspace
from lightreasoner.storage.outputs import DATA, HOME
from lightreasoner.storage.payload import read_json
from lightreasoner.untrusted import printable, printable_line, shown

if TYPE_CHECKING:
    from lightreasoner.config import Evaluate, Params, PromptStyle
    from lightreasoner.inference.engine import Engine
    from lightreasoner.pipeline.store import Job

STYLES: tuple["PromptStyle", ...] = get_args(config.PromptStyle)


def prompts(
    benchmark: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The set, such as gsm8k or mmlu_stem.",
            autocompletion=completion.benchmarks,
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="A directory with NAME/test.jsonl, a file or a hub source."
        ),
    ],
    style: Annotated[
        str,
        typer.Option(
            metavar="STYLE",
            help=f"One of {', '.join(STYLES)}.",
            autocompletion=completion.styles,
        ),
    ] = "qwen25-math-cot",
    model: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The model whose template chat and authors use."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first N records.")
    ] = None,
) -> None:
    """Print each record's prompt and gold answer.

    They are the official toolkit's. One JSON object per line, in the file's order: idx (the record,
    from 0), prompt, and gold, the normalised gold answer of the official verdict.

    Example: lightreasoner prompts --benchmark gsm8k --data benchmarks --limit 3
    """
    named = _style(style)
    from lightreasoner.data import demos, sources
    from lightreasoner.inference.prompts import CHAT_CUES, render_prompts
    from lightreasoner.qwen_math import answers

    tokenizer = _chat_tokenizer(model, style) if style in CHAT_CUES else None
    if not Path(data).exists():
        sources.resolve(data)
    shown = demos.own(data, benchmark)
    drawn = limit if data == sources.MICROWORLD else None
    problems = sources.draw_problems(data, benchmark, "test", drawn, seed=0)[:limit]
    questions = [problem.question for problem in problems]
    texts = render_prompts(questions, named, tokenizer, shown)
    for index, (problem, prompt) in enumerate(zip(problems, texts, strict=True)):
        gold = answers.gold(problem.gold, benchmark)
        row = {"idx": index, "prompt": prompt, "gold": gold}
        line = json.dumps(row, ensure_ascii=False)
        if printable(line) != line:
            line = json.dumps(row)
        typer.echo(line.encode())  # bytes: UTF-8 whatever the locale


def _chat_tokenizer(model: str | None, style: str) -> Any:
    """The tokenizer of a model whose chat template a style renders."""
    if model is None:
        raise ConfigError([f"style {style} uses a model's own chat template; give --model DIR"])
    from lightreasoner.inference import loading

    return loading.load_tokenizer(loading.resolve(model).path)


def evaluate(
    model: Annotated[
        str, typer.Option(metavar="M", help="A directory, or owner/name@commit of the hub.")
    ] = str(DATA / "model"),
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="A directory with NAME/test.jsonl, a file or a hub source."
        ),
    ] = None,
    benchmarks: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Sets of DIR, or of evaluate.source.",
            autocompletion=completion.benchmarks,
        ),
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(
            metavar="STYLE",
            help=f"One of {', '.join(STYLES)}.",
            autocompletion=completion.styles,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Problems per set, drawn by evaluate.seed."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A server that serves M, http://HOST:PORT/v1."),
    ] = None,
    served_model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The server's name for M, if it serves several."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight at a time.")] = 16,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file with the server's key, if it needs one."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the result goes; default: see above."),
    ] = None,
    overwrite: Overwrite = False,
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    home: Home = HOME,
    as_json: AsJson = False,
) -> None:
    """Grade a model's responses to sets of problems.

    Reads the parameters evaluate.*; --benchmarks, --style and --limit set problem_sets, style and
    n_problems. With --data the others start from the paper's settings (all problems, greedy, 2048
    tokens), not from params.yaml. Writes scores.parquet, a row per response, and summary.json: to
    .lightreasoner/data/scores for the pipeline's own model and problems, else to a folder of
    HOME/evaluations that is named after the model and what it was asked.

    Example: lightreasoner evaluate --model M --benchmarks gsm8k,svamp --data DIR --limit 100
    """
    if style is not None:
        _style(style)
    given = {"problem_sets": _names(benchmarks), "style": style, "n_problems": limit}
    overrides = _overrides(data, given)
    values = config.load(params, [*overrides, *(set_ or ())])
    from lightreasoner.inference import loading
    from lightreasoner.pipeline.store import Job

    digests.keep(home)
    inputs = {"model": loading.resolve(model), **external_inputs(values, ["benchmark_source"])}
    job = Job.of(STAGES["evaluate"], inputs, values)
    if endpoint is None:
        is_pipelines = model == str(DATA / "model") and not overrides
        out = out or (DATA / "scores" if is_pipelines else _place(home, model, job.key))
        line = take(job, out, home, overwrite)
    else:
        secret = _secret(api_key_file) if api_key_file else None
        engine = _connected(endpoint, served_model, values, concurrency, secret)
        key = hashlib.sha256(f"{job.key}/{engine.name}".encode()).hexdigest()[:32]
        own = out is None  # a folder that holds nothing but the answers to this very question
        out = out or _place(home, model, key)
        line = _ask(engine, key, job, out, home, overwrite or own)
    scores = read_json(out / "summary.json")
    if as_json:
        output.print_json({"out": str(out), "scores": scores})
        return
    typer.echo(line)
    print_table(rich_table(EVALUATION_HEADINGS, evaluation_rows(scores)))


def _secret(file: Path) -> str:
    """The key in a file."""
    return untrusted.read_text(file, EndpointError, untrusted.SETTINGS_BYTES).strip()


def _style(name: str) -> "PromptStyle":
    for style in STYLES:
        if name == style:
            return style
    raise ConfigError([f"no prompt style {shown(name)}; there are {', '.join(STYLES)}"])


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _overrides(data: str | None, given: dict[str, Any]) -> list[str]:
    """The section's values that options set, in the form of `--set`."""
    values = {key: value for key, value in given.items() if value is not None}
    if data is not None:
        fields = config.Evaluate.model_fields.items()
        paper = {key: field.default for key, field in fields if not field.is_required()}
        values = {"source": data, **paper, **values}
    return [
        f"evaluate.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()
    ]


def _place(home: Path, model: str, key: str) -> Path:
    """A folder of its own for each model, section, data and server."""
    return home / "evaluations" / f"{Path(model.partition('@')[0]).name or 'model'}-{key[:8]}"


def _connected(
    url: str, name: str | None, values: "Params", concurrency: int, key: str | None
) -> "Engine":
    """The server as an engine, if it answers and serves the model. Raises EndpointError."""
    from lightreasoner.inference.prompts import stop_words
    from lightreasoner.serving.openai_engine import Endpoint

    section = values.evaluate
    return Endpoint(
        url,
        name,
        section.max_new_tokens,
        section.temperature,
        stop_words(section.style),
        concurrency,
        api_key=key,
    ).connect()


def _ask(engine: "Engine", key: str, job: "Job", out: Path, home: Path, overwrite: bool) -> str:
    """Write the scores of a server's responses to `out`; a line that says so.

    A restart continues where it stopped. They do not enter the store: no fingerprint knows what a
    server computes with.
    """
    from lightreasoner.evaluation import evaluate
    from lightreasoner.pipeline.store import Store
    from lightreasoner.progress import TerminalBar

    outputs.check(out, home, overwrite)
    last_door.goes_on()
    work = outputs.own(home) / "work" / key
    payload = work / "payload"
    space = Workspace(payload, work / "shards", job.compute)
    with Store(outputs.own(home)).lock(key), TerminalBar("evaluate") as bar:
        shutil.rmtree(payload, ignore_errors=True)
        payload.mkdir(parents=True)
        evaluate.write(job.inputs, cast("Evaluate", job.settings), space, bar, engine)
        outputs.put(artifacts.of(payload), out, home, overwrite)
        shutil.rmtree(work)
    return f"evaluate: {printable_line(engine.name)}  {out}"
