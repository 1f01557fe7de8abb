"""What is written reads back the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detector.data.coco import open_coco
from detector.data.dataset import FileDataset, JoinedDataset
from detector.data.export import coco_content, write_coco, write_voc
from detector.data.shapes import CLASS_NAMES, ShapesDataset
from detector.data.voc import open_voc
from detector.structures import Annotations, ImageInfo, Sample, Size

COUNT = 12


class Marked:
    """Shapes of which the first object of every image is difficult and the last one a crowd."""

    def __init__(self) -> None:
        self.whole = ShapesDataset(COUNT, 0, Size(64, 80), hard=False)
        old = self.whole.annotations
        filled = np.diff(old.rows) > 0
        difficult, crowd = np.zeros(len(old.labels), bool), np.zeros(len(old.labels), bool)
        difficult[old.rows[:-1][filled]] = True
        crowd[old.rows[1:][filled] - 1] = True
        self.annotations: Annotations = replace(old, difficult=difficult, crowd=crowd)

    def __len__(self) -> int:
        return COUNT

    def info(self, index: int) -> ImageInfo:
        return self.whole.info(index)

    def __getitem__(self, index: int) -> Sample:
        rows = self.annotations.of_image(index)
        return replace(
            self.whole[index], crowd=self.annotations.crowd[rows], difficult=self.annotations.difficult[rows]
        )


@pytest.fixture(scope="module")
def dataset() -> Marked:
    return Marked()


@pytest.fixture(scope="module")
def coco(dataset: Marked, tmp_path_factory: pytest.TempPathFactory) -> FileDataset:
    folder = tmp_path_factory.mktemp("coco")
    write_coco(dataset, folder)
    return open_coco(folder / "images", folder / "annotations.json", None, False, 10_000)


@pytest.fixture(scope="module")
def voc(dataset: Marked, tmp_path_factory: pytest.TempPathFactory) -> FileDataset:
    folder = tmp_path_factory.mktemp("voc")
    write_voc(dataset, folder, "trainval")
    return open_voc(folder, "trainval", CLASS_NAMES, False, 10_000)


@pytest.mark.parametrize(
    "field", ["image_ids", "class_names", "category_ids", "rows", "labels", "boxes_xywh", "areas", "crowd", "difficult"]
)
def test_coco_reads_back_equal(dataset: Marked, coco: FileDataset, field: str) -> None:
    written, read = getattr(dataset.annotations, field), getattr(coco.annotations, field)
    assert np.array_equal(written, read)


@pytest.mark.parametrize("index", range(COUNT))
def test_coco_gives_the_same_samples(dataset: Marked, coco: FileDataset, index: int) -> None:
    written, read = dataset[index], coco[index]
    assert (written.image == read.image).all()
    np.testing.assert_allclose(written.boxes, read.boxes, rtol=0, atol=1e-5)
    assert (written.labels == read.labels).all()
    assert (written.crowd == read.crowd).all()


def test_coco_content_is_json() -> None:
    content = coco_content(ShapesDataset(3, 0, Size(64, 80), hard=False).annotations)
    assert json.loads(json.dumps(content)) == content


def test_coco_annotation_ids_begin_with_1(dataset: Marked) -> None:
    # pycocotools loses a match to an annotation whose id is 0.
    ids = [record["id"] for record in coco_content(dataset.annotations)["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


@pytest.mark.parametrize("index", range(COUNT))
def test_voc_gives_the_same_images_and_labels(dataset: Marked, voc: FileDataset, index: int) -> None:
    written, read = dataset[index], voc[index]
    assert (written.image == read.image).all()
    assert (written.labels == read.labels).all()
    assert (written.difficult == read.difficult).all()
    assert voc.info(index).size == written.size


@pytest.mark.parametrize("index", range(COUNT))
def test_voc_boxes_are_rounded_outwards(dataset: Marked, voc: FileDataset, index: int) -> None:
    boxes = dataset[index].boxes
    expected = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
    assert (voc[index].boxes == expected).all()


def test_voc_names_its_split(dataset: Marked, tmp_path: Path) -> None:
    write_voc(dataset, tmp_path, "test")
    names = (tmp_path / "ImageSets/Main/test.txt").read_text().split()
    assert names == [f"{index:06d}" for index in range(COUNT)]


def test_joined_sets_can_be_written(tmp_path: Path) -> None:
    whole = ShapesDataset(4, 0, Size(64, 80), hard=False)
    write_voc(whole, tmp_path, "train")
    write_coco(whole, tmp_path / "coco")
    parts = [
        open_voc(tmp_path, "train", CLASS_NAMES, False, 10_000),
        open_coco(tmp_path / "coco/images", tmp_path / "coco/annotations.json", CLASS_NAMES, False, 10_000),
    ]
    write_coco(JoinedDataset(parts), tmp_path / "both")
    read = open_coco(tmp_path / "both/images", tmp_path / "both/annotations.json", None, False, 10_000)
    assert read.annotations.image_ids == ("000000", "000001", "000002", "000003", 0, 1, 2, 3)
