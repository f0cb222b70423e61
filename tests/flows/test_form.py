"""Forms: a preset and its fields as parameters, there and back, and what they refuse."""

import re
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, MinLen
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.compare import compare
from flows.forms import fields
from flows.forms.form import (
    LONGEST_SAID,
    ControlsForm,
    EvaluationForm,
    Form,
    RoundsForm,
    Settings,
    SweepForm,
    digest,
    shortest_first,
)
from flows.pipeline import lightreasoner
from lightreasoner import config
from lightreasoner.errors import ConfigError
from lightreasoner.evaluation.gains import Asked
from lightreasoner.presets import NAMES, PRESETS

LIMITS = (Ge, Gt, Le, MinLen)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "select.beta": st.floats(0, 20),
        "select.alpha": st.floats(0.01, 1),
        "finetune.updates": st.none() | st.integers(1, 9999),
        "finetune.learning_rate": st.floats(1e-9, 1),
        "evaluate.problem_sets": st.lists(st.sampled_from(["gsm8k", "no", "1e5"]), min_size=1),
        "prepare.source": st.text("ab:, #[]{}'\"=-é", min_size=1, max_size=120),
        "models.expert": st.sampled_from(["microworld/expert", "my models/a b", "o/n@c"]),
        "compute.gradient_checkpointing": st.booleans(),
        "finetune.target_modules": st.just(["q_proj"]),
        "generate.max_new_tokens": st.integers(1, 10**6),
    },
)


@given(st.sampled_from(NAMES), CHANGES)
def test_a_form_says_all_parameters(preset: Any, changes: dict[str, Any]) -> None:
    tree = PRESETS[preset].model_dump(mode="json")
    for place, value in changes.items():
        section, _, key = place.partition(".")
        tree[section][key] = value
    params = config.parse(tree, "test")
    made = Form.of(params)
    assert made.values() == params
    sent = made.model_dump(mode="json", exclude_unset=True)
    assert Form.model_validate(sent).values() == params


def test_a_form_of_a_preset_is_its_name() -> None:
    for name, params in PRESETS.items():
        assert Form.of(params).model_dump(exclude_unset=True) == {"preset": name}


def test_what_is_changed_stands_in_its_own_field() -> None:
    params = config.changed(PRESETS["microworld"], ["select.beta=0.5", "generate.seed=7"])
    said = Form.of(params).model_dump(exclude_unset=True)
    assert said == {"preset": "microworld", "beta": 0.5, "more": ("generate.seed=7",)}


def test_bounds_and_sentences_are_those_of_the_parameters() -> None:
    known = config.fields()
    for name, parameter in fields.PARAMETERS.items():
        ours, theirs = Form.model_fields[name], known[parameter]
        assert {*ours.metadata} >= {each for each in theirs.metadata if isinstance(each, LIMITS)}
        assert str(theirs.description) in str(ours.description)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"beta": -0.4}, "beta must be >= 0 nats, got -0.4"),
        ({"alpha": 1.5, "updates": 0}, "alpha must be <= 1, got 1.5; updates must be >= 1, got 0"),
        ({"preset": "qwen"}, "preset: input should be 'microworld', "),
        ({"betta": 1}, "betta is not a known key; did you mean beta?"),
        ({"more": ["select.bta=1"]}, "select.bta is not a known key; did you mean beta?"),
        ({"more": ["finetune.r=0"]}, "finetune.r must be >= 1, got 0"),
        ({"more": ["register.name=a.b"]}, "as MLflow requires; name it a-b, got 'a.b'"),
        ({"problem_sets": ["a+b"]}, "evaluate.problem_sets must be names of 1 to 100 letters"),
        ({"more": ["beta"]}, "more.0: string should match pattern"),
        ({"more": ["select.beta=1"], "beta": 2}, "select.beta is given twice"),
        ({"alpha": 0.005}, "select.alpha must be >= score.alpha_min (0.01), got 0.005"),
    ],
)
def test_a_bad_value_is_refused_in_our_words(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match="invalid parameters") as error:
        lightreasoner.validate_parameters({"params": fields})
    assert said in str(error.value)


