"""What every data set must keep to, and that a data set of one's own is told where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detector.data.coco import open_coco
from detector.data.dataset import DetectionDataset, JoinedDataset, Subset, check_dataset
from detector.data.export import write_coco, write_voc
from detector.data.shapes import CLASS_NAMES, ShapesDataset
from detector.data.voc import open_voc
from detector.errors import DatasetError
from detector.structures import Annotations, ImageInfo, Sample, Size

COUNT = 8


def shapes(hard: bool = False) -> ShapesDataset:
    return ShapesDataset(COUNT, 0, Size(64, 80), hard)


def coco(folder: Path) -> DetectionDataset:
    write_coco(shapes(), folder)
    return open_coco(folder / "images", folder / "annotations.json", None, False, 10_000)


def voc(folder: Path) -> DetectionDataset:
    write_voc(shapes(), folder, "train")
    return open_voc(folder, "train", CLASS_NAMES, False, 10_000)


MAKERS: dict[str, Callable[[Path], DetectionDataset]] = {
    "shapes": lambda folder: shapes(),
    "hard shapes": lambda folder: shapes(hard=True),
    "coco": coco,
    "voc": voc,
    "joined": lambda folder: JoinedDataset([voc(folder / "voc"), coco(folder / "coco")]),
    "subset": lambda folder: Subset(shapes(), [5, 0, 3]),
    "subset with objects": lambda folder: Subset.with_objects(coco(folder), 3),
    "custom": lambda folder: Custom(),
}


@pytest.fixture(params=MAKERS, scope="module")
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DetectionDataset:
    return MAKERS[request.param](tmp_path_factory.mktemp("data"))


def test_it_passes_the_check(dataset: DetectionDataset) -> None:
    check_dataset(dataset)


def test_its_annotations_are_those_of_its_images(dataset: DetectionDataset) -> None:
    annotations = dataset.annotations
    assert len(annotations.image_ids) == len(dataset)
    for index in range(len(dataset)):
        sample, rows = dataset[index], annotations.of_image(index)
        assert dataset.info(index).image_id == sample.info.image_id == annotations.image_ids[index]
        assert (sample.labels == annotations.labels[rows]).all()
        assert (sample.crowd == annotations.crowd[rows]).all()
        assert (sample.difficult == annotations.difficult[rows]).all()
        corners = annotations.boxes_xywh[rows].copy()
        corners[:, 2:] += corners[:, :2]
        np.testing.assert_allclose(sample.boxes, corners, rtol=0, atol=1e-4)


def test_its_image_ids_are_distinct(dataset: DetectionDataset) -> None:
    assert len(set(dataset.annotations.image_ids)) == len(dataset)


def test_its_sizes_are_those_of_its_images(dataset: DetectionDataset) -> None:
    assert all(dataset.info(index).size in (None, dataset[index].size) for index in range(len(dataset)))


def test_it_gives_the_same_image_again(dataset: DetectionDataset) -> None:
    assert (dataset[1].image == dataset[1].image).all()


def test_a_sample_given_out_can_be_changed_without_harm(dataset: DetectionDataset) -> None:
    sample = dataset[0]
    before = sample.boxes.copy()
    sample.boxes[:] = 0
    assert (dataset[0].boxes == before).all()


# Data sets of one's own


class Custom:
    """Shapes, with one thing or another amiss.

    Args:
        sample: changes the sample of image 5.
        annotations: changes the annotations.
        count: how many images it claims to have.
    """

    def __init__(
        self,
        sample: Callable[[Sample], Sample] = lambda sample: sample,
        annotations: Callable[[Annotations], Annotations] = lambda annotations: annotations,
        count: int = COUNT,
    ) -> None:
        self.whole = shapes()
        self.change = sample
        self.annotations = annotations(self.whole.annotations)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def info(self, index: int) -> ImageInfo:
        return self.whole.info(index)

    def __getitem__(self, index: int) -> Sample:
        sample = self.whole[index]
        return self.change(sample) if index == 5 else sample


def boxed(*box: float) -> Callable[[Sample], Sample]:
    """Puts one box in the place of all others."""
    boxes = np.array([box], dtype=np.float32)
    return lambda sample: replace(sample.keep(np.array([0])), boxes=boxes)


def labelled(label: int) -> Callable[[Sample], Sample]:
    return lambda sample: replace(sample, labels=np.full_like(sample.labels, label))


def test_the_image_that_is_changed_holds_objects() -> None:
    assert len(shapes()[5].boxes) > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (labelled(6), "labels must be 0..5, got 6..6"),
        (labelled(-1), "labels must be 0..5, got -1..-1"),
        (boxed(30, 10, 20, 40), "boxes must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2"),
        (boxed(30, 10, 30, 40), "boxes must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2"),
        (boxed(30, 40, 50, 10), "boxes must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2"),
        (boxed(float("nan"), 10, 50, 40), "boxes must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2"),
        (boxed(0, 0, float("inf"), 40), "boxes must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2"),
        (boxed(-1, 10, 50, 40), "boxes must lie inside the image of 80 x 64 pixels"),
        (boxed(30, 10, 81, 40), "boxes must lie inside the image of 80 x 64 pixels"),
        (boxed(10, 10, 20, 65), "boxes must lie inside the image of 80 x 64 pixels"),
        (
            lambda sample: replace(sample, boxes=sample.boxes.astype(np.float64)),
            "boxes must be float32 and labels int64, not float64 and int64",
        ),
        (
            lambda sample: replace(sample, labels=sample.labels.astype(np.int32)),
            "boxes must be float32 and labels int64, not float32 and int32",
        ),
        (
            lambda sample: replace(sample, info=ImageInfo("another", "x.png", None)),
            "its id is 'another' here and 5 there",
        ),
    ],
)
def test_a_fault_of_a_sample_is_named_with_its_image(change: Callable[[Sample], Sample], words: str) -> None:
    with pytest.raises(DatasetError) as caught:
        check_dataset(Custom(sample=change))
    assert str(caught.value) == f"image 5 of the data set: {words}"


def test_a_data_set_without_images_is_told() -> None:
    with pytest.raises(DatasetError, match="the data set holds no images"):
        check_dataset(Custom(count=0))


def test_annotations_of_another_number_of_images_are_told() -> None:
    with pytest.raises(DatasetError, match="the data set has 7 images but annotations for 8"):
        check_dataset(Custom(count=7))


def test_annotations_in_another_order_are_told() -> None:
    def turned(annotations: Annotations) -> Annotations:
        return replace(annotations, image_ids=annotations.image_ids[::-1])

    with pytest.raises(DatasetError, match="image 0 of the data set: its id is 0 here and 7 there"):
        check_dataset(Custom(annotations=turned))


def test_image_ids_that_repeat_are_told() -> None:
    """Detections of one such image would be scored against the other."""

    class Repeating(Custom):
        def info(self, index: int) -> ImageInfo:
            return replace(self.whole.info(index), image_id=index // 2)

        def __getitem__(self, index: int) -> Sample:
            return replace(self.whole[index], info=self.info(index))

    def repeated(annotations: Annotations) -> Annotations:
        return replace(annotations, image_ids=tuple(index // 2 for index in range(COUNT)))

    with pytest.raises(DatasetError):
        check_dataset(Repeating(annotations=repeated))


def test_only_so_many_images_are_decoded_as_asked() -> None:
    seen: list[int] = []

    class Counting(Custom):
        def __getitem__(self, index: int) -> Sample:
            seen.append(index)
            return self.whole[index]

    check_dataset(Counting(), images=3)
    assert seen == [0, 3, 7]


# Joined sets and subsets


def test_sets_of_different_classes_cannot_be_joined() -> None:
    def renamed(annotations: Annotations) -> Annotations:
        return replace(annotations, class_names=("disc", *annotations.class_names[1:]))

    with pytest.raises(DatasetError, match="the joined data sets have different classes: 'circle, disc'"):
        JoinedDataset([shapes(), Custom(annotations=renamed)])


def test_an_image_cannot_be_in_two_joined_sets() -> None:
    with pytest.raises(DatasetError, match="the image id 0 is in two of the joined data sets"):
        JoinedDataset([shapes(), shapes()])


def test_a_subset_that_asks_for_too_much_is_told() -> None:
    with pytest.raises(DatasetError, match="100 images with objects are wanted, the data set has "):
        Subset.with_objects(shapes(), 100)
