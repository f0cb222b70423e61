"""The gate's decision, from scores written by hand: one mark a problem (written_scores.py)."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_scores import write_scores

from lightreasoner.errors import ArtifactError
from lightreasoner.evaluation.pairing import read_scores
from lightreasoner.evaluation.promotion import Champion, Decision, decide, problems_digest
from lightreasoner.statistics import level_of_try, sign_p

COT, BOXED = "cot", "qwen25-math-cot"
BASE = "+" * 20 + "-" * 80


def scores(folder: Path, name: str, marks: str, style: str = BOXED) -> Path:
    """A model's scores of the gate's set, and of another set which it gets wrong."""
    return write_scores(folder / name, style, {"gate": marks, "other": "-" * len(marks)})


def gated(folder: Path, candidate: str, champion: str | None = None, base: str = BASE) -> Decision:
    """The decision about these marks."""
    paths = [scores(folder, "base", base), scores(folder, "candidate", candidate)]
    standing = None
    if champion is not None:
        standing = Champion("3", scores(folder, "champion", champion))
    return decide("gate", *paths, standing)


def test_the_first_champion_only_has_to_beat_the_base(tmp_path: Path) -> None:
    """20 against 50 of 100 right: 30 gained, none lost."""
    found = gated(tmp_path, "+" * 50 + "-" * 50)
    assert found.verdict == "promoted"
    assert (found.n, found.problem_set, found.against, found.over_champion) == (
        100,
        "gate",
        None,
        None,
    )
    over = found.over_base
    assert (over.accuracy, over.other_accuracy, over.gained, over.lost) == (0.5, 0.2, 30, 0)
    assert over.difference == pytest.approx(0.3)
    assert 0.2 < over.ci95[0] < 0.3 < over.ci95[1] < 0.4
    assert found.reason.startswith("The first champion: it is better than the base. On 100 prob")
    assert "candidate minus base: +30.0 points (95% interval +2" in found.reason
    assert over.p == pytest.approx(2**-30)
    assert (found.tried, found.level) == (1, pytest.approx(0.01520, abs=5e-6))
    assert found.reason.endswith(
        "30 problems gained, 0 lost, p 9.3 × 10⁻¹⁰); p must be at most 0.015 for candidate 1 on "
        "these problems."
    )


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        ("+" * 18 + "-" * 82, "worse"),
        (BASE, "equal, problem by problem"),
        ("+" * 22 + "-" * 78, "2 of 100 gained: p is 0.25"),
        ("+" * 26 + "-" * 74, "6 gained, none lost: p is 0.0156, over 0.0152"),
        ("+" * 10 + "-" * 10 + "+" * 12 + "-" * 68, "12 gained, 10 lost"),
        ("+" * 20 + "~" * 80, "right by the toolkit's verdict only"),
    ],
)
def test_kept_unless_it_is_shown_to_be_better(candidate: str, why: str, tmp_path: Path) -> None:
    found = gated(tmp_path, candidate)
    assert found.verdict == "kept", why
    assert found.over_base.p > found.level
    assert found.reason.startswith("There is no champion yet: the candidate is not shown to be")


def test_a_candidate_must_beat_the_champion_too(tmp_path: Path) -> None:
    """Both beat the base by far; of the two, the champion is better."""
    found = gated(tmp_path, "+" * 50 + "-" * 50, "+" * 80 + "-" * 20)
    assert found.verdict == "kept"
    assert (found.against, found.over_base.is_shown(found.level)) == ("3", True)
    assert found.over_champion is not None
    assert (found.over_champion.gained, found.over_champion.lost) == (0, 30)
    assert found.reason.startswith("Version 3 stays champion: the candidate is not shown to be bet")
    assert "candidate minus champion (version 3): -30.0 points" in found.reason


def test_a_better_candidate_takes_over(tmp_path: Path) -> None:
    found = gated(tmp_path, "+" * 80 + "-" * 20, "+" * 50 + "-" * 50)
    assert found.verdict == "promoted"
    assert found.reason.startswith("Better than the base and than version 3, the champion. On 100")


def test_better_than_a_bad_champion_but_not_than_the_base_is_not_enough(tmp_path: Path) -> None:
    found = gated(tmp_path, BASE, "-" * 100)
    assert found.verdict == "kept"
    assert found.over_champion is not None
    assert found.over_champion.is_shown(found.level)
    assert found.reason.startswith("Version 3 stays champion: the candidate is not shown to be bet")


@pytest.mark.parametrize(("earlier", "verdict"), [(0, "promoted"), (1, "promoted"), (2, "kept")])
def test_each_further_candidate_must_be_surer(earlier: int, verdict: str, tmp_path: Path) -> None:
    """9 gained, none lost: p is 1/512; the levels are 1/66, 1/263 and 1/592."""
    paths = scores(tmp_path, "base", BASE), scores(tmp_path, "candidate", "+" * 29 + "-" * 71)
    asked = []

    def count(problems: str) -> int:
        asked.append(problems)
        return earlier

    found = decide("gate", *paths, earlier=count)
    assert (found.verdict, found.tried, asked) == (verdict, earlier + 1, [found.problems])
    assert f"for candidate {earlier + 1} on these problems" in found.reason


def false_champions(spends: bool, rows: int = 400, n: int = 500, candidates: int = 20) -> float:
    """The share of rows of candidates, all as good as the champion, that end with another one.

    A problem is right with a chance of its own, uniform in [0, 1], in each model anew.
    """
    rng, ended = np.random.default_rng(0), 0
    for _ in range(rows):
        chances = rng.random(n)
        champion, tried, is_false = rng.random(n) < chances, 0, False
        for _ in range(candidates):
            candidate, tried = rng.random(n) < chances, tried + 1
            p = sign_p(int((candidate & ~champion).sum()), int((champion & ~candidate).sum()))
            if p <= level_of_try(tried if spends else 1):
                champion, tried, is_false = candidate, 0, True
        ended += is_false
    return ended / rows


def test_twenty_equal_candidates_seldom_end_with_another_champion() -> None:
    """At one level for all about 13% of rows do; at the levels of the tries under 2.5%."""
    assert false_champions(spends=False) > 0.08
    assert false_champions(spends=True) <= 0.025


def test_ten_points_are_found_on_five_hundred_problems() -> None:
    """Half right before; 15% of problems gained, 5% lost: found in 99% at once, 80% at try 20."""
    rng = np.random.default_rng(0)
    changes = rng.multinomial(500, [0.15, 0.05, 0.8], size=1_000)
    p = np.array([sign_p(int(gained), int(lost)) for gained, lost, _ in changes])
    assert (p <= level_of_try(1)).mean() > 0.99
    assert (p <= level_of_try(20)).mean() > 0.8


def test_a_champion_without_scores_stays_whatever_the_candidate(tmp_path: Path) -> None:
    paths = scores(tmp_path, "base", BASE), scores(tmp_path, "candidate", "+" * 100)
    found = decide("gate", *paths, Champion("3", why="it is the candidate itself"))
    assert (found.verdict, found.against, found.over_champion) == ("kept", "3", None)
    assert found.reason.startswith("Version 3 stays champion: it is the candidate itself. On 100")
    assert "candidate minus base: +80.0 points" in found.reason


def test_the_base_may_have_another_prompt_but_the_champion_not(tmp_path: Path) -> None:
    base = scores(tmp_path, "base", BASE, COT)
    candidate = scores(tmp_path, "candidate", "+" * 50 + "-" * 50)
    found = decide("gate", base, candidate)
    assert found.verdict == "promoted"
    assert "holds what their prompts bring, too (cot, then qwen25-math-cot)." in found.reason
    champion = scores(tmp_path, "champion", BASE, COT)
    with pytest.raises(ArtifactError, match="different conditions"):
        decide("gate", base, candidate, Champion("3", champion))


def test_other_problems_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not of the same problems: 5 rows differ"):
        gated(tmp_path, "+" * 95)
    with pytest.raises(ArtifactError, match="has no problems of else; evaluate that set"):
        decide("else", tmp_path / "base", tmp_path / "candidate")


def test_several_responses_are_one_value_a_problem(tmp_path: Path) -> None:
    """One problem, right in 1 and in 3 of 4 responses; a repeated response is no new problem."""
    marks = {"base": "+---", "candidate": "+++-"}
    paths = [
        write_scores(tmp_path / name, BOXED, {"gate": each * 30}, responses=4)
        for name, each in marks.items()
    ]
    found = decide("gate", *paths)
    assert (found.n, found.over_base.gained) == (30, 30)
    assert found.over_base.difference == pytest.approx(0.5)


def test_the_problems_digest_names_the_problems_alone(tmp_path: Path) -> None:
    one = read_scores(scores(tmp_path, "one", "+-+")).rows
    two = read_scores(scores(tmp_path, "two", "-+-", COT)).rows
    assert problems_digest(one) == problems_digest(two[::-1])
    assert len(problems_digest(one)) == 32
    assert problems_digest(one) != problems_digest(one.replace({"gold": "4"}, "5"))
    assert problems_digest(one) != problems_digest(one[:2])


def test_a_decision_is_json(tmp_path: Path) -> None:
    found = gated(tmp_path, "+" * 50 + "-" * 50).as_tree()
    assert json.loads(json.dumps(found)) == found
    assert found["over_base"]["difference"] == pytest.approx(0.3)
    assert found["over_champion"] is None


@settings(max_examples=25)
@given(st.text("+-", min_size=30, max_size=30), st.text("+-", min_size=30, max_size=30))
def test_two_models_never_take_the_alias_from_each_other(one: str, two: str) -> None:
    """On the same problems no pair of models is each better than the other: no flapping."""
    with tempfile.TemporaryDirectory() as folder:
        first = gated(Path(folder, "1"), one, two, "-" * 30)
        second = gated(Path(folder, "2"), two, one, "-" * 30)
    assert not (first.verdict == second.verdict == "promoted")
