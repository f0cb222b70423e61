"""Selection from stored steps: thresholds, labels, the ablations, provenance, and the formats.

The third of the steps below has pi_E = (.6, .3, .1) and pi_A = (.2, .6, .2), tokens 7, 8 and 9; at
alpha = 0.2 the threshold is .12, so its support is {7, 8}. v_C is proportional to pi_E / pi_A =
(3, .5), so (6/7, 1/7); pi_E renormalised is (2/3, 1/3). The expert wrote token 8 there.
"""

from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checkout import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from lightreasoner.config import Compute, Select
from lightreasoner.errors import ArtifactError, SelectionError
from lightreasoner.progress import Silent
from lightreasoner.sampling.select import pull, select_samples, support_sizes, threshold, write
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Artifact, Workspace

PROPERTY = settings(deadline=None)


def steps() -> pa.Table:
    """Three steps with KL 0.1, 0.4 (beta itself) and 0.9; the third has three stored tokens."""
    return pa.table(
        [
            ["a", "a", "b"],
            [0, 1, 0],
            [0.1, 0.4, 0.9],
            [0.0, 0.0, 0.9],
            [0.0, 0.0, 0.9],
            [5, 6, 7],
            [5, 6, 9],
            [[5], [6, 8], [7, 8, 9]],
            [[0.0], [-0.1, -2.5], [-0.5108256, -1.2039728, -2.3025851]],
            [[-0.1], [-0.2, -1.5], [-1.6094379, -0.5108256, -1.6094379]],
        ],
        schema=tables.STEPS,
    )


def trajectories(b: list[int] | None = None) -> pa.Table:
    """What the expert wrote: 5, 6 for problem a, 8 for problem b unless `b` is given."""
    return pa.table(
        [["a", "b"], [[1], [2]], [[5, 6], [8] if b is None else b], ["stop"] * 2],
        tables.TRAJECTORIES,
    )


def chosen(**changes: object) -> pa.Table:
    config = Select.model_validate({"beta": 0.0, **changes})
    return select_samples(steps(), trajectories(), config)


def test_a_step_at_beta_is_not_kept() -> None:
    """Eq. 35 says KL > beta. deviations.md: the authors' `<` keeps KL = beta."""
    assert chosen(beta=0.4)["problem_id"].to_pylist() == ["b"]


def test_the_first_step_can_be_left_out_as_the_authors_do() -> None:
    """deviations.md: step 0 counts, unless `select.reference` says otherwise."""
    assert chosen(reference=["skip_first_step"])["step"].to_pylist() == [1]


def test_the_label_by_hand() -> None:
    sample = chosen(beta=0.5).to_pylist()[0]
    assert sample["token_ids"] == [7, 8]
    assert sample["weights"] == pytest.approx([6 / 7, 1 / 7], abs=1e-6)
    assert sample["kl"] == pytest.approx(0.9)


def test_the_experts_own_distribution_by_hand() -> None:
    sample = chosen(beta=0.5, label="expert").to_pylist()[0]
    assert sample["token_ids"] == [7, 8]
    assert sample["weights"] == pytest.approx([2 / 3, 1 / 3], abs=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_one_hot_is_the_token_that_the_expert_wrote(alpha: float) -> None:
    """Token 8, which is not the most likely one, and at alpha = 1 not even on the support."""
    kept = chosen(label="one_hot", alpha=alpha)
    assert kept["token_ids"].to_pylist() == [[5], [6], [8]]
    assert kept["weights"].to_pylist() == [[1.0]] * 3


@pytest.mark.parametrize("b", [[], None])
def test_one_hot_needs_the_trajectory_of_the_step(b: list[int] | None) -> None:
    known = trajectories(b=[]) if b == [] else trajectories().slice(0, 1)
    with pytest.raises(ArtifactError, match="problem b, step 0: its trajectory has no such step"):
        select_samples(steps(), known, Select(label="one_hot", beta=0))


def test_all_steps_are_taken_whatever_beta_says() -> None:
    assert len(chosen(steps="all", beta=5.0)) == 3


def test_the_ablation_without_selection_and_contrast() -> None:
    kept = chosen(steps="all", label="one_hot", beta=5.0)
    assert list(zip(kept["problem_id"].to_pylist(), kept["step"].to_pylist(), strict=True)) == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
    ]


