"""One process at a time writes into a run's folder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from detector.errors import MachineError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

# A killed process holds its lock until the system has freed its memory.
_PATIENCE_S = 3.0


class RunLock:
    """Holds a run's folder, from construction until ``release`` or the end of the process, however it ends.

    POSIX record locks, since workers forked by this process do not inherit them: a worker that outlives it for a moment
    keeps nobody out.

    Args:
        folder: the run's; it gets a file ``.lock`` that says who holds it.

    Raises:
        MachineError: another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        deadline = time.monotonic() + _PATIENCE_S
        while not self._taken():
            if time.monotonic() > deadline:
                holder = self._holder()
                os.close(self._descriptor)
                raise MachineError(
                    f"{folder}: another process is training in this folder ({holder}); "
                    "wait for it, stop it, or choose another --output"
                )
            time.sleep(0.1)
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(facts).encode(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def _taken(self) -> bool:
        if fcntl is None:
            return True
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _holder(self) -> str:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            facts = json.loads(os.pread(self._descriptor, 1000, 0))
            return f"process {int(facts['pid'])} on {facts['host']!a}, since {facts['since']!a}"
        return "it has not said which"
