import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import json_lines
import pandas as pd
import pyarrow as pa
import pytest

from lightreasoner.config import Compute, Evaluate
from lightreasoner.errors import ProblemsError
from lightreasoner.evaluation import evaluate
from lightreasoner.inference import loading, prompts, transformers_engine
from lightreasoner.inference.decode import Completion
from lightreasoner.inference.engine import Engine, Response
from lightreasoner.progress import Silent
from lightreasoner.qwen_math.normalise import normalise
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Workspace

CPU = Compute(device="cpu", dtype="float32", batch_size=4)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two sets of problems in the toolkit's layout."""
    for name in ("easy", "hard"):
        (tmp_path / "bench" / name).mkdir(parents=True)
        rows = [{"question": f"{name} {i} + 1?", "answer": str(i + 1)} for i in range(8)]
        json_lines.write(tmp_path / "bench" / name / "test.jsonl", rows)
    return tmp_path / "bench"


def settings(source: Path, **changes: object) -> Evaluate:
    values = {"source": str(source), "problem_sets": ("hard", "easy"), "n_problems": 5}
    return Evaluate(**{**values, "max_new_tokens": 6, "seed": 1, **changes})


def written(
    model_dir: Path, config: Evaluate, out: Path, engine: Engine | None = None
) -> tuple[pd.DataFrame, dict]:
    out.mkdir()
    work = Workspace(out, out.with_name(f"{out.name}-shards"), CPU)
    evaluate.write({"model": artifacts.of(model_dir)}, config, work, Silent(), engine)
    scores = tables.read_table(out / "scores.parquet", tables.SCORES).to_pandas()
    return scores, json.loads((out / "summary.json").read_text())


