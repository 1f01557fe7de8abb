"""Data sets as their files have them: what is wrong comes out as a finding, the rest as it stands."""

from __future__ import annotations

import copy
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detector.data.coco import read_coco_annotations
from detector.data.findings import KINDS, Finding
from detector.data.raw.coco import read_raw_coco, unsafe_name
from detector.data.raw.recognise import read_raw, recognise
from detector.data.raw.structure import RawSet, Source
from detector.data.raw.voc import read_raw_voc
from detector.data.raw.yolo import read_raw_yolo
from detector.data.voc import open_voc
from detector.errors import DatasetError


def found(raw: RawSet) -> list[tuple[str, str, int, int]]:
    """What was found, without its wording."""
    return [(finding.kind, finding.record, finding.image, finding.row) for finding in raw.findings]


def only(raw: RawSet) -> Finding:
    """The one finding that there is."""
    assert len(raw.findings) == 1, raw.findings
    finding = raw.findings[0]
    assert finding.what.isprintable()
    return finding


# COCO

SOUND: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "height": 40, "width": 60},
        {"id": 3, "file_name": "b.jpg", "height": 30, "width": 20},
    ],
    "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 9, "bbox": [1, 2, 3, 4], "area": 10.5, "iscrowd": 1},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 60.5, 40]},
    ],
}


def coco(folder: Path, content: Any) -> RawSet:
    path = folder / "train.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return read_raw_coco(Source("coco", "train", folder, path))


def changed(key: str, position: int, **values: object) -> dict[str, Any]:
    """The sound file with a record changed; None takes a key out."""
    content = copy.deepcopy(SOUND)
    record = content[key][position] | values
    content[key][position] = {name: value for name, value in record.items() if value is not None}
    return content


def with_more(key: str, *records: object) -> dict[str, Any]:
    content = copy.deepcopy(SOUND)
    content[key] += records
    return content


def test_a_sound_coco_file_has_no_findings(tmp_path: Path) -> None:
    assert coco(tmp_path, SOUND).findings == ()


def test_coco_images_keep_their_order_and_classes_come_by_id(tmp_path: Path) -> None:
    raw = coco(tmp_path, SOUND)
    assert (raw.image_ids, raw.file_names) == ((7, 3), ("a.jpg", "b.jpg"))
    assert (raw.category_ids, raw.class_names) == ((2, 9), ("cat", "dog"))
    assert raw.sizes.tolist() == [[40, 60], [30, 20]]
    assert raw.image_records == ("images[0] (id 7)", "images[1] (id 3)")


def test_coco_objects_stand_as_in_the_file(tmp_path: Path) -> None:
    raw = coco(tmp_path, SOUND)
    assert raw.images.tolist() == [1, 0]
    assert raw.labels.tolist() == [1, 0]
    assert raw.boxes.tolist() == [[1, 2, 3, 4], [0, 0, 60.5, 40]]
    assert raw.crowd.tolist() == [True, False]
    assert raw.positions.tolist() == [0, 1]
    assert raw.object_records == ("annotations[0] (id 1)", "annotations[1] (id 2)")


def test_an_area_that_is_not_recorded_is_nan(tmp_path: Path) -> None:
    np.testing.assert_equal(coco(tmp_path, SOUND).areas, [10.5, np.nan])


def test_annotations_need_no_ids(tmp_path: Path) -> None:
    raw = coco(tmp_path, changed("annotations", 0, id=None))
    assert raw.findings == ()
    assert raw.object_records[0] == "annotations[0]"


@pytest.mark.parametrize("image_id", [4, "7", 7.0, [7], True])
def test_an_annotation_of_an_unknown_image_stays_as_a_row_without_image(tmp_path: Path, image_id: object) -> None:
    raw = coco(tmp_path, changed("annotations", 1, image_id=image_id))
    assert found(raw) == [("unknown-image", "annotations[1] (id 2)", -1, 1)]
    assert raw.images.tolist() == [1, -1]


def test_an_unknown_category_is_label_minus_one(tmp_path: Path) -> None:
    raw = coco(tmp_path, changed("annotations", 1, category_id=1))
    assert found(raw) == [("unknown-category", "annotations[1] (id 2)", 0, 1)]
    assert raw.labels.tolist() == [1, -1]


