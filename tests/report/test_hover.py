import itertools
import re

import numpy as np
import pandas as pd
import pytest

from lightreasoner.report import figures, hover

THEME = figures.THEMES["light"]
NONE_HELD_OUT = pd.DataFrame({"update": [], "loss": []}, dtype=float)


def curve_of(updates: int) -> pd.DataFrame:
    return pd.DataFrame({"update": range(1, updates + 1), "loss": np.linspace(2, 1, updates)})


def strips_of(curve: pd.DataFrame, held_out: pd.DataFrame) -> hover.Strips:
    return hover.loss_curve(figures.loss_curve(curve, held_out, THEME), curve, held_out)


def test_the_loss_curve_by_hand() -> None:
    """40 updates: the running mean is of two."""
    curve = curve_of(40).assign(loss=[2.0, 1.0, *[0.5] * 38])
    held_out = pd.DataFrame({"update": [0, 2], "loss": [1.5, 1.25]})
    texts = [text for _, text in strips_of(curve, held_out)]
    assert len(texts) == 2 + 41
    assert texts[:4] == [
        "",
        "update 0: held out 1.5 nats",
        "update 1: loss 2, mean 2 nats",
        "update 2: loss 1, mean 1.5, held out 1.25 nats",
    ]
    assert texts[-2:] == ["update 40: loss 0.5, mean 0.5 nats", ""]


def test_the_histogram_by_hand() -> None:
    """Up to 4 nats in 40 bins: one ends at the threshold."""
    kl, threshold = pd.Series([0.05, 0.15, 0.45, 4.0]), 0.4
    selected = kl > threshold
    figure = figures.kl_histogram(kl, selected, threshold, THEME)
    texts = [text for _, text in hover.kl_histogram(figure, kl, selected, threshold)]
    counted = [text for text in texts if text and ": 0 steps" not in text]
    assert counted[0] == "0 to 0.1 nats: 1 steps, 0 selected"
    assert counted[2] == "0.4 to 0.5 nats: 1 steps, 1 selected"
    assert len(counted) == 4


def test_a_strip_stands_where_its_update_is_drawn() -> None:
    curve = curve_of(7)
    figure = figures.loss_curve(curve, NONE_HELD_OUT, THEME)
    strips = hover.loss_curve(figure, curve, NONE_HELD_OUT)
    ends = [*itertools.accumulate((width for width, _ in strips), initial=0.0)]
    assert ends[-1] == pytest.approx(100, abs=0.1)
    for update, (low, high) in enumerate(itertools.pairwise(ends[1:-1]), 1):
        pixel, _ = figure.axes[0].transData.transform((update, 1))
        share = 100 * pixel / figure.bbox.width
        assert (low + high) / 2 == pytest.approx(share, abs=0.1)


def test_a_long_curve_has_a_bounded_number_of_strips_and_keeps_what_was_held_out() -> None:
    held_out = pd.DataFrame({"update": [0, 4998], "loss": [1.5, 1.25]})
    texts = [text for _, text in strips_of(curve_of(5000), held_out)]
    assert len(texts) <= 2 + hover.MOST + 2
    assert "update 4,998: loss 1, mean 1.03, held out 1.25 nats" in texts


def test_a_curve_without_updates_says_nothing() -> None:
    assert strips_of(curve_of(0), NONE_HELD_OUT) == []


@pytest.mark.parametrize("updates", [1, 20, 280, 300, 1150, 12_500])
def test_the_ticks_of_updates_are_round(updates: int) -> None:
    figure = figures.loss_curve(curve_of(updates), NONE_HELD_OUT, THEME)
    figure.draw_without_rendering()
    axis = figure.axes[0].xaxis
    low, high = axis.get_view_interval()
    shown = [each for each in axis.get_major_ticks() if low <= each.get_loc() <= high]
    assert len(shown) <= 12
    for each in shown:
        assert re.fullmatch(r"\d{1,3}(,\d{3})*", each.label1.get_text())
    steps = {float(step) for step in np.diff([each.get_loc() for each in shown])}
    assert len(steps) <= 1
    assert all(re.fullmatch(r"[125]0*\.0", str(step)) for step in steps)
