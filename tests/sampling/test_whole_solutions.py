"""The baselines' sample sets: which solutions are kept, and what of them is taught."""

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tiny_models import write_model

from lightreasoner.config import Compute
from lightreasoner.data import problems
from lightreasoner.data.problems import Problem, solution_text
from lightreasoner.errors import ArtifactError, ModelError, ProblemsError, SelectionError
from lightreasoner.inference import loading
from lightreasoner.progress import Silent
from lightreasoner.sampling import sample_stats, whole_solutions
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Artifact, Inputs, Workspace
from tasks.tracking import measures

END = 258
GSM8K = Problem(
    "gsm8k/train/00000",
    "How many clips?",
    "72",
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nShe sold 48+24 = <<48+24=72>>72 clips.",
)


def ids_of(expert: Path, text: str) -> list[int]:
    return loading.load_tokenizer(expert)(text, add_special_tokens=False)["input_ids"]


def write_problems(out: Path, *some: Problem) -> Path:
    out.mkdir()
    problems.write_problems(list(some), out / "problems.jsonl")
    return out


def write_trajectories(
    out: Path, expert: Path, rows: list[tuple[str, str, str]], style: str = "qwen25-math-cot"
) -> artifacts.Artifact:
    """Rows of id, text and finish reason, after the prompt [7, 8]; `stop` adds the end token."""
    out.mkdir()
    completions = [ids_of(expert, text) + [END] * (reason == "stop") for _, text, reason in rows]
    table = pa.table(
        [[row[0] for row in rows], [[7, 8]] * len(rows), completions, [row[2] for row in rows]],
        tables.TRAJECTORIES,
    )
    path = out / "trajectories.parquet"
    tables.write_table(table, tables.TRAJECTORIES, path, {"style": style, "seed": 3})
    return artifacts.of(out)


