"""What each method of a comparison changes, and what it leaves alone."""

from typing import Any

import pytest

from lightreasoner.config import Params, parse
from lightreasoner.errors import ConfigError
from lightreasoner.experiments import methods
from lightreasoner.presets import PRESETS

PARAMS = PRESETS["microworld"]


def changed(name: methods.Name, params: Params = PARAMS) -> dict[str, Any]:
    """The values that a method changes, by `section.key`."""
    before, after = params.model_dump(), methods.params_of(name, params).model_dump()
    return {
        f"{section}.{key}": value
        for section, values in after.items()
        for key, value in values.items()
        if value != before[section][key]
    }


def names_of(name: methods.Name) -> list[str]:
    return [stage.name for stage in methods.stages_of(name)]


def with_sft(**values: Any) -> Params:
    tree = PARAMS.model_dump(mode="json")
    return parse({**tree, "sft": {**tree["sft"], **values}}, "test")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("base", {}),
        ("lightreasoner", {}),
        ("no_selection", {"select.steps": "all"}),
        ("no_contrast", {"select.label": "one_hot"}),
        ("neither", {"select.steps": "all", "select.label": "one_hot"}),
    ],
)
def test_ablations_are_settings_of_select(name: methods.Name, expected: dict[str, Any]) -> None:
    assert changed(name) == expected


def test_without_selection_a_quantile_has_no_say() -> None:
    tree = PARAMS.model_dump(mode="json")
    tree["select"]["quantile"] = 0.8
    assert changed("no_selection", parse(tree, "test")) == {
        "select.steps": "all",
        "select.quantile": None,
    }


def test_sft_takes_its_section_and_leaves_lora_alone() -> None:
    params = with_sft(
        n_problems=7, n=4, temperature=0.7, max_new_tokens=99, seed=5, updates=11, learning_rate=0.1
    )
    assert changed("sft", params) == {
        "prepare.n_problems": 7,
        "generate.n": 4,
        "generate.temperature": 0.7,
        "generate.max_new_tokens": 99,
        "generate.seed": 5,
        "finetune.batching": "solution",
        "finetune.updates": 11,
        "finetune.samples_per_update": 16,
        "finetune.samples_per_forward": 4,
        "finetune.learning_rate": 0.1,
    }


def test_ground_truth_generates_for_the_prompts_alone() -> None:
    params = with_sft(n=4, temperature=0.7)
    sft, gold = changed("sft", params), changed("gold", params)
    assert gold["generate.max_new_tokens"] == 1
    same = [key for key in sft if key.startswith(("prepare", "finetune"))]
    assert {key: gold[key] for key in same} == {key: sft[key] for key in same}
    assert methods.params_of("gold", params).generate.n == 1


def test_whole_solutions_repeat_no_fault_of_single_prefixes() -> None:
    """`last_column` reads one sample a row, so it cannot go with solution batching."""
    tree = PARAMS.model_dump(mode="json")
    tree["finetune"] |= {"batching": "sample", "reference": ["last_column"]}
    assert methods.params_of("sft", parse(tree, "test")).finetune.reference == ()


def test_the_stages_of_each_method() -> None:
    tuned = ["finetune", "merge", "evaluate"]
    assert names_of("base") == ["evaluate_base"]
    assert names_of("sft") == ["prepare", "generate", "keep", *tuned]
    assert names_of("gold") == ["prepare", "generate", "gold", *tuned]
    for name in ("lightreasoner", "no_selection", "no_contrast", "neither"):
        assert names_of(name) == ["prepare", "generate", "score", "select", *tuned]


@pytest.mark.parametrize("name", PRESETS)
def test_every_method_fits_every_preset(name: str) -> None:
    for method in methods.NAMES:
        methods.params_of(method, PRESETS[name])


def test_names_are_put_in_order_and_checked() -> None:
    assert methods.named(["gold", "base"]) == ("base", "gold")
    assert tuple(methods.METHODS) == methods.NAMES
    with pytest.raises(ConfigError, match="no method 'dpo'; there are base, lightreasoner, sft"):
        methods.named(["sft", "dpo"])
    with pytest.raises(ConfigError, match="no method is named"):
        methods.named([])


def test_seeds_by_section() -> None:
    assert methods.seeds(PARAMS) == dict.fromkeys(
        ("prepare", "generate", "sft", "finetune", "evaluate"), 42
    )
