"""Stopping: which reading ends the tuning, and which one's adapter is kept."""

import json
import logging
from pathlib import Path

import pandas as pd
import pytest
from test_finetune import settings, tune

from lightreasoner.errors import ModelError
from lightreasoner.tuning.stopping import Stopping

CHANGES = {"updates": 60, "validation_share": 0.3, "validate_every": 2, "lora_dropout": 0.0}


def readings(*drifts: float) -> list[dict[str, float]]:
    return [{"update": 5.0 * n, "loss": 1.0 - n, "drift": d} for n, d in enumerate(drifts)]


def test_drift_ends_at_the_first_reading_over_the_limit() -> None:
    rule = Stopping(settings(stop="drift", validation_share=0.1))
    for drifts, ends in (((0, 0.05), False), ((0, 0.05, 0.1), False), ((0, 0.05, 0.1001), True)):
        assert rule.ends(readings(*drifts)) is ends
    assert rule.ends(readings(0, 0.05, float("nan")))
    assert [rule.rank(each) for each in readings(0, 0.05, 0.2)] == [0, 5, -1]


def test_no_adapter_within_the_limit_is_refused() -> None:
    rule = Stopping(settings(stop="drift", validation_share=0.1, drift_limit=0.01))
    with pytest.raises(ModelError, match=r"update 5: .*0.05 nats, over finetune.drift_limit 0.01"):
        rule.ends(readings(0, 0.05))


def test_where_every_step_is_taught_nothing_can_drift() -> None:
    rule = Stopping(settings(stop="drift", validation_share=0.1))
    assert not rule.ends([{"update": 5, "loss": 1.0, "drift_taught": 9.0}])


def test_loss_counts_from_the_lowest() -> None:
    rule = Stopping(settings(stop="loss", patience=2, validation_share=0.1))
    losses = [{"update": n, "loss": loss} for n, loss in enumerate([3.0, 1.0, 2.0, 1.0])]
    assert [rule.ends(losses[: n + 1]) for n in range(4)] == [False, False, False, True]
    assert max(losses[1:], key=rule.rank) == losses[1]


@pytest.mark.parametrize(
    "changes",
    [{"stop": "loss"}, {"patience": 2}, {"stop": "drift", "patience": 2}, {"stop": "drift"}],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"stop (loss|none|drift)"):
        settings(**changes)


def test_a_tuning_that_drifts_keeps_the_last_adapter_within_the_limit(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    changes = {**CHANGES, "learning_rate": 0.02}
    with caplog.at_level(logging.WARNING, "lightreasoner"):
        tune(tiny_expert, samples_dir, whole, drift_limit=1e-6, **changes)
    drifts = list(pd.read_csv(whole / "validation.csv")["drift"])
    assert f"drifted by {drifts[-1]:.3g} nats, over finetune.drift_limit 1e-06" in caplog.text
    over = next(n for n in range(3, len(drifts)) if drifts[n] > max(drifts[:n]))
    limit = (max(drifts[:over]) + drifts[over]) / 2
    tune(tiny_expert, samples_dir, cut, stop="drift", drift_limit=limit, **changes)
    assert list(pd.read_csv(cut / "validation.csv")["drift"]) == drifts[: over + 1]
    kept = json.loads((cut / "validation.json").read_text())["kept_update"]
    assert kept == CHANGES["validate_every"] * (over - 1)
