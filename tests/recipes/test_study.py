"""The study: verdicts by hand, and all of its arms with tiny models."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from flows.compare import under_one_prompt
from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.errors import ModelError
from lightreasoner.evaluation import power
from lightreasoner.pipeline.store import Store
from recipes.study import __main__ as study
from recipes.study import claims, page, run
from recipes.study.arms import ARMS, OURS, TABLES
from recipes.study.claims import Claim

SETS = ("tuned", "transfer", "chain_sum")


def found(difference: float, width: float = 0.02) -> dict[str, Any]:
    each = {"difference": difference, "ci95": [difference - width, difference + width]}
    return {"scores": dict.fromkeys(SETS, each), "mean": each}


def arms(**lost: float) -> dict[str, Any]:
    """A seed in which LightReasoner gains 30 points and other arms so much less."""
    return {
        name: {"to_base": found(0.3 - less), "to_ours": found(-less)}
        for name, less in {OURS: 0.0, **lost}.items()
    }


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ((0.1, 0.05), "holds here"),
        ((-0.1, -0.05), "does not hold here"),
        ((0.1, 0.01), "not shown here"),
        ((0.1, -0.1), "not shown here"),
    ],
)
def test_a_difference_holds_if_it_shows_at_every_seed(
    losses: tuple[float, ...], verdict: str
) -> None:
    claim = Claim("more than SFT", "", "", claims.over("sft"))
    said, judged = claim.judge([arms(sft=less) for less in losses])
    assert judged == verdict
    assert [part[:5].strip() for part in said.split("; ")] == [f"{100 * x:+.1f}" for x in losses]


def test_gains_are_read_per_set_and_in_the_mean() -> None:
    assert claims.gain(OURS)(arms()) == claims.gain(OURS, "transfer")(arms())
    assert claims.gain(OURS)(arms())[1] == 1
    assert claims.gain("sft")(arms(sft=0.3))[1] == 0
    assert claims.gain("sft")(arms(sft=0.4))[1] == -1


def test_shares_are_what_is_saved() -> None:
    costs = {OURS: {"problems": 20}, "sft": {"problems": 100}}
    assert claims.saved(("problems",), 0.8)(costs) == ("80.0% less (20 against 100)", 1)
    assert claims.saved(("problems",), 0.9)(costs)[1] == -1
    more = {OURS: {"problems": 120}, "sft": {"problems": 100}}
    assert claims.saved(("problems",), 0.8)(more) == ("20.0% more (120 against 100)", -1)


def test_synergy_is_more_than_the_sum() -> None:
    assert claims.synergy(arms(neither=0.25, no_selection=0.05, no_contrast=0.1))[1] == 1
    assert claims.synergy(arms(neither=0.05, no_selection=0.05, no_contrast=0.1))[1] == -1


def test_synergy_within_its_interval_is_open() -> None:
    """Three intervals of 2 points to either side make one of at most 6."""
    said = claims.synergy(arms(neither=0.14, no_selection=0.05, no_contrast=0.1))
    assert said == ("-1.0 (-7.0 to +5.0)", 0)


@pytest.mark.parametrize(("lost", "sign"), [(0.3, 1), (0.35, 1), (0.1, -1), (0.0, -1)])
def test_an_amateur_ahead_brings_no_gain_if_none_shows(lost: float, sign: int) -> None:
    assert claims.no_gap(arms(stronger=lost))[1] == sign


def test_an_amateur_ahead_that_costs_accuracy_is_said_to() -> None:
    assert claims.no_gap(arms(stronger=0.35))[0] == "a loss -5.0 (-7.0 to -3.0)"
    assert claims.no_gap(arms(stronger=0.3))[0].startswith("no gain shows ")


def test_the_page_says_which_faults_were_not_tried() -> None:
    """Each of those that a setting repeats is an arm, or is named."""
    said = (study.RESULTS / "study.md").read_text(encoding="utf-8")
    tried = [change for arm in ARMS.values() for change in arm.changes]
    settings = {"select": config.Select, "finetune": config.Finetune}
    for section, model in settings.items():
        (faults,) = [
            get_args(each)
            for each in get_args(model.model_fields["reference"].annotation)
            if get_args(each)
        ]
        for fault in faults:
            is_tried = f"{section}.reference=[{fault}]" in tried
            assert is_tried != (f"`{section}.reference=[{fault}]`" in said), fault


def test_few_amateurs_have_their_ranks_p_exactly() -> None:
    """Of the 120 orders of five, 28 have a rank correlation of at least 0.7 or at most -0.7."""
    seed = arms(**dict.fromkeys(TABLES["Amateurs"], 0.0))
    ranks = (1, 2, 5, 3, 4)  # sum of squared differences 6: rho = 1 - 36 / 120
    for place, (rank, entry) in enumerate(zip(ranks, seed.values(), strict=True)):
        entry["gap"], entry["to_base"] = 0.1 * place, found(0.05 * rank)
    assert claims.by_gap(seed) == ("rho +0.70 (n 5, p 0.23)", 0)


def test_gains_by_gap_are_ranked() -> None:
    seed = arms(**dict.fromkeys(TABLES["Amateurs"], 0.0))
    for place, entry in enumerate(seed.values()):
        entry["gap"], entry["to_base"] = 0.1 * place, found(0.05 * place)
    assert claims.by_gap(seed)[1] == 1
    for place, entry in enumerate(seed.values()):
        entry["gap"] = -0.1 * place
    assert claims.by_gap(seed)[1] == 0


def test_an_arm_without_a_result_leaves_its_claim_open() -> None:
    claim = Claim("more than SFT", "", "", claims.over("sft"))
    said = claim.judge([arms(sft=0.1), {**arms(), "sft": {"missing": "nothing was kept"}}])
    assert said[0].endswith("no result (to_ours)")
    assert said[1] == "not shown here"


def test_the_committed_page_is_what_its_numbers_say() -> None:
    tree = json.loads((study.RESULTS / "study.json").read_text(encoding="utf-8"))
    text = page.markdown(tree)
    assert (study.RESULTS / "study.md").read_text(encoding="utf-8") == text
    assert (study.RESULTS / "study.html").read_text(encoding="utf-8") == page.html(
        text, study.TITLE
    )
    assert power.note(dict.fromkeys(SETS, 500)) in text


def test_what_cannot_be_tested_says_why() -> None:
    claim = Claim("on real models", "", "", why="no GPU")
    assert claim.judge([]) == ("no GPU", "cannot be tested here")


def test_every_arms_parameters_are_good() -> None:
    """And a seed is of problems, draws and tuning, never of the evaluation."""
    params = config.load(study.ROOT / "params.yaml", ())
    for name, arm in ARMS.items():
        changed = arm.params(params, 7)
        assert (changed.prepare.seed, changed.finetune.seed) == (7, 7), name
        assert changed.evaluate == params.evaluate


def test_an_arm_that_breaks_spares_the_others_and_names_the_one_that_needs_it(
    tiny_params: Params, tmp_path: Path
) -> None:
    broken = config.changed(tiny_params, ["finetune.target_modules=[nothing]"])
    store, runs = Store(tmp_path), dict[str, run.Run]()
    for name in (OURS, "stronger"):
        runs[name] = run._arm(ARMS[name], broken, 1, store, runs)
    said = str(runs[OURS].missing)
    assert "finetune.target_modules nothing" in said
    assert runs["stronger"].missing == f"its amateur, {OURS}, is missing: {said}"


def test_a_base_that_cannot_be_used_ends_a_study(tiny_params: Params, tmp_path: Path) -> None:
    gone = config.changed(tiny_params, [f"models.expert={tmp_path / 'none'}"])
    with pytest.raises(ModelError):
        run._arm(ARMS["base"], gone, 1, Store(tmp_path), {})


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_study_goes_on_and_its_page_has_every_claim_and_arm(
    tiny_params: Params, tmp_path: Path
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(json.dumps(tiny_params.model_dump(mode="json")), encoding="utf-8")
    options = ["--params", str(params), "--seeds", "1,2", "--home", str(tmp_path / "home")]
    asked = CliRunner().invoke(
        study.application(), ["run", *options, "--out", str(tmp_path / "out")]
    )
    assert asked.exit_code == 0, asked.output
    text = (tmp_path / "out" / "study.md").read_text(encoding="utf-8")
    for claim in claims.CLAIMS:
        assert claim.text in text
    for arm in ARMS.values():
        assert arm.title in text
    assert "<table>" in (tmp_path / "out" / "study.html").read_text(encoding="utf-8")
    tree = json.loads((tmp_path / "out" / "study.json").read_text(encoding="utf-8"))
    assert page.markdown(tree) == text
    again = run.run(under_one_prompt(tiny_params), [1, 2], tmp_path / "home")
    outcomes = [
        each for seed in again.values() for arm in seed.values() for each in arm.outcomes.values()
    ]
    assert outcomes
    assert all(each.cached for each in outcomes)
