"""How each process of a run ended, in a file, for scripts: torchrun itself always answers 1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from detector.durable import replace_file
from detector.engine.run_folder import RunFolder
from detector.errors import DetectorError

if TYPE_CHECKING:
    from detector.engine.trainer import Trainer


class ExitNote:
    """What to write.

    Attributes:
        trainer: asked for its iteration at the end; None until there is one.
    """

    trainer: Trainer | None = None


@contextmanager
def exit_note(folder: RunFolder, rank: int) -> Iterator[ExitNote]:
    """Writes ``exit-<rank>.json`` at the end of the block: exit code, message, iteration and newest checkpoint.

    Args:
        folder: the run's.
        rank: of this process.
    """
    path = folder.path / f"exit-{rank}.json"
    with suppress(OSError):
        path.unlink(missing_ok=True)  # that of an earlier start says nothing of this one
    note = ExitNote()
    code, message = 1, "a bug; see the traceback"
    try:
        yield note
        code, message = 0, "done"
    except DetectorError as error:
        code, message = error.exit_code, str(error)
        raise
    finally:
        from detector.engine.checkpoint import list_checkpoints

        newest = [str(path) for path in list_checkpoints(folder.checkpoints)[-1:]]
        facts = {
            "code": code,
            "message": message,
            "iteration": note.trainer.iteration if note.trainer else 0,
            "checkpoint": newest[0] if newest else None,
        }
        with suppress(OSError):
            replace_file(path, json.dumps(facts, indent=1))
