"""How numbers and tables read, with values worked by hand."""

import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lightreasoner import formatting
from lightreasoner.formatting import NONE

BASE = {
    "accuracy": 0.138, "ci95": [0.11055, 0.17096], "problems": 1500, "n": 1500,
    "truncated": 15, "no_answer": 0, "no_box": 750, "qwen": {"accuracy": 0.14, "ci95": [0.1, 0.2]},
}  # fmt: skip
TUNED = {**BASE, "accuracy": 0.764, "ci95": [0.7249, 0.7992]}
PAIRED = {
    "difference": 0.626, "ci95": [0.5841, 0.67], "gained": 1316, "lost": 3, "p_holm": 3.04e-89,
}  # fmt: skip
TABLES = {
    "scores": {"base": {"tuned": BASE}, "lightreasoner": {"tuned": TUNED}},
    "paired": {"tuned": PAIRED},
}


def test_shares_and_their_intervals_are_in_percent() -> None:
    assert formatting.percent(0.0625) == "6.2%"  # a tie goes to the even digit
    assert formatting.percent(None) == NONE
    assert formatting.interval((0.11055, 0.17096)) == "11.1-17.1"
    assert formatting.accuracy(TUNED) == "76.4% (72.5-79.9)"


def test_differences_are_in_points_and_signed() -> None:
    assert formatting.points(-0.0314) == "-3.1"
    assert formatting.points(0.0) == "+0.0"
    assert formatting.points_interval((-0.25, 0.875)) == "-25.0 to +87.5"
    assert formatting.difference(PAIRED) == "+62.6 (+58.4 to +67.0)"


def changed(base: float, tuned: float, ci95: tuple[float, float], p: float) -> dict[str, object]:
    """A report of one set of 200 problems."""
    scores = {
        method: {"tuned": {"accuracy": accuracy, "problems": 200, "n": 200}}
        for method, accuracy in (("base", base), ("lightreasoner", tuned))
    }
    paired = {"difference": tuned - base, "ci95": ci95, "p_holm": p}
    return {"scores": scores, "paired": {"tuned": paired}}


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (
            TABLES,
            "Accuracy on the set tuned rises from 13.8% to 76.4%: +62.6 points "
            "(95% interval +58.4 to +67.0, n 1,500, seed 42).",
        ),
        (
            changed(0.5, 0.25, (-0.35, -0.15), 1e-4),
            "Accuracy on the set tuned falls from 50.0% to 25.0%: -25.0 points "
            "(95% interval -35.0 to -15.0, n 200, seed 42).",
        ),
        (
            changed(0.5, 0.52, (-0.03, 0.07), 0.5),
            "A change of accuracy on the set tuned is not shown: from 50.0% to 52.0%, +2.0 points "
            "(95% interval -3.0 to +7.0, p 0.5, n 200, seed 42).",
        ),
        (
            changed(0.5, 0.5, (0.0, 0.05), 1.0),
            "A change of accuracy on the set tuned is not shown: from 50.0% to 50.0%, +0.0 points "
            "(95% interval +0.0 to +5.0, p 1, n 200, seed 42).",
        ),
        (
            changed(0.5, 0.52, (0.005, 0.04), 0.125),
            "A change of accuracy on the set tuned is not shown: from 50.0% to 52.0%, +2.0 points "
            "(95% interval +0.5 to +4.0, p 0.12, n 200, seed 42).",
        ),
    ],
    ids=["gain", "loss", "not shown", "an end at 0", "four problems gained, none lost"],
)
def test_the_headline_claims_what_is_shown(report: dict[str, object], sentence: str) -> None:
    """Four problems gained and none lost: an interval over 0, but McNemar's p is 2 / 2 ** 4."""
    assert formatting.headline(report, 42, None, "cot") == sentence
    said = formatting.headline(report, 42, "none", "cot")
    assert said == (
        f"{sentence} The gain over the base holds what their prompts bring, too (none, then cot)."
    )


def test_the_headline_is_of_the_first_set_and_counts_problems() -> None:
    """Three responses to each of 500 problems; the second set is in the table."""
    several = {**TUNED, "problems": 500}
    scores = {"tuned": several, "transfer": TUNED}
    report = {
        "scores": {"base": scores, "lightreasoner": scores},
        "paired": {"transfer": {}, "tuned": PAIRED},
    }
    found = formatting.headline(report, 7, "cot", "cot")
    assert found.startswith("Accuracy on the set tuned rises from 76.4%")
    assert "n 500 x 3, seed 7)" in found


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "–"), (0.0, "0.0%"), (0.0004, "<0.1%"), (0.0006, "0.1%"), (0.5, "50.0%"),
        (0.9994, "99.9%"), (0.9996, ">99.9%"), (1.0, "100.0%"),
    ],
)  # fmt: skip
def test_probabilities_are_not_rounded_to_certainty(share: float | None, text: str) -> None:
    assert formatting.probability(share) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1.0, "1"),
        (0.0312, "0.031"),
        (0.001, "0.001"),
        (0.00099, "9.9 × 10⁻⁴"),
        (3.14e-28, "3.1 × 10⁻²⁸"),
        (0.0, "< 10⁻³⁰⁰"),
    ],
)
def test_p_values_have_two_digits(p: float, text: str) -> None:
    assert formatting.p_value(p) == text


def test_measurements_have_three_digits() -> None:
    assert [formatting.number(value) for value in (0.16612, 1.99, None)] == ["0.166", "1.99", NONE]


