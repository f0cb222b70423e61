"""Fuzz: problem files, benchmarks in their layouts, demos, and what else a source may be."""

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import call, faults
from fuzzing import ODD_TEXTS, cope, damaged, damaged_tree, odd_value

from lightreasoner import untrusted
from lightreasoner.cli import grade
from lightreasoner.data import demos, hub, reading, sources, user_files
from lightreasoner.errors import ProblemsError

LAYOUTS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "What is 1 + 1?", "answer": "1+1=<<1+1=2>>2\n#### 2"},
    "mine": {"question": "q?", "answer": 7, "solution": r"so it is \boxed{7}"},
    "math": {"problem": "p", "level": "1", "type": "a", "solution": r"It is $\boxed{\frac12}$."},
    "minerva_math": {"problem": "p", "solution": r"The answer is \boxed{3}", "idx": 1},
    "svamp": {"Body": "b", "Question": "q?", "Answer": 5.0, "Equation": "x", "Type": "t"},
    "asdiv": {"body": "b", "question": "q?", "answer": "9 (apples)", "formula": "7+2=9"},
    "olympiadbench": {"question": "q", "final_answer": ["$2n$"], "context": None, "unit": None},
    "mmlu_stem": {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 2, "subject": "s"},
}
ANSWERS = (
    "####", "#### ", "#### 1 #### 2", "The answer is", "The answer is 7. The answer is 8.",
    r"\boxed{", r"\boxed{}", "A: 1 B: 2", "['a', 'b']", "答案是7",
    *(text * (reading.LONGEST // len(text)) for text in (
        r"\boxed{1}", r"\boxed{", "(", "{", "[", "a. B ", "is ", "7", "1+", "1,000", "$", "\n", " ",
        "x", r"\frac", "<<", "####\n", "Answer: ", "1 is ", "\\", "a=b=", "so, ", "1.", "ab1 ",
        "{}", "]", "Answer: 1\n", "The answer is 7. ", r"\text{", "A. ", "-", "1/", "\t", "ans",
        "Step 1\n", "*",
    )),
)  # fmt: skip


def row_text(tree: Any) -> str:
    return json.dumps(tree, ensure_ascii=True)


GOOD = row_text(LAYOUTS["gsm8k"])


def put(folder: Path, name: str, content: bytes, file: str = "test.jsonl") -> str:
    """A directory of problem sets with one of this name."""
    (folder / name).mkdir(exist_ok=True)
    for old in (folder / name).iterdir():
        old.unlink()
    (folder / name / file).write_bytes(content)
    return str(folder)


def check(source: str, name: str) -> None:
    sources.check(source, [name], "test", None)
    demos.check(source, [name], None, 0)
    sources.resolve(source)


def odd_row(rng: Random, name: str) -> dict[str, Any]:
    row: dict[str, Any] = damaged_tree(rng, LAYOUTS[name], 2)
    if rng.random() < 0.4:
        row[rng.choice(list(LAYOUTS[name]))] = rng.choice(ANSWERS)
    return row


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sets")


def test_odd_rows(fuzz: Any, folder: Path, offline: None) -> None:
    def make(rng: Random) -> tuple[str, bytes]:
        name = rng.choice(list(LAYOUTS))
        rows = [LAYOUTS[name], odd_row(rng, name)]
        text = "\n".join(map(row_text, rows)).encode()
        return name, damaged(rng, text) if rng.random() < 0.4 else text

    fuzz(make, lambda case: check(put(folder, *case), case[0]), quick=60)