def test_true_is_not_the_category_1(tmp_path: Path) -> None:
    content = changed("annotations", 1, category_id=True)
    content["categories"].append({"id": 1, "name": "bird"})
    assert found(coco(tmp_path, content)) == [("unknown-category", "annotations[1] (id 2)", 0, 1)]


@pytest.mark.parametrize("box", [[1, 2, 3], ["1", "2", "3", "4"], None, "1 2 3 4", [1, 2, 3, True], [1, 2, 3, 10**400]])
def test_a_box_that_is_no_four_numbers_is_nan(tmp_path: Path, box: object) -> None:
    raw = coco(tmp_path, changed("annotations", 0, bbox=box))
    assert found(raw) == [("box-unreadable", "annotations[0] (id 1)", 1, 0)]
    assert np.isnan(raw.boxes[0]).all()


@pytest.mark.parametrize("box", [[9, 9, -3, -4], [5, 5, 0, 0], [900, 900, 5, 5]])
def test_boxes_that_can_be_read_are_not_judged(tmp_path: Path, box: list[float]) -> None:
    raw = coco(tmp_path, changed("annotations", 0, bbox=box))
    assert raw.findings == ()
    assert raw.boxes[0].tolist() == box


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_record_that_is_no_object_is_only_a_finding(tmp_path: Path, key: str) -> None:
    raw = coco(tmp_path, with_more(key, "oops"))
    assert found(raw) == [("annotation-unreadable", f"{key}[2]", -1, -1)]
    assert (len(raw), len(raw.labels), len(raw.class_names)) == (2, 2, 2)


@pytest.mark.parametrize(("key", "value"), [("area", "12"), ("iscrowd", 2), ("difficult", "no")])
def test_an_optional_value_that_cannot_be_read_is_named(tmp_path: Path, key: str, value: object) -> None:
    raw = coco(tmp_path, changed("annotations", 0, **{key: value}))
    assert found(raw) == [("annotation-unreadable", "annotations[0] (id 1)", 1, 0)]
    assert key in only(raw).what


def test_an_image_id_that_is_there_twice_keeps_both_images_and_its_objects_go_to_the_first(tmp_path: Path) -> None:
    raw = coco(tmp_path, with_more("images", {"id": 3, "file_name": "c.jpg"}))
    assert found(raw) == [("image-id-twice", "images[2] (id 3)", 2, -1)]
    assert raw.image_ids == (7, 3, 3)
    assert raw.images.tolist() == [1, 0]


def test_a_file_that_is_listed_twice_is_found(tmp_path: Path) -> None:
    raw = coco(tmp_path, with_more("images", {"id": 4, "file_name": "a.jpg"}))
    assert found(raw) == [("file-name-twice", "images[2] (id 4)", 2, -1)]
    assert "images[0] (id 7)" in only(raw).what


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/passwd", "C:\\a.jpg", "\\\\host\\a.jpg", "a/../../b", "a\0", "\ud800"]
)
def test_an_unsafe_file_name_is_found_and_kept_as_it_is(tmp_path: Path, name: str) -> None:
    raw = coco(tmp_path, changed("images", 0, file_name=name))
    assert found(raw) == [("file-name-unsafe", "images[0] (id 7)", 0, -1)]
    assert only(raw).what.isascii()
    assert raw.file_names[0] == name


@pytest.mark.parametrize("name", ["a.jpg", "train/a.jpg", "a..b.jpg", "..a", "ünï #1.jpg"])
def test_ordinary_file_names_are_safe(name: str) -> None:
    assert unsafe_name(name) is None


@pytest.mark.parametrize("name", [None, "", 12, ["a.jpg"]])
def test_an_image_without_a_name_is_left_out_and_its_objects_know_no_image(tmp_path: Path, name: object) -> None:
    raw = coco(tmp_path, changed("images", 0, file_name=name))
    assert [kind for kind, *_ in found(raw)] == ["annotation-unreadable", "unknown-image"]
    assert raw.image_ids == (3,)
    assert raw.images.tolist() == [0, -1]


