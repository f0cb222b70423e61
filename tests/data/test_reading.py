"""Rows as problems: columns by name, conversations, and problems without gold answers."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import call

from lightreasoner.config import Params, changed
from lightreasoner.data import problems, sources
from lightreasoner.data.problems import Problem, solution_text
from lightreasoner.data.reading import BASELINES, Reading
from lightreasoner.errors import ConfigError, ProblemsError
from lightreasoner.pipeline.graph import GRAPH, Inputs, Stage, external_inputs, walk
from lightreasoner.presets import PRESETS
from lightreasoner.progress import Silent
from lightreasoner.storage.artifacts import Artifact, Workspace

USER, ASSISTANT = {"role": "user", "content": "q?"}, {"role": "assistant", "content": "7"}


def file_of(folder: Path, *rows: Any, name: str = "a.jsonl") -> Path:
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return folder / name


def draw(
    path: Path, columns: dict[str, str | None] | None = None, name: str = "mine", needs: str = ""
) -> list[Problem]:
    reading = Reading("prepare", columns or {}, needs)
    return sources.draw_problems(str(path), name, "train", None, 0, reading=reading)


# Without gold answers


@pytest.mark.parametrize("name", ["mine", "gsm8k", "math", "svamp", "olympiadbench"])
def test_a_question_is_enough_to_learn_from(tmp_path: Path, name: str) -> None:
    rows = {"question": "q?"}, {"question": "r?", "answer": None}, {"question": "s?", "answer": " "}
    drawn = draw(file_of(tmp_path, *rows), name=name)
    assert [(each.question, each.answer, each.solution) for each in drawn] == [
        ("q?", None, ""), ("r?", None, ""), ("s?", None, ""),
    ]  # fmt: skip


def test_no_answer_is_null_in_the_file_and_comes_back(tmp_path: Path) -> None:
    some = [Problem("a/0", "q", None, ""), Problem("a/1", "q", "7", "s")]
    problems.write_problems(some, tmp_path / "p.jsonl")
    first, second = (tmp_path / "p.jsonl").read_text().splitlines()
    assert first == '{"id": "a/0", "question": "q", "answer": null, "solution": ""}'
    assert second == '{"id": "a/1", "question": "q", "answer": "7", "solution": "s"}'
    assert problems.read_problems(tmp_path / "p.jsonl") == some
    with pytest.raises(ProblemsError, match=r"1 of 2 problems have no gold answer, .* a/0; keep"):
        problems.read_answered(tmp_path / "p.jsonl", "keep")


def test_a_solution_without_an_answer_gets_no_box() -> None:
    assert solution_text(Problem("a/0", "q", None, "so it is")) == "so it is"
    assert r"\boxed{7}" in solution_text(Problem("a/0", "q", "7", "so it is"))


def test_how_many_lack_one_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    draw(file_of(tmp_path, {"question": "q?"}, {"question": "q?", "answer": 7}))
    assert "gold answers: 1 missing (needed by evaluation" in caplog.text


def test_prepare_takes_them_and_what_compares_does_not(tmp_path: Path) -> None:
    """`run`, `evaluate` and `compare` are refused where their source is read."""
    path = file_of(tmp_path, {"question": "q?", "answer": "7"}, {"question": "r?"})
    learn = (f"prepare.source={path}", "prepare.problem_set=mine", "prepare.n_problems=null")
    ask = (f"evaluate.source={path}", "evaluate.problem_sets=[mine]", "evaluate.n_problems=null")
    params = changed(PRESETS["microworld"], [*learn, *ask])
    assert external_inputs(params, ["problem_source"])
    refused = rf"\A{path}:2: answer missing or empty; .*"
    with pytest.raises(ProblemsError, match=refused + "another evaluate.source"):
        external_inputs(params, ["problem_source", "benchmark_source"])
    with pytest.raises(ProblemsError, match=refused + r"methods sft and gold .*\(--methods\)"):
        external_inputs(params, ["problem_source"], BASELINES)

    out = tmp_path / "problems"
    settings = [word for value in learn for word in ("--set", value)]
    result = call("prepare", *settings, "--out", str(out), "--home", str(tmp_path / "home"))
    assert result.exit_code == 0, result.stderr
    assert [each.answer for each in problems.read_problems(out / "problems.jsonl")] == ["7", None]


@pytest.mark.slow
def test_the_whole_method_runs_on_questions_alone(tiny_params: Params, tmp_path: Path) -> None:
    """Up to the report; what needs gold solutions is empty, the rest is there."""
    path = file_of(tmp_path, *({"question": f"What is {n} + {n}?"} for n in range(6)))
    given = (f"prepare.source={path}", "finetune.validation_share=0.5")
    params = changed(tiny_params, [*given, "compute.dtype=float32"])

    def make(stage: Stage, inputs: Inputs) -> Artifact:
        work = Workspace(tmp_path / stage.name, tmp_path / f"{stage.name}-work", params.compute)
        work.out.mkdir()
        work.scratch.mkdir()
        return stage.run(inputs, stage.settings(params), work, Silent())

    made = walk(GRAPH, external_inputs(params), make)
    curve = pd.read_csv(made["adapter"].path / "validation.csv")
    assert curve["gold_perplexity"].isna().all()
    assert curve["loss"].notna().all()
    assert (made["report"].path / "report.html").is_file()


# Columns


def test_columns_have_the_names_that_are_given(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"problem": "q?", "solution": "3+4=7\n#### 7", "answer": "no"})
    (problem,) = draw(path, {"question": "problem", "answer": "solution"})
    assert (problem.question, problem.answer, problem.solution) == ("q?", "7", "3+4=7")


def test_a_column_that_is_the_answer_is_not_the_solution_too(tmp_path: Path) -> None:
    """Else a bare answer would be taught as a solution."""
    path = file_of(tmp_path, {"question": "q?", "solution": "7"})
    assert draw(path, {"answer": "solution"}) == [Problem("mine/00000", "q?", "7", "")]


def test_null_reads_none(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"question": "q?", "answer": "First 3. Then 4. So 7 pens."})
    with pytest.raises(ProblemsError, match=r"or read no answers, by prepare.columns=\{answer: nu"):
        draw(path)
    assert draw(path, {"answer": None}) == [Problem("mine/00000", "q?", None, "")]
    talk = file_of(tmp_path, {"messages": [USER, ASSISTANT]}, name="talk.jsonl")
    assert draw(talk, {"answer": None}) == [Problem("mine/00000", "q?", None, "")]


@pytest.mark.parametrize("columns", [{}, {"question": "query"}])
def test_what_is_not_found_says_what_is(tmp_path: Path, columns: dict[str, str | None]) -> None:
    path = file_of(tmp_path, {"problem": "q?", "solution": "7"})
    with pytest.raises(ProblemsError) as caught:
        draw(path, columns)
    said = str(caught.value)
    assert "problem" in said
    assert "solution" in said
    assert "prepare.columns" in said


def test_a_layout_of_a_benchmark_is_not_asked_where_columns_are_named(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"problem": "q?", "solution": "no number", "final": "7"})
    (problem,) = draw(path, {"question": "problem", "answer": "final"}, name="math")
    assert (problem.question, problem.answer) == ("q?", "7")


def test_columns_are_parameters() -> None:
    params = PRESETS["microworld"]
    found = changed(params, ["prepare.columns={question: problem, answer: null}"])
    assert found.prepare.columns == {"question": "problem", "answer": None}
    both = "{question: a, messages: b}"
    for value in ("{query: problem}", "{question: 7}", "[question]", both):
        with pytest.raises(ConfigError, match=r"prepare\.columns"):
            changed(params, [f"prepare.columns={value}"])


# Conversations


@pytest.mark.parametrize(
    ("turns", "answer"),
    [
        ([USER, ASSISTANT], "7"),
        ([{"role": "system", "content": "Be brief."}, USER, ASSISTANT], "7"),
        ([USER], None),
    ],
)
def test_a_conversation_is_question_and_answer(
    tmp_path: Path, turns: list[Any], answer: str | None
) -> None:
    for column, columns in (("messages", {}), ("talk", {"messages": "talk"})):
        path = file_of(tmp_path, {column: turns, "n": 1})
        assert draw(path, columns) == [Problem("mine/00000", "q?", answer, "")]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "turns",
    [[], None, "q?", [USER, USER], [ASSISTANT, USER], [USER, ASSISTANT, USER], [[USER]], [7]],
)
def test_other_conversations_are_refused(tmp_path: Path, turns: Any) -> None:
    path = file_of(tmp_path, {"messages": [USER]}, {"messages": turns})
    with pytest.raises(
        ProblemsError, match=r"a.jsonl:2: messages must be one turn of the user and"
    ):
        draw(path)


def test_a_turn_is_text(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"messages": [USER | {"content": [{"type": "text", "text": "q?"}]}]})
    with pytest.raises(ProblemsError, match="question must be text or a number"):
        draw(path)


# Sources


def test_a_set_that_the_micro_world_lacks_names_the_source() -> None:
    params = changed(PRESETS["microworld"], ["evaluate.problem_sets=[gsm8k]"])
    with pytest.raises(ProblemsError) as caught:
        external_inputs(params, ["benchmark_source"])
    assert str(caught.value) == (
        "evaluate.source microworld has no set 'gsm8k', only tuned, transfer, chain_sum; name one "
        "of these, or set evaluate.source to hub, or to a file or folder that holds the set"
    )


def test_a_folder_without_the_set_says_what_it_holds(tmp_path: Path) -> None:
    file_of(tmp_path, {"question": "q?"}, name="notes.csv")
    with pytest.raises(ProblemsError, match=r"or give a file; it holds notes.csv\Z"):
        sources.check(str(tmp_path), ["mine"], "test", None)
    (tmp_path / "sums").mkdir()
    file_of(tmp_path / "sums", {"question": "q?"}, name="test.json")
    with pytest.raises(ProblemsError, match=r"it holds the sets sums\Z"):
        sources.check(str(tmp_path), ["mine"], "test", None)