@pytest.mark.parametrize(("quantile", "kept"), [(0.0, 2), (1 / 3, 2), (0.5, 1), (2 / 3, 1)])
def test_a_quantile_keeps_what_is_strictly_above_it(quantile: float, kept: int) -> None:
    """Of KL .1, .4, .9: at least a third does not exceed .1, at least a half not .4."""
    assert len(chosen(quantile=quantile, beta=5.0)) == kept


@pytest.mark.parametrize("share", [0.07, 0.14, 0.28, 0.29, 0.55, 0.56, 0.57])
def test_a_quantile_of_a_hundred_steps_is_exact(share: float) -> None:
    """0.07 x 100 is 7.000000000000001 in floating point; the seventh smallest is meant."""
    kl = pa.chunked_array([np.arange(100, dtype=np.float32)])
    section = Select(quantile=share)
    assert threshold(kl, section) == round(100 * share) - 1


def test_a_quantile_over_two_thirds_of_three_steps_keeps_none() -> None:
    with pytest.raises(SelectionError, match=r"select.quantile 0.9: none of 3 steps .* lower"):
        chosen(quantile=0.9)


def test_alpha_of_one_leaves_the_top_token() -> None:
    kept = chosen(alpha=1.0)
    assert kept["weights"].to_pylist() == [[1.0], [1.0], [1.0]]
    assert kept["token_ids"].to_pylist() == [[5], [6], [7]]


def test_support_sizes_by_hand() -> None:
    """The second step's second token has e^-2.4 = .09 of the first's probability."""
    assert support_sizes(steps(), 0.2).tolist() == [1, 1, 2]
    assert support_sizes(steps(), 0.05).tolist() == [1, 2, 3]


def test_a_part_of_a_table_is_read_from_its_start() -> None:
    part = select_samples(steps().slice(1), trajectories(), Select(beta=0, steps="all"))
    assert part.to_pylist() == chosen().to_pylist()[1:]


def test_an_empty_selection_names_the_counts() -> None:
    with pytest.raises(SelectionError, match=r"select.beta 2.0: none of 3 steps .* 0.9 nats"):
        chosen(beta=2.0)


def test_a_selection_of_first_steps_only_is_named() -> None:
    with pytest.raises(
        SelectionError, match=r"all 1 selected steps are first steps, so none of 3 is"
    ):
        chosen(beta=0.4, reference=["skip_first_step"])


@pytest.mark.parametrize("changes", [{}, {"steps": "all"}, {"quantile": 0.5}])
def test_no_step_at_all_is_named(changes: dict[str, object]) -> None:
    with pytest.raises(SelectionError, match="no step was scored"):
        select_samples(steps().slice(0, 0), trajectories(), Select.model_validate(changes))


@st.composite
def scored(draw: st.DrawFn) -> pa.Table:
    """Up to eight steps of three tokens; those under 0.01 of the largest are not stored."""
    logits = st.lists(st.floats(-4, 4, width=32), min_size=3, max_size=3)
    rows = draw(st.lists(st.tuples(logits, logits, st.booleans()), min_size=1, max_size=8))
    found = []
    for index, (expert_logits, amateur_logits, is_same) in enumerate(rows):
        expert, amateur = (
            np.array(x) - np.log(np.exp(x).sum()) for x in (expert_logits, amateur_logits)
        )
        amateur = expert if is_same else amateur
        stored = np.flatnonzero(expert >= expert.max() + np.log(0.01))
        kl = max(0.0, float((np.exp(expert) * (expert - amateur)).sum()))
        tops = int(expert.argmax()), int(amateur.argmax())
        lists = stored.tolist(), expert[stored].tolist(), amateur[stored].tolist()
        found.append(("p", index, kl, 0.5, 0.5, *tops, *lists))
    return pa.table(list(map(list, zip(*found, strict=True))), tables.STEPS)


def selected(table: pa.Table, **changes: object) -> list[dict[str, object]]:
    """The samples as rows, none if no step is selected."""
    written = pa.table([["p"], [[1]], [[0] * len(table)], ["stop"]], tables.TRAJECTORIES)
    try:
        return select_samples(table, written, Select.model_validate(changes)).to_pylist()
    except SelectionError:
        return []