@pytest.mark.parametrize("width", ["60", 0, -3, 60.5, 10**9, True])
def test_a_size_that_is_no_pixels_is_found_and_not_taken(tmp_path: Path, width: object) -> None:
    raw = coco(tmp_path, changed("images", 0, width=width))
    assert found(raw) == [("recorded-size-differs", "images[0] (id 7)", 0, -1)]
    assert raw.sizes[0].tolist() == [0, 0]


def test_a_size_may_be_missing(tmp_path: Path) -> None:
    raw = coco(tmp_path, changed("images", 0, width=None, height=None))
    assert raw.findings == ()
    assert raw.sizes[0].tolist() == [0, 0]


def test_a_category_name_that_is_there_twice_is_one_class(tmp_path: Path) -> None:
    content = with_more("categories", {"id": 1, "name": "dog"})
    content["annotations"][1]["category_id"] = 1
    raw = coco(tmp_path, content)
    assert found(raw) == [("category-twice", "categories[2]", -1, -1)]
    assert raw.category_ids == (2, 9)
    assert raw.labels.tolist() == [1, 1]


def test_of_a_category_id_that_is_there_twice_the_first_name_counts(tmp_path: Path) -> None:
    raw = coco(tmp_path, with_more("categories", {"id": 9, "name": "wolf"}))
    assert found(raw) == [("category-twice", "categories[2]", -1, -1)]
    assert raw.class_names == ("cat", "dog")


def test_an_annotation_id_is_found_once_however_often_it_is_there(tmp_path: Path) -> None:
    again = SOUND["annotations"][0]
    raw = coco(tmp_path, with_more("annotations", again, again))
    assert found(raw) == [("annotation-id-twice", "annotations[2] (id 1)", 1, 2)]
    assert "3 times" in only(raw).what


def test_annotation_ids_that_start_at_0_are_found(tmp_path: Path) -> None:
    raw = coco(tmp_path, changed("annotations", 1, id=0))
    assert found(raw) == [("annotation-id-twice", "annotations[1] (id 0)", 0, 1)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "must be an object"),
        ([{"image_id": 1}], "results"),
        ({"images": [], "annotations": []}, "categories must be a list; it is missing"),
        (SOUND | {"annotations": {}}, "annotations must be a list"),
        (SOUND | {"images": []}, "nothing to work on"),
    ],
)
def test_what_is_no_coco_file_is_refused(tmp_path: Path, content: object, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        coco(tmp_path, content)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [', encoding="utf-8")
    with pytest.raises(DatasetError, match="cut off"):
        read_raw_coco(Source("coco", "train", tmp_path, tmp_path / "a.json"))


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "bbox", "name"]), inner),
    max_leaves=4,
)


def places_in(content: dict[str, Any]) -> list[tuple[str, int, str]]:
    return [
        (key, row, name) for key, records in content.items() for row, record in enumerate(records) for name in record
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(places_in(SOUND)), JUNK), min_size=1, max_size=4))
def test_whatever_stands_in_a_coco_file_each_flaw_has_a_finding(
    edits: list[tuple[tuple[str, int, str], object]],
) -> None:
    content = copy.deepcopy(SOUND)
    for (key, row, name), value in edits:
        content[key][row][name] = value
    with tempfile.TemporaryDirectory() as folder:
        raw = coco(Path(folder), content)
    assert all(finding.kind in KINDS and finding.what.isprintable() for finding in raw.findings)
    rows = {kind: {f.row for f in raw.findings if f.kind == kind} for kind in KINDS}
    assert rows["unknown-image"] == set(np.flatnonzero(raw.images < 0))
    assert rows["unknown-category"] == set(np.flatnonzero(raw.labels < 0))
    assert rows["box-unreadable"] == set(np.flatnonzero(np.isnan(raw.boxes).all(axis=1)))


