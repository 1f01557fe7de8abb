"""Runs the cases of a target in a child process, and adds up what became of them.

A case that kills the child or hangs it where no alarm reaches is noted, and another child goes on after it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import logging
import os
import re
import resource
import select
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NoReturn

from detector.errors import DetectorError
from tests.fuzz.cases import Case, Reading, Target, faults_of_message, put

SECONDS = 5
_PATIENCE = 10  # for what no alarm can interrupt
_MEMORY = 2**30
_OWN_FAULT = 70
_KINDS = ("traceback", "bad accepted", "bad message", "good refused", "hang", "crash", "memory")


class _Hang(BaseException):
    """Raised by the alarm."""


@dataclass
class Summary:
    """What became of the files of a target.

    Attributes:
        target: its name.
        files: how many.
        accepted: by all readings.
        refused: by at least one reading, in proper lines.
        failures: (index, kind, what happened).
        slowest: seconds.
        slowest_index: of the file that took them.
        peak_mib: largest memory of the process; ``base_mib`` before the first file.
    """

    target: str
    files: int = 0
    accepted: int = 0
    refused: int = 0
    failures: list[tuple[int, str, str]] = field(default_factory=list)
    slowest: float = 0.0
    slowest_index: int = -1
    base_mib: int = 0
    peak_mib: int = 0
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """For people."""
        counts = Counter(kind for _, kind, _ in self.failures)
        lines = [
            f"{self.target}: {self.files} files, {self.accepted} accepted, {self.refused} refused, "
            + ", ".join(f"{counts[kind]} {kind}" for kind in _KINDS),
            f"{self.target}: {self.seconds:.1f} s, slowest {self.slowest:.2f} s (number {self.slowest_index}), "
            f"peak {self.peak_mib} MiB ({self.base_mib} MiB before the first file)",
        ]
        groups: dict[str, list[tuple[int, str]]] = {}
        for index, kind, what in self.failures:
            groups.setdefault(kind + ": " + re.sub(r"[\d.]+", "#", what.split(";")[0])[:90], []).append((index, what))
        for found in sorted(groups.values(), key=len, reverse=True):
            kind = next(kind for index, kind, _ in self.failures if index == found[0][0])
            lines.append(f"  {len(found)} x {kind}, such as number {found[0][0]}: {found[0][1]}")
        return lines


def make_case(target: Target, seed: int, index: int) -> Case:
    """The case of a seed and a number, always the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd things that are made on purpose
        return target.case(Random(f"{target.name}:{seed}:{index}"))


def run(target: Target, count: int, seed: int, first: int = 0) -> Summary:
    """Runs cases ``first`` to ``first + count``."""
    started, index, end = time.monotonic(), first, first + count
    summary = Summary(target.name)
    while index < end:
        for record in _child(target, seed, index, end):
            _add(summary, record)
            index = record["index"] + 1
    summary.seconds = time.monotonic() - started
    return summary


def keep(target: Target, seed: int, summary: Summary, folder: Path) -> None:
    """Writes the files of all that failed, each case in a folder of its own."""
    for index, kind, what in summary.failures:
        place = folder / f"{target.name}-{seed}-{index}-{kind.replace(' ', '-')}"
        case = make_case(target, seed, index)
        put(place, {name: content for name, content in case.files.items() if content is not None})
        facts = {"what": what, "notes": case.notes, "arguments": case.arguments, "record": case.record}
        (place / "case.json").write_text(json.dumps(facts, indent=1, default=str), encoding="utf-8")


def _add(summary: Summary, record: dict[str, Any]) -> None:
    summary.files += 1
    summary.peak_mib = max(summary.peak_mib, record.get("mib", 0))
    summary.base_mib = summary.base_mib or record.get("base", 0)
    if record.get("seconds", 0) > summary.slowest:
        summary.slowest, summary.slowest_index = record["seconds"], record["index"]
    for kind, what in record["failures"]:
        summary.failures.append((record["index"], kind, what))
    summary.accepted += record["outcome"] == "accepted"
    summary.refused += record["outcome"] == "refused"


