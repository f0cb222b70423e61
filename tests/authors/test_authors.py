"""The authors' JSONL: what a line holds, where its tokens end, and the way there and back.

The hand-made tokenizer merges b+c before a+b: it spells "abc" as a, bc and "ab" as ab. So a
response that was written ab, c, d has the same text and number of tokens as the tokenizer's own
a, bc, d, and other boundaries. It never spells with its token dd, which an expert may write.
"""

import csv
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from lightreasoner import config
from lightreasoner.authors import convert, jsonl, token_boundaries
from lightreasoner.authors.token_boundaries import recover
from lightreasoner.cli import app
from lightreasoner.config import Compute, Finetune
from lightreasoner.data import problems
from lightreasoner.data.problems import Problem
from lightreasoner.errors import ArtifactError, ProblemsError
from lightreasoner.inference import loading
from lightreasoner.inference.prompts import encode
from lightreasoner.presets import PRESETS
from lightreasoner.progress import Silent
from lightreasoner.sampling import sample_stats
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Workspace
from lightreasoner.tuning import finetune
from lightreasoner.tuning.rows import check_samples

MICROWORLD = loading.MICROWORLD / "expert"
A, B, C, D, AB, BC, DD = range(7)


def spelling() -> PreTrainedTokenizerFast:
    """The hand-made tokenizer over the letters a to d."""
    vocab = {"a": A, "b": B, "c": C, "d": D, "ab": AB, "bc": BC, "dd": DD}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[("b", "c"), ("a", "b")]))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def rows_of(ids: list[int], tokenizer: Any) -> list[tuple[int, str]]:
    """(step, prefix) of every step, as an export has them."""
    return [(step, tokenizer.decode(ids[:step])) for step in range(len(ids) + 1)]


def test_the_tokenizers_own_spelling_is_recovered() -> None:
    found = recover(rows_of([A, BC, D, AB], spelling()), spelling())
    assert found == ([A, BC, D, AB], [None] * 5)


def test_another_spelling_of_equal_length_contradicts_an_earlier_row() -> None:
    """Written ab, c, d: "ab" is ab, and "abc" is a, bc: two tokens that do not begin with it."""
    ids, reasons = recover(rows_of([AB, C, D], spelling()), spelling())
    assert ids == [AB]
    late = token_boundaries.OTHER_PREFIX
    assert reasons == [None, None, late, late]


def test_a_spelling_with_more_tokens_is_named() -> None:
    """Written b, c, d: the prefix "bc" is one token when tokenised again."""
    ids, reasons = recover(rows_of([B, C, D], spelling()), spelling())
    assert ids == [B]
    assert reasons[:2] == [None, None]
    assert reasons[2] == "its prefix has 1 tokens when tokenised again, not 2"
    assert reasons[3] == "its prefix has 2 tokens when tokenised again, not 3"


def test_a_spelling_of_equal_length_contradicts_an_earlier_row_that_is_unreadable() -> None:
    """Written b, c, dd: bc, d, d has three tokens too, but its first two are "bcd", not "bc"."""
    ids, reasons = recover(rows_of([B, C, DD], spelling())[2:], spelling())
    assert ids == []
    assert reasons == [
        "its prefix has 1 tokens when tokenised again, not 2",
        token_boundaries.OTHER_PREFIX,
    ]


def test_blanks_that_join_at_the_end_are_read_from_a_later_row() -> None:
    """GPT-2's pattern keeps the last of two line breaks for what follows; alone they are one."""
    tokenizer = spelling_with_line_breaks(use_regex=True)
    ids = tokenizer("a\n\nb")["input_ids"]
    rows = rows_of(ids, tokenizer)
    assert len(ids) == 4
    assert tokenizer(rows[3][1])["input_ids"] != ids[:3]
    assert recover(rows, tokenizer) == (ids, [None] * 5)
    assert recover(rows[:4], tokenizer)[1][3] == (
        "its prefix has 2 tokens when tokenised again, not 3"
    )


def test_text_that_the_tokenizer_loses_is_named() -> None:
    tokenizer = spelling()
    _, reasons = recover([(1, "a"), (2, "a%")], tokenizer)
    assert reasons == [None, "its prefix has 1 tokens when tokenised again, not 2"]
    _, reasons = recover([(1, "a%")], tokenizer)
    assert reasons == ["its prefix changes when tokenised and decoded again"]


