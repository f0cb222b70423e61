"""Figures: each a pure function from a table to a matplotlib figure, light or dark.

No pyplot and no global state, so that stages may draw in threads. Each method has one colour
everywhere, the page's included (`THEMES`).
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

METHODS = {"base": "base", "lightreasoner": "LightReasoner"}
"""Methods as tables name them, and as they are shown."""

WIDTH = 4.8
DPI = 200
KL_BINS = 40
_COUNT = FuncFormatter(lambda count, _: f"{count:,.0f}")


@dataclass(frozen=True)
class Theme:
    """Colours of a page: its paper, text, lines and methods."""

    paper: str
    ink: str
    muted: str
    line: str
    base: str
    lightreasoner: str


THEMES = {
    "light": Theme("#ffffff", "#1c2128", "#59636e", "#d6dbe1", "#3a6ea5", "#d1590a"),
    "dark": Theme("#161a20", "#e7eaee", "#9aa4b0", "#363d47", "#7fb0e6", "#ff9a52"),
}


def accuracy(scores: Mapping[str, Mapping[str, Any]], theme: Theme) -> Figure:
    """Accuracy of each method on each set, percent, with 95% intervals.

    `scores` is tables.json's: method, then set, then accuracy, ci95 and problems.
    """
    sets = list(scores["base"])
    figure, axes = _canvas(1.15 + 0.78 * len(sets), theme)
    for offset, (method, label) in zip((-0.19, 0.19), METHODS.items(), strict=True):
        rows = [scores[method][name] for name in sets]
        values = np.array([100 * row["accuracy"] for row in rows])
        ends = np.array([[100 * end for end in row["ci95"]] for row in rows])
        heights = np.arange(len(sets)) + offset
        axes.barh(heights, values, 0.36, color=getattr(theme, method), label=label)
        errors = np.clip([values - ends[:, 0], ends[:, 1] - values], 0, None)
        axes.errorbar(values, heights, xerr=errors, fmt="none", ecolor=theme.ink, capsize=3, lw=1)
        for value, end, place in zip(values, ends[:, 1], heights, strict=True):
            axes.annotate(
                f"{value:.1f}", (end, place), (5, 0), textcoords="offset points",
                va="center", color=theme.ink, fontsize=9,
            )  # fmt: skip
    labels = [f"{name}\nn = {scores['base'][name]['problems']:,}" for name in sets]
    axes.set_yticks(range(len(sets)), labels, color=theme.ink, fontsize=9.5)
    axes.invert_yaxis()
    axes.set(xlim=(0, 112), xticks=range(0, 101, 20))
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    _name(axes, "Accuracy, pass@1, with 95% intervals", None, theme)
    _legend(figure, axes, theme)
    return figure


def kl_histogram(
    kl: "pd.Series[float]", selected: "pd.Series[bool]", threshold: float | None, theme: Theme
) -> Figure:
    """How many steps have which KL(expert || amateur), nats; those that were selected set apart.

    `threshold` is what they exceed, nats; None if every step was selected. Both series have one
    entry per step. Counts are on a logarithmic axis, on which nothing can be stacked: the selected
    stand in front of all. The threshold is a bin's edge.
    """
    figure, axes = _canvas(3.2, theme)
    share = 100 * float(selected.mean())
    rule = "selected, every step" if threshold is None else f"selected, KL > {threshold:.3g}"
    for values, color, label in (
        (kl, theme.muted, f"all steps: {len(kl):,}"),
        (kl[selected], theme.lightreasoner, f"{rule}: {len(kl[selected]):,} ({share:.1f}%)"),
    ):
        axes.hist(values, bins(float(kl.max()), threshold), log=True, color=color, label=label)
    _plain_counts(axes)
    _name(axes, f"KL(expert ‖ amateur) of a step, nats (n = {len(kl):,} steps)", "steps", theme)
    _legend(figure, axes, theme)
    return figure


def loss_curve(curve: pd.DataFrame, held_out: pd.DataFrame, theme: Theme) -> Figure:
    """KL(soft label || expert) over updates, nats, with its running mean and held-out readings.

    `curve` and `held_out`, which may be empty, have columns `update` and `loss`.
    """
    figure, axes = _canvas(3.2, theme)
    for loss, line, label in (
        (curve["loss"], {"alpha": 0.35, "lw": 1}, "one update"),
        (running_mean(curve), {"lw": 2}, f"mean of the last {_window(curve)}"),
    ):
        axes.plot(curve["update"], loss, color=theme.lightreasoner, label=label, **line)
    if len(held_out):
        axes.plot(
            held_out["update"], held_out["loss"], "o-", color=theme.ink, ms=4, label="held out"
        )
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.xaxis.set_major_formatter(_COUNT)
    _name(axes, f"update (n = {len(curve):,})", "KL(soft label ‖ expert), nats", theme)
    _legend(figure, axes, theme)
    return figure


def running_mean(curve: pd.DataFrame) -> "pd.Series[float]":
    """The mean loss of a twentieth of the updates up to each, nats."""
    return curve["loss"].rolling(_window(curve), min_periods=1).mean()


def _window(curve: pd.DataFrame) -> int:
    return max(1, len(curve) // 20)


def png(figure: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes (no date, no program's name)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _canvas(height: float, theme: Theme) -> tuple[Figure, Axes]:
    figure = Figure((WIDTH, height), layout="constrained", facecolor=theme.paper)
    axes = figure.add_subplot(facecolor=theme.paper)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.line)
    axes.tick_params(colors=theme.muted, labelsize=9)
    axes.grid(color=theme.line, lw=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def bins(most: float, threshold: float | None) -> list[float]:
    """The ends of equal bins from 0 to `most`, of which the first is cut so that one ends at the
    threshold."""
    width = max(most, 1e-6) / KL_BINS
    first = (threshold or 0.0) % width
    return [0.0] * (first > 0) + [first + width * place for place in range(KL_BINS + 1)]


def _plain_counts(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(_COUNT)
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda count, _: ""))
    axes.tick_params(axis="y", which="minor", length=0)
    axes.set_ylim(bottom=0.7)


def _name(axes: Axes, x: str, y: str | None, theme: Theme) -> None:
    axes.set_xlabel(x, color=theme.ink, fontsize=9.5)
    if y is not None:
        axes.set_ylabel(y, color=theme.ink, fontsize=9.5)


def _legend(figure: Figure, axes: Axes, theme: Theme) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside upper left", ncols=3, frameon=False, fontsize=9, labelcolor=theme.ink,
    )  # fmt: skip
