"""Worker processes: how they start, and what it means when one is lost, hangs, or cannot hand over a batch."""

from __future__ import annotations

import copy
import errno
import multiprocessing
import multiprocessing.connection
import multiprocessing.queues
import os
import signal
import threading
from dataclasses import dataclass
from types import FrameType
from typing import Any

import cv2
import torch

from detector.errors import DetectorError, MachineError, WorkerError


class Watch:
    """While it is entered, torch may tell of a lost worker.

    torch does so by raising from a signal handler, wherever the main thread is just then: amid an update of the
    weights, say. At any other time the loss waits until the next batch is asked for.
    """

    def __init__(self) -> None:
        self.entered = False
        self._torchs: Any = None

    def __enter__(self) -> None:
        self.entered = True

    def __exit__(self, *error: object) -> None:
        self.entered = False
        self._take_over()

    def _take_over(self) -> None:
        if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGCHLD)
        if callable(handler) and handler != self._handle:
            self._torchs = handler
            signal.signal(signal.SIGCHLD, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.entered:
            self._torchs(number, frame)


watch = Watch()


def look_for_lost(iterator: Any) -> None:
    """Notices a worker that died while nobody looked.

    Raises:
        RuntimeError: as torch's own, with the cause.
    """
    if cause := cause_of_death(iterator, wait=0.0):
        raise RuntimeError(cause)


def cause_of_death(iterator: Any, wait: float = 1.0) -> str:
    """What a worker died of; empty if none did."""
    workers = getattr(iterator, "_workers", [])
    for ended in multiprocessing.connection.wait([worker.sentinel for worker in workers], wait):
        next(worker for worker in workers if worker.sentinel == ended).join(1.0)
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    if not codes:
        return ""
    return f"signal {signal.Signals(-codes[0]).name}" if codes[0] < 0 else f"exit code {codes[0]}"


@dataclass(frozen=True)
class Unsent:
    """Stands for a batch that a worker could not hand over."""

    reason: RuntimeError


class _Queue(multiprocessing.queues.Queue):  # type: ignore[type-arg]
    """Hands over, in place of what cannot be handed over, the reason; else nobody would learn of it."""

    def _on_queue_feeder_error(self, error: Exception, item: tuple[int, object]) -> None:
        if not isinstance(error, OSError | RuntimeError):
            raise error  # a bug
        self.put((item[0], Unsent(RuntimeError(str(error)))))


def worker_context() -> Any:
    """Starts workers as usual, but gives them a queue that tells what goes wrong."""
    context = copy.copy(multiprocessing.get_context())
    context.Queue = lambda maxsize=0: _Queue(maxsize, ctx=context)  # type: ignore[method-assign]
    return context


def explain_loss(error: Exception, files: str, workers: int, timeout: int, cause: str = "") -> DetectorError:
    """What a failure of the loader means, and what to change.

    Args:
        error: of the loader.
        files: that were being prepared.
        workers: how many there are.
        timeout: seconds after which one counts as hung.
        cause: of death, if one died.
    """
    text = cause or (str(error) or type(error).__name__).splitlines()[0]
    if "timed out" in text:
        return WorkerError(
            f"a loader worker gave nothing for {timeout} s while preparing {files}; is the disk or the network that "
            "holds the images slow? raise data.worker_timeout, or start again: the run resumes"
        )
    if "Too many open files" in text or "ancdata" in text or getattr(error, "errno", None) == errno.EMFILE:
        return MachineError(
            f"too many open files with {workers} loader workers; raise the limit (ulimit -n 65536) or "
            "lower data.workers"
        )
    if "shm" in text or "No space left on device" in text or "SIGBUS" in text:
        return MachineError(
            f"shared memory (/dev/shm) is too small for {workers} loader workers ({text}); "
            "lower data.workers (0 needs none), or give more: docker run --shm-size=1g"
        )
    killed = (
        "it was killed, perhaps for lack of memory: lower data.workers" if "SIGKILL" in text else "lower data.workers"
    )
    return WorkerError(
        f"a loader worker was lost while preparing {files} ({text}); {killed}, then start again: the run resumes"
    )


def prepare_worker(_: int) -> None:
    """Run by each worker at its start."""
    # The main process decides about stopping. torchrun signals whole process groups, so a worker leaves its own.
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # One thread a worker, since there is a worker a core.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
