"""How numbers and tables read: in the terminal, on pages and cards, in Prefect and in Markdown.

Takes fractions and says percent or points; intervals are of 95% and stand behind their value. What
programs read is written elsewhere, in full.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightreasoner.statistics import detectable_gain
from lightreasoner.untrusted import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Score = Mapping[str, Any]
"""`accuracy` or `difference` and its `ci95`, fractions."""

NONE = "–"
"""Where there is no number."""

SHOWN = 0.05
"""The largest p, corrected for the number of sets, at which a change is called one."""

WIDEST = 1000  # characters of a line that a table may take
HEADING = 30  # characters of a line, at most, for a heading before its cell

ACCURACY_HEADINGS = (
    "problem set", "n", "base (strict, 95% CI)", "LightReasoner (strict, 95% CI)",
    "gain, points (strict, 95% CI)", "gained/lost (strict)", "paired p (strict, Holm)",
    "gain that shows (80% power)", "base (qwen)", "LightReasoner (qwen)",
)  # fmt: skip
EVALUATION_HEADINGS = (
    "problem set", "n", "accuracy (strict, 95% CI)", "accuracy (qwen, 95% CI)",
    "truncated", "no answer", "no box",
)  # fmt: skip
ENDS = ("truncated", "no_answer", "no_box")

_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def percent(share: float | None) -> str:
    """`76.4%` of 0.764."""
    return NONE if share is None else f"{share:.1%}"


def interval(ends: Sequence[float]) -> str:
    """`72.5-79.9`: an interval of shares, in percent."""
    low, high = ends
    return f"{100 * low:.1f}-{100 * high:.1f}"


def accuracy(score: Score) -> str:
    """`76.4% (72.5-79.9)`."""
    return f"{percent(score['accuracy'])} ({interval(score['ci95'])})"


def points(change: float) -> str:
    """`+62.6` of 0.626: a difference of shares, in percentage points."""
    return f"{100 * change:+.1f}"


def points_interval(ends: Sequence[float]) -> str:
    """`+58.4 to +67.0`: an interval of differences, in percentage points."""
    low, high = ends
    return f"{points(low)} to {points(high)}"


def difference(score: Score) -> str:
    """`+62.6 (+58.4 to +67.0)`, percentage points."""
    return f"{points(score['difference'])} ({points_interval(score['ci95'])})"


def probability(share: float | None) -> str:
    """As `percent`, but what is neither 0 nor 1 is not rounded to them."""
    if share is not None and 0 < share < 0.0005:
        return "<0.1%"
    if share is not None and 0.9995 <= share < 1:
        return ">99.9%"
    return percent(share)


def p_value(p: float) -> str:
    """`0.031`, `3.1 × 10⁻²⁸`: two digits, small ones as powers of ten."""
    if p >= 0.001:
        return f"{p:.2g}"
    if p == 0:
        return "< 10⁻³⁰⁰"
    digits, _, exponent = f"{p:.1e}".partition("e")
    return f"{digits} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def number(value: float | None) -> str:
    """Three digits of a measurement."""
    return NONE if value is None else f"{value:,.3g}"


def selection(samples: Mapping[str, Any]) -> str:
    """In words: which steps became samples, and what their labels are.

    `samples` are those of a report's tables.json, or have their `threshold` (nats; None for every
    step), `quantile` if it set the threshold, `without_first_steps`, `label` and `alpha`.
    """
    first = ", but for first steps" if samples["without_first_steps"] else ""
    return f"{_kept(samples)}{first}. A sample's label {_label(samples)}."


def _kept(samples: Mapping[str, Any]) -> str:
    if samples["threshold"] is None:
        return "Every step became a sample"
    quantile = samples.get("quantile")
    by = "" if quantile is None else f", quantile {quantile:g} of all steps,"
    least = number(samples["threshold"])
    return f"Steps with KL(expert ‖ amateur) above {least} nats{by} became samples"


def _label(samples: Mapping[str, Any]) -> str:
    if samples["label"] == "one_hot":
        return "is the token that the expert wrote: no contrast"
    is_contrast = samples["label"] == "contrast"
    return (
        f"lies on the tokens that have at least α = {samples['alpha']} of the expert's largest "
        "probability; it is the "
        + ("contrast's softmax there (v_C)" if is_contrast
           else "expert's own distribution there: no contrast")
    )  # fmt: skip


def byte_count(size: float) -> str:
    """`1.4 GB` of 1,400,000,000 bytes."""
    if size < 1000:
        return f"{size:.0f} B"
    power = min(next(n for n in range(1, 9) if size < 999.95 * 1000**n), 4)
    return f"{size / 1000**power:,.1f} {'kMGT'[power - 1]}B"


def headline(tables: Mapping[str, Any], seed: int, base_style: str | None, style: str) -> str:
    """The result in a sentence: the change of accuracy on the first set, where it is shown; in
    another, whether the prompts differ.

    That is where the interval leaves 0 out and p is small, too: of few changed problems the
    interval alone says too much (statistics.py). `tables` as for `accuracy_rows`; `seed` drew the
    problems.
    """
    name, tuned = next(iter(tables["scores"]["lightreasoner"].items()))
    base, paired = tables["scores"]["base"][name], tables["paired"][name]
    gain, (low, high), p = paired["difference"], paired["ci95"], paired["p_holm"]
    ends = f"from {percent(base['accuracy'])} to {percent(tuned['accuracy'])}"
    change = f"{points(gain)} points (95% interval {points_interval((low, high))}"
    asked = f"n {tuned['problems']:,}{_per_problem(tuned)}, seed {seed})."
    if low <= 0 <= high or p > SHOWN:
        unshown = f"A change of accuracy on the set {name} is not shown: {ends}"
        said = f"{unshown}, {change}, p {p_value(p)}, {asked}"
    else:
        verb = "rises" if gain > 0 else "falls"
        said = f"Accuracy on the set {name} {verb} {ends}: {change}, {asked}"
    return said + differing_prompts(base_style, style)


def differing_prompts(base: str | None, tuned: str) -> str:
    """What a difference of accuracies says less, where the base was asked in another prompt style;
    else nothing. A base without a style of its own has the tuned model's."""
    if base in (None, tuned):
        return ""
    return f" The gain over the base holds what their prompts bring, too ({base}, then {tuned})."


