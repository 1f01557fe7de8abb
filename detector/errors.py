"""What can go wrong through no fault of this package, each kind with the exit code of the commands.

Every message is meant for the person at the keyboard: which file, which record, what is wrong and
what to do. A kind takes exactly one argument, so that it survives the way back from a worker process.
"""

from __future__ import annotations


class DetectorError(Exception):
    """Root of all errors that a user can cause or mend; a message may hold several lines, one a problem."""

    exit_code = 2


class UsageError(DetectorError):
    """The command was called in a way that cannot work."""


class ConfigError(DetectorError):
    """The configuration is wrong."""


class DatasetError(DetectorError):
    """A data set or its annotations are wrong."""


class ImageError(DetectorError):
    """An image file cannot be used."""


class WeightsError(DetectorError):
    """A file of weights or a checkpoint cannot be used."""


class MachineError(DetectorError):
    """The machine falls short: disk, memory, permissions."""

    exit_code = 3


class TrainingError(DetectorError):
    """Training diverged."""

    exit_code = 4


class WorkerError(DetectorError):
    """A worker process or a rank was lost; the run can be resumed."""

    exit_code = 5


class VerificationError(DetectorError):
    """Two ways to the same number disagree: a bug of ours, told in one line."""

    exit_code = 1


class Interrupted(DetectorError):  # noqa: N818, nothing is wrong
    """A signal ended the run after its state was saved."""

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class FailedElsewhere(DetectorError):  # noqa: N818, its own process did nothing wrong
    """Another process of the run failed, and tells of it; this one ends with the same exit code."""

    def __init__(self, message: str, exit_code: int = 5) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def one_line(text: object, limit: int = 200) -> str:
    """A path or key as it stands in a message: unchanged where it is printable and short, else quoted."""
    plain = str(text)
    return plain if plain.isprintable() and len(plain) <= limit else quote(plain, limit)


def printable(text: str) -> str:
    """Text as a terminal may get it: what it would take for commands, or turn around, is written as an escape."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)


def quote(value: object, limit: int = 60) -> str:
    """Makes foreign text fit to stand in a message: ASCII, one line, no terminal codes, at most ``limit`` long."""
    text = ascii(value) if isinstance(value, str) else ascii(str(value))[1:-1]
    return text if len(text) <= limit else text[: limit - 3] + "..."
