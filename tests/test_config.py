"""params.yaml: what parses, and how every fault is told at once."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightreasoner import config, paper, presets
from lightreasoner.data import hub, sources
from lightreasoner.errors import ConfigError
from lightreasoner.presets import PRESETS
from lightreasoner.untrusted import shown


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(config.dump(PRESETS["microworld"]), encoding="utf-8")
    return path


def faults(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load(path, overrides)
    return caught.value.faults


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_survives_params_yaml(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(config.dump(PRESETS[name]), encoding="utf-8")
    assert config.load(path) == PRESETS[name]


def test_the_papers_presets_hold_the_papers_settings() -> None:
    """Section 3.1, appendix F.3: alpha, beta, the LoRA table and the runtime settings."""
    paper = {name: params for name, params in PRESETS.items() if name != "microworld"}
    assert len(paper) == 5
    for params in paper.values():
        assert (params.select.alpha, params.select.beta) == (0.2, 0.4)
        assert (params.prepare.n_problems, params.generate.max_new_tokens) == (1000, 128)
        tuning = params.finetune
        assert (tuning.r, tuning.lora_alpha, tuning.lora_dropout) == (8, 16, 0.05)
        assert tuning.target_modules == ("q_proj", "v_proj")
        assert (tuning.updates, tuning.samples_per_update, tuning.samples_per_forward) == (
            1000,
            16,
            8,
        )
        assert (tuning.learning_rate, tuning.batching) == (5e-5, "sample")
        assert params.models.amateur.startswith("Qwen/Qwen2.5-0.5B@")
        assert params.prepare.source.startswith("openai/gsm8k@")


def test_the_papers_presets_are_graded_on_its_seven_benchmarks() -> None:
    """Each is pinned on the hub; no preset is refused before anything is fetched."""
    for name in paper.TABLE_1:
        evaluate = PRESETS[name].evaluate
        assert (evaluate.source, evaluate.problem_sets) == ("hub", paper.BENCHMARKS)
        assert set(evaluate.problem_sets) <= hub.SETS.keys()
        sources.check(evaluate.source, evaluate.problem_sets, "test", evaluate.n_problems)


def test_each_preset_has_its_best_fitting_prompts() -> None:
    """Appendix G: eq. 39 for Qwen2.5-Math before tuning, eq. 38 for all else; in ChatML, where
    that is the expert's template, else in its own."""
    for name, params in PRESETS.items():
        is_base = name in ("qwen2.5-math-1.5b", "qwen2.5-math-7b")
        assert params.evaluate.base_style == ("cot" if is_base else None)
        style = "chat" if name == "deepseek-r1-distill-qwen-1.5b" else "qwen25-math-cot"
        assert params.generate.style == params.evaluate.style == style


def test_a_preset_is_found_by_its_expert() -> None:
    assert {presets.of_expert(PRESETS[name].models.expert) for name in PRESETS} == set(PRESETS)
    assert paper.TABLE_1.keys() == PRESETS.keys() - {"microworld"}
    assert presets.of_expert("Qwen/Qwen2.5-Math-1.5B") is None


def test_every_field_has_its_sentence(params_file: Path) -> None:
    for section in config.Params.model_fields.values():
        for field in section.annotation.model_fields.values():  # type: ignore[union-attr]
            assert field.description
            assert f"# {field.description}" in params_file.read_text(encoding="utf-8")


def test_overrides_are_applied(params_file: Path) -> None:
    params = config.load(
        params_file, ["select.beta=0.5", "finetune.target_modules=[q_proj]", "generate.seed=7"]
    )
    assert (params.select.beta, params.generate.seed) == (0.5, 7)
    assert params.finetune.target_modules == ("q_proj",)


def test_all_faults_are_told_at_once(params_file: Path) -> None:
    tree = yaml.safe_load(params_file.read_text(encoding="utf-8"))
    tree["select"] = {"alpha": 0.2, "betta": 0.4, "beta": -0.4}
    tree["finetune"]["updates"] = "many"
    del tree["models"]["amateur"]
    tree["nonsense"] = 1
    params_file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    found = "\n".join(faults(params_file))
    assert "select.beta must be >= 0 nats, got -0.4" in found
    assert "select.betta is not a known key; did you mean beta?" in found
    assert "finetune.updates" in found
    assert "'many'" in found
    assert "models.amateur is missing; add it" in found
    assert "nonsense is not a known key; known are models, compute" in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("", "is empty"),
        ("- 1", "must be a mapping"),
        ("select: 3", "select"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    assert any(message in fault and str(path) in fault for fault in faults(path))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "is a named pipe"),
        (Path.mkdir, "is a directory"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.write_bytes(b"#" * (1 << 21)), "at most 1,048,576 are read"),
    ],
)
def test_what_is_no_file_of_parameters_is_told(tmp_path: Path, make: Any, said: str) -> None:
    make(tmp_path / "params.yaml")
    (fault,) = faults(tmp_path / "params.yaml")
    assert said in fault
    (fault,) = faults(tmp_path / ("x" * 300))
    assert "file name too long" in fault