def test_a_prefix_within_a_character_is_read_from_a_later_row(tiny_expert: Path) -> None:
    """The tiny tokenizer has a token a byte: é is two, and the first alone decodes to U+FFFD."""
    tokenizer = loading.load_tokenizer(tiny_expert)
    ids = tokenizer("né.")["input_ids"]
    assert len(ids) == 4
    rows = rows_of(ids, tokenizer)
    assert rows[2] == (2, "n\ufffd")
    assert recover(rows, tokenizer) == (ids, [None] * 5)
    assert recover(rows[:3], tokenizer)[1] == [None, None, "its prefix ends within a character"]


def test_the_order_of_the_rows_does_not_count() -> None:
    rows = rows_of([A, BC, D], spelling())
    assert recover(rows[::-1], spelling()) == ([A, BC, D], [None] * 4)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=40))
def test_every_prefix_of_the_tokenizers_own_spelling_is_recovered(text: str) -> None:
    """What token_boundaries.py says of byte-pair tokenizers, on the shipped expert's."""
    tokenizer = loading.load_tokenizer(MICROWORLD)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if "\ufffd" in text:
        return
    assert recover(rows_of(ids, tokenizer), tokenizer) == (ids, [None] * (len(ids) + 1))


@given(st.lists(st.integers(A, DD), max_size=8), st.data())
def test_what_is_recovered_has_the_rows_text_and_length(
    ids: list[int], data: st.DataObject
) -> None:
    """Any spelling, any subset of its rows: a kept row is never off in text or in count."""
    tokenizer = spelling()
    rows = rows_of(ids, tokenizer)
    rows = [rows[0], *(row for row in rows[1:] if data.draw(st.booleans()))]
    found, reasons = recover(rows, tokenizer)
    for (step, prefix), reason in zip(rows, reasons, strict=True):
        if reason is None:
            assert len(found) >= step
            assert tokenizer.decode(found[:step]) == prefix


@given(st.lists(st.integers(A, DD), max_size=8))
def test_with_every_row_what_is_recovered_is_what_was_written(ids: list[int]) -> None:
    """With a row a step, every boundary is tied down by text and count: no id can be another."""
    tokenizer = spelling()
    found, reasons = recover(rows_of(ids, tokenizer), tokenizer)
    for step, reason in enumerate(reasons):
        if reason is None:
            assert found[:step] == ids[:step]


LINE = {
    "prompt_id": "What is 1 + 1?",
    "step": 1,
    "prefix": "1",
    "tokens": ["+", "-"],
    "token_ids": [10, 12],
    "weights": [0.75, 0.25],
    "kl_divergence": 0.5,
}


def write_lines(path: Path, *rows: dict[str, Any] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_line_is_read_as_it_was_written(tiny_expert: Path, tmp_path: Path) -> None:
    tokenizer = loading.load_tokenizer(tiny_expert)
    path = write_lines(tmp_path / "a.jsonl", LINE, "", LINE)
    first, second = jsonl.read_samples(path, tokenizer)
    assert first == jsonl.Line(1, "What is 1 + 1?", 1, "1", [10, 12], [0.75, 0.25], 0.5)
    assert second == dataclasses.replace(first, number=3)
    assert json.loads(jsonl.write_line(first, tokenizer)) == LINE
    assert list(json.loads(jsonl.write_line(first, tokenizer))) == list(LINE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "a list, not an object"),
        ({"weights": None}, r"weights has the wrong type \(NoneType\)"),
        ({"step": True}, r"step has the wrong type \(bool\)"),
        ({"step": "1"}, "step has the wrong type"),
        ({"step": -1}, "step must be >= 0, got -1"),
        ({"prompt_id": 7}, "prompt_id has the wrong type"),
        ({"prompt_id": "a \ud83d b"}, "prompt_id has half a surrogate pair"),
        ({"prefix": "\ud83d"}, "prefix has half a surrogate pair"),
        ({"weights": [1.0]}, "have 2, 2 and 1 entries"),
        ({"tokens": [], "token_ids": [], "weights": []}, "have 0, 0 and 0 entries"),
        ({"weights": [0.5, 0.25]}, "weights sum to 0.75; they must sum to 1 within 0.01"),
        ({"weights": [1.5, -0.5]}, "weights must be numbers >= 0"),
        ({"weights": [float("nan"), 1.0]}, "weights must be numbers >= 0"),
        ({"kl_divergence": float("inf")}, "kl_divergence must be finite"),
        ({"kl_divergence": 10**400}, "a whole number of 401 digits; 300 are read"),
        ({"weights": [10**400, 0]}, "a whole number of 401 digits; 300 are read"),
        ({"step": 2**31}, "step must be >= 0, got 2147483648; the largest is 2147483647"),
        ({"token_ids": [10, 10]}, "token_ids must be distinct integers"),
        ({"token_ids": [10, 1.5]}, "token_ids must be distinct integers"),
        ({"token_ids": [10, 9999]}, "token id 9999, but the tokenizer's are 0 to 258"),
        ({"tokens": ["+", "x"]}, "token 12 is 'x' in the file and '-' in the tokenizer"),
    ],
)
def test_a_malformed_line_is_named(
    change: dict[str, Any] | str, message: str, tiny_expert: Path, tmp_path: Path
) -> None:
    bad = change if isinstance(change, str) else {**LINE, **change}
    path = write_lines(tmp_path / "a.jsonl", LINE, bad)
    with pytest.raises(ArtifactError, match=message) as caught:
        jsonl.read_samples(path, loading.load_tokenizer(tiny_expert))
    assert str(caught.value).startswith(f"{path}:2: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", LINE)
