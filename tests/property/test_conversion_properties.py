"""Laws of conversion for all boxes, class names and file names: what goes to another format and back is the same."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detector.data.raw.convert import convert
from detector.data.raw.file_names import UniqueNames, flat_stem
from detector.data.raw.recognise import read_raw, recognise
from detector.data.raw.structure import Format, RawSet
from detector.errors import DatasetError

QUICK = settings(deadline=None, max_examples=30)
CLASSES = ["Zebra", "cat & <dog>"]

WHOLE = st.integers(-20, 60).map(float)
PLACE = st.one_of(WHOLE, st.floats(-20, 60))
SIDE = st.one_of(st.integers(1, 80).map(float), st.floats(1, 80))
THIN = st.floats(0, 1, exclude_max=True)
REVERSED = st.floats(-80, -0.01)
NAMES = st.text(min_size=1, max_size=8)


def objects(side: st.SearchStrategy[float]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """The objects of three images."""
    one = st.fixed_dictionaries(
        {
            "image_id": st.sampled_from([7, 8, 9]),
            "category_id": st.sampled_from([3, 5]),
            "bbox": st.tuples(PLACE, PLACE, side, side).map(list),
            "difficult": st.integers(0, 1),
        }
    )
    return st.lists(one, max_size=6)


def coco(folder: Path, annotations: Sequence[dict[str, Any]], classes: Sequence[str] = CLASSES) -> RawSet:
    """A set of three images, of 40 x 30, 31 x 57 and 3 x 100 pixels."""
    (folder / "images").mkdir()
    images = []
    for image_id, size in ((7, (40, 30)), (8, (31, 57)), (9, (3, 100))):
        Image.new("RGB", size).save(folder / "images" / f"{image_id}.png")
        images.append({"id": image_id, "file_name": f"{image_id}.png"})
    content = {
        "images": images,
        "annotations": [record | {"id": number} for number, record in enumerate(annotations, start=1)],
        "categories": [{"id": category_id, "name": name} for category_id, name in zip((3, 5), classes, strict=True)],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return read_raw(recognise(folder)[0])


def converted(raw: RawSet, to: Format, folder: Path) -> RawSet:
    """The set in another format, read again."""
    convert([raw], to, folder)
    return read_raw(recognise(folder)[0])


def contents(raw: RawSet) -> list[list[tuple[str, bool]]]:
    """The class and the flag of each object, image by image."""
    return [
        [(raw.class_names[raw.labels[row]], bool(raw.difficult[row])) for row in np.flatnonzero(raw.images == image)]
        for image in range(len(raw))
    ]


def class_names(raw: RawSet) -> list[list[str]]:
    return [[name for name, _ in image] for image in contents(raw)]


def boxes(raw: RawSet) -> np.ndarray:
    found: np.ndarray = raw.boxes[np.argsort(raw.images, kind="stable")]
    return found


@QUICK
@given(annotations=objects(SIDE | REVERSED))
def test_coco_to_voc_and_back_is_the_same(annotations: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = coco(Path(folder), annotations)
        back = converted(converted(start, "voc", Path(folder, "a")), "coco", Path(folder, "b"))
    assert contents(back) == contents(start)
    np.testing.assert_allclose(boxes(back), boxes(start), rtol=1e-9, atol=3e-9)


@QUICK
@given(annotations=objects(SIDE | THIN | REVERSED))
def test_coco_to_yolo_and_back_is_the_same(annotations: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = coco(Path(folder), annotations)
        back = converted(converted(start, "yolo", Path(folder, "a")), "coco", Path(folder, "b"))
    assert class_names(back) == class_names(start)
    np.testing.assert_allclose(boxes(back), boxes(start), rtol=0, atol=1e-6)


@QUICK
@given(annotations=objects(SIDE))
def test_voc_to_coco_and_back_is_the_same(annotations: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = converted(coco(Path(folder), annotations), "voc", Path(folder, "start"))
        back = converted(converted(start, "coco", Path(folder, "a")), "voc", Path(folder, "b"))
    assert contents(back) == contents(start)
    np.testing.assert_allclose(boxes(back), boxes(start), rtol=1e-9, atol=3e-9)


@QUICK
@given(annotations=objects(st.integers(1, 80).map(float)))
def test_whole_pixels_stay_whole_by_way_of_yolo(annotations: list[dict[str, Any]]) -> None:
    for record in annotations:
        record["bbox"][:2] = map(round, record["bbox"][:2])
    with tempfile.TemporaryDirectory() as folder:
        start = coco(Path(folder), annotations)
        voc = converted(converted(start, "yolo", Path(folder, "a")), "voc", Path(folder, "b"))
        xml = "".join(path.read_text() for path in Path(folder, "b/Annotations").iterdir())
    assert (boxes(voc) == boxes(start)).all()
    assert "." not in "".join(part.split("<")[0] for part in xml.split("<xm")[1:])


@QUICK
@given(annotations=objects(THIN))
def test_voc_makes_thin_boxes_a_pixel_wide_and_counts_them(annotations: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = coco(Path(folder), annotations)
        account = convert([start], "voc", Path(folder, "a"))
        written = read_raw(recognise(Path(folder, "a"))[0])
    np.testing.assert_allclose(boxes(written)[:, 2:], 1, rtol=0, atol=3e-9)
    assert account.lost.get("boxes thinner than a pixel (written one pixel wide)", 0) == len(annotations)


@QUICK
@given(names=st.lists(NAMES.filter(lambda name: name == name.strip()), min_size=2, max_size=2, unique=True))
def test_yolo_keeps_every_class_name_without_blanks_at_its_ends(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written = converted(coco(Path(folder), [], names), "yolo", Path(folder, "a"))
    assert list(written.class_names) == names


@QUICK
@given(name=NAMES.filter(lambda name: name != "other"))
def test_voc_keeps_a_class_name_or_refuses_it(name: str) -> None:
    record = {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}
    with tempfile.TemporaryDirectory() as folder:
        start = coco(Path(folder), [record], [name, "other"])
        try:
            written = converted(start, "voc", Path(folder, "a"))
        except DatasetError:
            assert not Path(folder, "a").exists()
        else:
            assert written.class_names == (name,)


@pytest.mark.parametrize("name", ["<b>&amp;</b>", "line\nbreak", "Ünï", "a\x85b", "]]>", "no", "1e3", "'", "- x: {"])
def test_voc_and_yolo_keep_names_full_of_markup(name: str, tmp_path: Path) -> None:
    start = coco(tmp_path, [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}], [name, "other"])
    formats: list[Format] = ["voc", "yolo"]
    assert [converted(start, to, tmp_path / to).class_names[0] for to in formats] == [name, name]


@given(name=NAMES)
def test_a_flat_stem_can_stand_in_a_list_and_name_a_file(name: str) -> None:
    stem = flat_stem(name)
    assert stem.split() == stem.splitlines() == [stem]
    assert not set(stem) & set("/\\\0:*?")
    assert not stem.startswith(".")
    assert os.fsencode(stem) == stem.encode()
    assert flat_stem(stem) == stem


@given(names=st.lists(NAMES))
def test_names_are_given_once_whatever_their_capitals(names: list[str]) -> None:
    unique = UniqueNames()
    given_out = [unique.take(name).casefold() for name in names]
    assert len(set(given_out)) == len(names)
