"""The stages as tasks: what a retry may help, what watchers are told."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.states import Failed

from lightreasoner.errors import DiskFullError, SelectionError
from lightreasoner.pipeline.graph import STAGES
from tasks import stages


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (OSError(5, "Input/output error"), True),
        (ConnectionResetError("peer"), True),
        (TimeoutError("slow"), True),
        (httpx.ConnectError("refused"), True),
        (FileNotFoundError(2, "gone"), False),  # it will not come back by itself
        (PermissionError(13, "no"), False),
        (DiskFullError("full"), False),
        (SelectionError("beta"), False),
        (RuntimeError("a bug"), False),
        (ValueError("a bug"), False),
    ],
)
def test_only_passing_faults_are_retried(error: Exception, retried: bool) -> None:
    task: Any = None
    assert stages.may_pass(task, task, Failed(data=error)) is retried


def test_what_takes_as_long_as_a_models_size_has_no_time_limit(tmp_path: Path) -> None:
    """An upload that was cut would begin again from nothing at every later try."""
    assert stages.register_model.timeout_seconds is None
    assert stages.stage_task(STAGES["merge"], tmp_path).timeout_seconds is None
    assert stages.stage_task(STAGES["report"], tmp_path).timeout_seconds == stages.LIGHT_SECONDS


class Counter:
    """Counts what a watcher is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def progress(self, *told: object) -> None:
        self.told.append(told)

    def metric(self, *told: object) -> None:
        self.told.append(told)


def test_watchers_together() -> None:
    one, two = Counter(), Counter()
    both = stages.Together([one, two])
    both.progress(1, 2, "problems")
    both.metric("loss", 0.5, 3)
    assert one.told == two.told == [(1, 2, "problems"), ("loss", 0.5, 3)]


def test_progress_moves_at_most_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent = [100.0], []
    bar = stages.ProgressArtifact(STAGES["evaluate_base"])
    monkeypatch.setattr(bar, "_update", lambda percent, text: sent.append((percent, text)))
    monkeypatch.setattr(stages.time, "monotonic", lambda: clock[0])
    for done in range(1, 11):
        bar.progress(done, 10, "problems")
        clock[0] += 0.25
    assert [text for _, text in sent] == [
        "1 of 10 problems",
        "5 of 10 problems",
        "9 of 10 problems",
        "10 of 10 problems",
    ]
    assert sent[-1][0] == 100
    assert bar.key == "evaluate-base"


def test_a_lost_server_costs_the_bar_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise httpx.ConnectError("refused")

    bar = stages.ProgressArtifact(STAGES["score"])
    monkeypatch.setattr(bar, "_update", refuse)
    bar.progress(1, 2, "problems")
    bar.progress(2, 2, "problems")
    assert [record.message for record in caplog.records] == [
        "score: progress is not shown (refused)"
    ]