def test_a_flow_takes_parameters_too() -> None:
    params = config.changed(PRESETS["microworld"], ["select.beta=0.5"])
    for flow in (lightreasoner, compare):
        assert flow.validate_parameters({"params": params})["params"].values() == params


def test_a_run_says_what_it_is() -> None:
    """What differs from the preset, the shortest first, then the digest of all parameters."""
    preset, other = Form(), Form(n_problems=40, seed=7, updates=20)
    digests = [digest(each.values()) for each in (preset, other, Form(seed=7))]
    assert preset.run_name() == f"microworld {digests[0]}"
    assert other.run_name() == f"microworld n=40 seed=7 updates=20 {digests[1]}"
    assert len(set(digests)) == 3
    own = Form(expert="models/my-expert/", more=("generate.seed=3",))
    assert own.run_name() == f"my-expert generate.seed=3 {digest(own.values())}"
    sweep = SweepForm(betas=(0.2, 0.4), alphas=(0.1,), r=4)
    assert sweep.run_name().startswith("microworld beta=0.2,0.4 alpha=0.1 r=4 ")
    asked = EvaluationForm(model="models:/m@champion", problem_sets=("tuned",), n_evaluated=9)
    assert asked.run_name().startswith("m@champion on tuned evaluated=9 ")
    paper = Form.of(PRESETS["qwen2.5-math-7b"])
    assert paper.run_name().split()[:-1] == ["qwen2.5-math-7b"]


def test_a_runs_name_stays_short() -> None:
    sets = Form(problem_sets=("tuned", "transfer"), amateur="x" * 500, beta=1)
    long = f"amateur={'x' * (LONGEST_SAID - 3)}..."
    assert sets.run_name().split()[1:-1] == ["beta=1", "sets=tuned,transfer", "+1"]
    assert shortest_first([f'models.amateur="{"x" * 500}"']) == [long]
    assert shortest_first(['models.amateur="/home/me/models/mine"']) == ["amateur=mine"]
    other = config.changed(PRESETS["qwen2.5-math-7b"], ["models.expert=mine"])
    assert re.fullmatch(r"mine [\w.=,-]+( [\w.=,-]+)* \+\d+ [0-9a-f]{6}", Form.of(other).run_name())


def test_a_given_name_is_kept() -> None:
    assert Form(name="my first run", beta=0.5).run_name() == "my first run"
    params = PRESETS["microworld"]
    assert SweepForm.over(params, name="grid").run_name() == "grid"
    assert Form.over(params, name=None) == Form(name=None)
    for wrong in ("", "two\nlines", "x" * 121):
        with pytest.raises(ConfigError, match=r"^name"):
            Form.over(params, name=wrong)


def test_the_evaluations_model_has_the_parameters_name_and_alias() -> None:
    params = config.changed(PRESETS["microworld"], ["register.name=mine", "register.alias=next"])
    assert EvaluationForm.of(params).model == "models:/mine@next"


def test_a_grid_has_every_point_once() -> None:
    params = config.changed(PRESETS["microworld"], ["select.beta=1.5", "finetune.r=4"])
    grid = SweepForm.over(params, betas=(0.2, 0.4, 0.2), alphas=(0.1, 0.5))
    points = [(point.select.alpha, point.select.beta) for point in grid.points()]
    assert points == [(0.1, 0.2), (0.1, 0.4), (0.5, 0.2), (0.5, 0.4)]
    assert {point.finetune.r for point in grid.points()} == {4}


