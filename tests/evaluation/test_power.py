"""What an evaluation can show: the formulas are the statistics' (tests/test_statistics.py)."""

import json

import pytest
from command_line import call, faults

from lightreasoner import config, presets
from lightreasoner.config import Params
from lightreasoner.evaluation import power


def params(gain: float = 10.0, **evaluate: object) -> Params:
    tree = presets.PRESETS["microworld"].model_dump(mode="json")
    tree["evaluate"] |= evaluate
    tree["register"]["gain_to_show"] = gain
    return config.parse(tree, "test")


def test_sizes_are_those_that_are_evaluated() -> None:
    """Of sets in files only evaluate.n_problems says a size."""
    files = {"source": "sets", "problem_sets": ["gsm8k", "minerva_math", "own"]}
    assert power.sizes(params(**files, n_problems=None)) == {"gsm8k": 1319, "minerva_math": 272}
    assert power.sizes(params(**files, n_problems=300)) == {
        "gsm8k": 300,
        "minerva_math": 272,
        "own": 300,
    }


def test_a_set_that_is_too_small_is_warned_of() -> None:
    assert power.warnings(params()) == []  # 155 of 500
    (first, *_) = power.warnings(params(gain=5.0))
    assert first.startswith("tuned: 500 problems seldom show a gain of +5.0 points, which needs ab")
    assert "about 626;" in first
    assert len(power.warnings(params(n_problems=20))) == 3
    assert len(power.warnings(params(gain=100.0, n_problems=2))) == 3  # all would have to change


def test_the_papers_own_gains_are_seldom_shown_by_minerva() -> None:
    (said,) = power.warnings(presets.PRESETS["qwen2.5-math-7b"])
    assert said.startswith("minerva_math: 272 problems seldom show a gain of +5.0 points")


def test_the_command() -> None:
    said = call("power", "--gain", "5", "--benchmarks")
    assert said.exit_code == 0, said.output
    assert said.stdout.startswith(
        "a gain of +5.0 points where 20.0% of the problems change: 626 problems show it with 80% "
        "power, 837 with 90% power\n"
    )
    rows = [line.split() for line in said.stdout.splitlines()]
    assert ["math500", "500", "+5.6", "+6.5"] in rows
    assert ["minerva_math", "272", "+7.6", "+8.7"] in rows


def test_the_command_as_json() -> None:
    said = call("power", "--gain", "5", "--set", "evaluate.n_problems=10", "--json")
    found = json.loads(said.stdout)
    assert found["problems"] == {"0.8": 626, "0.9": 837}
    assert found["sets"]["tuned"] == {"n": 10, "gain": {"0.8": None, "0.9": None}}


def test_the_command_takes_the_parameters_sets() -> None:
    said = call("power", "--set", "evaluate.n_problems=155", "--set", "register.gain_to_show=10")
    assert said.stdout.startswith("a gain of +10.0 points where 20.0% of the problems change: 155 ")
    assert ["tuned", "155", "+10.0", "+11.5"] in [line.split() for line in said.stdout.splitlines()]


@pytest.mark.parametrize(("gain", "said"), [("0.01", "+0.01"), ("0.15", "+0.15"), ("12", "+12.0")])
def test_a_gain_is_said_as_it_was_asked_for(gain: str, said: str) -> None:
    assert call("power", "--gain", gain).stdout.startswith(f"a gain of {said} points where ")


def test_what_millions_of_problems_show_is_not_nothing() -> None:
    assert power.rows({"own": 10_000_000}, 0.2) == [("own", "10,000,000", "+0.04", "+0.046")]


@pytest.mark.parametrize("gain", ["0", "-1", "1e-300", "0.009", "21", "nan", "inf"])
def test_an_impossible_gain_is_refused(gain: str) -> None:
    (said,) = faults(call("power", f"--gain={gain}"))
    assert said.startswith(f"--gain {float(gain):g}: must be 0.01 to 20 points, the share of")
    assert faults(call("power", "--changed", "1.5"))
    if float(gain) < 0.01:
        assert faults(call("power", "--set", f"register.gain_to_show={gain}"))


def test_a_gain_may_be_all_that_changes() -> None:
    """Also where 100 times the share is less than the gain, as 100 * 0.57 is."""
    said = call("power", "--gain", "57", "--changed", "0.57")
    assert said.exit_code == 0, said.output


def test_a_note_says_what_each_set_can_show() -> None:
    assert power.note({"math500": 500, "minerva_math": 272, "few": 5}) == (
        "Gain that shows with 80% power where 20% of the problems change, in points by set: "
        "math500 +5.6, minerva_math +7.6, few –."
    )
