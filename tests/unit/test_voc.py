"""PASCAL VOC's layout, as the devkit and other tools write it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from detector.config import Config, parse_config
from detector.data.build import open_split
from detector.data.dataset import FileDataset
from detector.data.voc import open_voc
from detector.errors import DatasetError
from detector.structures import Size

MAX_PIXELS = 1_000_000


def box(xmin: object, ymin: object, xmax: object, ymax: object) -> str:
    return f"<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>"


def entry(name: str = "cat", inside: str = box(11, 6, 30, 35)) -> str:
    return f"<object><name>{name}</name>{inside}</object>"


SIZE = "<size><width>64</width><height>48</height><depth>3</depth></size>"


def annotation(*objects: str, size: str = SIZE) -> str:
    return f"<annotation><filename>a.jpg</filename>{size}{''.join(objects)}</annotation>"


def write(root: Path, annotations: dict[str, str | bytes], split: str = "train", listed: str | None = None) -> Path:
    """A data set of 64 x 48 images: an annotation by name, and a list of them."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in annotations.items():
        Image.new("RGB", (64, 48)).save(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    lines = "".join(f"{name}\n" for name in annotations) if listed is None else listed
    (root / "ImageSets/Main" / f"{split}.txt").write_text(lines, encoding="utf-8")
    return root


def opened(root: Path, classes: list[str] | None = None, drop: bool = False, split: str = "train") -> FileDataset:
    return open_voc(root, split, classes, drop, MAX_PIXELS)


def refusal(root: Path, classes: list[str] | None = None, drop: bool = False, split: str = "train") -> str:
    with pytest.raises(DatasetError) as caught:
        opened(root, classes, drop, split)
    message = str(caught.value)
    assert message.isprintable()
    return message


# What is read


def test_boxes_begin_one_pixel_earlier_than_they_are_written(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, {"a": annotation(entry(inside=box(11, 6, 30, 35)))}))
    assert dataset.annotations.boxes_xywh.tolist() == [[10, 5, 20, 30]]
    assert dataset[0].boxes.tolist() == [[10, 5, 30, 35]]


def test_a_box_of_one_pixel_has_an_area(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, {"a": annotation(entry(inside=box(7, 7, 7, 7)))}))
    assert dataset.annotations.boxes_xywh.tolist() == [[6, 6, 1, 1]]


def test_a_box_of_the_whole_image_has_its_size(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, {"a": annotation(entry(inside=box(1, 1, 64, 48)))}))
    assert dataset[0].boxes.tolist() == [[0, 0, 64, 48]]


def test_a_box_that_counts_from_0_is_cut_to_the_image(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, {"a": annotation(entry(inside=box(0, 0, 64, 48)))}))
    assert dataset[0].boxes.tolist() == [[0, 0, 64, 48]]


def test_fractions_are_numbers(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, {"a": annotation(entry(inside=box(" 11.5 ", "6.25", "30.0", "3.5e1")))}))
    assert dataset.annotations.boxes_xywh.tolist() == [[10.5, 5.25, 19.5, 29.75]]


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("", False),
        ("<difficult>0</difficult>", False),
        ("<difficult>1</difficult>", True),
        ("<difficult> 1 </difficult>", True),
        ("<difficult/>", False),
    ],
)
def test_difficult_is_read(tmp_path: Path, inside: str, expected: bool) -> None:
    dataset = opened(write(tmp_path, {"a": annotation(entry(inside=inside + box(11, 6, 30, 35)))}))
    assert dataset.annotations.difficult.tolist() == [expected]
    assert dataset[0].difficult.tolist() == [expected]


def test_nothing_is_a_crowd(tmp_path: Path) -> None:
    assert opened(write(tmp_path, {"a": annotation(entry())})).annotations.crowd.tolist() == [False]


def test_parts_of_an_object_are_no_objects(tmp_path: Path) -> None:
    part = f"<part><name>head</name>{box(12, 7, 15, 10)}</part>"
    annotations = opened(write(tmp_path, {"a": annotation(entry(inside=box(11, 6, 30, 35) + part))})).annotations
    assert annotations.class_names == ("cat",)
    assert len(annotations.labels) == 1


def test_image_ids_are_the_names_in_the_order_of_the_list(tmp_path: Path) -> None:
    write(tmp_path, {"b": annotation(entry()), "a": annotation(), "000007": annotation()}, listed="b\n000007\na\n")
    assert opened(tmp_path).annotations.image_ids == ("b", "000007", "a")