def test_odd_demos(fuzz: Any, folder: Path, offline: None) -> None:
    pairs = [["q", "a"]] * 5
    problems = row_text(LAYOUTS["mmlu_stem"]).encode()

    def attempt(content: bytes) -> None:
        source = put(folder, "mmlu_stem", problems)
        (folder / "mmlu_stem" / "demos.json").write_bytes(content)
        check(source, "mmlu_stem")

    def make(rng: Random) -> bytes:
        text = row_text(damaged_tree(rng, pairs)).encode()
        return damaged(rng, text) if rng.random() < 0.4 else text

    fuzz(make, attempt, quick=20)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "nested over 100 deep"),
        (b"[" * 1_500 + b"]" * 1_500, "nested over 100 deep"),
        (b"9" * 5_000, "a whole number of 5,000 digits; 300 are read"),
        (b"\xff\xfe[\0", "not UTF-8 text"),
        (b" " * (1 << 21), "at most 1,048,576 are read"),
        (b'[["q", "\\ud83d"]]', "must hold 5 demos"),
    ],
)
def test_bad_demos_are_told_in_a_line(content: bytes, said: str, folder: Path) -> None:
    source = put(folder, "mmlu_stem", row_text(LAYOUTS["mmlu_stem"]).encode())
    (folder / "mmlu_stem" / "demos.json").write_bytes(content)
    assert said in str(cope(lambda: check(source, "mmlu_stem")))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "q", "x": ' + "[" * 500 + "]" * 500 + "}", "nested over 100 deep"),
        ('{"question": ' + "9" * 5_000 + "}", "a whole number of 5,000 digits"),
        ('{"question": "q", "answer": "' + "7" * 200_001 + '"}', "answer has over 200,000 char"),
        ('{"' + "k" * 100_000 + '": 1}', "question and answer missing or empty"),
        ('{"question": "q", "answer": "####' + "x" * 2_000 + '"}', "it has 2000 characters"),
        ("\0", "not valid JSON"),
    ],
)
def test_a_bad_line_is_told_in_a_line(line: str, said: str, folder: Path) -> None:
    (folder / "a.jsonl").write_text(f"{GOOD}\n{line}\n")
    found = str(cope(lambda: check(str(folder / "a.jsonl"), "mine")))
    assert "a.jsonl:2: " in found
    assert said in found


def test_odd_responses(fuzz: Any, folder: Path) -> None:
    """What `grade` reads."""

    def make(rng: Random) -> bytes:
        name = rng.choice(list(LAYOUTS))
        row = {"benchmark": name, "record": odd_row(rng, name), "response": "r"}
        text = row_text(damaged_tree(rng, row) if rng.random() < 0.4 else row).encode()
        return damaged(rng, text) if rng.random() < 0.2 else text

    def attempt(content: bytes) -> None:
        (folder / "in.jsonl").write_bytes(content)
        grade.read_answers(folder / "in.jsonl")

    fuzz(make, attempt, quick=30)


# Parquet

COLUMNS: dict[str, Callable[[], pa.Array]] = {
    "null": lambda: pa.nulls(2),
    "bool": lambda: pa.array([True, None]),
    "int": lambda: pa.array([7, None]),
    "uint64": lambda: pa.array([2**64 - 1, 1], pa.uint64()),
    "float16": lambda: pa.array([0.1, float("nan")], pa.float16()),
    "float": lambda: pa.array([0.1, float("inf")]),
    "decimal": lambda: pa.array([1, None], pa.decimal256(70, 3)),
    "date": lambda: pa.array([10**6, None], pa.int32()).cast(pa.date32()),
    "late date": lambda: pa.array([2**31 - 1, None], pa.int32()).cast(pa.date32()),
    "timestamp": lambda: pa.array([2**62, None], pa.timestamp("ns", "Europe/Paris")),
    "late timestamp": lambda: pa.array([2**50, None], pa.timestamp("s")),
    "odd zone": lambda: pa.array([1, None], pa.timestamp("us", "No/Where")),
    "duration": lambda: pa.array([2**62, None], pa.duration("us")),
    "time": lambda: pa.array([1, None], pa.time64("ns")),
    "binary": lambda: pa.array([b"\xff", None]),
    "fixed": lambda: pa.array([b"ab", None], pa.binary(2)),
    "bad text": lambda: pa.StringArray.from_buffers(
        2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")
    ),
    "dictionary": lambda: pa.array(["a", None]).dictionary_encode(),
    "list": lambda: pa.array([["a"], None]),
    "list of lists": lambda: pa.array([[["a"], None], [[]]]),
    "large list": lambda: pa.array([[1], []], pa.large_list(pa.float32())),
    "fixed list": lambda: pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
    "struct": lambda: pa.array([{"a": {"b": [1]}}, None]),
    "map": lambda: pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int8())),
    "text": lambda: pa.array(["q\0?", "\\boxed{7}"]),
    "view": lambda: pa.array(["7", None], pa.string_view()),
}
METADATA = (
    b"{", b"[1]", b"\xff", b"null", b'{"columns": 1}', b'{"index_columns": [{}]}', b"[" * 5_000,
)  # fmt: skip