@PROPERTY
@given(scored(), st.floats(0.01, 1), st.sampled_from(["contrast", "expert"]))
def test_weights_sum_to_one_and_vanish_off_the_support(
    table: pa.Table, alpha: float, label: str
) -> None:
    """Measured: the float32 weights of three tokens sum to 1 within 1.2e-7."""
    samples = selected(table, alpha=alpha, label=label, steps="all")
    for sample, step in zip(samples, table.to_pylist(), strict=True):
        top = max(step["expert_log_probs"])
        probs = dict(zip(step["token_ids"], step["expert_log_probs"], strict=True))
        assert abs(sum(sample["weights"]) - 1) < 1e-6  # type: ignore[call-overload]
        assert min(sample["weights"]) >= 0  # type: ignore[call-overload]
        # float32 log-probabilities: a token at the threshold may fall on either side.
        assert all(probs[id_] >= top + np.log(alpha) - 1e-5 for id_ in sample["token_ids"])  # type: ignore[attr-defined]


@PROPERTY
@given(scored(), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_larger_alpha_never_widens_the_support(table: pa.Table, one: float, two: float) -> None:
    wide = selected(table, alpha=min(one, two), steps="all")
    narrow = selected(table, alpha=max(one, two), steps="all")
    for more, less in zip(wide, narrow, strict=True):
        assert set(less["token_ids"]) <= set(more["token_ids"])  # type: ignore[call-overload]


@PROPERTY
@given(scored())
def test_beta_zero_keeps_every_step_with_a_difference(table: pa.Table) -> None:
    kept = [row["step"] for row in selected(table, beta=0.0)]
    assert kept == [row["step"] for row in table.to_pylist() if row["kl"] > 0]


@PROPERTY
@given(scored(), st.floats(0, 3), st.floats(0, 3))
def test_a_larger_beta_keeps_a_subset(table: pa.Table, one: float, two: float) -> None:
    many, few = selected(table, beta=min(one, two)), selected(table, beta=max(one, two))
    assert all(sample in many for sample in few)


@PROPERTY
@given(scored(), st.floats(0, 1, exclude_max=True))
def test_a_quantile_keeps_at_most_the_rest(table: pa.Table, quantile: float) -> None:
    kept = selected(table, quantile=quantile)
    assert len(kept) <= (1 - quantile) * len(table) + 1e-9
    least = threshold(table["kl"], Select(quantile=quantile))
    assert [row["step"] for row in kept] == [
        row["step"] for row in table.to_pylist() if row["kl"] > least
    ]


def write_steps(directory: Path) -> Artifact:
    """The steps above with the provenance of score and generate."""
    directory.mkdir()
    tables.write_table(steps(), tables.STEPS, directory / "steps.parquet", {"alpha_min": 0.05})
    tables.write_table(
        trajectories(), tables.TRAJECTORIES, directory / "trajectories.parquet", {"seed": 42}
    )
    return artifacts.of(directory)


def write_samples(steps: Artifact, config: Select, out: Path) -> None:
    write({"steps": steps}, config, Workspace(out, out / "scratch", Compute()), Silent())


@pytest.fixture
def sample_set(tmp_path: Path) -> Path:
    """The sample set at beta 0.3: steps 2 and 3."""
    (tmp_path / "out").mkdir()
    write_samples(write_steps(tmp_path / "steps"), Select(beta=0.3), tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("name", ["samples", "trajectories"])
def test_the_sample_set_opens_with_pandas_and_datasets(
    sample_set: Path, tmp_path: Path, name: str
) -> None:
    path = sample_set / f"{name}.parquet"
    assert list(pd.read_parquet(path).columns) == getattr(tables, name.upper()).names
    opened = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "hf"))
    assert opened.to_list() == pq.read_table(path).to_pylist()
    assert len(opened) == 2


def test_every_column_is_documented() -> None:
    text = (ROOT / "docs" / "sample-set.md").read_text(encoding="utf-8")
    for name in (*tables.SAMPLES.names, *tables.TRAJECTORIES.names, *Select.model_fields):
        assert f"`{name}`" in text