@pytest.mark.parametrize("suffix", [".png", ".jpeg", ".bmp", ".webp"])
def test_images_may_be_of_another_kind(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, {"a": annotation(entry())})
    (tmp_path / "JPEGImages/a.jpg").unlink()
    Image.new("RGB", (64, 48)).save(tmp_path / f"JPEGImages/a{suffix}")
    assert opened(tmp_path)[0].size == Size(48, 64)


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_a_size_may_be_missing_or_zero(tmp_path: Path, size: str) -> None:
    dataset = opened(write(tmp_path, {"a": annotation(entry(), size=size)}))
    assert dataset.info(0).size is None
    assert dataset[0].size == Size(48, 64)


def test_an_encoding_that_the_file_declares_is_followed(tmp_path: Path) -> None:
    text = '<?xml version="1.0" encoding="latin-1"?>' + annotation(entry("Bär"))
    assert opened(write(tmp_path, {"a": text.encode("latin-1")})).annotations.class_names == ("Bär",)


# Classes


def test_without_a_list_the_classes_are_those_that_occur_sorted(tmp_path: Path) -> None:
    write(tmp_path, {"a": annotation(entry("dog"), entry("cat")), "b": annotation(entry("ant"))})
    annotations = opened(tmp_path).annotations
    assert annotations.class_names == ("ant", "cat", "dog")
    assert annotations.labels.tolist() == [2, 1, 0]


def test_a_list_of_classes_sets_order_and_choice(tmp_path: Path) -> None:
    write(tmp_path, {"a": annotation(entry("dog"), entry("cat"), entry("ant"))})
    annotations = opened(tmp_path, classes=["dog", "cow", "cat"]).annotations
    assert annotations.class_names == ("dog", "cow", "cat")
    assert annotations.labels.tolist() == [0, 2]


def test_classes_outside_the_split_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, {"a": annotation(entry("dog")), "b": annotation(entry("cat"))}, listed="a\n")
    assert opened(tmp_path).annotations.class_names == ("dog",)


def test_a_split_without_any_object_is_refused(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, {"a": annotation(), "b": annotation()}))
    assert message == f"{tmp_path}: no object in any of the 2 images of train"


# Objects that are wrong


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("", "<bndbox> is missing"),
        ("<bndbox/>", "<xmin> is missing or empty"),
        ("<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax></bndbox>", "<ymax> is missing or empty"),
        (box("", 6, 30, 35), "<xmin> is missing or empty"),
        (box(11, 6, "30,5", 35), "<xmax> must be a number, got '30,5'"),
        (box(11, 6, "wide", 35), "<xmax> must be a number, got 'wide'"),
        (box(11, 6, "0x20", 35), "<xmax> must be a number, got '0x20'"),
        ("<difficult>2</difficult>" + box(11, 6, 30, 35), "<difficult> must be 0 or 1, got '2'"),
        ("<difficult>yes</difficult>" + box(11, 6, 30, 35), "<difficult> must be 0 or 1, got 'yes'"),
    ],
)
@pytest.mark.parametrize("drop", [False, True])
def test_a_wrong_object_is_named_by_file_position_and_class(
    tmp_path: Path, inside: str, words: str, drop: bool
) -> None:
    message = refusal(write(tmp_path, {"a": annotation(entry(), entry("dog", inside))}), drop=drop)
    assert message == f"{tmp_path}/Annotations/a.xml: object[1] ('dog'): {words}"


@pytest.mark.parametrize("classes", [None, ["cat"]])
@pytest.mark.parametrize("name", ["", "<name/>", "<name> </name>"])
def test_an_object_without_a_name_is_named_by_its_position(
    tmp_path: Path, name: str, classes: list[str] | None
) -> None:
    write(tmp_path, {"a": annotation(entry(), f"<object>{name}{box(1, 1, 5, 5)}</object>")})
    assert refusal(tmp_path, classes) == f"{tmp_path}/Annotations/a.xml: object[1]: <name> is missing or empty"


BAD_BOXES = [
    (box(30, 6, 11, 35), "the box is reversed: width -19, height 30"),
    (box(11, 35, 30, 34), "the box is reversed: width 20, height -1"),
    (box(65, 6, 70, 35), "the box [64, 5, 6, 30] lies outside the image of 64 x 48 pixels"),
    (box(11, 49, 30, 60), "the box [10, 48, 20, 12] lies outside the image of 64 x 48 pixels"),
    (box("nan", 6, 30, 35), "the box [nan, 5, nan, 30] is not finite"),
    (box(11, 6, "inf", 35), "the box [10, 5, inf, 30] is not finite"),
    (box(11, 6, "1e400", 35), "the box [10, 5, inf, 30] is not finite"),
]


