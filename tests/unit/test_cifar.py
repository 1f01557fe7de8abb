"""CIFAR-10 and CIFAR-100 in both forms in which they were published, with a few images in each file."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.config import parse_config
from detector.data.classification.build import open_labelled
from detector.data.classification.cifar import CifarDataset, open_cifar
from detector.data.dataset import check_dataset
from detector.errors import DatasetError
from detector.pickle_shape import refuse_bombs

TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
HUNDRED = [f"class {number:02d}" for number in range(100)]
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


def rows(seed: int, count: int = 4) -> np.ndarray:
    """Images as the files have them: 1024 red values, 1024 green, 1024 blue."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def labels(seed: int, classes: int) -> list[int]:
    return [(seed + number) % classes for number in range(4)]


def by_python_2(value: Any) -> bytes:
    """What Python 2 and its numpy pickle in protocol 2; bytes stand for its texts."""
    match value:
        case dict():
            items = b"".join(by_python_2(key) + by_python_2(item) for key, item in value.items())
            return b"}(" + items + b"u"
        case list():
            return b"](" + b"".join(map(by_python_2, value)) + b"e"
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case int():
            return b"J" + struct.pack("<i", value)
        case np.ndarray():
            shape = by_python_2(value.shape[0]) + by_python_2(value.shape[1]) + b"\x86"
            start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n(K\x00tU\x01b\x87R"
            dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            return start + b"(K\x01" + shape + dtype + b"\x89" + by_python_2(value.tobytes()) + b"tb"
    raise TypeError(value)


def old(value: Any) -> bytes:
    return b"\x80\x02" + by_python_2(value) + b"."


def new(value: Any) -> bytes:
    return pickle.dumps(value, protocol=2)


def write(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def ten_python(root: Path, dump: Callable[[Any], bytes] = old) -> Path:
    batches = {
        name: dump({b"batch_label": b"x", b"labels": labels(seed, 10), b"data": rows(seed), b"filenames": [b"a.png"]})
        for seed, name in enumerate([*BATCHES, "test_batch"])
    }
    meta = dump({b"num_cases_per_batch": 4, b"label_names": [name.encode() for name in TEN], b"num_vis": 3072})
    return write(root / "cifar-10-batches-py", {**batches, "batches.meta": meta})


def ten_binary(root: Path) -> Path:
    batches = {
        f"{name}.bin": records(np.array(labels(seed, 10))[:, None], rows(seed))
        for seed, name in enumerate([*BATCHES, "test_batch"])
    }
    return write(root / "cifar-10-batches-bin", {**batches, "batches.meta.txt": "\n".join([*TEN, ""]).encode()})


def hundred_python(root: Path) -> Path:
    batches = {
        name: old({b"fine_labels": labels(seed + 97, 100), b"coarse_labels": [0] * 4, b"data": rows(seed)})
        for seed, name in enumerate(["train", "test"])
    }
    meta = old({b"fine_label_names": [name.encode() for name in HUNDRED], b"coarse_label_names": [b"x"] * 20})
    return write(root / "cifar-100-python", {**batches, "meta": meta})


def hundred_binary(root: Path) -> Path:
    batches = {
        f"{name}.bin": records(np.array([[7, label] for label in labels(seed + 97, 100)]), rows(seed))
        for seed, name in enumerate(["train", "test"])
    }
    names = "\n".join(HUNDRED).encode()
    return write(root / "cifar-100-binary", {**batches, "fine_label_names.txt": names})


def records(before: np.ndarray, images: np.ndarray) -> bytes:
    return np.concatenate([before.astype(np.uint8), images], axis=1).tobytes()


def ten(root: Path, split: str = "train", classes: list[str] | None = None) -> CifarDataset:
    return open_cifar(root, "cifar10", "train" if split == "train" else "test", classes, {})


def refusal(root: Path, split: str = "train") -> str:
    with pytest.raises(DatasetError) as caught:
        ten(root, split)
    message = str(caught.value)
    assert message.isprintable()
    return message


# What is read


@pytest.mark.parametrize("make", [ten_python, lambda root: ten_python(root, new), ten_binary])
def test_each_form_of_cifar10_holds_the_same(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    make(tmp_path)
    train, test = ten(tmp_path), ten(tmp_path, "test")
    check_dataset(train)
    assert train.annotations.class_names == tuple(TEN)
    assert train.annotations.labels.tolist() == [label for seed in range(5) for label in labels(seed, 10)]
    assert test.annotations.labels.tolist() == labels(5, 10)
    expected = np.concatenate([rows(seed) for seed in range(5)]).reshape(-1, 3, 32, 32)
    assert (train.images == expected.transpose(0, 2, 3, 1)).all()


@pytest.mark.parametrize("make", [hundred_python, hundred_binary])
def test_each_form_of_cifar100_has_the_fine_classes(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    make(tmp_path)
    test = open_cifar(tmp_path, "cifar100", "test", None, {})
    assert test.annotations.class_names == tuple(HUNDRED)
    assert test.annotations.labels.tolist() == labels(98, 100) == [98, 99, 0, 1]
    assert (test[2].image[:, :, 1] == rows(1)[2, 1024:2048].reshape(32, 32)).all()


def test_a_pickle_may_have_as_many_commands_as_the_largest_published() -> None:
    numbers = [number % 100 for number in range(50_000)]
    names = [f"some_picture_s_{number:06d}.png" for number in range(50_000)]
    refuse_bombs(io.BytesIO(new({"fine_labels": numbers, "coarse_labels": numbers[:], "filenames": names})))


def test_the_folder_itself_can_be_named(tmp_path: Path) -> None:
    assert len(ten(ten_python(tmp_path))) == 20


def test_it_is_opened_from_a_configuration(tmp_path: Path) -> None:
    ten_binary(tmp_path)
    text = f"data: {{val: [{{format: cifar10, root: {tmp_path}, split: test}}]}}"
    assert len(open_labelled(parse_config(text, "test.yaml"), "val")) == 4


def test_an_image_given_out_can_be_changed_without_harm(tmp_path: Path) -> None:
    dataset = ten(ten_binary(tmp_path))
    before = dataset[0].image.copy()
    dataset[0].image[:] = 0
    assert (dataset[0].image == before).all()


def test_splits_have_ids_of_their_own(tmp_path: Path) -> None:
    ten_binary(tmp_path)
    assert not set(ten(tmp_path).annotations.image_ids) & set(ten(tmp_path, "test").annotations.image_ids)


def test_given_classes_choose_and_order(tmp_path: Path) -> None:
    whole, some = ten(ten_binary(tmp_path)), ten(tmp_path, classes=["cat", "airplane"])
    assert some.annotations.labels.tolist() == [1, 0, 0, 0, 0]
    assert list(some.annotations.image_ids) == [whole.annotations.image_ids[index] for index in (0, 3, 6, 9, 12)]
    assert (some[1].image == whole[3].image).all()


def test_a_number_of_images_that_was_not_published_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ten(ten_binary(tmp_path))
    assert "20 images of train, where 50000 were published" in caplog.text


# What is refused


def test_an_archive_beside_is_to_be_unpacked(tmp_path: Path) -> None:
    write(tmp_path, {"cifar-10-python.tar.gz": b""})
    assert f"tar -xzf {tmp_path}/cifar-10-python.tar.gz -C {tmp_path}" in refusal(tmp_path)


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    write(tmp_path, {"cifar-10-python.tar.gz": b""})
    assert "is a file; unpack it" in refusal(tmp_path / "cifar-10-python.tar.gz")


def test_the_other_set_is_refused(tmp_path: Path) -> None:
    hundred_python(tmp_path)
    assert refusal(tmp_path).startswith(f"{tmp_path}: neither cifar-10-batches-py nor cifar-10-batches-bin is here")


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (ten_python(tmp_path) / name).unlink()
    assert refusal(tmp_path).startswith(f"{tmp_path}/cifar-10-batches-py/{name}: no such file")


def test_only_the_files_of_the_split_are_wanted(tmp_path: Path) -> None:
    (ten_python(tmp_path) / "data_batch_3").unlink()
    assert len(ten(tmp_path, "test")) == 4


@pytest.mark.parametrize("length", [0, 1, 50, 2000, 12_300])
def test_a_pickle_that_is_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    path = ten_python(tmp_path) / "data_batch_2"
    path.write_bytes(path.read_bytes()[:length])
    assert refusal(tmp_path).startswith(f"{path}: is damaged")


def test_bytes_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    path = ten_binary(tmp_path) / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(tmp_path).startswith(f"{path}: has 12291 bytes, which is no multiple of 3073")


def test_an_empty_file_of_bytes_is_refused(tmp_path: Path) -> None:
    (ten_binary(tmp_path) / "data_batch_2.bin").write_bytes(b"")
    assert refusal(tmp_path).endswith("data_batch_2.bin: holds no images; unpack the archive anew")


def test_a_pickle_that_names_a_function_is_not_run(tmp_path: Path) -> None:
    content = b"\x80\x02cos\nsystem\nU\x0btouch ownedtU\x01aR."
    (ten_python(tmp_path) / "data_batch_1").write_bytes(content)
    assert "holds more than arrays and plain values (os.system)" in refusal(tmp_path)
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "is not of CIFAR: holds a list"),
        ({b"data": [1], b"labels": [1]}, "holds no data and labels"),
        ({b"data": rows(0), b"fine_labels": [1] * 4}, "holds no data and labels"),
        (
            {b"data": rows(0), b"labels": [1] * 3},
            "data must be uint8 of 3 x 3072, as there are 3 labels, got uint8 of 4",
        ),
        ({b"data": rows(0)[:, :9].copy(), b"labels": [1] * 4}, "got uint8 of 4 x 9"),
        ({b"data": rows(0), b"labels": [1, 2, 3, 10]}, "labels must be 0..9, got 1..10"),
        ({b"data": rows(0), b"labels": [1, 2, 3, -1]}, "labels must be 0..9, got -1..3"),
        ({b"data": rows(0), b"labels": [1, 2, 3, b"cat"]}, "labels must be whole numbers"),
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: Any, words: str) -> None:
    (ten_python(tmp_path) / "data_batch_1").write_bytes(old(content))
    assert words in refusal(tmp_path)


@pytest.mark.parametrize("names", [[b"cat"], [b"cat", b"cat"], [b"cat", b""], [b"cat", b"\x1b[2J"], 7])
def test_odd_names_of_classes_are_refused(tmp_path: Path, names: Any) -> None:
    (ten_python(tmp_path) / "batches.meta").write_bytes(old({b"label_names": names}))
    assert refusal(tmp_path).startswith(f"{tmp_path}/cifar-10-batches-py/batches.meta: holds no ")


DEEP = b"]" * 100_000 + b"a" * 99_999
LONG = b"\x8b" + struct.pack("<i", 2500) + b"\x7f" * 2500  # 6020 digits


@pytest.mark.parametrize("name", [LONG, DEEP, b"N", b"K\x05", b"](N]]ae"])
def test_names_of_classes_that_are_no_texts_are_refused(tmp_path: Path, name: bytes) -> None:
    path = ten_python(tmp_path) / "batches.meta"
    path.write_bytes(b"\x80\x02}U\x0blabel_names](U\x03cat" + name + b"es.")
    assert refusal(tmp_path) == f"{path}: holds no names of classes; unpack the archive anew"


@pytest.mark.parametrize("key", [LONG, b"N", b"K\x05", b"G" + struct.pack(">d", 0.5)])
def test_keys_that_are_no_texts_are_passed_over(tmp_path: Path, key: bytes) -> None:
    path = ten_python(tmp_path) / "batches.meta"
    path.write_bytes(path.read_bytes()[:-1] + key + b"K\x00s.")
    assert ten(tmp_path).annotations.class_names == tuple(TEN)
