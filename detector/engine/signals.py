"""Stopping on request: the first signal asks, the second one does not wait."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any

from typing_extensions import Self


class StopRequest:
    """While active, Ctrl-C and SIGTERM set ``signal_number`` instead of ending the process.

    A second signal ends it at once, without saving.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
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
        if self.signal_number:
            print(f"\nerror: a second signal ({name}): left at once, without saving", file=sys.stderr, flush=True)
            os._exit(128 + number)
        self.signal_number = number
        print(f"\n{name}: finishing the iteration, then saving; once more leaves at once", file=sys.stderr, flush=True)