def test_the_provenance_holds_all_three_stages(sample_set: Path) -> None:
    for name in ("samples", "trajectories"):
        found = tables.provenance(sample_set / f"{name}.parquet")
        assert (found["score"], found["generate"]) == ({"alpha_min": 0.05}, {"seed": 42})
        assert (found["alpha"], found["beta"], found["threshold"]) == (0.2, 0.3, 0.3)
        assert (found["steps"], found["label"], found["quantile"]) == (
            "informative",
            "contrast",
            None,
        )
        assert found["steps_digest"].endswith(".dir")
        assert len(found["code"]) == 64


def test_the_pull_by_hand_is_in_the_provenance(
    sample_set: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """KL((6/7, 1/7) || (2/3, 1/3)) of the third step; the second has a single token. pi_E itself
    pulls nothing, which is warned of, and one-hot labels have no contrast to measure."""
    expected = 6 / 7 * np.log(9 / 7) + 1 / 7 * np.log(3 / 7)
    found = tables.provenance(sample_set / "samples.parquet")["pull"]
    assert found == pytest.approx(expected, rel=1e-5)
    assert pull(steps(), Select(beta=0.3, label="one_hot")) is None
    scored_steps = write_steps(tmp_path / "others")
    (tmp_path / "expert").mkdir()
    write_samples(scored_steps, Select(beta=0.3, label="expert"), tmp_path / "expert")
    assert tables.provenance(tmp_path / "expert" / "samples.parquet")["pull"] == 0
    (warned,) = {each for each in caplog.messages if "pull is 0 nats over 2 samples" in each}
    assert warned.startswith("select: the labels teach next to nothing")


def test_alpha_below_what_the_steps_store_is_refused(tmp_path: Path) -> None:
    scored_steps = write_steps(tmp_path / "steps")
    with pytest.raises(SelectionError, match=r"alpha 0.04: .* above alpha_min 0.05; raise"):
        write_samples(scored_steps, Select(alpha=0.04), tmp_path)


def rewritten(path: Path, version: bytes) -> Path:
    """The file with another format version in its metadata."""
    table = pq.read_table(path)
    pq.write_table(
        table.replace_schema_metadata({**table.schema.metadata, b"format_version": version}), path
    )
    return path


def test_every_table_names_its_format_version(sample_set: Path) -> None:
    metadata = pq.read_schema(sample_set / "samples.parquet").metadata
    assert int(metadata[b"format_version"]) == tables.FORMAT_VERSION


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (b"2", r"format version 2, .* reads up to 1; update it"),
        (b"next", "'next' is not a small number"),
    ],
)
def test_a_newer_version_is_refused(sample_set: Path, version: bytes, message: str) -> None:
    path = rewritten(sample_set / "samples.parquet", version)
    with pytest.raises(ArtifactError, match=message) as caught:
        tables.read_table(path, tables.SAMPLES)
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(100)
def test_twenty_settings_over_a_thousand_problems() -> None:
    """128,000 steps of six stored tokens take 1.0 s in all on one core; a loop over steps would
    take minutes."""
    rng = np.random.default_rng(0)
    n, stored = 128_000, 6
    offsets = np.arange(n + 1, dtype=np.int32) * stored
    expert, amateur = np.log(rng.dirichlet(np.ones(stored), (2, n))).astype(np.float32)

    def lists(values: np.ndarray) -> pa.ListArray:
        return pa.ListArray.from_arrays(offsets, values.ravel())

    ids = rng.integers(0, 150_000, (n, stored), dtype=np.int32)
    names = np.repeat([f"gsm8k/train/{index:05d}" for index in range(1000)], 128)
    step = np.tile(np.arange(128, dtype=np.int32), 1000)
    kl = rng.exponential(0.3, n).astype(np.float32)
    columns = [names, step, kl, kl, kl, ids[:, 0], ids[:, 1], lists(ids)]
    table = pa.table([*columns, lists(expert), lists(amateur)], tables.STEPS)
    for alpha in (0.05, 0.1, 0.2, 0.4):
        for beta in (0.0, 0.1, 0.2, 0.4, 0.8):
            samples = select_samples(table, trajectories(), Select(alpha=alpha, beta=beta))
            assert len(samples) > 1000
