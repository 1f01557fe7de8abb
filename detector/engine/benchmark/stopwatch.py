"""What each labelled part of a run takes of its own.

The network labels its parts by ``torch.profiler.record_function``, and torch its optimisers' steps. A profile of these
labels knows no CPU time, and that is what counts on a busy machine; so the labels read a clock of ours instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import record_function

Parts = dict[str, "Cost"]


class Cost(NamedTuple):
    """Seconds of a run.

    Attributes:
        wall: by the clock on the wall.
        cpu: of all threads of the process together.
    """

    wall: float
    cpu: float

    def minus(self, other: Cost) -> Cost:
        """What lies between two readings, or in a part without another."""
        return Cost(self.wall - other.wall, self.cpu - other.cpu)

    def plus(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(self.wall + other.wall, self.cpu + other.cpu)


NOTHING = Cost(0.0, 0.0)


def now(device: torch.device) -> Cost:
    """The clocks, once a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return Cost(time.perf_counter(), time.process_time())


@contextmanager
def labels_read(clock: Callable[[], Cost]) -> Iterator[Parts]:
    """While it is entered, fills a table with what each label takes, without the labels inside it.

    Args:
        clock: read at both ends of a label.
    """
    parts: Parts = {}
    opened: list[tuple[Cost, Cost]] = []  # the reading at the start, and what labels inside have taken
    enter, leave = record_function.__enter__, record_function.__exit__

    def start(label: record_function) -> Any:
        opened.append((clock(), NOTHING))
        return enter(label)  # type: ignore[no-untyped-call]

    def stop(label: record_function, *error: Any) -> Any:
        result = leave(label, *error)
        begin, inside = opened.pop()
        whole = clock().minus(begin)
        name = _part(label.name)
        parts[name] = parts.get(name, NOTHING).plus(whole.minus(inside))
        if opened:
            opened[-1] = (opened[-1][0], opened[-1][1].plus(whole))
        return result

    backward = record_function("backward")(Tensor.backward)
    with (
        _replaced(record_function, "__enter__", start),
        _replaced(record_function, "__exit__", stop),
        _replaced(Tensor, "backward", backward),
    ):
        yield parts


def _part(label: str) -> str:
    """Torch labels an optimiser's work as Optimizer.step#SGD.step and Optimizer.zero_grad#SGD.zero_grad."""
    return "optimiser" if label.startswith("Optimizer.") else label


@contextmanager
def _replaced(owner: type, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
