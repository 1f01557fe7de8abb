"""Starts trainings at once, each in a process group of its own, and stops them at a given moment.

Python and torch take seconds to start. This program does that once and forks for each training. It reads requests from
stdin and answers on stdout, one line of JSON each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import albumentations
import cv2
import matplotlib.figure
import matplotlib.projections
import torch
from torch.utils import tensorboard

from detector.cli import train
from detector.data import transforms
from detector.engine import evaluation, optim, rate_test, resume, setup, summary, trainer
from detector.models import resnet
from detector.visualization import plots
from tests.reliability.runs import NARROW

# What a training imports when it needs it is here before the forks.
_IMPORTED_LATE = (
    albumentations, matplotlib.figure, matplotlib.projections, tensorboard, transforms, evaluation, optim, rate_test,
    resume, setup, summary, trainer, plots,
)  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    assert hasattr(resnet, "_WIDTHS")
    resnet._WIDTHS = NARROW
    for line in sys.stdin:
        print(json.dumps(_attempt(**json.loads(line))), flush=True)


def _attempt(arguments: list[str], console: str, stop: dict[str, Any] | None) -> dict[str, float]:
    """One training, ended by a signal to its group unless it ends before.

    Args:
        arguments: of the command.
        console: file for what it says.
        stop: "number" of the signal; "moment", seconds after the start, from which it may come; "folder" of checkpoints
            and "delay": wait for the next save there, and so long after its start. None lets it run.
    """
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "threads would not live in the child"
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _train(arguments, console)
    _set_group(child)
    code = _wait(child, lambda: stop is not None and time.monotonic() >= started + stop["moment"])
    if code is None and stop is not None:
        if stop["folder"]:
            code = _wait(child, lambda: any(Path(stop["folder"]).glob(".tmp-step-*")))
            time.sleep(stop["delay"])
        if code is None:
            os.killpg(child, stop["number"])
            code = _wait(child, lambda: False)
    assert code is not None
    return {"code": code, "seconds": time.monotonic() - started}


def _train(arguments: list[str], console: str) -> NoReturn:
    code = 1
    try:
        _set_group(0)
        descriptor = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = train.main(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:  # just before or after the command, which handles it itself
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # Python would take a second to tidy up


def _set_group(process: int) -> None:
    """Called in both processes, since either may be the first."""
    if process == 0 or os.getpgid(process) != process:
        os.setpgid(process, 0)


def _wait(child: int, until: Callable[[], bool]) -> int | None:
    """The exit code, or minus the signal that ended it; None if ``until`` comes first."""
    while not until():
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    return None


if __name__ == "__main__":
    main()
