"""Checkpoints written in the background: training waits only for a copy in memory."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from detector.durable import sync_file
from detector.engine.checkpoint import TrainingState, prune, save_checkpoint
from detector.errors import MachineError

_log = logging.getLogger(__name__)

_TRIES = 3


class CheckpointWriter:
    """Saves a run's states, one at a time, and removes old ones.

    Args:
        folder: the run's ``checkpoints``.
        keep: how many of the newest stay.
        keep_every: those of multiples of this iteration stay, too; 0 for none.
        log: a file whose lines must be on the disk before a checkpoint that counts on them.
    """

    def __init__(self, folder: Path, keep: int, keep_every: int, log: Path) -> None:
        self.folder, self.keep, self.keep_every, self.log = folder, keep, keep_every, log
        self.last = -1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._failures = 0
        self._last_try = False

    def save(self, state: TrainingState, best: int | None) -> None:
        """Copies the state and returns; it reaches the disk meanwhile. A state that is saved is not saved again.

        Args:
            state: may change as soon as this returns.
            best: the iteration whose checkpoint shall stay.

        Raises:
            MachineError: this has failed three times in a row.
            TrainingError: weights of the state before were not finite.
        """
        if state.iteration == self.last:
            return
        started = time.monotonic()
        self.poll(wait=True)
        copied = TrainingState(**{name: _copy(value) for name, value in vars(state).items()})
        self.last = state.iteration
        self._pending = self._thread.submit(self._write, copied, best, time.monotonic() - started)

    def poll(self, wait: bool = False) -> None:
        """Learns how the last save went.

        A failed one is told, and training goes on with the checkpoints before it, unless it was the third in a row.

        Args:
            wait: until it is done; else one that is still being written is left alone.

        Raises:
            MachineError: as ``save``.
            TrainingError: as ``save``.
        """
        if self._pending is None or not (wait or self._pending.done()):
            return
        pending, self._pending = self._pending, None
        try:
            pending.result()
            self._failures = 0
        except MachineError as error:
            self.last = -1
            self._failures += 1
            if self._last_try:
                raise MachineError(f"{error}; make room, then start again") from None
            if self._failures == _TRIES:
                raise MachineError(f"{error}; {_TRIES} tries failed; make room, then start again") from None
            _log.warning("%s; training goes on and tries again; make room", error)

    def finish(self, state: TrainingState, best: int | None) -> None:
        """Saves the last state of this process and waits for it.

        Raises:
            MachineError: it cannot be written.
            TrainingError: its weights are not finite.
        """
        self.save(state, best)
        self._last_try = True
        self.poll(wait=True)

    def close(self) -> None:
        """Waits for what is being written, whatever becomes of it."""
        self._thread.shutdown(wait=True)

    def _write(self, state: TrainingState, best: int | None, paused: float) -> None:
        started = time.monotonic()
        try:
            with suppress(FileNotFoundError):
                sync_file(self.log)
        except OSError as error:
            raise MachineError(f"{self.log}: cannot be flushed to the disk ({error.strerror})") from None
        path = save_checkpoint(self.folder, state)
        prune(self.folder, self.keep, self.keep_every, best)
        _log.debug("%s: written in %.2f s; training paused %.2f s", path, time.monotonic() - started, paused)


def _copy(value: Any) -> Any:
    """The same tree with every tensor copied to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(item) for item in value)
    return value
