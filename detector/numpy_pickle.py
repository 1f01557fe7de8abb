"""Pickles of numpy arrays, read without numpy's own unpickling, which trusts what a file says of its elements."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import IO, Any

import numpy as np

from detector.pickle_shape import refuse_nested_tuples

# What unpickling is seen to raise on damaged files.
DAMAGE = (
    RuntimeError, ValueError, EOFError, OSError, LookupError, AttributeError, TypeError, AssertionError, SyntaxError,
    ArithmeticError, MemoryError, ImportError, struct.error,
)  # fmt: skip
_NDARRAY = object()  # stands for ``numpy.ndarray``, which is only ever an argument


class _Elements:
    """Stands for ``numpy.dtype``: numbers and truth values."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any) -> None:
        name = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(name, str) or len(name) > 16 or np.dtype(name).kind not in "fiub":
            raise pickle.UnpicklingError("an array of something else than numbers")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        """Numpy puts the order of bytes here."""
        _, order, *structure = state
        if order not in ("<", ">", "|", "=") or structure[:3] != [None] * 3:
            raise pickle.UnpicklingError("an array of something else than numbers")
        self.dtype = self.dtype.newbyteorder(order)


class PickledArray:
    """An array as its pickle describes it.

    Attributes:
        array: its contents; empty until they come.
    """

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: np.ndarray = np.zeros(0, dtype=np.float32)

    def __setstate__(self, state: Any) -> None:
        _, shape, elements, by_column, content = state
        if not isinstance(elements, _Elements) or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise pickle.UnpicklingError("an array of an unusual kind")
        raw = content.encode("latin1") if isinstance(content, str) else bytes(content)  # text is from Python 2
        flat = np.frombuffer(raw, elements.dtype)
        ordered = flat.reshape(tuple(shape), order="F" if by_column else "C")
        self.array = ordered.astype(elements.dtype.newbyteorder("="))


def _reconstruct(kind: Any, shape: Any, code: Any) -> PickledArray:
    """The empty array that numpy's pickles start from; its contents come with ``__setstate__``."""
    if kind is not _NDARRAY or tuple(shape) != (0,):
        raise pickle.UnpicklingError("an array of an unusual kind")
    return PickledArray()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes of an unusual encoding")
    return text.encode("latin1")


def _scalar(elements: Any, content: Any) -> Any:
    if not isinstance(elements, _Elements) or not isinstance(content, bytes):
        raise pickle.UnpicklingError("a number of an unusual kind")
    return np.frombuffer(content, elements.dtype, count=1)[0]


_CALLABLES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy", "dtype"): lambda code, *_: _Elements(code),
    ("_codecs", "encode"): _encode,
}
_OTHERS = {("numpy", "ndarray"): _NDARRAY, ("collections", "OrderedDict"): OrderedDict}


class _Unpickler(pickle.Unpickler):
    """Admits numpy arrays, numbers and plain containers; every other name in the file is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """The few things that numpy's own pickles name; callables in a shell, since a pickle can set attributes."""
        place = module.replace("numpy._core", "numpy.core"), name
        if place in _CALLABLES:
            return partial(_CALLABLES[place])
        if place in _OTHERS:
            return _OTHERS[place]
        raise pickle.UnpicklingError(f"{module}.{name}")


def read_numpy_pickle(file: IO[bytes]) -> Any:
    """What a pickle holds, with a ``PickledArray`` for each array, and texts of Python 2 as texts.

    Raises:
        pickle.UnpicklingError: it names anything beyond arrays, numbers and containers.
        Exception: of many kinds, where it is damaged.
    """
    refuse_nested_tuples(file)
    file.seek(0)
    return _Unpickler(file, encoding="latin1").load()
