"""Fuzz: Parquet tables, by value and by byte, and what the stages read of them."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import ODD_TEXTS, cope, damaged, damaged_tree

from lightreasoner import config
from lightreasoner.authors import jsonl
from lightreasoner.data import problems
from lightreasoner.data.problems import Problem
from lightreasoner.evaluation import evaluate, pairing
from lightreasoner.inference import loading
from lightreasoner.sampling import sample_stats, select
from lightreasoner.storage import tables
from lightreasoner.tuning import rows

Rows = dict[str, list[Any]]
TRAJECTORIES = {
    "problem_id": ["a", "b", "b#1"],
    "prompt_ids": [[1, 2], [3], [3]],
    "completion_ids": [[4, 5, 6], [7, 8], [9]],
    "finish_reason": ["stop", "length", "stop"],
}
STEPS = {
    "problem_id": ["a", "a", "b"],
    "step": [0, 1, 0],
    "kl": [0.5, 1.5, 0.75],
    "expert_entropy": [0.5, 0.25, 0.0],
    "amateur_entropy": [1.0, 0.0, 2.0],
    "expert_top1": [4, 5, 7],
    "amateur_top1": [4, 6, 8],
    "token_ids": [[4, 5], [5], [7, 8, 9]],
    "expert_log_probs": [[-0.5, -1.0], [-0.125], [-0.5, -1.5, -2.0]],
    "amateur_log_probs": [[-0.5, -3.0], [-7.0], [-0.25, -1.5, -2.5]],
}
SAMPLES = {
    "problem_id": ["a", "a", "b"],
    "step": [0, 2, 1],
    "token_ids": [[4, 5], [6], [8, 7]],
    "weights": [[0.75, 0.25], [1.0], [0.5, 0.5]],
    "kl": [0.5, 1.5, None],
}
SCORES = {
    "problem_set": ["s", "s"],
    "problem_id": ["s/0", "s/0"],
    "k": [0, 1],
    "question": ["q", "q"],
    "prompt": ["p", "p"],
    "response": [r"\boxed{2}", "r"],
    "gold": ["2", "2"],
    "extracted": ["2", None],
    "strict": ["correct", "unparsed"],
    "pred": ["2", None],
    "qwen": ["correct", "wrong"],
    "tokens": [9, 7],
    "finish_reason": ["stop", "length"],
}
SELECT = config.Select()
NUMBERS = (
    None, -1, 0, 1, 2, 3, 258, 259, 2**31 - 1, -(2**31), 0.5, 1.0, -0.5, 1e38, -1e38, 1e-45,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS = (*ODD_TEXTS, "a", "b", "b#1", "#1", "c", "stop", "correct", None)


def odd_cell(rng: Random, kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        if rng.random() < 0.1:
            return None
        return [odd_cell(rng, kind.value_type) for _ in range(rng.choice([0, 1, 2, 3, 300]))]
    if pa.types.is_string(kind):
        return rng.choice(TEXTS)
    number = rng.choice(NUMBERS)
    if number is None or pa.types.is_floating(kind):
        return number if number is None else float(number)
    return number if isinstance(number, int) else rng.randrange(-(2**31), 2**31)


def changed(rng: Random, table: Rows, schema: pa.Schema) -> Rows:
    """Some cells replaced, rows repeated, dropped or swapped."""
    found = {name: list(values) for name, values in table.items()}
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(list(found))
        count, action = len(found[name]), rng.random()
        if count and action < 0.7:
            found[name][rng.randrange(count)] = odd_cell(rng, schema.field(name).type)
        elif count and action < 0.9:
            row, doubled = rng.randrange(count), action < 0.8
            for values in found.values():
                values.append(values[row]) if doubled else values.pop(row)
        else:
            rng.shuffle(found[name])
    return found


def written(path: Path, table: Rows, schema: pa.Schema, provenance: bytes = b"{}") -> None:
    texts = [name for name in table if pa.types.is_string(schema.field(name).type)]
    raw = {
        name: [
            each if each is None else each.encode(errors="surrogatepass") for each in table[name]
        ]
        for name in texts
    }
    arrays = [
        pa.array(raw[name], pa.binary()).view(pa.string())
        if name in raw
        else pa.array(table[name], schema.field(name).type)
        for name in schema.names
    ]
    found = pa.table(arrays, schema=schema.with_metadata({"lightreasoner": provenance}))
    pq.write_table(found, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Good tables, over which bad ones are written."""
    written(tmp_path / "trajectories.parquet", TRAJECTORIES, tables.TRAJECTORIES)
    written(tmp_path / "samples.parquet", SAMPLES, tables.SAMPLES)
    written(tmp_path / "steps.parquet", STEPS, tables.STEPS)
    written(tmp_path / "scores.parquet", SCORES, tables.SCORES)
    return tmp_path


