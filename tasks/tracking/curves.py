"""Curves and the machine's load, sent to MLflow while a stage runs.

A thread of their own sends them, a batch per second: MLflow's asynchronous logging is not used,
because ending any run shuts its one queue down under the stages that still run
(docs/decisions/004-mlflow.md).
"""

import logging
import threading
import time
from collections.abc import Callable

from mlflow.entities import Metric

from tasks.tracking.system import SystemMetrics

FLUSH_SECONDS = 1.0

log = logging.getLogger(__name__)


class LiveRun:
    """A watcher that sends metrics to a run from a thread of its own, so that no stage waits.

    The thread adds what the stage does to the machine (tasks/tracking/system.py).
    """

    def __init__(self, run_id: str, send: Callable[[str, list[Metric]], bool]):
        self.run_id = run_id
        self._take = send
        self._points: list[Metric] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-curves", daemon=True)

    def __enter__(self) -> "LiveRun":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()
        self._send()
        if self._points and self.run_id:
            log.warning("MLflow misses %d points of a curve; the store has them", len(self._points))

    def progress(self, done: int, total: int, unit: str) -> None:
        """Nothing: MLflow shows no progress."""

    def metric(self, name: str, value: float, step: int) -> None:
        """Queue a curve's next point, at an update step."""
        point = Metric(name, value, int(time.time() * 1000), step)
        with self._lock:
            self._points.append(point)

    def _work(self) -> None:
        system = SystemMetrics()
        while not self._stop.wait(FLUSH_SECONDS):
            for name, value in (system.due() if self.run_id else {}).items():
                self.metric(name, value, system.step)
            self._send()

    def _send(self) -> None:
        """Send what is queued; what MLflow does not take stays queued."""
        with self._lock:
            points = list(self._points)
        if points and self._take(self.run_id, points):
            with self._lock:
                del self._points[: len(points)]