@pytest.mark.parametrize(("inside", "words"), BAD_BOXES)
def test_a_bad_box_is_an_error(tmp_path: Path, inside: str, words: str) -> None:
    message = refusal(write(tmp_path, {"a": annotation(entry(inside=inside))}))
    assert message.startswith(f"{tmp_path}/Annotations/a.xml: object[0] ('cat'): {words}")
    assert message.endswith("or set data.on_bad_box=drop to leave such boxes out")


@pytest.mark.parametrize(("inside", "words"), BAD_BOXES)
def test_a_bad_box_is_dropped_if_one_asks_for_it(tmp_path: Path, inside: str, words: str) -> None:
    dataset = opened(write(tmp_path, {"a": annotation(entry(inside=inside), entry("dog"))}), drop=True)
    assert dataset.annotations.labels.tolist() == [1]


def test_a_number_beyond_all_images_is_a_bad_box(tmp_path: Path) -> None:
    write(tmp_path, {"a": annotation(entry(inside=box(1, 1, "1e300", "1e300")))})
    assert "object[0] ('cat')" in refusal(tmp_path)


# Files that are wrong


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!DOCTYPE annotation><annotation/>", ": a DOCTYPE is not allowed"),
        ('<!DOCTYPE a SYSTEM "http://example.org/a.dtd"><annotation/>', ": a DOCTYPE is not allowed"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', ": a DOCTYPE is not allowed"),
        ('<!DOCTYPE a [<!ENTITY x "xx"><!ENTITY y "&x;&x;">]><a>&y;</a>', ": a DOCTYPE is not allowed"),
        ("<annotation>\n<object>\n</annotation>", ":3: not valid XML: mismatched tag"),
        ("<annotation>\n<object>", ":2: not valid XML"),
        ("", ":1: not valid XML: no element found"),
        ("<annotation>&nbsp;</annotation>", ":1: not valid XML: undefined entity"),
        (b"<annotation>\xff</annotation>", ":1: not valid XML"),
        (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', ": cannot be read"),
        ("<annotation>" + " " * 4 * 1024**2 + "</annotation>", ": larger than 4194304 bytes"),
    ],
    ids=[
        "doctype", "external", "file", "entities", "tag", "cut off", "empty", "undefined", "bytes", "encoding", "huge",
    ],
)  # fmt: skip
def test_a_broken_annotation_is_told(tmp_path: Path, text: str | bytes, words: str) -> None:
    write(tmp_path, {"a": annotation(entry()), "b": text})
    assert refusal(tmp_path).startswith(f"{tmp_path}/Annotations/b.xml{words}")


@pytest.mark.parametrize("text", ["<html><body>404</body></html>", "<a>" * 50_000 + "</a>" * 50_000])
def test_an_xml_file_of_another_kind_is_no_image_without_objects(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"a": annotation(entry()), "b": text})
    assert refusal(tmp_path).startswith(f"{tmp_path}/Annotations/b.xml")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("<size><width>wide</width><height>48</height></size>", "<width> must be a number, got 'wide'"),
        ("<size><height>48</height></size>", "<width> is missing or empty"),
    ],
)
def test_a_wrong_size_is_told(tmp_path: Path, size: str, words: str) -> None:
    assert refusal(write(tmp_path, {"a": annotation(entry(), size=size)})).endswith(f"a.xml: {words}")


def test_a_size_that_differs_from_the_file_is_told_with_both(tmp_path: Path) -> None:
    size = "<size><width>60</width><height>48</height></size>"
    dataset = opened(write(tmp_path, {"a": annotation(entry(), size=size)}))
    with pytest.raises(DatasetError, match=r"a\.jpg: the image is 64 x 48, but its annotation says 60 x 48"):
        dataset[0]


def test_a_missing_annotation_is_told(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, {"a": annotation(entry())}, listed="a\nb\n"))
    assert message == f"{tmp_path}/Annotations/b.xml: no such annotation, though the split lists it"


def test_a_missing_image_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"a": annotation(entry())})
    (tmp_path / "JPEGImages/a.jpg").unlink()
    assert refusal(tmp_path).startswith(f"{tmp_path}/JPEGImages/a.jpg: no such image file")


# Splits