def read(out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Samples, trajectories and provenance of a sample set."""
    path = out / "samples.parquet"
    trajectories = tables.read_table(out / "trajectories.parquet", tables.TRAJECTORIES)
    found = tables.read_table(path, tables.SAMPLES).to_pylist()
    return found, trajectories.to_pylist(), tables.provenance(path)


def arguments(
    given: Path, written: Artifact, expert: Path, out: Path
) -> tuple[Inputs, None, Workspace, Silent]:
    """What a baseline's stage is called with."""
    problems = {"problems": artifacts.of(given), "trajectories": written}
    inputs = {**problems, "expert": artifacts.of(expert)}
    return inputs, None, Workspace(out, out / "scratch", Compute()), Silent()


def keep(
    expert: Path, tmp_path: Path, rows: list[tuple[str, str, str]], style: str = "qwen25-math-cot"
) -> Path:
    """Keep of the problems p (answer 5) and q (answer 6)."""
    some = [Problem("p", "2+3?", "5", ""), Problem("q", "3+3?", "6", "")]
    given = write_problems(tmp_path / "problems", *some)
    written = write_trajectories(tmp_path / "trajectories", expert, rows, style)
    out = tmp_path / "out"
    out.mkdir()
    whole_solutions.keep(*arguments(given, written, expert, out))
    return out


RIGHT, ALSO_RIGHT = "2+3=\\boxed{5}", "It is \\boxed{5.0}."
WRONG, NONE = "\\boxed{6}", "It is not known."


def test_only_correct_and_complete_solutions_are_kept_once(
    tiny_expert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        ("p", RIGHT, "stop"),
        ("p#1", WRONG, "stop"),
        ("p#2", RIGHT, "stop"),
        ("p#3", ALSO_RIGHT, "stop"),
        ("p#4", RIGHT, "length"),
        ("p#5", RIGHT, "stop"),
        ("q", NONE, "stop"),
        ("q#1", "\\boxed{6}", "stop"),
    ]
    with caplog.at_level(logging.INFO, "lightreasoner"):
        out = keep(tiny_expert, tmp_path, rows)
    _, trajectories, said = read(out)
    assert [row["problem_id"] for row in trajectories] == ["p", "p#3", "q#1"]
    counts = {"kept": 3, "duplicate": 2, "wrong": 1, "unparsed": 1, "timeout": 0, "truncated": 1}
    assert said["counts"] == counts
    assert "3 kept, 2 duplicate, 1 wrong, 1 unparsed, 0 timeout, 1 truncated" in caplog.text
    assert (said["source"], said["label"], said["generate"]["seed"]) == ("keep", "one_hot", 3)
    assert said["trajectories_digest"] == artifacts.digest(tmp_path / "trajectories")


def test_equal_solutions_of_two_problems_are_both_kept(tiny_expert: Path, tmp_path: Path) -> None:
    given = write_problems(
        tmp_path / "problems", *(Problem(name, "2+3?", "5", "") for name in "pq")
    )
    rows = [("p", RIGHT, "stop"), ("q", RIGHT, "stop")]
    written = write_trajectories(tmp_path / "trajectories", tiny_expert, rows)
    whole_solutions.keep(*arguments(given, written, tiny_expert, tmp_path))
    assert len(read(tmp_path)[1]) == 2


def test_every_step_is_a_one_hot_sample_the_end_token_too(
    tiny_expert: Path, tmp_path: Path
) -> None:
    found, trajectories, _ = read(keep(tiny_expert, tmp_path, [("p", RIGHT, "stop")]))
    (solution,) = trajectories
    assert solution["prompt_ids"] == [7, 8]
    assert solution["completion_ids"][-1] == END
    assert [row["step"] for row in found] == list(range(len(solution["completion_ids"])))
    assert [row["token_ids"] for row in found] == [[id_] for id_ in solution["completion_ids"]]
    assert all(row["weights"] == [1.0] and row["kl"] is None for row in found)
    assert {row["problem_id"] for row in found} == {"p"}


def test_a_solution_that_goes_on_after_its_answer_is_truncated(
    tiny_expert: Path, tmp_path: Path
) -> None:
    """A base model under `cot` asks itself the next question; evaluate cuts that off, too."""
    rows = [("p", f"{RIGHT}\n\nQuestion: 1+1?", "stop"), ("p#1", RIGHT, "stop")]
    _, trajectories, said = read(keep(tiny_expert, tmp_path, rows, "cot"))
    assert [row["problem_id"] for row in trajectories] == ["p#1"]
    assert said["counts"]["truncated"] == 1


def test_nothing_kept_says_why(tiny_expert: Path, tmp_path: Path) -> None:
    rows = [("p", WRONG, "stop"), ("q", NONE, "stop"), ("q#1", "\\boxed{6}", "length")]
    with pytest.raises(
        SelectionError,
        match=r"none of 3 generated .*: 0 kept, 0 duplicate, 1 wrong, 1 unparsed, 0 timeout, "
        r"1 truncated; generate more",
    ):
        keep(tiny_expert, tmp_path, rows)


def test_a_trajectory_of_another_problem_is_refused(tiny_expert: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no problem of trajectory r#1"):
        keep(tiny_expert, tmp_path, [("r#1", RIGHT, "stop")])


def gold(expert: Path, tmp_path: Path, *some: Problem) -> Path:
    given = write_problems(tmp_path / "problems", *some)
    rows = [(problem.id, "x", "length") for problem in some]
    written = write_trajectories(tmp_path / "trajectories", expert, rows)
    out = tmp_path / "out"
    out.mkdir()
    whole_solutions.gold(*arguments(given, written, expert, out))
    return out


@pytest.mark.parametrize("make", [whole_solutions.keep, whole_solutions.gold])
def test_problems_without_gold_answers_are_refused_first(tmp_path: Path, make: Any) -> None:
    some = [Problem("a/0", "q", "7", "s"), Problem("a/1", "q", None, "")]
    problems.write_problems(some, tmp_path / "problems.jsonl")
    gone = Artifact(tmp_path / "gone", "")
    inputs = {"problems": Artifact(tmp_path, ""), "trajectories": gone, "expert": gone}
    with pytest.raises(ProblemsError, match=r"1 of 2 problems have no gold .* is a/1"):
        make(inputs, None, Workspace(tmp_path, tmp_path, Compute()), Silent())


def test_gsm8ks_solution_as_a_response() -> None:
    assert solution_text(GSM8K) == (
        "Natalia sold 48/2 = 24 clips in May.\nShe sold 48+24 = 72 clips.\n"
        "The answer is \\boxed{72}."
    )


def test_a_boxed_solution_stays_as_it_is() -> None:
    solution = "2+3=5\nThe answer is \\boxed{5}."
    assert solution_text(Problem("p", "2+3?", "5", solution)) == solution
    assert solution_text(Problem("p", "2+3?", "5", "")) == ""


def test_the_gold_solution_follows_the_prompt_and_ends(tiny_expert: Path, tmp_path: Path) -> None:
    found, trajectories, said = read(gold(tiny_expert, tmp_path, GSM8K))
    (solution,) = trajectories
    assert solution["prompt_ids"] == [7, 8]
    text = f" {solution_text(GSM8K)}"  # as the prompt does not end in a blank
    assert solution["completion_ids"] == [*ids_of(tiny_expert, text), END]
    assert solution["finish_reason"] == "stop"
    assert len(found) == len(solution["completion_ids"])
    assert (said["source"], said["counts"]["kept"]) == ("gold", 1)


def test_problems_that_teach_nothing_are_counted_and_named(
    tiny_expert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    some = [
        GSM8K,
        Problem("none", "x?", "1", ""),
        Problem("contradicts", "x?", "1", "\\boxed{2}"),
        Problem("long", "x?", "1", "1 " * 600),
    ]
    with caplog.at_level(logging.INFO, "lightreasoner"):
        _, trajectories, said = read(gold(tiny_expert, tmp_path, *some))
    assert [row["problem_id"] for row in trajectories] == [GSM8K.id]
    counts = {"kept": 1, "without a solution": 1, "wrong": 1, "too long": 1}
    assert said["counts"] == counts
    for line in ("without a solution: none", "wrong: contradicts", "too long: long"):
        assert f"gold: {line}" in caplog.messages


def test_no_solution_at_all(tiny_expert: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="none of 1 problems has a solution to learn"):
        gold(tiny_expert, tmp_path, Problem("none", "x?", "1", ""))


def test_a_problem_without_a_trajectory_is_refused(tiny_expert: Path, tmp_path: Path) -> None:
    given = write_problems(tmp_path / "problems", GSM8K)
    written = write_trajectories(tmp_path / "trajectories", tiny_expert, [("p", "x", "stop")])
    with pytest.raises(ArtifactError, match=f"the first is {GSM8K.id}"):
        whole_solutions.gold(*arguments(given, written, tiny_expert, tmp_path))


def test_the_end_token_is_the_first_that_the_model_declares(tmp_path: Path) -> None:
    """Qwen2.5's instruct models name end-of-turn, then end-of-text; decoding stops at both."""
    path = write_model(tmp_path / "model", seed=1, hidden=16, layers=1)
    tokenizer = loading.load_tokenizer(path)
    assert loading.end_id(path, tokenizer) == END
    settings = {"eos_token_id": [256, 258]}
    (path / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert loading.end_id(path, tokenizer) == 256
    assert loading.stop_ids(path, tokenizer) == {256, 258}


def test_a_model_that_declares_no_end_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model", seed=1, hidden=16, layers=1)
    (path / "generation_config.json").unlink()
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    (path / "config.json").write_text(json.dumps({**config, "eos_token_id": None}), "utf-8")
    tokenizer = loading.load_tokenizer(path)
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no file names an end token"):
        loading.end_id(path, tokenizer)


def test_readers_take_samples_without_a_kl(tiny_expert: Path, tmp_path: Path) -> None:
    out = keep(tiny_expert, tmp_path, [("p", RIGHT, "stop")])
    rows = {row.name: row for row in sample_stats.sample_statistics(out)}
    assert (rows["mean KL"].n, rows["mean KL"].value) == (0, None)
    assert rows["single-token labels"].value == 1
    assert sample_stats.diff(out, out).largest_kl_difference == 0
    measured = measures.of_payload("keep", out)
    assert measured["samples"] == rows["single-token labels"].n
    assert "kl_mean" not in measured