def test_coco_photographs_have_no_flaws_and_equal_what_is_scored_against(shared: Path) -> None:
    path = shared / "data/coco_by/annotations/instances_train2017.json"
    raw, scored = read_raw_coco(Source("coco", "train", path.parent, path)), read_coco_annotations(path)
    order = np.argsort(raw.images, kind="stable")
    assert (len(raw), len(raw.labels), len(raw.findings)) == (56, 565, 0)
    assert (raw.class_names, raw.image_ids) == (scored.class_names, scored.image_ids)
    np.testing.assert_array_equal(raw.boxes[order], scored.boxes_xywh)
    np.testing.assert_array_equal(raw.labels[order], scored.labels)
    np.testing.assert_array_equal(raw.areas[order], scored.areas)
    assert raw.crowd.sum() == 6


# VOC


def entry(name: str = "cat", corners: tuple[object, ...] = (11, 6, 30, 35), more: str = "") -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False)
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object><name>{name}</name><bndbox>{box}</bndbox>{more}</object>"


SIZE = "<size><width>64</width><height>48</height></size>"


def voc(folder: Path, *objects: str, name: str = "a.jpg", size: str = SIZE, text: str | bytes | None = None) -> RawSet:
    """One image of a devkit, with the text of its annotation."""
    for inner in ("Annotations", "JPEGImages"):
        (folder / inner).mkdir()
    (folder / "JPEGImages/a.jpg").touch()
    text = text or f"<annotation><filename>{name}</filename>{size}{''.join(objects)}</annotation>"
    (folder / "Annotations/a.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_raw_voc(Source("voc", "all", folder, folder))


def voc_list(folder: Path, lines: str) -> RawSet:
    """The same image, and a list of names."""
    path = folder / "train.txt"
    path.write_text(lines, encoding="utf-8")
    voc(folder, entry())
    return read_raw_voc(Source("voc", "train", folder, path))


def test_voc_boxes_begin_one_pixel_earlier_than_they_are_written(tmp_path: Path) -> None:
    raw = voc(tmp_path, entry(corners=(11, 6, 30, 35)))
    assert raw.boxes.tolist() == [[10, 5, 20, 30]]
    assert raw.findings == ()


def test_voc_boxes_may_have_fractions(tmp_path: Path) -> None:
    assert voc(tmp_path, entry(corners=(11.5, "6.25", 30, 35))).boxes.tolist() == [[10.5, 5.25, 19.5, 29.75]]


def test_a_reversed_voc_box_keeps_its_negative_width(tmp_path: Path) -> None:
    assert voc(tmp_path, entry(corners=(30, 6, 11, 35))).boxes.tolist() == [[29, 5, -19, 30]]


def test_voc_names_files_and_sizes(tmp_path: Path) -> None:
    raw = voc(tmp_path, entry())
    assert (raw.image_ids, raw.file_names, raw.folder) == (("a",), ("a.jpg",), tmp_path / "JPEGImages")
    assert raw.annotation_files == (str(tmp_path / "Annotations/a.xml"),)
    assert raw.sizes.tolist() == [[48, 64]]


def test_voc_classes_are_all_names_sorted_with_ids_from_1(tmp_path: Path) -> None:
    raw = voc(tmp_path, entry("dog"), entry("cat", more="<difficult>1</difficult>"), entry("dog"))
    assert (raw.class_names, raw.category_ids) == (("cat", "dog"), (1, 2))
    assert raw.labels.tolist() == [1, 0, 1]
    assert raw.difficult.tolist() == [False, True, False]
    assert raw.object_records == ("object[0] ('dog')", "object[1] ('cat')", "object[2] ('dog')")


@pytest.mark.parametrize("corners", [(1, 2, 3), (1, 2, 3, "x"), (1, 2, 3, "nan"), (1, 2, 3, "1,5"), (1, 2, 3, "")])
def test_a_voc_box_without_four_numbers_is_nan(tmp_path: Path, corners: tuple[object, ...]) -> None:
    raw = voc(tmp_path, entry(), entry(corners=corners))
    assert found(raw) == [("box-unreadable", "object[1] ('cat')", 0, 1)]
    assert np.isnan(raw.boxes[1]).all()


def test_an_object_without_a_box_is_found(tmp_path: Path) -> None:
    assert found(voc(tmp_path, "<object><name>cat</name></object>")) == [("box-unreadable", "object[0] ('cat')", 0, 0)]


def test_an_object_without_a_name_is_only_a_finding(tmp_path: Path) -> None:
    raw = voc(tmp_path, entry(name=" "), entry())
    assert found(raw) == [("annotation-unreadable", "object[0]", 0, -1)]
    assert raw.positions.tolist() == [1]


def test_a_difficult_flag_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    raw = voc(tmp_path, entry(more="<difficult>Unspecified</difficult>"))
    assert found(raw) == [("annotation-unreadable", "object[0] ('cat')", 0, 0)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation><object>", "line 1: not valid XML"),
        ("<html/>", "<annotation>"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><annotation/>", "DOCTYPE"),
        (b"\xff\xfe\x00", "not valid XML"),
    ],
)
def test_xml_that_cannot_be_read_leaves_its_image_without_objects(
    tmp_path: Path, text: str | bytes, reason: str
) -> None:
    raw = voc(tmp_path, text=text)
    assert found(raw) == [("annotation-unreadable", "", 0, -1)]
    assert reason in only(raw).what
    assert str(tmp_path) not in only(raw).what
    assert (len(raw), len(raw.labels)) == (1, 0)


@pytest.mark.parametrize("name", ["a.jpg", "a", "", "images/a.jpg", "C:\\pictures\\a.jpg"])
def test_the_recorded_name_may_lack_its_suffix_or_have_a_folder(tmp_path: Path, name: str) -> None:
    assert voc(tmp_path, entry(), name=name).findings == ()


@pytest.mark.parametrize("name", ["b.jpg", "a.png"])
def test_a_recorded_name_of_another_file_is_found(tmp_path: Path, name: str) -> None:
    assert found(voc(tmp_path, entry(), name=name)) == [("recorded-name-differs", "", 0, -1)]


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_a_voc_size_may_be_missing_or_zero(tmp_path: Path, size: str) -> None:
    raw = voc(tmp_path, entry(), size=size)
    assert raw.findings == ()
    assert raw.sizes.tolist() == [[0, 0]]


def test_a_voc_size_that_is_no_pixels_is_found(tmp_path: Path) -> None:
    raw = voc(tmp_path, entry(), size="<size><width>x</width><height>48</height></size>")
    assert found(raw) == [("recorded-size-differs", "size", 0, -1)]


def test_a_listed_image_without_annotation_is_found_and_its_file_is_guessed(tmp_path: Path) -> None:
    raw = voc_list(tmp_path, "a\nb\n")
    assert found(raw) == [("annotation-missing", "", 1, -1)]
    assert raw.file_names == ("a.jpg", "b.jpg")


def test_a_name_that_is_listed_twice_is_taken_once(tmp_path: Path) -> None:
    raw = voc_list(tmp_path, "a\n\na 1\n")
    assert found(raw) == [("file-name-twice", "line 3", -1, -1)]
    assert len(raw) == 1


def test_a_listed_name_with_a_folder_is_left_out(tmp_path: Path) -> None:
    raw = voc_list(tmp_path, "a\n../a\n")
    assert found(raw) == [("file-name-unsafe", "line 2", -1, -1)]
    assert raw.image_ids == ("a",)


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="lists no images"):
        voc_list(tmp_path, "\n")


