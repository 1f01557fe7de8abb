"""What was read of a large annotation file, kept for the next start."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import detector.data.coco as coco
from detector.data.coco import open_coco
from detector.data.dataset import FileDataset
from detector.errors import DatasetError

ARRAYS = ("rows", "labels", "boxes_xywh", "areas", "crowd", "difficult")


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "WORTH_BYTES", 0)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "ü.png"):
        Image.new("RGB", (64, 48)).save(tmp_path / "images" / name)
    write(tmp_path, [1, 2])
    return tmp_path


def write(folder: Path, ids: list[Any], box: tuple[float, ...] = (1, 2, 30, 40)) -> None:
    content = {
        "images": [
            {"id": ids[0], "file_name": "a.png", "height": 48, "width": 64},
            {"id": ids[1], "file_name": "ü.png"},
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"image_id": ids[1], "category_id": 7, "bbox": [0.1, 0.2, 5, 6], "iscrowd": 1},
            {"image_id": ids[0], "category_id": 3, "bbox": list(box), "area": 5},
        ],
    }
    (folder / "a.json").write_text(json.dumps(content), encoding="utf-8")


def opened(folder: Path, classes: list[str] | None = None, drop: bool = False) -> FileDataset:
    return open_coco(folder / "images", folder / "a.json", classes, drop, 10_000, index_folder=folder / "index")


def assert_same(one: FileDataset, other: FileDataset) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one.annotations, name), getattr(other.annotations, name))
    np.testing.assert_array_equal(one.sizes, other.sizes)
    assert list(one.names) == list(other.names)
    assert list(one.annotations.image_ids) == list(other.annotations.image_ids)
    assert one.annotations.class_names == other.annotations.class_names
    assert one.annotations.category_ids == other.annotations.category_ids
    assert one.annotations.fingerprint() == other.annotations.fingerprint()


@pytest.mark.parametrize("ids", [[5, 2], ["b", "ä"], [1, "1"], [10**30, 2]])
def test_the_second_start_has_what_the_first_one_read(files: Path, ids: list[Any]) -> None:
    write(files, ids)
    assert_same(opened(files), opened(files))


def test_the_second_start_does_not_parse(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(files)
    monkeypatch.setattr(coco, "read_lists", None)
    assert_same(opened(files), first)


def test_a_changed_file_is_read_again(files: Path) -> None:
    opened(files)
    write(files, [1, 2], box=(1, 2, 31, 40))
    assert opened(files).annotations.boxes_xywh[0].tolist() == [1, 2, 31, 40]


def test_other_classes_are_read_again(files: Path) -> None:
    opened(files)
    assert opened(files, ["cat"]).annotations.class_names == ("cat",)


def test_a_box_that_is_dropped_is_told_at_the_second_start_too(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(files, [1, 2], box=(1, 2, 0, 4))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            opened(files, drop=True)
        assert "dropped 1 such boxes" in caplog.text


def test_a_box_that_may_be_dropped_is_still_refused_where_it_may_not(files: Path) -> None:
    write(files, [1, 2], box=(1, 2, 0, 4))
    opened(files, drop=True)
    with pytest.raises(DatasetError, match="no area"):
        opened(files)


@pytest.mark.parametrize("name", ["boxes_xywh.npy", "names.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut off", "gone"])
def test_a_damaged_index_is_made_anew(files: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    first = opened(files)
    (path,) = (files / "index").glob(f"*/{name}")
    content = bytearray(path.read_bytes())
    content[len(content) - 5] ^= 1
    path.unlink() if damage == "gone" else path.write_bytes(content if damage == "flipped" else content[:-3])
    with caplog.at_level(logging.WARNING):
        assert_same(opened(files), first)
    assert "read again" in caplog.text
    assert_same(opened(files), first)


def test_an_image_that_has_gone_since_is_told(files: Path) -> None:
    opened(files)
    (files / "images" / "a.png").unlink()
    with pytest.raises(DatasetError, match="no such image file"):
        opened(files)


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    (files / "index").write_text("a file is in the way")
    with caplog.at_level(logging.WARNING):
        opened(files)
    assert "not kept for the next start" in caplog.text


def test_small_files_get_no_index(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "WORTH_BYTES", 16_000_000)
    opened(files)
    assert not (files / "index").exists()
