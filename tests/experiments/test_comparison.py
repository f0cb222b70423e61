"""Methods side by side, from scores written by hand."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from written_scores import write_scores

from lightreasoner.config import Finetune
from lightreasoner.errors import ArtifactError
from lightreasoner.evaluation import power
from lightreasoner.experiments import comparison
from lightreasoner.experiments.comparison import Result, Tuning
from lightreasoner.presets import PRESETS
from lightreasoner.storage import tables

PARAMS = PRESETS["microworld"]


def scored(out: Path, right: str, **conditions: Any) -> Path:
    """Scores of set `a` (and, after a slash, of set `b`): `+` is correct, `-` by the toolkit
    alone."""
    sets = zip("ab", right.replace("-", "t").split("/"), strict=False)
    return write_scores(out, "cot", dict(sets), **conditions)


def write_tuning(out: Path, updates: int) -> Tuning:
    """Two solutions of 1,000 and 234 labelled steps, two an update."""
    out.mkdir()
    lengths = {"p": 1000, "q": 234}
    rows = [(name, step) for name, length in lengths.items() for step in range(length)]
    n = len(rows)
    columns = [*map(list, zip(*rows, strict=True)), [[1]] * n, [[1.0]] * n, [None] * n]
    tables.write_table(pa.table(columns, tables.SAMPLES), tables.SAMPLES, out / "samples.parquet")
    completions = [[1] * length for length in lengths.values()]
    trajectories = pa.table(
        [list(lengths), [[2], [2]], completions, ["stop"] * 2], tables.TRAJECTORIES
    )
    tables.write_table(trajectories, tables.TRAJECTORIES, out / "trajectories.parquet")
    curve = pd.DataFrame({"update": range(1, updates + 1), "loss": 1.0})
    curve.to_csv(out / "curve.csv", index=False)
    config = Finetune(batching="solution", updates=9, samples_per_update=2, validation_share=0)
    return Tuning(out, out, config, 12.34)


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Any]:
    """The base, one method that gains five and loses two of eight, one that could not be tuned."""
    tuned = scored(tmp_path / "tuned", "++++++--/+")
    return comparison.compare(
        {
            "base": Result(scored(tmp_path / "base", "+-----++/+")),
            "lightreasoner": Result(tuned, write_tuning(tmp_path / "tuning", 3)),
            "sft": "none of 8 generated solutions is correct",
        },
        PARAMS,
    )


def test_a_methods_scores_are_set_against_the_base(found: dict[str, Any]) -> None:
    """Base right on 1, 7, 8; tuned right on 1 to 6: five gained, two lost of eight.

    McNemar's exact p of 5 against 2 is 2 * (1 + 7 + 21) / 2**7 = 0.453125.
    """
    score = found["methods"]["lightreasoner"]["scores"]["a"]
    paired = score["paired"]
    assert (score["n"], score["correct"], paired["gained"], paired["lost"]) == (8, 6, 5, 2)
    assert paired["difference"] == pytest.approx(3 / 8)
    assert paired["p"] == pytest.approx(0.453125)
    assert paired["p_holm"] == pytest.approx(2 * 0.453125)
    assert score["qwen"]["accuracy"] == 1
    assert paired["qwen"]["difference"] == 0
    assert found["methods"]["lightreasoner"]["scores"]["b"]["paired"]["difference"] == 0
    assert found["methods"]["base"]["scores"]["a"]["paired"]["p"] == 1
    assert found["problems"] == {"a": 8, "b": 1}


def test_what_a_method_cost(found: dict[str, Any]) -> None:
    """Each update takes both solutions: three updates train on three times all samples."""
    tuning = found["methods"]["lightreasoner"]["tuning"]
    costs = {"updates": 3, "samples": 1234, "trained_samples": 3 * 1234, "seconds": 12.34}
    assert tuning == costs
    assert found["methods"]["base"]["tuning"] is None


def test_the_table(found: dict[str, Any]) -> None:
    columns = comparison.headings(found)
    assert columns == [
        "method",
        "a (strict, n 8)",
        "b (strict, n 1)",
        "updates",
        "samples",
        "trained",
        "seconds",
    ]
    base, tuned, missing = comparison.method_rows(found)
    assert base == ["base", "37.5% (13.7-69.4)", "100.0% (20.7-100.0)", *["–"] * 4]
    assert tuned[0] == "LightReasoner"
    assert tuned[1] == "75.0% (40.9-92.9)\n+37.5 (-25.0 to +87.5), p 0.91"
    assert tuned[3:] == ["3", "1,234", "3,702", "12.3"]
    assert missing == ["SFT, rejection sampling", *["–"] * 6]


def test_a_row_without_a_result_says_why(found: dict[str, Any]) -> None:
    reason = "SFT, rejection sampling: none of 8 generated solutions is correct"
    assert comparison.notes(found)[-1] == reason
    text = comparison.markdown(found)
    assert text.endswith(f"{reason}\n")
    assert "| LightReasoner | 75.0% (40.9-92.9)<br>+37.5 (-25.0 to +87.5), p 0.91 |" in text
    assert "Seeds: prepare 42, generate 42, sft 42, finetune 42, evaluate 42." in text
    assert power.note(found["problems"]) in text


def test_metrics_and_json(found: dict[str, Any]) -> None:
    metrics = comparison.metrics(found)
    assert metrics["lightreasoner/a/accuracy"] == 0.75
    assert metrics["lightreasoner/a/accuracy_qwen"] == 1
    assert metrics["lightreasoner/a/difference"] == 0.375
    assert metrics["base/b/accuracy"] == 1
    assert not [name for name in metrics if name.startswith("sft")]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_other_problems_or_conditions_are_refused(tmp_path: Path) -> None:
    base = Result(scored(tmp_path / "base", "++"))
    fewer = Result(scored(tmp_path / "fewer", "+"))
    with pytest.raises(ArtifactError, match="not of the same problems"):
        comparison.compare({"base": base, "sft": fewer}, PARAMS)
    longer = Result(scored(tmp_path / "longer", "++", max_new_tokens=9))
    with pytest.raises(ArtifactError, match="different conditions"):
        comparison.compare({"base": base, "sft": longer}, PARAMS)
