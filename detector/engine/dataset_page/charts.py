"""Histograms of objects and the map of their places, drawn as the charts of the evaluation report are."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from detector.evaluation.report.charts import ACCENT, MUTED, STYLE, WIDTH, sentinel, to_svg

_SIDES = 2.0 ** np.arange(0, 11.25, 0.25)
_SIDE_TICKS = (1, 4, 16, 64, 256, 1024)
_RATIOS = 2.0 ** np.arange(-4, 4.25, 0.25)
_RATIO_TICKS = {1 / 16: "1/16", 1 / 4: "1/4", 1.0: "1", 4.0: "4", 16.0: "16"}
_MOST_OBJECTS = 50
_FIELDS = 20


def draw_sides(sides: Sequence[np.ndarray], marks: Sequence[float]) -> Markup:
    """The sizes of objects in each split.

    Args:
        sides: square roots of areas, after the resize; one array a split.
        marks: sizes of the anchors.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _wide()
        axes.set_xscale("log", base=2)
        for mark in marks:
            axes.axvline(mark, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        _draw_shares(axes, _SIDES, [side.clip(_SIDES[0], _SIDES[-1]) for side in sides])
        axes.set_xticks(_SIDE_TICKS, [str(tick) for tick in _SIDE_TICKS])
        axes.set(xlabel="Square root of width × height, in pixels after the resize", xlim=(_SIDES[0], _SIDES[-1]))
        return to_svg(figure, "Objects by their size")


def draw_ratios(ratios: Sequence[np.ndarray], marks: Sequence[float]) -> Markup:
    """The shapes of objects in each split.

    Args:
        ratios: height / width; one array a split.
        marks: aspect ratios of the anchors.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _wide()
        axes.set_xscale("log", base=2)
        for mark in marks:
            axes.axvline(mark, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        _draw_shares(axes, _RATIOS, [ratio.clip(_RATIOS[0], _RATIOS[-1]) for ratio in ratios])
        axes.set_xticks(list(_RATIO_TICKS), list(_RATIO_TICKS.values()))
        axes.set(xlabel="Height / width, wide objects on the left", xlim=(_RATIOS[0], _RATIOS[-1]))
        return to_svg(figure, "Objects by their shape")


def draw_counts(counts: Sequence[np.ndarray]) -> Markup:
    """How many objects the images of each split hold.

    Args:
        counts: objects of each image; one array a split.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _wide()
        most = max([int(count.max(initial=0)) for count in counts] + [5])
        edges = np.arange(min(most, _MOST_OBJECTS) + 2) - 0.5
        _draw_shares(axes, edges, [count.clip(max=_MOST_OBJECTS) for count in counts])
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
        axes.set(xlabel="Objects in an image", ylabel="Share of images", xlim=(edges[0], edges[-1]))
        return to_svg(figure, "Images by the number of their objects")


def draw_places(x: np.ndarray, y: np.ndarray) -> Markup:
    """Where in their images objects lie.

    Args:
        x: of the boxes' centres, 0 at the left edge, 1 at the right one.
        y: the same, 0 at the top.
    """
    fields, _, _ = np.histogram2d(y, x, _FIELDS, ((0, 1), (0, 1)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, 330 / 72), layout="constrained")
        axes = figure.add_subplot()
        side = 1 / _FIELDS
        for row, column in np.argwhere(fields):
            share = fields[row, column] / fields.max()
            axes.add_patch(
                Rectangle((column * side, row * side), side, side, facecolor=ACCENT, alpha=share, linewidth=0)
            )
        axes.set(xlim=(0, 1), ylim=(1, 0), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set_xticklabels(["left", "middle", "right"])
        axes.set_yticklabels(["top", "middle", "bottom"])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(True)
        return to_svg(figure, "Where the centres of boxes lie in their images")


def _wide() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH / 72, 270 / 72), layout="constrained")
    axes = figure.add_subplot()
    axes.set(ylabel="Share of objects")
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    return figure, axes


def _draw_shares(axes: Axes, edges: np.ndarray, groups: Sequence[np.ndarray]) -> None:
    """One step line a group; a single one is filled."""
    for series, values in enumerate(groups):
        shares = np.histogram(values, edges)[0] / max(len(values), 1)
        if len(groups) == 1:
            axes.stairs(shares, edges, fill=True, color=ACCENT)
        else:
            axes.stairs(shares, edges, color=sentinel(series), linewidth=1.8, gid=f"series-{series}")
    axes.set_ylim(bottom=0)