def train_on(folder: Path, expert: Path) -> None:
    rows.check_samples(folder, expert)
    for batching in ("sample", "trajectory"):
        rows.hold_out(rows.read_rows(folder, batching), 0.5, 0)
    sample_stats.sample_statistics(folder)
    sample_stats.diff(folder, folder)


def select_from(folder: Path, _: Path) -> None:
    steps = tables.read_table(folder / "steps.parquet", tables.STEPS)
    trajectories = tables.read_table(folder / "trajectories.parquet", tables.TRAJECTORIES)
    sample_stats.step_statistics(folder, 0.2, 0.4)
    for label in ("contrast", "one_hot", "expert"):
        chosen = SELECT.model_copy(update={"label": label})
        found = select.select_samples(steps, trajectories, chosen)
        tables.write_table(found, tables.SAMPLES, folder / "samples.parquet")
        tables.read_table(folder / "samples.parquet", tables.SAMPLES)


def summarise(folder: Path, _: Path) -> None:
    scores = pairing.read_scores(folder)
    for _name, found in scores.rows.groupby("problem_set", sort=False):
        json.dumps(evaluate.verdicts(found, "strict"))


READERS: dict[str, tuple[Rows, pa.Schema, Callable[[Path, Path], None]]] = {
    "samples": (SAMPLES, tables.SAMPLES, train_on),
    "trajectories": (TRAJECTORIES, tables.TRAJECTORIES, train_on),
    "steps": (STEPS, tables.STEPS, select_from),
    "scores": (SCORES, tables.SCORES, summarise),
}


@pytest.mark.parametrize("name", READERS)
def test_odd_values(fuzz: Any, folder: Path, tiny_expert: Path, name: str) -> None:
    table, schema, read = READERS[name]

    def attempt(case: Rows) -> None:
        written(folder / f"{name}.parquet", case, schema)
        read(folder, tiny_expert)

    fuzz(lambda rng: changed(rng, table, schema), attempt, quick=20)


@pytest.mark.parametrize("name", READERS)
def test_odd_bytes(fuzz: Any, folder: Path, tiny_expert: Path, name: str) -> None:
    _, _, read = READERS[name]
    path = folder / f"{name}.parquet"
    good = path.read_bytes()

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        read(folder, tiny_expert)

    fuzz(lambda rng: damaged(rng, good), attempt, quick=20)


@pytest.mark.parametrize(
    ("name", "number"),
    [("samples", 40), ("samples", 1283), ("trajectories", 708), ("steps", 2383), ("scores", 2502)],
)
def test_damage_on_which_pyarrow_ends_the_process(folder: Path, name: str, number: int) -> None:
    """Version 25 aborts where it is asked for the size of a column whose metadata is damaged."""
    path = folder / f"{name}.parquet"
    path.write_bytes(damaged(Random(f"0/{number}"), path.read_bytes()))
    cope(lambda: tables.read_table(path, READERS[name][1]))


def test_odd_provenance(fuzz: Any, folder: Path) -> None:
    generate = {"style": "cot", "tokenizer": "0", "seed": 1}
    good = {"alpha": 0.2, "beta": 0.4, "threshold": 0.4, "label": "contrast", "reference": []}
    good |= {"generate": generate, "score": {"alpha_min": 0.01, "expert": "x"}, "quantile": None}

    def attempt(tree: Any) -> None:
        text = json.dumps(tree).encode(errors="replace")
        written(folder / "samples.parquet", SAMPLES, tables.SAMPLES, text)
        written(folder / "steps.parquet", STEPS, tables.STEPS, text)
        sample_stats.diff(folder, folder)
        sample_stats.step_statistics(folder, 0.2, 0.4)

    fuzz(lambda rng: damaged_tree(rng, good), attempt, quick=20)


def test_odd_problems(fuzz: Any, tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    some = [Problem(f"a/{n}", "q", "1", "s") for n in range(3)]
    problems.write_problems(some, path)
    good = path.read_bytes()

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        problems.read_problems(path)

    fuzz(lambda rng: damaged(rng, good), attempt, quick=40)


def test_odd_lines_of_the_authors(fuzz: Any, tmp_path: Path, tiny_expert: Path) -> None:
    tokenizer = loading.load_tokenizer(tiny_expert)
    path = tmp_path / "samples.jsonl"
    line = jsonl.Line(1, "q", 0, "", [70, 71], [0.5, 0.5], 0.5)
    good = json.loads(jsonl.write_line(line, tokenizer))

    def make(rng: Random) -> bytes:
        text = json.dumps(damaged_tree(rng, good)).encode() if rng.random() < 0.7 else b""
        return text or damaged(rng, json.dumps(good).encode())

    def attempt(content: bytes) -> None:
        path.write_bytes(content)
        jsonl.read_samples(path, tokenizer)

    fuzz(make, attempt, quick=40)
