"""Curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from detector.durable import not_a_link
from detector.errors import MachineError

_CURVES = (
    ("coco", "AP"), ("coco", "AP50"), ("voc07", "mAP50"), ("voc", "mAP50"), ("classification", "top1"),
    ("classification", "top5"),
)  # fmt: skip
_THIN, _STRONG = "#b9c4d0", "#1f5fa8"


def plot_rate_test(
    path: Path, rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggestion: float
) -> None:
    """Draws the loss against a rising learning rate.

    Args:
        path: the image to write.
        rates: learning rates, rising.
        losses: one a rate.
        smoothed: the same, smoothed.
        suggestion: a rate that is marked.

    Raises:
        MachineError: the file cannot be written.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rates, losses, color=_THIN, label="loss")
    axes.plot(rates, smoothed, color=_STRONG, linewidth=2, label="smoothed")
    axes.axvline(suggestion, color="#c0392b", linestyle="--", label=f"suggested: {suggestion:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", title="Loss while the learning rate rises")
    axes.set_ylim(bottom=0, top=1.5 * max(smoothed) or 1)
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def plot_training(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Draws a run's losses, learning rate and evaluations over its iterations.

    Args:
        path: the image to write.
        records: the lines of metrics.jsonl.

    Raises:
        MachineError: the file cannot be written.
    """
    training = [record for record in records if "loss" in record]
    evaluations = [record for record in records if "headline" in record]
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    iterations = [record["iteration"] for record in training]
    names = [name for name in (training[0] if training else {}) if name.startswith("loss")]
    for name in names[: 1 if len(names) == 2 else None]:  # a single part is the whole
        values = [record[name] for record in training]
        left.plot(iterations, values, label=name.removeprefix("loss_"), linewidth=2 if name == "loss" else 1)
    left.set(title="Losses", xlabel="iteration", ylim=(0, None))
    if left.lines:
        left.legend(fontsize="small")
    middle.plot(iterations, [record["learning_rate"] for record in training], color=_STRONG)
    middle.set(title="Learning rate", xlabel="iteration", ylim=(0, None))
    if training and "error" in training[0]:
        accuracy = [1 - record["error"] for record in training]
        right.plot(iterations, accuracy, color=_THIN, linewidth=1, label="training top1")
    for group, name in _CURVES:
        points = [
            (record["iteration"], record[group][name])
            for record in evaluations
            if record.get(group, {}).get(name) is not None
        ]
        if points:
            right.plot(*zip(*points, strict=True), marker="o", label=f"{group} {name}")
    right.set(title="Evaluations", xlabel="iteration", ylim=(0, 1))
    if right.lines:
        right.legend(fontsize="small")
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    try:
        figure.savefig(not_a_link(path), dpi=110)
    except OSError as error:
        raise MachineError(f"{path}: cannot be written ({error.strerror or error})") from None
