"""What a target is, and how what became of a file is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

MAX_LINE = 400


@dataclass
class Case:
    """One mutated input.

    Attributes:
        files: path within the target's folder -> contents; None takes the file away.
        notes: what was done to it, for people.
        record: a regular expression that a refusal must hold, since one record alone is at fault; None for any.
        arguments: what the readings need besides, such as the classes wanted.
    """

    files: dict[str, bytes | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    record: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """One way in which the toolkit reads a case.

    Attributes:
        name: for reports.
        read: does it.
        faults: of what ``read`` gave, by a validator that shares no code with the toolkit.
        sound: True where the validator finds nothing to refuse, None where either is right.
        places: how a message may begin: with the file at fault.
    """

    name: str
    read: Callable[[], Any]
    faults: Callable[[Any], list[str]]
    sound: bool | None
    places: tuple[str, ...]


class Target(Protocol):
    """A kind of file.

    Attributes:
        name: of the target.
        folder: holds the files of the current case and whatever stays the same.
    """

    name: str
    folder: Path

    def case(self, random: Random) -> Case:
        """A mutated input; the same for the same random numbers."""

    def readings(self, case: Case) -> Sequence[Reading]:
        """How the toolkit reads a case whose files lie in the folder."""


def put(folder: Path, files: dict[str, bytes | None]) -> None:
    """Writes the files of a case."""
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def faults_of_message(message: str, places: Sequence[str]) -> list[str]:
    """What is wrong with a refusal: each line is short, printable, and begins with the file at fault."""
    lines = message.split("\n")
    found = [] if message else ["the message is empty"]
    for line in lines:
        if len(line) > MAX_LINE:
            found.append(f"a line of {len(line)} characters: {line[:200]!a}...")
        if not line.isprintable():
            found.append(f"not printable: {line[:200]!a}")
        if not line.startswith((*places, *(f"'{place}" for place in places))):  # quoted where it is not printable
            found.append(f"does not begin with the file: {line[:200]!a}")
    return found
