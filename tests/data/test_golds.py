r"""Gold answers out of what rows have as their answers: read, or refused; nothing in between."""

import contextlib
import json
from pathlib import Path
from typing import Any

import json_lines
import pytest
from command_line import call, faults
from hypothesis import given
from hypothesis import strategies as st
from test_benchmarks import ASDIV, MATH, OLYMPIAD, SVAMP
from test_grade_cli import SHARED, write

from lightreasoner.data import golds, reading
from lightreasoner.data.problems import Problem
from lightreasoner.errors import ProblemsError
from lightreasoner.pipeline.store import read_curves

READ = [
    # the last marker; what stands behind its line is no part of the answer
    ("3+4=7\n#### 7", "7", "marker"),
    ("3+4=7\n#### 7\nSo he has seven.", "7", "marker"),
    ("#### 5\nNo, wait.\n#### 7", "7", "marker"),
    ("so 110\n#### 110\nThe answer is: 110", "110", "marker"),
    ("so 1000\n#### 1,000\nThe answer is 1000.", "1,000", "marker"),
    ("####\n7", "7", "marker"),
    (r"#### $\boxed{7}$", "7", "marker"),
    ("#### Answer: 7 pens", "7 pens", "marker"),
    ("#### Final answer\nThe answer is 7.", "7", "marker"),
    ("#### The men's track team", "The men's track team", "marker"),
    ("#### yes\nBecause it is even.", "yes", "marker"),
    # a box
    (r"3+4=7. So \boxed{7}", "7", "box"),
    (r"So $x = \boxed {\frac{1}{2}}$, which is \fbox{\frac{1}{2}}.", r"\frac{1}{2}", "box"),
    (r"The answer is \boxed{\{1, 2\}}. It is a set.", r"\{1, 2\}", "box"),
    # a label
    ("3+4=7\nA: 7", "7", "label"),
    ("3+4=7. The answer is: 7", "7", "label"),
    ("The answer is 7. So he has seven.", "7", "label"),
    ("The final answer is $7$.", "$7$", "label"),
    ("**Answer:** 7", "7", "label"),
    ("**Answer: 7**", "7", "label"),
    ("ANSWER = 7.5", "7.5", "label"),
    ("Answer:\n\n7 pens", "7 pens", "label"),
    ("A: 7", "7", "label"),
    ("The answer is B. It has the most sides.", "B", "label"),
    ("The answer is Mrs. Doyle's class.", "Mrs. Doyle's class", "label"),
    ("答案是 7", "7", "label"),
    (
        "5 answers * 2 points/answer = <<5*2=10>>10 points. The answer is <<10=10>>10.",
        "10",
        "label",
    ),
    ("Of types A and B. Take both.\nA: 7", "7", "label"),
    # a list of one
    ("['7']", "7", "list"),
    ('["7"]', "7", "list"),
    (r'["\\frac{1}{2}"]', r"\frac{1}{2}", "list"),
    (r"['\frac{1}{2}']", r"\frac{1}{2}", "list"),
]

ALONE = [
    *(
        "7",
        "-7.50",
        "7,000",
        "1e-05",
        "$7$",
        "7.",
        "7 pens",
        "70%",
        "3:30 p.m.",
        "x=7",
        "x = 3 + 4",
    ),
    *("B", "(B)", "B) 7", "B: 7", "A", "Yes", "true", "east", "seven", "None of these"),
    *("(1, 2)", "[1, 2)", "[7]", "[1, 2]", r"\{1, 2\}", "1, 2 and 3", "{a, b}"),
    *(
        r"\frac{1}{2}",
        r"\text{even}",
        r"f(x)=a x+b$, where $b$ is an arbitrary integer",
        "2^{10}",
        "SO(3)",
    ),
    "\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}\n\\text{or so}",
    *("The 60th caller.", "They are equal", "Mrs. Doyle's class", "The men's track team"),
    *("11:55 p.m. on 24 December 2014.", "9 p.m. Monday", "All integers greater than 2."),
    *("Alice is a knight, and Bob is a knave.", "1 2 3\n4 5 6", "$-3<x<4$", "10/12", "n = 10/2"),
    *("3x + 4y = 12", r"2\pi r + 3 = 7", "x^2 + y^2 = 4", "y = 3x - 1", r"\sin 30 + t = 2"),
]

