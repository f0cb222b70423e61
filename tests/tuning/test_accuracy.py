"""Accuracy while tuning: what evaluate says of the same model; the adapter is left alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_finetune import CPU, run_tuning, settings
from test_trainer import StoppedError, Until
from test_trainer import tune as tune_with

from lightreasoner import config
from lightreasoner.config import Evaluate, Finetune, Params
from lightreasoner.data import microworld, problems
from lightreasoner.errors import ConfigError, ProblemsError
from lightreasoner.evaluation import evaluate
from lightreasoner.grading.grade import shared_process
from lightreasoner.inference import loading, prompts
from lightreasoner.pipeline.graph import external_inputs
from lightreasoner.progress import Silent
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Workspace
from lightreasoner.tuning import accuracy
from lightreasoner.tuning.accuracy import Accuracy
from lightreasoner.tuning.finetune import with_lora
from lightreasoner.tuning.rows import read_rows

STYLE = "qwen25-math-cot"
N, TOKENS = 20, 128
ON = {"evaluate_every": 4, "evaluate_max_new_tokens": 4, "validation_share": 0.6, "updates": 6}
CURVE = "validation_accuracy_uses_answers"


@pytest.fixture(scope="module", autouse=True)
def one_grader() -> Iterator[None]:
    with shared_process():
        yield


def test_it_is_what_evaluate_says_of_the_same_model(tmp_path: Path) -> None:
    """The micro-world's expert on problems of the kind `transfer`, about a third of which it
    solves; with LoRA's B at 0 it is itself, with weights at random it solves fewer."""
    drawn = microworld.draw("transfer", "sample", N, seed=3)
    rows = [{"question": each.question, "answer": each.answer} for each in drawn]
    source = tmp_path / "own.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = Evaluate(source=str(source), problem_sets=("own",), style=STYLE, max_new_tokens=TOKENS)
    (tmp_path / "out").mkdir()
    expert = loading.resolve("microworld/expert")
    work = Workspace(tmp_path / "out", tmp_path / "scratch", CPU)
    evaluate.write({"expert": expert}, asked, work, Silent())
    said = json.loads((tmp_path / "out" / "summary.json").read_text())["own"]["accuracy"]
    tokenizer = loading.load_tokenizer(expert.path)
    encoded = [prompts.encode(each.question, STYLE, tokenizer) for each in drawn]
    stop_ids = loading.stop_ids(expert.path, tokenizer)
    reading = Accuracy(list(zip(drawn, encoded, strict=True)), tokenizer, STYLE, stop_ids, TOKENS)
    model = with_lora(loading.load_model(expert.path, "cpu", "float32"), Finetune()).train()
    assert 0 < said < 1
    assert reading.measure(model.get_base_model()) == said
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1.0)
    assert reading.measure(model.get_base_model()) < said


@pytest.mark.parametrize(
    "changes",
    [{}, {"gradient_checkpointing": True}, {"stop": "loss", "patience": 9, "validate_every": 3}],
    ids=["dropout", "checkpointing", "best kept"],
)
def test_the_adapter_is_the_same_without_it(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    """To the byte, and so are all other files; dropout is on."""
    lean = {key: changes.pop(key) for key in ("gradient_checkpointing",) if key in changes}
    compute, with_dropout = CPU.model_copy(update=lean), {"lora_dropout": 0.5, **changes}
    for name, every in (("off", 0), ("on", 1)):
        (tmp_path / name).mkdir()
        config_ = settings(**{**ON, **with_dropout, "evaluate_every": every})
        run_tuning(tiny_expert, samples_dir, tmp_path / name, config_, compute)
    off, on = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("off", "on")
    )
    assert pd.read_csv(tmp_path / "on" / "accuracy.csv")["update"].tolist() == list(range(7))
    assert {**off, "accuracy.csv": on["accuracy.csv"]} == on


def test_it_is_read_before_every_so_often_and_at_the_end(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path
) -> None:
    """A tuning that is cut goes on with the same curve, and tells all of it again."""
    heard = Until(-1)
    whole = tune_with(
        tiny_expert, samples_dir, tmp_path / "whole", tmp_path / "w", heard, **ON, validate_every=3
    )
    curve = pd.read_csv(tmp_path / "whole" / "accuracy.csv")
    assert curve["update"].tolist() == [0, 4, 6]
    assert list(curve) == ["update", "accuracy_uses_answers", "problems"]
    assert [step for name, step in heard.heard if name == CURVE] == [0, 4, 6]
    scratch, changes = tmp_path / "scratch", {**ON, "validate_every": 3}
    with pytest.raises(StoppedError):
        tune_with(tiny_expert, samples_dir, tmp_path / "cut", scratch, Until(5), **changes)
    again = Until(-1)
    out = tmp_path / "again"
    assert tune_with(tiny_expert, samples_dir, out, scratch, again, **changes) == whole
    assert [step for name, step in again.heard if name == CURVE] == [0, 4, 6]


def asked(expert: Path, samples: Path, **changes: object) -> Accuracy:
    paths = {"expert": expert, "samples": samples, "problems": samples.with_name("problems")}
    inputs = {name: artifacts.of(path) for name, path in paths.items()}
    rows = read_rows(samples, "sample")
    tokenizer = loading.load_tokenizer(expert)
    return accuracy.of(inputs, rows, tokenizer, settings(**{**ON, **changes}), None)


def test_problems_are_asked_by_the_prompts_of_their_trajectories(
    tiny_expert: Path, samples_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {problem.id: ids for problem, ids in asked(tiny_expert, samples_dir).asked}
    assert found == {"a": [1, 2], "b": [3, 4, 5], "c": [6]}
    monkeypatch.setattr(accuracy, "MOST", 2)
    assert len(asked(tiny_expert, samples_dir).asked) == 2


def write_problems(samples_dir: Path, answers: dict[str, str | None]) -> None:
    rows = [problems.Problem(name, "?", answer, "") for name, answer in answers.items()]
    problems.write_problems(rows, samples_dir.with_name("problems") / "problems.jsonl")


def test_what_cannot_be_asked_is_refused(tiny_expert: Path, samples_dir: Path) -> None:
    with pytest.raises(ProblemsError, match=r"evaluate_max_new_tokens 100000 exceed the model's"):
        asked(tiny_expert, samples_dir, evaluate_max_new_tokens=100_000)
    write_problems(samples_dir, {"x": "1", "y": "2"})
    said = r"evaluate_every 4: none of the 2 problems is among the 3 held out of .*; give the"
    with pytest.raises(ProblemsError, match=said):
        asked(tiny_expert, samples_dir)
    write_problems(samples_dir, {"a": "1", "b": None})
    with pytest.raises(ProblemsError, match=r"first is b; finetune.evaluate_every compares with"):
        asked(tiny_expert, samples_dir)


def test_problems_without_answers_are_refused_before_anything_runs(
    tiny_params: Params, tmp_path: Path
) -> None:
    source = tmp_path / "questions.jsonl"
    source.write_text('{"question": "How many?"}\n' * 6, encoding="utf-8")
    without = config.changed(tiny_params, [f"prepare.source={source}"])
    external_inputs(without, ["problem_source"])
    with pytest.raises(ProblemsError, match=r"answer missing .*; finetune.evaluate_every compares"):
        external_inputs(config.changed(without, ["finetune.evaluate_every=5"]), ["problem_source"])


def test_it_needs_held_out_problems(tiny_params: Params) -> None:
    with pytest.raises(ConfigError, match="evaluate_every 5 needs held-out problems; set"):
        config.changed(tiny_params, ["finetune.evaluate_every=5", "finetune.validation_share=0"])