def parquet(rng: Random) -> bytes:
    """Two columns of odd kinds, with metadata as pandas writes it but for its sense."""
    kinds = [rng.choice(list(COLUMNS)), rng.choice(list(COLUMNS)), "text"]
    rng.shuffle(kinds)
    names = ["question", "answer", "solution"]
    table = pa.table([COLUMNS[kind]() for kind in kinds], names=names)
    if rng.random() < 0.3:
        table = table.replace_schema_metadata({b"pandas": rng.choice(METADATA)})
    out = io.BytesIO()
    pq.write_table(table, out, compression=rng.choice(["zstd", "gzip", "snappy", "none"]))
    return out.getvalue()


def test_odd_tables(fuzz: Any, folder: Path) -> None:
    def make(rng: Random) -> bytes:
        content = parquet(rng)
        return damaged(rng, content) if rng.random() < 0.6 else content

    fuzz(make, lambda c: check(put(folder, "mine", c, "test.parquet"), "mine"), quick=60)


@pytest.mark.parametrize("kind", sorted(COLUMNS))
def test_every_kind_of_column_beside_a_good_one(kind: str, folder: Path) -> None:
    """It is read or refused, as an answer and as a column that nobody needs."""
    for name in ("answer", "more"):
        columns = {"question": pa.array(["q", "q"]), "answer": pa.array(["7", "8"])}
        pq.write_table(pa.table(columns | {name: COLUMNS[kind]()}), folder / "a.parquet")
        cope(lambda: check(str(folder / "a.parquet"), "mine"))


@pytest.mark.parametrize("metadata", METADATA, ids=range(len(METADATA)))
def test_pandas_metadata_is_not_asked(metadata: bytes, folder: Path) -> None:
    table = pa.table({"question": ["q"], "answer": ["7"]})
    pq.write_table(table.replace_schema_metadata({b"pandas": metadata}), folder / "a.parquet")
    assert cope(lambda: check(str(folder / "a.parquet"), "mine")) is None


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_a_table_that_unpacks_to_too_much_is_refused(
    folder: Path, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, "TEXT_BYTES", 1 << 20)
    path = folder / "bomb.parquet"
    texts = [f"{n}{' ' * 50_000}" for n in range(100)]
    for name, table in {
        "said": pa.table({"question": texts, "answer": texts}),
        "repeated": pa.table({"question": ["x" * 50_000] * 1_000, "answer": ["7"] * 1_000}),
    }.items():
        pq.write_table(table, path, compression=compression)
        assert path.stat().st_size < 1 << 20, name
        said = cope(lambda: check(str(path), "mine"))
        assert "unpacked it has over 1,048,576 bytes" in str(said), name


def test_rows_and_columns_have_a_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_files, "ROWS", 10)
    pq.write_table(pa.table({"answer": pa.nulls(11)}), folder / "a.parquet")
    assert "11 rows of 1 columns" in str(cope(lambda: check(str(folder / "a.parquet"), "mine")))
    wide = pa.table({str(n): [1] for n in range(user_files.COLUMNS + 1)})
    pq.write_table(wide, folder / "a.parquet")
    assert "1 rows of 201 columns" in str(cope(lambda: check(str(folder / "a.parquet"), "mine")))
    (folder / "a.jsonl").write_text("{}\n" * 11)
    assert "at most 10 are read" in str(cope(lambda: check(str(folder / "a.jsonl"), "mine")))


