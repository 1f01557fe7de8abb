"""The whole way of a public data set: downloaded, checked, unpacked, and noted as done."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from detector.data.fetching.archives import Archive, PublicSet
from detector.data.fetching.disk import ask_for_room, held, readable
from detector.data.fetching.download import download, verify
from detector.data.fetching.unpack import unpack
from detector.durable import make_folders, replace_file
from detector.errors import one_line

_log = logging.getLogger(__name__)

# Under the root: archives on their way, and for each a note that says how far it came.
STORE = "archives"
_BEGUN, _DONE = "unpacking", "unpacked"


def fetch(public_set: PublicSet, root: Path, keep_archives: bool) -> None:
    """Brings a data set under a folder, as far as it is not there; can be called again after any interruption.

    Args:
        public_set: what to fetch.
        root: the folder of all data sets; made if it is missing.
        keep_archives: leave the archives in ``archives/`` after they are unpacked.

    Raises:
        MachineError: the network fails, the disk is too small, or another process is at it.
        DatasetError: an archive is not the one that was published, or would do harm.
    """
    _tell_of_others_work(public_set, root)
    if not _missing(public_set, root):
        _log.info("%s: all of it is there, nothing to fetch", one_line(root))
        return
    make_folders(root / STORE)
    with held(root / STORE / ".lock"):
        missing = _missing(public_set, root)
        _ask_for_room(missing, root, keep_archives)
        _log.info("fetching into %s; %s", one_line(root), public_set.terms)
        for archive in missing:
            _fetch_one(archive, root, keep_archives)


def _missing(public_set: PublicSet, root: Path) -> list[Archive]:
    """The archives to fetch: neither done by an earlier call nor put there by somebody else."""
    return [
        archive
        for archive in public_set.archives
        if _note(archive, root) == _BEGUN or not (root / archive.witness).exists()
    ]


def _tell_of_others_work(public_set: PublicSet, root: Path) -> None:
    for archive in public_set.archives:
        witness = root / archive.witness
        if not _note(archive, root) and witness.exists():
            _log.info("%s: not from this command, stays as it is; remove it to have it fetched", one_line(witness))


def _fetch_one(archive: Archive, root: Path, keep: bool) -> None:
    path = root / STORE / archive.name
    if not path.exists():
        _log.info("%s: fetching %s", archive.name, readable(archive.size))
        download(archive, path)
    verify(archive, path)
    _write_note(archive, root, _BEGUN)
    # After an interruption all is unpacked anew: a power failure may have emptied files that have their names.
    count = unpack(path, root / archive.folder, archive.top, 2 * archive.unpacked)
    if hasattr(os, "sync"):
        os.sync()  # one by one, so many small files would take far longer
    _write_note(archive, root, _DONE)
    _log.info("%s: unpacked %d files", archive.name, count)
    if not keep:
        path.unlink()


def _ask_for_room(missing: list[Archive], root: Path, keep: bool) -> None:
    transfers = [archive.size - _fetched(root / STORE / archive.name) for archive in missing]
    # What is half unpacked is measured when the archive is opened.
    contents = sum(archive.unpacked for archive in missing if _note(archive, root) != _BEGUN)
    transfer = sum(transfers) if keep else max(transfers, default=0)
    shares = f"({readable(contents)} unpacked, {readable(transfer)} for archives)"
    ask_for_room(root, contents + transfer, shares)


def _fetched(path: Path) -> int:
    """How much of an archive is there."""
    part = path.with_name(path.name + ".part")
    return next((place.stat().st_size for place in (path, part) if place.exists()), 0)


def _note_path(archive: Archive, root: Path) -> Path:
    return root / STORE / f"{archive.name}.state"


def _note(archive: Archive, root: Path) -> str:
    """How far a part came, by its note; one about another version of the archive says nothing."""
    try:
        word, _, sha256 = _note_path(archive, root).read_text(encoding="ascii").strip().partition(" ")
    except (FileNotFoundError, ValueError):
        return ""
    return word if sha256 == archive.sha256 else ""


def _write_note(archive: Archive, root: Path, word: str) -> None:
    replace_file(_note_path(archive, root), f"{word} {archive.sha256}\n")
