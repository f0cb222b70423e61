"""Selection from stored steps: thresholds, labels, provenance, and an empty selection."""

from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pytest

from lightreasoner import artifacts, tables
from lightreasoner.config import Select
from lightreasoner.errors import SelectionError
from lightreasoner.select import select_samples, write_samples


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


def test_a_step_at_beta_is_not_kept() -> None:
    """Eq. 35 says KL > beta. deviations.md: the authors' `<` keeps KL = beta."""
    kept = select_samples(steps(), alpha=0.2, beta=0.4)
    assert kept["problem_id"].to_pylist() == ["b"]


def test_beta_zero_keeps_every_step_with_a_difference() -> None:
    assert len(select_samples(steps(), alpha=0.2, beta=0)) == 3


def test_the_label_by_hand() -> None:
    """pi_E = (.6, .3, .1), pi_A = (.2, .6, .2): support {0, 1}, v_C = (6/7, 1/7)."""
    sample = select_samples(steps(), alpha=0.2, beta=0.5).to_pylist()[0]
    assert sample["token_ids"] == [7, 8]
    assert sample["weights"] == pytest.approx([6 / 7, 1 / 7], abs=1e-6)
    assert sample["kl"] == pytest.approx(0.9)


def test_alpha_of_one_leaves_the_top_token() -> None:
    kept = select_samples(steps(), alpha=1.0, beta=0)
    assert kept["weights"].to_pylist() == [[1.0], [1.0], [1.0]]
    assert kept["token_ids"].to_pylist() == [[5], [6], [7]]


def test_an_empty_selection_names_the_counts() -> None:
    with pytest.raises(SelectionError, match=r"select.beta 2.0: none of 3 steps .* 0.9 nats"):
        select_samples(steps(), alpha=0.2, beta=2.0)


def test_the_sample_set_opens_with_pandas_and_datasets(tmp_path: Path) -> None:
    (tmp_path / "steps").mkdir()
    (tmp_path / "out").mkdir()
    tables.write(steps(), tables.STEPS, tmp_path / "steps" / "steps.parquet")
    trajectories = pa.table(
        [["a", "b"], [[1], [2]], [[5, 6], [7]], ["stop"] * 2], tables.TRAJECTORIES
    )
    tables.write(trajectories, tables.TRAJECTORIES, tmp_path / "steps" / "trajectories.parquet")
    scored = artifacts.of(tmp_path / "steps")
    write_samples(scored, Select(alpha=0.2, beta=0.3), tmp_path / "out")
    path = tmp_path / "out" / "samples.parquet"
    assert len(pd.read_parquet(path)) == 2
    assert len(datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "hf"))) == 2
    provenance = tables.provenance(path)
    assert (provenance["beta"], provenance["steps"]) == (0.3, scored.digest)
