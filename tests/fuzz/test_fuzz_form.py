"""Fuzz: what Prefect's API takes as a run's parameters.

The server checks them by the JSON schema of the flow, which is all it knows, and refuses a run
before there is one. What it lets through, the flow itself checks before it does anything.
"""

import json
from random import Random
from typing import Any

import pytest
from fuzzing import ODD_TEXTS, check_line, cope, damaged_tree, nested, odd_value
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, preprocess_schema, validate
from test_fuzz_parameters import PARAMETERS, VALUES

from flows.deployments import FLOWS
from flows.forms.fields import FIELDS
from lightreasoner import config
from lightreasoner.presets import PRESETS

SCHEMAS = {
    tag: preprocess_schema(parameter_schema(flow).model_dump()) for tag, (flow, _) in FLOWS.items()
}
TAGS = sorted(FLOWS)
FILLED = {
    "preset": "microworld",
    "beta": 0.5,
    "n_problems": 10,
    "problem_sets": ["tuned"],
    "style": "cot",
    "more": ["generate.max_new_tokens=5", "models.amateur=a/b", "finetune.patience=null"],
}


def server_takes(tag: str, params: Any) -> bool:
    """Whether Prefect's server makes a run of these parameters."""
    try:
        validate({"params": params}, SCHEMAS[tag], raise_on_error=True, preprocess=False)
    except ValidationError:
        return False
    return True


def start(case: tuple[str, Any]) -> None:
    """Start a run by the API. What the server or the flow refuses, it does in lines."""
    tag, params = case
    flow: Flow[..., Any] = FLOWS[tag][0]
    if not server_takes(tag, params):
        return
    try:
        flow.validate_parameters({"params": params})
    except ParameterTypeError as error:
        first, said = str(error).split("\n - ")
        check_line(first)
        check_line(said)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_problems": 10**30}, {"n_problems": 10**12}, {"beta": "x"}, {"beta": [1]}, {"more": 1},
        {"more": ["select.beta=2001-99-99"]}, {"more": ["select.beta=x"]}, {"more": [None]},
        {"more": ["select.bta=1"]}, {"more": ["prepare.n_problems=" + "9" * 5_000]},
        {"more": ["prepare.source=" + "x" * 100_000]}, {"more": ["select.beta=0.5"] * 101},
        {"more": [["select.beta=0.5"]]}, {"expert": "x" * 100_000}, {"expert": {"a": 1}},
        {"problem_sets": ["a"] * 51}, {"problem_sets": []}, {"preset": "x" * 1_000}, {"zoo": 1},
        {"seed": 2**31}, {"r": 10**6}, {"updates": 10**9}, {"beta": 1e300}, [], None, "x",
    ],
)  # fmt: skip
def test_the_server_refuses_it_before_there_is_a_run(wrong: Any) -> None:
    assert server_takes("pipeline", FILLED)
    assert not server_takes("pipeline", {**FILLED, **wrong} if isinstance(wrong, dict) else wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"more": ["finetune.r=0"]}, "finetune.r must be >= 1, got 0"),
        (
            {"more": ["prepare.n_problems=1000000000000"]},
            "prepare.n_problems must be <= 10,000,000",
        ),
        ({"more": ["prepare.source=" + "[" * 1_500]}, "nested over 100 deep"),
        ({"more": ["prepare.source=a\0b"]}, "unacceptable character #x0000"),
        ({"more": ['prepare.source="a\\0b"']}, "one line without control characters"),
        ({"more": ["prepare.source=!!int x"]}, "not a whole number"),
        ({"expert": "a\nb"}, "models.expert must be one line without control characters"),
        ({"problem_sets": ["a\nb"]}, "evaluate.problem_sets must be names"),
    ],
)
def test_the_flow_refuses_the_rest_in_a_line(wrong: dict[str, Any], said: str) -> None:
    assert server_takes("pipeline", wrong)
    with pytest.raises(ParameterTypeError) as error:
        FLOWS["pipeline"][0].validate_parameters({"params": wrong})
    assert said in str(error.value)
    start(("pipeline", wrong))


def test_every_preset_and_parameter_is_taken() -> None:
    """The pattern of overrides refuses no good one."""
    default = PRESETS["microworld"]
    for params in PRESETS.values():
        assert server_takes("pipeline", {"more": config.differences(params, default)})
    values = default.model_dump(mode="json")
    given = [
        f"{name}={text}"
        for name in PARAMETERS
        for value in [values[name.partition(".")[0]][name.partition(".")[2]]]
        for text in ([json.dumps(value), "null"] + ["1e-5", "-1", "0x10"] * isinstance(value, int))
    ]
    for start_at in range(0, len(given), 100):
        assert server_takes("pipeline", {"more": given[start_at : start_at + 100]})


def test_odd_forms(fuzz: Any) -> None:
    def make(rng: Random) -> tuple[str, Any]:
        tag, form = rng.choice(TAGS), dict(FILLED)
        if tag == "evaluation":
            form = {"preset": "microworld", "model": "models:/a@b", "more": FILLED["more"]}
        action = rng.random()
        if action < 0.3:
            value = rng.choice(VALUES) if rng.random() < 0.7 else str(odd_value(rng))
            form["more"] = [f"{rng.choice(PARAMETERS)}={value}"]
        elif action < 0.6:
            form[rng.choice([*FIELDS, "betas", "alphas", "model"])] = odd_value(rng)
        elif action < 0.65:
            form[rng.choice(ODD_TEXTS)] = 1
        else:
            form = damaged_tree(rng, form)
        return tag, form

    fuzz(make, start, quick=30)


def test_what_is_nested_deep_is_refused() -> None:
    for value in (nested(400), {"a": nested(200)}):
        assert cope(lambda value=value: start(("pipeline", {"more": value}))) is None  # type: ignore[misc]
        assert cope(lambda value=value: start(("pipeline", value))) is None  # type: ignore[misc]
