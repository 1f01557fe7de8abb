"""Long lists of ids and names in flat arrays.

A worker process that reads a Python object writes to its reference count, and so gets its own copy of the memory page;
millions of ids and names would soon be in memory once a worker. Arrays stay shared, and can lie in a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, overload

import numpy as np

from detector.structures import ImageId


class PackedTexts(Sequence[str]):
    """Texts as one array of bytes.

    Args:
        bytes_: ``(B,)`` uint8: all texts in UTF-8, one after another.
        ends: ``(N,)`` int64: where each text ends.
    """

    def __init__(self, bytes_: np.ndarray, ends: np.ndarray) -> None:
        self.bytes_ = bytes_
        self.ends = ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> PackedTexts:
        """Packs texts."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        ends = np.fromiter(accumulate(map(len, encoded)), dtype=np.int64, count=len(encoded))
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[item] for item in range(*index.indices(len(self))))
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        return self.bytes_[start : self.ends[index]].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        whole, start = self.bytes_.tobytes(), 0
        for end in self.ends.tolist():
            yield whole[start:end].decode("utf-8", "surrogatepass")
            start = end

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_equal, self, other))

    __hash__ = None  # type: ignore[assignment]


class PackedNumbers(Sequence[int]):
    """Whole numbers of 64 bits.

    Args:
        values: ``(N,)`` int64.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...

    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        found = self.values[index]
        return tuple(found.tolist()) if isinstance(index, slice) else int(found)

    def __iter__(self) -> Iterator[int]:
        return iter(self.values.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_equal, self, other))

    __hash__ = None  # type: ignore[assignment]


def pack_ids(ids: Sequence[ImageId]) -> Sequence[ImageId]:
    """Ids in the most compact form; a mixture of texts and numbers, and huge numbers, stay as they are."""
    kinds = set(map(type, ids))
    if kinds == {int} and max(map(abs, ids)) < 2**63:  # type: ignore[arg-type]
        return PackedNumbers(np.array(ids, dtype=np.int64))
    if kinds == {str}:
        return PackedTexts.of(ids)  # type: ignore[arg-type]
    return tuple(ids)


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other)
