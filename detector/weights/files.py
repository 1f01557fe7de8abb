"""Tensors out of any weights file, told apart by contents and not by name, without running anything in it."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from detector.errors import WeightsError, one_line, quote
from detector.numpy_pickle import DAMAGE, PickledArray, read_numpy_pickle
from detector.pickle_shape import PickleBomb, refuse_bombs

_ZIP = b"PK\x03\x04"
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# What the readers are seen to raise on damaged files.
_DAMAGE = (*DAMAGE, zipfile.BadZipFile)
_ELEMENTS = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool,
}  # fmt: skip
_LARGE = 2**30
# A file in torch's old format is five pickles and then bytes; the fourth holds the tensors.
_LEGACY_PICKLES = 5
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
        return _named_tensors(read_torch(path), path), {}
    # A safetensors file begins with 8 bytes of length, the first of which may be 0x80, too.
    if start[:1] == b"\x80" and start[8:9] != b"{":
        return _named_tensors(_read_numpy_pickle(path), path), {}
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {key: _plain(file.get_tensor(key), key, path) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: not a weights file, or damaged ({quote(str(error), 80)[1:-1]})") from None


def read_torch(path: Path) -> Any:
    """What a file of ``torch.save`` holds; nothing in it is run.

    Raises:
        WeightsError: it is damaged, or holds more than tensors and plain values.
    """
    try:
        with path.open("rb") as file:
            _refuse_bombs_within(file, path)
            file.seek(0)
            # The open file and not its path: torch takes a path that ends in .safetensors for such a file.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of tensors that ``_plain`` refuses
                return torch.load(file, map_location="cpu", weights_only=True)
    except PickleBomb as error:
        raise WeightsError(f"{path}: is not opened, since it would take all memory or time ({error})") from None
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: holds more than tensors and plain values, and is not opened ({quote(_refused(error), 80)})"
        ) from None
    except _DAMAGE:
        raise WeightsError(f"{path}: is damaged, or no weights file") from None


def _refuse_bombs_within(file: IO[bytes], path: Path) -> None:
    """Refuses what torch's restricted reader lets through, though it takes all memory, all time or the process."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        for _ in range(_LEGACY_PICKLES):
            refuse_bombs(file)
        return
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        # torch stores its members plainly; a compressed one can unpack to a thousand times its size.
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise WeightsError(f"{path}: is a compressed archive, not a file of torch.save")
        if sum(member.file_size for member in members) > size:
            raise WeightsError(f"{path}: is damaged: it declares more bytes than it holds")
        for member in members:
            if member.filename.lower().endswith("data.pkl"):  # torch takes capitals, too
                with archive.open(member) as program:
                    refuse_bombs(program)


def _refused(error: BaseException) -> str:
    words = str(error).split()
    return next((word for word in words if "." in word and word[0].isalpha()), "unknown content")


def _read_numpy_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return read_numpy_pickle(file)
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
    held = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor | PickledArray | np.ndarray)
    }
    if not held:
        raise WeightsError(f"{path}: holds no tensors")
    return {key: _plain(value, key, path) for key, value in held.items()}


def _plain(value: Tensor | PickledArray | np.ndarray, key: str, path: Path) -> Tensor:
    """A tensor of numbers that are in the file, all of them."""
    try:
        array = value.array if isinstance(value, PickledArray) else value
        tensor = array.detach() if isinstance(array, Tensor) else torch.from_numpy(np.ascontiguousarray(array))
    except (TypeError, ValueError):
        raise WeightsError(f"{path}: holds arrays of a kind that is no tensor ({one_line(key, 100)})") from None
    kind = str(tensor.dtype) if tensor.dtype not in _ELEMENTS else ""
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.device.type != "cpu":
        kind = "sparse, nested or without contents"
    elif not kind and tensor.numel() * tensor.element_size() > max(_LARGE, tensor.untyped_storage().nbytes()):
        kind = "repeated instead of written out"
    if kind:
        raise WeightsError(f"{path}: {one_line(key, 100)} is no plain tensor of numbers: {kind}")
    return tensor
