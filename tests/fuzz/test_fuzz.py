"""A small part of the fuzzing, the same at each run; ``python -m tests.fuzz`` does more."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from detector.models import resnet
from tests.fuzz.cases import Case, Reading, faults_of_message
from tests.fuzz.runner import keep, make_case, run
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory and time as Linux has them")

COUNTS = {"cifar": 300, "coco": 300, "config": 300, "detections": 300, "images": 300, "voc": 300, "weights": 50}


@pytest.fixture(autouse=True)
def _widths_as_before() -> Iterator[None]:
    """The target of weights makes all networks of its process narrow."""
    assert hasattr(resnet, "_WIDTHS")
    before = resnet._WIDTHS
    yield
    resnet._WIDTHS = before


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_files_are_read_right_or_refused_in_a_line(name: str, tmp_path: Path) -> None:
    shared = os.environ.get("DETECTOR_SHARED")
    target = TARGETS[name](tmp_path, Path(shared) if shared else None)
    summary = run(target, COUNTS[name], seed=0)
    assert summary.files == COUNTS[name]
    assert not summary.failures, "\n".join(summary.lines())
    assert 0 < summary.accepted < summary.files
    assert summary.peak_mib < summary.base_mib + 1024


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_case_follows_from_its_number_alone(name: str, tmp_path: Path) -> None:
    target = TARGETS[name](tmp_path, None)
    first = [make_case(target, 3, index).files for index in range(5)]
    again = [make_case(target, 3, index).files for index in reversed(range(5))]
    if name != "weights":  # zip archives hold the time of day
        assert first == again[::-1]
    assert len({repr(files)[:5000] for files in first}) > 1


def test_what_failed_is_kept(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    target = TARGETS["detections"](tmp_path / "work", None)
    summary = run(target, 1, seed=5)
    summary.failures.append((0, "traceback", "made up"))
    keep(target, 5, summary, tmp_path / "kept")
    kept = tmp_path / "kept/detections-5-0-traceback"
    assert (kept / "detections.json").read_bytes() == make_case(target, 5, 0).files["detections.json"]
    assert "made up" in (kept / "case.json").read_text()


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("/a/b.json: annotations[3]: wrong", None),
        ("'/a/\\x1b.json': wrong", None),
        ("annotations[3]: wrong", "does not begin with the file"),
        ("/a/b.json: \x1b[2J", "not printable"),
        ("/a/b.json: " + "x" * 500, "a line of 511 characters"),
        ("/a/b.json: one\ntwo", "does not begin with the file"),
        ("", "the message is empty"),
    ],
)
def test_the_judge_sees_what_is_wrong_with_a_message(message: str, fault: str | None) -> None:
    found = faults_of_message(message, ["/a/"])
    assert bool(found) == (fault is not None)
    assert fault is None or any(fault in line for line in found)


class _Deadly:
    """A target whose reading does, in turn, what no reader may do."""

    name = "deadly"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def case(self, random: Random) -> Case:
        """One of four kinds."""
        return Case(notes=[random.choice(("bug", "death", "bad", "good"))])

    def readings(self, case: Case) -> Sequence[Reading]:
        """Does what the case says."""

        def read() -> None:
            if case.notes == ["bug"]:
                raise KeyError("x")
            if case.notes == ["death"]:
                os.kill(os.getpid(), signal.SIGSEGV)

        faults = ["accepted"] if case.notes == ["bad"] else []
        return (Reading("read", read, lambda _: faults, None, ("/",)),)


def test_what_no_reader_may_do_is_noted(tmp_path: Path) -> None:
    target = _Deadly(tmp_path)
    wanted = {"bug": "traceback", "death": "crash", "bad": "bad accepted"}
    notes = [make_case(target, 0, index).notes[0] for index in range(20)]
    assert set(notes) == {*wanted, "good"}
    summary = run(target, 20, seed=0)
    failures = [(index, wanted[note]) for index, note in enumerate(notes) if note in wanted]
    assert [(index, kind) for index, kind, _ in summary.failures] == failures
    assert summary.accepted == notes.count("good")