# Sources


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """A directory of one set."""
    put(tmp_path, "gsm8k", GOOD.encode())
    return tmp_path


def circle(folder: Path) -> None:
    (folder / "a").symlink_to(".")
    (folder / "b").symlink_to(".")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: os.mkfifo(folder / "gsm8k" / "notes"), "is a pipe or leads nowhere"),
        (
            lambda folder: (folder / "gsm8k" / "notes").symlink_to("/dev/zero"),
            "is a pipe or leads nowhere",
        ),
        (circle, "leads back to a folder above it"),
        (lambda folder: [(folder / str(n)).touch() for n in range(60)], "over 50 files"),
    ],
)
def test_a_directory_that_holds_more_than_problems_is_refused(
    sets: Path, make: Callable[[Path], Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MOST_FILES", 50)
    assert cope(lambda: check(str(sets), "gsm8k")) is None
    make(sets)
    assert said in str(cope(lambda: check(str(sets), "gsm8k")))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("suffix", list(user_files.FILES))
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is a named pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (lambda path: path.symlink_to(path.name), "no such|has no|cannot be read|symbolic links"),
        (Path.mkdir, "is a directory|has no"),
        (lambda path: path.symlink_to("gone"), "no such file|has no"),
    ],
)
def test_a_file_that_is_none_is_refused(
    sets: Path, make: Callable[[Path], Any], said: str, suffix: str
) -> None:
    """As the source, and as the set in a directory."""
    import re

    make(sets / f"alone{suffix}")
    (sets / "set").mkdir()
    make(sets / "set" / f"test{suffix}")
    for source, name in ((sets / f"alone{suffix}", "mine"), (sets, "set")):
        found = cope(lambda source=source, name=name: check(str(source), name))  # type: ignore[misc]
        assert re.search(said, str(found)), found


def test_the_whole_disk_is_no_source(tmp_path: Path) -> None:
    """Not even its files are counted, as it lacks the set."""
    home = ("--home", str(tmp_path))
    began = time.process_time()
    (line,) = faults(call("prepare", "--set", "prepare.source=/", *home))
    assert line.startswith("/: has no tuned/train.jsonl")
    assert time.process_time() - began < 2


@pytest.mark.parametrize("number", ["1000000000000", "20001"])
def test_the_micro_world_draws_no_more_than_it_can(number: str, tmp_path: Path) -> None:
    home = ("--home", str(tmp_path))
    (line,) = faults(call("prepare", "--set", f"prepare.n_problems={number}", *home))
    assert "must be <= 10,000,000" in line or "at most 20,000 problems, 20,001 wanted" in line


@pytest.mark.parametrize("name", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_odd_names_of_sources_and_sets(name: str, sets: Path) -> None:
    if name.isprintable() and len(name) < 1_000:  # config.py refuses the rest
        for source, wanted in ((name, "gsm8k"), (str(sets), name), (f"{sets}/{name}.jsonl", "a")):
            cope(lambda source=source, wanted=wanted: check(source, wanted))  # type: ignore[misc]


def test_without_the_hub_missing_demos_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clients would try again for half a minute."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    source = put(tmp_path, "mmlu_stem", row_text(LAYOUTS["mmlu_stem"]).encode())
    began = time.monotonic()
    with pytest.raises(ProblemsError, match=r"put its 5 demos there") as error:
        check(source, "mmlu_stem")
    assert time.monotonic() - began < 20, error
    from huggingface_hub import constants

    assert not constants.HF_HUB_OFFLINE


def test_a_hub_that_says_nothing_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and is silent."""
    import socket

    monkeypatch.setattr(hub, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as door:
        assert not hub._answers(f"http://127.0.0.1:{door.getsockname()[1]}")


def test_odd_trees_hold_odd_values() -> None:
    """The generator puts something odd into most rows."""
    rows = [row_text(odd_row(Random(n), "math")) for n in range(50)]
    assert sum(row != row_text(LAYOUTS["math"]) for row in rows) > 45
    assert odd_value(Random(0)) is not None
