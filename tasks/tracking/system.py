"""What a stage does to the machine, under the names that MLflow's page *System metrics* shows.

MLflow's own monitors read the values (a millisecond per reading; a GPU where nvidia-ml-py is
installed). Its SystemMetricsMonitor is not used: its loop ends for good at the first request that
fails, where the curves of tasks/tracking/mlflow_runs.py wait and are tried again.
"""

import contextlib
import logging
import time

import psutil
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

SECONDS = 10.0
"""Between readings, as MLflow's default; a shorter stage has none."""

PREFIX = "system/"

log = logging.getLogger(__name__)


class SystemMetrics:
    """Readings of CPU, memory, disk and GPU, one every SECONDS."""

    def __init__(self) -> None:
        self.monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor()]
        with contextlib.suppress(ImportError, RuntimeError):  # no nvidia-ml-py, no GPU
            self.monitors.append(GPUMonitor())
        self.next, self.step = time.monotonic() + SECONDS, 0

    def due(self) -> dict[str, float]:
        """A reading by name, if it is time for one; else nothing."""
        if time.monotonic() < self.next:
            return {}
        self.next += SECONDS
        self.step += 1
        try:
            return self._read()
        except (OSError, psutil.Error) as error:  # the curves' thread must live on
            log.warning("no more system metrics (%s)", error)
            self.monitors = []
            return {}

    def _read(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for monitor in self.monitors:
            monitor.collect_metrics()
            found |= {PREFIX + name: value for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return found
