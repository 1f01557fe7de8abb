"""The fingerprint of annotations: another one for any other ground truth, the same for the same one elsewhere."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.config import dump_config
from detector.data.coco import open_coco
from detector.data.export import write_coco
from detector.data.shapes import ShapesDataset
from detector.structures import Annotations, Size
from detector.weights.load import read_weights
from detector.weights.own_file import FORMAT, WeightsInfo, parse_info, save_weights
from tests.property.test_config_properties import EXAMPLES
from tests.tiny import tiny_config, tiny_model

SHAPES = ShapesDataset(8, 0, Size(64, 80), hard=False)


def small() -> Annotations:
    """Three images, of which the second is empty, with three objects of two classes."""
    return Annotations(
        image_ids=(7, 8, "a"),
        class_names=("cat", "dog"),
        category_ids=(1, 2),
        rows=np.array([0, 2, 2, 3]),
        labels=np.array([0, 1, 0]),
        boxes_xywh=np.array([[1.0, 2, 3, 4], [5, 6, 7, 8], [0, 0, 9, 9]]),
        areas=np.array([12.0, 56.0, 80.5]),
        crowd=np.array([False, True, False]),
        difficult=np.array([False, False, True]),
    )


OTHERS: dict[str, Any] = {
    "image_ids": (7, 9, "a"),
    "class_names": ("cat", "cow"),
    "category_ids": (1, 3),
    "rows": np.array([0, 1, 2, 3]),
    "labels": np.array([0, 1, 1]),
    "boxes_xywh": np.array([[1.0, 2, 3, 4], [5, 6, 7, 8], [0, 0, 9, np.nextafter(9.0, 10)]]),
    "areas": np.array([12.0, 56.0, 80.0]),
    "crowd": np.array([False, False, False]),
    "difficult": np.array([False, False, False]),
}


# What changes it


def test_it_is_16_hexadecimal_digits() -> None:
    assert len(small().fingerprint()) == 16
    int(small().fingerprint(), 16)


def test_every_field_has_an_example_here() -> None:
    assert set(OTHERS) == {field.name for field in fields(Annotations)}


@pytest.mark.parametrize("name", OTHERS)
def test_another_value_of_a_field_changes_it(name: str) -> None:
    assert replace(small(), **{name: OTHERS[name]}).fingerprint() != small().fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"image_ids": ("7", 8, "a")},
        {"image_ids": (8, 7, "a")},
        {"category_ids": ("1", 2)},
        {"class_names": ("dog", "cat")},
        {"class_names": ("cat", "dog ")},
        {"crowd": np.array([False, False, True]), "difficult": np.array([False, True, False])},
    ],
)
def test_a_change_that_is_easily_overlooked_changes_it(change: dict[str, Any]) -> None:
    assert replace(small(), **change).fingerprint() != small().fingerprint()


def test_swapping_two_objects_changes_it() -> None:
    order = [1, 0, 2]
    swapped = {name: getattr(small(), name)[order] for name in ("labels", "boxes_xywh", "areas", "crowd", "difficult")}
    assert replace(small(), **swapped).fingerprint() != small().fingerprint()


@EXAMPLES
@given(st.integers(0, 11), st.integers(0, 63))
def test_every_bit_of_every_box_counts(place: int, bit: int) -> None:
    boxes = small().boxes_xywh
    boxes.reshape(-1).view(np.uint64)[place] ^= np.uint64(1) << np.uint64(bit)
    assert replace(small(), boxes_xywh=boxes).fingerprint() != small().fingerprint()


names = st.lists(st.text(max_size=4), min_size=2, max_size=2, unique=True)


@EXAMPLES
@given(names, names)
def test_class_names_that_differ_never_run_together(one: list[str], other: list[str]) -> None:
    prints = [replace(small(), class_names=tuple(item)).fingerprint() for item in (one, other)]
    assert (prints[0] == prints[1]) == (one == other)


# What does not


def test_the_same_annotations_have_the_same() -> None:
    assert small().fingerprint() == small().fingerprint()


def test_it_is_that_of_the_same_bytes_on_every_machine() -> None:
    facts = b'[[7, 8, "a"], ["cat", "dog"], [1, 2]]'
    numbers = struct.pack("<4q 3q 12d 3d", 0, 2, 2, 3, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 9, 9, 12, 56, 80.5)
    flags = bytes([0, 1, 0, 0, 0, 1])
    assert small().fingerprint() == hashlib.sha256(facts + numbers + flags).hexdigest()[:16]


def test_the_layout_in_memory_does_not_count() -> None:
    wide = np.zeros((3, 8))
    wide[:, ::2] = small().boxes_xywh
    for boxes in (np.asfortranarray(small().boxes_xywh), wide[:, ::2]):
        assert not boxes.flags.c_contiguous
        assert replace(small(), boxes_xywh=boxes).fingerprint() == small().fingerprint()


def test_reading_it_changes_nothing() -> None:
    annotations = small()
    annotations.fingerprint()
    assert all(
        np.array_equal(getattr(annotations, field.name), getattr(small(), field.name)) for field in fields(small())
    )


def test_a_data_set_without_objects_has_one() -> None:
    none = np.zeros(0, dtype=bool)
    empty = Annotations(
        (1,), ("cat",), (1,), np.zeros(2, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), none, none
    )
    assert empty.fingerprint() != replace(empty, image_ids=(2,)).fingerprint()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A COCO data set in coco/."""
    write_coco(SHAPES, tmp_path / "coco")
    return tmp_path / "coco"


