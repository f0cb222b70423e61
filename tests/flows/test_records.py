"""The records of finished runs: which one a name or an id stands for."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from flows.results import records
from flows.results.records import Record, RecordError
from lightreasoner.presets import PRESETS
from tasks.tracking import lookup
from tasks.tracking.lookup import Seen

NOWHERE = "sqlite:///nowhere"
ONE = Record(
    name="one",
    prefect="11111111-aaaa",
    mlflow="1111",
    finished=100.0,
    params=PRESETS["microworld"].model_dump(mode="json"),
    fingerprints={"select": "f"},
    digests={"select": "d"},
    registered_model={"name": "m", "version": "1", "alias": "candidate", "gate": {}},
)
TWO = replace(ONE, name="two", prefect="22222222-bbbb", mlflow="2222", finished=300.0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for record in (ONE, TWO):
        records.keep(tmp_path, record)
    return tmp_path


def test_without_a_name_it_is_the_newest(home: Path) -> None:
    assert records.find(home, None, NOWHERE) == TWO


def test_the_last_that_was_kept_is_the_newest_though_the_clock_was_set_back(home: Path) -> None:
    """What is kept twice, without its model and with it, keeps its time."""
    late = replace(ONE, name="late", prefect="33333333-cccc", finished=1.0)
    for _ in range(2):
        records.keep(home, late)
        assert records.find(home, None, NOWHERE) == replace(late, finished=301.0)


@pytest.mark.parametrize("run", ["one", "11111111-aaaa", "11111111-AAAA", "1111"])
def test_by_name_and_by_either_id(run: str, home: Path) -> None:
    assert records.find(home, run, NOWHERE) == ONE


def test_runs_of_one_name_and_one_result_are_one(home: Path) -> None:
    again = replace(ONE, prefect="33333333", mlflow="", finished=400.0)
    again.registered_model["gate"] = {"verdict": "kept"}
    records.keep(home, again)
    assert records.find(home, "one", NOWHERE) == again


def test_runs_of_one_name_and_several_results_need_an_id(home: Path) -> None:
    records.keep(home, replace(ONE, prefect="33333333", mlflow="", digests={"select": "e"}))
    with pytest.raises(RecordError, match=r"'one' is several with different .*11111111-aaaa \(19"):
        records.find(home, "one", NOWHERE)
    assert records.find(home, "33333333", NOWHERE).digests == {"select": "e"}


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (None, "no finished run of the pipeline has this name or id; the last ones are 'two', 'on"),
        (Seen("comparison", "", True), "is of the kind comparison; only runs of the pipeline"),
        (Seen("pipeline", "it failed (OSError: x)", False), "has not finished: it failed (OSErr"),
        (Seen("pipeline", "", True), "has finished, but "),
    ],
)
def test_why_a_run_cannot_be_published(
    seen: Seen | None, said: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "look_up", lambda *_: seen)
    with pytest.raises(RecordError) as error:
        records.find(home, "another", NOWHERE)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no finished run of the pipeline is recorded; make one"):
        records.find(tmp_path, None, NOWHERE)


def test_a_torn_file_is_no_record(home: Path) -> None:
    (home / "runs" / "torn.json").write_text("{", encoding="utf-8")
    (home / "runs" / "other.json").write_text(json.dumps({"name": "x"}), encoding="utf-8")
    assert records.newest_first(home) == [TWO, ONE]


def test_parameters_of_another_version_are_said() -> None:
    old = replace(ONE, params={**ONE.params, "select": {"gamma": 1}})
    with pytest.raises(RecordError, match="those of another version of lightreasoner"):
        old.values()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[]",
        "{}",
        '{"finished": "soon"}',
        json.dumps(asdict(replace(ONE, finished=1e30))),
        json.dumps(asdict(replace(ONE, finished=float("nan")))),
        json.dumps(asdict(ONE) | {"digests": []}),
        json.dumps(asdict(ONE) | {"name": None}),
    ],
)
def test_a_file_that_is_no_record_is_left_out(home: Path, text: str) -> None:
    (home / "runs" / "0.json").write_text(text)
    os.mkfifo(home / "runs" / "1.json")
    (home / "runs" / "2.json").mkdir()
    (home / "runs" / "3.json").symlink_to("nowhere")
    assert records.newest_first(home) == [TWO, ONE]
    assert records.find(home, None, NOWHERE).ended()