def test_xml_files_beside_their_images_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.b.PNG").touch()
    (tmp_path / "a.b.xml").write_text(f"<annotation>{entry()}</annotation>", encoding="utf-8")
    raw = read_raw_voc(Source("voc", "train", tmp_path, tmp_path))
    assert (raw.file_names, raw.folder, len(raw.labels)) == (("a.b.PNG",), tmp_path, 1)


def test_blood_cells_have_no_flaws_in_writing_and_equal_what_is_trained_on(shared: Path) -> None:
    root = shared / "data/bccd/BCCD"
    raw = read_raw_voc(Source("voc", "trainval", root, root / "ImageSets/Main/trainval.txt"))
    trained = open_voc(root, "trainval", None, False, 64_000_000).annotations
    assert (len(raw), len(raw.labels), raw.findings) == (292, 3943, ())
    assert raw.class_names == trained.class_names
    np.testing.assert_array_equal(raw.boxes, trained.boxes_xywh)
    np.testing.assert_array_equal(raw.labels, trained.labels)


# YOLO


def yolo(folder: Path, text: str, classes: tuple[str, ...] = ("cat", "dog")) -> RawSet:
    """An image of 100 x 50 pixels with its text file, and one without."""
    for inner in ("images", "labels"):
        (folder / inner).mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (100, 50)).save(folder / f"images/{name}.jpg")
    (folder / "labels/a.txt").write_text(text, encoding="utf-8")
    return read_raw_yolo(Source("yolo", "train", folder / "images", folder / "labels", classes))