def fingerprint_of(folder: Path) -> str:
    return open_coco(folder / "images", folder / "annotations.json", None, False, 10_000).annotations.fingerprint()


def test_another_folder_does_not_count(folder: Path) -> None:
    before = fingerprint_of(folder)
    shutil.move(folder, "elsewhere")
    assert fingerprint_of(Path("elsewhere")) == before


def reverse_keys(content: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed(content.items()))


def mix_images(content: dict[str, Any]) -> dict[str, Any]:
    """The first objects of all images, then the second ones, and so on."""
    images: dict[int, list[int]] = {}
    for number, record in enumerate(content["annotations"]):
        images.setdefault(record["image_id"], []).append(number)
    rounds = max(map(len, images.values()))
    order = [numbers[turn] for turn in range(rounds) for numbers in images.values() if turn < len(numbers)]
    return {**content, "annotations": [content["annotations"][number] for number in order]}


def add_other_facts(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "images": [{**record, "license": 3, "coco_url": "x"} for record in content["images"]]}


def number_anew(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "annotations": [{**record, "id": 900 - record["id"]} for record in content["annotations"]]}


def reverse_categories(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "categories": content["categories"][::-1]}


@pytest.mark.parametrize("change", [reverse_keys, mix_images, add_other_facts, number_anew, reverse_categories])
def test_what_means_the_same_in_a_file_does_not_count(
    folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    before = fingerprint_of(folder)
    path = folder / "annotations.json"
    content = json.loads(path.read_text())
    assert json.dumps(change(content)) != json.dumps(content)
    path.write_text(json.dumps(change(content), indent=1))
    assert fingerprint_of(folder) == before


def test_a_file_that_lost_an_object_counts(folder: Path) -> None:
    before = fingerprint_of(folder)
    path = folder / "annotations.json"
    content = json.loads(path.read_text())
    content["annotations"].pop()
    path.write_text(json.dumps(content))
    assert fingerprint_of(folder) != before


def test_other_shapes_have_another() -> None:
    assert ShapesDataset(8, 1, Size(64, 80), hard=False).annotations.fingerprint() != SHAPES.annotations.fingerprint()


# In a weights file


def test_a_weights_file_keeps_run_and_fingerprint(tmp_path: Path) -> None:
    info = WeightsInfo(
        dump_config(tiny_config()), SHAPES.annotations.class_names, SHAPES.annotations.category_ids, 5,
        run="/somewhere/runs/ü", fingerprint=SHAPES.annotations.fingerprint(),
    )  # fmt: skip
    save_weights(tmp_path / "a.safetensors", tiny_model().state_dict(), info)
    assert read_weights(tmp_path / "a.safetensors").info == info


def test_a_file_from_before_they_were_kept_is_still_read() -> None:
    old = {
        "format": FORMAT, "config": "", "class_names": '["cat"]', "category_ids": "[1]", "iteration": "7",
        "score_threshold": "null",
    }  # fmt: skip
    info = parse_info(old, Path("old.safetensors"))
    assert info is not None
    assert (info.run, info.fingerprint) == ("", "")
