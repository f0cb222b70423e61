"""Generation to a file: one trajectory a problem, and what is refused."""

from pathlib import Path

import pytest

from lightreasoner import models, problems, prompts, tables
from lightreasoner.config import Compute, Generate
from lightreasoner.errors import ProblemsError
from lightreasoner.generate import write_trajectories
from lightreasoner.problems import Problem
from lightreasoner.progress import Silent

CPU = Compute(device="cpu", dtype="float32")


def generate(expert: Path, some: list[Problem], out: Path, max_new_tokens: int = 8) -> None:
    out.mkdir()
    problems.write(some, out / "problems.jsonl")
    config = Generate(max_new_tokens=max_new_tokens)
    write_trajectories(expert, out, config, CPU, out, Silent())


def test_one_row_a_problem_in_order(tiny_expert: Path, tmp_path: Path) -> None:
    some = [Problem(f"p{n}", "x" * (9 - n), "1", "") for n in range(5)]
    generate(tiny_expert, some, tmp_path / "out")
    table = tables.read(tmp_path / "out" / "trajectories.parquet", tables.TRAJECTORIES)
    assert table["problem_id"].to_pylist() == [problem.id for problem in some]
    tokenizer = models.load_tokenizer(tiny_expert)
    for problem, row in zip(some, table.to_pylist(), strict=True):
        assert row["prompt_ids"] == prompts.encode(problem.question, "qwen25-math-cot", tokenizer)
        assert 1 <= len(row["completion_ids"]) <= 8


def test_a_prompt_beyond_the_context_is_named(tiny_expert: Path, tmp_path: Path) -> None:
    """deviations.md: the authors cut prompts at 512 tokens, trained step included."""
    some = [Problem("short", "x", "1", ""), Problem("long", "x" * 1000, "1", "")]
    with pytest.raises(ProblemsError, match=r"problem long: .* exceed the model's context of 1024"):
        generate(tiny_expert, some, tmp_path / "out")
