"""What fetching asks of a disk: room, all of what is written, and nobody else in the same folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from detector.errors import MachineError, one_line

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


def readable(size: int) -> str:
    """A number of bytes as people say it, such as "19.3GB"."""
    return tqdm.format_sizeof(size, "B")


def ask_for_room(folder: Path, need: int, purpose: str) -> None:
    """Looks whether a disk has ``need`` bytes left.

    Args:
        folder: on that disk; it or one above it is there.
        need: in bytes.
        purpose: for the message.

    Raises:
        MachineError: it has not.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if need > free:
        raise MachineError(
            f"{one_line(folder)}: {readable(need)} are needed {purpose}, {readable(free)} are free: "
            f"{readable(need - free)} are missing; make room, or choose another --root"
        )


def write_all(descriptor: int, data: bytes, path: Path) -> None:
    """Writes all of ``data``; an error names the file, which the system leaves out.

    Raises:
        OSError: as the system reports it.
    """
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Keeps other processes from holding the same file, until the end of the block or of this process.

    Raises:
        MachineError: another one holds it.
    """
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(descriptor, lock)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, lock: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        folder = one_line(lock.parent)
        raise MachineError(f"{folder}: another call of this command is at work here; wait for it or stop it") from None
    except OSError:
        pass  # a disk without locks keeps nobody out
