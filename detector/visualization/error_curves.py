"""Errors over a training, as figure 6 of He et al. 2015 shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from detector.durable import not_a_link
from detector.errors import MachineError

_COLOURS = ("#1f5fa8", "#c0392b", "#3a9d5d", "#e08a1e", "#8a5fbf", "#17a2b8")
# The training error of single batches is averaged over this share of the run.
_WINDOW = 1 / 15
# So many times the largest last error is the top, as far as there is so much: where lines end is what matters.
_HEADROOM = 2.5
# Between labels, as a share of the height.
_GAP = 0.055


@dataclass(frozen=True)
class ErrorCurve:
    """The errors of one training.

    Attributes:
        name: of the network; it has its colour in all panels.
        train: iterations, rising, and errors in 0..1, such as those of single batches; they are smoothed.
        test: likewise, of evaluations.
    """

    name: str
    train: Sequence[tuple[int, float]]
    test: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class _Label:
    text: str
    height: float
    look: Mapping[str, Any]


def plot_error_curves(path: Path, panels: Mapping[str, Sequence[ErrorCurve]]) -> None:
    """Draws errors over the iterations, one panel beside the other, with one scale: test bold, training dashed.

    Args:
        path: the image to write.
        panels: the curves of each, by its title.

    Raises:
        MachineError: the file cannot be written.
    """
    figure = Figure(figsize=(1 + 5.5 * len(panels), 4.8), layout="constrained")
    names = list(dict.fromkeys(curve.name for curves in panels.values() for curve in curves))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    top = _top([curve for curves in panels.values() for curve in curves])
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        axes.set(title=title, xlabel="iteration", ylim=(0, top))
        axes.margins(x=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        axes.grid(alpha=0.3)
        _write(axes, [label for curve in curves for label in _draw(axes, curve, colours[curve.name])], _GAP * top)
    row[0].set_ylabel("error")
    FigureCanvasAgg(figure)
    try:
        figure.savefig(not_a_link(path), dpi=110)
    except OSError as error:
        raise MachineError(f"{path}: cannot be written ({error.strerror or error})") from None


def _draw(axes: Any, curve: ErrorCurve, colour: str) -> list[_Label]:
    """The lines of a network, and what stands at their ends."""
    labels = []
    for kind, points in (("test", curve.test), ("training", smoothed(curve.train))):
        if not points:
            continue
        bold = kind == "test"
        iterations, errors = zip(*points, strict=True)
        shown = [100 * error for error in errors]
        axes.plot(
            iterations, shown, color=colour, linewidth=2.2 if bold else 1, linestyle="-" if bold else "--",
            marker="o" if bold and len(shown) == 1 else None,
        )  # fmt: skip
        look = {"color": colour, "fontweight": "bold" if bold else "normal"}
        labels.append(_Label(f"{curve.name}, {kind} {shown[-1]:.1f} %", shown[-1], look))
    return labels


def _write(axes: Any, labels: Sequence[_Label], gap: float) -> None:
    """Writes labels beside the right edge."""
    ordered = sorted(labels, key=lambda label: label.height)
    places = spread([label.height for label in ordered], gap, axes.get_ylim()[1])
    for label, place in zip(ordered, places, strict=True):
        axes.text(
            1.015, place, label.text, transform=axes.get_yaxis_transform(), va="center", fontsize="small", **label.look
        )


def spread(heights: Sequence[float], gap: float, top: float) -> list[float]:
    """Moves rising heights apart, by as little as they must, and down where they would leave the top."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + gap) if places else height)
    limit = top
    for index in reversed(range(len(places))):
        places[index] = min(places[index], limit)
        limit = places[index] - gap
    return places


def smoothed(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Each error averaged with its neighbours, fewer of them at the ends."""
    reach = int(len(points) * _WINDOW / 2)
    errors = np.array([error for _, error in points])
    return [
        (iteration, float(errors[max(0, index - reach) : index + reach + 1].mean()))
        for index, (iteration, _) in enumerate(points)
    ]


def _top(curves: Sequence[ErrorCurve]) -> float:
    """The largest per cent that is shown."""
    lines = [line for curve in curves for line in (curve.test, smoothed(curve.train)) if line]
    if not lines:
        return 100.0
    largest = max(error for line in lines for _, error in line)
    last = max(line[-1][1] for line in lines)
    return 100 * min(1.05 * largest, _HEADROOM * last) or 1.0
