"""`lightreasoner explain`: a trajectory in the terminal, coloured by KL, and its samples."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lightreasoner.formatting import percent, print_table, rich_table
from lightreasoner.storage.outputs import DATA
from lightreasoner.untrusted import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    from lightreasoner.report.trajectories import Candidate, ExplainedTrajectory, Scored, Step

TOP = 3
WIDTH = 120
"""Cells per line where the output is not a terminal."""

BLOCKS = " ▁▃▅▆█"
"""One for each level of KL, without colour; as many as the page has shades."""

SAMPLE = "^"


def explain(
    problem: Annotated[
        str,
        typer.Argument(metavar="PROBLEM", help="A problem's id, or its unique beginning or end."),
    ],
    steps: Annotated[Path, typer.Option("--steps", metavar="DIR", help="Scored steps.")] = DATA
    / "steps",
    samples: Annotated[
        Path, typer.Option("--samples", metavar="DIR", help="The samples selected from them.")
    ] = DATA / "samples",
    tokenizer: Annotated[
        Path,
        typer.Option(
            "--tokenizer", "--model", metavar="DIR", help="The expert, or a model merged from it."
        ),
    ] = DATA / "model",
    theme: Annotated[Literal["dark", "light"], typer.Option(help="The terminal's theme.")] = "dark",
) -> None:
    """Print a trajectory with its tokens coloured by KL.

    Also what was learned at its samples, as on the report's page. Without colours (a pipe, a file,
    NO_COLOR) blocks below the tokens show the KL; samples are marked either way. Further
    trajectories of a problem have the ids <id>#1, <id>#2 and so on.

    Example: lightreasoner explain 562b60d97f --steps .lightreasoner/data/steps
    """
    from rich.console import Console

    from lightreasoner.report import trajectories

    scored = trajectories.load_scored(steps, samples, tokenizer)
    found = trajectories.trajectory(scored, trajectories.find(scored.ids, problem))
    console = Console(highlight=False, markup=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    show(found, scored, console, theme)


def show(
    trajectory: "ExplainedTrajectory", scored: "Scored", console: "Console", theme: str = "dark"
) -> None:
    """Print the prompt, the response token by token, a legend and the table of samples."""
    from rich.text import Text

    prompt = "".join(token.text for token in trajectory.prompt)
    console.print(Text(printable(prompt.strip()), "dim"))
    console.print()
    for line in response(trajectory.steps, console, theme):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    console.print()
    console.print(legend(console, theme))
    console.print(_heading(trajectory, scored))
    if trajectory.samples:
        _print_samples(trajectory.samples, console)


def is_coloured(console: "Console") -> bool:
    """Whether the console shows colours."""
    return console.color_system is not None and not console.no_color


def response(steps: Sequence["Step"], console: "Console", theme: str) -> "Iterable[Text]":
    """The response's lines, cut between tokens so that they fit the console.

    In colour a token's background is its KL and a sample is underlined. Else a second line has a
    block below each token, and a third a mark below each sample.
    """
    for line in _lines(steps, console.width):
        yield _coloured(line, theme) if is_coloured(console) else _marked(line)


def _lines(steps: Sequence["Step"], width: int) -> "Iterable[list[Step]]":
    line: list[Step] = []
    used = 0
    for step in steps:
        cells = _cells(_text(step))
        if line and used + cells > width:
            yield line
            line, used = [], 0
        line.append(step)
        used += cells
        if "\n" in step.token.text:
            yield line
            line, used = [], 0
    if line:
        yield line


def _coloured(line: Sequence["Step"], theme: str) -> "Text":
    from rich.text import Text

    return Text.assemble(
        *((_text(step), _style(step.level, step.is_sample, theme)) for step in line)
    )


def _marked(line: Sequence["Step"]) -> "Text":
    """Tokens, blocks and marks, a line each; a line of marks that has none is left out."""
    from rich.text import Text

    cells = [_cells(_text(step)) for step in line]
    rows = (
        [_text(step) for step in line],
        ["?" if step.level is None else BLOCKS[step.level] for step in line],
        [SAMPLE if step.is_sample else " " for step in line],
    )
    text = "".join(rows[0])
    under = [
        "".join(mark * n for mark, n in zip(row, cells, strict=True)).rstrip() for row in rows[1:]
    ]
    return Text("\n".join([text, *(row for row in under if row)]))


def _style(level: int | None, is_sample: bool, theme: str) -> "Style":
    from rich.style import Style

    from lightreasoner.report.trajectories import SHADES

    if level is None:
        return Style(dim=True, italic=True)
    paper, ink = SHADES[theme][level - 1] if level else (None, None)
    return Style(bgcolor=paper, color=ink, underline=is_sample, bold=is_sample)


def legend(console: "Console", theme: str) -> "Text":
    """What the colours, or the blocks, mean."""
    from rich.text import Text

    from lightreasoner.report.trajectories import KL_EDGES

    bounds = ["0", *(f"{edge:g}" for edge in KL_EDGES), ""]
    text = Text("KL, nats:")
    for level, (low, high) in enumerate(itertools.pairwise(bounds)):
        said = f"{low} to {high}" if high else f"over {low}"
        if is_coloured(console):
            text.append(" ").append(f" {said} ", _style(level, False, theme))
        else:
            text.append(f"  {BLOCKS[level]} {said}".rstrip())
    mark = ("sample", _style(0, True, theme)) if is_coloured(console) else f"{SAMPLE} sample"
    return text.append("  ").append_text(Text.assemble(mark))


def _heading(trajectory: "ExplainedTrajectory", scored: "Scored") -> str:
    threshold = scored.select.get("threshold")
    over = "" if threshold is None else f" (KL over {threshold:.3g} nats)"
    least = scored.score.get("alpha_min")
    stored = "pi_E is largest" if least is None else f"pi_E >= {least:g} max pi_E"
    return (
        f"{printable(trajectory.id)}: {len(trajectory.samples):,} of {len(trajectory.steps):,} "
        f"steps are samples{over}\n"
        f"probabilities are stored where {stored}"
    )


def _print_samples(samples: Sequence["Step"], console: "Console") -> None:
    rows = [
        (
            str(step.index),
            alone(step.token.text),
            f"{step.kl:.2f}",
            _listed((each, each.expert) for each in step.by_expert(TOP)),
            _amateur(step),
            _listed((each, each.weight) for each in step.label()[:TOP]),
        )
        for step in samples
    ]
    text = ("token", "expert", "amateur", "label")
    console.print()
    print_table(rich_table(("step", "token", "KL", *text[1:]), rows, text), console)


def _amateur(step: "Step") -> str:
    said = _listed((each, each.amateur) for each in step.by_amateur(TOP))
    if step.amateur_elsewhere is None:
        return said
    first = f"{alone(step.amateur_elsewhere.text)} (not stored)"
    return f"{first}, {said}" if said else first


def _listed(rows: "Iterable[tuple[Candidate, float | None]]") -> str:
    return ", ".join(f"{percent(share or 0)} {alone(each.token.text)}" for each, share in rows)


def _text(step: "Step") -> str:
    """A token in running text: one line, its line breaks as marks."""
    return printable(step.token.text.replace("\n", "⏎"))


def alone(text: str) -> str:
    """A token by itself: its spaces and line breaks as marks."""
    return printable(text.replace(" ", "␣").replace("\n", "⏎"))


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
