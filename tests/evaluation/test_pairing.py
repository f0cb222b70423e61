from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from written_scores import write_frame, write_scores

from lightreasoner.errors import ArtifactError
from lightreasoner.evaluation import pairing
from lightreasoner.evaluation.pairing import Scores

Edit = Callable[[pd.DataFrame], pd.DataFrame]


def edited(out: Path, edit: Edit) -> Scores:
    """Three problems of set `a`, edited."""
    first = pairing.read_scores(write_scores(out, "cot", {"a": "+-~"}))
    write_frame(out, edit(first.rows), first.conditions)
    return pairing.read_scores(out)


def test_the_same_problems_in_another_order_are_comparable(tmp_path: Path) -> None:
    first = edited(tmp_path / "first", lambda rows: rows)
    second = edited(tmp_path / "second", lambda rows: rows[::-1].assign(qwen="wrong"))
    assert first.conditions == {"style": "cot", "max_new_tokens": 2048}
    assert len(first.rows) == 3
    pairing.check_comparable(first, second)
    pairing.check_prompts(first, second)


@pytest.mark.parametrize(
    ("edit", "rows"),
    [
        (lambda rows: rows.iloc[:2], 1),
        (lambda rows: rows.replace({"question": {"1?": "other?"}}), 2),
        (lambda rows: rows.replace({"gold": "5"}).replace({"gold": {"4": "5"}}), 6),
        (lambda rows: rows.assign(k=1), 6),
        (lambda rows: rows.replace({"problem_id": {"a/00001": "a/00009"}}), 2),
    ],
)
def test_other_problems_are_refused(tmp_path: Path, edit: Edit, rows: int) -> None:
    first = edited(tmp_path / "first", lambda rows: rows)
    second = edited(tmp_path / "second", edit)
    message = f"not of the same problems: {rows} rows differ, the first is a/0000. of a; evaluate"
    for pair in ((first, second), (second, first)):
        with pytest.raises(ArtifactError, match=message):
            pairing.check_comparable(*pair)


def test_other_conditions_are_refused_unless_they_are_free(tmp_path: Path) -> None:
    first = edited(tmp_path / "first", lambda rows: rows)
    second = pairing.read_scores(write_scores(tmp_path / "b", "chat", {"a": "+-~"}))
    with pytest.raises(ArtifactError, match=r"different conditions .*'cot'.*'chat'.*; evaluate"):
        pairing.check_comparable(first, second)
    pairing.check_comparable(first, second, free={"style"})
    with pytest.raises(ArtifactError, match="different prompts for 3 problems, the first is a/00"):
        pairing.check_prompts(first, second)


def test_a_response_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"scores.parquet: row 4, .* appears twice"):
        edited(tmp_path / "twice", lambda rows: pd.concat([rows, rows.iloc[:1]]))


def test_other_prompts_under_one_style_are_refused(tmp_path: Path) -> None:
    """As where demos or chat templates differ; under two styles prompts differ by rights."""
    first = edited(tmp_path / "first", lambda rows: rows)
    second = edited(tmp_path / "second", lambda rows: rows.assign(prompt="other"))
    with pytest.raises(ArtifactError, match="different prompts for 3 problems"):
        pairing.check_comparable(first, second)
    other = Scores(second.path, second.rows, {**second.conditions, "style": "chat"})
    pairing.check_comparable(first, other, {"style"})