def _child(target: Target, seed: int, first: int, end: int) -> Iterator[dict[str, Any]]:
    """The records of one child, until it is through or dead."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, of which none is at work
        process = os.fork()
    if process == 0:
        faulthandler.disable()  # a crash is counted, and needs no page of its own
        os.close(reading)
        _work(target, seed, first, end, writing)
    os.close(writing)
    index, why = first, "ended"
    with open(reading, "rb", buffering=0) as pipe:
        rest = b""
        while index < end:
            ready, _, _ = select.select([pipe], [], [], _PATIENCE)
            block = pipe.read(65536) if ready else b""
            if not block:
                why = "ended" if ready else "hang"
                break
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield json.loads(line)
                index += 1
    if index < end:
        os.kill(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status != _OWN_FAULT, f"the target or the runner itself failed at number {index}"
    if index < end:
        failure = ("hang", f"more than {_PATIENCE} s") if why == "hang" else ("crash", f"the process ended: {status}")
        yield {"index": index, "failures": [failure], "outcome": "failed"}


def _work(target: Target, seed: int, first: int, end: int, pipe: int) -> NoReturn:
    code = 0
    try:
        signal.signal(signal.SIGALRM, _raise_hang)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff writes there
        log = _Log()
        logger = logging.getLogger("detector")
        logger.handlers, logger.propagate = [log], False
        _limit_memory()
        gc.collect()
        gc.freeze()
        base = _mib()
        for index in range(first, end):
            log.lines.clear()
            started = time.monotonic()
            outcome, failures = _judge(target, make_case(target, seed, index))
            failures += [("bad message", f"log: {line[:200]!a}") for line in log.lines if not line.isprintable()]
            record = {
                "index": index, "outcome": "failed" if failures else outcome, "failures": failures,
                "seconds": time.monotonic() - started, "mib": _mib(), "base": base,
            }  # fmt: skip
            os.write(pipe, json.dumps(record).encode() + b"\n")
    except BaseException:
        os.write(1, traceback.format_exc().encode())
        code = _OWN_FAULT
    os._exit(code)


class _Log(logging.Handler):
    """Keeps what the toolkit logs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _raise_hang(*_: object) -> None:
    raise _Hang


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, resource.RLIM_INFINITY))


def _mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _judge(target: Target, case: Case) -> tuple[str, list[tuple[str, str]]]:
    put(target.folder, case.files)
    outcome, failures = "accepted", []
    for reading in target.readings(case):
        refused, found = _judge_reading(reading, case)
        outcome = "refused" if refused else outcome
        failures += [(kind, f"{reading.name}: {what}") for kind, what in found]
    return outcome, failures


def _judge_reading(reading: Reading, case: Case) -> tuple[bool, list[tuple[str, str]]]:
    """Whether it was refused, and what is wrong with that."""
    try:
        with _alarm(), warnings.catch_warnings():
            warnings.simplefilter("error")
            found = reading.read()
    except DetectorError as error:
        return True, _judge_message(reading, case, str(error))
    except _Hang:
        return False, [("hang", f"more than {SECONDS} s; {case.notes}"[:300])]
    except MemoryError:
        return False, [("memory", f"more than {_MEMORY >> 20} MiB; {case.notes}"[:300])]
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return False, [("traceback", f"{type(error).__name__} in {where}: {str(error)[:120]!a}; {case.notes}"[:400])]
    return False, [("bad accepted", f"{fault}; {case.notes}"[:400]) for fault in reading.faults(found)]


def _judge_message(reading: Reading, case: Case, message: str) -> list[tuple[str, str]]:
    found = [("bad message", f"{fault}; {case.notes}"[:400]) for fault in faults_of_message(message, reading.places)]
    if case.record and not re.search(case.record, message):
        found.append(("bad message", f"names no record: {message[:200]!a}; {case.notes}"[:400]))
    if reading.sound:
        found.append(("good refused", f"{message[:200]!a}; {case.notes}"[:400]))
    return found


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