def test_a_missing_field_is_named(name: str, tiny_expert: Path, tmp_path: Path) -> None:
    rest = {key: value for key, value in LINE.items() if key != name}
    path = write_lines(tmp_path / "a.jsonl", rest)
    with pytest.raises(ArtifactError, match=f"a.jsonl:1: {name} is missing; the fields are"):
        jsonl.read_samples(path, loading.load_tokenizer(tiny_expert))


def test_an_empty_file_and_other_encodings_are_named(tiny_expert: Path, tmp_path: Path) -> None:
    tokenizer = loading.load_tokenizer(tiny_expert)
    path = tmp_path / "a.jsonl"
    for content, message in ((b"\n", "no samples in the file"), (b"\xff{}", "not UTF-8 text")):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=message):
            jsonl.read_samples(path, tokenizer)


TEXTS = {"set/00000": "1+1=2, née", "set/00001": "so 2."}
QUESTIONS = {"set/00000": "What is 1 + 1?", "set/00001": "And «2»?"}
Rows = list[tuple[str, int, list[int], list[float], float]]


def write_set(directory: Path, expert: Path, rows: Rows, seeded: list[int] | None = None) -> Path:
    """A sample set over the two problems, and `problems.jsonl` beside its tables."""
    directory.mkdir(parents=True)
    tokenizer = loading.load_tokenizer(expert)
    columns = list(map(list, zip(*rows, strict=True)))
    tables.write_table(
        pa.table(columns, tables.SAMPLES), tables.SAMPLES, directory / "samples.parquet"
    )
    encoded = [encode(QUESTIONS[id_], "qwen25-math-cot", tokenizer) for id_ in TEXTS]
    completions = [tokenizer(text)["input_ids"] for text in TEXTS.values()]
    columns = [list(TEXTS), encoded, [seeded or completions[0], completions[1]], ["stop"] * 2]
    tables.write_table(
        pa.table(columns, tables.TRAJECTORIES),
        tables.TRAJECTORIES,
        directory / "trajectories.parquet",
    )
    read = [Problem(id_, question, "2", "") for id_, question in QUESTIONS.items()]
    problems.write_problems(read, directory / "problems.jsonl")
    return directory


def labels() -> st.SearchStrategy[tuple[list[int], list[float]]]:
    """A label of one to three tokens whose float32 weights sum to 1."""
    eighths = st.sampled_from([[1.0], [0.75, 0.25], [0.125, 0.625, 0.25], [0.1, 0.9]])
    ids = st.lists(st.integers(0, 258), min_size=3, max_size=3, unique=True).map(sorted)
    return st.tuples(ids, eighths).map(lambda pair: (pair[0][: len(pair[1])], pair[1]))