def test_yolo_boxes_become_pixels(tmp_path: Path) -> None:
    raw = yolo(tmp_path, "1 .5 .5 .25 .5\n")
    assert raw.boxes.tolist() == [[37.5, 12.5, 25, 25]]
    assert raw.labels.tolist() == [1]
    assert raw.findings == ()


def test_a_yolo_image_without_a_text_file_has_no_objects(tmp_path: Path) -> None:
    raw = yolo(tmp_path, "1 .5 .5 .25 .5\n")
    assert (raw.image_ids, raw.images.tolist()) == (("a", "b"), [0])
    assert raw.annotation_files[1] == str(tmp_path / "labels/b.txt")


def test_a_polygon_becomes_its_bounding_box(tmp_path: Path) -> None:
    assert yolo(tmp_path, "0 .25 .5 .75 .5 .5 1\n").boxes.tolist() == [[25, 25, 50, 25]]


def test_yolo_lines_are_counted_from_1_and_empty_ones_count(tmp_path: Path) -> None:
    raw = yolo(tmp_path, "\n0 .5 .5 .5 .5\n")
    assert (raw.object_records, raw.positions.tolist()) == (("line 2",), [1])


@pytest.mark.parametrize("line", ["0 .5 .5 .5", "0 .5 .5 .5 x", "0 .5 .5 nan .5", "0", "0 1 2 3 4 5"])
def test_a_yolo_line_without_a_box_is_nan(tmp_path: Path, line: str) -> None:
    raw = yolo(tmp_path, f"0 .5 .5 .5 .5\n{line}\n")
    assert found(raw) == [("box-unreadable", "line 2", 0, 1)]
    assert np.isnan(raw.boxes[1]).all()


@pytest.mark.parametrize("line", ["cat .5 .5 .5 .5", "0.5 .5 .5 .5 .5", "nan 0 0 1 1"])
def test_a_yolo_line_without_a_class_is_only_a_finding(tmp_path: Path, line: str) -> None:
    raw = yolo(tmp_path, line)
    assert found(raw) == [("annotation-unreadable", "line 1", 0, -1)]
    assert len(raw.labels) == 0


@pytest.mark.parametrize("number", [2, -1])
def test_a_class_beyond_the_names_is_unknown(tmp_path: Path, number: int) -> None:
    raw = yolo(tmp_path, f"{number} .5 .5 .5 .5")
    assert found(raw) == [("unknown-category", "line 1", 0, 0)]
    assert raw.labels.tolist() == [-1]


def test_a_class_name_that_is_there_twice_is_one_class(tmp_path: Path) -> None:
    raw = yolo(tmp_path, "2 .5 .5 .5 .5\n1 .5 .5 .5 .5\n", classes=("cat", "dog", "cat"))
    assert [kind for kind, *_ in found(raw)] == ["category-twice"]
    assert (raw.class_names, raw.category_ids, raw.labels.tolist()) == (("cat", "dog"), (0, 1), [0, 1])


def test_a_text_file_that_is_no_text_is_found(tmp_path: Path) -> None:
    yolo(tmp_path, "")
    (tmp_path / "labels/a.txt").write_bytes(b"0 .5 \xff")
    raw = read_raw_yolo(Source("yolo", "train", tmp_path / "images", tmp_path / "labels", ("cat",)))
    assert found(raw) == [("annotation-unreadable", "", 0, -1)]


