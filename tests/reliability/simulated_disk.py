"""A disk that fails where a test wants it to, and what a cut of the power may leave of it.

``SimulatedDisk`` stands between this process and one folder: the system calls that change files there are counted and
logged, and one of them can be made to fail, or to be the last thing that the process does.

``states_after`` makes states out of such a log that POSIX permits after a cut of the power. Certain is only what was
flushed: of other data any part may be there, or zeros in its place, and each name in a folder that was made, changed or
removed since the folder was flushed may be as before or as after.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn
from unittest.mock import patch

from typing_extensions import Self

KILLS = ("killed before", "killed after", "killed within")
ERRORS = ("ENOSPC", "EIO", "EIO although done", "EIO from then on")
SHORT = "short"

_BY_PATH = ("open", "replace", "rename", "mkdir", "unlink", "rmdir", "listdir")
_BY_DESCRIPTOR = ("write", "fsync", "close")


class Killed(BaseException):
    """Stands for SIGKILL: whatever runs after it cannot change the disk any more."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Attributes:
        number: of the operation that it happens to, from 0.
        kind: "killed before" or "killed after" the operation; "killed within" a write, of which half is done; "ENOSPC"
            or "EIO" without an effect; "EIO although done", as network file systems have it; "EIO from then on" for
            all that follows, too; "short" for a write that takes half of the bytes and says so.
    """

    number: int
    kind: str


@dataclass(frozen=True)
class Operation:
    """A system call that took effect, or ``acknowledged``: what the program has promised by then."""

    name: str
    arguments: tuple[Any, ...]


class SimulatedDisk:
    """Counts, logs and spoils what this process does to the files below a folder while the ``with`` block runs.

    Args:
        root: the folder.
        fault: what shall go wrong.

    Attributes:
        count: operations so far.
        log: those that took effect, and what was acknowledged.
        struck: name of the operation that the fault happened to; empty as long as there is none.
        dead: whether the process was killed.
    """

    def __init__(self, root: Path, fault: Fault | None = None) -> None:
        self.root, self.fault = root, fault
        self.count = 0
        self.log: list[Operation] = []
        self.struck = ""
        self.dead = False
        self._open: set[int] = set()
        self._real: dict[str, Callable[..., Any]] = {}

    def __enter__(self) -> Self:
        names = (*_BY_PATH, *_BY_DESCRIPTOR)
        self._real = {name: getattr(os, name) for name in names}
        self._patches = patch.multiple(os, **{name: self._instead_of(name) for name in names})
        self._patches.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patches.stop()
        for descriptor in self._open:
            os.close(descriptor)

    def acknowledge(self, what: object) -> None:
        """Notes a promise of the program: from here on it must survive."""
        if not self.dead:
            self.log.append(Operation("acknowledged", (what,)))

    @property
    def acknowledged(self) -> Any:
        """The last promise; None if there was none."""
        return promise(self.log)

    def _instead_of(self, name: str) -> Callable[..., Any]:
        def call(first: Any, *others: Any, **options: Any) -> Any:
            ours = first in self._open if name in _BY_DESCRIPTOR else self._contains(first)
            return self._perform(name, first, *others) if ours else self._real[name](first, *others, **options)

        return call

    def _contains(self, path: Any) -> bool:
        return isinstance(path, str | Path) and Path(path).is_relative_to(self.root)

    def _perform(self, name: str, *arguments: Any) -> Any:
        if self.dead:
            return self._after_death(name, *arguments)
        kind = self._fault_of(name)
        if kind == "killed before":
            self._die()
        if kind in ("ENOSPC", "EIO", "EIO from then on"):
            if name == "close":  # Linux gives the descriptor back all the same
                self._do(name, *arguments)
            _fail(kind, arguments[0])
        if kind in ("killed within", SHORT):
            descriptor, data = arguments
            arguments = (descriptor, data[: max(1, len(data) // 2)])
        result = self._do(name, *arguments)
        if kind.startswith("killed"):
            self._die()
        if kind == "EIO although done":
            if name == "open":
                self._do("close", result)
            _fail(kind, arguments[0])
        return result

    def _fault_of(self, name: str) -> str:
        number, self.count = self.count, self.count + 1
        if self.fault is None or number < self.fault.number:
            return ""
        kind = self.fault.kind
        if number > self.fault.number:
            return kind if kind == "EIO from then on" else ""
        if kind in ("killed within", SHORT) and name != "write":
            return ""
        self.struck = name
        return kind

    def _do(self, name: str, *arguments: Any) -> Any:
        result = None if name == "fsync" else self._real[name](*arguments)  # nothing here needs the real disk
        if name == "open":
            self._open.add(result)
            self._note(name, arguments[0], bool(arguments[1] & os.O_CREAT), result)
        elif name == "write":
            self._note(name, arguments[0], bytes(arguments[1][:result]))
        elif name in ("replace", "rename"):
            self._note("rename", *arguments)
        elif name != "listdir":
            self._note(name, arguments[0])
        if name == "close":
            self._open.discard(arguments[0])
        return result

    def _note(self, name: str, *arguments: Any) -> None:
        plain = (
            Path(item).relative_to(self.root).as_posix() if isinstance(item, str | Path) else item for item in arguments
        )
        self.log.append(Operation(name, tuple(plain)))

    def _die(self) -> NoReturn:
        self.dead = True
        raise Killed

    def _after_death(self, name: str, *arguments: Any) -> Any:
        """Python still runs its ``finally`` blocks, and torch the end of its file; neither reaches the disk."""
        if name == "write":
            return len(arguments[1])
        if name == "close":
            return None
        raise Killed


def _fail(kind: str, what: Any) -> NoReturn:
    code = errno.ENOSPC if kind == "ENOSPC" else errno.EIO
    raise OSError(code, os.strerror(code), *([] if isinstance(what, int) else [str(what)]))


def promise(log: Sequence[Operation]) -> Any:
    """What was acknowledged last; None if nothing was."""
    return next((item.arguments[0] for item in reversed(log) if item.name == "acknowledged"), None)


@dataclass
class _File:
    content: bytearray = field(default_factory=bytearray)
    certain: int = 0


@dataclass
class _Folder:
    entries: dict[str, _File | _Folder] = field(default_factory=dict)
    certain: dict[str, _File | _Folder] = field(default_factory=dict)
    uncertain: list[dict[str, _File | _Folder | None]] = field(default_factory=list)

    def change(self, change: dict[str, _File | _Folder | None]) -> None:
        _apply(self.entries, change)
        self.uncertain.append(change)

    def flush(self) -> None:
        self.certain, self.uncertain = dict(self.entries), []


def _apply(entries: dict[str, _File | _Folder], change: dict[str, _File | _Folder | None]) -> None:
    for name, node in change.items():
        entries.pop(name, None)
        if node is not None:
            entries[name] = node


class _Tree:
    """What the operations of a log make of an empty folder."""

    def __init__(self, file_flushes: bool, folder_flushes: bool) -> None:
        self.root = _Folder()
        self._file_flushes, self._folder_flushes = file_flushes, folder_flushes
        self._descriptors: dict[int, _File | _Folder] = {}

    def perform(self, operation: Operation) -> None:
        getattr(self, f"_{operation.name}")(*operation.arguments)

    def _acknowledged(self, what: object) -> None:
        pass

    def _open(self, path: str, create: bool, descriptor: int) -> None:
        folder, name = self._place(path)
        if create and name not in folder.entries:
            folder.change({name: _File()})
        self._descriptors[descriptor] = folder.entries[name] if name else self.root

    def _write(self, descriptor: int, data: bytes) -> None:
        file = self._descriptors[descriptor]
        assert isinstance(file, _File)
        file.content += data

    def _fsync(self, descriptor: int) -> None:
        node = self._descriptors[descriptor]
        if isinstance(node, _File):
            node.certain = len(node.content) if self._file_flushes else 0
        elif self._folder_flushes:
            node.flush()

    def _close(self, descriptor: int) -> None:
        del self._descriptors[descriptor]

    def _mkdir(self, path: str) -> None:
        folder, name = self._place(path)
        assert name not in folder.entries
        folder.change({name: _Folder()})

    def _rename(self, old: str, new: str) -> None:
        folder, old_name = self._place(old)
        target, new_name = self._place(new)
        assert folder is target, "a rename into another folder is not modelled"
        folder.change({old_name: None, new_name: folder.entries[old_name]})

    def _unlink(self, path: str) -> None:
        folder, name = self._place(path)
        assert name in folder.entries
        folder.change({name: None})

    _rmdir = _unlink

    def _place(self, path: str) -> tuple[_Folder, str]:
        *folders, name = Path(path).parts or ("",)
        node: _File | _Folder = self.root
        for part in folders:
            assert isinstance(node, _Folder)
            node = node.entries[part]
        assert isinstance(node, _Folder)
        return node, name


State = tuple[tuple[str, bytes | None], ...]


def states_after(
    log: Sequence[Operation], count: int, seed: int, *, file_flushes: bool = True, folder_flushes: bool = True
) -> Iterator[State]:
    """States of the folder that POSIX permits after a cut of the power, as pairs of path and content.

    The first one has lost all that can be lost, the second one nothing; the others are drawn.

    Args:
        log: the operations until the cut, on a folder that was empty at first.
        count: how many states.
        seed: of the draws.
        file_flushes: a flush makes a file's data certain.
        folder_flushes: a flush makes the names in a folder certain.
    """
    tree = _Tree(file_flushes, folder_flushes)
    for operation in log:
        tree.perform(operation)
    draws = random.Random(seed)
    for number in range(count):
        share = float(number) if number < 2 else draws.choice((0.2, 0.5, 0.8))
        yield tuple(sorted(_survivors(tree.root, "", share, draws)))


def _survivors(folder: _Folder, path: str, share: float, draws: random.Random) -> Iterator[tuple[str, bytes | None]]:
    entries = dict(folder.certain)
    for change in folder.uncertain:
        if draws.random() < share:
            _apply(entries, change)
    for name, node in entries.items():
        if isinstance(node, _Folder):
            yield path + name, None
            yield from _survivors(node, f"{path}{name}/", share, draws)
        else:
            yield path + name, _remains(node, share, draws)


def _remains(file: _File, share: float, draws: random.Random) -> bytes:
    certain, rest = bytes(file.content[: file.certain]), bytes(file.content[file.certain :])
    if not rest or draws.random() < share:
        return certain + rest
    if draws.random() < 0.3:
        rest = rest[: draws.randrange(len(rest) + 1) if share else 0]
    arrived = draws.randrange(len(rest) + 1) if share else 0
    zeros = bytes(len(rest) - arrived)
    return certain + (rest[:arrived] + zeros if draws.random() < 0.5 else zeros + rest[len(zeros) :])


def build(state: State, folder: Path) -> None:
    """Writes a state to a new folder."""
    folder.mkdir()
    for name, content in state:
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


def read(folder: Path) -> State:
    """The state that a folder is in."""
    found = ((item.relative_to(folder).as_posix(), item) for item in folder.rglob("*"))
    return tuple(sorted((name, None if item.is_dir() else item.read_bytes()) for name, item in found))
