"""Data whose reading fails in bad ways, and what remains of the workers.

Run as a program it loads under a limit of open files, or with little shared memory, and prints what came of it as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.data import get_worker_info

from detector.cli import evaluate, train
from detector.data.build import wide_images
from detector.data.loader import EvaluationBatches, TrainingBatches, iterate
from detector.data.sampler import TrainingOrder
from detector.data.shapes import ShapesDataset
from detector.data.transforms import TrainTransform
from detector.errors import DetectorError
from detector.models import resnet
from detector.structures import Sample, Size
from tests.reliability.runs import NARROW
from tests.tiny import evaluation_batches, tiny_config, write_tiny

SHAPES = ShapesDataset(40, 0, Size(64, 80), hard=False)
LARGE = "data.resize={train_short_side: [500], test_short_side: 500, max_long_side: 800}"


class Failing:
    """Shapes of which one ends the worker that reads it, or raises an error.

    Args:
        index: of the image.
        fault: "kill", "segfault", "exit", "hang", or an error to raise.
    """

    def __init__(self, index: int, fault: str | Exception) -> None:
        self.index, self.fault = index, fault
        self.annotations = SHAPES.annotations
        self.info = SHAPES.info

    def __len__(self) -> int:
        return len(SHAPES)

    def __getitem__(self, index: int) -> Sample:
        if index == self.index:
            fail(self.fault)
        return SHAPES[index]


def fail(fault: str | Exception) -> None:
    if isinstance(fault, Exception):
        raise fault
    assert get_worker_info() is not None
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif fault == "exit":
        os._exit(1)
    time.sleep(1000)


def evaluation_of(data: Any, *overrides: str) -> EvaluationBatches:
    return evaluation_batches(data, range(len(data)), tiny_config(*overrides))


def training_on(data: Any, *overrides: str) -> TrainingBatches:
    config = tiny_config(*overrides)
    size = config.training.batch_size
    order = TrainingOrder(wide_images(data), size, config.seed)
    return TrainingBatches(data, order, TrainTransform(config.data, config.seed), 0, 1, size)


def left_over() -> list[str]:
    """Processes and shared memory of this process that ought to be gone."""
    running = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [str(child) for child in running] + [path.name for path in Path("/dev/shm").glob(f"torch_{os.getpid()}_*")]


def load(limit_s: int = 60) -> dict[str, Any]:
    """Tries to load large batches by two workers, and keeps them all."""
    batches = training_on(SHAPES, LARGE, "training.batch_size=8")
    started, kind, message, code = time.monotonic(), "", "", 0
    kept = []
    try:
        kept += iterate(batches, range(8), 2, torch.device("cpu"), limit_s)
    except DetectorError as error:
        kind, message, code = type(error).__name__, str(error), error.exit_code
    return {
        "kind": kind, "message": message, "code": code, "seconds": time.monotonic() - started, "left": left_over(),
    }  # fmt: skip


def command(main: Any, *arguments: object) -> dict[str, Any]:
    out, errors = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        code = main([str(item) for item in arguments])
    return {"code": code, "errors": errors.getvalue().splitlines(), "left": left_over()}


def with_few_files(limit: int) -> dict[str, Any]:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return {"load": load(limit_s=15)}


def with_little_shared_memory() -> dict[str, Any]:
    """Loads, trains and evaluates; other processes' mounts are left alone."""
    resnet._WIDTHS = NARROW  # type: ignore[attr-defined]
    large = [LARGE, "data.workers=2", "data.worker_timeout=10", "device=cpu"]
    options = [*large, "training.batch_size=4", "training.iterations=2", "training.evaluate_every=0"]
    run = Path("run").absolute()
    return {
        "load": load(limit_s=15),
        "train": command(train.main, write_tiny(Path.cwd()), *options, "--output", run),
        "evaluate": command(evaluate.main, run / "model_final.safetensors", *large, "evaluation.batch_size=5"),
    }


def main() -> None:
    """Prints what came of it."""
    torch.set_num_threads(1)
    what = sys.argv[1]
    print(json.dumps(with_little_shared_memory() if what == "shared memory" else with_few_files(int(what))))


if __name__ == "__main__":
    main()
