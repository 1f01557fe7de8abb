"""Charts as SVG that stands in a page and takes the page's colours, light or dark.

Matplotlib knows no CSS, so a chart is drawn in colours that stand for names, and these are put in afterwards. No text
of users gets into a chart: names belong into the legend beside it, which wraps.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import matplotlib.ticker
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detector.evaluation.report.numbers import defined

SERIES = 12
_COLOURS = 6  # Beyond these, lines are dashed: more hues cannot be told apart.
INK, MUTED, LINE, ACCENT, FAINT = "#000001", "#000002", "#000003", "#000004", "#000005"
_NAMES = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", FAINT: "--faint"}
_NAMES |= {f"#0000{number + 16:02x}": f"--series-{number + 1}" for number in range(_COLOURS)}
WIDTH = 420  # One point is one pixel of CSS at this width of a chart.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "detector",
    "text.usetex": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "grid.linestyle": "-",
    "grid.alpha": 1.0,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "font.size": 12,
    "axes.labelsize": 12,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}


@dataclass(frozen=True)
class CalibrationWords:
    """What is written at a chart of calibration.

    Attributes:
        share: of what is true.
        score: that promised it.
        things: that have scores.
        label: of the whole.
    """

    share: str
    score: str
    things: str
    label: str


OF_DETECTIONS = CalibrationWords(
    "Share that is true",
    "Score",
    "Detections",
    "Share of true detections against their score, and the number of detections",
)


def colour(series: int) -> str:
    """The page's name for the colour of a line."""
    return f"--series-{series % _COLOURS + 1}"


def dashed(series: int) -> bool:
    """Whether a line is dashed."""
    return series >= _COLOURS


def draw_precision_recall(curves: Sequence[Mapping[str, Any]]) -> Markup:
    """Precision against recall, one line a class.

    Args:
        curves: of "analysis.json", at most ``SERIES``.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _square()
        for series, curve in enumerate(curves):
            _draw_line(axes, curve["recall"], curve["precision"], series)
        axes.set(xlabel="Recall", ylabel="Precision")
        return to_svg(figure, "Precision against recall")


def draw_f1(curves: Sequence[Mapping[str, Any]], points: Sequence[Any], common: float | None) -> Markup:
    """F1 against the score from which detections count, one line a class.

    Args:
        curves: of "analysis.json", at most ``SERIES``.
        points: the best point of each; None for none.
        common: the best score for all classes, marked by a line.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _square()
        if common is not None:
            axes.axvline(common, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        for series, (curve, point) in enumerate(zip(curves, points, strict=True)):
            _draw_line(axes, curve["score"], curve["f1"], series)
            if point:
                axes.plot(point["score"], point["f1"], "o", color=sentinel(series), markersize=5, gid=f"dot-{series}")
        axes.set(xlabel="Lowest score that counts", ylabel="F1")
        return to_svg(figure, "F1 against the lowest score that counts")


def draw_calibration(rows: Sequence[Mapping[str, Any]], words: CalibrationWords = OF_DETECTIONS) -> Markup:
    """The share of true detections against their score, above the number of detections.

    Args:
        rows: one a range of scores.
        words: what is written at the axes.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, 400 / 72), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        upper.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        upper.plot(
            [row["mean_score"] for row in rows], [row["true"] for row in rows], "o-", color=ACCENT, linewidth=1.8,
            markersize=5, clip_on=False,
        )  # fmt: skip
        _unit(upper, 5)
        upper.set(ylabel=words.share)
        lefts, widths = [row["from"] for row in rows], [0.92 * (row["to"] - row["from"]) for row in rows]
        lower.bar(lefts, [row["detections"] for row in rows], width=widths, align="edge", color=FAINT)
        lower.set(xlabel=words.score, ylabel=words.things)
        lower.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(3, integer=True))
        lower.grid(axis="x", visible=False)
        return to_svg(figure, words.label)


def draw_histogram(counts: Sequence[int]) -> Markup:
    """How many images hold how many objects.

    Args:
        counts: images with 0, 1, 2 and so on objects; 50 means that many or more.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, 230 / 72), layout="constrained")
        axes = figure.add_subplot()
        axes.bar(range(len(counts)), counts, width=0.82, color=ACCENT)
        axes.set(xlabel="Objects in an image", ylabel="Images")
        axes.set_xlim(-0.7, max(len(counts), 5) - 0.3)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
        axes.grid(axis="x", visible=False)
        return to_svg(figure, "Images by the number of their objects")


def _square() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH / 72, 330 / 72), layout="constrained")
    axes = figure.add_subplot()
    _unit(axes, 5)
    return figure, axes


def _unit(axes: Axes, steps: int) -> None:
    """Both axes from 0 to 1, with room for lines that run along an edge."""
    ticks = [step / steps for step in range(steps + 1)]
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xticks=ticks, yticks=ticks)


def _draw_line(axes: Axes, x: Sequence[float], y: Sequence[float], series: int) -> None:
    points = [(defined(a), defined(b)) for a, b in zip(x, y, strict=True)]
    known = [(a, b) for a, b in points if a is not None and b is not None]
    style: Any = (0, (4, 2)) if dashed(series) else "-"
    axes.plot(
        [a for a, _ in known], [b for _, b in known], color=sentinel(series), linewidth=1.8, linestyle=style,
        marker="o" if len(known) == 1 else "", markersize=4, gid=f"series-{series}",
    )  # fmt: skip


def sentinel(series: int) -> str:
    """The colour that stands for that of a line until the chart has the page's names."""
    return f"#0000{series % _COLOURS + 16:02x}"


def to_svg(figure: Figure, label: str) -> Markup:
    """The drawing without what a page has no use for: prologue, namespaces, fonts, and ids that could meet others."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<style.*?</style>|<defs>\s*</defs>", "", text, flags=re.S)
    text = text.replace("xlink:href", "href")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)  # as older releases have it
    text = re.sub(r" font-family: [^;\"]*;?", "", text)
    text = re.sub(r' id="(series|dot)-(\d+)"', r' class="line s\2"', text)
    referenced = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    prefix = re.sub(r"\W+", "-", label.lower())
    text = re.sub(r' id="([^"]+)"', lambda match: _kept_id(match[1], prefix, referenced), text)
    text = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{prefix}-", text)
    for sentinel, name in _NAMES.items():
        text = text.replace(sentinel, f"var({name})")
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None
    opening = f'<svg class="chart" {box[0]} role="img" aria-label="{escape(label)}">'
    text = re.sub(r"\s*\n\s*", " ", re.sub(r"<svg[^>]*>", opening, text, count=1))
    return Markup(text)


def _kept_id(name: str, prefix: str, referenced: set[str]) -> str:
    return f' id="{prefix}-{name}"' if name in referenced else ""
