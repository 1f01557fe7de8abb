"""How time grows with the work, one quantity at a time, and where it grows faster than it should."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from detector.engine.benchmark.machine import seconds, seconds_name
from detector.engine.benchmark.measure import WHOLE, proposals_of
from detector.engine.benchmark.timing import Reading, Summary, alternate
from detector.engine.benchmark.variants import Variant, make_run
from detector.engine.benchmark.workload import Work, make_model
from detector.structures import Size
from detector.visualization.scaling_plot import Chart, Line, plot_scaling

_log = logging.getLogger(__name__)

_TOLERANCE = 0.1
# Of the whole time; what takes less is not worth a word.
_MATTERS = 0.02


@dataclass(frozen=True)
class Axis:
    """A quantity that is varied.

    Attributes:
        label: with its unit.
        mode: inference or training.
        values: rising.
        exponent: of the power law that the time should not exceed.
        change: makes the work of a value.
    """

    label: str
    mode: str
    values: tuple[int, ...]
    exponent: float
    change: Callable[[Work, int], Work]


AXES = {
    "side": Axis(
        "image side (pixels)", "inference", (400, 560, 800, 1120, 1600), 2,
        lambda work, value: replace(work, size=Size(value, value)),
    ),
    "proposals": Axis(
        "proposals an image", "inference", (100, 200, 500, 1000, 2000), 1, Work.with_proposals,
    ),
    "batch": Axis("images a batch", "inference", (1, 2, 4, 8), 1, lambda work, value: replace(work, batch=value)),
    "classes": Axis(
        "classes", "inference", (1, 10, 100, 1000), 1, lambda work, value: replace(work, num_classes=value)
    ),
    "objects": Axis(
        "objects an image", "training", (1, 10, 100, 1000), 1, lambda work, value: replace(work, objects=value)
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """What was measured at one value.

    Attributes:
        value: of the quantity; proposals are counted after NMS.
        times: seconds by part, by the time that a busy machine changes least; "total" is the whole.
    """

    value: float
    times: dict[str, Summary]


@dataclass(frozen=True)
class Curve:
    """Time over one quantity.

    Attributes:
        name: of its axis.
        axis: what was varied.
        network: its name.
        variant: how it was computed.
        clock: what the times are.
        points: by rising value.
    """

    name: str
    axis: Axis
    network: str
    variant: Variant
    clock: str
    points: list[Point]

    def exponent(self, part: str = WHOLE) -> float:
        """Of the power law through all points, by least squares on logarithms."""
        pairs = self._logarithms(part)
        mean_x, mean_y = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
        spread = sum((x - mean_x) ** 2 for x, _ in pairs)
        return sum((x - mean_x) * (y - mean_y) for x, y in pairs) / spread if spread else 0.0

    def last_exponent(self, part: str = WHOLE) -> float:
        """Of the power law through the last two points, where fixed costs count least."""
        (x1, y1), (x2, y2) = self._logarithms(part)[-2:]
        return (y2 - y1) / (x2 - x1) if x2 > x1 else 0.0

    def too_steep(self) -> list[str]:
        """Where a part of some weight grows faster than it should, even from its third quartile to its first."""
        found = []
        for part in self.points[-1].times:
            for left, right in pairwise(self.points):
                before, after = left.times[part], right.times[part]
                growth = math.log(max(after.low, 1e-9) / max(before.high, 1e-9)) / math.log(right.value / left.value)
                heavy = after.median > _MATTERS * right.times[WHOLE].median
                if heavy and growth > self.axis.exponent + _TOLERANCE:
                    found.append(f"{part} from {left.value:g} to {right.value:g} (exponent {growth:.2f})")
        return found

    def _logarithms(self, part: str) -> list[tuple[float, float]]:
        return [(math.log(point.value), math.log(max(point.times[part].median, 1e-9))) for point in self.points]

    def json(self) -> dict[str, Any]:
        """For scaling.json."""
        return {
            "axis": self.name,
            "label": self.axis.label,
            "network": self.network,
            "seconds_are": self.clock,
            **self.variant.__dict__,
            "expected_exponent": self.axis.exponent,
            "exponents": {
                part: {"all_points": self.exponent(part), "last_two": self.last_exponent(part)}
                for part in self.points[-1].times
            },
            "too_steep": self.too_steep(),
            "points": [
                {"value": point.value, "seconds": {part: time.json() for part, time in point.times.items()}}
                for point in self.points
            ],
        }


def measure_curve(
    work: Work, name: str, precision: str, rounds: int, device: torch.device, values: Sequence[int] = ()
) -> Curve:
    """Times the fast way at each value, all values in turns.

    Args:
        work: which the values change.
        name: of the axis.
        precision: fp32, bf16 or fp16.
        rounds: timed runs at each value.
        device: where to compute.
        values: other than the axis's own.
    """
    axis = AXES[name]
    variant = Variant(axis.mode, "fast", precision)
    runs, reached = {}, {}
    for value in values or axis.values:
        _log.info("%s: preparing %s = %d", variant.name, name, value)
        changed = axis.change(work, value)
        model = make_model(changed, device)
        reached[str(value)] = proposals_of(changed, model, device) if name == "proposals" else value
        runs[str(value)] = make_run(model, changed, variant, device)
        del model
    _log.info("%s: %d rounds over %s", variant.name, rounds, name)
    readings = alternate(runs, rounds, device)
    network = f"ResNet-{work.config.model.backbone.depth} C4"
    return Curve(
        name,
        axis,
        network,
        variant,
        seconds_name(device),
        [Point(reached[key], _times(readings[key], device)) for key in runs],
    )


def _times(readings: Sequence[Reading], device: torch.device) -> dict[str, Summary]:
    whole = Summary.of([seconds(reading.whole, device) for reading in readings])
    parts = dict.fromkeys(label for reading in readings for label in reading.parts)
    return {
        WHOLE: whole,
        **{part: Summary.of([seconds(reading.parts[part], device) for reading in readings]) for part in parts},
    }


def format_curve(curve: Curve) -> str:
    """The times at each value, and how they grow."""
    parts = list(curve.points[-1].times)
    lines = [
        f"{curve.variant.name}: {curve.clock} in milliseconds over {curve.axis.label}; "
        f"no part should grow faster than with exponent {curve.axis.exponent:g}"
    ]
    values = "".join(f"{point.value:>10g}" for point in curve.points)
    lines.append(f"{'':16}{values}{'exponent':>11}{'at the end':>12}")
    for part in parts:
        times = "".join(f"{1e3 * point.times[part].median:>10.1f}" for point in curve.points)
        lines.append(f"  {part:14}{times}{curve.exponent(part):>11.2f}{curve.last_exponent(part):>12.2f}")
    steep = curve.too_steep()
    lines += [f"too steep: {place}" for place in steep] or ["nothing is too steep"]
    return "\n".join(lines)


def draw_curve(curve: Curve, path: Path) -> None:
    """Writes the curve as an image.

    Raises:
        MachineError: it cannot be written.
    """
    parts = {part: [point.times[part] for point in curve.points] for part in curve.points[-1].times}
    lines = {
        part: Line(
            [time.median for time in times],
            [time.low for time in times],
            [time.high for time in times],
            curve.last_exponent(part),
        )
        for part, times in parts.items()
    }
    title = f"{curve.network}, {curve.variant.mode}, {curve.variant.precision}: {curve.name}"
    chart = Chart(title, curve.axis.label, f"{curve.clock} (ms)", curve.axis.exponent)
    plot_scaling(path, chart, [point.value for point in curve.points], lines)
