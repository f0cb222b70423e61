"""Sources of problems: files, directories, what is refused and how it is named."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lightreasoner.data import reading, sources
from lightreasoner.data.problems import Problem
from lightreasoner.errors import ProblemsError
from lightreasoner.storage import artifacts


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(question: object = "1+1?", answer: object = "2") -> str:
    return json.dumps({"question": question, "answer": answer})


def read(path: Path, n: int | None = None, seed: int = 0) -> list[Problem]:
    return sources.draw_problems(str(path), "toy", "train", n, seed)


def test_gsm8k_answers_are_split(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row("q", "48/2 = <<48/2=24>>24\n#### 1,024"))
    assert read(path) == [Problem("toy/00000", "q", "1,024", "48/2 = <<48/2=24>>24")]


def test_a_null_solution_is_none(tmp_path: Path) -> None:
    """pandas reads a null beside texts as NaN, which is not the text `nan`."""
    rows = [{"question": "q", "answer": "2", "solution": s} for s in (None, "It is 2.")]
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    assert [problem.solution for problem in read(tmp_path / "a.parquet")] == ["", "It is 2."]


def test_parquet_reads_as_jsonl(tmp_path: Path) -> None:
    pd.DataFrame([{"question": "q", "answer": "2"}]).to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == read(write(tmp_path / "a.jsonl", row("q")))


def test_a_directory_in_the_toolkits_layout(tmp_path: Path) -> None:
    write(tmp_path / "gsm8k" / "test.jsonl", row("test"))
    write(tmp_path / "gsm8k" / "train.jsonl", row("train"))
    found = sources.draw_problems(str(tmp_path), "gsm8k", "test", None, 0)
    assert [(p.id, p.question) for p in found] == [("gsm8k/test/00000", "test")]
    with pytest.raises(ProblemsError, match=r"has no svamp/test.jsonl"):
        sources.draw_problems(str(tmp_path), "svamp", "test", None, 0)


def test_line_separators_within_text_are_text(tmp_path: Path) -> None:
    """U+2028 is a line to str.splitlines, and legal within JSON strings."""
    path = write(
        tmp_path / "a.jsonl",
        json.dumps({"question": "a\u2028b", "answer": "1"}, ensure_ascii=False),
    )
    assert read(path)[0].question == "a\u2028b"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"a.jsonl: no problems in it"),
        ([row(), "{"], r"a.jsonl:2: not valid JSON"),
        ([row(), "", "[1]"], r"a.jsonl:3: a list, not an object"),
        ([row(), row(answer=" ")], r"a.jsonl:2: answer missing or empty"),
        ([row(), row(answer="2+2 is\n####")], r"a.jsonl:2: no gold answer can be read, got ''"),
        ([row(), row(answer="$ $")], r"a.jsonl:2: no gold answer can be read, got '\$ \$'"),
        ([json.dumps({"x": 1})], r"a.jsonl:1: question and answer missing or empty"),
        ([row(), row("a \ud83d b")], r"a.jsonl:2: question has half a surrogate pair"),
        ([row(answer="\ude00 2")], r"a.jsonl:1: answer has half a surrogate pair"),
        ([row(), row(answer=["18"])], r"a.jsonl:2: answer must be text or a number, got \['18'\]"),
        ([row(answer=False)], r"a.jsonl:1: answer must be text or a number, got False"),
        ([row({"text": "q"})], r"a.jsonl:1: question must be text or a number, got {'text': 'q'}"),
        (
            [json.dumps({"question": "q", "answer": "2", "solution": [1]})],
            r"a.jsonl:1: solution must be text or a number, got \[1\]",
        ),
    ],
)
def test_bad_files_are_named_with_their_line(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(ProblemsError, match=message):
        read(write(tmp_path / "a.jsonl", *lines))


def test_files_that_are_no_problems_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe")
    (tmp_path / "c.txt").write_text("x")
    for name, message in (
        ("a.parquet", "not a readable Parquet file"),
        ("b.jsonl", "not UTF-8 text"),
        ("c.txt", "must end in .jsonl, .json, .csv, .parquet, .arrow"),
    ):
        with pytest.raises(ProblemsError, match=message):
            read(tmp_path / name)
    with pytest.raises(ProblemsError, match=r"gone.jsonl: no such file"):
        sources.resolve(str(tmp_path / "gone.jsonl"))


def test_a_whole_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row("a \U0001f600"))
    assert r"\ud83d\ude00" in path.read_text(encoding="utf-8")
    assert read(path)[0].question == "a \U0001f600"


def test_a_draw_is_seeded_without_replacement_and_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *(row(f"q{n}") for n in range(50)))
    drawn = [problem.id for problem in read(path, 20, seed=1)]
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 20
    assert drawn == [problem.id for problem in read(path, 20, seed=1)]
    assert drawn != [problem.id for problem in read(path, 20, seed=2)]


def test_too_few_problems_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match=r"5 problems wanted, only 1 there; lower n"):
        sources.check(str(write(tmp_path / "a.jsonl", row())), ["toy"], "train", 5)


def test_what_is_neither_file_nor_set_says_what_to_give() -> None:
    with pytest.raises(ProblemsError, match=r"owner/name@commit"):
        sources.resolve("openai/gsm8k@main")


def test_a_files_identity_is_its_content(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row())
    assert sources.resolve(str(path)).digest == artifacts.digest(path)
    assert sources.resolve("microworld").digest == "microworld"


def test_a_folder_of_a_sources_name_is_not_that_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "microworld").mkdir()
    assert sources.resolve("microworld").digest == "microworld"
    assert len(sources.draw_problems("microworld", "tuned", "test", 2, 0)) == 2


@pytest.mark.parametrize("answer", [0, 0.0, "0"])
def test_zero_is_an_answer(tmp_path: Path, answer: object) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"question": "q", "answer": answer}))
    assert read(path)[0].answer == str(answer)


def test_a_set_is_named_once_and_a_file_holds_one(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.jsonl", row()))
    with pytest.raises(ProblemsError, match=r"holds one set, 2 are named \(a, b\)"):
        sources.check(path, ["a", "b"], "test", None)
    with pytest.raises(ProblemsError, match=r"\['a'\] are named more than once"):
        sources.check("microworld", ["a", "a"], "test", 1)


def test_a_directory_that_is_the_set_itself(tmp_path: Path) -> None:
    write(tmp_path / "gsm8k" / "test.jsonl", row("test"))
    source = str(tmp_path / "gsm8k")
    assert len(sources.draw_problems(source, "gsm8k", "test", None, 0)) == 1
    with pytest.raises(ProblemsError, match=r"check the set's name"):
        sources.draw_problems(source, "gsm8k_typo", "test", None, 0)


def test_a_parquet_file_of_other_columns_lists_them(tmp_path: Path) -> None:
    pd.DataFrame({"query": ["q"], "answer": ["1"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ProblemsError, match=r"1: question missing.*has \['query', 'answer'\]"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("benchmark", "record", "question", "answer"),
    [
        # a benchmark's own layout
        ("mmlu_stem", {"question": "q", "choices": [1, 2, 3, 4], "answer": 3}, None, "D"),
        ("math", {"problem": "q", "solution": r"\boxed 5"}, "q", "5"),
        ("asdiv", {"body": "b", "question": "q", "answer": "5 (m)", "formula": ""}, "b q", "5"),
        # a plain record, of a benchmark or of any other name
        ("math", {"question": "q", "answer": "1/2"}, "q", "1/2"),
        ("general", {"question": "q ", "answer": "yes"}, "q", "yes"),
        ("gsm8k", {"question": "q", "answer": "1+1=2\n#### 2"}, "q", "2"),
        ("gsm8k", {"question": "q", "answer": "2"}, "q", "2"),
    ],
)
def test_a_record_is_read_by_itself(
    benchmark: str, record: Any, question: str | None, answer: str
) -> None:
    problem = reading.problem_of_row(benchmark, record, "in.jsonl:7")
    assert (problem.id, problem.answer) == ("in.jsonl:7", answer)
    assert question in (None, problem.question)


@pytest.mark.parametrize(
    ("benchmark", "record", "message"),
    [
        (
            "general",
            {"problem": "q", "solution": "5"},
            "in:7: question and answer missing or empty",
        ),
        ("math", {"problem": "q"}, "in:7: solution missing or empty"),
        ("math", {"problem": "q", "solution": "Trivial."}, "in:7: no gold answer can be read"),
        ("math", ["q", "5"], r"in:7: a record must be an object, got \['q', '5'\]"),
    ],
)
def test_an_unreadable_record_is_named(benchmark: str, record: Any, message: str) -> None:
    with pytest.raises(ProblemsError, match=message):
        reading.problem_of_row(benchmark, record, "in:7")
