"""Classes chosen, ordered, merged and renamed by ``data.classes``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from detector.config.load import dump_config, parse_config
from detector.data.build import open_split
from detector.data.dataset import DetectionDataset
from detector.errors import ConfigError, DatasetError
from tests.tiny import tiny_config

NAMES = ("bus", "car", "cat", "dog")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A COCO and a VOC data set of one image that holds a bus, a car, a cat and a dog."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "JPEGImages" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 10 * (number + 1), "name": name} for number, name in enumerate(NAMES)],
        "annotations": [
            {"image_id": 1, "category_id": 10 * (number + 1), "bbox": [number, 0, 5, 5]} for number in range(4)
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{number + 1}</xmin><ymin>1</ymin><xmax>{number + 5}</xmax>"
        "<ymax>5</ymax></bndbox></object>"
        for number, name in enumerate(NAMES)
    )
    (tmp_path / "Annotations" / "a.xml").write_text(f"<annotation>{objects}</annotation>")
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    return tmp_path


def opened(folder: Path, kind: str, classes: str, names: list[str] | None = None) -> DetectionDataset:
    coco = f"{{format: coco, images: {folder}/JPEGImages, annotations: {folder}/a.json}}"
    voc = f"{{format: voc, root: {folder}, split: train}}"
    config = tiny_config(f"data.train=[{coco if kind == 'coco' else voc}]", f"data.classes={classes}")
    return open_split(config, "train", names)


@pytest.mark.parametrize("kind", ["coco", "voc"])
@pytest.mark.parametrize(
    ("classes", "names", "labels"),
    [
        ("[dog, bus]", ("dog", "bus"), [1, 0]),
        ("[cat, {name: vehicle, merge: [car, bus]}]", ("cat", "vehicle"), [1, 1, 0]),
        ("[{name: puppy, merge: [dog]}]", ("puppy",), [0]),
        ("[{name: bus, merge: [bus, car]}, dog]", ("bus", "dog"), [0, 0, 1]),
        ("[{name: bus, merge: [car]}]", ("bus",), [0, 0]),
    ],
    ids=["chosen and ordered", "merged", "renamed", "merged under a name of its own", "merged into another"],
)
def test_classes_are_as_they_are_wanted(
    folder: Path, kind: str, classes: str, names: tuple[str, ...], labels: list[int]
) -> None:
    annotations = opened(folder, kind, classes).annotations
    assert annotations.class_names == names
    assert annotations.labels.tolist() == labels


def test_results_carry_the_first_id_that_was_merged(folder: Path) -> None:
    assert opened(folder, "coco", "[dog, {name: vehicle, merge: [car, bus]}]").annotations.category_ids == (40, 10)


def test_the_names_of_a_trained_network_are_read_by_the_same_groups(folder: Path) -> None:
    classes = "[{name: vehicle, merge: [car, bus]}, dog]"
    assert opened(folder, "coco", classes, ["vehicle", "dog"]).annotations.labels.tolist() == [0, 0, 1]


def test_a_group_of_which_the_file_has_nothing_is_told(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"none of the wanted classes \('x'\)"):
        opened(folder, "coco", "[{name: x, merge: [y]}]")


@pytest.mark.parametrize(
    "classes", ["[car, {name: x, merge: [car]}]", "[{name: x, merge: [a]}, {name: y, merge: [a]}]"]
)
def test_a_name_that_means_two_classes_is_refused(classes: str) -> None:
    with pytest.raises(ConfigError, match="holds a name twice"):
        tiny_config(f"data.classes={classes}")


def test_groups_are_saved_with_the_configuration() -> None:
    config = tiny_config("data.classes=[a, {name: b, merge: [c, d]}]")
    assert parse_config(dump_config(config), "it") == config
