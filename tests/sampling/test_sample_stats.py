"""`lightreasoner samples`: statistics and differences by hand, and the commands.

The steps of `write_steps` (KL in nats; top-1 tokens of expert and amateur; pi_E as stored):

    a 0   0.05   5 5   (1)            a 1   0.4    6 6   (.9, .1)
    a 2   0.5    7 7   (.6, .4)       b 0   3.0    8 9   (.6, .3, .1)

At alpha = 0.2 the labels have 1, 1, 2 and 2 tokens. Over beta = 0.4 are the last two steps, so that
single-token labels make up 2 of 4 without beta and 0 of 2 with it: 50 points more. The amateur
being the expert there, v_C is (.5, .5) for both, against (.6, .4) and (2/3, 1/3): the pull is
.5 ln (.25 / .24) + .5 ln (.25 / (2/9)).
"""

import json
import math
from pathlib import Path

import pyarrow as pa
import pytest
import written_steps
from typer.testing import CliRunner, Result

from lightreasoner.cli import app
from lightreasoner.errors import ArtifactError, SelectionError
from lightreasoner.sampling import sample_stats
from lightreasoner.statistics import wilson_interval
from lightreasoner.storage import tables


def write_steps(directory: Path) -> Path:
    """The steps above; the amateur's stored probabilities are the expert's."""
    rows = [
        ("a", 0, 0.05, 5, 5, [1.0]),
        ("a", 1, 0.4, 6, 6, [0.9, 0.1]),
        ("a", 2, 0.5, 7, 7, [0.6, 0.4]),
        ("b", 0, 3.0, 8, 9, [0.6, 0.3, 0.1]),
    ]
    steps = [
        (name, step, kl, 0.1, 0.1, e, a, {e + n: (p, p) for n, p in enumerate(label)})
        for name, step, kl, e, a, label in rows
    ]
    return written_steps.write_steps(directory, steps)


def write_samples(
    directory: Path,
    rows: list[tuple[str, int, list[int], list[float], float]],
    completion: list[int] | None = None,
    **provenance: object,
) -> Path:
    """A sample set over problems a and b, both with four tokens unless given."""
    directory.mkdir()
    columns = list(map(list, zip(*rows, strict=True)))
    tables.write_table(
        pa.table(columns, tables.SAMPLES),
        tables.SAMPLES,
        directory / "samples.parquet",
        dict(provenance),
    )
    trajectories = pa.table(
        [["a", "b"], [[1], [2]], [[5, 6, 7, 8], completion or [5, 6, 7, 8]], ["stop"] * 2],
        tables.TRAJECTORIES,
    )
    tables.write_table(trajectories, tables.TRAJECTORIES, directory / "trajectories.parquet")
    return directory


ONE = ("a", 0, [5], [1.0], 0.5)
TWO = ("a", 2, [5, 6], [0.75, 0.25], 0.6)
THREE = ("b", 2, [7], [1.0], 2.0)


def by_name(rows: list[sample_stats.Statistic]) -> dict[str, sample_stats.Statistic]:
    assert len({row.name for row in rows}) == len(rows)
    return {row.name: row for row in rows}


def test_step_statistics_by_hand(tmp_path: Path) -> None:
    found = by_name(sample_stats.step_statistics(write_steps(tmp_path / "s"), alpha=0.2, beta=0.4))
    assert {name: row.n for name, row in found.items() if row.n != 4} == {
        "KL > 0.4 where top-1 agree": 3,
        "mean KL where top-1 agree": 3,
        "mean KL where top-1 differ": 1,
        "single-token labels, KL > 0.4": 2,
        "pull, KL > 0.4": 2,
        "pull per sample, KL > 0.4": 2,
    }
    pull = (math.log(0.25 / 0.24) + math.log(0.25 * 9 / 2)) / 2
    assert {name: row.value for name, row in found.items()} == pytest.approx(
        {
            "KL in [0, 0.1)": 0.25,
            "KL in [0.1, 0.2)": 0,
            "KL in [0.2, 0.3)": 0,
            "KL in [0.3, 0.4)": 0,
            "KL in [0.4, 0.5)": 0.25,
            "KL in [0.5, 1)": 0.25,
            "KL in [1, 2)": 0,
            "KL in [2, 5)": 0.25,
            "KL in [5, inf)": 0,
            "KL > 0.4": 0.5,
            "top-1 agree": 0.75,
            "KL > 0.4 where top-1 agree": 1 / 3,
            "mean KL": 3.95 / 4,
            "mean KL where top-1 agree": 0.95 / 3,
            "mean KL where top-1 differ": 3.0,
            "single-token labels, every step": 0.5,
            "single-token labels, KL > 0.4": 0,
            "single-token labels, difference": 50,
            "pull, KL > 0.4": pull,
            "pull per sample, KL > 0.4": pull / 2,
        },
        rel=1e-5,
    )


