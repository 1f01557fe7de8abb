"""The machine: what it is, and how fast it multiplies matrices at best."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from detector.engine.benchmark.stopwatch import Cost, now
from detector.engine.benchmark.timing import Run
from detector.engine.device import DTYPES

_ROUNDS = 8


@dataclass(frozen=True)
class Peak:
    """The most that the machine reaches in a precision.

    Attributes:
        kernel: what reached it.
        wall: floating-point operations a second on the wall.
        cpu: the same by CPU time, spread over the threads.
    """

    kernel: str
    wall: float
    cpu: float

    def on(self, device: torch.device) -> float:
        """By the time that ``seconds`` takes there."""
        return self.cpu if device.type == "cpu" else self.wall


def seconds(cost: Cost, device: torch.device) -> float:
    """The time that a busy machine changes least: CPU time spread over the threads; with a GPU that on the wall."""
    return cost.cpu / torch.get_num_threads() if device.type == "cpu" else cost.wall


def seconds_name(device: torch.device) -> str:
    """What ``seconds`` takes."""
    return "CPU time of a run / threads" if device.type == "cpu" else "time of a run"


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cpu": _cpu_name(),
        "place": device.type,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
    }


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure_peak(precision: str, device: torch.device, rounds: int = _ROUNDS) -> Peak:
    """The best run of the fastest of a matrix product, a 1x1 and a 3x3 convolution.

    On CPUs the convolutions win: oneDNN keeps their weights in a layout of its own.

    Args:
        precision: fp32, bf16 or fp16.
        device: where to compute.
        rounds: of each.
    """
    peaks = []
    for name, operations, run in _kernels(DTYPES[precision], device):
        run()
        costs = []
        for _ in range(rounds):
            start = now(device)
            run()
            costs.append(now(device).minus(start))
        wall, cpu = min(cost.wall for cost in costs), min(cost.cpu for cost in costs)
        peaks.append(Peak(name, operations / wall, operations / max(cpu / torch.get_num_threads(), 1e-9)))
    return max(peaks, key=lambda peak: peak.on(device))


def _kernels(dtype: torch.dtype, device: torch.device) -> Iterator[tuple[str, int, Run]]:
    """Name, floating-point operations (two for a multiplication and addition) and the run itself."""
    scale = 1 if device.type == "cpu" else 4
    side = 2048 * scale
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    yield f"matrix product, {side}^3", 2 * side**3, partial(torch.matmul, left, right)
    for kernel, channels in ((1, 1024), (3, 512)):
        shapes = (scale, channels, 56, 64), (channels, channels, kernel, kernel)
        image, weight = (
            torch.rand(shape, device=device).to(dtype, memory_format=torch.channels_last) for shape in shapes
        )
        operations = 2 * scale * 56 * 64 * channels**2 * kernel**2
        name = f"{kernel}x{kernel} convolution, {channels} channels"
        yield name, operations, partial(F.conv2d, image, weight, padding=kernel // 2)
