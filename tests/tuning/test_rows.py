"""Rows: where labels stand, what is held out, and sample sets that are refused."""

from pathlib import Path

import pyarrow as pa
import pytest
from test_finetune import run_tuning, settings

from lightreasoner.data.problems import Problem
from lightreasoner.errors import ArtifactError, SelectionError
from lightreasoner.inference import loading
from lightreasoner.storage import tables
from lightreasoner.tuning.rows import (
    TrainingRow,
    check_samples,
    gold_rows,
    hold_out,
    join_rows,
    one_hot_row,
    read_rows,
    split_row,
)


def rewrite(samples_dir: Path, schema: pa.Schema, name: str, change: object) -> None:
    """Change one column's values with a function of the list of them."""
    path = samples_dir / ("samples" if schema is tables.SAMPLES else "trajectories")
    path = path.with_suffix(".parquet")
    columns = tables.read_table(path, schema).to_pydict()
    columns[name] = change(columns[name])  # type: ignore[operator]
    tables.write_table(pa.table(columns, schema), schema, path, tables.provenance(path))


def test_a_good_set_passes(samples_dir: Path, tiny_expert: Path) -> None:
    check_samples(samples_dir, tiny_expert)


@pytest.mark.parametrize(
    ("schema", "name", "change", "message"),
    [
        (tables.SAMPLES, "token_ids", lambda v: [[259], *v[1:]], r"row 1, token_ids 259: .* 258"),
        (tables.SAMPLES, "token_ids", lambda v: [[-1], *v[1:]], r"row 1, token_ids -1: .*>= 0"),
        (tables.TRAJECTORIES, "prompt_ids", lambda v: [[999], *v[1:]], r"row 1, prompt_ids 999: "),
        (tables.SAMPLES, "weights", lambda v: [[0.9], *v[1:]], r"row 1, .* 1, not 0.9"),
        (tables.SAMPLES, "weights", lambda v: [v[0], [1.5, -0.5], *v[2:]], r"row 2, weights 1.5: "),
        (tables.SAMPLES, "weights", lambda v: [[float("nan")], *v[1:]], r"row 1, weights nan: "),
        (tables.SAMPLES, "weights", lambda v: [[], *v[1:]], r"row 1, weights \[\]: "),
        (tables.SAMPLES, "step", lambda v: [3, *v[1:]], r"row 1, step 3: is past"),
        (tables.SAMPLES, "step", lambda v: [*v[:3], 2, *v[4:]], r"row 5, .*\'c\', 2\]: appears"),
        (tables.SAMPLES, "problem_id", lambda v: ["x", *v[1:]], r"row 1, problem_id 'x': "),
        (tables.SAMPLES, "token_ids", lambda v: [v[0], [42, 42], *v[2:]], r"row 2, token_ids 42: "),
        (tables.TRAJECTORIES, "problem_id", lambda v: ["a", "b", "b"], r"row 3, .*'b'\]: appears"),
        (tables.TRAJECTORIES, "prompt_ids", lambda v: [*v[:2], []], r"row 3, prompt_ids \[\]: "),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_refused_before_the_model_is_loaded(
    samples_dir: Path,
    tiny_expert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    schema: pa.Schema,
    name: str,
    change: object,
    message: str,
) -> None:
    monkeypatch.delattr(loading, "load_model")
    rewrite(samples_dir, schema, name, change)
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match=message):
        run_tuning(tiny_expert, samples_dir, tmp_path / "out", settings())


def test_an_empty_set_is_refused(samples_dir: Path, tiny_expert: Path) -> None:
    path = samples_dir / "samples.parquet"
    tables.write_table(tables.SAMPLES.empty_table(), tables.SAMPLES, path)
    with pytest.raises(SelectionError, match="has no samples"):
        check_samples(samples_dir, tiny_expert)


@pytest.mark.parametrize("origin", ["generate", "import"])
def test_another_tokenizer_is_refused(samples_dir: Path, tiny_expert: Path, origin: str) -> None:
    path = samples_dir / "trajectories.parquet"
    table = tables.read_table(path, tables.TRAJECTORIES)
    tables.write_table(table, tables.TRAJECTORIES, path, {origin: {"tokenizer": "0" * 32}})
    with pytest.raises(ArtifactError, match=r"are of the tokenizer 0{32}, the expert's is"):
        check_samples(samples_dir, tiny_expert)


def test_joined_rows_hold_what_was_split(samples_dir: Path) -> None:
    rows = read_rows(samples_dir, "trajectory")
    assert join_rows([part for row in rows for part in split_row(row)]) == rows


def test_problems_are_held_out_whole(samples_dir: Path) -> None:
    rows = read_rows(samples_dir, "sample")
    kept, held_out = hold_out(rows, 0.3, seed=1)
    assert len(kept) + len(held_out) == len(rows)
    assert len({row.problem_id for row in held_out}) == 1
    assert not {row.problem_id for row in kept} & {row.problem_id for row in held_out}
    assert hold_out(rows, 0.3, seed=1) == (kept, held_out)


def test_trajectories_of_one_problem_are_held_out_together() -> None:
    rows = [TrainingRow(name, [1], [0], [([1], [1.0])]) for name in ("p", "p#1", "p#2", "q", "q#1")]
    kept, held_out = hold_out(rows, 0.5, seed=0)
    assert {row.problem_id[0] for row in kept} ^ {row.problem_id[0] for row in held_out} == {*"pq"}


@pytest.mark.parametrize(("names", "share"), [("a", 0.5), ("ab", 0)])
def test_nothing_is_held_out_of_one_problem_or_for_no_share(names: str, share: float) -> None:
    rows = [TrainingRow(name, [1], [0], [([1], [1.0])]) for name in names]
    assert hold_out(rows, share, seed=0) == (rows, [])


def test_one_hot_rows_label_every_token_at_its_own_step() -> None:
    row = one_hot_row("p", [1, 2], [7, 8, 9])
    assert row.input_ids == [1, 2, 7, 8]
    assert row.positions == [1, 2, 3]
    assert row.labels == [([7], [1.0]), ([8], [1.0]), ([9], [1.0])]


def test_gold_solutions_of_held_out_problems(samples_dir: Path, tiny_expert: Path) -> None:
    tokenizer = loading.load_tokenizer(tiny_expert)
    solutions = {"a": "so 7", "b": "", "d": "not there"}
    known = [Problem(name, "?", "7", solution) for name, solution in solutions.items()]
    rewrite(samples_dir, tables.TRAJECTORIES, "problem_id", lambda v: ["a#3", *v[1:]])
    rewrite(samples_dir, tables.SAMPLES, "problem_id", lambda v: ["a#3", *v[1:]])
    held_out = read_rows(samples_dir, "trajectory")
    rows = gold_rows(known, held_out, samples_dir, tokenizer)
    assert [row.problem_id for row in rows] == ["a"]
    text = " so 7\nThe answer is \\boxed{7}"
    assert rows[0].input_ids == [1, 2, *tokenizer(text)["input_ids"]]