@pytest.mark.parametrize("listed", ["\ufeffa\nb\n", "a\r\nb\r\n", "a\n\n  \nb", " a \nb\t\n", "a  1\nb -1\n"])
def test_a_list_of_names_is_read(tmp_path: Path, listed: str) -> None:
    write(tmp_path, {"a": annotation(entry()), "b": annotation()}, listed=listed)
    assert opened(tmp_path).annotations.image_ids == ("a", "b")


def test_a_missing_split_lists_those_there_are(tmp_path: Path) -> None:
    write(tmp_path, {"a": annotation(entry())})
    write(tmp_path, {}, split="val", listed="a\n")
    message = refusal(tmp_path, split="test")
    assert message == f"{tmp_path}/ImageSets/Main/test.txt: no such split; there is train, val"


def test_where_no_split_is_none_is_listed(tmp_path: Path) -> None:
    assert refusal(tmp_path, split="test").endswith("test.txt: no such split; there is none")


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("a\nb\na\n", ":3: 'a' is listed twice (first in line 1)"),
        ("a\n../b\n", ":2: '../b' must be the name of an image without its folder"),
        ("JPEGImages/a.jpg\n", ":1: 'JPEGImages/a.jpg' must be the name of an image without its folder"),
        ("/etc/passwd\n", ":1: '/etc/passwd' must be the name of an image without its folder"),
        ("..\\a\n", ":1: '..\\\\a' must be the name of an image without its folder"),
        ("..\n", ":1: '..' must be the name of an image without its folder"),
        ("", ": lists no images; there is nothing to work on"),
        ("\n \n", ": lists no images; there is nothing to work on"),
    ],
)
def test_a_wrong_list_is_told_with_its_line(tmp_path: Path, listed: str, words: str) -> None:
    message = refusal(write(tmp_path, {"a": annotation(entry())}, listed=listed))
    assert message == f"{tmp_path}/ImageSets/Main/train.txt{words}"


@pytest.mark.parametrize("listed", ["a\0b\n", "x" * 300 + "\n"])
def test_a_name_that_no_file_can_have_is_told(tmp_path: Path, listed: str) -> None:
    assert "cannot be read" in refusal(write(tmp_path, {"a": annotation(entry())}, listed=listed))


def test_a_list_must_be_text(tmp_path: Path) -> None:
    write(tmp_path, {"a": annotation(entry())})
    (tmp_path / "ImageSets/Main/train.txt").write_bytes(b"\xff\xd8\xff")
    assert refusal(tmp_path) == f"{tmp_path}/ImageSets/Main/train.txt: not a list of names"


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == f"{tmp_path}/nowhere: no such folder"


# Joined sets


def joined(*roots: Path, classes: str = "null") -> Config:
    sets = ", ".join(f"{{format: voc, root: {root}, split: train}}" for root in roots)
    return parse_config(f"data: {{train: [{sets}], classes: {classes}}}", "a.yaml")


def test_joined_sets_stand_one_after_another(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"a": annotation(entry("cat")), "b": annotation()})
    two = write(tmp_path / "two", {"c": annotation(entry("cat"), entry("cat"))})
    dataset = open_split(joined(one, two), "train")
    assert dataset.annotations.image_ids == ("a", "b", "c")
    assert dataset.annotations.rows.tolist() == [0, 1, 1, 3]
    assert [len(dataset[index].boxes) for index in range(3)] == [1, 0, 2]
    assert [dataset.info(index).image_id for index in range(3)] == ["a", "b", "c"]


def test_joined_sets_have_the_classes_of_the_first(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"a": annotation(entry("cat"), entry("dog"))})
    two = write(tmp_path / "two", {"b": annotation(entry("dog"), entry("cow"))})
    annotations = open_split(joined(one, two), "train").annotations
    assert annotations.class_names == ("cat", "dog")
    assert annotations.labels.tolist() == [0, 1, 1]


def test_joined_sets_have_the_classes_that_are_set(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"a": annotation(entry("cat"))})
    two = write(tmp_path / "two", {"b": annotation(entry("cow"))})
    annotations = open_split(joined(one, two, classes="[cow, cat]"), "train").annotations
    assert annotations.labels.tolist() == [1, 0]


def test_a_set_cannot_be_joined_to_itself(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"a": annotation(entry())})
    with pytest.raises(DatasetError, match="the image id 'a' is in two of the joined data sets; is one listed twice?"):
        open_split(joined(one, one), "train")


# Real photographs


def test_blood_cells_are_read(shared: Path) -> None:
    dataset = opened(shared / "data/bccd/BCCD", drop=True, split="trainval")
    assert len(dataset) == 292
    assert len(dataset.annotations.class_names) == 3
    assert dataset[0].size == Size(480, 640)