@pytest.mark.parametrize(
    ("betas", "alphas", "said"),
    [
        ((), (0.2,), "betas: "),
        ((-1,), (0.2,), "betas.0 must be >= 0, got -1"),
        ((0.4,), (0.001,), "select.alpha must be >= score.alpha_min"),
    ],
)
def test_a_bad_grid_is_refused(betas: Any, alphas: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        SweepForm.over(PRESETS["microworld"], betas=betas, alphas=alphas)
    assert said in str(error.value)


def test_the_grid_alone_says_alpha() -> None:
    params = config.changed(
        PRESETS["microworld"], ["score.alpha_min=0.15", "select.alpha=0.5", "select.beta=0.9"]
    )
    assert SweepForm.of(params).alphas == (0.2,)
    grid = SweepForm.over(params, betas=(0.4,), alphas=(0.3, 0.5))
    assert [point.select.alpha for point in grid.points()] == [0.3, 0.5]
    higher = config.changed(params, ["score.alpha_min=0.3"])
    assert SweepForm.of(higher).alphas == (0.5,)
    with pytest.raises(ValidationError, match=r"select\.alpha is given twice"):
        SweepForm(more=("select.alpha=0.3",))


@pytest.mark.parametrize(
    ("rule", "name", "other"),
    [
        ("quantile=0.8", "beta", "alpha"),
        ("steps=all", "beta", "alpha"),
        ("label=one_hot", "alpha", "beta"),
    ],
)
def test_a_grid_that_would_change_nothing_is_refused(rule: str, name: str, other: str) -> None:
    params = config.changed(PRESETS["microworld"], [f"select.{rule}"])
    of = SweepForm.of(params)
    own = (getattr(params.select, name),)
    assert getattr(of, f"{name}s") == own
    assert len(getattr(of, f"{other}s")) > 1
    said = f"{name}s 0.2, 0.8: under select.{rule.replace('=', ' ')} {name} changes nothing; give"
    with pytest.raises(ConfigError, match=said):
        SweepForm.over(params, **{f"{name}s": (0.2, 0.8), f"{other}s": (0.2,)})
    assert len(SweepForm.over(params, **{f"{name}s": own, f"{other}s": (0.2, 0.3)}).points()) == 2


def test_controls_cross_what_is_asked_with_the_parameters_own() -> None:
    """2 styles of the run and one more, by its own examples and 4, by its own limit and half."""
    params = config.changed(PRESETS["microworld"], ["evaluate.base_style=cot", "evaluate.shots=2"])
    form = ControlsForm.over(params, styles=["cot", "none"], shots=["4", "2", "4"])
    assert form.values() == params
    styles = "cot", "qwen25-math-cot", "none"
    assert form.grid() == [
        Asked(style, shots, limit)
        for limit in (None, 64)
        for shots in (None, 4)
        for style in styles
    ]
    alone = ControlsForm.over(params, styles=[], shots=[], budgets=[128])
    assert alone.grid() == list(map(Asked, styles[:2]))
    assert ControlsForm.model_validate(form.model_dump(mode="json", exclude_unset=True)) == form


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"styles": ["zoo"]}, r"styles\.0: input should be 'qwen25-math-cot', .*, got 'zoo'"),
        ({"shots": ["-1"]}, r"shots\.0 must be >= 0, got '-1'"),
        ({"shots": ["a"]}, r"shots\.0: .*integer.*, got 'a'"),
        ({"budgets": ["0"]}, r"budgets\.0 must be >= 1, got '0'"),
    ],
)
def test_controls_that_cannot_be_are_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ControlsForm.over(PRESETS["microworld"], **more)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"rounds": 0}, "rounds must be >= 1, got 0"),
        ({"rounds": 21}, "rounds must be <= 20, got 21"),
        (
            {"later_amateur": "old"},
            "later_amateur: input should be 'same' or 'previous', got 'old'",
        ),
    ],
)
def test_rounds_that_cannot_be_are_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        RoundsForm.over(PRESETS["microworld"], **more)
    assert error.value.faults == [said]


def test_rounds_have_the_parameters_of_a_run() -> None:
    params = config.changed(PRESETS["microworld"], ["select.beta=0.5", "generate.seed=1"])
    form = RoundsForm.over(params, rounds=1)
    assert form.values() == Form.of(params).values() == params
    assert (form.rounds, form.later_amateur, RoundsForm().rounds) == (1, "same", 3)


@pytest.mark.parametrize("kind", [Form, SweepForm, RoundsForm, ControlsForm, EvaluationForm])
def test_unknown_fields_are_refused(kind: type[Settings]) -> None:
    with pytest.raises(ValidationError, match="zoo is not a known key"):
        kind.model_validate({"zoo": 1})
