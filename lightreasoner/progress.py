"""How long work reports its progress: one small protocol, a silent watcher, a terminal's."""

import logging
import sys
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as Bar
from rich.text import Text


class Watcher(Protocol):
    """What a stage reports to while it runs."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """`done` of `total` units (problems, tokens, updates) are finished."""

    def metric(self, name: str, value: float, step: int) -> None:
        """A curve's next point, at an update step."""


class Silent:
    """A watcher that shows nothing."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """Ignore it."""

    def metric(self, name: str, value: float, step: int) -> None:
        """Ignore it."""


class _RateColumn(TextColumn):
    """Units per second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Bar) -> Text:
        """The bar's speed with its unit."""
        speed = f"{task.speed:.1f} " if task.speed else ""
        return Text(f"{speed}{task.fields['unit']}/s" if speed else "", style="dim")


def _is_quiet() -> bool:
    """Whether stderr is for faults alone. A flow lowers our logger's level, not its handler's."""
    shown = logging.getLogger("lightreasoner").handlers
    return any(isinstance(at, logging.StreamHandler) and at.level > logging.INFO for at in shown)


class TerminalBar:
    """A bar with rate and time left on stderr; silent where that is no terminal, or told to be."""

    def __init__(self, title: str):
        self.bar = Progress(
            TextColumn("{task.description:>14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            _RateColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            disable=_is_quiet() or not sys.stderr.isatty(),
        )
        self.row = self.bar.add_task(title, total=None, unit="")

    def __enter__(self) -> "TerminalBar":
        self.bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.bar.stop()

    def progress(self, done: int, total: int, unit: str) -> None:
        """Move the bar; another unit starts it over."""
        if unit != self.bar.tasks[self.row].fields["unit"]:
            self.bar.reset(self.row)
        self.bar.update(self.row, completed=done, total=total, unit=unit)

    def metric(self, name: str, value: float, step: int) -> None:
        """Show the last loss beside the bar's title."""
        if name == "loss":
            title = self.bar.tasks[self.row].description.split(" ")[0]
            self.bar.update(self.row, description=f"{title} loss {value:.3f}")
