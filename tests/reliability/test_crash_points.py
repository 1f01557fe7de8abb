"""Whatever happens to any single operation of a save, no checkpoint that was finished is lost."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest

from detector.durable import replace_file
from detector.engine.checkpoint import (
    TrainingState,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    prune,
    save_checkpoint,
)
from detector.engine.checkpoint_writer import CheckpointWriter
from detector.engine.run_folder import RunFolder
from detector.errors import DetectorError, MachineError, WeightsError
from tests.reliability.simulated_disk import (
    ERRORS,
    KILLS,
    SHORT,
    Fault,
    Killed,
    Operation,
    SimulatedDisk,
    build,
    promise,
    read,
    states_after,
)
from tests.reliability.states import is_whole, state_of
from tests.tiny import tiny_config

KEEP = 2
STATES_AN_OPERATION = 20
STATES_AN_OPERATION_FULL = 100


def newest(folder: Path) -> TrainingState | None:
    found = load_newest(folder)
    return found and found[1]


def leftovers(folder: Path) -> list[str]:
    return [item.name for item in folder.iterdir() if item.name.startswith((".tmp-", ".trash-"))]


def save(disk: SimulatedDisk, folder: Path, iteration: int) -> None:
    """As a training saves."""
    save_checkpoint(folder, state_of(iteration))
    disk.acknowledge(iteration)
    prune(folder, keep=KEEP, keep_every=0, best=None)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of damaged checkpoints are named in warnings."""
    logger = logging.getLogger("detector")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder, in memory where that can be: thousands of small files come and go."""
    with _place() as folder:
        yield folder


@contextmanager
def _place() -> Iterator[Path]:
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of iterations 1 and 2."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    folder.mkdir()
    for iteration in (1, 2):
        save_checkpoint(folder, state_of(iteration))
    return folder


@dataclass(frozen=True)
class Outcome:
    """What became of saving iteration 3 while something went wrong, and of saving iteration 4 after it.

    Attributes:
        where: number and name of the operation that the fault struck.
        acknowledged: the newest iteration that was promised.
        error: what the save failed with.
        after_failure: temporary names that a failed save, whose process lived on, has left.
        found: what loads afterwards.
        error_next: what the next save failed with.
        found_next: what loads after that.
        after_next: temporary names then.
        kept: checkpoints then.
    """

    where: str
    acknowledged: int
    error: BaseException | None
    after_failure: list[str]
    found: TrainingState | None
    error_next: Exception | None
    found_next: TrainingState | None
    after_next: list[str]
    kept: int


def _try(original: Path, folder: Path, fault: Fault, iteration: int) -> Outcome | None:
    """Saves with a fault in a copy of a folder; None if the fault struck nothing."""
    shutil.copytree(original, folder)
    error: BaseException | None = None
    with SimulatedDisk(folder, fault) as disk:
        try:
            save(disk, folder, iteration)
        except (Killed, MachineError, OSError) as problem:
            error = problem
    if not disk.struck:
        shutil.rmtree(folder)
        return None
    found, after_failure = newest(folder), leftovers(folder)
    error_next: Exception | None = None
    # The next process has another number, or, as in a container, the same.
    with SimulatedDisk(folder) as later, patch.object(os, "getpid", return_value=os.getpid() + fault.number % 2):
        try:
            save(later, folder, 4)
        except (MachineError, OSError) as problem:
            error_next = problem
    outcome = Outcome(
        f"operation {fault.number} ({disk.struck}), {fault.kind}",
        disk.acknowledged or 2,
        error,
        after_failure,
        found,
        error_next,
        newest(folder),
        leftovers(folder),
        len(list_checkpoints(folder)),
    )
    shutil.rmtree(folder)
    return outcome


def _count(original: Path, folder: Path, iteration: int) -> int:
    shutil.copytree(original, folder)
    with SimulatedDisk(folder) as disk:
        save(disk, folder, iteration)
    shutil.rmtree(folder)
    return disk.count


def _all_outcomes(original: Path, folder: Path, kind: str, iteration: int) -> list[Outcome]:
    tried = [
        _try(original, folder, Fault(number, kind), iteration) for number in range(_count(original, folder, iteration))
    ]
    found = [outcome for outcome in tried if outcome is not None]
    assert found, f"{kind} never struck"
    return found


@pytest.fixture(scope="module", params=(*KILLS, *ERRORS, SHORT))
def outcomes(request: pytest.FixtureRequest, two_checkpoints: Path) -> list[Outcome]:
    """A fault of one kind at every operation of a save."""
    with _place() as place:
        return _all_outcomes(two_checkpoints, place / "checkpoints", request.param, 3)


def _those(outcomes: list[Outcome], wrong: Callable[[Outcome], bool]) -> list[str]:
    return [outcome.where for outcome in outcomes if wrong(outcome)]


def test_the_newest_acknowledged_checkpoint_loads_after_a_fault_at_any_operation(outcomes: list[Outcome]) -> None:
    assert not _those(outcomes, lambda it: it.found is None or it.found.iteration < it.acknowledged)


def test_what_loads_after_a_fault_is_what_was_saved(outcomes: list[Outcome]) -> None:
    assert not _those(outcomes, lambda it: it.found is not None and not is_whole(it.found))
    assert not _those(outcomes, lambda it: it.found_next is not None and not is_whole(it.found_next))


def test_the_save_after_a_fault_works(outcomes: list[Outcome]) -> None:
    assert not _those(outcomes, lambda it: it.error_next is not None)
    assert not _those(outcomes, lambda it: it.found_next is None or it.found_next.iteration != 4)


def test_the_save_after_a_fault_leaves_no_temporary_names(outcomes: list[Outcome]) -> None:
    assert not _those(outcomes, lambda it: bool(it.after_next))


def test_the_save_after_a_fault_leaves_as_many_checkpoints_as_asked_for(outcomes: list[Outcome]) -> None:
    assert not _those(outcomes, lambda it: it.kept != KEEP)


@pytest.mark.parametrize("outcomes", ["ENOSPC", "EIO", "EIO although done"], indirect=True)
def test_a_save_that_fails_removes_what_it_has_written(outcomes: list[Outcome]) -> None:
    failed = [it for it in outcomes if isinstance(it.error, MachineError)]
    assert not _those(failed, lambda it: bool(it.after_failure))


@pytest.mark.parametrize("outcomes", ERRORS, indirect=True)
def test_a_save_that_fails_says_so_in_one_line(outcomes: list[Outcome]) -> None:
    failed = [it for it in outcomes if it.acknowledged == 2]
    assert not _those(failed, lambda it: not isinstance(it.error, MachineError) or "\n" in str(it.error))
    assert len(failed) > 30


@pytest.mark.parametrize("outcomes", [SHORT], indirect=True)
def test_a_write_of_half_the_bytes_is_gone_on_with(outcomes: list[Outcome]) -> None:
    assert not _those(outcomes, lambda it: it.error is not None or it.acknowledged != 3)


@pytest.mark.parametrize("kind", [*KILLS, *ERRORS])
def test_replacing_a_checkpoint_never_costs_the_one_before_it(kind: str, two_checkpoints: Path, place: Path) -> None:
    tried = _all_outcomes(two_checkpoints, place / "checkpoints", kind, 2)
    assert not _those(tried, lambda it: it.found is None or not is_whole(it.found))
    assert not _those(tried, lambda it: it.error_next is not None or bool(it.after_next))


def test_a_full_disk_is_named_with_what_is_needed_and_free(two_checkpoints: Path, place: Path) -> None:
    outcome = _try(two_checkpoints, place / "checkpoints", Fault(3, "ENOSPC"), 3)
    assert outcome is not None
    message = str(outcome.error)
    assert message.startswith(f"{place / 'checkpoints' / 'step-000000003'}: the checkpoint cannot be written: ")
    assert "No space left on device (it needs 0 MiB, " in message
    assert "MiB is free on that disk)" in message


@pytest.mark.parametrize("kind", ["ENOSPC", "EIO", "EIO although done"])
def test_no_single_error_of_the_disk_ends_a_training(two_checkpoints: Path, place: Path, kind: str) -> None:
    ended = []
    for number in range(1000):
        folder = place / "run"
        shutil.copytree(two_checkpoints, folder / "checkpoints")
        (folder / "metrics.jsonl").write_text("{}\n")
        writer = CheckpointWriter(folder / "checkpoints", KEEP, 0, folder / "metrics.jsonl")
        with SimulatedDisk(folder, Fault(number, kind)) as disk:
            try:
                writer.save(state_of(3), best=None)
                writer.poll(wait=True)
            except (MachineError, OSError) as error:
                ended.append(f"operation {number} ({disk.struck}): {error}")
            finally:
                writer.close()
        shutil.rmtree(folder)
        if not disk.struck:
            break
    assert number > 50
    assert not ended


def _history(root: Path) -> list[Operation]:
    """Saves three checkpoints in an empty folder that is on the disk; the first one is removed in the end."""
    with SimulatedDisk(root) as disk:
        for iteration in (1, 2, 3):
            save(disk, root, iteration)
    return disk.log


def _cut_the_third_save(
    root: Path, copy: Path, count: int, violation: Callable[[Path, Any], str], **flushes: bool
) -> Census:
    log = _history(root)
    return _cut_everywhere(log, copy, count, violation, log.index(Operation("acknowledged", (2,))) + 1, **flushes)


def _violation(folder: Path, promised: int | None) -> str:
    """What is wrong with the checkpoints in a folder."""
    for path in list_checkpoints(folder):
        try:
            state = load_checkpoint(path)
        except WeightsError:
            continue
        if not is_whole(state):
            return f"{path.name} is torn and loads"
    found = newest(folder)
    if promised is not None and (found is None or found.iteration < promised):
        return f"iteration {promised} was lost"
    return ""


def _violation_of_the_next_save(folder: Path, promised: int | None) -> str:
    """What is wrong after the next save."""
    with SimulatedDisk(folder) as disk:
        save(disk, folder, 4)
    problem = _violation(folder, 4)
    return problem or (f"{leftovers(folder)} are left" if leftovers(folder) else "")


@dataclass
class Census:
    """What became of a folder at cuts of the power."""

    states: int = 0
    distinct: int = 0
    violations: int = 0
    kinds: set[str] = field(default_factory=set)
    example: str = ""


def _cut_everywhere(
    log: list[Operation],
    copy: Path,
    count: int,
    violation: Callable[[Path, Any], str],
    first: int = 0,
    **flushes: bool,
) -> Census:
    """Cuts the power after each operation from the first one on, and looks at some of the states that may be left."""
    census = Census()
    for end in range(first, len(log) + 1):
        promised, seen = promise(log[:end]), set()
        for state in states_after(log[:end], count, seed=end, **flushes):
            census.states += 1
            if state in seen:
                continue
            seen.add(state)
            census.distinct += 1
            build(state, copy)
            if problem := violation(copy, promised):
                census.violations += 1
                census.kinds.add(problem)
                census.example = census.example or f"cut after operation {end} ({log[end - 1]}): {problem}: {state}"
            shutil.rmtree(copy)
    return census


@pytest.fixture
def count(full: bool) -> int:
    return STATES_AN_OPERATION_FULL if full else STATES_AN_OPERATION


@pytest.fixture
def root(place: Path) -> Path:
    folder = place / "checkpoints"
    folder.mkdir()
    return folder


def test_no_operation_of_a_save_goes_past_the_simulated_disk(root: Path) -> None:
    log = _history(root)
    *_, last = states_after(log, 2, seed=0)
    assert last == read(root)


def test_a_cut_of_the_power_costs_no_acknowledged_checkpoint(root: Path, place: Path, count: int) -> None:
    census = _cut_the_third_save(root, place / "after", count, _violation)
    assert census.states >= 40 * count
    assert census.distinct > 300
    assert census.violations == 0, census.example


def test_the_save_after_a_cut_of_the_power_works(root: Path, place: Path, count: int) -> None:
    census = _cut_the_third_save(root, place / "after", count // 5, _violation_of_the_next_save)
    assert census.violations == 0, census.example


def test_without_flushed_files_the_same_cuts_would_cost_checkpoints(root: Path, place: Path) -> None:
    census = _cut_the_third_save(root, place / "after", 5, _violation, file_flushes=False)
    assert census.violations > census.states / 3


def test_without_flushed_folders_the_same_cuts_would_cost_checkpoints(root: Path, place: Path) -> None:
    census = _cut_the_third_save(root, place / "after", 5, _violation, folder_flushes=False)
    assert census.violations > census.states / 10


def test_without_checksums_torn_checkpoints_would_be_taken_for_whole_ones(
    root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector.engine.checkpoint.verify", lambda path: None)
    census = _cut_the_third_save(root, place / "after", 10, _violation, file_flushes=False)
    assert any("is torn and loads" in kind for kind in census.kinds)


def _start(run: Path, disk: SimulatedDisk) -> RunFolder:
    folder = RunFolder(run)
    folder.claim(tiny_config(), resume=True)
    folder.write_environment()
    return folder


@pytest.mark.parametrize("kind", KILLS)
def test_a_run_that_was_killed_at_any_operation_of_its_start_can_be_started_again(place: Path, kind: str) -> None:
    refused = []
    for number in range(1000):
        run = place / f"run-{number}"
        with SimulatedDisk(place, Fault(number, kind)) as disk, suppress(Killed):
            _start(run, disk)
        if disk.count <= number:
            break
        with patch.object(os, "getpid", return_value=os.getpid() + 1):
            try:
                RunFolder(run).claim(tiny_config(), resume=True)
            except DetectorError as error:
                refused.append(f"operation {number} ({disk.struck}): {error}")
    assert number > 15
    assert not refused


def test_a_cut_of_the_power_does_not_cost_the_first_checkpoint_of_a_new_run(place: Path, count: int) -> None:
    disk_root = place / "disk"
    disk_root.mkdir()
    run = disk_root / "runs" / "first"
    with SimulatedDisk(disk_root) as disk:
        save(disk, _start(run, disk).checkpoints, 1)

    def violation(folder: Path, promised: int | None) -> str:
        return _violation(folder / run.relative_to(disk_root) / "checkpoints", promised)

    census = _cut_everywhere(disk.log, place / "after", count, violation)
    assert census.violations == 0, census.example


def _content_violation(folder: Path, promised: str | None) -> str:
    """What is wrong with a file that was replaced by longer and longer ones."""
    path = folder / "file"
    content = path.read_text() if path.exists() else ""
    if content not in ("", "first" * 100, "second" * 200):
        return "the file is torn"
    return f"{promised} was lost" if promised is not None and len(content) < len(promised) else ""


def _replace_twice(disk: SimulatedDisk, folder: Path) -> None:
    for content in ("first" * 100, "second" * 200):
        replace_file(folder / "file", content)
        disk.acknowledge(content)


def test_a_cut_of_the_power_leaves_a_replaced_file_old_or_new(root: Path, place: Path, count: int) -> None:
    with SimulatedDisk(root) as disk:
        _replace_twice(disk, root)
    census = _cut_everywhere(disk.log, place / "after", count, _content_violation)
    assert census.distinct > 10
    assert census.violations == 0, census.example


@pytest.mark.parametrize("flushes", ["file_flushes", "folder_flushes"])
def test_without_flushes_the_same_cuts_would_cost_a_replaced_file(root: Path, place: Path, flushes: str) -> None:
    with SimulatedDisk(root) as disk:
        _replace_twice(disk, root)
    census = _cut_everywhere(disk.log, place / "after", 20, _content_violation, **{flushes: False})
    assert census.violations > 0


@pytest.mark.parametrize("kind", [*KILLS, *ERRORS, SHORT])
def test_a_fault_leaves_a_replaced_file_old_or_new(place: Path, kind: str) -> None:
    wrong = []
    for number in range(1000):
        folder = place / str(number)
        folder.mkdir()
        with SimulatedDisk(folder, Fault(number, kind)) as disk, suppress(Killed, OSError):
            _replace_twice(disk, folder)
        if problem := _content_violation(folder, disk.acknowledged):
            wrong.append(f"operation {number} ({disk.struck}): {problem}")
        if disk.count <= number:
            break
    assert number > 10
    assert not wrong


@pytest.mark.parametrize("kind", ["ENOSPC", "EIO"])
def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(place: Path, kind: str) -> None:
    left = []
    for number in range(1000):
        folder = place / str(number)
        folder.mkdir()
        with SimulatedDisk(folder, Fault(number, kind)) as disk, suppress(OSError):
            _replace_twice(disk, folder)
        left += [f"operation {number} ({disk.struck}): {item.name}" for item in folder.glob(".*")]
        if disk.count <= number:
            break
    assert number > 10
    assert not left
