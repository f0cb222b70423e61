"""The hub's data sets: the table, and rows read by `datasets` from copies of the layouts.

The copies have the columns, splits and files that the repositories' cards show; a local directory
stands for a repository, so that nothing is fetched.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import json_lines
import pytest
from checkout import SHARED

from lightreasoner.data import benchmarks, demos, hub, sources
from lightreasoner.data.hub import HubSet
from lightreasoner.errors import ProblemsError
from lightreasoner.storage.artifacts import is_pinned

MATH = {"problem": "1+1?", "level": "Level 1", "type": "Algebra", "solution": r"\boxed{2}"}
OTHER = "0" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None) -> None:
    """What `datasets` prepares lies in the test's folder, and nothing is fetched."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def put(monkeypatch: pytest.MonkeyPatch, name: str, repository: Path) -> None:
    """Let a local directory stand for a set's repository."""
    local = replace(hub.SETS[name], repository=str(repository))
    monkeypatch.setitem(hub.SETS, name, local)


def parquet(path: Path, *rows: dict[str, Any], labels: bool = False) -> None:
    import datasets

    path.parent.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_list(list(rows))
    if labels:
        table = table.cast_column("answer", datasets.ClassLabel(names=["A", "B", "C", "D"]))
    table.to_parquet(path)


def card(repository: Path, configs: dict[str, dict[str, str]]) -> None:
    """A data set card that names files by configuration and split."""
    entries = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": path} for split, path in files.items()],
        }
        for name, files in configs.items()
    ]
    text = json.dumps({"configs": entries})
    (repository / "README.md").write_text(f"---\n{text}\n---\n", encoding="utf-8")


def lines(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    json_lines.write(path, rows)


def read(name: str, split: str = "test") -> list[tuple[str, str, str]]:
    found = sources.draw_problems("hub", name, split, None, seed=0)
    return [(problem.id, problem.question, problem.answer) for problem in found]


def test_every_benchmark_is_pinned() -> None:
    assert set(hub.SETS) == {"gsm8k", *benchmarks.BENCHMARKS}
    for known in hub.SETS.values():
        assert is_pinned(f"{known.repository}@{known.revision}")
        assert "test" in known.splits


def test_the_identity_is_short_and_follows_the_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sources.resolve("hub").digest
    assert re.fullmatch(r"hub:[0-9a-f]{32}", before)
    assert not sources.resolve("hub").has_changed()
    monkeypatch.setitem(hub.SETS, "svamp", replace(hub.SETS["svamp"], revision=OTHER))
    hub.identity.cache_clear()
    after = sources.resolve("hub").digest
    hub.identity.cache_clear()
    assert after != before


def test_gsm8k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None) -> None:
    """`main` and `socratic`, each with train and test."""
    repository = tmp_path / "gsm8k"
    configs = {}
    for config in "main", "socratic":
        configs[config] = {split: f"{config}/{split}-*" for split in ("train", "test")}
        for split in "train", "test":
            row = {"question": f"{config} {split}?", "answer": "1+1=2\n#### 2"}
            parquet(repository / config / f"{split}-00000-of-00001.parquet", row)
    card(repository, configs)
    put(monkeypatch, "gsm8k", repository)
    assert read("gsm8k") == [("gsm8k/test/00000", "main test?", "2")]
    assert read("gsm8k", "train") == [("gsm8k/train/00000", "main train?", "2")]


def test_math_is_seven_configurations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None
) -> None:
    repository, names = tmp_path / "hendrycks_math", hub.SETS["math"].configurations
    configs = {str(name): {"train": f"{name}/train-*", "test": f"{name}/test-*"} for name in names}
    for name in configs:
        for split in "train", "test":
            row = MATH | {"problem": f"{name} {split}"}
            parquet(repository / name / f"{split}-00000-of-00001.parquet", row)
    card(repository, configs)
    put(monkeypatch, "math", repository)
    assert [question for _, question, _ in read("math")] == [f"{name} test" for name in names]
    assert [id_ for id_, _, _ in read("math")][-1] == "math/test/00006"


