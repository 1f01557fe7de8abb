"""COCO's "instances" format, as strangers write it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.data.coco import open_coco, read_coco_annotations
from detector.data.dataset import FileDataset
from detector.errors import DatasetError, ImageError
from detector.structures import Size

Content = dict[str, list[dict[str, Any]]]
MAX_PIXELS = 10_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images a.png and b.png of 48 x 64 pixels."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 48)).save(tmp_path / "images" / name)
    return tmp_path


def content() -> Content:
    """Two images, two classes, a box of each in the first image."""
    return {
        "images": [
            {"id": 1, "file_name": "a.png", "height": 48, "width": 64},
            {"id": 2, "file_name": "b.png", "height": 48, "width": 64},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 30], "area": 500, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0},
        ],
    }


def changed(section: str, position: int, **values: Any) -> Content:
    """The content with some keys of one record replaced; a value of ... takes the key out."""
    result = content()
    record = result[section][position]
    record.update(values)
    for key in [key for key, value in record.items() if value is ...]:
        del record[key]
    return result


def write(folder: Path, given: object) -> Path:
    path = folder / "annotations.json"
    path.write_text(given if isinstance(given, str) else json.dumps(given), encoding="utf-8")
    return path


def opened(folder: Path, given: object, classes: list[str] | None = None, drop: bool = False) -> FileDataset:
    return open_coco(folder / "images", write(folder, given), classes, drop, MAX_PIXELS)


def refusal(folder: Path, given: object, classes: list[str] | None = None, drop: bool = False) -> str:
    """The message without the name of the file, which it must begin with."""
    with pytest.raises(DatasetError) as caught:
        opened(folder, given, classes, drop)
    message, path = str(caught.value), str(folder / "annotations.json")
    assert message.isprintable()
    assert len(message) < 400 + len(path)
    assert message.startswith(path)
    return message[len(path) :].removeprefix(": ")


# What is read


def test_boxes_labels_and_names_are_read(folder: Path) -> None:
    annotations = opened(folder, content()).annotations
    assert annotations.image_ids == (1, 2)
    assert annotations.class_names == ("cat", "dog")
    assert annotations.rows.tolist() == [0, 2, 2]
    assert annotations.labels.tolist() == [0, 1]
    assert annotations.boxes_xywh.tolist() == [[10, 5, 20, 30], [0, 0, 4, 4]]
    assert annotations.areas.tolist() == [500, 16]


def test_a_sample_has_corners(folder: Path) -> None:
    sample = opened(folder, content())[0]
    assert sample.boxes.tolist() == [[10, 5, 30, 35], [0, 0, 4, 4]]
    assert sample.boxes.dtype == np.float32
    assert sample.size == Size(48, 64)


def test_an_image_without_objects_is_an_image(folder: Path) -> None:
    dataset = opened(folder, content())
    assert len(dataset) == 2
    assert dataset[1].boxes.shape == (0, 4)


def test_objects_are_grouped_by_image_whatever_their_order(folder: Path) -> None:
    given = content()
    given["annotations"][0]["image_id"] = 2
    annotations = opened(folder, given).annotations
    assert annotations.labels[annotations.of_image(0)].tolist() == [1]
    assert annotations.labels[annotations.of_image(1)].tolist() == [0]


def test_images_stand_in_the_order_of_the_file(folder: Path) -> None:
    given = content()
    given["images"].reverse()
    dataset = opened(folder, given)
    assert dataset.annotations.image_ids == (2, 1)
    assert Path(dataset.info(0).path).name == "b.png"
    assert len(dataset[1].boxes) == 2


def test_a_file_may_lie_in_a_folder_of_its_own(folder: Path) -> None:
    (folder / "images" / "sub").mkdir()
    Image.new("RGB", (64, 48)).save(folder / "images" / "sub" / "c.png")
    assert opened(folder, changed("images", 0, file_name="sub/c.png"))[0].size == Size(48, 64)


def test_a_byte_order_mark_is_ignored(folder: Path) -> None:
    assert len(opened(folder, "\ufeff" + json.dumps(content()))) == 2


def test_unknown_keys_are_ignored(folder: Path) -> None:
    assert len(opened(folder, {**content(), "info": {}, "licenses": [{"id": 1}]})) == 2


def test_a_box_that_sticks_out_is_cut_in_the_sample_and_whole_in_the_truth(folder: Path) -> None:
    dataset = opened(folder, changed("annotations", 0, bbox=[-5, 40, 100, 100]))
    assert dataset.annotations.boxes_xywh[0].tolist() == [-5, 40, 100, 100]
    assert dataset[0].boxes[0].tolist() == [0, 40, 64, 48]


# Ids


@pytest.mark.parametrize(
    "ids", [[1, 2], [7, 90], [0, 1], [-3, 5], ["n02", "n10"], [3, "x"], ["", "a"]], ids=lambda ids: str(ids)
)
def test_labels_follow_rising_category_ids(folder: Path, ids: list[int | str]) -> None:
    given = content()
    for record, category_id in zip(given["categories"], ids, strict=True):
        record["id"] = category_id
    for record, category_id in zip(given["annotations"], ids, strict=True):
        record["category_id"] = category_id
    given["categories"].reverse()
    annotations = opened(folder, given).annotations
    assert annotations.class_names == ("cat", "dog")
    assert annotations.category_ids == tuple(ids)
    assert annotations.labels.tolist() == [0, 1]


def test_numbers_sort_as_numbers(folder: Path) -> None:
    given = content()
    given["categories"] = [{"id": number, "name": f"c{number}"} for number in (10, 9, 100, 1, 2)]
    assert opened(folder, given).annotations.category_ids == (1, 2, 9, 10, 100)


@pytest.mark.parametrize("ids", [[0, -1], ["0", "00"], [10**12, "a"]], ids=lambda ids: str(ids))
def test_image_ids_are_kept_as_they_are(folder: Path, ids: list[int | str]) -> None:
    given = content()
    for record, image_id in zip(given["images"], ids, strict=True):
        record["id"] = image_id
    for record in given["annotations"]:
        record["image_id"] = ids[0]
    dataset = opened(folder, given)
    assert dataset.annotations.image_ids == tuple(ids)
    assert dataset.info(1).image_id == ids[1]


@pytest.mark.parametrize("ids", [[0, 1], [7, 7], [..., ...], ["a", None]], ids=["from 0", "repeated", "missing", "odd"])
def test_annotation_ids_do_not_matter(folder: Path, ids: list[Any]) -> None:
    given = content()
    for record, annotation_id in zip(given["annotations"], ids, strict=True):
        record["id"] = annotation_id
        if annotation_id is ...:
            del record["id"]
    assert opened(folder, given).annotations.labels.tolist() == [0, 1]


# Optional keys


def test_a_missing_area_is_that_of_the_box(folder: Path) -> None:
    assert opened(folder, changed("annotations", 0, area=...)).annotations.areas.tolist() == [600, 16]


@pytest.mark.parametrize("key", ["iscrowd", "difficult"])
@pytest.mark.parametrize(("value", "expected"), [(..., False), (None, False), (0, False), (1, True), (True, True)])
def test_a_flag_is_read(folder: Path, key: str, value: Any, expected: bool) -> None:
    annotations = opened(folder, changed("annotations", 0, **{key: value})).annotations
    flags = annotations.crowd if key == "iscrowd" else annotations.difficult
    assert flags.tolist() == [expected, False]


def test_a_crowd_is_marked_in_the_sample(folder: Path) -> None:
    assert opened(folder, changed("annotations", 1, iscrowd=1))[0].crowd.tolist() == [False, True]


def test_sizes_may_be_missing(folder: Path) -> None:
    dataset = opened(folder, changed("images", 0, height=..., width=...))
    assert dataset.info(0).size is None
    assert dataset[0].size == Size(48, 64)


def test_a_size_may_be_written_with_a_point(folder: Path) -> None:
    assert opened(folder, changed("images", 0, height=48.0)).info(0).size == Size(48, 64)


# Classes


def test_classes_set_the_order_of_labels(folder: Path) -> None:
    annotations = opened(folder, content(), classes=["dog", "cat"]).annotations
    assert annotations.class_names == ("dog", "cat")
    assert annotations.category_ids == (2, 1)
    assert annotations.labels.tolist() == [1, 0]


def test_classes_that_are_not_wanted_are_left_out(folder: Path) -> None:
    annotations = opened(folder, content(), classes=["dog"]).annotations
    assert annotations.labels.tolist() == [0]
    assert annotations.boxes_xywh.tolist() == [[0, 0, 4, 4]]


def test_what_is_left_out_is_counted(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("detector"), "propagate", True)  # the commands switch it off
    opened(folder, content(), classes=["dog"])
    assert "left out 1 objects of classes that are not wanted: 'cat' (1)" in caplog.text


def test_a_wanted_class_that_the_file_lacks_keeps_its_place(folder: Path) -> None:
    annotations = opened(folder, content(), classes=["cow", "dog", "cat"]).annotations
    assert annotations.class_names == ("cow", "dog", "cat")
    assert annotations.category_ids == ("cow", 2, 1)
    assert annotations.labels.tolist() == [2, 1]


def test_classes_of_which_the_file_has_none_are_refused(folder: Path) -> None:
    assert refusal(folder, content(), classes=["cow"]) == (
        "none of the wanted classes ('cow') is among its categories ('cat, dog')"
    )


# Records that are wrong


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("images", {"id": ...}, "images[0]: id must be a whole number or text, got None"),
        ("images", {"id": 1.0}, "images[0]: id must be a whole number or text, got 1.0"),
        ("images", {"id": True}, "images[0]: id must be a whole number or text, got True"),
        ("images", {"id": [1]}, "images[0]: id must be a whole number or text, got [1]"),
        ("images", {"id": 2}, "images[1]: the id 2 is there twice"),
        ("images", {"height": "48"}, "images[0] (id 1): width and height must be pixels"),
        ("images", {"height": 0}, "images[0] (id 1): width and height must be pixels"),
        ("images", {"height": -48}, "images[0] (id 1): width and height must be pixels"),
        ("images", {"height": 47.5}, "images[0] (id 1): width and height must be pixels"),
        ("images", {"height": True}, "images[0] (id 1): width and height must be pixels"),
        ("images", {"height": ...}, "images[0] (id 1): width and height must be pixels"),
        ("images", {"height": 1e30}, "images[0] (id 1): width and height must be pixels"),
        ("images", {"height": 10**30}, "images[0] (id 1): width and height must be pixels"),
        ("images", {"file_name": ...}, "images[0]: file_name must be the name of a file, got None"),
        ("images", {"file_name": ""}, "images[0]: file_name must be the name of a file, got ''"),
        ("images", {"file_name": 5}, "images[0]: file_name must be the name of a file, got 5"),
        ("images", {"file_name": "b.png"}, "images[1]: file_name 'b.png' is also that of images[0]"),
        ("categories", {"id": ...}, "categories[0]: id must be a whole number or text, got None"),
        ("categories", {"id": 1.5}, "categories[0]: id must be a whole number or text, got 1.5"),
        ("categories", {"id": 2}, "categories[1]: 'dog' (id 2) is there twice"),
        ("categories", {"name": "dog"}, "categories[1]: 'dog' (id 2) is there twice"),
        ("categories", {"name": ""}, "categories[0]: name must be text, got ''"),
        ("categories", {"name": 5}, "categories[0]: name must be text, got 5"),
        ("annotations", {"image_id": 3}, "annotations[0] (id 1): image_id 3 is not among the images"),
        ("annotations", {"image_id": "1"}, "annotations[0] (id 1): image_id '1' is not among the images"),
        ("annotations", {"image_id": ...}, "annotations[0] (id 1): image_id must be a whole number or text, got None"),
        ("annotations", {"category_id": 3}, "annotations[0] (id 1): category_id 3 is not among the categories"),
        ("annotations", {"category_id": "1"}, "annotations[0] (id 1): category_id '1' is not among the categories"),
        ("annotations", {"category_id": []}, "annotations[0] (id 1): category_id must be a whole number or text"),
        ("annotations", {"area": "500"}, "annotations[0] (id 1): area must be a number, got '500'"),
        ("annotations", {"area": True}, "annotations[0] (id 1): area must be a number, got True"),
        ("annotations", {"iscrowd": 2}, "annotations[0] (id 1): iscrowd must be 0 or 1, got 2"),
        ("annotations", {"iscrowd": "0"}, "annotations[0] (id 1): iscrowd must be 0 or 1, got '0'"),
        ("annotations", {"difficult": []}, "annotations[0] (id 1): difficult must be 0 or 1, got []"),
    ],
)
def test_a_wrong_record_is_named(folder: Path, section: str, values: dict[str, Any], words: str) -> None:
    assert refusal(folder, changed(section, 0, **values)).startswith(words)


@pytest.mark.parametrize(
    "name",
    [
        "../a.png", "sub/../../a.png", "sub/..", "..", "/etc/passwd", "//a.png", "\\a.png", "..\\a.png",
        "sub\\..\\..\\a.png", "C:\\a.png", "C:/a.png", "a\0.png", "a.png\0",
    ],
)  # fmt: skip
def test_a_file_name_cannot_leave_the_folder(folder: Path, name: str) -> None:
    message = refusal(folder, changed("images", 0, file_name=name))
    assert message == f"images[0]: file_name {name!a} leaves the images folder"


@pytest.mark.parametrize("name", ["12:30:00.png", "..a.png", "a..png", "a b.png", "#ü.png"])
def test_an_odd_file_name_does_not_leave_the_folder(folder: Path, name: str) -> None:
    Image.new("RGB", (64, 48)).save(folder / "images" / name)
    assert opened(folder, changed("images", 0, file_name=name))[0].size == Size(48, 64)


def test_a_file_name_must_be_text_that_can_be_written(folder: Path) -> None:
    assert refusal(folder, changed("images", 0, file_name="\ud800.png")).endswith("is not valid text")


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [
        ("images", ..., "images must be a list; it is missing"),
        ("annotations", ..., "annotations must be a list; it is missing"),
        ("categories", ..., "categories must be a list; it is missing"),
        ("annotations", None, "annotations must be a list; got None"),
        ("images", {}, "images must be a list; got {}"),
        ("annotations", [5], "annotations[0] must be an object, got 5"),
        ("images", [], "images is empty; there is nothing to work on"),
        ("categories", [], "categories is empty"),
    ],
)
def test_a_wrong_section_is_named(folder: Path, section: str, value: Any, words: str) -> None:
    given: dict[str, Any] = {**content(), section: value}
    if value is ...:
        del given[section]
    assert refusal(folder, given) == words


# Boxes that are wrong

BAD_BOXES = [
    ([10, 5, 0, 30], "the box has no area: width 0, height 30"),
    ([10, 5, 20, 0], "the box has no area: width 20, height 0"),
    ([30, 5, -20, 30], "the box is reversed: width -20, height 30 (are these x1, y1, x2, y2?)"),
    ([64, 5, 10, 10], "the box [64, 5, 10, 10] lies outside the image of 64 x 48 pixels"),
    ([5, 48, 10, 10], "the box [5, 48, 10, 10] lies outside the image of 64 x 48 pixels"),
    ([-10, 5, 10, 10], "the box [-10, 5, 10, 10] lies outside the image of 64 x 48 pixels"),
    ([5, -10, 10, 10], "the box [5, -10, 10, 10] lies outside the image of 64 x 48 pixels"),
]


@pytest.mark.parametrize(("box", "words"), BAD_BOXES)
def test_a_bad_box_is_an_error(folder: Path, box: list[float], words: str) -> None:
    message = refusal(folder, changed("annotations", 0, bbox=box))
    assert message.startswith(f"annotations[0] (id 1): {words}")
    assert message.endswith("correct it, or set data.on_bad_box=drop to leave such boxes out")


@pytest.mark.parametrize(("box", "words"), BAD_BOXES)
def test_a_bad_box_is_dropped_if_one_asks_for_it(folder: Path, box: list[float], words: str) -> None:
    annotations = opened(folder, changed("annotations", 0, bbox=box), drop=True).annotations
    assert annotations.boxes_xywh.tolist() == [[0, 0, 4, 4]]
    assert annotations.rows.tolist() == [0, 1, 1]


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize(
    "box",
    [
        [1, 2, 3], [1, 2, 3, 4, 5], [], None, "1 2 3 4", {"x": 1}, 7, [[1, 2, 3, 4]], ["1", "2", "3", "4"],
        ["NaN", 0, 5, 5], [None, 0, 5, 5], [True, 0, 5, 5], [1e308, 0, 5, 5], [0, 0, 10**400, 5],
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_box_is_an_error_always(folder: Path, box: object, drop: bool) -> None:
    message = refusal(folder, changed("annotations", 0, bbox=box), drop=drop)
    assert message.startswith("annotations[0] (id 1): bbox must be four numbers [x, y, width, height], got ")


def test_a_box_is_judged_by_the_size_that_is_recorded(folder: Path) -> None:
    given = changed("annotations", 0, bbox=[100, 100, 5, 5])
    del given["images"][0]["height"], given["images"][0]["width"]
    sample = opened(folder, given)[0]
    assert sample.boxes.tolist() == [[0, 0, 4, 4]]


# Files that are wrong


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ":1: not valid JSON"),
        ('{"images": [],\n"images": []}', "the key images stands twice in one object"),
        ("[" * 100_000, "nested too deeply"),
        ("5", "must be an object with images, annotations and categories"),
        ('{"images": 1} trailing', ":1: not valid JSON"),
        ('{"images": NaN}', "holds NaN, which is no number in JSON"),
        ('{"images": -Infinity}', "holds -Infinity, which is no number in JSON"),
        ('{"images": ' + "9" * 5000 + "}", "Exceeds the limit"),
    ],
    ids=["empty", "key twice", "nested", "number", "trailing", "nan", "infinity", "long number"],
)
def test_a_file_that_is_no_annotations_is_refused(folder: Path, text: str, words: str) -> None:
    assert refusal(folder, text).startswith(words)


def test_a_file_that_is_cut_off_is_told_with_the_line(folder: Path) -> None:
    lines = json.dumps(content(), indent=1).splitlines()
    message = refusal(folder, "\n".join(lines[:7]))
    assert message.startswith(":7: not valid JSON")
    assert message.endswith("is the file cut off?")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_must_be_utf_8(folder: Path, encoding: str) -> None:
    path = write(folder, "")
    path.write_bytes('{"ä": 1}'.encode(encoding))
    with pytest.raises(DatasetError, match=r"annotations.json: not UTF-8 text \(byte "):
        open_coco(folder / "images", path, None, False, MAX_PIXELS)


def test_a_file_of_results_is_recognised(folder: Path) -> None:
    given = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
    assert refusal(folder, given).endswith("(this looks like a file of results)")


@pytest.mark.parametrize("side", ["1e999", "1" + "0" * 400])
def test_a_size_beyond_all_numbers_is_refused(folder: Path, side: str) -> None:
    message = refusal(folder, json.dumps(content()).replace("48", side, 1))
    assert message.startswith("images[0] (id 1): width and height must be pixels")


def test_a_missing_file_is_told(folder: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere.json: no such file"):
        open_coco(folder / "images", folder / "nowhere.json", None, False, MAX_PIXELS)


def test_a_folder_is_no_file_of_annotations(folder: Path) -> None:
    with pytest.raises(DatasetError, match="images: cannot be read: Is a directory"):
        open_coco(folder / "images", folder / "images", None, False, MAX_PIXELS)


def test_a_missing_folder_of_images_is_told(folder: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere: no such folder of images"):
        open_coco(folder / "nowhere", write(folder, content()), None, False, MAX_PIXELS)


def test_missing_images_are_told_at_once_with_their_number(folder: Path) -> None:
    given = content()
    given["images"].append({"id": 3, "file_name": "c.png"})
    given["images"].append({"id": 4, "file_name": "d.png"})
    with pytest.raises(DatasetError, match=r"c\.png: no such image file \(and 1 more of 4 images\)"):
        opened(folder, given)


@pytest.mark.parametrize("name", ["a\nerror, forged.png", "red\x1b[31m.png", "x" * 3000 + ".png"])
def test_the_name_of_a_missing_image_cannot_spoil_the_message(folder: Path, name: str) -> None:
    with pytest.raises(DatasetError) as caught:
        opened(folder, changed("images", 0, file_name=name))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


# Images and their annotations


def test_a_size_that_differs_from_the_file_is_told_with_both(folder: Path) -> None:
    dataset = opened(folder, changed("images", 0, height=50))
    with pytest.raises(DatasetError, match=r"a\.png: the image is 64 x 48, but its annotation says 64 x 50"):
        dataset[0]


def turned(folder: Path) -> None:
    """Makes a.png an image that is upright 48 wide and 64 high, stored lying."""
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.new("RGB", (64, 48)).save(folder / "images" / "a.png", exif=tags)


def test_a_size_may_be_noted_after_rotation(folder: Path) -> None:
    turned(folder)
    assert opened(folder, changed("images", 0, height=64, width=48))[0].size == Size(64, 48)


def test_a_size_may_be_noted_before_rotation(folder: Path) -> None:
    turned(folder)
    assert opened(folder, content())[0].size == Size(64, 48)


def test_a_box_of_the_upright_image_is_kept_though_the_size_was_noted_before_rotation(folder: Path) -> None:
    turned(folder)
    given = changed("annotations", 0, bbox=[10, 50, 20, 10])  # below row 48, inside the upright image
    assert opened(folder, given)[0].boxes[0].tolist() == [10, 50, 30, 60]


def test_boxes_of_the_image_before_rotation_are_refused(folder: Path) -> None:
    turned(folder)
    dataset = opened(folder, changed("annotations", 0, bbox=[50, 10, 10, 20]))  # right of column 48
    with pytest.raises(DatasetError, match="the image is 48 x 64, but its annotation says 64 x 48"):
        dataset[0]


def test_a_damaged_image_is_told_when_it_is_read(folder: Path) -> None:
    (folder / "images" / "b.png").write_bytes(b"<html>")
    dataset = opened(folder, content())
    with pytest.raises(ImageError, match=r"b\.png: not an image"):
        dataset[1]


def test_an_image_above_the_limit_is_refused_when_it_is_read(folder: Path) -> None:
    Image.new("RGB", (200, 100)).save(folder / "images" / "a.png")
    dataset = opened(folder, changed("images", 0, height=100, width=200))
    with pytest.raises(ImageError, match="200 x 100 is more than the 10000 pixels"):
        dataset[0]


# Ground truth for scoring alone


def test_for_scoring_no_images_are_looked_for(tmp_path: Path) -> None:
    assert read_coco_annotations(write(tmp_path, content())).labels.tolist() == [0, 1]


def test_for_scoring_boxes_without_area_stay(tmp_path: Path) -> None:
    path = write(tmp_path, changed("annotations", 0, bbox=[10, 5, 0, 30]))
    assert read_coco_annotations(path).boxes_xywh[0].tolist() == [10, 5, 0, 30]


def test_for_scoring_undeclared_categories_are_left_out(tmp_path: Path) -> None:
    assert read_coco_annotations(write(tmp_path, changed("annotations", 0, category_id=9))).labels.tolist() == [1]


def test_for_scoring_file_names_may_be_missing(tmp_path: Path) -> None:
    assert read_coco_annotations(write(tmp_path, changed("images", 0, file_name=...))).image_ids == (1, 2)


# Real photographs


@pytest.mark.parametrize(("split", "images", "crowds"), [("train", 56, 6), ("val", 48, 7)])
def test_photographs_of_coco_are_read(shared: Path, split: str, images: int, crowds: int) -> None:
    root = shared / "data/coco_by"
    annotations = root / "annotations" / f"instances_{split}2017.json"
    dataset = open_coco(root / f"{split}2017", annotations, None, True, 1_000_000)
    assert len(dataset) == images
    assert len(dataset.annotations.class_names) == 80
    assert dataset.annotations.crowd.sum() == crowds
    assert all(dataset[index].size == dataset.info(index).size for index in (0, images - 1))