@st.composite
def sample_rows(draw: st.DrawFn) -> Rows:
    """Samples at some steps of the two responses, from the first step to the last."""
    rows = []
    for id_, text in TEXTS.items():
        for step in range(len(text.encode())):
            if draw(st.booleans()) or (step, id_) == (0, "set/00000"):
                rows.append((id_, step, *draw(labels()), draw(st.floats(0, 9, width=32))))
    return rows


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=sample_rows())
def test_there_and_back_gives_the_same_samples(
    rows: Rows, tiny_expert: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All but a row whose own prefix ends within the é and that no later row of it explains."""
    root = tmp_path_factory.mktemp("exchange")
    ours = write_set(root / "ours", tiny_expert, rows)
    cut = TEXTS["set/00000"].encode().index("é".encode()) + 1
    is_last = not any(id_ == "set/00000" and step > cut for id_, step, *_ in rows)
    lost = [row[1] for row in rows if row[:2] == ("set/00000", cut) and is_last]
    written = convert.export_file(ours, ours, tiny_expert, root / "a.jsonl")
    result = convert.import_file(
        root / "a.jsonl", tiny_expert, "qwen25-math-cot", ours, root / "back"
    )
    assert written == len(rows) == result.rows
    assert [row.step for row in result.excluded] == lost
    counts = sample_stats.diff(ours, root / "back").counts
    assert counts == {
        "equal": len(rows) - len(lost), "label": 0, "prefix": 0, "first": len(lost), "second": 0
    }  # fmt: skip
    if not lost:
        again = tables.read_table(root / "back" / "samples.parquet", tables.SAMPLES)
        assert again.equals(tables.read_table(ours / "samples.parquet", tables.SAMPLES))


def test_rows_without_a_boundary_are_counted_and_named(tiny_expert: Path, tmp_path: Path) -> None:
    """The second response was written with é in one token of another tokenizer: one too few."""
    good = {**LINE, "prompt_id": "first"}
    bad = {**LINE, "prompt_id": "second", "prefix": "1é", "step": 2}
    late = {**LINE, "prompt_id": "second", "prefix": "1é+", "step": 3}
    path = write_lines(tmp_path / "a.jsonl", good, bad, {**LINE, "prompt_id": "second"}, late)
    result = convert.import_file(path, tiny_expert, "authors", None, tmp_path / "set")
    why = "its prefix has {} tokens when tokenised again, not {}"
    assert result == convert.Imported(
        4,
        2,
        [
            convert.Excluded(2, "authors/00001", 2, why.format(3, 2)),
            convert.Excluded(4, "authors/00001", 3, why.format(4, 3)),
        ],
    )
    with (tmp_path / "set" / "excluded.csv").open(newline="", encoding="utf-8") as file:
        assert [row["line"] for row in csv.DictReader(file)] == ["2", "4"]
    found = tables.provenance(tmp_path / "set" / "samples.parquet")["import"]
    assert (found["rows"], found["samples"], found["excluded"]) == (4, 2, 2)
    kept = tables.read_table(tmp_path / "set" / "samples.parquet", tables.SAMPLES).to_pylist()
    assert [(row["problem_id"], row["step"]) for row in kept] == [
        ("authors/00000", 1),
        ("authors/00001", 1),
    ]


def test_a_step_that_stands_twice_is_left_out_once(tiny_expert: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", LINE, LINE)
    result = convert.import_file(path, tiny_expert, "authors", None, tmp_path / "set")
    (left_out,) = result.excluded
    assert (left_out.line, left_out.reason) == (
        2,
        "an earlier line has the same question and step",
    )


def test_a_prefix_beyond_the_context_is_left_out(tiny_expert: Path, tmp_path: Path) -> None:
    """The tiny model reads 1024 tokens."""
    long = {**LINE, "prefix": "1" * 1000, "step": 1000}
    path = write_lines(tmp_path / "a.jsonl", LINE, long)
    result = convert.import_file(path, tiny_expert, "authors", None, tmp_path / "set")
    assert [row.reason for row in result.excluded] == [
        "prompt and prefix exceed the model's context"
    ]


def test_a_file_without_a_single_boundary_is_an_error(tiny_expert: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {**LINE, "step": 5})
    with pytest.raises(ArtifactError, match="none of 1 rows can be imported; the first, line 1"):
        convert.import_file(path, tiny_expert, "authors", None, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_nothing_is_overwritten(tiny_expert: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", LINE)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").touch()
    with pytest.raises(ArtifactError, match=r"set: holds other files \(thesis.txt\); choose a new"):
        convert.import_file(path, tiny_expert, "authors", None, tmp_path / "set")


def test_prompt_and_prefix_are_tokenised_apart(tmp_path: Path) -> None:
    """Together, a line break that opens the response would join the one that ends the prompt.

    deviations.md: the authors' training tokenises both as one text.
    """
    tokenizer = spelling_with_line_breaks()
    prompt, prefix = "a\n", "\nb"
    assert len(tokenizer(prompt + prefix)["input_ids"]) == 3
    apart = tokenizer(prompt)["input_ids"] + recover([(2, prefix)], tokenizer)[0]
    assert len(apart) == 4


def spelling_with_line_breaks(use_regex: bool = False) -> PreTrainedTokenizerFast:
    """Merges two line breaks, as Qwen2.5's tokenizer does; `use_regex` splits as GPT-2's first."""
    vocab = {"a": 0, "b": 1, "Ċ": 2, "ĊĊ": 3}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[("Ċ", "Ċ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_question_that_is_not_among_the_problems(tiny_expert: Path, tmp_path: Path) -> None:
    ours = write_set(tmp_path / "ours", tiny_expert, [("set/00000", 1, [10], [1.0], 0.5)])
    path = write_lines(tmp_path / "a.jsonl", {**LINE, "prompt_id": "Another?"})
    with pytest.raises(ProblemsError, match=r"a.jsonl:1: the question 'Another\?' is not in"):
        convert.import_file(path, tiny_expert, "authors", ours, tmp_path / "set")


def test_an_export_needs_the_problems(tiny_expert: Path, tmp_path: Path) -> None:
    ours = write_set(tmp_path / "ours", tiny_expert, [("set/00000", 1, [10], [1.0], 0.5)])
    problems.write_problems([Problem("other", "What?", "2", "")], ours / "problems.jsonl")
    with pytest.raises(ProblemsError, match="no problem set/00000; give the problems"):
        convert.export_file(ours, ours, tiny_expert, tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()


def test_several_trajectories_of_a_problem_are_warned_of(
    tiny_expert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both are in the file; an import keeps the lines of one and lists the others."""
    rows = [("set/00000", 1, [10], [1.0], 0.5), ("set/00001", 2, [10], [1.0], 0.5)]
    ours = write_set(tmp_path / "ours", tiny_expert, rows)
    with caplog.at_level(logging.WARNING, "lightreasoner"):
        convert.export_file(ours, ours, tiny_expert, tmp_path / "one.jsonl")
    assert not caplog.text
    for name, schema in (("samples", tables.SAMPLES), ("trajectories", tables.TRAJECTORIES)):
        table = tables.read_table(ours / f"{name}.parquet", schema).to_pylist()
        table[1]["problem_id"] = "set/00000#1"
        tables.write_table(pa.Table.from_pylist(table, schema), schema, ours / f"{name}.parquet")
    with caplog.at_level(logging.WARNING, "lightreasoner"):
        assert convert.export_file(ours, ours, tiny_expert, tmp_path / "a.jsonl") == 2
    assert "1 of 1 problems have samples of several trajectories, the first is set/" in caplog.text
    style = "qwen25-math-cot"
    result = convert.import_file(tmp_path / "a.jsonl", tiny_expert, style, ours, tmp_path / "back")
    (left_out,) = result.excluded
    assert (left_out.line, left_out.reason) == (2, token_boundaries.OTHER_PREFIX)


@pytest.mark.parametrize("batching", ["trajectory", "sample"])
def test_an_import_is_trained_on_directly(batching: str, tiny_expert: Path, tmp_path: Path) -> None:
    rows = [{**LINE, "step": step, "prefix": "1+1=2"[:step]} for step in range(5)]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    convert.import_file(path, tiny_expert, "authors", None, tmp_path / "set")
    problems.write_problems([Problem("other", "What?", "2", "")], tmp_path / "problems.jsonl")
    config = Finetune.model_validate({"updates": 2, "batching": batching})
    (tmp_path / "adapter").mkdir()
    paths = {"expert": tiny_expert, "samples": tmp_path / "set", "problems": tmp_path}
    inputs = {name: artifacts.of(path) for name, path in paths.items()}
    compute = Compute(device="cpu", dtype="float32")
    work = Workspace(tmp_path / "adapter", tmp_path / "scratch", compute)
    finetune.write(inputs, config, work, Silent())
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_weights_that_sum_to_nearly_1_are_normalised(tiny_expert: Path, tmp_path: Path) -> None:
    row = {**LINE, "weights": [0.6, 0.396]}
    path = write_lines(tmp_path / "a.jsonl", row)
    convert.import_file(path, tiny_expert, "authors", None, tmp_path / "set")
    check_samples(tmp_path / "set", tiny_expert)
    found = tables.read_table(tmp_path / "set" / "samples.parquet", tables.SAMPLES)["weights"][0]
    assert found.as_py() == pytest.approx([0.6 / 0.996, 0.396 / 0.996])


def test_the_commands_go_there_and_back(
    tiny_expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = PRESETS["microworld"].model_copy(
        update={
            "models": PRESETS["microworld"].models.model_copy(update={"expert": str(tiny_expert)})
        }
    )
    Path("params.yaml").write_text(config.dump(params), encoding="utf-8")
    write_set(Path("ours"), tiny_expert, [("set/00000", 1, [10], [1.0], 0.5)])

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app.application(), ["samples", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    told = call("export", "--samples", "ours", "--problems", "ours", "--out", "a.jsonl")
    assert told == "samples export: 1 rows  a.jsonl\n"
    with Path("a.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**LINE, "step": 9}) + "\n")
    told = call("import", "a.jsonl", "--out", "back", "--style", "qwen25-math-cot")
    assert "samples import: 1 of 2 rows  back" in told
    assert "1 rows left out; all are in back/excluded.csv" in told
    assert "not 9" in told
