"""Reading a COCO file in pieces gives what reading it record by record gives, whatever is in it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import detector.data.coco_columns as columns
import detector.data.coco_lists as lists
from detector.data.coco import read_coco_annotations
from detector.errors import DatasetError

SIDES = st.floats(1, 40) | st.integers(1, 40)
STRAY = st.sampled_from([None, "x", True, -1, 2.5, [], {}, "}, {", '"bbox"', "é", "\\", "a/b", 10**20])
BOXES = st.lists(SIDES, min_size=4, max_size=4)
ODD_BOXES = BOXES | st.lists(STRAY, min_size=3, max_size=5)
EXTRAS = st.dictionaries(st.sampled_from(["segmentation", "note", "attributes", "id"]), STRAY, max_size=2)


@st.composite
def annotations(draw: st.DrawFn) -> dict[str, Any]:
    record = {
        "image_id": draw(st.sampled_from([1, 1, 2, 2, "three"])),
        "category_id": draw(st.sampled_from([7, 7, "b"])),
        "bbox": draw(BOXES),
    }
    record |= draw(st.fixed_dictionaries({}, optional={"area": SIDES | st.none(), "iscrowd": st.sampled_from([0, 1])}))
    return record | draw(EXTRAS)


@st.composite
def odd_annotations(draw: st.DrawFn) -> Any:
    record = draw(annotations())
    key = draw(st.sampled_from(["image_id", "category_id", "bbox", "area", "iscrowd", "difficult"]))
    record[key] = draw(ODD_BOXES if key == "bbox" else STRAY)
    return draw(st.sampled_from([record, record, [record], None]))


def content(records: list[Any]) -> str:
    images: list[dict[str, Any]] = [
        {"id": 1, "file_name": "a.png", "height": 48, "width": 64},
        {"id": 2, "file_name": "é }, {.png"},
        {"id": "three", "file_name": "c.png", "height": 48, "width": 64},
    ]
    categories = [{"id": 7, "name": "images"}, {"id": "b", "name": "cat"}]
    return json.dumps({"images": images, "annotations": records, "categories": categories}, ensure_ascii=False)


def read(text: str) -> str | list[Any]:
    """The message of a refusal, or what was read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(text, encoding="utf-8")
        try:
            found = read_coco_annotations(path)
        except DatasetError as error:
            return str(error).replace(folder, "")
        arrays = (found.rows, found.labels, found.boxes_xywh, found.areas, found.crowd, found.difficult)
        return [list(found.image_ids), found.category_ids, *(array.tolist() for array in arrays)]


def read_by_records(text: str) -> str | list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "cut_lists", lambda content: None)
        return read(text)


def read_in_small_pieces(text: str) -> str | list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_PIECE", 100)
        return read(text.replace('"images"}', '"other"}'))


@given(st.lists(annotations(), max_size=12))
def test_pieces_and_records_agree_on_files_without_fault(records: list[Any]) -> None:
    found = read_in_small_pieces(content(records))
    assert isinstance(found, list)
    assert found == read_by_records(content(records))


@given(st.lists(annotations(), max_size=5), odd_annotations(), st.lists(annotations(), max_size=5))
def test_pieces_and_records_agree_on_files_with_a_fault(before: list[Any], odd: Any, after: list[Any]) -> None:
    text = content([*before, odd, *after])
    assert read_in_small_pieces(text) == read_by_records(text)


@given(st.lists(annotations(), min_size=1, max_size=5))
def test_a_key_that_stands_twice_is_seen(records: list[Any]) -> None:
    text = content(records).replace('"image_id": ', '"image_id": 2, "image_id": ', 1)
    assert "the key image_id stands twice" in str(read_in_small_pieces(text))


def test_a_file_without_fault_is_read_by_columns() -> None:
    text = content([{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "id": 5}] * 50)
    cut = columns.cut_lists(text.replace('"images"}', '"other"}').encode())
    assert cut is not None
    pieces = list(columns.annotation_pieces(cut[1]))
    assert all(piece.columns is not None for piece in pieces)
    assert np.concatenate([piece.columns.boxes for piece in pieces if piece.columns]).shape == (50, 4)
