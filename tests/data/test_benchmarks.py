r"""The toolkit's rows: question and gold answer of each benchmark, its demos, what is refused."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import json_lines
import pytest
from checkout import SHARED

from lightreasoner.config import PromptStyle
from lightreasoner.data import demos, sources
from lightreasoner.data.benchmarks import BENCHMARKS
from lightreasoner.data.problems import Demo, Problem
from lightreasoner.errors import ProblemsError
from lightreasoner.inference import prompts
from lightreasoner.qwen_math import toolkit

"""Where the toolkit's files and the digests of its prompts are, on machines that have them."""

SVAMP = {"Body": "Ed has 5 figs ", "Question": " How many figs? ", "Answer": 5.0, "ID": "chal-1"}
ASDIV = {"body": " Two and 7. ", "question": " How many in all? ", "answer": "9 (apples)"}
MATH = {"problem": "What is $1+1$?", "solution": r"$1+1=\boxed{\frac{4}{2}}$.", "level": 2}
OLYMPIAD = {"context": "Unread.", "question": "Find $n$.\n", "final_answer": ["$2n$", "3"]}
MMLU = {"question": "Which? ", "choices": [" a", 1, "c ", "d"], "answer": 2}
DEMOS = [[f"q{n}\rx", f"a{n}\fy"] for n in range(5)]


def put(directory: Path, name: str, *rows: dict[str, Any]) -> str:
    """Write a set in the toolkit's layout; the source."""
    (directory / name).mkdir()
    json_lines.write(directory / name / "test.jsonl", rows)
    return str(directory)


def read(source: str, name: str) -> list[Problem]:
    return sources.draw_problems(source, name, "test", None, seed=0)


@pytest.mark.parametrize(
    ("name", "row", "question", "gold"),
    [
        # gsm8k's rows are {question, answer}
        ("gsm8k", {"question": "How many?", "answer": "2+2=4\n#### 4"}, "How many?", "4"),
        # a body without its full stop gets one; a number stays as written
        ("svamp", SVAMP, "Ed has 5 figs. How many figs?", "5.0"),
        ("svamp", SVAMP | {"Body": "He ran."}, "He ran. How many figs?", "5.0"),
        # groups in parentheses are units, wherever they stand
        ("asdiv", ASDIV, "Two and 7. How many in all?", "9"),
        ("asdiv", ASDIV | {"answer": "3 (a); 4 (b)"}, "Two and 7. How many in all?", "3 ; 4"),
        # the last box, with the braces in it; math500's own `answer` is not read
        ("math", MATH, "What is $1+1$?", r"\frac{4}{2}"),
        ("math500", MATH | {"answer": "7"}, "What is $1+1$?", r"\frac{4}{2}"),
        ("minerva_math", MATH, "What is $1+1$?", r"\frac{4}{2}"),
        # a box without braces, one that never ends, and no box: as the toolkit finds an answer
        ("math", MATH | {"solution": r"It is $\boxed 5$."}, "What is $1+1$?", "5"),
        ("math", MATH | {"solution": r"$\boxed{\frac{1}{2}"}, "What is $1+1$?", r"\frac{1}{2}"),
        ("math", MATH | {"solution": "The answer is\n  12 m."}, "What is $1+1$?", "12 m"),
        ("minerva_math", MATH | {"solution": "That makes 1,200."}, "What is $1+1$?", "1200"),
        # the first answer without its dollars; no context; nothing around the question
        ("olympiadbench", OLYMPIAD, "Find $n$.", "2n"),
        ("olympiadbench", OLYMPIAD | {"final_answer": ["$a$, $b$"]}, "Find $n$.", "a$, $b"),
        # lettered choices on a line of their own; the index is a letter
        ("mmlu_stem", MMLU, "Which?\nAnswer Choices: (A) a (B) 1 (C) c (D) d", "C"),
    ],
)
def test_a_row_becomes_a_question_and_a_gold_answer(
    tmp_path: Path, name: str, row: dict[str, Any], question: str, gold: str
) -> None:
    (problem,) = read(put(tmp_path, name, row), name)
    assert (problem.id, problem.question, problem.answer) == (f"{name}/test/00000", question, gold)


@pytest.mark.parametrize(
    ("answer", "added"),
    [
        ("yes", " (Yes or No)"),
        ("No (it is odd)", " (Yes or No)"),
        ("$Yes$.", " (Yes or No)"),
        ("TRUE", " (True or False)"),
        ("false", " (True or False)"),
        ("yes, 3", ""),
        ("none", ""),
    ],
)
def test_a_choice_of_two_is_named_in_the_question(tmp_path: Path, answer: str, added: str) -> None:
    (problem,) = read(put(tmp_path, "asdiv", ASDIV | {"answer": answer}), "asdiv")
    assert problem.question == "Two and 7. How many in all?" + added


