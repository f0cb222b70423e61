"""Files that people bring: byte order marks, numbers as written, what is refused in a line."""

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import call, faults
from hypothesis import given
from hypothesis import strategies as st
from test_authors import LINE
from test_authors import write_lines as write_samples
from test_benchmarks import DEMOS, MMLU, SHARED, put

from lightreasoner.authors import jsonl
from lightreasoner.data import demos, problems, reading, sources, user_files
from lightreasoner.errors import ArtifactError, ProblemsError
from lightreasoner.inference import loading

MARK = "\ufeff"
ROW = {"question": "q?", "answer": "7"}


def text_file(path: Path, *lines: Any) -> Path:
    """Lines as they are, or as JSON."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def table_file(path: Path, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def answers(path: Path) -> list[str]:
    return [
        problem.answer for problem in sources.draw_problems(str(path), "mine", "train", None, 0)
    ]


# Byte order marks


def test_problems_may_begin_with_a_mark(tmp_path: Path) -> None:
    path = text_file(tmp_path / "a.jsonl", MARK + json.dumps(ROW), ROW)
    assert answers(path) == ["7", "7"]
    drawn = sources.draw_problems(str(path), "mine", "train", None, 0)
    problems.write_problems(drawn, path)
    path.write_text(MARK + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert problems.read_problems(path) == drawn


def test_a_mark_elsewhere_is_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ROW | {"question": f"{MARK}q{MARK}"}, ensure_ascii=False))
    (problem,) = sources.draw_problems(str(path), "mine", "train", None, 0)
    assert problem.question == f"{MARK}q{MARK}"
    text_file(path, ROW, MARK + json.dumps(ROW))
    with pytest.raises(ProblemsError, match=r"a.jsonl:2: not valid JSON"):
        answers(path)


def test_responses_may_begin_with_a_mark(tmp_path: Path) -> None:
    row = {"benchmark": "gsm8k", "record": ROW, "response": r"\boxed{7}"}
    path = text_file(tmp_path / "in.jsonl", MARK + json.dumps(row))
    result = call("grade", str(path), str(tmp_path / "out.jsonl"))
    assert result.exit_code == 0, result.stderr
    assert "gsm8k strict: n 1, correct 1" in result.stdout


def test_samples_may_begin_with_a_mark(tiny_expert: Path, tmp_path: Path) -> None:
    path = write_samples(tmp_path / "a.jsonl", LINE)
    path.write_text(MARK + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert len(jsonl.read_samples(path, loading.load_tokenizer(tiny_expert))) == 1


def test_demos_may_begin_with_a_mark(tmp_path: Path) -> None:
    source = put(tmp_path, "mmlu_stem", MMLU)
    (tmp_path / "mmlu_stem" / "demos.json").write_text(MARK + json.dumps(DEMOS), encoding="utf-8")
    assert demos.own(source, "mmlu_stem") == [tuple(demo) for demo in DEMOS]


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="needs the judged cases")
def test_the_judged_files(tmp_path: Path) -> None:
    files = SHARED / "cases" / "files"
    assert answers(files / "bom_problems.jsonl") == ["7", "3"]
    assert answers(files / "float32.parquet")[0] == "0.1"
    assert answers(files / "decimal.parquet")[0] == "7.50"
    out = str(tmp_path / "out.jsonl")
    assert call("grade", str(files / "bom_responses.jsonl"), out).exit_code == 0
    assert list(user_files.read_jsonl(files / "bom_samples.jsonl", ArtifactError))


# Numbers

ANSWERS = [
    (pa.array([0.1, 7], pa.float32()), ["0.1", "7.0"]),
    (pa.array([0.1, 7], pa.float16()), ["0.1", "7.0"]),
    (pa.array([0.1, 7]), ["0.1", "7.0"]),
    (pa.array([1e10, 1e-5], pa.float32()), ["10000000000.0", "1e-05"]),
    (pa.array([Decimal("7.50"), Decimal("-3")], pa.decimal128(10, 2)), ["7.50", "-3.00"]),
    (pa.array([Decimal(10**60)], pa.decimal256(70, 0)), [str(10**60)]),
    (pa.array([2**62 + 1]), [str(2**62 + 1)]),
    (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
    (pa.array([-7], pa.int8()), ["-7"]),
    (pa.array(["7", "8"]).dictionary_encode(), ["7", "8"]),
    (pa.array(["7"], pa.large_string()), ["7"]),
    (pa.array(["7"], pa.string_view()), ["7"]),
]


@pytest.mark.parametrize(("column", "golds"), ANSWERS, ids=lambda value: str(value)[:40])
def test_a_column_of_answers_reads_as_written(
    tmp_path: Path, column: pa.Array, golds: list[str]
) -> None:
    question = pa.array(["q?"] * len(column))
    assert answers(table_file(tmp_path / "a.parquet", question=question, answer=column)) == golds
    loaded = datasets.Dataset(pa.table({"answer": column}))
    rows = user_files.rows_of(loaded.with_format("arrow")[:])
    assert [str(row["answer"]) for row in rows] == golds


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_a_float32_is_the_shortest_that_is_stored_as_it(values: list[float]) -> None:
    read = [row["x"] for row in user_files.rows_of(pa.table({"x": pa.array(values, pa.float32())}))]
    assert pa.array(read, pa.float32()).to_pylist() == values
    assert all(len(repr(new)) <= len(repr(old)) for new, old in zip(read, values, strict=True))


def test_an_integer_beside_a_null_stays_one(tmp_path: Path) -> None:
    """pandas would make floats of the column, and lose digits."""
    column = pa.array([2**62 + 1, None])
    path = table_file(tmp_path / "a.parquet", question=pa.array(["q?"] * 2), answer=column)
    assert user_files.read_parquet(path)[0] == (1, {"question": "q?", "answer": 2**62 + 1})
    with pytest.raises(ProblemsError, match=r"a.parquet:2: answer missing or empty"):
        answers(path)


def test_lists_and_other_columns_are_read(tmp_path: Path) -> None:
    (tmp_path / "olympiadbench").mkdir()
    table_file(
        tmp_path / "olympiadbench" / "test.parquet",
        question=pa.array(["q?"]),
        final_answer=pa.array([[0.1, 2]], pa.list_(pa.float32())),
        when=pa.array([1], pa.timestamp("ns")),
        more=pa.array([{"a": [1]}]),
    )
    (problem,) = sources.draw_problems(str(tmp_path), "olympiadbench", "test", None, 0)
    assert problem.answer == "0.1"


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([float("inf")]), "answer must be a finite number, got inf"),
        (pa.array([float("-inf")], pa.float32()), "answer must be a finite number, got -inf"),
        (pa.array([float("nan")]), "answer missing or empty"),
        (pa.array([None], pa.string()), "answer missing or empty"),
        (pa.nulls(1), "answer missing or empty"),
        (pa.array([True]), "answer must be text or a number, got True"),
        (pa.array([b"7"]), "answer must be text or a number, got b'7'"),
        (pa.array([date(2020, 1, 2)]), "answer must be text or a number, got datetime.date"),
        (pa.array([datetime(2020, 1, 2)]), "answer must be text or a number, got datetime"),
        (pa.array([["7"]]), r"answer must be text or a number, got \['7'\]"),
        (pa.array([{"a": 7}]), "answer must be text or a number, got {'a': 7}"),
    ],
    ids=str,
)
def test_what_is_no_answer_is_refused_with_row_and_value(
    tmp_path: Path, column: pa.Array, said: str
) -> None:
    path = table_file(tmp_path / "a.parquet", question=pa.array(["q?"]), answer=column)
    with pytest.raises(ProblemsError, match=rf"\A\S+a.parquet:1: {said}"):
        answers(path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["answer", "answer"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ProblemsError, match=r"a column appears twice among answer, answer"):
        answers(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("written", "gold"),
    [("7", "7"), ("7.0", "7.0"), ("0.1", "0.1"), ("-0.5e1", "-5.0"), ("9" * 300, "9" * 300)],
)
def test_a_number_in_json_is_read(tmp_path: Path, written: str, gold: str) -> None:
    path = text_file(tmp_path / "a.jsonl", f'{{"question": "q?", "answer": {written}}}')
    assert answers(path) == [gold]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "q?", "answer": 1e999}', "answer must be a finite number, got inf"),
        ('{"question": "q?", "answer": -Infinity}', "answer must be a finite number, got -inf"),
        ('{"question": "q?", "answer": NaN}', "answer missing or empty"),
        (f'{{"question": "q?", "answer": {"9" * 5000}}}', "not valid JSON"),
        ('{"question": "q?", "answer": 1, "answer": 2}', "not valid JSON ('answer' appears twice)"),
        ('{"question": "q?", "answer": 1, "x": {"a": 1, "a": 1}}', "('a' appears twice)"),
        ("[" * 100_000, "not valid JSON"),
    ],
    ids=lambda value: value[:40],
)
def test_a_line_that_says_no_one_thing_is_refused(tmp_path: Path, line: str, said: str) -> None:
    path = text_file(tmp_path / "a.jsonl", ROW, line)
    with pytest.raises(ProblemsError) as caught:
        answers(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("final_answer", [float("inf")]), ("final_answer", [None]), ("choices", ["a", None, "c", 4])],
)
def test_lists_hold_texts_and_numbers(field: str, value: list[Any]) -> None:
    name = "mmlu_stem" if field == "choices" else "olympiadbench"
    record = {"question": "q?", field: value, "answer": 2}
    with pytest.raises(ProblemsError, match=rf"x: {field} must be "):
        reading.problem_of_row(name, record, "x")


def test_a_broken_file_of_problems_stops_prepare(tmp_path: Path) -> None:
    path = table_file(
        tmp_path / "a.parquet", question=pa.array(["q?"]), answer=pa.array([float("inf")])
    )
    source = ("--set", f"prepare.source={path}", "--home", str(tmp_path / "home"))
    (line,) = faults(call("prepare", *source))
    assert line == f"{path}:1: answer must be a finite number, got inf"


# CSV, JSON, Arrow


def test_csv_is_read_as_written(tmp_path: Path) -> None:
    """Quotes, lines within values, a mark at the start; `NA` and `007` are no numbers or nulls."""
    path = text_file(
        tmp_path / "a.csv", MARK + "answer,question", '"1,024","Is ""it""', 'so?"', "NA,q"
    )
    assert user_files.read_csv(path) == [
        (2, {"answer": "1,024", "question": 'Is "it"\nso?'}),
        (3, {"answer": "NA", "question": "q"}),
    ]
    assert answers(path) == ["1,024", "NA"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ["question;answer", "q;7"],
            "a.csv:2: question and answer missing .* has .'question;answer'",
        ),
        (
            ["question,answer", "q"],
            r"a.csv: not a readable CSV file \('CSV parse error: Row #2: Exp",
        ),
        (["question,answer", "q,"], "a.csv:2: answer missing or empty"),
        (["question,answer"], "a.csv: no problems in it"),
        (["answer,answer", "7,8"], "a column appears twice among answer, answer"),
        ([",".join(f"c{n}" for n in range(201))], "0 rows of 201 columns"),
    ],
)
def test_csv_that_is_no_problems_is_one_line(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(ProblemsError, match=said) as caught:
        answers(text_file(tmp_path / "a.csv", *lines))
    assert "\n" not in str(caught.value)


def test_text_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("question,answer\nFür wen?,7\n".encode("latin-1"))
    with pytest.raises(ProblemsError, match="Row #2: CSV conversion error to string: invalid UTF8"):
        answers(tmp_path / "a.csv")


def test_csv_has_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_files, "ROWS", 2)
    with pytest.raises(ProblemsError, match="3 rows of 2 columns; at most 2 rows"):
        answers(text_file(tmp_path / "a.csv", "question,answer", *["q,7"] * 3))
    monkeypatch.setattr("lightreasoner.untrusted.TEXT_BYTES", 10)
    with pytest.raises(ProblemsError, match="at most 10 are read"):
        answers(tmp_path / "a.csv")


def test_json_is_a_list_or_lines(tmp_path: Path) -> None:
    other = ROW | {"answer": "8"}
    assert answers(text_file(tmp_path / "a.json", json.dumps([ROW, other], indent=1))) == ["7", "8"]
    assert answers(text_file(tmp_path / "b.json", MARK + json.dumps(ROW), other)) == ["7", "8"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"question": "q?", "answer": 1, "answer": 2}]', "'answer' appears twice"),
        ("[" * 100_000, "nested over 100 deep"),
        ('[{"question": "q", "answer": 7}, [1]]', r"a.json:2: must be one of at most .* got \[1\]"),
        ('{"data": []}', r"a.json:1: question and answer missing or empty; .* has \['data'\]"),
        ("[]", "no problems in it"),
    ],
)
def test_json_that_is_no_problems_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ProblemsError, match=said) as caught:
        answers(text_file(tmp_path / "a.json", text))
    assert "\n" not in str(caught.value)


def arrow_file(path: Path, table: pa.Table, form: Any, compression: str | None = None) -> Path:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with form(str(path), table.schema, options=options) as file:
        file.write_table(table)
    return path


FORMS = pytest.mark.parametrize("form", [pa.ipc.new_stream, pa.ipc.new_file])


@FORMS
def test_arrow_reads_as_parquet(tmp_path: Path, form: Any) -> None:
    numbers = pa.array([0.1, 7], pa.float32())
    table = pa.table({"question": ["q?", "r?"], "answer": numbers, "more": [[{"a": ["b"]}]] * 2})
    pq.write_table(table, tmp_path / "a.parquet")
    found = user_files.read_arrow(arrow_file(tmp_path / "a.arrow", table, form))
    assert found == user_files.read_parquet(tmp_path / "a.parquet")
    assert answers(tmp_path / "a.arrow") == ["0.1", "7.0"]


@FORMS
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_arrow_that_unpacks_to_any_size_is_refused(
    tmp_path: Path, form: Any, compression: str
) -> None:
    table = pa.table({"question": ["q" * 100_000] * 100})
    path = arrow_file(tmp_path / "a.arrow", table, form, compression)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(ProblemsError, match=r"a.arrow: not a readable Arrow file .*compressed"):
        answers(path)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["7"]).dictionary_encode(),
        pa.array([["7"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        pa.array(["7"], pa.string_view()),
        pa.array([["7"]], pa.list_view(pa.string())),
        pa.RunEndEncodedArray.from_arrays([1], ["7"]),
    ],
    ids=lambda column: str(column.type)[:20],
)
def test_arrow_whose_values_count_many_times_is_refused(tmp_path: Path, column: pa.Array) -> None:
    table = pa.table({"question": ["q?"], "more": column})
    with pytest.raises(ProblemsError, match="a column has the type"):
        answers(arrow_file(tmp_path / "a.arrow", table, pa.ipc.new_stream))


def test_damaged_arrow_is_read_or_refused(tmp_path: Path) -> None:
    table = pa.table({"question": ["q?", "r?"], "answer": ["7", "8"], "more": [[1], [2, 3]]})
    path = arrow_file(tmp_path / "a.arrow", table, pa.ipc.new_stream)
    content = path.read_bytes()
    refused = 0
    for place in range(0, len(content), 5):
        path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
        try:
            answers(path)
        except ProblemsError:
            refused += 1
    for end in range(0, len(content) - 16, 24):
        path.write_bytes(content[:end])
        with pytest.raises(ProblemsError):
            answers(path)
    assert refused > 30
