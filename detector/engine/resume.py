"""Which state a run goes on from, the same for all its processes."""

from __future__ import annotations

import logging
from pathlib import Path

from detector.durable import checksum, rename, sync_folder
from detector.engine.checkpoint import (
    MANIFEST,
    TrainingState,
    iteration_of,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    sweep,
)
from detector.engine.distributed import Processes
from detector.engine.run_folder import RunFolder
from detector.errors import WeightsError

_log = logging.getLogger(__name__)


def agreed_state(folder: RunFolder, resume: str, processes: Processes) -> TrainingState | None:
    """The state to go on from: the main process chooses, and the others take the very same.

    Args:
        folder: the run's.
        resume: "auto", "never" or a checkpoint.
        processes: of the run; one without the checkpoint on its disk gets its contents.

    Raises:
        WeightsError: a named checkpoint cannot be read, or there are checkpoints but none is whole.
    """
    state, place = None, None
    with processes.together():
        if processes.is_main and resume != "never":
            sweep(folder.checkpoints)
            found = _newest(folder.checkpoints) if resume == "auto" else _named(Path(resume))
            if found is not None:
                path, state = found
                place = (str(path.absolute()), checksum(path / MANIFEST))
    place = processes.from_main(place)
    if place is None:
        return None
    has_it = processes.is_main or _holds(Path(place[0]), place[1])
    if all(processes.gather(has_it)):
        return state or load_checkpoint(Path(place[0]))
    return processes.from_main(state)  # type: ignore[no-any-return]


def _newest(folder: Path) -> tuple[Path, TrainingState] | None:
    found = load_newest(folder)
    if found is None and list_checkpoints(folder):
        raise WeightsError(
            f"{folder}: not one of its {len(list_checkpoints(folder))} checkpoints is whole (see the warnings); "
            "put back a copy of one, or start again with a new --output"
        )
    return found


def _named(path: Path) -> tuple[Path, TrainingState]:
    return path, load_checkpoint(path)


def _holds(path: Path, digest: str) -> bool:
    try:
        return checksum(path / MANIFEST) == digest
    except OSError:
        return False


def set_aside_later(folder: Path, iteration: int) -> None:
    """Later checkpoints of a run that goes on from an earlier one must not be taken for the newest the next time.

    Args:
        folder: the run's ``checkpoints``.
        iteration: where it goes on.
    """
    for path in list_checkpoints(folder):
        if iteration_of(path) > iteration:
            aside = path.with_name(f"unused-{path.name}")
            number = 1
            while aside.exists():
                number += 1
                aside = path.with_name(f"unused-{path.name}-{number}")
            rename(path, aside)
            sync_folder(folder)
            _log.warning("%s: set aside as %s, since the run goes on from iteration %d", path, aside.name, iteration)
