"""What was measured, as tables for people and as values for a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detector.engine.benchmark.loading import Loading
from detector.engine.benchmark.machine import Peak
from detector.engine.benchmark.measure import WHOLE, Comparison, Ratio, Result, Row
from detector.engine.benchmark.timing import Summary
from detector.engine.benchmark.workload import Work

_MIB = 2**20
_HEAD = (
    f"{'':16}{'wall ms':>10}{'quartiles':>20}{'CPU ms/thread':>15}{'part':>7}{'GFLOP':>9}{'GFLOP/s':>9}{'of peak':>9}"
)


def format_machine(machine: dict[str, Any], peaks: dict[str, Peak]) -> str:
    """What the numbers depend on."""
    place = machine["cpu"] if machine["place"] == "cpu" else f"{machine['device']}, {machine['cpu']}"
    lines = [f"machine: {place}, {machine['threads']} threads, torch {machine['torch']}"]
    for name, peak in peaks.items():
        lines.append(f"peak {name}: {peak.on(torch.device(machine['place'])) / 1e9:.0f} GFLOP/s ({peak.kernel})")
    return "\n".join(lines)


def format_work(work: Work, proposals: float, mode: str) -> str:
    """What was computed."""
    backbone = work.config.model.backbone
    weights = work.weights or "random weights"
    regions = "regions sampled" if mode == "training" else "proposals"
    text = (
        f"{mode}: ResNet-{backbone.depth} C4 ({weights}), {work.batch} x {work.size.height}x{work.size.width}, "
        f"{proposals:g} {regions} an image, {work.num_classes} classes"
    )
    return text + (f", {work.objects} objects an image" if mode == "training" else "")


def format_comparison(work: Work, comparison: Comparison) -> str:
    """A table for each variant, and how they compare."""
    mode = comparison.results[0].variant.mode
    lines = [format_work(work, comparison.proposals, mode)]
    for name, (wall, cpu) in comparison.reading.items():
        lines.append(f"{name + ' an image':18}{_milliseconds(wall)} wall, {1e3 * cpu.median:.1f} ms CPU, one thread")
    for result in comparison.results:
        lines += ["", *_table(result, work.batch)]
    if comparison.ratios:
        lines += ["", f"{'time of one way / of another':42}{'by CPU time':>24}{'by wall':>24}"]
        lines += [_ratio(ratio) for ratio in comparison.ratios]
    return "\n".join(lines)


def _table(result: Result, batch: int) -> list[str]:
    variant, total = result.variant, result.rows[WHOLE]
    lines = [f"{variant.precision}, {variant.way}", _HEAD]
    lines += [_line(name, row, total) for name, row in result.rows.items()]
    memory = result.memory
    lines.append(
        f"{batch / total.wall.median:.3g} images/s; peak memory {memory.peak / _MIB:.0f} MiB, "
        f"{(memory.peak - memory.before) / _MIB:.0f} more than before the run"
    )
    return lines


def _line(name: str, row: Row, total: Row) -> str:
    threads = torch.get_num_threads()
    quartiles = f"{1e3 * row.wall.low:.1f} .. {1e3 * row.wall.high:.1f}"
    part = f"{row.seconds / max(total.seconds, 1e-9):.0%}"
    work = f"{row.flops / 1e9:>9.1f}{row.rate / 1e9:>9.0f}{row.share_of_peak:>9.0%}" if row.flops else f"{'-':>9}" * 3
    cpu = f"{1e3 * row.cpu.median / threads:.1f}"
    return f"  {name:14}{1e3 * row.wall.median:>10.1f}{quartiles:>20}{cpu:>15}{part:>7}{work}"


def _ratio(ratio: Ratio) -> str:
    slower, faster = (f"{each.precision} {each.way}" for each in (ratio.slower, ratio.faster))
    return f"  {slower + ' / ' + faster:40}{_span(ratio.cpu):>24}{_span(ratio.wall):>24}"


def _span(summary: Summary) -> str:
    return f"{summary.median:.2f} ({summary.low:.2f} .. {summary.high:.2f})"


def _milliseconds(summary: Summary) -> str:
    return f"{1e3 * summary.median:.1f} ms ({1e3 * summary.low:.1f} .. {1e3 * summary.high:.1f})"


def format_loading(loading: Sequence[Loading], step: Result, batch: int) -> str:
    """Images a second of the loader beside those that a training step takes."""
    wanted = batch / step.rows[WHOLE].wall.median
    lines = [f"data: the training step ({step.variant.precision}, {step.variant.way}) takes {wanted:.3g} images/s"]
    lines.append(f"{'':16}{'workers':>9}{'images/s':>12}{'quartiles':>22}{'of the step':>14}{'CPU ms/image':>14}")
    for each in loading:
        rate = each.images_per_second
        quartiles = f"{rate.low:.3g} .. {rate.high:.3g}"
        lines.append(
            f"{each.way:16}{each.workers:>9}{rate.median:>12.3g}{quartiles:>22}{rate.median / wanted:>13.3g}x"
            f"{1e3 * each.cpu_per_image:>14.1f}"
        )
    cpu = loading[0].cpu_per_image
    lines.append(
        f"  an image costs {1e3 * cpu:.1f} ms of CPU: feeding the step takes {wanted * cpu:.2g} cores beside its own"
    )
    return "\n".join(lines)


def comparison_json(work: Work, comparison: Comparison) -> dict[str, Any]:
    """For benchmark.json."""
    return {
        "mode": comparison.results[0].variant.mode,
        "image_size": list(work.size),
        "batch": work.batch,
        "proposals": comparison.proposals,
        "classes": work.num_classes,
        "objects": work.objects,
        "weights": work.weights,
        "reading": {
            name: {"wall_seconds": wall.json(), "cpu_seconds": cpu.json()}
            for name, (wall, cpu) in comparison.reading.items()
        },
        "results": [_result_json(result, work.batch) for result in comparison.results],
        "ratios": [_ratio_json(ratio) for ratio in comparison.ratios],
    }


def _result_json(result: Result, batch: int) -> dict[str, Any]:
    return {
        **result.variant.__dict__,
        "images_per_second": batch / result.rows[WHOLE].wall.median,
        "peak_memory_bytes": result.memory.peak,
        "memory_before_bytes": result.memory.before,
        "parts": {
            name: {
                "wall_seconds": row.wall.json(),
                "cpu_seconds": row.cpu.json(),
                "flops": row.flops,
                "flops_per_second": row.rate,
                "share_of_peak": row.share_of_peak,
            }
            for name, row in result.rows.items()
        },
    }


def _ratio_json(ratio: Ratio) -> dict[str, Any]:
    return {
        "of": [ratio.slower.precision, ratio.slower.way],
        "to": [ratio.faster.precision, ratio.faster.way],
        "wall": ratio.wall.json(),
        "cpu": ratio.cpu.json(),
    }


def loading_json(loading: Sequence[Loading]) -> list[dict[str, Any]]:
    """For benchmark.json."""
    return [
        {
            "way": each.way,
            "workers": each.workers,
            "images_per_second": each.images_per_second.json(),
            "cpu_seconds_per_image": each.cpu_per_image,
        }
        for each in loading
    ]


def machine_json(machine: dict[str, Any], peaks: dict[str, Peak]) -> dict[str, Any]:
    """For benchmark.json."""
    return {
        **machine,
        "peaks": {
            name: {"kernel": peak.kernel, "flops_per_second_wall": peak.wall, "flops_per_second_cpu": peak.cpu}
            for name, peak in peaks.items()
        },
    }
