"""dvc.yaml, the stages and the flow say the same."""

from typing import Any

import yaml
from checkout import ROOT

from flows.dvc import dvcfile
from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.pipeline.graph import GRAPH


def stages() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def test_dvc_yaml_is_written_from_the_graph() -> None:
    assert (ROOT / "dvc.yaml").read_text(encoding="utf-8") == dvcfile.dvc_yaml(), (
        "run `make dvc.yaml`"
    )


def test_a_project_has_the_same_stages_without_the_code() -> None:
    project = yaml.safe_load(dvcfile.dvc_yaml(in_checkout=False))["stages"]
    made = {out for stage in stages().values() for out in stage["outs"]}
    for name, stage in stages().items():
        assert project[name] == {**stage, "deps": [path for path in stage["deps"] if path in made]}


def test_both_drivers_have_the_same_stages_in_the_same_order() -> None:
    names = [name.replace("-", "_") for name in stages()]
    assert names == [*(stage.name for stage in GRAPH), "register"]


def test_every_param_names_a_real_field() -> None:
    for stage in stages().values():
        for name in stage["params"]:
            section, _, field = name.partition(".")
            known = Params.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
            assert not field or field in known, name


def test_every_dependency_is_there_or_made_by_a_stage() -> None:
    made = {out for stage in stages().values() for out in stage["outs"]}
    for stage in stages().values():
        for path in stage["deps"]:
            assert path in made or (ROOT / path).exists(), path


def test_params_yaml_parses() -> None:
    assert config.load(ROOT / "params.yaml")


def test_what_a_texts_key_has_of_compute_is_a_param_of_its_stage() -> None:
    """A stage that writes text depends on the engine; what only says where it runs is in no key."""
    for stage in GRAPH:
        params = {name for name in dvcfile.stage_entry(stage)["params"] if "compute." in name}
        engine = {f"compute.{name}" for name in ("engine", "endpoint_version", "endpoint_dtype")}
        assert params == {"compute.device", "compute.dtype"} | (
            engine if stage.name in ("generate", "evaluate", "evaluate_base") else set()
        )
