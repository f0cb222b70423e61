"""What would go to the hub: which files, under which card; all of it without the network."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub_standin
import pytest
import stored_pipeline
import yaml
from datasets import load_dataset
from huggingface_hub import (
    DatasetCard,
    EvalResult,
    EvalResultEntry,
    ModelCard,
    parse_eval_result_entries,
)
from test_merge import make_adapter
from tiny_models import write_model
from typer.testing import CliRunner

from flows import environment as homes
from flows.cli import app
from lightreasoner.data.hub import SETS
from lightreasoner.errors import ArtifactError, ModelError, UploadError
from lightreasoner.storage import artifacts
from lightreasoner.tuning import kd_layout, model_card, upload
from tasks.registry import versions
from tasks.tracking import mlflow_runs

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # MLflow's
    pytest.mark.usefixtures("offline"),
]
HUB = "Qwen/Qwen2.5-Math-1.5B@4a83ca6e4526a4f2da3aa259ec36c259f66b2ab2"
GSM8K = SETS["gsm8k"]
SETTINGS = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "base_model_name_or_path": HUB}
UNNAMED = """---
library_name: transformers
pipeline_tag: text-generation
model-index:
- name: m
  results:
  - task: {type: t}
    dataset: {type: owner/name, name: n, args: {problems: all}}
    metrics: [{type: accuracy, value: high}]
---
"""
"""A card with a score that is no number."""


@pytest.fixture
def merged(tiny_expert: Path, tmp_path: Path) -> Path:
    """A merged model's directory with its card."""
    path = tmp_path / "merged"
    shutil.copytree(tiny_expert, path)
    text = model_card.card_text(HUB, SETTINGS, "0" * 32 + ".dir", {}, stored_pipeline.PARITY)
    (path / "README.md").write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def adapter(tiny_expert: Path, tmp_path: Path) -> Path:
    """An adapter's directory as finetune leaves it."""
    path = tmp_path / "adapter"
    make_adapter(tiny_expert, path)
    settings = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = HUB
    (path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    for name in ("curve.csv", "validation.csv"):
        (path / name).write_text("update,loss\n", encoding="utf-8")
    return path


def test_a_merged_model_goes_whole(merged: Path, tmp_path: Path) -> None:
    folder = upload.prepare(merged, merged / "README.md", tmp_path / "new", adapter=False)
    expected = {file.name: file.stat().st_size for file in merged.iterdir()}
    assert folder.sizes.keys() == expected.keys()
    assert folder.sizes["model.safetensors"] == expected["model.safetensors"]
    assert ModelCard.load(folder.path / "README.md").data.base_model == HUB.partition("@")[0]


def test_a_card_may_begin_with_a_byte_order_mark(merged: Path, tmp_path: Path) -> None:
    text = (merged / "README.md").read_text(encoding="utf-8")
    (merged / "README.md").write_text("\ufeff" + text, encoding="utf-8")
    folder = upload.prepare(merged, merged / "README.md", tmp_path / "new", adapter=False)
    assert (folder.path / "README.md").read_text(encoding="utf-8") == text


def test_an_adapter_goes_without_its_curves_and_names_its_base(
    merged: Path, adapter: Path, tmp_path: Path
) -> None:
    (adapter / "validation.json").write_text("{}")
    before = artifacts.digest(adapter)
    folder = upload.prepare(adapter, merged / "README.md", tmp_path / "new", adapter=True)
    assert list(folder.sizes) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    settings = json.loads((folder.path / "adapter_config.json").read_text(encoding="utf-8"))
    assert "@".join((settings["base_model_name_or_path"], settings["revision"])) == HUB
    found = ModelCard.load(folder.path / "README.md")
    assert found.data.library_name == "peft"
    assert "merged" not in found.data.tags
    assert found.text.strip().startswith("# The LoRA adapter alone")
    assert artifacts.digest(adapter) == before


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling.py", "state.pkl", "notes", ".env"])
def test_other_files_are_refused_by_name(name: str, merged: Path, tmp_path: Path) -> None:
    (merged / name).write_bytes(b"x")
    with pytest.raises(UploadError, match=f"{name} would go to the hub; only .jinja, .json"):
        upload.prepare(merged, merged / "README.md", tmp_path / "new", adapter=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("---\nlicense: [\n---\n", "not a card that the hub can read"),
        (
            "---\nbase_model: a b\nlibrary_name: x\npipeline_tag: y\n---\n",
            "not a card that the hub",
        ),
        ("---\nmodel-index: [{}]\n---\n", "not a card that the hub can read"),
        (UNNAMED, "not a card that the hub can read"),
        ("---\nlibrary_name: transformers\n---\n", "lacks pipeline_tag"),
        ("# no metadata\n", "lacks library_name and pipeline_tag"),
        ("---\na: " + "[" * 5_000 + "\n---\n", "not a card that the hub can read"),
        ("---\n3\n---\n", "not a card that the hub can read"),
        (None, "not a card that the hub can read"),
    ],
)
def test_a_card_that_is_not_valid_is_refused(
    text: str | None, said: str, merged: Path, tmp_path: Path
) -> None:
    (merged / "README.md").unlink()
    if text is not None:
        (merged / "README.md").write_text(text, encoding="utf-8")
    with pytest.raises(UploadError, match=said):
        upload.prepare(merged, merged / "README.md", tmp_path / "new", adapter=False)