@pytest.mark.parametrize("name", ["math", "minerva_math"])
def test_a_choice_of_two_may_be_typeset(tmp_path: Path, name: str) -> None:
    (problem,) = read(put(tmp_path, name, MATH | {"solution": r"\boxed{\text{Yes}}"}), name)
    assert problem.question == "What is $1+1$? (Yes or No)"


def test_a_worked_solution_is_kept_whole(tmp_path: Path) -> None:
    source = put(tmp_path, "math", MATH)
    assert read(source, "math")[0].solution == MATH["solution"]
    assert read(put(tmp_path, "svamp", SVAMP), "svamp")[0].solution == ""


def test_an_answer_of_which_the_toolkit_leaves_nothing_is_one(tmp_path: Path) -> None:
    """`east` is among its unit words; so is its gold answer in math500."""
    (problem,) = read(put(tmp_path, "math", MATH | {"solution": r"\boxed{\text{east}}"}), "math")
    assert problem.answer == r"\text{east}"
    assert toolkit.gold(problem.answer, "math") == ""


@pytest.mark.parametrize("name", ["gsm8k", *BENCHMARKS])
def test_plain_rows_of_a_benchmarks_name_stay_plain(tmp_path: Path, name: str) -> None:
    """No choice is named, no demo asked for."""
    source = put(tmp_path, name, {"question": "Is it?", "answer": "yes"})
    assert read(source, name) == [Problem(f"{name}/test/00000", "Is it?", "yes", "")]
    assert demos.own(source, name) == []


@pytest.mark.parametrize("name", ["gsm8k", *BENCHMARKS])
def test_problems_as_prepare_writes_them_are_plain_rows(tmp_path: Path, name: str) -> None:
    """They have a solution, as rows of math do in their own layout."""
    source = put(tmp_path, name, asdict(Problem("id", "Is it?", "yes", "It is.")))
    assert read(source, name) == [Problem(f"{name}/test/00000", "Is it?", "yes", "It is.")]


def test_parquet_rows_may_be_in_the_toolkits_layout(tmp_path: Path) -> None:
    import pandas as pd

    (tmp_path / "olympiadbench").mkdir()
    pd.DataFrame([OLYMPIAD]).to_parquet(tmp_path / "olympiadbench" / "test.parquet")
    assert read(str(tmp_path), "olympiadbench")[0].answer == "2n"


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("svamp", {"Body": "x", "Question": " "}, "Question and Answer missing or empty"),
        ("svamp", {"x": 1}, "each row needs Body, Question, Answer, this one has"),
        ("mmlu_stem", MMLU | {"choices": None}, "choices missing or empty"),
        ("mmlu_stem", MMLU | {"choices": ["a"]}, r"choices must be a list of 4, got \['a'\]"),
        ("mmlu_stem", MMLU | {"answer": 4}, "answer must be the index of a choice, 0 to 3, got 4"),
        ("mmlu_stem", MMLU | {"answer": True}, "the index of a choice, 0 to 3, got True"),
        ("olympiadbench", OLYMPIAD | {"final_answer": "2"}, "final_answer must be a list .* '2'"),
        ("olympiadbench", OLYMPIAD | {"final_answer": []}, r"begins with an answer, got \[\]"),
        # no answer anywhere, or nothing but signs
        (
            "minerva_math",
            MATH | {"solution": "Trivial."},
            "no gold answer can be read, got ''",
        ),
        ("minerva_math", MATH | {"solution": r"\boxed{\%}"}, "no gold answer can be read"),
        ("minerva_math", MATH | {"solution": r"So \boxed{}"}, "no gold answer can be read"),
        ("asdiv", ASDIV | {"answer": "(apples)"}, "no gold answer can be read"),
        ("asdiv", ASDIV | {"answer": ["9"]}, r"answer must be text or a number, got \['9'\]"),
        ("svamp", SVAMP | {"Body": "a \ud83d"}, "question has half a surrogate pair"),
        ("olympiadbench", OLYMPIAD | {"final_answer": [r"$\%$"]}, "no gold answer can be read"),
    ],
)
def test_a_broken_record_is_named_with_file_and_line(
    tmp_path: Path, name: str, row: dict[str, Any], message: str
) -> None:
    """The broken row is the second; the first shows the layout."""
    good = {"svamp": SVAMP, "mmlu_stem": MMLU, "olympiadbench": OLYMPIAD, "minerva_math": MATH}
    good["asdiv"] = ASDIV
    source = put(tmp_path, name, good[name], row)
    with pytest.raises(ProblemsError, match=rf"{name}/test\.jsonl:2: .*{message}"):
        read(source, name)


