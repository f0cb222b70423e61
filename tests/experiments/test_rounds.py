"""Rounds as a table, from reports, scores and steps written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from written_scores import write_scores
from written_steps import write_steps

from lightreasoner.errors import ArtifactError
from lightreasoner.evaluation import pairing
from lightreasoner.evaluation.evaluate import summarise
from lightreasoner.experiments import rounds
from lightreasoner.experiments.rounds import Round
from lightreasoner.report import page
from lightreasoner.storage.artifacts import Artifact

BASE, FIRST, SECOND = "+-------", "++++++--", "+++++++t"


def scored(out: Path, marks: str) -> Path:
    """Scores of the set `a`: `+` is right by both verdicts, `t` by the toolkit's alone."""
    return write_scores(out, "cot", {"a": marks})


def write_round(out: Path, marks: str, selected: int) -> Round:
    """A round whose model answers so, tuned on `selected` of 40 steps."""
    base = pairing.read_scores(scored(out / "base", BASE))
    tuned = pairing.read_scores(scored(out / "scores", marks))
    tree = {
        "samples": {
            "trajectories": 4, "steps": 40, "selected": selected, "selected_share": selected / 40,
            "mean_kl": 0.25,
        },
        "drift": {"drift": 0.0225, "top1_kept": 0.986, "drift_taught": 0.5},
        "styles": {"base": "cot", "lightreasoner": "cot"},
        "scores": {
            name: {"a": summarise(each.rows)} for name, each in
            (("base", base), ("lightreasoner", tuned))
        },
        "paired": page.paired(base, tuned),
    }  # fmt: skip
    (out / "report").mkdir()
    (out / "report" / "tables.json").write_text(json.dumps(tree), encoding="utf-8")
    return Round(out / "report", out / "scores", write_steps(out / "moved"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Round]:
    out = tmp_path_factory.mktemp("rounds")
    return [write_round(out / "1", FIRST, 10), write_round(out / "2", SECOND, 2)]


@pytest.fixture(scope="module")
def found(made: list[Round]) -> dict[str, Any]:
    """Two rounds and a third that selected nothing."""
    entries = [{"model": f"store/{n}", **rounds.entry(made[:n])} for n in (1, 2)]
    missing = {"missing": "no step has KL > select.beta 0.4"}
    return {"later_amateur": "previous", "rounds": [*entries, missing]}


def test_a_round_is_set_against_the_base_and_the_round_before(found: dict[str, Any]) -> None:
    """Right by strict: 1, 6, 7 of 8; by the toolkit's: 1, 6, 8."""
    first, second, _ = found["rounds"]
    assert first["paired_before"] is None
    assert second["paired"]["a"]["difference"] == 6 / 8
    assert second["paired_before"]["a"]["difference"] == 1 / 8
    assert second["paired_before"]["a"]["qwen"]["difference"] == 2 / 8
    assert second["paired_before"]["a"]["p"] == 1


def test_the_drift_from_the_base_is_over_all_steps(found: dict[str, Any]) -> None:
    """KL 0.1, 1, 0.3, 0 and 5; the likeliest tokens agree at three of the five steps."""
    drift = found["rounds"][1]["drift_from_base"]
    assert drift == pytest.approx({"drift": 6.4 / 5, "top1_kept": 3 / 5})


def test_the_table(found: dict[str, Any]) -> None:
    headings, *rows = rounds.table(found)
    assert headings == ["measure", "base", "round 1", "round 2", "round 3"]
    cells = {title: row for title, *row in rows}
    assert cells["samples (share of steps)"] == ["–", "10 (25.0%)", "2 (5.0%)", "–"]
    assert cells["drift from the round's expert, nats (top-1 kept)"][1] == "0.0225 (98.6%)"
    assert cells["drift from the base, nats (top-1 kept)"][2] == "1.28 (60.0%)"
    assert [cell.split()[0] for cell in cells["a, strict (n 8)"]] == [
        "12.5%",
        "75.0%",
        "87.5%",
        "–",
    ]
    assert [cell.split()[0] for cell in cells["a, qwen (n 8)"]] == ["12.5%", "75.0%", "100.0%", "–"]
    assert cells["a, strict: to the base, points"][1].startswith("+62.5 (")
    # 5 gained, none lost: 2 / 2**5.
    assert cells["a, strict: to the base, points"][1].endswith(", p 0.062")
    before = cells["a, qwen: to the round before, points"]
    assert before[:2] == ["–", "–"]
    assert before[2].startswith("+25.0 (")


def test_notes_say_why_there_is_no_round_and_where_the_models_are(found: dict[str, Any]) -> None:
    notes = rounds.notes(found)
    assert notes[0] == "Amateur from the second round on: the expert of the round before."
    assert notes[-3:] == [
        "Round 1: store/1",
        "Round 2: store/2",
        "Round 3: no step has KL > select.beta 0.4",
    ]
    assert "80% power where 20% of the problems change, in points by set: a –." in notes[2]
    text = rounds.markdown(found)
    assert text.endswith(f"{notes[-1]}\n")
    bars = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert bars == {6}  # around five cells
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_metrics_of_a_round(found: dict[str, Any]) -> None:
    assert rounds.metrics(found["rounds"][1]) == pytest.approx(
        {
            "selected": 2,
            "selected_share": 0.05,
            "mean_kl": 0.25,
            "drift_from_base": 1.28,
            "top1_kept_from_base": 0.6,
            "gain_before/a": 1 / 8,
        }
    )


def test_rounds_of_other_problems_are_refused(tmp_path: Path, made: list[Round]) -> None:
    other = Round(made[1].report, scored(tmp_path / "other", "+"), made[1].moved)
    with pytest.raises(ArtifactError, match="not of the same problems"):
        rounds.entry([made[0], other])


def test_who_is_expert_and_amateur() -> None:
    base, one, two, amateur = (Artifact(Path(name), name) for name in ("b", "1", "2", "a"))
    for later in ("same", "previous"):
        assert rounds.pair([base], amateur, later) == (base, amateur)
    assert rounds.pair([base, one], amateur, "same") == (one, amateur)
    assert rounds.pair([base, one], amateur, "previous") == (one, base)
    assert rounds.pair([base, one, two], amateur, "same") == (two, amateur)
    assert rounds.pair([base, one, two], amateur, "previous") == (two, one)
