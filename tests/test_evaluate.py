import json
from pathlib import Path

import pandas as pd
import pytest

from lightreasoner import artifacts, evaluate, models, tables
from lightreasoner.config import Compute, Evaluate
from lightreasoner.decode import Completion
from lightreasoner.errors import ProblemsError
from lightreasoner.progress import Silent

CPU = Compute(device="cpu", dtype="float32", batch_size=4)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two sets of problems in the toolkit's layout."""
    for name in ("easy", "hard"):
        (tmp_path / "bench" / name).mkdir(parents=True)
        rows = [{"question": f"{name} {i} + 1?", "answer": str(i + 1)} for i in range(8)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "bench" / name / "test.jsonl").write_text(text)
    return tmp_path / "bench"


def settings(source: Path, **changes: object) -> Evaluate:
    values = {"source": str(source), "problem_sets": ("hard", "easy"), "n_problems": 5}
    return Evaluate(**{**values, "max_new_tokens": 6, "seed": 1, **changes})


def written(model_dir: Path, config: Evaluate, out: Path) -> tuple[pd.DataFrame, dict]:
    out.mkdir()
    evaluate.write_scores(model_dir, config, CPU, out, Silent())
    scores = tables.read(out / "scores.parquet", tables.SCORES).to_pandas()
    return scores, json.loads((out / "summary.json").read_text())


def test_writes_a_row_a_problem_and_a_summary_a_set(
    tiny_expert: Path, source: Path, tmp_path: Path
) -> None:
    scores, summary = written(tiny_expert, settings(source), tmp_path / "out")
    assert list(scores["problem_set"]) == ["hard"] * 5 + ["easy"] * 5
    assert list(summary) == ["hard", "easy"]
    assert summary["hard"]["n"] == 5
    assert (scores["extracted"].isna() == (scores["verdict"] == "unparsed")).all()
    assert scores["tokens"].between(1, 6).all()
    assert (scores["tokens"] == 6).ge(scores["finish_reason"] == "length").all()
    assert tables.provenance(tmp_path / "out" / "scores.parquet") == {
        "style": "qwen25-math-cot", "max_new_tokens": 6, "seed": 1,
    }  # fmt: skip


def test_same_inputs_give_the_same_bytes(tiny_expert: Path, source: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tiny_expert, settings(source), tmp_path / name)
    assert artifacts.digest(tmp_path / "a") == artifacts.digest(tmp_path / "b")


def test_the_seed_draws_the_problems_whatever_the_model(
    tiny_expert: Path, source: Path, tmp_path: Path
) -> None:
    first, _ = written(tiny_expert, settings(source), tmp_path / "a")
    other, _ = written(tiny_expert, settings(source, seed=2), tmp_path / "b")
    longer, _ = written(tiny_expert, settings(source, max_new_tokens=2), tmp_path / "c")
    assert list(first["problem_id"]) != list(other["problem_id"])
    assert list(first["problem_id"]) == list(longer["problem_id"])


@pytest.mark.parametrize("damage", ["", "not json\n"])
def test_all_sets_are_read_before_the_model(
    tiny_expert: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    (source / "easy" / "test.jsonl").write_text(damage)
    monkeypatch.setattr("lightreasoner.models.load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ProblemsError, match=r"easy/test\.jsonl"):
        written(tiny_expert, settings(source), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_prompt_that_leaves_no_room_is_refused(
    tiny_expert: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightreasoner.models.load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ProblemsError, match=r"hard/test/\d+.*context of 1024; .*or lower"):
        written(tiny_expert, settings(source, max_new_tokens=1000), tmp_path / "out")


def test_demos_precede_the_questions_of_their_set_alone(
    tiny_expert: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 1}
    (source / "mmlu_stem").mkdir()
    (source / "mmlu_stem" / "test.jsonl").write_text(json.dumps(row))
    (source / "mmlu_stem" / "demos.json").write_text(json.dumps([["demo", "D"]] * 5))
    tokenizer = models.load_tokenizer(tiny_expert)
    asked: list[str] = []

    def answer(model: object, prompt_ids: list[list[int]], *_: object, **__: object) -> list:
        asked.extend(tokenizer.decode(ids) for ids in prompt_ids)
        return [Completion(tokenizer(r"\boxed{B}")["input_ids"], "length")] * len(prompt_ids)

    monkeypatch.setattr(evaluate, "decode", answer)
    config = settings(source, problem_sets=("easy", "mmlu_stem"), n_problems=1, style="cot")
    scores, _ = written(tiny_expert, config, tmp_path / "out")
    assert [prompt.count("Question: demo\nAnswer: D\n\n\n") for prompt in asked] == [0, 5]
    assert scores.iloc[1]["question"] == "q\nAnswer Choices: (A) a (B) b (C) c (D) d"
    assert scores.iloc[1]["verdict"] == "correct"


@pytest.mark.parametrize(
    ("text", "reason", "style", "response", "verdict", "kept_reason"),
    [
        # the token that ended the response is not part of it
        (r" \boxed{4}<|im_end|>", "stop", "qwen25-math-cot", r"\boxed{4}", "correct", "stop"),
        # a response that ran to its limit keeps its last token
        (r"\boxed{4", "length", "qwen25-math-cot", r"\boxed{4", "correct", "length"),
        ("It is 4", "length", "qwen25-math-cot", "It is 4", "unparsed", "length"),
        # a base model that goes on with a question of its own has answered
        ("\\boxed{4}\n\nQuestion: \\boxed{5}", "length", "cot", r"\boxed{4}", "correct", "stop"),
        (r"\boxed{5}<|im_end|>", "stop", "cot", r"\boxed{5}", "wrong", "stop"),
    ],
)
def test_a_response_is_what_stands_before_its_end(
    tiny_expert: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    reason: str,
    style: str,
    response: str,
    verdict: str,
    kept_reason: str,
) -> None:
    tokenizer = models.load_tokenizer(tiny_expert)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(
        evaluate, "decode", lambda model, prompts, *_, **__: [Completion(ids, reason)] * 8
    )
    (source / "easy" / "test.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}\n' * 8)
    config = settings(source, problem_sets=("easy",), n_problems=None, style=style)
    scores, summary = written(tiny_expert, config, tmp_path / "out")
    row = scores.iloc[0]
    assert (row["response"], row["verdict"], row["finish_reason"], row["tokens"]) == (
        response, verdict, kept_reason, len(ids),
    )  # fmt: skip
    assert summary["easy"]["correct"] == (8 if verdict == "correct" else 0)
    assert summary["easy"]["no_answer"] == (8 if verdict == "unparsed" else 0)
    assert summary["easy"]["truncated"] == (8 if kept_reason == "length" else 0)
