"""When tuning ends early, and which reading's adapter is kept (`finetune.stop`).

`loss` stops where the held-out loss no longer falls and keeps the lowest; `drift` stops where the
steps that were not taught have moved too far and keeps the last adapter within the limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightreasoner.errors import ModelError

if TYPE_CHECKING:
    from lightreasoner.config import Finetune

Reading = dict[str, float]
"""Measures on held-out problems, and the `update` after which they were taken."""


@dataclass(frozen=True)
class Stopping:
    """The rule of a `finetune` section."""

    config: "Finetune"

    def rank(self, reading: Reading) -> float:
        """The reading of the highest rank has its adapter kept; of equals, the first."""
        if self.config.stop == "loss":
            return -reading["loss"]
        return -1.0 if self.is_over(reading) else reading["update"]

    def ends(self, readings: Sequence[Reading]) -> bool:
        """Whether the last of the readings, the first being the untouched expert's, is the last.

        Raises ModelError where no adapter is within the limit.
        """
        if self.config.stop == "loss":
            assert self.config.patience is not None
            losses = [reading["loss"] for reading in readings]
            return len(losses) - 1 - losses.index(min(losses)) >= self.config.patience
        if self.config.stop == "none" or not self.is_over(readings[-1]):
            return False
        if len(readings) > 2:
            return True
        last = readings[-1]
        raise ModelError(
            f"update {last['update']:g}: at the first reading already, held-out steps that were "
            f"not taught have drifted by {last['drift']:.3g} nats, over finetune.drift_limit "
            f"{self.config.drift_limit:g}; lower finetune.learning_rate "
            f"({self.config.learning_rate:g}) or finetune.validate_every "
            f"({self.config.validate_every})"
        )

    def is_over(self, reading: Reading) -> bool:
        """Whether what was not taught has drifted over the limit; NaN has."""
        return not reading.get("drift", 0.0) <= self.config.drift_limit
