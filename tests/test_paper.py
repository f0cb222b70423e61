import numpy as np
import pytest

from lightreasoner.paper import AVERAGES, BENCHMARKS, TABLE_1
from lightreasoner.presets import EXPERTS


def test_every_paper_expert_has_its_rows() -> None:
    assert set(TABLE_1) == set(AVERAGES) == set(EXPERTS)
    for rows in TABLE_1.values():
        assert list(rows) == ["base", "LightReasoner"]
        assert {len(row) for row in rows.values()} == {len(BENCHMARKS)}


@pytest.mark.parametrize("expert", TABLE_1)
def test_the_averages_are_those_of_the_rows(expert: str) -> None:
    """A digit copied wrongly would move a row's mean off the average that its source prints."""
    means = [float(np.mean(row)) for row in TABLE_1[expert].values()]
    assert means == pytest.approx(AVERAGES[expert], abs=0.05)


@pytest.mark.parametrize(
    ("expert", "gains"),
    [
        # section 3.2 and the README under its table
        ("qwen2.5-math-1.5b", {"gsm8k": 28.1, "math": 25.1, "svamp": 7.2, "asdiv": 11.7}),
        ("qwen2.5-math-1.5b-instruct", {"gsm8k": 1.9, "minerva_math": 2.6}),
        ("deepseek-r1-distill-qwen-1.5b", {"gsm8k": 4.3, "math": 6.0, "olympiadbench": 17.4}),
        ("qwen2.5-math-7b", {"gsm8k": 10.4, "math": 6.0, "svamp": 9.3, "asdiv": 7.9}),
    ],
)
def test_the_gains_are_those_of_the_text(expert: str, gains: dict[str, float]) -> None:
    base, tuned = (dict(zip(BENCHMARKS, row, strict=True)) for row in TABLE_1[expert].values())
    assert {name: tuned[name] - base[name] for name in gains} == pytest.approx(gains)
