"""The table of faults says what became of each."""

from pathlib import Path

import ledger
import pytest


@pytest.fixture(autouse=True)
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "TRIES", tmp_path / "build" / "faults.jsonl")


def test_tries_are_counted_by_fault_and_stage() -> None:
    for repeated in (0, 1):
        with ledger.trial("SIGKILL", "score") as trial:
            trial.repeated = repeated
    with pytest.raises(AssertionError), ledger.trial("SIGKILL", "score"):
        raise AssertionError
    with pytest.raises(pytest.skip.Exception), ledger.trial("full disk", "score"):
        pytest.skip("not here")
    with ledger.trial("SIGTERM", "merge"):
        pass
    assert ledger.table() == [
        "| fault   | stage | tries | survived | lost | repeated shards |",
        "| ------- | ----- | ----: | -------: | ---: | --------------: |",
        "| SIGKILL | score |     3 |        2 |    1 |               1 |",
        "| SIGTERM | merge |     1 |        1 |    0 |               0 |",
        "| all     |       |     4 |        3 |    1 |               1 |",
    ]


def test_a_new_table_is_empty() -> None:
    with ledger.trial("SIGKILL", "score"):
        pass
    ledger.forget()
    assert ledger.table() == []


def test_moments_depend_on_the_seed_and_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ledger.chance("kill", "score").random()
    assert ledger.chance("kill", "score").random() == first
    assert ledger.chance("kill", "merge").random() != first
    monkeypatch.setattr(ledger, "SEED", "another")
    assert ledger.chance("kill", "score").random() != first