def test_math500_and_minerva_are_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None
) -> None:
    math500 = {"problem": "1+1?", "solution": r"\boxed{2}", "answer": "unread", "unique_id": "a/1"}
    minerva = {"problem": "g?", "solution": r"\boxed{9.8 m}", "type": "Physics", "idx": 0}
    for name, row in ("math500", math500), ("minerva_math", minerva):
        lines(tmp_path / name / "test.jsonl", row)
        put(monkeypatch, name, tmp_path / name)
    assert read("math500") == [("math500/test/00000", "1+1?", "2")]
    assert read("minerva_math") == [("minerva_math/test/00000", "g?", "9.8 m")]


def test_svamp_is_both_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None) -> None:
    row = {"ID": "chal-1", "Body": "Ed has 5 figs", "Question": "How many?", "Answer": "5.0"}
    data = tmp_path / "svamp" / "data"
    parquet(data / "train-00000-of-00001.parquet", row)
    parquet(data / "test-00000-of-00001.parquet", row | {"Body": "He has 7 figs."})
    lines(tmp_path / "svamp" / "train.json", row)  # an older copy beside them
    card(tmp_path / "svamp", {"default": {"train": "data/train-*", "test": "data/test-*"}})
    put(monkeypatch, "svamp", tmp_path / "svamp")
    assert read("svamp") == [
        ("svamp/test/00000", "Ed has 5 figs. How many?", "5.0"),
        ("svamp/test/00001", "He has 7 figs. How many?", "5.0"),
    ]
    with pytest.raises(ProblemsError, match=r"svamp: has no train split, only test; name another"):
        sources.check("hub", ["svamp"], "train", None)


def test_asdiv_leaves_out_answers_of_several_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None
) -> None:
    row = {"body": "b.", "question": "q?", "solution_type": "s", "formula": "7+2=9"}
    path = tmp_path / "asdiv" / "asdiv" / "validation-00000-of-00001.parquet"
    parquet(path, row | {"answer": "3 (a); 4 (b)"}, row | {"answer": "9 (apples)"})
    card(tmp_path / "asdiv", {"asdiv": {"validation": "asdiv/validation-*"}})
    put(monkeypatch, "asdiv", tmp_path / "asdiv")
    assert read("asdiv") == [("asdiv/test/00000", "b. q?", "9")]


def test_olympiadbench_is_one_file_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None
) -> None:
    """Its nulls and lists stay what they are; the repository's card names other sets."""
    repository = tmp_path / "math_tasks"
    row = {"id": 1, "context": None, "question": "Find $n$.", "solution": ["s"], "unit": None}
    lines(repository / "data/olympiadbench/test.jsonl", row | {"final_answer": ["$2n$", "3"]})
    lines(repository / "data/math/test.jsonl", MATH)
    card(repository, {"math": {"test": "data/math/test.jsonl"}})
    put(monkeypatch, "olympiadbench", repository)
    assert read("olympiadbench") == [("olympiadbench/test/00000", "Find $n$.", "2n")]


def mmlu(repository: Path, subjects: tuple[str, ...]) -> None:
    """The layout of cais/mmlu: answers are class labels; dev has some rows a subject."""
    row = {"choices": ["a", "b", "c", "d"], "answer": 2}
    test = [row | {"question": f"{s}?", "subject": s} for s in ("virology", "astronomy")]
    dev = [row | {"question": f"{s} {n}?", "subject": s} for s in subjects for n in (1, 2)]
    parquet(repository / "all/test-00000-of-00001.parquet", *test, labels=True)
    parquet(repository / "all/dev-00000-of-00001.parquet", *dev, labels=True)
    card(repository, {"all": {"test": "all/test-*", "dev": "all/dev-*"}})


def test_mmlu_stem_and_its_demos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None
) -> None:
    mmlu(tmp_path / "mmlu", ("virology", *reversed(hub.DEMO_SUBJECTS)))
    put(monkeypatch, "mmlu_stem", tmp_path / "mmlu")
    choices = "\nAnswer Choices: (A) a (B) b (C) c (D) d"
    assert read("mmlu_stem") == [("mmlu_stem/test/00000", f"astronomy?{choices}", "C")]
    expected = [(f"{s} 1?{choices}", "The answer is (C).") for s in hub.DEMO_SUBJECTS]
    assert demos.own("hub", "mmlu_stem") == expected
    # a directory without demos.json takes the hub's
    lines(
        tmp_path / "data/mmlu_stem/test.jsonl", {"question": "q", "choices": [1] * 4, "answer": 0}
    )
    assert demos.own(str(tmp_path / "data"), "mmlu_stem") == expected