def test_many_faults_are_counted(params_file: Path) -> None:
    params_file.write_text("\n".join(f"k{n}: 1" for n in range(100)), encoding="utf-8")
    found = faults(params_file)
    assert len(found) == 21
    assert found[-1] == "91 more faults"


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    assert "lightreasoner preset microworld" in faults(tmp_path / "params.yaml")[0]


@pytest.mark.parametrize("override", ["select.beta", "beta=3", "=1", "select.=1"])
def test_malformed_overrides_are_named(params_file: Path, override: str) -> None:
    assert faults(params_file, override)[0].startswith(f"--set {override!r}: must read")


def test_a_truth_value_is_no_number(params_file: Path) -> None:
    """pydantic would take false for 0."""
    assert (
        "evaluate.seed must not be true or false" in faults(params_file, "evaluate.seed=false")[0]
    )


def test_alpha_below_what_is_stored_is_refused(params_file: Path) -> None:
    assert "score.alpha_min (0.01)" in faults(params_file, "select.alpha=0.001")[0]


def test_the_default_selection_is_the_papers() -> None:
    for params in PRESETS.values():
        chosen = params.select
        assert (chosen.steps, chosen.label, chosen.quantile) == ("informative", "contrast", None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("select.label=onehot", "select.label: input should be 'contrast', 'one_hot' or 'expert'"),
        ("select.steps=some", "select.steps: input should be 'informative' or 'all'"),
        ("select.quantile=1", "select.quantile must be < 1, got 1"),
        ("select.quantile=-0.1", "select.quantile must be >= 0, got -0.1"),
    ],
)
def test_wrong_ablations_are_named(params_file: Path, override: str, message: str) -> None:
    (fault,) = faults(params_file, override)
    assert message in fault


def test_a_quantile_of_all_steps_is_refused(params_file: Path) -> None:
    (fault,) = faults(params_file, "select.quantile=0.8", "select.steps=all")
    assert "select.quantile 0.8 selects steps, but select.steps all takes every step" in fault


def test_the_gates_set_is_one_that_is_evaluated(params_file: Path) -> None:
    (fault,) = faults(params_file, "register.gate_set=other")
    sets = "tuned, transfer, chain_sum"
    assert f"register.gate_set 'other' is not among evaluate.problem_sets ({sets})" in fault
    assert config.load(params_file).gate_set == "tuned"
    assert config.load(params_file, ["register.gate_set=chain_sum"]).gate_set == "chain_sum"


@pytest.mark.parametrize(
    ("name", "fitting"),
    [
        ("lightreasoner-qwen2.5-math-1.5b", "lightreasoner-qwen2-5-math-1-5b"),
        ("qwen/math", "qwen-math"),
        ("-a", "a"),
        ("größe", "gr-e"),
        ("a\n", "a"),
        ("", "lightreasoner"),
        ("...", "lightreasoner"),
        ("x" * 101, "x" * 100),
    ],
)
def test_a_models_name_is_one_that_mlflow_takes(name: str, fitting: str, params_file: Path) -> None:
    (fault,) = faults(params_file, f"register.name={json.dumps(name)}")
    assert fault.startswith(
        "--set: register.name must begin with a letter or digit and contain only"
    )
    assert fault.endswith(f"name it {fitting}, got {shown(name)}")
    config.load(params_file, [f"register.name={fitting}"])


@pytest.mark.parametrize("alias", ["latest", "v1", "v12"])
def test_aliases_that_mlflow_keeps_are_refused(alias: str, params_file: Path) -> None:
    (fault,) = faults(params_file, f"register.alias={alias}")
    assert "register.alias must not be latest or v and a number" in fault
    assert fault.endswith(f"got {alias!r}")


@pytest.mark.parametrize("name", ["a+b", "../a", "a/", "/a", "a//b", ".", "", "a(b)", "x" * 101])
def test_problem_sets_have_names_for_metrics(name: str, params_file: Path) -> None:
    (fault,) = faults(params_file, f"evaluate.problem_sets=[{json.dumps(name)}]")
    assert "evaluate.problem_sets must be names of 1 to 100 letters" in fault
    assert f"rename {shown(name)}" in fault


def test_no_run_names_itself_champion(params_file: Path) -> None:
    (fault,) = faults(params_file, "register.alias=champion")
    assert "register.alias must not be champion, which only the gate moves" in fault


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["compute.gpus=2"], "compute endpoints and gpus are vLLM's; set engine to vllm"),
        (["compute.engine=vllm", "compute.endpoints=[http://h/v1]"], "set both"),
        (["compute.endpoint_version=0.32.0"], "say nothing without endpoints"),
        (
            ["compute.engine=vllm", "compute.gpus=4", "compute.gpus_per_model=3"],
            "gpus 4 must be a multiple of gpus_per_model 3",
        ),
    ],
)
def test_what_an_engine_needs(changes: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        config.changed(PRESETS["microworld"], changes)
