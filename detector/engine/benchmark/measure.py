"""All variants of a piece of work, measured side by side."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from detector.engine.benchmark.flops import count_flops
from detector.engine.benchmark.machine import Peak, seconds
from detector.engine.benchmark.memory import Memory, measure_memory
from detector.engine.benchmark.timing import Reading, Summary, alternate
from detector.engine.benchmark.variants import Variant, make_run, reading_run
from detector.engine.benchmark.workload import Work, make_images, make_model, proposals_made
from detector.models.faster_rcnn import FasterRCNN

_log = logging.getLogger(__name__)

WHOLE = "total"
# In the order of their work; what else is labelled follows.
_ORDER = ("backbone", "rpn", "proposals", "pooling", "head", "post-processing", "backward", "optimiser")


@dataclass(frozen=True)
class Row:
    """One part of a variant, or the whole.

    Attributes:
        wall: seconds a run.
        cpu: CPU seconds a run, all threads together.
        seconds: of the two the one that a busy machine changes least, CPU time spread over the threads; the median.
        flops: floating-point operations a run.
        rate: of them a second, by ``seconds``.
        share_of_peak: the same as part of the machine's peak.
    """

    wall: Summary
    cpu: Summary
    seconds: float
    flops: int
    rate: float
    share_of_peak: float


@dataclass(frozen=True)
class Result:
    """What was measured of a variant.

    Attributes:
        variant: which.
        rows: by part; "total" is the whole.
        memory: the most that it needs.
        readings: of all rounds.
    """

    variant: Variant
    rows: dict[str, Row]
    memory: Memory
    readings: list[Reading]


@dataclass(frozen=True)
class Ratio:
    """How many times as long one variant takes as another, by round.

    Attributes:
        slower: the numerator.
        faster: the denominator.
        wall: by the clock on the wall.
        cpu: by CPU time.
    """

    slower: Variant
    faster: Variant
    wall: Summary
    cpu: Summary


@dataclass(frozen=True)
class Comparison:
    """All results of a piece of work.

    Attributes:
        proposals: an image, left after NMS; in training those sampled.
        results: by variant.
        ratios: of each other way to the fast one in the same precision, and of the first precision to the others.
        reading: seconds to decode and to resize an image.
    """

    proposals: float
    results: list[Result]
    ratios: list[Ratio]
    reading: dict[str, tuple[Summary, Summary]]


def measure(
    work: Work, variants: Sequence[Variant], peaks: dict[str, Peak], rounds: int, device: torch.device
) -> Comparison:
    """Runs all variants of one mode in turns.

    Args:
        work: what is computed.
        variants: how; the first is a fast one.
        peaks: by precision.
        rounds: timed runs of each.
        device: where to compute.
    """
    model = make_model(work, device)
    training = variants[0].mode == "training"
    proposals = work.config.model.roi_head.regions_per_image if training else proposals_of(work, model, device)
    runs = {variant: make_run(model, work, variant, device) for variant in variants}
    _log.info("%s: %d rounds of %d ways", variants[0].mode, rounds, len(variants))
    with reading_run(work) as read:
        readings = alternate({**{v.name: run for v, run in runs.items()}, "reading": read}, rounds, device)
    results = []
    for variant, run in runs.items():
        _log.info("%s: work and memory", variant.name)
        flops, memory = count_flops(run), measure_memory(work, variant, device, run)
        own = readings[variant.name]
        results.append(Result(variant, _rows(own, flops, peaks[variant.precision], device), memory, own))
    reading = {part: _summaries(readings["reading"], part) for part in ("decode", "resize")}
    return Comparison(proposals, results, _ratios(results), reading)


def proposals_of(work: Work, model: FasterRCNN, device: torch.device) -> float:
    """Proposals an image after NMS; a warning if they are fewer than wanted."""
    wanted, made = work.config.evaluation.proposals, proposals_made(model, make_images(work).to(device))
    if made < wanted:
        _log.warning("only %g of %d proposals are left after NMS on this image", made, wanted)
    return made


def _rows(readings: Sequence[Reading], flops: dict[str, int], peak: Peak, device: torch.device) -> dict[str, Row]:
    labels = dict.fromkeys(label for reading in readings for label in reading.parts)
    ordered = [name for name in _ORDER if name in labels]
    ordered += [name for name in labels if name not in _ORDER and name != "rest"]
    return {name: _row(readings, name, flops.get(name, 0), peak, device) for name in (*ordered, "rest", WHOLE)}


def _row(readings: Sequence[Reading], name: str, flops: int, peak: Peak, device: torch.device) -> Row:
    wall, cpu = _summaries(readings, name)
    costs = [_cost(reading, name) for reading in readings]
    taken = Summary.of([seconds(cost, device) for cost in costs]).median
    rate = flops / taken if taken > 0 else 0.0
    return Row(wall, cpu, taken, flops, rate, rate / peak.on(device))


def _cost(reading: Reading, name: str) -> Any:
    return reading.whole if name == WHOLE else reading.parts[name]


def _summaries(readings: Sequence[Reading], name: str) -> tuple[Summary, Summary]:
    costs = [_cost(reading, name) for reading in readings]
    return Summary.of([cost.wall for cost in costs]), Summary.of([cost.cpu for cost in costs])


def _ratios(results: Sequence[Result]) -> list[Ratio]:
    pairs = []
    for result in results:
        variant = result.variant
        if variant.way == "fast":
            fast = result
            if result is not results[0]:
                pairs.append((results[0], result))
        else:
            pairs.append((result, fast))
    return [_ratio(slower, faster) for slower, faster in pairs]


def _ratio(slower: Result, faster: Result) -> Ratio:
    rounds = list(zip(slower.readings, faster.readings, strict=True))
    return Ratio(
        slower.variant,
        faster.variant,
        Summary.of([one.whole.wall / other.whole.wall for one, other in rounds]),
        Summary.of([one.whole.cpu / max(other.whole.cpu, 1e-9) for one, other in rounds]),
    )