REFUSED = [
    ("####", "it is empty"),
    ("2+2 is\n####\n", "it is empty"),
    ("#### Step 3\n3+4=7", "'Step 3' behind #### is no answer, and none follows"),
    ("#### Conclusion\nHe has seven.", "'Conclusion' behind #### is no answer"),
    ("#### 7\nThe answer is 8.", "it states '7' and '8'"),
    ("#### So he has 7 pens.", "a solution that marks no answer"),
    (r"\boxed{3} or \boxed{5}", "it states '3' and '5'"),
    (r"So \boxed{7", "its box does not end"),
    (r"So $\boxed 7$", "its box has no braces"),
    (r"So \boxed{}.", "it is empty"),
    ("The answer is 5 for Ann. The answer is 7 for Bob", "it states '5 for Ann' and '7 for Bob'"),
    ("x" * 1001, "it has 1001 characters, over 1000"),
    ("The answer is that he has 7 pens.", "a solution that marks no answer"),
    ("The answer is 7 because 3 and 4 make 7", "a solution that marks no answer"),
    ("A: 7\nB: 8", "A: may name an option"),
    ("['3', '5']", "a list of several answers"),
    ("['3' '5']", "a list of several answers"),
    ("3+4=7", "a solution that marks no answer"),
    ("3 + 4 = <<3+4=7>>7", "a solution that marks no answer"),
    ("The answer is 3 bags * 4 pens/bag = 12 pens", "a solution that marks no answer"),
    ("$48 / 2 = $24", "a solution that marks no answer"),
    ("He has 7 pens left.", "a solution that marks no answer"),
    ("So he has seven.", "a solution that marks no answer"),
    ("He had three. He got four. That makes 7", "a solution that marks no answer"),
    ("He had three\nHe got four\n7", "a solution that marks no answer"),
]


@pytest.mark.parametrize(("text", "answer", "how"), READ)
def test_a_worked_solution_gives_its_answer(text: str, answer: str, how: str) -> None:
    found = golds.parse_gold(text)
    assert (found.answer, found.how) == (answer, how)


@pytest.mark.parametrize("text", ALONE)
def test_an_answer_alone_stays_as_it_is(text: str) -> None:
    assert golds.parse_gold(text) == golds.Gold(text, "given")
    assert (
        golds.parse_gold(f"because\n#### {text.partition(chr(10))[0]}").answer
        == text.partition("\n")[0]
    )


@pytest.mark.parametrize(("text", "why"), REFUSED)
def test_what_states_no_answer_or_several_is_refused(text: str, why: str) -> None:
    with pytest.raises(ProblemsError, match=r"\Ax:1: no gold answer can be read, got ") as caught:
        reading.from_row({"question": "q?", "answer": text}, "x/1", "x:1")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_of_the_question_is_no_label() -> None:
    row = {"question": "How many? A: 7 B: 8", "answer": "A: 7"}
    with pytest.raises(ProblemsError, match="A: may name an option"):
        reading.from_row(row, "x/1", "x:1")
    assert reading.from_row(row | {"question": "How many?"}, "x/1", "x:1").answer == "7"


@pytest.mark.parametrize(
    ("answer", "solution"),
    [
        ("3+4=7\n#### 7\nSo he has seven.", "3+4=7"),
        (r"3+4=7. So \boxed{7}", r"3+4=7. So \boxed{7}"),
        ("3+4=7\nA: 7", "3+4=7\nA: 7"),
        (r"So $\boxed{7}$", "It is."),
        ("The answer is 7", "It is."),
        ("#### 7", "It is."),
        ("7", "It is."),
    ],
)
def test_the_working_is_the_solution(answer: str, solution: str) -> None:
    row = {"question": "q?", "answer": answer, "solution": "It is."}
    assert reading.from_row(row, "x/1", "x:1") == Problem("x/1", "q?", "7", solution)


def test_a_long_text_takes_no_time() -> None:
    """Milliseconds; a minute would end the test."""
    for part in (
        "It is 7. ",
        "7 + ",
        "12",
        "is 7 ",
        "A: \\boxed{",
        "####",
        "['",
        "answer is ",
        "answer is 7. So ",
    ):
        with contextlib.suppress(ValueError):
            golds.parse_gold(part * 5000)


