"""A trajectory with all that is known of its steps, by hand; written_steps.py has the numbers."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_steps import SAMPLES, STEPS, write_samples, write_steps
from written_steps import write_tokenizer as write_model

from lightreasoner.errors import ArtifactError, ProblemsError
from lightreasoner.inference.token_text import Token
from lightreasoner.report import trajectories
from lightreasoner.report.trajectories import Candidate, Scored, Step

AND, PART, BOLD = Token(" &"), Token("⟨E2⟩"), Token("<b>")


def read(root: Path, **changed: Any) -> Scored:
    """The hand-made steps and samples, some of them changed."""
    steps = {name: changed[name] for name in ("steps", "trajectories") if name in changed}
    return trajectories.load_scored(
        write_steps(root / "steps", **steps),
        write_samples(root / "samples", changed.get("samples", SAMPLES)),
        write_model(root / "model"),
    )


@pytest.fixture
def scored(tmp_path: Path) -> Scored:
    return read(tmp_path)


def test_a_sample_by_hand(scored: Scored) -> None:
    found = trajectories.trajectory(scored, "set/p0")
    assert [step.token for step in found.steps] == [BOLD, AND, Token("\n")]
    assert (found.prompt, found.finish_reason) == ((Token("Q"), Token("\n")), "length")
    (sample,) = found.samples
    assert (sample.index, sample.kl, sample.level) == (1, 1.0, 2)
    assert (sample.expert_entropy, sample.amateur_entropy) == (0.5, 0.75)
    assert sample.amateur_elsewhere == Token("1")
    assert [(each.token, each.is_written) for each in sample.candidates] == [
        (AND, True), (PART, False),
    ]  # fmt: skip
    numbers = [(each.expert, each.amateur, each.weight) for each in sample.candidates]
    assert numbers == [pytest.approx((3 / 4, 1 / 8, 0.75)), pytest.approx((1 / 4, 1 / 16, 0.25))]


def test_a_step_that_is_no_sample(scored: Scored) -> None:
    first = trajectories.trajectory(scored, "set/p0").steps[0]
    assert (first.is_sample, first.level, first.amateur_elsewhere) == (False, 0, None)
    assert [each.token for each in first.candidates] == [BOLD, AND]
    assert all(each.weight is None for each in first.candidates)


def test_special_tokens_are_told_apart(scored: Scored) -> None:
    last = trajectories.trajectory(scored, "set/p1").steps[-1]
    assert last.token == Token("<|end|>", special=True)
    assert last.level == len(trajectories.KL_EDGES)


def test_each_side_has_its_own_order(scored: Scored) -> None:
    last = trajectories.trajectory(scored, "set/p1").steps[-1]
    assert [each.token.text for each in last.by_expert(1)] == ["<|end|>"]
    assert [each.token.text for each in last.by_amateur(1)] == ["2"]
    assert len(last.top(1)) == 2


def test_a_label_on_a_token_that_was_not_stored(tmp_path: Path) -> None:
    """select.label one_hot takes the token that the expert wrote, likely or not."""
    scored = read(tmp_path, samples=[("set/p0", 0, {2: 1.0}, 0.1)])
    (sample,) = trajectories.trajectory(scored, "set/p0").samples
    assert sample.candidates[-1] == Candidate(Token("2"), None, None, 1.0, False)
    assert sample.candidates[-1] in sample.top(1)


def test_a_step_that_was_left_out_is_not_scored(tmp_path: Path) -> None:
    found = trajectories.trajectory(
        read(tmp_path, steps=[STEPS[0], *STEPS[2:]], samples=[]), "set/p0"
    )
    assert (found.steps[1].kl, found.steps[1].level, found.steps[1].candidates) == (None, None, ())
    assert found.samples == []


@pytest.mark.parametrize(
    "changed",
    [
        {"trajectories": [("set/p0", [0], [5], "stop")]},
        {"samples": [("set/p0", 3, {6: 1.0}, 1.0)]},
    ],
)
def test_steps_of_another_trajectory_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=r"set/p0, step [13]: .* do not belong together"):
        trajectories.trajectory(read(tmp_path, **changed), "set/p0")


def test_samples_of_other_steps_are_refused(tmp_path: Path) -> None:
    steps, model = write_steps(tmp_path / "steps"), write_model(tmp_path / "model")
    samples = write_samples(tmp_path / "samples", steps_digest="0" * 32 + ".dir")
    with pytest.raises(ArtifactError, match="was not selected from"):
        trajectories.load_scored(steps, samples, model)


def test_a_directory_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    steps, samples = write_steps(tmp_path / "steps"), write_samples(tmp_path / "samples")
    with pytest.raises(ArtifactError, match=r"none: no tokenizer\.json; give the directory of"):
        trajectories.load_scored(steps, samples, tmp_path / "none")


def test_levels_count_the_edges_that_kl_exceeds() -> None:
    def level(kl: float) -> int | None:
        return Step(0, AND, kl, 0.0, 0.0, None, ()).level

    edges = trajectories.KL_EDGES
    assert [level(edge) for edge in (0.0, *edges)] == [0, *range(len(edges))]
    assert [level(edge + 1e-6) for edge in edges] == [*range(1, len(edges) + 1)]


def test_the_first_of_the_draw_are_shown_and_those_with_most_samples(tmp_path: Path) -> None:
    """One trajectory a problem among the first; ties go to the earlier one."""
    ids = ["a", "a#1", "b", "c", "d", "e", "f", "g"]
    counts = {"d": 1, "f": 2, "g": 1, "a": 3}
    scored = read(
        tmp_path,
        trajectories=[(id_, [0], [5, 6, 7], "stop") for id_ in ids],
        steps=[(id_, step, *STEPS[0][2:]) for id_ in ids for step in range(3)],
        samples=[(id_, step, {5: 1.0}, 0.1) for id_, n in counts.items() for step in range(n)],
    )
    assert trajectories.chosen(scored) == {
        "a": "first", "b": "first", "c": "first", "f": "most", "d": "most", "g": "most",
    }  # fmt: skip


IDS = ["set/train/001", "set/train/002", "set/test/002", "other/train/001#1"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("set/train/001", "set/train/001"),
        ("other", "other/train/001#1"),
        ("test/002", "set/test/002"),
        ("n/001", "set/train/001"),
    ],
)
def test_an_id_or_one_of_its_ends_is_enough(wanted: str, found: str) -> None:
    assert trajectories.find(IDS, wanted) == found


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("002", r"'002': 2 trajectories begin or end with it: set/train/002, set/test/002; give"),
        ("train", r"'train': none of 4 trajectories .*; similar: set/train/001, set/train/002"),
        ("set/trian/001", r"similar: set/train/001"),
        ("#", r"similar: other/train/001#1"),
    ],
)
def test_ids_near_a_wrong_one_are_named(wanted: str, message: str) -> None:
    with pytest.raises(ProblemsError, match=message):
        trajectories.find(IDS, wanted)


@given(st.text(max_size=20))
def test_whatever_is_wanted_is_found_or_refused_in_one_line(wanted: str) -> None:
    message = ""
    try:
        found = trajectories.find(IDS, wanted)
    except ProblemsError as error:
        found, message = IDS[0], str(error)
    assert found in IDS
    assert "\n" not in message
    assert not message or any(id_ in message for id_ in IDS)


def _luminance(colour: str) -> float:
    """WCAG's relative luminance of #rrggbb."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("theme", "direction"), [("light", -1), ("dark", 1)])
def test_shades_are_ordered_by_lightness_and_can_be_read(theme: str, direction: int) -> None:
    """Lightness alone says the order, so colour-blind readers lose nothing; text has 4.5 to 1."""
    shades = trajectories.SHADES[theme]
    assert len(shades) == len(trajectories.KL_EDGES)
    papers = [direction * _luminance(paper) for paper, _ in shades]
    assert papers == sorted(papers)
    for pair in shades:
        dark, light = sorted(map(_luminance, pair))
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_explaining_loads_no_model_library() -> None:
    code = (
        "import sys, lightreasoner.report.trajectories\n"
        "assert not {'torch', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
