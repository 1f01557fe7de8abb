"""Cost over the amount of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from detector.durable import not_a_link
from detector.errors import MachineError

_STRONG, _GUIDE = "#1f5fa8", "#c0392b"
# A part has its colour in all plots.
_COLOURS = {
    "total": _STRONG, "backbone": "#8a5fbf", "rpn": "#e08a1e", "proposals": "#3a9d5d", "pooling": "#17a2b8",
    "head": "#b5458f", "post-processing": "#7a6a4f", "backward": "#34495e", "optimiser": "#8fa60c",
}  # fmt: skip
_OTHER = "#9aa7b4"
_LEAST_SHARE = 0.002


@dataclass(frozen=True)
class Chart:
    """What is drawn beside the lines.

    Attributes:
        title: what was run.
        quantity: that grows, with its unit.
        time: what was measured, in milliseconds.
        limit: exponent of the guide through the last total.
    """

    title: str
    quantity: str
    time: str
    limit: float


@dataclass(frozen=True)
class Line:
    """One part's times.

    Attributes:
        medians: in seconds.
        low: first quartiles.
        high: third quartiles.
        exponent: of the power law at the end of the line.
    """

    medians: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    exponent: float


def plot_scaling(path: Path, chart: Chart, values: Sequence[float], lines: Mapping[str, Line]) -> None:
    """Draws times over a quantity, both on logarithmic axes, so that a power law is a straight line.

    Args:
        path: the image to write.
        chart: title, axes and guide.
        values: of the quantity, positive and rising.
        lines: by part; "total" stands out, and parts that never take a five-hundredth of it are left out.

    Raises:
        MachineError: the file cannot be written.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    total = lines["total"].medians
    shown = {
        name: line
        for name, line in lines.items()
        if any(part > _LEAST_SHARE * whole for part, whole in zip(line.medians, total, strict=True))
    }
    guide = [1e3 * total[-1] * (value / values[-1]) ** chart.limit for value in values]
    label = f"exponent {chart.limit:g}, the limit"
    axes.plot(values, guide, color=_GUIDE, linestyle="--", linewidth=1, label=label)
    for name, line in shown.items():
        _draw(axes, values, name, line)
    axes.set(xscale="log", yscale="log", xlabel=chart.quantity, ylabel=chart.time, title=chart.title)
    axes.set_xticks(values)
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    least = min(value for line in shown.values() for value in line.medians if value > 0)
    axes.set_ylim(1e3 * least / 2, 1e3 * max(total) * 2)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small", title="exponent at the end")
    FigureCanvasAgg(figure)
    try:
        figure.savefig(not_a_link(path), dpi=110)
    except OSError as error:
        raise MachineError(f"{path}: cannot be written ({error.strerror or error})") from None


def _draw(axes: Any, values: Sequence[float], name: str, line: Line) -> None:
    """The median with a band between the quartiles."""
    medians, low, high = ([1e3 * value for value in part] for part in (line.medians, line.low, line.high))
    colour, width = _COLOURS.get(name, _OTHER), 2.5 if name == "total" else 1.2
    axes.plot(values, medians, color=colour, linewidth=width, marker="o", label=f"{name}: {line.exponent:.2f}")
    axes.fill_between(values, low, high, color=colour, alpha=0.15, linewidth=0)
