"""The most memory that a run needs: on a GPU as torch counts it, else that of a process of its own.

A process never gives all memory back, so the second of two runs in one would be said to need none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from detector.engine.benchmark.timing import Run
from detector.engine.benchmark.variants import Variant, make_run
from detector.engine.benchmark.workload import Work, make_model
from detector.errors import MachineError, quote

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_RUNS = 2
# Linux then counts the most memory in use from here on; elsewhere building the network counts, too.
_FORGET_THE_PAST = "5"


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        before: in use with the network built and the images made.
        peak: the most in use during the runs, ``before`` included.
    """

    before: int
    peak: int


def measure_memory(work: Work, variant: Variant, device: torch.device, run: Run) -> Memory:
    """What two runs need at most.

    Args:
        work: what is computed.
        variant: how.
        device: where.
        run: the variant made ready, for a GPU.

    Raises:
        MachineError: the process ended without an answer.
    """
    if device.type == "cuda":
        return _on_gpu(run, device)
    job = {"work": work.json(), "variant": variant.__dict__, "threads": torch.get_num_threads(), "device": str(device)}
    child = subprocess.run(
        [sys.executable, "-m", "detector.engine.benchmark.memory"], input=json.dumps(job), text=True,
        capture_output=True, check=False, env={**os.environ, "PYTHONPATH": _same_package()},
    )  # fmt: skip
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or [f"it ended with {child.returncode}"])[-1]
        raise MachineError(f"the memory of {variant.name} could not be measured: {quote(reason, 200)}")
    return Memory(**json.loads(child.stdout.splitlines()[-1]))


def _same_package() -> str:
    """Where Python finds this very package, installed or not."""
    home = str(Path(__file__).resolve().parents[3])
    return os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))


def _on_gpu(run: Run, device: torch.device) -> Memory:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(_RUNS):
        run()
    torch.cuda.synchronize(device)
    return Memory(before, torch.cuda.max_memory_allocated(device))


def _peak() -> int:
    """The high-water mark of this process."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if resource is None:
        return int(psutil.Process().memory_info().peak_wset)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _answer(job: dict[str, Any]) -> Memory:
    """What the process of its own does."""
    torch.set_num_threads(job["threads"])
    work, variant, device = Work.parse(job["work"]), Variant(**job["variant"]), torch.device(job["device"])
    run = make_run(make_model(work, device), work, variant, device)
    before = psutil.Process().memory_info().rss
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_FORGET_THE_PAST, encoding="utf-8")
    for _ in range(_RUNS):
        run()
    return Memory(before, _peak())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_answer(json.load(sys.stdin)).__dict__) + "\n")