def test_boxes_of_an_image_that_cannot_be_read_are_nan_without_a_finding(tmp_path: Path) -> None:
    yolo(tmp_path, "0 .5 .5 .5 .5")
    (tmp_path / "images/a.jpg").write_bytes(b"no image")
    raw = read_raw_yolo(Source("yolo", "train", tmp_path / "images", tmp_path / "labels", ("cat",)))
    assert raw.findings == ()
    assert np.isnan(raw.boxes).all()


def test_a_text_file_without_an_image_stands_for_the_image_that_is_expected(tmp_path: Path) -> None:
    yolo(tmp_path, "")
    for name in ("c", "classes"):
        (tmp_path / f"labels/{name}.txt").write_text("0 .5 .5 .5 .5", encoding="utf-8")
    raw = read_raw_yolo(Source("yolo", "train", tmp_path / "images", tmp_path / "labels", ("cat",)))
    assert raw.file_names == ("a.jpg", "b.jpg", "c.jpg")


def test_two_images_of_one_text_file_are_found(tmp_path: Path) -> None:
    yolo(tmp_path, "0 .5 .5 .5 .5")
    Image.new("RGB", (10, 10)).save(tmp_path / "images/a.png")
    raw = read_raw_yolo(Source("yolo", "train", tmp_path / "images", tmp_path / "labels", ("cat",)))
    assert [kind for kind, *_ in found(raw)] == ["image-id-twice"]


def test_yolo_images_of_one_name_in_two_folders_have_ids_of_their_own(tmp_path: Path) -> None:
    yolo(tmp_path, "")
    (tmp_path / "images/more").mkdir()
    Image.new("RGB", (10, 10)).save(tmp_path / "images/more/a.jpg")
    raw = read_raw_yolo(Source("yolo", "train", tmp_path / "images", tmp_path / "labels", ("cat",)))
    assert raw.image_ids == ("a", "b", "more/a")
    assert raw.annotation_files[2] == str(tmp_path / "labels/more/a.txt")


def test_listed_yolo_images_have_their_text_files_in_labels(tmp_path: Path) -> None:
    yolo(tmp_path, "0 .5 .5 .5 .5")
    listed = tmp_path / "train.txt"
    listed.write_text(f"./images/a.jpg\n{tmp_path}/images/a.jpg\n/elsewhere/b.jpg\n.\n", encoding="utf-8")
    raw = read_raw_yolo(Source("yolo", "train", listed, tmp_path, ("cat",)))
    assert found(raw) == [
        ("file-name-twice", "line 2", -1, -1),
        ("file-name-unsafe", "line 3", -1, -1),
        ("file-name-unsafe", "line 4", -1, -1),
    ]
    assert (raw.file_names, raw.image_ids, len(raw.labels)) == (("images/a.jpg",), ("a",), 1)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet="01.5 -en\n", max_size=80).map(str.encode))
def test_whatever_stands_in_a_yolo_file_each_flaw_has_a_finding(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        yolo(Path(folder), "")
        Path(folder, "labels/a.txt").write_bytes(text)
        raw = read_raw_yolo(Source("yolo", "all", Path(folder, "images"), Path(folder, "labels"), ("cat",)))
    assert all(finding.kind in KINDS and finding.what.isprintable() for finding in raw.findings)
    unreadable = {finding.row for finding in raw.findings if finding.kind == "box-unreadable"}
    assert unreadable == set(np.flatnonzero(np.isnan(raw.boxes).all(axis=1)))


# All


def test_hard_images_have_sound_annotations(shared: Path) -> None:
    (source,) = recognise(shared / "data/nasty")
    raw = read_raw(source)
    assert (len(raw), len(raw.labels), raw.findings) == (16, 192, ())
    assert all(Path(raw.path(image)).is_file() for image in range(len(raw)))


def test_boards_are_read_from_beside_their_images(shared: Path) -> None:
    sets = [read_raw(source) for source in recognise(shared / "data/microcontroller/images")]
    assert [(raw.split, len(raw), len(raw.labels)) for raw in sets] == [("train", 142, 170), ("test", 7, 7)]
    assert Counter(finding.kind for raw in sets for finding in raw.findings) == {}
