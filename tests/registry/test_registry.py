"""The registry: a version that loads both ways, leads back to its origin and is made once."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pytest
import stored_pipeline
import torch
from checkout import PATHS
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils import validation
from ports import free_port
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.data import hub
from lightreasoner.errors import ModelError
from lightreasoner.pipeline.graph import GRAPH
from lightreasoner.pipeline.store import Outcome
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact
from tasks.registry import card, versions
from tasks.tracking import mlflow_runs

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"  # MLflow asks SQLAlchemy 2.1
)
PARAMS = stored_pipeline.params()
HEADLINE = (
    "Accuracy on the set tuned rises from 40.0% to 80.0%: +40.0 points "
    "(95% interval +36.0 to +44.0, n 600, seed 42)."
)
MADE_OF = """- expert: micro/expert (4a83ca6e4526)
- amateur: micro/amateur (222222222222)
- problems: 1 of microworld, set tuned
- seeds: problems 42, trajectories 42, tuning 42, evaluation 42
- batching: by sample, 16 samples an update"""
PROMPT = "2 + 3 = "
TOKENS = 12

# A new process that knows the registry's address and the model's name only.
LOAD = f"""
import json, sys
import mlflow
from transformers import AutoModelForCausalLM, AutoTokenizer

mlflow.set_tracking_uri(sys.argv[1])
greedy = dict(max_new_tokens={TOKENS}, do_sample=False)

def tokens(model, tokenizer):
    return model.generate(**tokenizer({PROMPT!r}, return_tensors="pt"), **greedy)[0].tolist()

found = {{}}
for name in sys.argv[2:]:
    model = f"models:/{{name}}@champion"
    pipeline = mlflow.transformers.load_model(model)
    path = mlflow.artifacts.download_artifacts(model) + "/model"
    plain = AutoModelForCausalLM.from_pretrained(path)
    limit = dict(max_new_tokens={TOKENS})
    served = mlflow.pyfunc.load_model(model, model_config=limit)
    found[name] = {{
        "dtype": str(pipeline.model.dtype),
        "flavour": tokens(pipeline.model, pipeline.tokenizer),
        "plain": tokens(plain, AutoTokenizer.from_pretrained(path)),
        "served": served.predict([{PROMPT!r}]),
        "text": pipeline({PROMPT!r}, **greedy)[0]["generated_text"],
    }}
print(json.dumps(found))
"""

# Registers as one of two processes; says what happened and whether a model library came along.
REGISTER = """
import json, sys, time
from pathlib import Path

import stored_pipeline
from lightreasoner.storage import artifacts
from tasks.registry import versions
from tasks.tracking import mlflow_runs

uri, home, path, gate = sys.argv[1:]
model = artifacts.of(Path(path))
Path(gate, str(time.time())).touch()
while len(list(Path(gate).iterdir())) < 2:
    time.sleep(0.001)
