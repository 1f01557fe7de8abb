from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from detector.errors import WeightsError
from detector.weights.files import read_tensors

MARK = Path("it_ran")


class Hostile:
    """Leaves a mark in the current folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {MARK}",)


class Getattr:
    """Reaches for more through an attribute of something harmless."""

    def __reduce__(self) -> tuple[Any, tuple[Any, str]]:
        return getattr, (np.ndarray, "tofile")


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_state_dict_of_numpy_arrays_is_read(tmp_path: Path, protocol: int) -> None:
    content = torch.nn.Linear(100, 200).state_dict()  # ordered, with attributes
    assert vars(content)
    large = np.full(50_000, 200, dtype=np.uint8)  # in protocol 2 a text that is copied twice
    content.update({key: value.numpy() for key, value in content.items()}, large=large, same=large)
    tensors, _ = read_tensors(_write(tmp_path / "a.pkl", pickle.dumps(content, protocol)))
    assert {key: tuple(value.shape) for key, value in tensors.items()} == {
        "weight": (200, 100), "bias": (200,), "large": (50_000,), "same": (50_000,)
    }  # fmt: skip
    assert (tensors["large"] == 200).all()


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_pickle_of_numpy_arrays_is_read(tmp_path: Path, protocol: int) -> None:
    content = {"model": OrderedDict(a=ARRAY, b=ARRAY.astype(np.float64).T), "iteration": np.float64(3), "author": "me"}
    tensors, _ = read_tensors(_write(tmp_path / "any.name", pickle.dumps(content, protocol)))
    assert set(tensors) == {"a", "b"}
    torch.testing.assert_close(tensors["a"], torch.from_numpy(ARRAY))
    torch.testing.assert_close(tensors["b"], torch.from_numpy(ARRAY.astype(np.float64)).T)


class OfPython2:
    """An ordered dictionary as Python 2 wrote it: with a list of pairs."""

    def __reduce__(self) -> tuple[object, ...]:
        return OrderedDict, ([["a", ARRAY], ["b", ARRAY]],)


def test_an_ordered_dictionary_of_python_2_is_read(tmp_path: Path) -> None:
    tensors, _ = read_tensors(_write(tmp_path / "a.pkl", pickle.dumps(OfPython2(), 2)))
    assert list(tensors) == ["a", "b"]


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"model": {"a": ARRAY, "b": x}}, lambda x: [x]])
@pytest.mark.parametrize("hostile", [Hostile(), Getattr()])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, hostile: object, wrap: Callable[[Any], Any]) -> None:
    path = _write(tmp_path / "model_final.pkl", pickle.dumps(wrap(hostile)))
    with pytest.raises(WeightsError, match=r"holds more than numpy arrays.*is not opened"):
        read_tensors(path)
    assert not MARK.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_file_of_torch_runs_nothing(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "model.pth"
    torch.save({"state_dict": Hostile()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="holds more than tensors"):
        read_tensors(path)
    assert not MARK.exists()


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "objects.pkl", pickle.dumps({"a": np.array([{}, []], dtype=object)}))
    with pytest.raises(WeightsError, match="is not opened"):
        read_tensors(path)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain:
        with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
            for name in plain.namelist():
                bomb.writestr(name, plain.read(name))
    with pytest.raises(WeightsError, match="compressed archive"):
        read_tensors(tmp_path / "bomb.pth")


def test_the_contents_decide_and_not_the_name(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "really_safetensors.pkl")
    torch.save({"model": {"a": torch.ones(2)}}, tmp_path / "really_torch.safetensors")
    for name in ("really_safetensors.pkl", "really_torch.safetensors"):
        assert set(read_tensors(tmp_path / name)[0]) == {"a"}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["pkl", "pth", "safetensors"])
def test_a_file_cut_off_is_named(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / f"cut.{kind}"
    if kind == "pkl":
        path.write_bytes(pickle.dumps({"model": {"a": ARRAY}}))
    elif kind == "pth":
        torch.save({"a": torch.ones(100)}, path)
    else:
        save_file({"a": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_bytes_that_name_nothing_good_never_raise_anything_else(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    good = bytearray(pickle.dumps({"model": {"a": ARRAY}}, 2))
    for number in range(300):
        bad = bytearray(good)
        for _ in range(1 + number % 5):
            bad[random.integers(2, len(bad))] = random.integers(256)
        path = _write(tmp_path / "fuzzed.pkl", bytes(bad))
        try:
            read_tensors(path)
        except WeightsError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("kind", [">f4", "<f4", ">f8", "<f2", ">i4"])
def test_numbers_of_either_order_of_bytes_are_read(tmp_path: Path, kind: str) -> None:
    tensors, _ = read_tensors(_write(tmp_path / "a.pkl", pickle.dumps({"a": ARRAY.astype(kind)})))
    torch.testing.assert_close(tensors["a"].float(), torch.from_numpy(ARRAY))


def test_what_an_array_says_of_its_elements_is_not_trusted(tmp_path: Path) -> None:
    class Lie:
        def __reduce__(self) -> tuple[Any, ...]:
            # Eight bytes each, which hold Python's own objects.
            return np.dtype, ("f8", False, True), (3, "|", None, None, ("a",), 8, 1, 63)

    with pytest.raises(WeightsError, match="holds more than numpy arrays"):
        read_tensors(_write(tmp_path / "a.pkl", pickle.dumps({"a": ARRAY, "b": Lie()})))


@pytest.mark.parametrize("key", [10**5000, (1, 2), None, b"a"], ids=["number", "tuple", "none", "bytes"])
def test_what_stands_under_no_name_is_left_out(tmp_path: Path, key: object) -> None:
    tensors, _ = read_tensors(_write(tmp_path / "a.pkl", pickle.dumps({"a": ARRAY, key: ARRAY})))
    assert list(tensors) == ["a"]
