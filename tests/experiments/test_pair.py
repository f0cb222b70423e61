"""The gap of a pair, from responses marked by hand."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import written_steps
from written_scores import write_scores

from lightreasoner.config import Select
from lightreasoner.errors import ArtifactError, SelectionError
from lightreasoner.experiments import pair

STYLE = "cot"
GOOD = pair.Teaching(steps=100, samples=10, several=4, pull=20.0)
EXPERT = {"gsm8k": "++++++++!-", "svamp": "+--l", "own": "-+"}
AMATEUR = {"gsm8k": "++-------l", "svamp": "+-l-", "own": "++"}


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Any]:
    return pair.gap(
        write_scores(tmp_path / "expert", STYLE, EXPERT),
        write_scores(tmp_path / "amateur", STYLE, AMATEUR),
    )


def test_the_gap_by_hand(found: dict[str, Any]) -> None:
    """gsm8k: 8 against 2 of 10 by qwen, 9 against 2 by strict, none lost: p 2 / 2^6 and 2 / 2^7."""
    assert [entry["n"] for entry in found.values()] == [10, 4, 2]
    gsm8k = found["gsm8k"]
    assert gsm8k["expert"]["qwen"]["accuracy"] == 0.8
    assert gsm8k["amateur"]["strict"]["accuracy"] == 0.2
    assert gsm8k["gap"]["qwen"]["difference"] == pytest.approx(0.6)
    assert gsm8k["gap"]["strict"]["difference"] == pytest.approx(0.7)
    assert (gsm8k["gap"]["qwen"]["p"], gsm8k["gap"]["strict"]["p"]) == (2 / 2**6, 2 / 2**7)
    assert found["own"]["gap"]["strict"]["difference"] == -0.5
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_table(found: dict[str, Any]) -> None:
    """Wilson of 8 of 10 is 49.0 to 94.3, of 2 of 10 5.7 to 51.0; one of 20 has no answer."""
    table = pair.gap_rows(found)
    assert {len(row) for row in table} == {len(pair.HEADINGS)}
    assert [row[:3] for row in table[:2]] == [("gsm8k", "10", "qwen"), ("gsm8k", "10", "strict")]
    assert table[0][3:6] == ("80.0% (49.0-94.3)", "20.0% (5.7-51.0)", "+60.0 (+30.0 to +90.0)")
    assert table[0][6:] == ("0.031", "0.0% / 10.0%")
    gaps = ["+60.0", "+70.0", "+0.0", "+0.0", "-50.0", "-50.0"]
    assert [row[5].partition(" ")[0] for row in table] == gaps


def test_sets_without_a_lead_are_warned_of(found: dict[str, Any]) -> None:
    warnings = pair.warnings(found, GOOD)
    assert [line.partition(":")[0] for line in warnings] == ["svamp", "own"]
    assert "the gap of -50.0 points has a 95% interval of -100.0 to +0.0 (strict), " in warnings[1]
    assert "choose a weaker amateur or a stronger expert, or grade more problems" in warnings[1]


def test_a_lead_by_the_toolkits_verdict_alone_is_no_lead(tmp_path: Path) -> None:
    expert = write_scores(tmp_path / "expert", STYLE, {"own": "~" * 10})
    amateur = write_scores(tmp_path / "amateur", STYLE, {"own": "-" * 10})
    found = pair.gap(expert, amateur)
    assert found["own"]["gap"]["qwen"]["difference"] == 1
    assert len(pair.warnings(found, GOOD)) == 1
    assert len(pair.warnings(pair.gap(expert, expert), GOOD)) == 1


def test_scores_of_other_conditions_are_refused(tmp_path: Path) -> None:
    expert = write_scores(tmp_path / "expert", "cot", {"own": "+"})
    amateur = write_scores(tmp_path / "amateur", "chat", {"own": "-"})
    with pytest.raises(ArtifactError, match="were made under different conditions"):
        pair.gap(expert, amateur)


def test_what_would_be_selected_by_hand(tmp_path: Path) -> None:
    """Of tests/written_steps.py's five steps two are over 0.4 nats: pi_E (3/4, 1/4) against pi_A
    (1/8, 1/16) is v_C (.6, .4); (1, 1/2), that is (2/3, 1/3), against (.01, .9) is (180, 1) / 181.
    At alpha .6 either support is one token."""
    steps = written_steps.write_steps(tmp_path)
    found = pair.teaching(steps, Select(alpha=0.2, beta=0.4))
    pull = 0.6 * math.log(0.6 / 0.75) + 0.4 * math.log(0.4 / 0.25)
    pull += 180 / 181 * math.log(180 / 181 * 3 / 2) + 1 / 181 * math.log(3 / 181)
    assert found == (5, 2, 2, pytest.approx(pull, rel=1e-5))
    assert pair.teaching(steps, Select(alpha=0.6, beta=0.4)) == pair.Teaching(5, 2, 0, 0.0)
    assert pair.teaching(steps, Select(beta=9.0)) == pair.Teaching(5, 0, 0, 0.0)
    assert pair.teaching(steps, Select(label="one_hot", beta=0.4)).pull is None
    with pytest.raises(SelectionError, match=r"alpha 0\.001"):
        pair.teaching(steps, Select(alpha=0.001))