mlflow_runs.configure(uri, Path(home))
made = versions.register_version(model, {}, stored_pipeline.params(), None)
answer = {"version": made.version, "created": made.created, "torch": "torch" in sys.modules}
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def home(new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an MLflow database of its own."""
    path = tmp_path_factory.mktemp("home")
    mlflow_runs.configure(new_database(path), path)
    return path


@pytest.fixture(scope="module")
def outcomes(home: Path, tiny_expert: Path) -> dict[str, Outcome]:
    """A stored pipeline's outcomes, by stage."""
    return stored_pipeline.write(home, tiny_expert)


@pytest.fixture(scope="module")
def model(outcomes: dict[str, Outcome]) -> Artifact:
    """The merged model of the stored pipeline."""
    return outcomes["merge"].artifact


@pytest.fixture(scope="module")
def registered(
    home: Path, outcomes: dict[str, Outcome], model: Artifact
) -> tuple[versions.Registered, str]:
    """The model registered by a pipeline, and that pipeline's run id."""
    with mlflow_runs.pipeline_run(PARAMS, "registers") as run_id:
        return versions.register_version(model, outcomes, PARAMS, run_id), run_id


def _began(run_id: str) -> str:
    """When a run began, to the minute."""
    start = MlflowClient().get_run(run_id).info.start_time / 1000
    return datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _sqlite(home: Path) -> str:
    return f"sqlite:///{home}/mlflow/mlflow.db"


def _versions(name: str) -> list[str]:
    return [str(v.version) for v in MlflowClient().search_model_versions(f"name = '{name}'")]


def _greedy(directory: Path) -> list[int]:
    """The merged directory's own greedy tokens, prompt included."""
    network = AutoModelForCausalLM.from_pretrained(directory)
    batch = AutoTokenizer.from_pretrained(directory)(PROMPT, return_tensors="pt")
    ids: list[int] = network.generate(**batch, max_new_tokens=TOKENS, do_sample=False)[0].tolist()
    return ids


def _python(script: str, *arguments: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": PATHS}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _answer(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answer


def _files_of(version: str) -> Path:
    """Where the registry keeps a version's model."""
    source = str(MlflowClient().get_model_version("micro", version).source)
    logged = MlflowClient().get_logged_model(source.removeprefix("models:/"))
    return Path(logged.artifact_location.removeprefix("file://")) / "model"


def test_the_model_is_on_the_disk_once(
    registered: tuple[versions.Registered, str], model: Artifact
) -> None:
    there = _files_of(registered[0].version)
    for file in artifacts.files_under(model.path):
        assert file.samefile(there / file.relative_to(model.path))


@pytest.mark.parametrize(
    "damage",
    [shutil.rmtree, lambda files: artifacts.write_text(files / "config.json", "{}")],
    ids=["gone", "changed"],
)
def test_damaged_files_of_a_version_are_put_back(
    damage: Callable[[Path], None],
    registered: tuple[versions.Registered, str],
    outcomes: dict[str, Outcome],
    model: Artifact,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By who registers the same model again; whole ones of another inode stay."""
    there = _files_of(registered[0].version)
    damage(there)
    again = versions.register_version(model, outcomes, PARAMS, None)
    assert (again.version, again.created) == (registered[0].version, False)
    assert artifacts.digest(there, anew=True) == model.digest
    assert "is damaged; putting version 1's files back" in caplog.text
    shutil.rmtree(there)
    shutil.copytree(model.path, there)
    versions.register_version(model, outcomes, PARAMS, None)
    assert not (there / "config.json").samefile(model.path / "config.json")


def test_a_version_names_everything_upstream(
    registered: tuple[versions.Registered, str], outcomes: dict[str, Outcome], model: Artifact
) -> None:
    made, run_id = registered
    assert made == versions.Registered("micro", "1", "candidate", created=True)
    version = MlflowClient().get_model_version_by_alias("micro", "candidate")
    assert (version.version, version.run_id) == (1, run_id)
    tags = version.tags
    for stage in GRAPH:
        assert tags[f"digest.{stage.output}"] == outcomes[stage.name].artifact.digest
        assert tags[f"code.{stage.name}"] == f"code-{stage.name}"
        assert tags[f"commit.{stage.name}"] == stored_pipeline.COMMIT
        assert tags[f"fingerprint.{stage.name}"] == outcomes[stage.name].manifest["fingerprint"]
    for name, digest in stored_pipeline.SOURCES.items():
        assert tags[f"digest.{name}"] == digest
    assert tags["digest.model"] == model.digest
    assert tags["parity.kl_max"] == "1e-05"
    assert (tags["drift"], tags["top1_kept"]) == ("0.03125", "0.985")
    assert tags["pipeline_run"] == run_id
    assert (tags["run"], tags["run.date"]) == ("registers", _began(run_id))
    assert len(tags["params"]) == 64


def test_the_description_says_what_was_gained(
    registered: tuple[versions.Registered, str],
) -> None:
    """The table of accuracies, then the card without its YAML."""
    text = MlflowClient().get_model_version("micro", registered[0].version).description
    assert text.startswith(
        f"**{HEADLINE}**\n\n- run: registers, {_began(registered[1])}\n{MADE_OF}\n"
    )
    strict = "40.0% (35.0-45.0) | 80.0% (75.0-85.0) | +40.0 (+36.0 to +44.0) | 250/10"
    assert f"| tuned | 600 | {strict} | 2.0 × 10⁻⁵⁰ | +7.5 | 40.0% | 80.0% |" in text
    assert text.endswith("# A card")
    assert "license: mit" not in text


def test_the_card_beside_the_model_has_its_results(
    registered: tuple[versions.Registered, str],
) -> None:
    """As the hub reads it; the model's own card stays as it is (its digest is tested below)."""
    root = Path(mlflow.artifacts.download_artifacts("models:/micro@candidate"))
    found = ModelCard.load(root / "README.md")
    assert found.data.license == "mit"
    assert found.data.model_name == "micro"
    assert found.data.metrics == ["accuracy"]
    assert found.data.datasets is None  # the micro-world is not on the hub
    results = {result.dataset_name: result for result in found.data.eval_results}
    assert {name: result.metric_value for name, result in results.items()} == {
        "tuned": 0.8,
        "transfer": 0.5,
    }
    assert results["tuned"].dataset_type == "owner/benchmark"
    assert results["tuned"].dataset_revision == stored_pipeline.COMMIT
    assert results["tuned"].dataset_args == {"problems": "all"}
    said = f"**{HEADLINE}**\n\n- run: registers, {_began(registered[1])}\n{MADE_OF}"
    assert found.text.startswith(f"# A card\n\n{said}\n\n## Results\n\n| problem set | n | base")


def test_a_version_keeps_the_name_of_the_run_that_made_it(
    registered: tuple[versions.Registered, str], outcomes: dict[str, Outcome], model: Artifact
) -> None:
    """As it keeps `pipeline_run`: a later run that comes to the same model changes nothing."""
    before = MlflowClient().get_model_version("micro", "1")
    with mlflow_runs.pipeline_run(PARAMS, "comes later") as run_id:
        versions.register_version(model, outcomes, PARAMS, run_id)
    after = MlflowClient().get_model_version("micro", "1")
    assert after.description == before.description
    assert after.tags["run"] == "registers"


def test_without_a_run_nothing_is_said_of_it(outcomes: dict[str, Outcome]) -> None:
    assert "run" not in card.facts(outcomes, PARAMS, {})
    assert card.facts({}, PARAMS, {})["expert"] == "micro/expert"


@pytest.mark.parametrize(
    ("batching", "count", "said"),
    [
        ("trajectory", "samples_per_update=90", "by trajectory, at least 90 samples an update"),
        ("solution", "samples_per_update=4", "by solution, 4 trajectories an update"),
    ],
)
def test_the_batching_counts_what_it_says(batching: str, count: str, said: str) -> None:
    settings = [f"finetune.batching={batching}", f"finetune.{count}"]
    assert card.facts({}, config.changed(PARAMS, settings), {})["batching"] == said


def test_a_data_set_of_the_hub_is_named_in_the_card(
    outcomes: dict[str, Outcome], model: Artifact
) -> None:
    manifest = outcomes["prepare"].manifest
    manifest = manifest | {"inputs": {"problem_source": f"openai/gsm8k@{stored_pipeline.COMMIT}"}}
    hub = Outcome(outcomes["prepare"].artifact, manifest, cached=False)
    text = card.with_results(model.path, {"prepare": hub}, PARAMS, {})
    assert ModelCard(text).data.datasets == ["openai/gsm8k"]
    assert ModelCard(text).data.eval_results is None


GSM8K, MMLU = hub.SETS["gsm8k"], hub.SETS["mmlu_stem"]


@pytest.mark.parametrize(
    ("source", "set_name", "n_problems", "found", "problems"),
    [
        (hub.identity(), "gsm8k", None, GSM8K, "all"),
        (hub.identity(), "gsm8k", 600, GSM8K, 600),
        (hub.identity(), "mmlu_stem", None, MMLU, 600),  # 18 of its 57 subjects
        (f"openai/gsm8k@{stored_pipeline.COMMIT}", "gsm8k", None, None, "all"),
        ("microworld:0123", "tuned", None, None, 600),
    ],
)
def test_the_card_says_which_benchmark_was_asked_and_how_much_of_it(
    source: str,
    set_name: str,
    n_problems: int | None,
    found: hub.HubSet | None,
    problems: int | str,
    outcomes: dict[str, Outcome],
    model: Artifact,
    tmp_path: Path,
) -> None:
    """The source `hub` stands for many repositories: the set's own and its commit are named."""
    evaluated = stored_pipeline.evaluated_on(outcomes, source, set_name, n_problems, tmp_path)
    (result,) = ModelCard(card.with_results(model.path, evaluated, PARAMS, {})).data.eval_results
    name, _, commit = source.partition("@")
    expected = (found.repository, found.revision) if found else (name, commit or None)
    assert (result.dataset_type, result.dataset_revision) == expected
    assert result.dataset_args == {"problems": problems}


def test_the_adapter_alone_comes_with_the_version_as_peft_finds_its_base(
    registered: tuple[versions.Registered, str], outcomes: dict[str, Outcome]
) -> None:
    root = Path(mlflow.artifacts.download_artifacts("models:/micro@candidate"))
    base, _, commit = stored_pipeline.SOURCES["expert"].partition("@")
    stored = json.loads((outcomes["finetune"].artifact.path / "adapter_config.json").read_text())
    settings = json.loads((root / "adapter" / "adapter_config.json").read_text())
    assert settings == stored | {"base_model_name_or_path": base, "revision": commit}
    assert ModelCard.load(root / "adapter" / "README.md").data.base_model == base


def test_the_logged_model_has_the_headline_and_its_run(
    registered: tuple[versions.Registered, str],
) -> None:
    made, run_id = registered
    version = MlflowClient().get_model_version("micro", made.version)
    logged = MlflowClient().get_logged_model(version.source.removeprefix("models:/"))
    assert {m.key: m.value for m in logged.metrics}["accuracy/tuned"] == 0.8
    assert logged.source_run_id == run_id
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "micro", "version": 1}]
    outputs = MlflowClient().get_run(run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [logged.model_id]


def test_the_files_are_safetensors_with_short_requirements(
    registered: tuple[versions.Registered, str], model: Artifact
) -> None:
    root = Path(mlflow.artifacts.download_artifacts("models:/micro@candidate"))
    assert artifacts.digest(root / "model") == model.digest
    suffixes = {file.suffix for file in artifacts.files_under(root)}
    assert ".safetensors" in suffixes
    assert not suffixes & {".bin", ".pkl", ".pt", ".pth", ".py"}
    requirements = (root / "requirements.txt").read_text().splitlines()
    assert [line.partition("==")[0] for line in requirements] == ["mlflow", "torch", "transformers"]
    assert "+" not in "".join(requirements)
    assert "://" not in "".join(requirements)


def test_registering_again_finds_the_version_and_moves_the_alias(
    registered: tuple[versions.Registered, str], outcomes: dict[str, Outcome], model: Artifact
) -> None:
    other = stored_pipeline.params(alias="release")
    made = versions.register_version(model, outcomes, other, None)
    assert made == versions.Registered("micro", "1", "release", created=False)
    assert _versions("micro") == ["1"]
    assert MlflowClient().get_model_version_by_alias("micro", "release").version == 1
    assert MlflowClient().get_model_version_by_alias("micro", "candidate").version == 1


def test_a_version_that_is_there_tells_of_the_newest_evaluation(
    registered: tuple[versions.Registered, str],
    outcomes: dict[str, Outcome],
    model: Artifact,
    tmp_path: Path,
) -> None:
    shutil.copytree(outcomes["report"].artifact.path, tmp_path / "report")
    tables = tmp_path / "report" / "tables.json"
    text = json.loads(tables.read_text())
    for name in text["scores"]["lightreasoner"]:
        text["scores"]["lightreasoner"][name]["problems"] = 777
    tables.chmod(0o644)
    tables.write_text(json.dumps(text))
    manifest = outcomes["report"].manifest | {"fingerprint": "f" * 32}
    newer = Outcome(artifacts.of(tmp_path / "report"), manifest, cached=False)
    for report, n, key in [(newer, True, "f" * 32), (outcomes["report"], False, None)]:
        versions.register_version(model, outcomes | {"report": report}, PARAMS, None)
        version = MlflowClient().get_model_version("micro", "1")
        root = Path(mlflow.artifacts.download_artifacts("models:/micro/1"))
        assert ("| 777 |" in version.description) == n
        assert ("| 777 |" in (root / "README.md").read_text(encoding="utf-8")) == n
        assert version.tags["fingerprint.report"] == (key or report.manifest["fingerprint"])


def test_a_version_made_meanwhile_wins(
    registered: tuple[versions.Registered, str],
    outcomes: dict[str, Outcome],
    model: Artifact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first look finds nothing, as if the other process had not registered yet."""
    look, looks = versions._earliest, []

    def blind_once(*arguments: Any) -> Any:
        looks.append(arguments)
        return look(*arguments) if len(looks) > 1 else None

    monkeypatch.setattr(versions, "_earliest", blind_once)
    made = versions.register_version(model, outcomes, PARAMS, registered[1])
    assert made == versions.Registered("micro", "1", "candidate", created=False)
    assert _versions("micro") == ["1"]


@pytest.mark.slow
def test_two_processes_on_a_new_database_register_once_and_load_no_model(
    model: Artifact, tmp_path: Path
) -> None:
    """Both wait for each other before they make the database and register."""
    home, gate = tmp_path / "home", tmp_path / "gate"
    gate.mkdir()
    both = [
        _python(REGISTER, _sqlite(home), str(home), str(model.path), str(gate)) for _ in range(2)
    ]
    answers = [_answer(process) for process in both]
    assert [answer["version"] for answer in answers] == ["1", "1"]
    assert sorted(answer["created"] for answer in answers) == [False, True]
    assert not any(answer["torch"] for answer in answers)
    versions = MlflowClient(_sqlite(home), _sqlite(home)).search_model_versions("name = 'micro'")
    assert [version.version for version in versions] == [1]


def test_it_loads_both_ways_in_a_new_process(
    home: Path,
    registered: tuple[versions.Registered, str],
    outcomes: dict[str, Outcome],
    model: Artifact,
    tmp_path: Path,
) -> None:
    """By flavour, by directory and as pyfunc: the merged directory's own greedy tokens."""
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(model.path).save_pretrained(half)
    versions.register_version(
        artifacts.of(half), outcomes, stored_pipeline.params(name="half"), None
    )
    for name in ("micro", "half"):
        MlflowClient().set_registered_model_alias(name, "champion", "1")
    found = _answer(_python(LOAD, _sqlite(home), "micro", "half"))
    for name, directory, dtype in (("micro", model.path, "float32"), ("half", half, "bfloat16")):
        own = _greedy(directory)
        assert found[name]["dtype"] == f"torch.{dtype}"
        assert found[name]["flavour"] == own
        assert found[name]["plain"] == own
        assert found[name]["served"] == [found[name]["text"].strip()]  # pyfunc strips blanks


def test_a_directory_without_safetensors_is_refused(
    registered: tuple[versions.Registered, str], outcomes: dict[str, Outcome], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="safetensors"):
        versions.register_version(artifacts.of(tmp_path), outcomes, PARAMS, None)
    assert _versions("micro") == ["1"]


def test_a_registry_that_is_away_is_one_clear_error(
    home: Path,
    outcomes: dict[str, Outcome],
    model: Artifact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    try:
        mlflow_runs.configure(f"http://127.0.0.1:{free_port()}", home)
        with pytest.raises(versions.RegistryError, match=f"the model is at {model.path}"):
            versions.register_version(model, outcomes, PARAMS, None)
    finally:
        mlflow_runs.configure(_sqlite(home), home)


@contextmanager
def _server(home: Path) -> Iterator[str]:
    """`mlflow server` over the home's database and artifacts; its address. Starts in 20 s."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--backend-store-uri", _sqlite(home), "--workers", "1"]
    command += ["--artifacts-destination", str(home / "mlflow" / "artifacts"), "--serve-artifacts"]
    with (home / "server.log").open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        _await(f"{address}/health", process)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def _await(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"mlflow server did not answer at {url}")


@pytest.mark.slow
def test_direct_and_server_go_on_from_each_other(
    home: Path,
    registered: tuple[versions.Registered, str],
    outcomes: dict[str, Outcome],
    model: Artifact,
    tmp_path: Path,
) -> None:
    """The same database and files: direct SQLite, then a server, then direct SQLite again."""
    new = stored_pipeline.params(name="new")
    with _server(home) as address:
        mlflow_runs.configure(address, home)
        again = versions.register_version(model, outcomes, PARAMS, None)
        assert again == versions.Registered("micro", "1", "candidate", created=False)
        with mlflow_runs.pipeline_run(new, "by server") as run_id:
            for stage in GRAPH:
                mlflow_runs.replay_stage(run_id, stage, outcomes[stage.name], home)
            mlflow_runs.log_report(run_id, outcomes["report"])
            assert versions.register_version(model, outcomes, new, run_id).created
        for name in ("micro", "new"):
            MlflowClient().set_registered_model_alias(name, "champion", "1")
        found = _answer(_python(LOAD, address, "micro", "new"))
        page = f"{address}/get-artifact?run_uuid={run_id}&path=report.html"
        assert urllib.request.urlopen(page).read() == stored_pipeline.PAGE.encode()
    mlflow_runs.configure(_sqlite(home), home)
    assert versions.register_version(model, outcomes, new, run_id).created is False
    run = MlflowClient().get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["accuracy/tuned"] == 0.8
    assert found["micro"]["flavour"] == found["new"]["plain"] == _greedy(model.path)


@given(st.from_regex(config.MODEL_NAME, fullmatch=True))
def test_mlflow_takes_every_name_that_we_take(name: str) -> None:
    validation._validate_logged_model_name(stored_pipeline.params(name=name).register.name)
    validation._validate_model_name(name)


@given(st.text("a0._-:/ é", min_size=1, max_size=6))
def test_mlflow_takes_every_set_in_a_metrics_name(name: str) -> None:
    section = {"source": "hub", "problem_sets": [name]}
    metric = f"qwen/accuracy/{name}"
    try:
        validation._validate_metric_name(metric)
    except MlflowException:
        with pytest.raises(ValidationError, match="rename"):
            config.Evaluate.model_validate(section)
    else:
        config.Evaluate.model_validate(section)


def test_parameters_digest_follows_any_parameter() -> None:
    def digest(params: Params) -> str:
        return versions.origin({}, params)["params"]

    assert digest(PARAMS) == digest(stored_pipeline.params())
    assert digest(PARAMS) != digest(stored_pipeline.params(alias="other"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, {"beta": "0.4", "alpha": "0.2"}),
        ({"quantile": 0.9}, {"quantile": "0.9", "alpha": "0.2"}),
        ({"label": "expert"}, {"beta": "0.4", "alpha": "0.2", "label": "expert"}),
        ({"steps": "all", "label": "one_hot"}, {"steps": "all", "label": "one_hot"}),
        (
            {"reference": ["skip_first_step"]},
            {"beta": "0.4", "alpha": "0.2", "reference": "skip_first_step"},
        ),
    ],
)
def test_a_versions_tags_name_what_selected(changes: dict[str, Any], said: dict[str, str]) -> None:
    select = config.Select.model_validate(changes)
    tags = versions.origin({}, stored_pipeline.params().model_copy(update={"select": select}))
    rule = ("beta", "quantile", "steps", "label", "alpha", "reference")
    assert {name: tags[name] for name in rule if name in tags} == said