def test_writes_a_row_a_problem_and_a_summary_a_set(
    tiny_expert: Path, source: Path, tmp_path: Path
) -> None:
    scores, summary = written(tiny_expert, settings(source), tmp_path / "out")
    assert list(scores["problem_set"]) == ["hard"] * 5 + ["easy"] * 5
    assert list(summary) == ["hard", "easy"]
    assert summary["hard"]["n"] == 5
    assert (scores["extracted"].isna() == (scores["strict"] == "unparsed")).all()
    assert (scores["k"] == 0).all()
    assert scores["prompt"].str.startswith("<|im_start|>system").all()
    assert scores["tokens"].between(1, 6).all()
    assert (scores["tokens"] == 6).ge(scores["finish_reason"] == "length").all()
    assert tables.provenance(tmp_path / "out" / "scores.parquet") == {
        "style": "qwen25-math-cot", "max_new_tokens": 6, "n": 1, "temperature": 0.0, "seed": 1,
        "shots": {"hard": 0, "easy": 0}, "engine": "transformers",
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
    monkeypatch.setattr(
        "lightreasoner.inference.loading.load_model", lambda *_: pytest.fail("loaded")
    )
    with pytest.raises(ProblemsError, match=r"easy/test\.jsonl"):
        written(tiny_expert, settings(source), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_prompt_that_leaves_no_room_is_refused(
    tiny_expert: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lightreasoner.inference.loading.load_model", lambda *_: pytest.fail("loaded")
    )
    with pytest.raises(ProblemsError, match=r"hard/test/\d+.*context of 1024; .*or lower"):
        written(tiny_expert, settings(source, max_new_tokens=1000), tmp_path / "out")


def test_demos_precede_the_questions_of_their_set_alone(
    tiny_expert: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 1}
    (source / "mmlu_stem").mkdir()
    (source / "mmlu_stem" / "test.jsonl").write_text(json.dumps(row))
    (source / "mmlu_stem" / "demos.json").write_text(json.dumps([["demo", "D"]] * 5))
    tokenizer = loading.load_tokenizer(tiny_expert)
    asked: list[str] = []

    def answer(model: object, prompt_ids: list[list[int]], *_: object, **__: object) -> list:
        asked.extend(tokenizer.decode(ids) for ids in prompt_ids)
        return [Completion(tokenizer(r"\boxed{B}")["input_ids"], "length")] * len(prompt_ids)

    monkeypatch.setattr(transformers_engine, "decode", answer)
    config = settings(source, problem_sets=("easy", "mmlu_stem"), n_problems=1, style="cot")
    scores, _ = written(tiny_expert, config, tmp_path / "out")
    assert [prompt.count("Question: demo\nAnswer: D\n\n\n") for prompt in asked] == [0, 5]
    assert tables.provenance(tmp_path / "out" / "scores.parquet")["shots"] == {
        "easy": 0, "mmlu_stem": 5,
    }  # fmt: skip
    assert scores.iloc[1]["question"] == "q\nAnswer Choices: (A) a (B) b (C) c (D) d"
    assert (scores.iloc[1]["strict"], scores.iloc[1]["qwen"]) == ("correct", "correct")


def test_shots_show_other_problems_and_name_them(
    tiny_expert: Path, source: Path, tmp_path: Path
) -> None:
    """The train split holds one question that is evaluated, and one more than is shown."""
    for name in ("easy", "hard"):
        rows = [
            {"question": f"{name} {i} + 1?", "answer": f"Add.\n#### {i + 1}"} for i in (0, 8, 9)
        ]
        json_lines.write(source / name / "train.jsonl", rows)
    config = settings(source, n_problems=8, shots=2, style="none")
    scores, _ = written(tiny_expert, config, tmp_path / "out")
    said = tables.provenance(tmp_path / "out" / "scores.parquet")
    assert said["shots"] == {"hard": 2, "easy": 2}
    assert said["demos"] == {
        name: [f"{name}/train/00001", f"{name}/train/00002"] for name in ("hard", "easy")
    }
    assert scores["prompt"].iloc[0] == (
        "hard 8 + 1?\nAdd.\nThe answer is \\boxed{9}.\n\n"
        "hard 9 + 1?\nAdd.\nThe answer is \\boxed{10}.\n\nhard 0 + 1?"
    )
    assert scores["prompt"].str.startswith(("hard 8", "easy 8")).all()


@pytest.mark.parametrize(
    ("text", "reason", "style", "response", "verdict", "kept_reason"),
    [
        # the token that ended the response is not part of it
        (r" \boxed{4}<|im_end|>", "stop", "qwen25-math-cot", r"\boxed{4}", "correct", "stop"),
        # a response that ran to its limit keeps its last token
        (r"\boxed{4", "length", "qwen25-math-cot", r"\boxed{4", "unparsed", "length"),
        ("4 or so", "length", "qwen25-math-cot", "4 or so", "unparsed", "length"),
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
    tokenizer = loading.load_tokenizer(tiny_expert)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(
        transformers_engine,
        "decode",
        lambda model, prompts, *_, **__: [Completion(ids, reason)] * len(prompts),
    )
    (source / "easy" / "test.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}\n' * 8)
    config = settings(source, problem_sets=("easy",), n_problems=None, style=style)
    scores, summary = written(tiny_expert, config, tmp_path / "out")
    row = scores.iloc[0]
    assert (row["response"], row["strict"], row["finish_reason"], row["tokens"]) == (
        response, verdict, kept_reason, len(ids),
    )  # fmt: skip
    assert summary["easy"]["correct"] == (8 if verdict == "correct" else 0)
    assert summary["easy"]["no_answer"] == (8 if verdict == "unparsed" else 0)
    assert summary["easy"]["truncated"] == (8 if kept_reason == "length" else 0)


class Told:
    """An engine that says what a test tells it to, two prompts at a time, and notes what it said.

    After `until` batches it dies.
    """

    name = "told"
    batch_size = 2

    def __init__(self, say: Callable[[str, int], str], until: int | None = None):
        self.say, self.until = say, until
        self.asked: list[tuple[str, ...]] = []

    def respond(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Response]:
        if len(self.asked) == self.until:
            raise ConnectionError("the server died")
        self.asked.append(tuple(prompts))
        return [
            Response(self.say(prompt, seed), 3, "stop")
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]


def right(prompt: str, seed: int) -> str:
    """The right answer to `easy 3 + 1?`."""
    number = re.findall(r"(\d) \+ 1\?", prompt)[-1]
    return rf"\boxed{{{int(number) + 1}}}"


def test_a_restart_repeats_no_finished_batch(
    tiny_expert: Path, source: Path, tmp_path: Path
) -> None:
    config = settings(source, n_problems=None)
    whole, _ = written(tiny_expert, config, tmp_path / "whole", Told(right))
    dying, again = Told(right, until=3), Told(right)
    with pytest.raises(ConnectionError):
        written(tiny_expert, config, tmp_path / "out", dying)
    (tmp_path / "out").rmdir()
    found, summary = written(tiny_expert, config, tmp_path / "out", again)
    assert len(dying.asked) == 3
    assert len(again.asked) == 5
    assert not {*dying.asked} & {*again.asked}
    pd.testing.assert_frame_equal(found, whole)
    assert summary["easy"]["accuracy"] == summary["hard"]["accuracy"] == 1


def test_shards_are_put_in_order_without_one_table_of_all(
    tiny_expert: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a table stands for more text than the 2 GiB that one array holds: it is refused."""

    def overflow(*_: object) -> None:
        raise pa.ArrowInvalid("offset overflow while concatenating arrays")

    arrow = SimpleNamespace(Table=pa.Table, concat_tables=overflow)
    monkeypatch.setattr(evaluate, "pa", arrow)
    config, engine = settings(source, n_problems=None), Told(right)
    scores, summary = written(tiny_expert, config, tmp_path / "out", engine)
    assert len(engine.asked) == 8
    assert list(scores["response"]) == [right(prompt, 0) for prompt in scores["prompt"]]
    assert summary["easy"]["accuracy"] == summary["hard"]["accuracy"] == 1


def test_batches_are_of_like_length(tiny_expert: Path, source: Path, tmp_path: Path) -> None:
    rows = [{"question": "long " * n + "1 + 1?", "answer": "2"} for n in (9, 1, 8, 2)]
    json_lines.write(source / "easy" / "test.jsonl", rows)
    engine = Told(right)
    config = settings(source, problem_sets=("easy",), n_problems=None)
    scores, _ = written(tiny_expert, config, tmp_path / "out", engine)
    assert [[prompt.count("long") for prompt in batch] for batch in engine.asked] == [
        [1, 2],
        [8, 9],
    ]
    assert [question.count("long") for question in scores["question"]] == [9, 1, 8, 2]


def test_a_thought_that_the_prompt_opens_is_no_answer(
    tiny_expert: Path, source: Path, tmp_path: Path
) -> None:
    """As DeepSeek-R1's template does; cut off by the token limit, it has no mark of its own."""
    model = shutil.copytree(tiny_expert, tmp_path / "model")
    template = (model / "chat_template.jinja").read_text(encoding="utf-8")
    text = template + "{% if add_generation_prompt %}<think>\n{% endif %}"
    (model / "chat_template.jinja").write_text(text, encoding="utf-8")

    def thinking(prompt: str, seed: int) -> str:
        assert prompt.endswith("<think>\n")
        is_done = "easy" in prompt
        return f"Maybe {right(prompt, seed)}." + ("</think>" + right(prompt, seed)) * is_done

    config = settings(source, style="chat")
    scores, summary = written(model, config, tmp_path / "out", Told(thinking))
    assert summary["easy"]["correct"] == summary["hard"]["unparsed"] == 5
    assert summary["hard"]["qwen"]["correct"] == 5
    assert scores["response"].str.startswith("Maybe").all()


def test_several_responses_a_problem(tiny_expert: Path, source: Path, tmp_path: Path) -> None:
    """Of four responses to each of eight problems the first is right, the others one wrong answer.

    pass@1 = 1/4, pass@2 = 1 - C(3,2)/C(4,2) = 1/2, pass@4 = 1; the wrong answer has the majority.
    """
    first: set[str] = set()

    def say(prompt: str, seed: int) -> str:
        if prompt in first:
            return r"\boxed{-1}"
        first.add(prompt)
        return right(prompt, seed)

    config = settings(source, problem_sets=("easy",), n_problems=None, n=4, temperature=0.7)
    scores, summary = written(tiny_expert, config, tmp_path / "out", Told(say))
    assert list(scores["k"][:5]) == [0, 1, 2, 3, 0]
    assert scores["problem_id"].nunique() == 8
    easy = summary["easy"]
    assert (easy["problems"], easy["n"], easy["accuracy"]) == (8, 32, 0.25)
    assert easy["pass_at"] == {"1": 0.25, "2": 0.5, "4": 1.0}
    assert easy["maj_at"] == {"4": 0.0}
    assert easy["qwen"]["pass_at"] == easy["pass_at"]
    # all problems have the same share: no certainty comes of that
    assert easy["ci95"][0] < 0.25 < easy["ci95"][1]


def test_each_response_has_a_seed_of_its_own(
    tiny_expert: Path, source: Path, tmp_path: Path
) -> None:
    config = settings(source, problem_sets=("easy",), n_problems=4, n=3, temperature=1.0)
    scores, _ = written(tiny_expert, config, tmp_path / "a")
    again, _ = written(tiny_expert, config, tmp_path / "b")
    other, _ = written(tiny_expert, config.model_copy(update={"seed": 9}), tmp_path / "c")
    assert list(scores["response"]) == list(again["response"]) != list(other["response"])
    assert scores["response"].nunique() > 4


def test_an_engine_that_ignores_the_temperature_is_noticed(
    tiny_expert: Path, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(source, problem_sets=("easy",), n=2, temperature=1.0)
    written(tiny_expert, config, tmp_path / "out", Told(right))
    assert "all 2 responses to every problem are equal" in caplog.text


def test_decoding_ends_at_a_stop_word(
    tiny_expert: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny model writes anything but the toolkit's word, so another one stands for it."""
    config = settings(source, problem_sets=("easy",), style="cot", max_new_tokens=40)
    free, _ = written(tiny_expert, config, tmp_path / "free")
    word = next(text[3:6] for text in free["response"] if len(text) > 12)
    monkeypatch.setitem(prompts.STOP_WORDS, "cot", (word,))
    cut, _ = written(tiny_expert, config, tmp_path / "cut")
    for before, after in zip(free.itertuples(), cut.itertuples(), strict=True):
        assert after.response == before.response.partition(word)[0].strip()
        if word in before.response:
            assert (after.finish_reason, after.tokens < before.tokens) == ("stop", True)


def test_conditions_differ_by_style_alone(source: Path) -> None:
    tuned = settings(source, base_style="cot")
    assert tuned.of_base().style == "cot"
    assert tuned.of_tuned() == settings(source)
    assert settings(source, base_style=None).of_base() == settings(source)
    assert evaluate.conditions(tuned.of_base()) == {
        **evaluate.conditions(tuned.of_tuned()), "style": "cot",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "verdicts", "share"),
    [
        # responses without an answer do not vote
        ([None, None, None, "7"], "uuuc", 1.0),
        ([None, None], "uu", 0.0),
        # a wrong answer in several forms is one answer: 12 has three of five
        (["12", "12.0", r"\$12", "13", "13"], "wwwcc", 0.0),
        # so is the right one
        (["0.5", r"\frac{1}{2}", "7", "7", "8"], "ccwww", 0.5),
    ],
)
def test_the_majority_is_of_answers(
    answers: list[str | None], verdicts: str, share: float, tmp_path: Path
) -> None:
    names = {"c": "correct", "w": "wrong", "u": "unparsed"}
    rows = pd.DataFrame(
        {
            "problem_id": "a/0",
            "k": range(len(answers)),
            "response": "r",
            "extracted": answers,
            "pred": [answer and normalise(answer) for answer in answers],
            "strict": [names[verdict] for verdict in verdicts],
            "qwen": [names[verdict] for verdict in verdicts],
            "tokens": 1,
            "finish_reason": "stop",
        }
    )
    for found in (evaluate.summarise(rows), evaluate.summarise(rows)["qwen"]):
        assert found["maj_at"] == {str(len(answers)): share}
