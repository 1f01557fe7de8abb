"""Files that a crash cannot tear: written beside, flushed to the disk, and only then given their name.

Every operation that changes a run's folder for good goes through this module, so that tests can let each of them fail.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_BLOCK = 2**22


class DurableFile:
    """A new file, hashed while it is written.

    Attributes:
        size: bytes written so far.
        error: why a write failed; torch hides the reason in an error of its own.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0
        self.error: OSError | None = None
        self._digest = hashlib.sha256()
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    def write(self, data: Any) -> int:
        """Writes bytes, all of them.

        Raises:
            OSError: as the system reports it.
        """
        view = memoryview(data).cast("B")
        self._digest.update(view)
        done = 0
        try:
            while done < len(view):
                done += os.write(self._descriptor, view[done : done + _BLOCK])
        except OSError as error:
            self.error = OSError(error.errno, error.strerror, str(self._path))  # the system names no file here
            raise self.error from None
        self.size += done
        return done

    def flush(self) -> None:
        """Nothing is held back."""

    @property
    def sha256(self) -> str:
        """The checksum of what was written."""
        return self._digest.hexdigest()

    def sync(self) -> None:
        """Returns once the disk has it all."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Gives the file back to the system."""
        os.close(self._descriptor)


@contextmanager
def new_file(path: Path) -> Iterator[DurableFile]:
    """A file to be written, flushed to the disk at the end.

    Raises:
        OSError: it cannot be written.
    """
    file = DurableFile(path)
    try:
        yield file
        file.sync()
    except RuntimeError:  # torch's, about a write that failed
        raise (file.error or OSError(f"{path}: cannot be written")) from None
    finally:
        file.close()


def replace_file(path: Path, data: bytes | str) -> None:
    """Puts ``data`` (text as UTF-8) under a name: at any moment there is the old file or the new one.

    Raises:
        OSError: it cannot be written; the old file is untouched.
    """
    replace_by(path, lambda file: file.write(data.encode() if isinstance(data, str) else data))


def replace_by(path: Path, write: Callable[[DurableFile], object]) -> None:
    """As ``replace_file``, for what a function writes."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):  # of a dead process with the same number
        os.unlink(temporary)
    try:
        with new_file(temporary) as file:
            write(file)
        rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def not_a_link(path: Path) -> Path:
    """A file's name, free of a link that would lead what is written into another file; folders may be links."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_symlink():
            path.unlink()
    return path


def make_folder(path: Path) -> None:
    """A new folder."""
    os.mkdir(path)


def make_folders(path: Path) -> None:
    """A folder and those above it, as far as they are missing; their names are on the disk."""
    if not path.is_dir():
        make_folders(path.parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        if not path.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        sync_folder(path.parent)


def rename(old: Path, new: Path) -> None:
    """Renames; a file that is there under the new name is replaced."""
    os.replace(old, new)


def sync_file(path: Path) -> None:
    """Returns once the disk has all of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Returns once the disk has the names in a folder; Windows does that by itself and cannot open folders."""
    if os.name != "nt":
        sync_file(path)


def remove_folder(path: Path) -> None:
    """Removes a folder of files; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        for name in os.listdir(path):
            os.unlink(path / name)
        os.rmdir(path)


def checksum(path: Path) -> str:
    """The sha256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