def test_every_share_has_wilsons_interval(tmp_path: Path) -> None:
    found = sample_stats.step_statistics(write_steps(tmp_path / "s"), 0.2, 0.4)
    for row in found:
        expected = None
        if row.unit == "share" and row.value is not None:
            expected = wilson_interval(round(row.value * row.n), row.n)
        assert row.interval == expected


def test_the_papers_figures_stand_beside_the_same_statistic(tmp_path: Path) -> None:
    found = sample_stats.step_statistics(write_steps(tmp_path / "s"), 0.2, 0.4)
    assert {row.name: row.paper for row in found if row.paper} == sample_stats.PAPER
    assert sample_stats.PAPER["KL > 0.4 where top-1 agree"] == "10%"
    assert sample_stats.PAPER["single-token labels, difference"] == "+35.6, +33.5, +27.4"


def test_where_nothing_is_selected_there_is_no_share(tmp_path: Path) -> None:
    found = by_name(sample_stats.step_statistics(write_steps(tmp_path / "s"), 0.2, beta=9.0))
    assert found["single-token labels, KL > 9"] == sample_stats.Statistic(
        "single-token labels, KL > 9", 0, None, "share"
    )
    assert found["single-token labels, difference"].value is None
    assert found["pull, KL > 9"].value is None


def test_alpha_below_what_is_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match=r"alpha 0\.001"):
        sample_stats.step_statistics(write_steps(tmp_path / "s"), 0.001, 0.4)


def test_sample_statistics_by_hand(tmp_path: Path) -> None:
    chosen = write_samples(tmp_path / "s", [ONE, TWO], pull=0.25)
    found = by_name(sample_stats.sample_statistics(chosen))
    assert (found["pull"].value, found["pull per sample"].value) == (0.25, 0.125)
    assert found["labels of several tokens"].value == 0.5
    assert found["KL in [0.5, 1)"].value == 1
    assert found["mean KL"].value == pytest.approx(0.55)
    assert found["single-token labels"].value == 0.5
    assert found["mean tokens per label"].value == 1.5
    assert (found["trajectories with a sample"].n, found["trajectories with a sample"].value) == (
        2,
        0.5,
    )
    assert not any(row.paper for row in found.values())


def test_equal_sets_do_not_differ(tmp_path: Path) -> None:
    one = write_samples(tmp_path / "one", [ONE, TWO, THREE], alpha=0.2)
    found = sample_stats.diff(one, one)
    assert found == sample_stats.SampleSetDiff(
        {"equal": 3, "label": 0, "prefix": 0, "first": 0, "second": 0}, 0.0, 0.0, {}, []
    )


def test_a_difference_by_hand(tmp_path: Path) -> None:
    """a/2 has (.75, .25, 0) against (.5, 0, .5): .5 at most. Its KL moves by .1, a/0's by .5."""
    other_label = ("a", 2, [5, 7], [0.5, 0.5], 0.7)
    first = write_samples(tmp_path / "1", [ONE, TWO, THREE], beta=0.4, score={"alpha_min": 0.01})
    second = write_samples(
        tmp_path / "2",
        [("a", 0, [5], [1.0], 1.0), other_label, ("a", 3, [9], [1.0], 1.0)],
        beta=0.5,
        score={"alpha_min": 0.01, "code": "x"},
    )
    found = sample_stats.diff(first, second)
    assert found.counts == {"equal": 1, "label": 1, "prefix": 0, "first": 1, "second": 1}
    assert found.largest_weight_difference == pytest.approx(0.5)
    assert found.largest_kl_difference == pytest.approx(0.5)
    assert found.settings == {"beta": (0.4, 0.5), "score.code": (None, "x")}
    assert found.examples == [
        sample_stats.Example("a", 2, "label", 0.5),
        sample_stats.Example("b", 2, "first"),
        sample_stats.Example("a", 3, "second"),
    ]


