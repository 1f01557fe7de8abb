"""Pickles of numpy arrays, read without numpy's own unpickling, which trusts what a file says of its elements."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from detector.pickle_shape import refuse_bombs

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


class _Allowance:
    """How many bytes may still be copied, lest a pickle makes arrays without end of a text that it holds once.

    Args:
        size: of the file. Bytes are copied twice where Python 3 wrote them as text: to bytes, and to an array.
    """

    def __init__(self, size: int) -> None:
        self._left = 2 * size

    def take(self, count: int) -> None:
        """Before so many bytes are copied."""
        self._left -= count
        if self._left < 0:
            raise pickle.UnpicklingError("one content for many arrays")


class PickledArray:
    """An array as its pickle describes it.

    Args:
        allowance: of its file.

    Attributes:
        array: its contents; empty until they come.
    """

    __slots__ = ("_allowance", "array")

    def __init__(self, allowance: _Allowance) -> None:
        self._allowance = allowance
        self.array: np.ndarray = np.zeros(0, dtype=np.float32)

    def __setstate__(self, state: Any) -> None:
        _, shape, elements, by_column, content = state
        if not isinstance(elements, _Elements) or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise pickle.UnpicklingError("an array of an unusual kind")
        # A number would be taken for a length.
        if not isinstance(content, bytes | str):
            raise pickle.UnpicklingError("an array of an unusual kind")
        self._allowance.take(len(content))
        raw = content.encode("latin1") if isinstance(content, str) else content  # text is from Python 2
        flat = np.frombuffer(raw, elements.dtype)
        ordered = flat.reshape(tuple(shape), order="F" if by_column else "C")
        self.array = ordered.astype(elements.dtype.newbyteorder("="))


class _Ordered(dict[Any, Any]):
    """Stands for ``OrderedDict``, without the attributes that torch gives it."""

    def __setstate__(self, _: Any) -> None:
        """Takes none, as they could be copied again and again."""


def _reconstruct(allowance: _Allowance, kind: Any, shape: Any, code: Any) -> PickledArray:
    """The empty array that numpy's pickles start from; its contents come with ``__setstate__``."""
    if kind is not _NDARRAY or tuple(shape) != (0,):
        raise pickle.UnpicklingError("an array of an unusual kind")
    return PickledArray(allowance)


def _encode(allowance: _Allowance, text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes of an unusual encoding")
    allowance.take(len(text))
    return text.encode("latin1")


def _ordered(allowance: _Allowance, items: Any = ()) -> _Ordered:
    """Empty, or of the list of pairs that Python 2 wrote, each of which takes more than eight bytes there."""
    if not isinstance(items, list | tuple):
        raise pickle.UnpicklingError("a dictionary of an unusual kind")
    allowance.take(8 * len(items))
    return _Ordered(items)


def _scalar(_: _Allowance, elements: Any, content: Any) -> Any:
    if not isinstance(elements, _Elements) or not isinstance(content, bytes):
        raise pickle.UnpicklingError("a number of an unusual kind")
    return np.frombuffer(content, elements.dtype, count=1)[0]


_CALLABLES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy", "dtype"): lambda _, code, *__: _Elements(code),
    ("collections", "OrderedDict"): _ordered,
    ("_codecs", "encode"): _encode,
}


class _Call:
    """A function that a pickle may call, and change in no way.

    Args:
        function: takes the allowance before what the pickle gives it.
        allowance: of the file.
    """

    __slots__ = ("_allowance", "_function")

    def __init__(self, function: Callable[..., Any], allowance: _Allowance) -> None:
        self._function = function
        self._allowance = allowance

    def __call__(self, *arguments: Any) -> Any:
        return self._function(self._allowance, *arguments)

    def __setstate__(self, _: Any) -> None:
        """A function that is made to call itself would end the process."""
        raise pickle.UnpicklingError("a function of an unusual kind")


class _Unpickler(pickle.Unpickler):
    """Admits numpy arrays, numbers and plain containers; every other name in the file is refused."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(file, encoding="latin1")
        self._allowance = _Allowance(size)

    def find_class(self, module: str, name: str) -> Any:
        """The few things that numpy's own pickles name; what can be called stands in a shell."""
        place = module.replace("numpy._core", "numpy.core"), name
        if place in _CALLABLES:
            return _Call(_CALLABLES[place], self._allowance)
        if place == ("numpy", "ndarray"):
            return _NDARRAY
        raise pickle.UnpicklingError(f"{module}.{name}")


def read_numpy_pickle(file: IO[bytes]) -> Any:
    """What a pickle holds, with a ``PickledArray`` for each array, and texts of Python 2 as texts.

    Raises:
        pickle.UnpicklingError: it names anything beyond arrays, numbers and containers, or would make far more of
            them than it holds.
        Exception: of many kinds, where it is damaged.
    """
    refuse_bombs(file)
    size = file.seek(0, 2)
    file.seek(0)
    return _Unpickler(file, size).load()
