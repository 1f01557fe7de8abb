"""Images that could not be read and were left out: listed once each, and not too many."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path

from detector.data.loader import BadSample
from detector.durable import not_a_link
from detector.errors import DatasetError

_log = logging.getLogger(__name__)


class BadSamples:
    """The list of a run.

    Args:
        path: bad_samples.jsonl; what an earlier part of the run wrote there counts, too.
        images: of the data set.
        limit: share of the images that may be bad.
    """

    def __init__(self, path: Path, images: int, limit: float) -> None:
        self.path, self.images, self.limit = path, images, limit
        self._known: set[str] = set()
        with suppress(OSError):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, KeyError, TypeError):  # one that was being written
                    self._known.add(json.loads(line)["file"])

    def note(self, found: list[BadSample]) -> None:
        """Adds to the list.

        Raises:
            DatasetError: there are too many by now.
        """
        new = {item.path: item.problem for item in found if item.path not in self._known}
        self._known.update(new)
        for path, problem in new.items():
            _log.warning("%s; left out, another image stands in", problem)
            with suppress(OSError), open(not_a_link(self.path), "a", encoding="utf-8") as file:
                file.write(json.dumps({"file": path, "problem": problem}) + "\n")
        if found and len(self._known) > self.limit * self.images:
            raise DatasetError(
                f"{len(self._known)} of {self.images} images cannot be read, more than data.max_bad_fraction "
                f"({self.limit:g}) allows; they are listed in {self.path}; "
                "mend them and remove that file, or raise the limit"
            )
