"""Runs that take turns, and what their times come to.

Whatever else the machine does meanwhile meets all of them alike. Two runs are compared within each round, and the
median of these ratios is what counts; CPU time stands beside the time on the wall, since waiting costs none.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from detector.engine.benchmark.stopwatch import Cost, Parts, labels_read, now

Run = Callable[[], Any]


@dataclass(frozen=True)
class Summary:
    """Of several numbers the median, the quartiles around it, and the extremes."""

    median: float
    low: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Of one number or more."""
        if len(values) == 1:
            return cls(*[values[0]] * 5)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, min(values), max(values))

    def json(self) -> dict[str, float]:
        """For a file."""
        return {
            "median": self.median,
            "quartiles": [self.low, self.high],  # type: ignore[dict-item]
            "extremes": [self.least, self.most],  # type: ignore[dict-item]
        }


@dataclass(frozen=True)
class Reading:
    """One run.

    Attributes:
        whole: all of it.
        parts: by label, each without those inside it; "rest" is what no label covers.
    """

    whole: Cost
    parts: Parts


def alternate(runs: Mapping[str, Run], rounds: int, device: torch.device) -> dict[str, list[Reading]]:
    """Times each of the runs once a round; who begins changes from round to round.

    Args:
        runs: by name.
        rounds: how many; one more, before them, is not counted.
        device: where they compute.
    """
    readings: dict[str, list[Reading]] = {name: [] for name in runs}
    names = list(runs)
    for run in runs.values():
        run()
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            readings[name].append(_read(runs[name], device))
    return readings


def _read(run: Run, device: torch.device) -> Reading:
    clock = partial(now, device)
    start = clock()
    with labels_read(clock) as parts:
        run()
        end = clock()
    whole = end.minus(start)
    if device.type != "cpu":  # the labels have made it wait
        start = clock()
        run()
        whole_at_ease = clock().minus(start)
        return Reading(whole_at_ease, _with_rest(parts, whole))
    return Reading(whole, _with_rest(parts, whole))


def _with_rest(parts: Parts, whole: Cost) -> Parts:
    rest = whole
    for cost in parts.values():
        rest = rest.minus(cost)
    return {**parts, "rest": rest}