def test_the_accuracy_table() -> None:
    (row,) = formatting.accuracy_rows(TABLES)
    assert dict(zip(formatting.ACCURACY_HEADINGS, row, strict=True)) == {
        "problem set": "tuned",
        "n": "1,500",
        "base (strict, 95% CI)": "13.8% (11.1-17.1)",
        "LightReasoner (strict, 95% CI)": "76.4% (72.5-79.9)",
        "gain, points (strict, 95% CI)": "+62.6 (+58.4 to +67.0)",
        "gained/lost (strict)": "1,316/3",
        "paired p (strict, Holm)": "3.0 × 10⁻⁸⁹",
        "gain that shows (80% power)": "+6.8",
        "base (qwen)": "14.0%",
        "LightReasoner (qwen)": "14.0%",
    }


@pytest.mark.parametrize("headings", [formatting.ACCURACY_HEADINGS, formatting.EVALUATION_HEADINGS])
def test_each_column_has_a_name_of_its_own(headings: tuple[str, ...]) -> None:
    assert len(set(headings)) == len(headings)


def test_an_evaluations_table() -> None:
    (row,) = formatting.evaluation_rows({"tuned": TUNED})
    strict, qwen = "76.4% (72.5-79.9)", "14.0% (10.0-20.0)"
    assert row == ("tuned", "1,500", strict, qwen, "1.0%", "0.0%", "50.0%")


def test_an_evaluation_of_several_responses_counts_problems() -> None:
    """Two problems of eight responses: 4 of 16 truncated, 8 without a box."""
    verdict = {"accuracy": 0.5, "ci95": [0.2, 0.8], "pass_at": {"2": 0.75}, "maj_at": {"8": 0.5}}
    ended = {"truncated": 4, "no_answer": 0, "no_box": 8}
    scores = {"tuned": {"problems": 2, "n": 16, **verdict, **ended, "qwen": verdict}}
    (row,) = formatting.evaluation_rows(scores)
    both = 2 * ("50.0% (20.0-80.0), pass@2 75.0%, maj@8 50.0%",)
    assert row == ("tuned", "2 x 8", *both, "25.0%", "0.0%", "50.0%")


def test_two_prompts_are_told() -> None:
    report = {"styles": {"base": "cot", "lightreasoner": "cot"}, "drift": {}, "samples": {}}
    assert formatting.result_notes(report) == []
    styles = {"base": "cot", "lightreasoner": "chat"}
    (note,) = formatting.result_notes({**report, "styles": styles})
    assert "style cot, LightReasoner under chat: the gain holds what the prompt changes" in note
    (note,) = formatting.result_notes({**report, "drift": {"drift": 0.0312, "top1_kept": 0.985}})
    assert note == (
        "On held-out steps that were not taught the model moved by 0.0312 nats and kept its "
        "likeliest token at 98.5% of them."
    )
    (note,) = formatting.result_notes({**report, "samples": {"warning": "too little"}})
    assert note == "Warning: too little."


def test_a_markdown_table() -> None:
    assert formatting.markdown_table(("set", "n"), [("a", "1"), ("b", "20")]) == (
        "| set | n |\n| --- | ---: |\n| a | 1 |\n| b | 20 |"
    )


def printed(*columns: str, text: tuple[str, ...] | None = None, width: int = 40) -> list[str]:
    file = io.StringIO()
    table = formatting.rich_table(columns, [["x" * 30, "1", "2"]], text)
    formatting.print_table(table, Console(file=file, width=width))
    return file.getvalue().splitlines()


def test_a_table_in_the_terminal_is_as_wide_as_it_is() -> None:
    """30 + 2 + 8 + 2 + 3 characters, on a terminal of 40 as on a wide one."""
    lines = printed("set", "gain (95% CI)", "n (a)")
    assert lines == [
        f"{'':30}      gain    n",
        f"{'set':30}  (95% CI)  (a)",
        f"{'x' * 30}         1    2",
    ]
    assert printed("set", "gain (95% CI)", "n (a)", width=45) == lines


def test_columns_of_text_are_to_the_left() -> None:
    _, row = printed("n", "verdict", "p", text=("verdict",))
    assert row == f"{'x' * 30}  1        2"


@given(st.lists(st.text("ab ([/]", max_size=30), min_size=1, max_size=12))
def test_no_cell_is_ever_cut(cells: list[str]) -> None:
    file = io.StringIO()
    table = formatting.rich_table([str(index) for index in range(len(cells))], [cells])
    formatting.print_table(table, Console(file=file, width=20))
    said = file.getvalue()
    assert "…" not in said
    assert all(cell.strip() in said for cell in cells)


def test_it_loads_nothing_heavy() -> None:
    program = (
        "import sys; from lightreasoner import formatting\n"
        "print([name for name in ('torch', 'scipy', 'matplotlib', 'pandas', 'rich', 'jinja2')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"),
     (1_449_000_000, "1.4 GB"), (14.2e15, "14,200.0 TB")],
)  # fmt: skip
def test_sizes_read_as_disks_are_sold(size: float, said: str) -> None:
    assert formatting.byte_count(size) == said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Steps with KL(expert ‖ amateur) above 0.4 nats became samples. A sample's label"),
        ({"quantile": 0.9, "threshold": 1.7}, "above 1.7 nats, quantile 0.9 of all steps, became"),
        ({"threshold": None}, "Every step became a sample. A sample's label lies on"),
        ({"without_first_steps": True}, "became samples, but for first steps. A sample's"),
        ({}, "at least α = 0.2 of the expert's largest probability; it is the contrast's softmax"),
        ({"label": "expert"}, "it is the expert's own distribution there: no contrast."),
    ],
)
def test_a_selection_says_what_applied(changes: dict[str, object], said: str) -> None:
    samples = {"threshold": 0.4, "alpha": 0.2, "label": "contrast", "without_first_steps": False}
    assert said in formatting.selection(samples | changes)
    assert "α" not in formatting.selection(samples | changes | {"label": "one_hot"})