def test_a_dev_split_without_a_subject_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None
) -> None:
    mmlu(tmp_path / "mmlu", hub.DEMO_SUBJECTS[1:])
    put(monkeypatch, "mmlu_stem", tmp_path / "mmlu")
    with pytest.raises(ProblemsError, match=r"no row of subject high_school_mathematics; give a"):
        demos.own("hub", "mmlu_stem")


def test_a_repository_of_the_table_may_have_another_commit() -> None:
    found = hub.find(f"cais/mmlu@{OTHER}", "mmlu_stem")
    assert found == replace(hub.SETS["mmlu_stem"], revision=OTHER)
    with pytest.raises(ProblemsError, match=r"read as the set asdiv, got the name 'svamp'; name"):
        sources.check(f"EleutherAI/asdiv@{OTHER}", ["svamp"], "test", None)


def test_any_other_repository_is_read_by_its_splits_names() -> None:
    found = hub.find(f"someone/svamp@{OTHER}", "svamp")
    splits = {name: name for name in ("train", "test", "dev")}
    assert found == HubSet("someone/svamp", OTHER, splits)


def test_an_unknown_set_is_refused_before_anything_runs() -> None:
    with pytest.raises(ProblemsError, match=r"hub has no set 'aime', only gsm8k, math, .*@commit"):
        sources.check("hub", ["gsm8k", "aime"], "test", None)


def test_a_failing_download_is_one_line(cache: None) -> None:
    message = rf"^hub data set cais/mmlu@{OTHER}, split 'test', cannot be loaded \(.*\); check the"
    with pytest.raises(ProblemsError, match=message) as caught:
        sources.draw_problems(f"cais/mmlu@{OTHER}", "mmlu_stem", "test", None, seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["hub", f"HuggingFaceH4/MATH-500@{OTHER}"])
def test_a_folder_of_a_repositorys_name_is_not_read_in_its_place(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None
) -> None:
    """Its rows would count as those of the pinned commit."""
    monkeypatch.chdir(tmp_path)
    namesake = Path(hub.SETS["math500"].repository)
    namesake.mkdir(parents=True)
    row = {"problem": "1+1?", "solution": r"\boxed{2}", "answer": "2"}
    json_lines.write(namesake / "test.jsonl", [row])
    message = rf"^hub data set {namesake}@.*: {namesake} lies in the current folder .*; rename it"
    with pytest.raises(ProblemsError, match=message):
        sources.draw_problems(source, "math500", "test", None, seed=0)
    with pytest.raises(ProblemsError, match=message):
        sources.check(source, ["math500"], "test", None)


def test_a_broken_row_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None
) -> None:
    lines(tmp_path / "m" / "test.jsonl", MATH, MATH | {"solution": "Trivial."})
    put(monkeypatch, "minerva_math", tmp_path / "m")
    with pytest.raises(ProblemsError, match=r"^hub, row 1: no gold answer can be read"):
        read("minerva_math")


@pytest.mark.skipif(not (SHARED / "benchmarks").is_dir(), reason="needs the toolkit's files")
@pytest.mark.parametrize(("name", "n"), [("math500", 500), ("minerva_math", 272)])
def test_whole_files_read_as_from_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None, name: str, n: int
) -> None:
    put(monkeypatch, name, SHARED / "benchmarks" / name)
    assert sources.draw_problems("hub", name, "test", None, 0) == sources.draw_problems(
        str(SHARED / "benchmarks"), name, "test", None, 0
    )
    assert len(read(name)) == n


@pytest.mark.skipif(not (SHARED / "benchmarks").is_dir(), reason="needs the toolkit's files")
def test_olympiadbenchs_file_reads_as_from_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None
) -> None:
    (tmp_path / "math_tasks").mkdir()
    (tmp_path / "math_tasks" / "data").symlink_to(SHARED / "benchmarks")
    put(monkeypatch, "olympiadbench", tmp_path / "math_tasks")
    found = sources.draw_problems("hub", "olympiadbench", "test", None, 0)
    assert found == sources.draw_problems(
        str(SHARED / "benchmarks"), "olympiadbench", "test", None, 0
    )
    assert len(found) == 675