@pytest.mark.parametrize(("tolerance", "kind"), [(0.02, "label"), (0.04, "equal")])
def test_labels_within_the_tolerance_are_equal(tmp_path: Path, tolerance: float, kind: str) -> None:
    """.75 against .78 and .25 against .22."""
    first = write_samples(tmp_path / "1", [TWO])
    second = write_samples(tmp_path / "2", [("a", 2, [5, 6], [0.78, 0.22], 0.6)])
    found = sample_stats.diff(first, second, tolerance=tolerance)
    assert found.counts[kind] == 1
    assert found.largest_weight_difference == pytest.approx(0.03)
    result = call("diff", str(first), str(second), "--tolerance", str(tolerance))
    assert f"{sample_stats.KINDS[kind]}" in result.stdout


def test_a_sample_after_another_prefix_is_another_sample(tmp_path: Path) -> None:
    first = write_samples(tmp_path / "1", [THREE])
    second = write_samples(tmp_path / "2", [THREE], completion=[5, 9, 7, 8])
    after = write_samples(tmp_path / "3", [THREE], completion=[5, 6, 9, 9])
    assert sample_stats.diff(first, second).counts["prefix"] == 1
    assert sample_stats.diff(first, after).counts["equal"] == 1


def test_the_order_of_a_labels_tokens_does_not_count(tmp_path: Path) -> None:
    first = write_samples(tmp_path / "1", [TWO])
    second = write_samples(tmp_path / "2", [("a", 2, [6, 5], [0.25, 0.75], 0.6)])
    assert sample_stats.diff(first, second).counts["equal"] == 1


def test_the_examples_with_the_largest_differences_come_first(tmp_path: Path) -> None:
    weights = [0.9, 0.6, 0.8]
    rows = [("a", step, [5, 6], [w, 1 - w], 0.5) for step, w in enumerate(weights)]
    first = write_samples(tmp_path / "1", rows)
    second = write_samples(tmp_path / "2", [(*row[:3], [0.5, 0.5], 0.5) for row in rows])
    found = sample_stats.diff(first, second, examples=2)
    assert [example.step for example in found.examples] == [0, 2]


def test_a_sample_without_its_trajectory_is_named(tmp_path: Path) -> None:
    broken = write_samples(tmp_path / "1", [("c", 0, [5], [1.0], 0.5)])
    with pytest.raises(ArtifactError, match="problem_id 'c': must be a trajectory's"):
        sample_stats.diff(broken, broken)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app.application(), ["samples", *arguments])


@pytest.mark.parametrize("name", ["stats", "diff", "import", "export"])
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = call(name, "--help")
    assert result.exit_code == 0
    assert f"Example: lightreasoner samples {name}" in result.stdout


def test_stats_prints_both_tables(tmp_path: Path) -> None:
    steps, chosen = write_steps(tmp_path / "steps"), write_samples(tmp_path / "set", [ONE, TWO])
    result = call("stats", "--steps", str(steps), "--samples", str(chosen))
    assert result.exit_code == 0
    lines = [line.split("  ") for line in result.stdout.splitlines()]
    cells = {line[0]: [cell.strip() for cell in line[1:] if cell.strip()] for line in lines}
    assert cells["KL > 0.4 where top-1 agree"] == ["3", "33.3% (6.1-79.2)", "10%"]
    assert cells["single-token labels, difference"] == ["4", "+50 points", "+35.6, +33.5, +27.4"]
    assert cells["mean tokens per label"] == ["2", "1.5 tokens"]
    again = call("stats", "--steps", str(steps), "--samples", str(chosen), "--json")
    found = {key: {row.pop("name"): row for row in rows}
             for key, rows in json.loads(again.stdout).items()}  # fmt: skip
    assert found["steps"]["KL > 0.4 where top-1 agree"]["value"] == 1 / 3
    assert found["samples"]["mean tokens per label"]["value"] == 1.5


def test_diff_names_what_differs(tmp_path: Path) -> None:
    first = write_samples(tmp_path / "1", [ONE, TWO], beta=0.4)
    second = write_samples(tmp_path / "2", [ONE, THREE], beta=0.5)
    result = call("diff", str(first), str(second))
    assert result.exit_code == 0
    for words in ("in both, equal label", "only in the first", "beta", "largest KL difference: 0"):
        assert words in result.stdout
    found = json.loads(call("diff", str(first), str(second), "--json").stdout)
    assert found["counts"] == {"equal": 1, "label": 0, "prefix": 0, "first": 1, "second": 1}
    assert found["settings"]["beta"] == [0.4, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stats"], "samples stats needs --steps, --samples or both"),
        (["stats", "--steps", "none"], "none/steps.parquet: no such file"),
        (["diff", "none", "none"], "none/samples.parquet: no such file"),
        (["import", "x.jsonl", "--out", "o"], "params.yaml: no such file"),
        (["export", "--out", "x.jsonl"], "params.yaml: no such file"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {message}")
