"""Archives of strangers, unpacked so that nothing lands outside their folder, or is more than it claimed to be."""

from __future__ import annotations

import contextlib
import errno
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm import tqdm

from detector.data.fetching.disk import ask_for_room, readable, write_all
from detector.durable import make_folders, rename
from detector.errors import DatasetError, one_line, quote

_BLOCK = 2**20
_MAX_FILES = 1_000_000
_TEMPORARY = ".fetch_dataset.tmp"

# What the libraries raise; NotImplementedError is for a rare compression, the last two for lengths that are lies.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    ValueError,
    NotImplementedError,
    MemoryError,
    OverflowError,
)


@dataclass(frozen=True)
class _Member:
    """A file in an archive.

    Attributes:
        name: with its folders.
        size: in bytes, as declared.
        open: opens it for reading.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, top: str, limit: int) -> int:
    """Unpacks all files of a ``.zip`` or ``.tar``; files that are there are replaced.

    Permissions, owners and times in the archive are not heeded.

    Args:
        archive: the file.
        folder: where to.
        top: the folder in the archive that all its members must lie in.
        limit: it may not hold more bytes.

    Returns:
        The number of files.

    Raises:
        DatasetError: it is damaged or would do harm, which is found before anything is written.
        MachineError: the disk is too small.
    """
    with _opened(archive) as members:
        _check(archive, members, top, limit)
        there = [path.stat().st_size for member in members if (path := folder / member.name).is_file()]
        ask_for_room(folder, sum(member.size for member in members) - sum(there), f"to unpack {archive.name}")
        _write(archive, members, folder)
        return len(members)


@contextmanager
def _opened(archive: Path) -> Iterator[list[_Member]]:
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as bundle:
                yield list(_files_of_zip(archive, bundle))
        else:
            with tarfile.open(archive, "r:") as tape:
                yield list(_files_of_tar(archive, tape))
    except _DAMAGE as error:
        raise _damage(archive, error) from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise _damage(archive, error) from None  # it points to a place before its own beginning


def _damage(archive: Path, error: Exception) -> DatasetError:
    reason = quote(str(error) or type(error).__name__, 100)[1:-1]
    return DatasetError(f"{one_line(archive)}: cannot be unpacked: {reason}; remove it and try again")


def _files_of_zip(archive: Path, bundle: zipfile.ZipFile) -> Iterator[_Member]:
    for item in bundle.infolist():
        # The plain filename is already mended by the library: cut at a NUL byte, for instance.
        _check_name(archive, item.orig_filename)
        if stat.S_IFMT(item.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refusal(archive, item.orig_filename, "is a link or a device")
        if item.flag_bits & 1:
            raise _refusal(archive, item.orig_filename, "wants a password")
        if not item.is_dir():
            yield _Member(item.filename, item.file_size, lambda item=item: bundle.open(item))  # type: ignore[misc]


def _files_of_tar(archive: Path, tape: tarfile.TarFile) -> Iterator[_Member]:
    for item in tape:
        _check_name(archive, item.name)
        if not (item.isdir() or item.isreg()) or item.issparse():
            raise _refusal(archive, item.name, "is a link or a device")
        if not item.isdir():
            yield _Member(item.name, item.size, lambda item=item: _not_none(tape.extractfile(item)))  # type: ignore[misc]


def _not_none(file: IO[bytes] | None) -> IO[bytes]:
    assert file is not None, "a regular file can be read"
    return file


def _check_name(archive: Path, name: str) -> None:
    parts = name.removesuffix("/").split("/")
    if not parts[0] or ".." in parts or re.match("[A-Za-z]:", name):
        raise _refusal(archive, name, "leaves its folder")
    if not name.isprintable() or "" in parts or "." in parts or "\\" in name or ":" in name:
        raise _refusal(archive, name, "has a name that not all systems understand alike")


def _check(archive: Path, members: Sequence[_Member], top: str, limit: int) -> None:
    """What no single member shows."""
    if len(members) > _MAX_FILES or sum(member.size for member in members) > limit:
        size = readable(sum(member.size for member in members))
        raise DatasetError(
            f"{one_line(archive)}: claims to hold {len(members)} files of {size}, "
            f"while {readable(limit)} are allowed; nothing was unpacked"
        )
    # Some systems do not tell A from a.
    names: set[str] = set()
    folders = {str(parent).casefold() for member in members for parent in Path(member.name).parents}
    for member in members:
        if not member.name.startswith(f"{top}/") or member.name.endswith("/"):
            raise _refusal(archive, member.name, f"is no file in {top}/")
        if member.name.casefold() in names or member.name.casefold() in folders:
            raise _refusal(archive, member.name, "is there twice")
        names.add(member.name.casefold())


def _refusal(archive: Path, name: str, what: str) -> DatasetError:
    return DatasetError(f"{one_line(archive)}: the member {quote(name)} {what}; nothing was unpacked")


def _write(archive: Path, members: Sequence[_Member], folder: Path) -> None:
    made: set[Path] = set()
    total = sum(member.size for member in members)
    with tqdm(
        desc=f"unpacking {archive.name}", total=total, unit="B", unit_scale=True, leave=False, disable=None
    ) as progress:
        for member in members:
            target = folder / member.name
            if target.parent not in made:
                make_folders(target.parent)
                made.add(target.parent)
            _write_file(archive, member, target)
            progress.update(member.size)


def _write_file(archive: Path, member: _Member, target: Path) -> None:
    """A file has its name only when it is whole, and is never written through a link that lies in its place."""
    temporary = target.with_name(_TEMPORARY)
    with contextlib.suppress(FileNotFoundError):  # of a call that was killed
        temporary.unlink()
    written = 0
    with open(temporary, "xb") as file, member.open() as source:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > member.size:
                break
            write_all(file.fileno(), block, target)
    if written != member.size:
        temporary.unlink()
        raise DatasetError(
            f"{one_line(archive)}: the member {quote(member.name)} is not of the {member.size} bytes it claims; "
            "remove the archive and try again"
        )
    rename(temporary, target)