@given(st.integers() | st.decimals(allow_nan=False, allow_infinity=False))
def test_a_number_stays_as_it_is(number: Any) -> None:
    assert golds.parse_gold(str(number)) == golds.Gold(str(number), "given")


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("svamp", SVAMP | {"Answer": "3+4=7\n#### 7\nSo seven."}),
        ("asdiv", ASDIV | {"answer": "3+4=7 (pens). The answer is 7 (pens)."}),
        ("olympiadbench", OLYMPIAD | {"final_answer": [r"So $n=\boxed{7}$"]}),
        ("math", MATH | {"solution": "The answer is: 7."}),
        ("gsm8k", {"question": "q?", "answer": "3+4=7\nA: 7"}),
        ("any other", {"question": "q?", "answer": "['7']"}),
    ],
)
def test_every_layout_is_read_so(name: str, record: dict[str, Any]) -> None:
    assert reading.problem_of_row(name, record, "in:1").answer == "7"


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("svamp", SVAMP | {"Answer": "He has 7 pens."}),
        ("asdiv", ASDIV | {"answer": "3+4=7"}),
        ("olympiadbench", OLYMPIAD | {"final_answer": [r"\boxed{1}, \boxed{2}"]}),
        ("math", MATH | {"solution": "The answer is 7. So he has seven."}),
    ],
)
def test_every_layout_is_refused_so(name: str, record: dict[str, Any]) -> None:
    with pytest.raises(ProblemsError, match=r"in:1: no gold answer can be read"):
        reading.problem_of_row(name, record, "in:1")


def test_grade_reads_them_and_says_how(tmp_path: Path) -> None:
    texts = ["3\n#### 7\nSo seven.", "3\nA: 7", "3. The answer is: 7", r"3. So \boxed{7}", "7"]
    rows = [
        {"benchmark": "b", "record": {"question": "q?", "answer": text}, "response": r"\boxed{7}"}
        for text in texts
    ]
    source, out = write(tmp_path / "in.jsonl", *rows), tmp_path / "out.jsonl"
    result = call("grade", str(source), str(out))
    assert result.exit_code == 0, result.stderr
    assert {(row["gold"], row["qwen"], row["strict"]) for row in json_lines.read(out)} == {
        ("7", "correct", "correct")
    }
    said = "2 behind `the answer is` or the like, 1 behind ####, 1 in a box, 1 as given"
    assert f"{source}: gold answers: {said}" in result.stderr
    write(source, *rows, rows[0] | {"record": {"question": "q?", "answer": "3+4=7"}})
    (line,) = faults(call("grade", str(source), str(out)))
    assert line.startswith(f"{source}:6: no gold answer can be read, got '3+4=7'")


def test_prepare_counts_them_where_the_manifest_is(tmp_path: Path) -> None:
    """Beside the result, so that its digest is that of the problems alone."""
    rows = [{"question": f"{n}?", "answer": a} for n, a in enumerate(("#### 7", "#### 8", "A: 9"))]
    source = write(tmp_path / "mine.jsonl", *rows)
    settings = ("--set", f"prepare.source={source}", "--set", "prepare.n_problems=null")
    home = ("--home", str(tmp_path / "home"), "--out", str(tmp_path / "out"))
    result = call("prepare", *settings, *home)
    assert result.exit_code == 0, result.stderr
    assert "gold answers: 2 behind ####, 1 behind `the answer is` or the like" in result.stderr
    (manifest,) = (tmp_path / "home").glob("store/**/manifest.json")
    points = {point["name"]: point["value"] for point in read_curves(manifest.parent)}
    assert points == {"gold_answers/marker": 2, "gold_answers/label": 1}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["problems.jsonl"]


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="needs the judged cases")
def test_the_judged_worked_solutions() -> None:
    text = (SHARED / "cases/files/gold/worked_solution.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    read = [reading.problem_of_row(row["benchmark"], row["record"], "x") for row in rows]
    assert [problem.answer for problem in read] == ["7"] * len(rows)
