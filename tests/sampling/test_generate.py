"""Generation to a file: one trajectory a problem, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from tiny_models import write_model
from transformers import AutoModelForCausalLM

from lightreasoner.config import Compute, Generate
from lightreasoner.data import problems
from lightreasoner.data.problems import Problem
from lightreasoner.errors import ModelError, ProblemsError
from lightreasoner.inference import loading, prompts
from lightreasoner.progress import Silent
from lightreasoner.sampling.generate import write
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Workspace

CPU = Compute(device="cpu", dtype="float32")


def generate(
    expert: Path, some: list[Problem], out: Path, compute: Compute = CPU, **config: Any
) -> None:
    out.mkdir()
    problems.write_problems(some, out / "problems.jsonl")
    section = Generate(**{"max_new_tokens": 8} | config)
    work = Workspace(out, out.with_name(f"{out.name}-shards"), compute)
    inputs = {"expert": artifacts.of(expert), "problems": artifacts.of(out)}
    write(inputs, section, work, Silent())


def test_one_row_a_problem_in_order(tiny_expert: Path, tmp_path: Path) -> None:
    some = [Problem(f"p{n}", "x" * (9 - n), "1", "") for n in range(5)]
    generate(tiny_expert, some, tmp_path / "out")
    table = tables.read_table(tmp_path / "out" / "trajectories.parquet", tables.TRAJECTORIES)
    assert table["problem_id"].to_pylist() == [problem.id for problem in some]
    tokenizer = loading.load_tokenizer(tiny_expert)
    for problem, row in zip(some, table.to_pylist(), strict=True):
        assert row["prompt_ids"] == prompts.encode(problem.question, "qwen25-math-cot", tokenizer)
        assert 1 <= len(row["completion_ids"]) <= 8


def test_a_prompt_beyond_the_context_is_named(tiny_expert: Path, tmp_path: Path) -> None:
    """deviations.md: the authors cut prompts at 512 tokens, trained step included."""
    some = [Problem("short", "x", "1", ""), Problem("long", "x" * 1000, "1", "")]
    with pytest.raises(ProblemsError, match=r"problem long: .* exceed the model's context of 1024"):
        generate(tiny_expert, some, tmp_path / "out")


def trajectories(out: Path) -> list[dict[str, Any]]:
    return tables.read_table(out / "trajectories.parquet", tables.TRAJECTORIES).to_pylist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_batch_size_and_order_change_nothing(
    tiny_expert: Path, tmp_path: Path, temperature: float
) -> None:
    some = [Problem(f"p{n}", "x" * (40 - n), "1", "") for n in range(20)]
    generate(tiny_expert, some, tmp_path / "a", temperature=temperature)
    small = CPU.model_copy(update={"batch_size": 3})
    generate(tiny_expert, some[::-1], tmp_path / "b", small, temperature=temperature)
    assert trajectories(tmp_path / "b")[::-1] == trajectories(tmp_path / "a")


def test_weights_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    broken = write_model(tmp_path / "broken", seed=4, hidden=16, layers=1)
    model = AutoModelForCausalLM.from_pretrained(broken)
    model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained(broken)
    with pytest.raises(ModelError, match=r"broken: the weight model.norm.weight is not finite"):
        generate(broken, [Problem("p", "x", "1", "")], tmp_path / "out")


def test_the_file_says_what_it_was_made_with(tiny_expert: Path, tmp_path: Path) -> None:
    generate(tiny_expert, [Problem("p", "x", "1", "")], tmp_path / "out", seed=7)
    said = tables.provenance(tmp_path / "out" / "trajectories.parquet")
    assert said["expert"] == artifacts.digest(tiny_expert)
    assert (said["style"], said["seed"], said["stop_ids"]) == ("qwen25-math-cot", 7, [256, 258])


def test_several_trajectories_a_problem_have_ids_and_draws_of_their_own(
    tiny_expert: Path, tmp_path: Path
) -> None:
    some = [Problem(f"p{n}", "x" * (9 - n), "1", "") for n in range(4)]
    generate(tiny_expert, some, tmp_path / "one", temperature=1.0)
    generate(tiny_expert, some, tmp_path / "three", temperature=1.0, n=3)
    rows = trajectories(tmp_path / "three")
    assert [row["problem_id"] for row in rows[:4]] == ["p0", "p0#1", "p0#2", "p1"]
    assert [problems.problem_of(row["problem_id"]) for row in rows[::3]] == [p.id for p in some]
    assert rows[::3] == trajectories(tmp_path / "one")
    assert all(rows[at]["prompt_ids"] == rows[at + 2]["prompt_ids"] for at in range(0, 12, 3))
    assert len({tuple(row["completion_ids"]) for row in rows}) == len(rows) == 12


def test_several_trajectories_are_the_same_bytes_whatever_the_batch(
    tiny_expert: Path, tmp_path: Path
) -> None:
    some = [Problem(f"p{n}", "x" * (40 - n), "1", "") for n in range(5)]
    generate(tiny_expert, some, tmp_path / "a", temperature=1.0, n=3)
    small = CPU.model_copy(update={"batch_size": 2})
    generate(tiny_expert, some, tmp_path / "b", small, temperature=1.0, n=3)
    files = [tmp_path / name / "trajectories.parquet" for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_resume_writes_the_missing_trajectories_again(tiny_expert: Path, tmp_path: Path) -> None:
    """Five problems of three trajectories are four shards of four; the second is lost."""
    some = [Problem(f"p{n}", "x" * (40 - n), "1", "") for n in range(5)]
    small = CPU.model_copy(update={"batch_size": 1})
    generate(tiny_expert, some, tmp_path / "out", small, temperature=1.0, n=3)
    before = (tmp_path / "out" / "trajectories.parquet").read_bytes()
    (tmp_path / "out").rename(tmp_path / "finished")
    (tmp_path / "out-shards" / "00001.parquet").unlink()
    generate(tiny_expert, some, tmp_path / "out", CPU, temperature=1.0, n=3)
    assert (tmp_path / "out" / "trajectories.parquet").read_bytes() == before
    assert len(list((tmp_path / "out-shards").glob("*.parquet"))) == 4
