"""Which data sets a folder holds."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from PIL import Image

from detector.data.export import write_coco, write_voc
from detector.data.raw.recognise import read_raw, recognise
from detector.data.shapes import ShapesDataset
from detector.errors import DatasetError
from detector.structures import Size

XML = "<annotation><object><name>cat</name></object></annotation>"


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


def coco(path: Path, *file_names: str) -> Path:
    images = [{"id": number, "file_name": name} for number, name in enumerate(file_names)]
    return put(path, json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}))


def splits(folder: Path) -> list[str]:
    return [source.split for source in recognise(folder)]


def places(folder: Path) -> list[tuple[str, str, str]]:
    """Each split with its images and annotations, as seen from the folder."""
    return [
        (source.split, str(source.images.relative_to(folder)), str(source.annotations.relative_to(folder)))
        for source in recognise(folder)
    ]


# Nothing


def test_a_folder_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        recognise(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    put(tmp_path / "results.json", '[{"image_id": 1}]')
    put(tmp_path / "empty.json")
    put(tmp_path / "config.yaml", "names: [a]")
    put(tmp_path / "settings.yaml", "a: [")
    with pytest.raises(DatasetError, match=r"COCO .* VOC .* YOLO") as caught:
        recognise(tmp_path)
    assert str(caught.value).isprintable()


# VOC


def devkit(root: Path, *lists: str) -> Path:
    picture(root / "JPEGImages/a.jpg")
    put(root / "Annotations/a.xml", XML)
    for name in lists:
        put(root / f"ImageSets/Main/{name}.txt", "a\n")
    return root


def test_lists_of_a_devkit_are_its_splits_in_order(tmp_path: Path) -> None:
    assert splits(devkit(tmp_path, "odd", "test", "val", "trainval", "train")) == [
        "train",
        "trainval",
        "val",
        "test",
        "odd",
    ]


def test_lists_of_one_class_are_left_out(tmp_path: Path) -> None:
    devkit(tmp_path, "train")
    put(tmp_path / "ImageSets/Main/cat_train.txt", "a -1\n")
    put(tmp_path / "ImageSets/Main/dog_train.txt", "a  1\n")
    assert splits(tmp_path) == ["train"]


def test_a_devkit_without_lists_is_one_split_of_all(tmp_path: Path) -> None:
    assert places(devkit(tmp_path)) == [("all", ".", ".")]


def test_a_folder_above_a_devkit_will_do(tmp_path: Path) -> None:
    devkit(tmp_path / "VOC2007", "train")
    assert places(tmp_path) == [("train", "VOC2007", "VOC2007/ImageSets/Main/train.txt")]


def test_splits_of_two_devkits_are_told_apart(tmp_path: Path) -> None:
    devkit(tmp_path / "VOC2007", "train", "test")
    devkit(tmp_path / "VOC2012", "train")
    assert splits(tmp_path) == ["train-VOC2007", "train-VOC2012", "test-VOC2007"]


def test_folders_with_xml_beside_images_are_splits(tmp_path: Path) -> None:
    for split in ("test", "train"):
        picture(tmp_path / split / "a.jpg")
        put(tmp_path / split / "a.xml", XML)
    assert places(tmp_path) == [("train", "train", "train"), ("test", "test", "test")]


def test_one_folder_with_xml_beside_images_is_a_split_of_its_name(tmp_path: Path) -> None:
    picture(tmp_path / "photos/a.JPG")
    put(tmp_path / "photos/a.xml", XML)
    assert splits(tmp_path / "photos") == ["photos"]


def test_other_xml_is_not_taken_for_annotations(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    put(tmp_path / "a.xml", "<project/>")
    with pytest.raises(DatasetError):
        recognise(tmp_path)


# COCO


def test_coco_as_it_is_handed_out(tmp_path: Path) -> None:
    for split in ("val2017", "train2017"):
        picture(tmp_path / split / f"{split}.jpg")
        for task in ("instances", "person_keypoints", "captions"):
            coco(tmp_path / f"annotations/{task}_{split}.json", f"{split}.jpg")
    assert places(tmp_path) == [
        ("train2017", "train2017", "annotations/instances_train2017.json"),
        ("val2017", "val2017", "annotations/instances_val2017.json"),
    ]


def test_coco_with_a_file_beside_each_split(tmp_path: Path) -> None:
    for split in ("valid", "train", "test"):
        picture(tmp_path / split / "a.jpg")
        coco(tmp_path / split / "_annotations.coco.json", "a.jpg")
    assert places(tmp_path)[:2] == [
        ("train", "train", "train/_annotations.coco.json"),
        ("valid", "valid", "valid/_annotations.coco.json"),
    ]
    assert splits(tmp_path / "test") == ["test"]


@pytest.mark.parametrize("images", ["images", "pictures", "."])
def test_one_coco_file_with_its_images_wherever_they_are(tmp_path: Path, images: str) -> None:
    picture(tmp_path / images / "a.jpg")
    coco(tmp_path / "annotations.json", "missing.jpg", "a.jpg")
    assert places(tmp_path) == [("all", images, "annotations.json")]


def test_file_names_with_a_folder_are_relative_to_the_folder_above(tmp_path: Path) -> None:
    picture(tmp_path / "train/a.jpg")
    coco(tmp_path / "labels/train.json", "train/a.jpg")
    assert places(tmp_path) == [("train", ".", "labels/train.json")]


def test_images_that_are_not_there_are_expected_in_the_folder_of_the_split(tmp_path: Path) -> None:
    (tmp_path / "train2017").mkdir()
    coco(tmp_path / "annotations/instances_train2017.json", "a.jpg", "/etc/passwd")
    assert places(tmp_path)[0][1] == "train2017"


def test_two_coco_files_of_one_split_are_told_apart(tmp_path: Path) -> None:
    coco(tmp_path / "train.json", "a.jpg")
    coco(tmp_path / "annotations/instances_train.json", "a.jpg")
    assert splits(tmp_path) == ["train", "annotations-instances_train"]


def test_what_is_written_here_is_recognised(tmp_path: Path) -> None:
    shapes = ShapesDataset(2, 0, Size(64, 64), False)
    (tmp_path / "coco").mkdir()
    write_coco(shapes, tmp_path / "coco")
    write_voc(shapes, tmp_path / "voc", "train")
    objects = [len(read_raw(source).labels) for name in ("coco", "voc") for source in recognise(tmp_path / name)]
    assert objects == [len(shapes.annotations.labels)] * 2


# YOLO


def yolo(folder: Path, *places: str) -> None:
    """Images with text files: images/train has labels/train, train/images has train/labels."""
    for place in places:
        picture(folder / place / "a.jpg")
        put(folder / place.replace("images", "labels") / "a.txt", "0 .5 .5 .5 .5\n")


def test_yolo_with_folders_in_images(tmp_path: Path) -> None:
    yolo(tmp_path, "images/train", "images/val")
    put(tmp_path / "set.yaml", "path: .\ntrain: images/train\nval: images/val\ntest:\nnames: {0: cat, 1: dog}\n")
    assert places(tmp_path) == [("train", "images/train", "labels/train"), ("val", "images/val", "labels/val")]
    assert recognise(tmp_path)[0].class_names == ("cat", "dog")


def test_yolo_with_images_in_folders_and_paths_that_lead_one_too_far_up(tmp_path: Path) -> None:
    yolo(tmp_path, "train/images", "valid/images")
    put(tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['no']\n")
    assert places(tmp_path) == [("train", "train/images", "train/labels"), ("val", "valid/images", "valid/labels")]
    assert recognise(tmp_path)[0].class_names == ("no",)


def test_a_yolo_split_that_is_not_there_is_left_out_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    yolo(tmp_path, "images")
    put(tmp_path / "data.yaml", "train: images\ntest: ../test/images\nnames: [cat]\n")
    with caplog.at_level(logging.WARNING):
        assert splits(tmp_path) == ["train"]
    assert "test/images" in caplog.text


def test_yolo_lists_are_read_from_where_their_files_are(tmp_path: Path) -> None:
    yolo(tmp_path, "data/images")
    put(tmp_path / "data/train.txt", "data/images/a.jpg\n")
    put(tmp_path / "data.yaml", "train: data/train.txt\nnames: [cat]\n")
    (source,) = recognise(tmp_path)
    raw = read_raw(source)
    assert (raw.folder, raw.file_names, len(raw.labels)) == (tmp_path, ("data/images/a.jpg",), 1)


def test_text_files_may_be_beside_their_images(tmp_path: Path) -> None:
    picture(tmp_path / "train/a.jpg")
    put(tmp_path / "train/a.txt", "0 .5 .5 .5 .5\n")
    put(tmp_path / "data.yaml", "train: train\nnames: [cat]\n")
    assert places(tmp_path) == [("train", "train", "train")]


@pytest.mark.parametrize("listed", ["classes.txt", "labels/classes.txt"])
def test_yolo_with_a_list_of_classes(tmp_path: Path, listed: str) -> None:
    yolo(tmp_path, "images")
    put(tmp_path / listed, "cat\ndog \n\n")
    assert places(tmp_path) == [("all", "images", "labels")]
    assert recognise(tmp_path)[0].class_names == ("cat", "dog")


def test_yolo_with_a_list_of_classes_and_splits(tmp_path: Path) -> None:
    yolo(tmp_path, "images/val", "images/train")
    put(tmp_path / "classes.txt", "cat\n")
    assert places(tmp_path) == [("train", "images/train", "labels/train"), ("val", "images/val", "labels/val")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("train: images\nnames: {0: cat, 2: dog}\n", "numbers 0 to 1"),
        ("train: images\nnames: cat\n", "list of class names"),
        ("train: images\nnames: [cat, '']\n", "class 1 must have a name"),
        ("train: [images, more]\nnames: [cat]\n", "one folder"),
        ("train: nowhere\nnames: [cat]\n", "is there"),
        ("train: images\nnames: [cat\n", "not valid YAML"),
    ],
)
def test_a_yaml_file_that_cannot_be_followed_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    yolo(tmp_path, "images")
    put(tmp_path / "data.yaml", text)
    with pytest.raises(DatasetError, match=reason):
        recognise(tmp_path)


# Real data


@pytest.mark.parametrize(
    ("folder", "format", "names"),
    [
        ("bccd/BCCD", "voc", ["train", "trainval", "val", "test"]),
        ("bccd", "voc", ["train", "trainval", "val", "test"]),
        ("coco_by", "coco", ["train2017", "val2017"]),
        ("microcontroller", "voc", ["train", "test"]),
        ("nasty", "coco", ["all"]),
    ],
)
def test_real_data_is_recognised(shared: Path, folder: str, format: str, names: list[str]) -> None:
    sources = recognise(shared / "data" / folder)
    assert [source.split for source in sources] == names
    assert {source.format for source in sources} == {format}
