"""Tensors out of any weights file, told apart by contents and not by name, without running anything in it."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from detector.errors import WeightsError, quote

_ZIP = b"PK\x03\x04"
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# What the readers are seen to raise on damaged files.
_DAMAGE = (
    RuntimeError, ValueError, EOFError, OSError, LookupError, AttributeError, TypeError, AssertionError, SyntaxError,
    ArithmeticError, MemoryError, ImportError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
# Where checkpoints of several toolkits keep their tensors.
_INNER = ("model", "state_dict", "blobs", "params")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads safetensors, files of ``torch.save``, and pickles of numpy arrays.

    Returns:
        Named tensors, and the metadata of a safetensors file (empty for other kinds).

    Raises:
        WeightsError: the file is missing, damaged, of another kind, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    with path.open("rb") as file:
        start = file.read(len(_TORCH_LEGACY))
    if start[:4] == _ZIP or start == _TORCH_LEGACY:
        return _named_tensors(_read_torch(path), path), {}
    # A safetensors file begins with 8 bytes of length, the first of which may be 0x80, too.
    if start[:1] == b"\x80" and start[8:9] != b"{":
        return _named_tensors(_read_numpy_pickle(path), path), {}
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: not a weights file, or damaged ({quote(str(error), 80)[1:-1]})") from None


def _read_torch(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                file.seek(0)
                with zipfile.ZipFile(file) as archive:
                    # torch stores its members plainly; a compressed one can unpack to a thousand times its size.
                    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                        raise WeightsError(f"{path}: is a compressed archive, not a file of torch.save")
            file.seek(0)
            # The open file and not its path: torch takes a path that ends in .safetensors for such a file.
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: holds more than tensors and plain values, and is not opened ({quote(_refused(error), 80)})"
        ) from None
    except _DAMAGE:
        raise WeightsError(f"{path}: is damaged, or no weights file") from None


def _refused(error: BaseException) -> str:
    words = str(error).split()
    return next((word for word in words if "." in word and word[0].isalpha()), "unknown content")


class _NotCallable:
    """Stands for ``numpy.ndarray`` in a pickle, where it is only ever an argument."""


_NDARRAY = _NotCallable()


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """The empty array that numpy's pickles start from; its contents come with ``__setstate__``."""
    if kind is not _NDARRAY or tuple(shape) != (0,):
        raise pickle.UnpicklingError("an array of an unusual kind")
    empty: np.ndarray = np.ndarray((0,), dtype="b")
    return empty


def _dtype(code: Any, *_: Any) -> np.dtype[Any]:
    name = code.decode("latin1") if isinstance(code, bytes) else code
    if not isinstance(name, str) or np.dtype(name).hasobject:
        raise pickle.UnpicklingError("an array of objects")
    return np.dtype(name)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes of an unusual encoding")
    return text.encode("latin1")


def _scalar(dtype: Any, content: Any) -> Any:
    if not isinstance(dtype, np.dtype) or not isinstance(content, bytes):
        raise pickle.UnpicklingError("a number of an unusual kind")
    return np.frombuffer(content, dtype, count=1)[0]


class _NumpyUnpickler(pickle.Unpickler):
    """Admits numpy arrays, numbers and plain containers; every other name in the file is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """The few callables that numpy's own pickles name."""
        module = module.replace("numpy._core", "numpy.core")
        allowed: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy.core.multiarray", "scalar"): _scalar,
            ("numpy", "ndarray"): _NDARRAY,
            ("numpy", "dtype"): _dtype,
            ("_codecs", "encode"): _encode,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return allowed[module, name]


def _read_numpy_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _NumpyUnpickler(file, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: holds more than numpy arrays and plain values, and is not opened ({quote(str(error), 80)})"
        ) from None
    except _DAMAGE:
        raise WeightsError(f"{path}: is damaged, or no weights file") from None


def _named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__} instead of named tensors")
    for key in _INNER:
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    held = {str(key): value for key, value in content.items() if isinstance(value, Tensor | np.ndarray)}
    try:
        tensors = {key: _tensor(value) for key, value in held.items()}
    except (TypeError, ValueError):
        raise WeightsError(f"{path}: holds arrays of a kind that is no tensor") from None
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors")
    return tensors


def _tensor(value: Tensor | np.ndarray) -> Tensor:
    return value.detach() if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
