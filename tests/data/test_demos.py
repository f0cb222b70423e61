"""Where the worked examples of few-shot prompts come from, and that none is evaluated."""

import json
import re
from pathlib import Path
from typing import Any

import json_lines
import pytest

from lightreasoner.config import Evaluate
from lightreasoner.data import demos, sources
from lightreasoner.errors import ProblemsError

PAIRS = [[f"What is {i}?", f"It is {i}."] for i in range(3)]


def worked(*numbers: int) -> list[dict[str, str]]:
    return [{"question": f"{i} + 1?", "answer": f"Add.\n#### {i + 1}"} for i in numbers]


def put(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    json_lines.write(folder / f"{split}.jsonl", rows)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """gsm8k with a train split that holds one question of the test split; svamp without one."""
    put(tmp_path / "gsm8k", "test", worked(1, 2, 3))
    put(
        tmp_path / "gsm8k",
        "train",
        [*worked(*range(10, 16)), {"question": " 2 +  1?", "answer": "x\n#### 3"}],
    )
    put(tmp_path / "svamp", "test", worked(11, 12))
    put(tmp_path / "own", "test", worked(1))
    return tmp_path


def test_examples_are_problems_of_the_train_split_with_their_solutions(source: Path) -> None:
    found = demos.of(str(source), "gsm8k", 2, 0, ["2 + 1?"])
    assert len(found) == 2
    for name, (question, answer) in found.items():
        number = re.fullmatch(r"(\d+) \+ 1\?", question)
        assert number
        assert name.startswith("gsm8k/train/")
        assert answer == f"Add.\nThe answer is \\boxed{{{int(number[1]) + 1}}}."
    assert found == demos.of(str(source), "gsm8k", 2, 0, ["2 + 1?"])
    assert found != demos.of(str(source), "gsm8k", 2, 1, ["2 + 1?"])


@pytest.mark.parametrize(("shots", "seed"), [(1, 0), (5, 1), (6, 2)])
def test_an_evaluated_question_is_no_example(source: Path, shots: int, seed: int) -> None:
    """The train split has 6 questions that are not evaluated, and one that is, in other spaces."""
    found = demos.of(str(source), "gsm8k", shots, seed, ["2 + 1?"])
    assert len(found) == shots
    assert not [question for question, _ in found.values() if question.startswith("2")]
    with pytest.raises(ProblemsError, match="has 6 worked examples that are not evaluated, 7 are"):
        demos.of(str(source), "gsm8k", 7, seed, ["2 + 1?"])


def test_a_set_without_a_train_split_is_lent_one(source: Path) -> None:
    """And its own evaluated questions are left out, here 11 and 12."""
    found = demos.of(str(source), "svamp", 4, 0, ["11 + 1?", "12 + 1?"])
    assert {name.rpartition("/")[0] for name in found} == {"gsm8k/train"}
    assert {question for question, _ in found.values()} <= {
        "2 + 1?",
        *(f"{i} + 1?" for i in (10, 13, 14, 15)),
    }
    with pytest.raises(ProblemsError, match=r"no train split of own, .*; give a directory with de"):
        demos.check(str(source), ["own"], 1, 0)
    with pytest.raises(ProblemsError, match="no train split of mine"):
        demos.check(str(source / "own" / "test.jsonl"), ["mine"], 1, 0)


def test_examples_of_ones_own_go_first(source: Path) -> None:
    (source / "gsm8k" / "demos.json").write_text(json.dumps(PAIRS), encoding="utf-8")
    found = demos.of(str(source), "gsm8k", 2, 5, ["what is  0?"])
    assert found == {f"gsm8k/demos/0000{i}": (f"What is {i}?", f"It is {i}.") for i in (1, 2)}
    with pytest.raises(ProblemsError, match="has 2 worked examples that are not evaluated, 3 are"):
        demos.of(str(source), "gsm8k", 3, 5, ["what is  0?"])
    with pytest.raises(ProblemsError, match=r"demos\.json: must hold 4 demos"):
        demos.check(str(source), ["gsm8k"], 4, 0)


@pytest.mark.parametrize("name", ["tuned", "transfer", "chain_sum"])
def test_the_micro_world_shows_what_neither_tuning_nor_evaluation_draws(name: str) -> None:
    evaluated = sources.draw_problems("microworld", name, "test", 100, 42)
    found = demos.of("microworld", name, 4, 42, [each.question for each in evaluated])
    assert len(found) == 4
    assert all(each.startswith(f"microworld/{name}/pretrain/") for each in found)
    assert all(answer.count(r"The answer is \boxed{") == 1 for _, answer in found.values())


def test_the_hub_is_asked_for_names_alone(offline: None) -> None:
    names = ["gsm8k", "math", "svamp", "asdiv", "math500", "minerva_math", "olympiadbench"]
    demos.check("hub", [*names, "mmlu_stem"], 4, 0)
    commit = "0" * 40
    demos.check(f"someone/else@{commit}", ["any"], 4, 0)
    with pytest.raises(ProblemsError, match="no train split of svamp"):
        demos.check(f"ChilleD/SVAMP@{commit}", ["svamp"], 4, 0)


def test_none_and_no_examples(source: Path) -> None:
    assert demos.of(str(source), "gsm8k", None, 0, ()) == {}
    assert demos.of(str(source), "own", 0, 0, ()) == {}
    demos.check(str(source), ["own"], 0, 0)
    assert Evaluate(source="x", problem_sets=("a",)).shots is None
