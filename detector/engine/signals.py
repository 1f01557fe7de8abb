"""Stopping on request: the first signal asks, the second one does not wait."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any

from typing_extensions import Self

# Schedulers warn by SIGUSR1 or SIGTERM.
_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")
# A terminal's Ctrl-C reaches a process directly and once more through torchrun.
_ECHO_S = 1.0


class StopRequest:
    """While active, Ctrl-C, SIGTERM and SIGUSR1 set ``signal_number`` instead of ending the process.

    A second signal, a second or more later, ends it at once, without saving.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for name in _SIGNALS:
            if number := getattr(signal, name, None):  # Windows lacks some
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal_number != 0

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not self.signal_number:
            self.signal_number, self._since = number, time.monotonic()
            print(f"\n{name}: finishing the iteration, then saving; once more leaves at once", file=sys.stderr)
        elif time.monotonic() - self._since >= _ECHO_S:
            print(f"\nerror: a second signal ({name}): left at once, without saving", file=sys.stderr, flush=True)
            os._exit(exit_code_of(number))


def exit_code_of(number: int) -> int:
    """130 after Ctrl-C, 143 after any other signal."""
    return 130 if number == signal.SIGINT else 143
