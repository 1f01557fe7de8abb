"""Faults of boxes, classes and splits are found, and what is right is let alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.config.data_schema import ResizeConfig
from detector.data.doctor.box_checks import check_boxes, look_like_corners, twins
from detector.data.doctor.class_checks import alike, check_classes
from detector.data.doctor.resizing import resized_sizes
from detector.data.doctor.split_checks import check_splits
from detector.data.findings import KINDS, Finding
from detector.data.raw.structure import Format, RawSet
from detector.data.transforms import resized_size
from detector.structures import Size

Box = tuple[float, float, float, float]


def raw_set(
    boxes: Sequence[Box] = (),
    *,
    images: Sequence[int] | None = None,
    labels: Sequence[int] | None = None,
    names: Sequence[str] = ("cat", "dog"),
    ids: Sequence[int] | None = None,
    crowd: Sequence[bool] | None = None,
    difficult: Sequence[bool] | None = None,
    files: Sequence[str] = ("a.jpg",),
    folder: Path = Path("images"),
    split: str = "train",
    kind: Format = "coco",
    findings: tuple[Finding, ...] = (),
) -> RawSet:
    """A split of which the boxes lie in the first image and are cats, unless told otherwise."""
    count = len(boxes)
    source = Path(f"{split}.json") if kind == "coco" else folder.parent
    return RawSet(
        kind,
        split,
        source,
        folder,
        tuple(Path(name).stem for name in files),
        tuple(files),
        tuple(str(source / "Annotations" / f"{Path(name).stem}.xml") for name in files)
        if kind == "voc"
        else (str(source),) * len(files),
        tuple(f"images[{number}]" for number in range(len(files))),
        np.zeros((len(files), 2), dtype=np.int64),
        tuple(ids or range(1, len(names) + 1)),
        tuple(names),
        np.array(images or [0] * count, dtype=np.int64),
        np.array(labels or [0] * count, dtype=np.int64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.full(count, np.nan),
        np.array(crowd or [False] * count, dtype=bool),
        np.array(difficult or [False] * count, dtype=bool),
        np.arange(count),
        tuple(f"annotations[{number}]" for number in range(count)),
        findings,
    )


def faults(raw: RawSet, size: tuple[int, int] = (480, 640)) -> list[Finding]:
    """What is amiss with boxes in images of 640 x 480 pixels."""
    return check_boxes(raw, np.array([size] * len(raw), dtype=np.int64), ResizeConfig())


def kinds(findings: Sequence[Finding]) -> list[str]:
    assert all(finding.kind in KINDS for finding in findings)
    assert all(str(finding).isascii() and "\n" not in str(finding) for finding in findings)
    return [finding.kind for finding in findings]


def of_kind(kind: str, findings: Sequence[Finding]) -> list[str]:
    return [finding.what for finding in findings if finding.kind == kind]


# Boxes


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 20, 30, 40), []),
        ((0, 0, 620, 470), []),
        ((10, 20, -5, 40), ["box-reversed"]),
        ((10, 20, 5, -40), ["box-reversed"]),
        ((10, 20, 0, 40), ["box-without-area"]),
        ((10, 20, 30, 0.0005), ["box-without-area"]),
        ((640, 20, 30, 40), ["box-outside"]),
        ((-30, 20, 30, 40), ["box-outside"]),
        ((10, 480.5, 30, 40), ["box-outside"]),
        ((-1, -1, 30, 40), []),
        ((611, 441, 30, 40), []),
        ((-1.5, 20, 30, 40), ["box-partly-outside"]),
        ((10, 445, 30, 40), ["box-partly-outside"]),
        ((10, 20, 2, 40), ["box-tiny"]),
        ((10, 20, 2.5, 40), []),
        ((0, 0, 628, 471), ["box-whole-image"]),
        ((0, 0, 626, 480), []),
        ((float("nan"), 0, 10, 10), []),
        ((1e200, 0, 1e300, 10), ["box-outside"]),
    ],
)
def test_a_box_is_what_it_is_in_its_image(box: Box, expected: list[str]) -> None:
    assert kinds(faults(raw_set([box]))) == expected


def test_without_a_size_only_the_shape_is_looked_at() -> None:
    raw = raw_set([(900, 900, 10, 10), (1, 1, 0, 5), (1, 1, 1, 1)])
    assert kinds(faults(raw, size=(0, 0))) == ["box-without-area"]


def test_an_object_of_no_image_is_let_alone() -> None:
    assert faults(raw_set([(1, 1, 0, 5)], images=[-1])) == []


def test_how_far_a_box_reaches_out_is_told() -> None:
    (what,) = of_kind("box-partly-outside", faults(raw_set([(-3.5, 470, 30, 12)])))
    assert what == "the box reaches out of the image of 640 x 480 pixels: left by 3.5, bottom by 2"


def test_a_finding_names_file_record_image_and_row() -> None:
    (finding,) = faults(raw_set([(1, 2, 30, 40), (1, 2, 0, 5)], images=[0, 1], files=("a.jpg", "b.jpg")))
    assert (finding.file, finding.record, finding.image, finding.row) == ("train.json", "annotations[1]", 1, 1)


def test_a_voc_box_from_a_pixel_to_itself_has_no_area() -> None:
    (what,) = of_kind("box-without-area", faults(raw_set([(180, 328, 1, 1)], kind="voc")))
    assert what == "the box has no area: xmin 181, ymin 329, xmax 181, ymax 329"


def test_a_reversed_voc_box_is_shown_as_in_its_file() -> None:
    (what,) = of_kind("box-reversed", faults(raw_set([(29, 9, -20, 11)], kind="voc")))
    assert "xmin 30, ymin 10, xmax 10, ymax 20" in what


def test_crowd_regions_may_be_large_small_and_twice() -> None:
    boxes: list[Box] = [(0, 0, 640, 480), (0, 0, 640, 480), (5, 5, 1, 1)]
    assert faults(raw_set(boxes, crowd=[True] * 3)) == []


def test_100_objects_are_not_too_many() -> None:
    boxes: list[Box] = [(6.0 * number, 10, 5, 5) for number in range(101)]
    assert faults(raw_set(boxes[:100])) == []
    assert kinds(faults(raw_set(boxes))) == ["many-objects"]


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1500), st.integers(1, 3000))
def test_the_size_after_the_resize_is_that_of_the_resize(height: int, width: int, short: int, longest: int) -> None:
    config = ResizeConfig(test_short_side=short, max_long_side=longest)
    expected = resized_size(Size(height, width), short, longest)
    assert resized_sizes(np.array([[height, width]]), config).tolist() == [list(expected)]


# Objects that are there twice


def test_an_object_that_is_there_twice_names_the_first() -> None:
    raw = raw_set([(10, 20, 30, 40), (100, 100, 30, 40), (10, 20, 30, 40)])
    (finding,) = faults(raw)
    assert (finding.kind, finding.row, finding.what) == ("box-twice", 2, "the same box of 'cat' as annotations[0]")


def test_a_box_of_two_classes_names_both() -> None:
    (finding,) = faults(raw_set([(10, 20, 30, 40), (10, 20, 30, 40)], labels=[0, 1]))
    assert finding.kind == "box-of-two-classes"
    assert finding.what == "'dog', but annotations[0] says 'cat' of the same box"


def test_equal_boxes_in_two_images_are_two_objects() -> None:
    assert faults(raw_set([(10, 20, 30, 40)] * 2, images=[0, 1], files=("a.jpg", "b.jpg"))) == []


def test_of_three_equal_boxes_two_are_too_many() -> None:
    found = faults(raw_set([(10, 20, 30, 40)] * 3))
    assert [(finding.kind, finding.row) for finding in found] == [("box-twice", 1), ("box-twice", 2)]


@pytest.mark.parametrize(("shift", "expected"), [(0.9, ["box-twice"]), (1.1, [])])
def test_twice_is_an_iou_of_098(shift: float, expected: list[str]) -> None:
    assert kinds(faults(raw_set([(10, 20, 100, 40), (10 + shift, 20, 100, 40)]))) == expected


@given(st.lists(st.tuples(*[st.floats(1, 1.05)] * 4), max_size=12), st.integers(1, 3))
def test_all_twins_are_found(boxes: list[Box], groups: int) -> None:
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    group_of = np.arange(len(array)) % groups
    later = {row for row, _ in twins(array, group_of)}
    kept = [row for row in range(len(array)) if row not in later]
    pairs = [(one, other) for one in kept for other in kept if one < other and group_of[one] == group_of[other]]
    assert all(iou(boxes[one], boxes[other]) < 0.98 for one, other in pairs)


def iou(first: Box, second: Box) -> float:
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)


# Corners in place of width and height


def many_boxes(seed: int = 0, count: int = 100) -> np.ndarray:
    """Corners of boxes anywhere in an image of 640 x 480."""
    random = np.random.default_rng(seed)
    points = np.sort(random.random((count, 2, 2)) * [640, 480], axis=1).round(1)
    points[:, 1] += 5
    return points.reshape(count, 4).clip(0, [640, 480] * 2)


def as_boxes(array: np.ndarray) -> list[Box]:
    return [(x, y, width, height) for x, y, width, height in array.tolist()]


def test_corners_are_one_finding_and_not_one_a_box() -> None:
    found = faults(raw_set(as_boxes(many_boxes())))
    assert Counter(kinds(found))["boxes-are-corners"] == 1
    assert not {"box-outside", "box-partly-outside", "box-twice"} & set(kinds(found))


def test_faults_of_corners_are_found_as_well() -> None:
    boxes = many_boxes()
    boxes[7, 2:] = boxes[7, :2]
    assert [finding.row for finding in faults(raw_set(as_boxes(boxes))) if finding.kind == "box-without-area"] == [7]


def test_widths_and_heights_are_no_corners() -> None:
    boxes = many_boxes()
    boxes[:, 2:] -= boxes[:, :2]
    assert "boxes-are-corners" not in kinds(faults(raw_set(as_boxes(boxes))))


@pytest.mark.parametrize(
    "box",
    [(2, 3, 8, 9), (0, 0, 600, 400), (20, 20, 640, 480), (3, 3, 320, 240), (300, 200, 360, 300)],
    ids=["near the origin", "large", "a little over the edge", "a quarter", "far over two edges"],
)
def test_few_or_fitting_boxes_are_no_corners(box: Box) -> None:
    count = 4 if box[0] == 300 else 50
    assert not look_like_corners(np.array([box] * count, float), np.array([[480, 640]] * count, float))


def test_a_set_without_boxes_has_no_faults() -> None:
    assert faults(raw_set()) == []


# Classes


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Car", "car"),
        ("traffic light", "traffic_light"),
        ("traffic-light", "trafficlight"),
        ("car ", "car"),
        ("car", "cars"),
        ("boxes", "box"),
        ("Berry", "berries"),
        ("Raspberry_Pi_3", "raspberry pi 3"),
        ("CAFÉ", "cafe\u0301"),
    ],
)
def test_names_that_mean_the_same_are_alike(first: str, second: str) -> None:
    assert alike([first, second]) == [(first, second)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("car", "cat"),
        ("Arduino_Nano", "Raspberry_Pi_3"),
        ("class1", "class10"),
        ("1_2", "12"),
        ("A-", "A"),
        ("A+", "A"),
        ("a", "A"),
        ("-5", "5"),
        ("bear", "teddy bear"),
        ("RBC", "WBC"),
        ("bus", "bush"),
        ("person", "persona"),
        ("1", "1s"),
    ],
)
def test_names_of_two_things_are_not_alike(first: str, second: str) -> None:
    assert alike([first, second]) == []


def test_a_class_without_objects_is_unused() -> None:
    found = check_classes([raw_set([(1, 1, 20, 20)] * 10)], None)
    assert of_kind("class-unused", found) == ["'dog' is declared, but no object is of it"]


def test_a_crowd_alone_leaves_a_class_unused() -> None:
    found = check_classes([raw_set([(1, 1, 20, 20)], crowd=[True], names=("cat",))], None)
    assert "class-unused" in kinds(found)


def test_a_wanted_class_that_is_not_there_is_told() -> None:
    found = check_classes([raw_set([(1, 1, 20, 20)] * 10)], ["cat", "cow"])
    assert of_kind("class-unused", found) == ["'cow' is wanted, but not among the classes"]


def test_a_class_that_one_split_lacks_is_absent_there() -> None:
    boxes: list[Box] = [(1, 1, 20, 20)] * 20
    val = raw_set(boxes, split="val")
    found = check_classes([raw_set(boxes, labels=[0] * 10 + [1] * 10), val], None)
    assert of_kind("class-absent", found) == ["'dog' has no object in 'val', but 10 in 'train'"]
    assert [finding.split for finding in found if finding.kind == "class-absent"] == ["val"]


def test_rare_is_fewer_than_ten_in_the_first_split() -> None:
    val = raw_set([(1, 1, 20, 20)] * 2, labels=[0, 1], split="val")
    found = check_classes([raw_set([(1, 1, 20, 20)] * 19, labels=[0] * 10 + [1] * 9), val], None)
    assert of_kind("class-rare", found) == ["'dog' has 9 objects"]


@pytest.mark.parametrize(("count", "expected"), [(200, 0), (201, 1)])
def test_more_than_twenty_times_as_many_is_out_of_balance(count: int, expected: int) -> None:
    raw = raw_set([(1, 1, 20, 20)] * (count + 10), labels=[0] * count + [1] * 10)
    assert kinds(check_classes([raw], None)).count("class-imbalance") == expected


def test_names_alike_are_found_across_splits() -> None:
    boxes: list[Box] = [(1, 1, 20, 20)] * 10
    raws = [raw_set(boxes, names=("Car",), kind="voc"), raw_set(boxes, names=("car",), kind="voc", split="val")]
    assert of_kind("class-alike", check_classes(raws, None)) == ["'Car' (10 objects) and 'car' (10)"]


def test_declared_classes_that_differ_are_told() -> None:
    raws = [raw_set(names=("cat", "dog")), raw_set(names=("cat", "cow"), split="val")]
    assert of_kind("classes-differ", check_classes(raws, None)) == [
        "'train' does not declare 'cow'; 'val' does not declare 'dog'"
    ]


def test_declared_ids_that_differ_are_told() -> None:
    raws = [raw_set(ids=(1, 2)), raw_set(ids=(2, 1), split="val")]
    assert of_kind("classes-differ", check_classes(raws, None)) == [
        "'cat' has id 2 here and 1 in 'train', and so 1 more"
    ]


def test_wanted_classes_settle_what_files_declare() -> None:
    raws = [raw_set(ids=(1, 2)), raw_set(ids=(2, 1), split="val")]
    assert "classes-differ" not in kinds(check_classes(raws, ["cat", "dog"]))


def test_voc_declares_no_classes() -> None:
    raws = [raw_set(names=("cat",), kind="voc"), raw_set(names=("dog",), kind="voc", split="val")]
    assert "classes-differ" not in kinds(check_classes(raws, None))


def test_images_without_objects_crowds_and_difficult_objects_are_counted() -> None:
    raw = raw_set([(1, 1, 20, 20)] * 3, crowd=[True] * 2 + [False], difficult=[False, False, True], files=("a", "b"))
    found = check_classes([raw], None)
    counts = {finding.kind: finding.what for finding in found if finding.kind in ("no-objects", "crowd", "difficult")}
    assert counts == {"no-objects": "1 of 2 images", "crowd": "2 of 3 objects", "difficult": "1 of 3 objects"}


def test_an_annotation_that_cannot_be_read_does_not_mean_no_objects() -> None:
    unread = Finding("annotation-unreadable", "train", "a.xml", "", "no XML", 0)
    assert "no-objects" not in kinds(check_classes([raw_set(findings=(unread,))], None))


def test_foreign_names_are_quoted() -> None:
    found = check_classes([raw_set(names=("\x1b[2J\nBÄR", "\x1b[2J\nbär"))], None)
    assert kinds(found)[-2:] == ["class-alike", "no-objects"]


def test_no_splits_at_all_are_no_fault() -> None:
    assert check_classes([], None) == []


# Splits


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def test_a_file_of_two_splits_is_found(tmp_path: Path) -> None:
    train = raw_set(files=("a.jpg", "b.jpg"), folder=tmp_path)
    val = raw_set(files=("./b.jpg", "c.jpg"), folder=tmp_path, split="val")
    (finding,) = check_splits([train, val])
    assert (finding.kind, finding.split, finding.image) == ("image-in-two-splits", "train", 1)
    assert finding.what == "the image is in 'train' and in 'val'"


def test_one_name_in_two_folders_is_two_files(tmp_path: Path) -> None:
    raws = [raw_set(folder=tmp_path / "train"), raw_set(folder=tmp_path / "val", split="val")]
    assert check_splits(raws) == []


def test_a_split_made_of_two_others_shares_their_files(tmp_path: Path) -> None:
    files = {"train": ("a.jpg",), "val": ("b.jpg",), "trainval": ("a.jpg", "b.jpg")}
    raws = [raw_set(files=names, folder=tmp_path, split=split) for split, names in files.items()]
    assert check_splits(raws) == []
    assert kinds(check_splits([raws[2], raws[1]])) == ["image-in-two-splits"]


def devkit(tmp_path: Path, listed: str, annotated: str, images: str, lists: str = "Main") -> RawSet:
    """A VOC data set with one file a letter."""
    touch(*(tmp_path / "Annotations" / f"{name}.xml" for name in annotated))
    touch(*(tmp_path / "JPEGImages" / f"{name}.jpg" for name in images), tmp_path / "ImageSets" / lists / "train.txt")
    (tmp_path / "ImageSets" / lists / "train.txt").write_text("\n".join(f"{name}  1" for name in listed))
    return raw_set(files=("a.jpg",), folder=tmp_path / "JPEGImages", kind="voc")


def test_an_annotation_that_no_list_names_is_found(tmp_path: Path) -> None:
    (finding,) = check_splits([devkit(tmp_path, listed="a", annotated="ab", images="ab")])
    assert (finding.kind, finding.file) == ("split-incomplete", str(tmp_path / "Annotations" / "b.xml"))


@pytest.mark.parametrize("lists", ["Main", "Segmentation"])
def test_an_annotation_of_any_list_is_listed(tmp_path: Path, lists: str) -> None:
    assert check_splits([devkit(tmp_path, "ab", "ab", "ab", lists)]) == []


def test_images_that_nothing_names_are_one_finding(tmp_path: Path) -> None:
    (finding,) = check_splits([devkit(tmp_path, listed="a", annotated="a", images="aefgh")])
    assert (finding.kind, finding.file) == ("image-unlisted", str(tmp_path / "JPEGImages"))
    assert finding.what == "4 of 5 image files: 'e.jpg', 'f.jpg', 'g.jpg', ..."


def test_what_another_split_names_is_listed(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "b.JPG", tmp_path / "c.png")
    raws = [raw_set(folder=tmp_path), raw_set(files=("b.JPG",), folder=tmp_path, split="val")]
    assert [finding.what for finding in check_splits(raws)] == ["1 of 3 image files: 'c.png'"]


def test_hidden_files_folders_and_other_files_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "._a.jpg", tmp_path / "notes.txt", tmp_path / "inner.jpg" / "x")
    assert check_splits([raw_set(folder=tmp_path)]) == []


def test_folders_inside_the_images_folder_are_looked_at_if_they_are_used(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "a.jpg", tmp_path / "x" / "b.jpg", tmp_path / "masks" / "a.png")
    (finding,) = check_splits([raw_set(files=("x/a.jpg",), folder=tmp_path)])
    assert (finding.file, finding.what) == (str(tmp_path / "x"), "1 of 2 image files: 'b.jpg'")


def test_folders_of_unsafe_names_are_not_looked_at(tmp_path: Path) -> None:
    touch(tmp_path / "secret" / "b.jpg", tmp_path / "images" / "a.jpg")
    unsafe = Finding("file-name-unsafe", "train", "train.json", "images[0]", "leaves the images folder", 0)
    raw = raw_set(files=("../secret/a.jpg", "a.jpg"), folder=tmp_path / "images", findings=(unsafe,))
    assert check_splits([raw]) == []


def test_folders_that_are_not_there_are_no_finding(tmp_path: Path) -> None:
    assert check_splits([raw_set(folder=tmp_path / "nowhere")]) == []


# Real data


@pytest.mark.parametrize(("name", "boxes"), [("bccd", {"box-without-area": 2}), ("microcontroller", {})])
def test_what_is_known_of_real_data_is_found_and_nothing_else(shared: Path, name: str, boxes: dict[str, int]) -> None:
    recognise = pytest.importorskip("detector.data.raw.recognise")
    sources = [source for source in recognise.recognise(shared / "data" / name) if source.split != "trainval"]
    raws = [recognise.read_raw(source) for source in sources]
    found = [finding for raw in raws for finding in check_boxes(raw, raw.sizes, ResizeConfig())]
    assert Counter(kinds(found)) == boxes
    assert check_splits(raws) == []