def test_a_card_that_is_a_pipe_is_not_waited_for(merged: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "card")
    with pytest.raises(UploadError, match=r"card: is a named pipe, not a regular file"):
        upload.prepare(merged, tmp_path / "card", tmp_path / "new", adapter=False)


def test_what_is_no_such_model_is_refused(merged: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UploadError, match=r"has no adapter_config\.json"):
        upload.prepare(merged, merged / "README.md", tmp_path / "one", adapter=True)
    with pytest.raises(UploadError, match="no such directory"):
        upload.prepare(tmp_path / "none", merged / "README.md", tmp_path / "two", adapter=False)
    for wrong in ("name", "a b/c", "a/b/c"):
        with pytest.raises(UploadError, match="--repo"):
            upload.check_repository(wrong)


def test_what_leads_out_or_is_damaged_does_not_go(
    merged: Path, adapter: Path, tmp_path: Path
) -> None:
    """A link would send a file of elsewhere; an index, weights that nobody checked."""
    for directory, is_adapter in ((merged, False), (adapter, True)):
        (directory / "notes.txt").symlink_to("/etc/hostname")
        with pytest.raises(ModelError, match=r"notes.txt: is not a file in the directory"):
            upload.prepare(directory, merged / "README.md", tmp_path / "new", is_adapter)
        (directory / "notes.txt").unlink()
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"r": "8"}), "utf-8")
    with pytest.raises(ArtifactError, match="r must be int"):
        upload.prepare(adapter, merged / "README.md", tmp_path / "one", adapter=True)
    index = {"metadata": {}, "weight_map": {"a": "../outside.safetensors"}}
    (merged / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(ModelError, match=r"maps weights to '../outside.safetensors'"):
        upload.prepare(merged, merged / "README.md", tmp_path / "two", adapter=False)


def test_sending_without_a_network_is_one_line(merged: Path, tmp_path: Path) -> None:
    folder = upload.prepare(merged, merged / "README.md", tmp_path / "new", adapter=False)
    with pytest.raises(UploadError, match=r"owner/name: the hub refused it \(.*hf auth login"):
        upload.send(folder, "owner/name")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a hub of this machine receives."""
    with hub_standin.serving(tmp_path / "received") as address:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
        yield tmp_path / "received"


def test_the_hub_receives_a_model_and_a_sample_set_byte_by_byte(
    hub: Path, merged: Path, samples_dir: Path, tmp_path: Path
) -> None:
    """Through huggingface_hub's own client; `datasets` reads what arrived."""
    folder = upload.prepare(merged, merged / "README.md", tmp_path / "model", adapter=False)
    assert upload.send(folder, "owner/model").endswith("/owner/model")
    assert artifacts.digest(hub / "models/owner/model") == artifacts.digest(folder.path)

    (samples_dir / "excluded.csv").write_text("line,reason\n")
    kd_layout.export(samples_dir, tmp_path / "kd")
    for name, directory in (("selected", samples_dir), ("kd", tmp_path / "kd")):
        folder = upload.prepare_dataset(directory, tmp_path / f"new {name}")
        assert upload.send(folder, f"owner/{name}").endswith(f"/datasets/owner/{name}")
        arrived = hub / "datasets/owner" / name
        assert artifacts.digest(arrived) == artifacts.digest(folder.path)
        assert not (arrived / "excluded.csv").exists()
        DatasetCard.load(arrived / "README.md")
    for config, n in (("samples", 6), ("trajectories", 3)):
        where = str(hub / "datasets/owner/selected")
        assert len(load_dataset(where, config, split="train", cache_dir=tmp_path / "cache")) == n


def test_a_whole_benchmarks_score_goes_where_the_hubs_leaderboards_look(
    hub: Path, adapter: Path, merged: Path, tmp_path: Path
) -> None:
    """Of the card's results; read back by huggingface_hub's own reader. No other score goes."""
    revision = GSM8K.revision

    def result(name: str, value: float, **asked: Any) -> EvalResult:
        task = {"task_type": "text-generation", "dataset_type": GSM8K.repository}
        metric = {"metric_type": "accuracy", "metric_name": "pass@1", "metric_value": value}
        named = {"dataset_name": name, "dataset_config": name, "dataset_revision": revision}
        return EvalResult(**task, **named, **metric, **asked)

    card = ModelCard.load(merged / "README.md")
    card.data.model_name = "micro"
    card.data.eval_results = [
        result("gsm8k", 0.7240333, dataset_args={"problems": "all"}),
        result("a/b", 0.5, dataset_args={"problems": "all"}),
        result("part", 0.7, dataset_args={"problems": 100}),
        result("by others", 0.8),
    ]
    card.save(merged / "README.md")
    for model, is_adapter in ((merged, False), (adapter, True)):
        folder = upload.prepare(model, merged / "README.md", tmp_path / model.name, is_adapter)
        assert {".eval_results/gsm8k.yaml", ".eval_results/a-b.yaml"} <= set(folder.sizes)
        upload.send(folder, f"owner/{model.name}")
        arrived = hub / "models/owner" / model.name / ".eval_results"
        assert sorted(file.name for file in arrived.iterdir()) == ["a-b.yaml", "gsm8k.yaml"]
        said = yaml.safe_load((arrived / "gsm8k.yaml").read_text(encoding="utf-8"))
        assert parse_eval_result_entries(said) == [
            EvalResultEntry("openai/gsm8k", "gsm8k", 72.4, revision, notes="pass@1")
        ]


def test_only_sample_sets_go_as_data_sets(merged: Path, samples_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UploadError, match=r"config\.json.* would go to the hub; only \.md, \.parq"):
        upload.prepare_dataset(merged, tmp_path / "one")
    kd_layout.export(samples_dir, tmp_path / "kd")
    (tmp_path / "kd" / "README.md").write_text("---\ntags: [\n---\n")
    with pytest.raises(UploadError, match="not a card that the hub can read"):
        upload.prepare_dataset(tmp_path / "kd", tmp_path / "four")
    (samples_dir / "samples.parquet").rename(samples_dir / "other.parquet")
    with pytest.raises(UploadError, match="is neither a sample set nor its export"):
        upload.prepare_dataset(samples_dir, tmp_path / "two")
    with pytest.raises(UploadError, match="no such directory"):
        upload.prepare_dataset(tmp_path / "none", tmp_path / "three")


def test_a_sample_set_by_the_command(samples_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTREASONER_HOME", str(samples_dir.parent / "home"))
    options = ["push", "--repo", "owner/name", "--dry-run", "--dataset", str(samples_dir)]
    found = CliRunner().invoke(app.application(), options)
    assert found.exit_code == 0, found.output
    assert "samples.parquet" in found.output
    wrong = CliRunner().invoke(app.application(), [*options, "--model", "x"])
    assert wrong.exit_code == 2
    assert "give --model, with or without --adapter, or --dataset" in wrong.output


def test_a_dry_run_from_the_registry_and_from_a_directory(
    merged: Path,
    adapter: Path,
    tiny_expert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By alias: the card with results, and the adapter that lies beside the model."""
    home = tmp_path / "home"
    monkeypatch.setenv("LIGHTREASONER_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow_runs.configure(homes.tracking_uri(home), home)
    outcomes = stored_pipeline.write(tmp_path / "stored", tiny_expert)
    tuned = outcomes["finetune"].artifact.path
    shutil.copytree(adapter, tuned, dirs_exist_ok=True)
    model = artifacts.of(merged)
    versions.register_version(model, outcomes, stored_pipeline.params(), None)

    def listed(*options: str) -> list[str]:
        options = ("push", "--repo", "owner/name", "--dry-run", "--model", *options)
        found = CliRunner().invoke(app.application(), options)
        assert found.exit_code == 0, found.output
        assert "dry run: nothing was sent to owner/name; the card is valid" in found.output
        return [line.split()[1] for line in found.output.splitlines() if line[:14].strip()]

    uri = "models:/micro@candidate"
    assert {"model.safetensors", "config.json", "README.md"} <= set(listed(uri))
    assert {"adapter_model.safetensors", "README.md"} <= set(listed(uri, "--adapter"))
    assert "curve.csv" not in listed(uri, "--adapter")
    assert "tokenizer.json" in listed(str(merged))
    assert not list((home / "work").iterdir())
    before = artifacts.digest(home / "mlflow")
    assert listed(uri)
    assert artifacts.digest(home / "mlflow") == before
    shutil.copytree(merged, tmp_path / "other")
    write_model(tmp_path / "other", seed=3, hidden=32, layers=3)
    versions.register_version(
        artifacts.of(tmp_path / "other"), outcomes, stored_pipeline.params(name="other"), None
    )
    options = ["push", "--repo", "o/n", "--dry-run", "--adapter", "--model"]
    wrong = CliRunner().invoke(app.application(), [*options, "models:/other@candidate"])
    assert wrong.exit_code == 2
    assert "lacks 4 of the 12 tensors of the model's LoRA layers" in wrong.output
    wrong = CliRunner().invoke(
        app.application(), ["push", "--repo", "o/n", "--model", "models:/micro@none"]
    )
    assert wrong.exit_code == 2
    assert "models:/micro@none cannot be read" in wrong.output


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("push --repo o/n --dry-run --model models:/m@champion", "no model is registered under"),
        ("publish unknown", "no finished run of the pipeline has this name or id"),
    ],
)
def test_asking_an_empty_home_makes_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, said: str
) -> None:
    monkeypatch.setenv("LIGHTREASONER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = CliRunner().invoke(app.application(), command.split())
    assert found.exit_code == 2
    assert said in found.output
    assert not list(tmp_path.rglob("mlflow*"))