def accuracy_rows(tables: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row per problem set, under ACCURACY_HEADINGS; n counts problems.

    `tables` is the report stage's tables.json. p is corrected for the number of sets.
    """
    base, tuned = tables["scores"]["base"], tables["scores"]["lightreasoner"]
    return [_accuracy_row(name, base[name], tuned[name], tables["paired"][name]) for name in tuned]


def _accuracy_row(name: str, base: Score, tuned: Score, paired: Score) -> tuple[str, ...]:
    return (
        name,
        f"{tuned['problems']:,}",
        accuracy(base),
        accuracy(tuned),
        difference(paired),
        f"{paired['gained']:,}/{paired['lost']:,}",
        p_value(paired["p_holm"]),
        gain_that_shows(tuned["problems"], paired["gained"] + paired["lost"]),
        percent(base["qwen"]["accuracy"]),
        percent(tuned["qwen"]["accuracy"]),
    )


def gain_that_shows(n: int, changed: int) -> str:
    """The smallest gain, in points, that n problems show where `changed` of them change."""
    gain = detectable_gain(n, changed / n)
    return NONE if gain is None else points(gain)


def evaluation_rows(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row per problem set, under EVALUATION_HEADINGS; `scores` is evaluate's summary.json.

    n counts problems, and says how many responses each has where that is not one.
    """
    return [
        (
            name,
            f"{score['problems']:,}{_per_problem(score)}",
            accuracy(score) + _of_several(score),
            accuracy(score["qwen"]) + _of_several(score["qwen"]),
            *(percent(score[end] / score["n"]) for end in ENDS),
        )
        for name, score in scores.items()
    ]


def _per_problem(score: Score) -> str:
    return f" x {score['n'] // score['problems']}" if score["n"] > score["problems"] else ""


def _of_several(score: Score) -> str:
    """`, pass@2 81.0%, maj@4 79.0%` where a problem has several responses."""
    return "".join(
        f", {label}@{k} {percent(share)}"
        for label, key in (("pass", "pass_at"), ("maj", "maj_at"))
        for k, share in score.get(key, {}).items()
    )


def result_notes(report: Mapping[str, Any]) -> list[str]:
    """What else the accuracies of a report need to be read, a sentence each."""
    warned = report["samples"].get("warning")
    return [
        *prompt_notes(report["styles"]),
        *_drift_notes(report["drift"]),
        *([f"Warning: {warned}."] if warned else []),
    ]


def prompt_notes(styles: Mapping[str, str]) -> list[str]:
    """Where base and tuned model had different prompts."""
    base, tuned = styles["base"], styles["lightreasoner"]
    if base == tuned:
        return []
    return [
        f"The base was asked under the prompt style {base}, LightReasoner under {tuned}: the gain "
        "holds what the prompt changes, too; `lightreasoner table1` takes it apart."
    ]


def _drift_notes(drift: Mapping[str, float | None]) -> list[str]:
    """How far the model moved where it was not taught, if that was read."""
    if drift.get("drift") is None:
        return []
    return [
        f"On held-out steps that were not taught the model moved by {number(drift['drift'])} nats "
        f"and kept its likeliest token at {percent(drift['top1_kept'])} of them."
    ]


def markdown_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[str] | None = None
) -> str:
    """A Markdown table. The columns `text`, or else the first one, are to the left, all others to
    the right."""
    left = headings[:1] if text is None else text
    rule = ["---" if heading in left else "---:" for heading in headings]
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, rule, *rows))


def rich_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[str] | None = None
) -> "Table":
    """A table for the terminal; a heading's brackets stand below it.

    The columns `text`, or else the first one, are to the left, all others to the right.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        is_text = heading in (headings[:1] if text is None else text)
        lines = Text(heading.replace(" (", "\n("))
        table.add_column(lines, justify="left" if is_text else "right", overflow="fold")
    for row in rows:
        # A name in square brackets is no markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def print_table(table: "Table", console: "Console | None" = None, widest: int = WIDEST) -> None:
    """Print a table, to stdout if no console is given.

    On a terminal that is too narrow for it each row is a block, a cell behind its column's heading;
    elsewhere lines are as long as the table is wide, up to `widest` characters.
    """
    from rich.console import Console

    console = console or Console()
    width = console.measure(table, options=console.options.update(width=WIDEST)).maximum
    if console.is_terminal and width > console.width:
        table = _blocks(table)
    else:
        console.width = max(console.width, min(width, widest))
    console.print(table, crop=False)


def _blocks(table: "Table") -> "Table":
    """The same cells in two columns; an empty line after each row."""
    from rich.table import Table
    from rich.text import Text

    blocks = Table(box=None, pad_edge=False, show_header=False)
    blocks.add_column(style="bold", overflow="fold", max_width=HEADING)
    blocks.add_column(overflow="fold")
    for row in zip(*(column.cells for column in table.columns), strict=True):
        for column, cell in zip(table.columns, row, strict=True):
            blocks.add_row(*(Text(str(each).replace("\n", " ")) for each in (column.header, cell)))
        blocks.add_row()
    return blocks
