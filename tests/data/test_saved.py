"""Folders of `save_to_disk`: read as their rows are elsewhere, refused where they lead out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from lightreasoner.data import demos, sources
from lightreasoner.data.reading import Reading
from lightreasoner.errors import ProblemsError

ROWS = [{"question": f"q{n}?", "answer": str(n)} for n in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "set", num_shards=2)
    return tmp_path / "set"


def draw(source: Path, split: str = "train", **columns: str) -> list[tuple[str, str, str | None]]:
    reading = Reading("prepare", columns, needs="")
    found = sources.draw_problems(str(source), "mine", split, None, 0, reading=reading)
    return [(each.id, each.question, each.answer) for each in found]


def refused(source: Path, split: str = "train") -> str:
    with pytest.raises(ProblemsError) as caught:
        sources.check(str(source), ["mine"], split, None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_dataset_is_one_set(folder: Path) -> None:
    assert draw(folder) == [(f"mine/train/{n:05d}", f"q{n}?", str(n)) for n in range(3)]
    assert [row[1:] for row in draw(folder, "test")] == [row[1:] for row in draw(folder)]
    with pytest.raises(ProblemsError, match="holds one set, 2 are named"):
        sources.check(str(folder), ["a", "b"], "test", None)
    assert demos.of(str(folder), "mine", None, 0, ()) == {}


def test_an_arrow_file_of_a_dataset_reads_as_the_dataset(folder: Path) -> None:
    (first, second) = sorted(folder.glob("*.arrow"))
    rows = [row[1:] for path in (first, second) for row in draw(path)]
    assert rows == [row[1:] for row in draw(folder)]


def test_conversations_of_a_dataset_are_read(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q?"}, {"role": "assistant", "content": "7"}]
    datasets.Dataset.from_list([{"talk": turns, "n": 1}]).save_to_disk(tmp_path / "set")
    assert draw(tmp_path / "set", messages="talk") == [("mine/train/00000", "q?", "7")]


def test_a_dict_has_splits_of_which_one_is_read(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_list(ROWS)
    parts = {"train": whole.select([0]), "valid": whole.select([1, 2])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "sets")
    assert draw(tmp_path / "sets") == [("mine/train/00000", "q0?", "0")]
    said = refused(tmp_path / "sets", "test")
    assert said == (
        f"{tmp_path}/sets: a DatasetDict without the split test, which is read here; it has train, "
        f"valid; give one of them as the source, as {tmp_path}/sets/SPLIT"
    )
    assert [row[1] for row in draw(tmp_path / "sets" / "valid", "test")] == ["q1?", "q2?"]
    shown = demos.of(str(tmp_path / "sets"), "mine", None, 0, ())
    assert (shown, sources.has_split(str(tmp_path / "sets"), "mine", "train")) == ({}, True)
    assert not sources.has_split(str(tmp_path / "sets"), "mine", "test")


def state(folder: Path, tree: Any) -> None:
    (folder / "state.json").write_text(json.dumps(tree))


def packed(folder: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    path = sorted(folder.glob("*.arrow"))[0]
    with pa.ipc.new_stream(str(path), table.schema, options=options) as out:
        out.write_table(table)


def spoilt(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: next(iter(sorted(folder.glob(name)))).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: state(folder, {"_data_files": [{"filename": "../a.arrow"}]}), "beside it"),
        (lambda folder: state(folder, {"_data_files": [{"filename": ".."}]}), "beside it"),
        (lambda folder: state(folder, {"_data_files": 7}), "beside it"),
        (lambda folder: state(folder, []), "beside it"),
        (spoilt("state.json", b"[" * 100_000), "nested over 100 deep"),
        (spoilt("dataset_info.json", b"[]"), "not a readable Dataset of save_to_disk"),
        (spoilt("dataset_info.json", b'{"features": {"a": {"_type": "os"}}}'), "not a readable"),
        (lambda folder: (folder / "dataset_info.json").unlink(), "not a readable Dataset"),
        (spoilt("*.arrow", b"nothing"), "not a readable Dataset"),
        (packed, "it is compressed"),
    ],
)
def test_a_folder_that_leads_out_or_is_damaged_is_one_line(
    folder: Path, spoil: Callable[[Path], Any], said: str
) -> None:
    spoil(folder)
    assert said in refused(folder)


def test_a_dict_that_leads_out_is_refused(folder: Path) -> None:
    (folder.parent / "dict").mkdir()
    (folder.parent / "dict" / "dataset_dict.json").write_text('{"splits": ["../set"]}')
    assert "must name what lies beside it" in refused(folder.parent / "dict")
