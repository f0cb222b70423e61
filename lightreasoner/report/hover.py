"""What a figure says under the pointer: strips across the picture, each with its numbers.

A strip's width is a share of the picture's; the strips beside the data have no text.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lightreasoner.formatting import number
from lightreasoner.report import figures

Strips = list[tuple[float, str]]

MOST = 200
"""Strips that can be pointed at: of a longer curve every second update has one, or third."""


def kl_histogram(
    figure: Figure, kl: "pd.Series[float]", selected: "pd.Series[bool]", threshold: float | None
) -> Strips:
    """How many steps each bin of `figures.kl_histogram` counts."""
    edges = figures.bins(float(kl.max()), threshold)
    counts = zip(*(np.histogram(values, edges)[0] for values in (kl, kl[selected])), strict=True)
    texts = [
        f"{number(low)} to {number(high)} nats: {n:,} steps, {kept:,} selected"
        for low, high, (n, kept) in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    return _strips(figure, edges, texts)


def loss_curve(figure: Figure, curve: pd.DataFrame, held_out: pd.DataFrame) -> Strips:
    """The losses at each update of `figures.loss_curve`, nats."""
    shown = curve[["update", "loss"]].assign(mean=figures.running_mean(curve))
    every = 1 + len(shown) // MOST
    shown = shown[(shown["update"] % every == 0) | shown["update"].isin(held_out["update"])]
    read = held_out[["update", "loss"]].rename(columns={"loss": "held out"})
    rows = shown.merge(read, how="outer", on="update")
    if rows.empty:
        return []
    updates = rows.pop("update").to_numpy(float)
    texts = [
        f"update {update:,.0f}: "
        + ", ".join(f"{name} {number(value)}" for name, value in row.dropna().items())
        + " nats"
        for update, (_, row) in zip(updates, rows.iterrows(), strict=True)
    ]
    between = (updates[1:] + updates[:-1]) / 2
    return _strips(figure, [updates[0] - 0.5, *between, updates[-1] + 0.5], texts)


def _strips(figure: Figure, edges: Sequence[float], texts: Sequence[str]) -> Strips:
    """Strips between `edges`, which are in the unit of the figure's x axis."""
    figure.draw_without_rendering()  # which lays the axes out
    (axes,) = figure.axes
    pixels = axes.transData.transform([(edge, 1) for edge in edges])
    shares = figure.transFigure.inverted().transform(pixels)[:, 0]
    widths = 100 * np.diff([0, *shares, 1])
    return [(round(w, 2), text) for w, text in zip(widths, ["", *texts, ""], strict=True)]