def test_an_unknown_set_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match=r"check the set's name, .* it holds nothing"):
        read(str(tmp_path), "svamp")
    put(tmp_path, "svamp", SVAMP)
    put(tmp_path, "asdiv", ASDIV)
    with pytest.raises(ProblemsError, match=r"no math/test.jsonl .* holds the sets asdiv, svamp$"):
        read(str(tmp_path), "math")


def test_mmlu_stem_has_five_demos_and_the_others_none(tmp_path: Path) -> None:
    source = put(tmp_path, "mmlu_stem", MMLU)
    (tmp_path / "mmlu_stem" / "demos.json").write_text(json.dumps([*DEMOS, ["q5", "a5"]]))
    assert demos.own(source, "mmlu_stem") == [tuple(demo) for demo in DEMOS]
    assert demos.own(str(tmp_path / "mmlu_stem"), "mmlu_stem") != []
    assert demos.own(put(tmp_path, "svamp", SVAMP), "svamp") == []
    assert demos.own("microworld", "tuned") == []


def test_a_file_of_a_few_shot_set_is_no_source(tmp_path: Path) -> None:
    """Its digest would say nothing of the demos beside it, so that a cached result could be old."""
    put(tmp_path, "mmlu_stem", MMLU)
    (tmp_path / "mmlu_stem" / "demos.json").write_text(json.dumps(DEMOS), encoding="utf-8")
    with pytest.raises(ProblemsError, match=r"mmlu_stem is 5-shot; give the directory"):
        demos.own(str(tmp_path / "mmlu_stem" / "test.jsonl"), "mmlu_stem")
    assert len(demos.own(str(tmp_path / "mmlu_stem"), "mmlu_stem")) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no such file, and mmlu_stem is 5-shot; put its 5 demos there"),
        ("{", "not valid JSON"),
        (json.dumps(DEMOS[:4]), r"must hold 5 demos, as \[\[question, answer\]"),
        (json.dumps([["q", "a", "b"]] * 5), "must hold 5 demos"),
        (json.dumps([["q", 1]] * 5), "must hold 5 demos"),
    ],
)
def test_wrong_demos_are_told_before_anything_runs(
    tmp_path: Path, content: str | None, message: str, offline: None
) -> None:
    source = put(tmp_path, "mmlu_stem", MMLU)
    if content is not None:
        (tmp_path / "mmlu_stem" / "demos.json").write_text(content)
    with pytest.raises(ProblemsError, match=rf"mmlu_stem/demos\.json: {message}"):
        demos.check(source, ["mmlu_stem"], None, 0)


@pytest.mark.skipif(not (SHARED / "parity").is_dir(), reason="needs the toolkit's files")
@pytest.mark.parametrize(
    "name", ["asdiv", "gsm8k", "minerva_math", "mmlu_stem", "olympiadbench", "svamp"]
)
def test_prompts_and_golds_are_the_toolkits_to_the_byte(name: str) -> None:
    """Every record of the half whose digests are there, in both styles: 4,251 of six sets."""
    lines = (SHARED / "parity" / "prompts_and_golds.jsonl").read_text(encoding="utf-8")
    expected = [row for row in map(json.loads, lines.splitlines()) if row["benchmark"] == name]
    assert expected
    source = str(SHARED / "benchmarks")
    problems, shown = read(source, name), demos.own(source, name)
    found = [
        {
            "gold": toolkit.gold(problem.answer, name),
            "sha_qwen25": _digest(problem.question, "qwen25-math-cot", shown),
            "sha_cot": _digest(problem.question, "cot", shown),
        }
        for problem in (problems[row["idx"]] for row in expected)
    ]
    assert [row for row, ours in zip(expected, found, strict=True) if row != row | ours] == []
    assert {row["shots"] for row in expected} == {len(shown)}


@pytest.mark.skipif(not (SHARED / "benchmarks").is_dir(), reason="needs the toolkit's files")
def test_math500_reads_whole() -> None:
    problems = read(str(SHARED / "benchmarks"), "math500")
    assert len(problems) == 500
    assert all(problem.question and problem.answer and problem.solution for problem in problems)


def _digest(question: str, style: PromptStyle, demos: list[Demo]) -> str:
    prompt = prompts.render_prompt(question, style, None, demos)  # type: ignore[arg-type]
    return hashlib.sha256(prompt.encode()).hexdigest()
