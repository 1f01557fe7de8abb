"""The objects of a detection set as images of a classifier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detector.config import Config
from detector.data.classification.build import open_labelled
from detector.data.classification.crops import CropsDataset, crop_square
from detector.data.dataset import DetectionDataset, JoinedDataset, check_dataset
from detector.errors import DatasetError
from detector.structures import Size
from tests.tiny import tiny_config

SIZE = Size(60, 100)


def config(entry: str, *overrides: str) -> Config:
    return tiny_config(f"data.train=[{entry}]", "data.val=[]", "data.holdout=0", *overrides)


def coco(folder: Path, boxes: list[tuple[str, list[float]]], images: int = 1, context: float = 0) -> str:
    """The same boxes, by class name, in every image; a class named "crowd" marks a crowd of cats."""
    (folder / "images").mkdir()
    for number in range(images):
        pixels = np.arange(60 * 100 * 3, dtype=np.uint32).reshape(60, 100, 3) % 251
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{number}.png")
    names = ["cat", "dog"]
    content = {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": 100, "height": 60} for number in range(images)
        ],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
        "annotations": [
            {
                "image_id": number,
                "category_id": names.index("cat" if name == "crowd" else name),
                "bbox": box,
                "iscrowd": int(name == "crowd"),
            }
            for number in range(images)
            for name, box in boxes
        ],
    }
    (folder / "a.json").write_text(json.dumps(content))
    inner = f"{{format: coco, images: {folder}/images, annotations: {folder}/a.json}}"
    return f"{{format: crops, of: {inner}, context: {context}}}"


CAT, DOG = ("cat", [10.0, 10.0, 20.0, 30.0]), ("dog", [60.0, 20.0, 16.0, 8.0])


def ids(dataset: DetectionDataset) -> list[object]:
    return list(dataset.annotations.image_ids)


# The square


def test_the_square_has_the_longer_side_around_the_middle() -> None:
    assert crop_square(np.array([10.0, 10.0, 20.0, 30.0]), SIZE, 0) == (5, 10, 35, 40)


def test_context_is_added_on_each_side() -> None:
    assert crop_square(np.array([40.0, 25.0, 10.0, 10.0]), SIZE, 0.5) == (35, 20, 55, 40)


def test_at_a_border_the_square_is_moved_and_not_cut() -> None:
    assert crop_square(np.array([0.0, 0.0, 10.0, 40.0]), SIZE, 0) == (0, 0, 40, 40)


def test_it_is_cut_where_the_image_is_smaller() -> None:
    assert crop_square(np.array([10.0, 5.0, 80.0, 10.0]), SIZE, 0) == (10, 0, 90, 60)


def test_what_lies_outside_the_image_does_not_count() -> None:
    assert crop_square(np.array([90.0, 10.0, 50.0, 10.0]), SIZE, 0) == (90, 10, 100, 20)


def test_a_box_outside_has_no_square() -> None:
    assert crop_square(np.array([200.0, 10.0, 5.0, 5.0]), SIZE, 0) is None


@given(
    st.floats(-20, 99), st.floats(-20, 59), st.floats(21, 150), st.floats(21, 150), st.floats(0, 2), st.integers(60, 90)
)
def test_a_square_holds_the_box_and_lies_inside(
    x: float, y: float, width: float, height: float, context: float, rows: int
) -> None:
    square = crop_square(np.array([x, y, width, height]), Size(rows, 100), context)
    assert square is not None
    x1, y1, x2, y2 = square
    assert 0 <= x1 < x2 <= 100
    assert 0 <= y1 < y2 <= rows
    assert x2 - x1 == y2 - y1 or min(x2 - x1, y2 - y1) in (rows, 100)
    # To the half pixel by which the square is rounded.
    assert x1 - 0.5 <= max(x, 0)
    assert min(x + width, 100) <= x2 + 0.5
    assert y1 - 0.5 <= max(y, 0)
    assert min(y + height, rows) <= y2 + 0.5


# The data set


def test_it_passes_the_check(tmp_path: Path) -> None:
    check_dataset(open_labelled(config(coco(tmp_path, [CAT, DOG], 2)), "train"))


def test_each_object_is_an_image_of_its_class(tmp_path: Path) -> None:
    dataset = open_labelled(config(coco(tmp_path, [DOG, CAT])), "train")
    assert ids(dataset) == ["0#0", "0#1"]
    assert dataset.annotations.labels.tolist() == [1, 0]
    assert dataset.info(1).path.endswith("0.png")


def test_a_crop_holds_the_pixels_of_its_square(tmp_path: Path) -> None:
    dataset = open_labelled(config(coco(tmp_path, [DOG, CAT])), "train")
    whole = np.array(Image.open(tmp_path / "images" / "0.png"))
    assert (dataset[1].image == whole[10:40, 5:35]).all()
    assert dataset[1].boxes.tolist() == [[0, 0, 30, 30]]


def test_a_crop_shows_the_context_that_the_set_asks_for(tmp_path: Path) -> None:
    dataset = open_labelled(config(coco(tmp_path, [DOG, CAT], context=0.1)), "train")
    whole = np.array(Image.open(tmp_path / "images" / "0.png"))
    # The cat's longer side is 30, so that its square of 30 grows by 3 on each side.
    assert dataset[1].image.shape == (36, 36, 3)
    assert (dataset[1].image == whole[7:43, 2:38]).all()


def test_a_crop_given_out_can_be_changed_without_harm(tmp_path: Path) -> None:
    dataset = open_labelled(config(coco(tmp_path, [DOG, CAT])), "train")
    before = dataset[1].image.copy()
    dataset[1].image[:] = 0
    assert (dataset[1].image == before).all()


def test_crowds_are_left_out_but_counted_in_the_ids(tmp_path: Path) -> None:
    dataset = open_labelled(config(coco(tmp_path, [DOG, ("crowd", CAT[1]), CAT])), "train")
    assert ids(dataset) == ["0#0", "0#2"]


def test_small_boxes_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small = ("cat", [3.0, 3.0, 50.0, 7.0])
    dataset = open_labelled(config(coco(tmp_path, [small, CAT, DOG])), "train")
    assert ids(dataset) == ["0#1", "0#2"]
    assert "left out 1 of 3 objects, whose boxes have a side under 8 pixels (min_side)" in caplog.text


def test_a_part_inside_the_image_is_what_counts_as_small(tmp_path: Path) -> None:
    assert ids(open_labelled(config(coco(tmp_path, [("cat", [95.0, 3.0, 50.0, 20.0]), CAT, DOG])), "train")) == [
        "0#1",
        "0#2",
    ]


def test_only_small_boxes_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"data\.train: no image of any class \('cat, dog'\)"):
        open_labelled(config(coco(tmp_path, [("cat", [3.0, 3.0, 5.0, 5.0])])), "train")


def test_neighbours_of_one_image_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_labelled(config(coco(tmp_path, [CAT, DOG], 2)), "train")
    assert isinstance(dataset, CropsDataset)
    decoded: list[int] = []
    read = type(dataset.whole).__getitem__
    monkeypatch.setattr(
        type(dataset.whole), "__getitem__", lambda whole, index: decoded.append(index) or read(whole, index)
    )
    for index in range(4):
        dataset[index]
    assert decoded == [0, 1]


def test_given_classes_choose_and_order(tmp_path: Path) -> None:
    dataset = open_labelled(config(coco(tmp_path, [CAT, DOG])), "train", ["dog", "cat"])
    assert dataset.annotations.class_names == ("dog", "cat")
    assert dataset.annotations.labels.tolist() == [1, 0]


def test_classes_are_merged_by_the_configuration(tmp_path: Path) -> None:
    groups = "data.classes=[{name: beast, merge: [dog]}, {name: pet, merge: [cat]}]"
    dataset = open_labelled(config(coco(tmp_path, [CAT, DOG]), groups), "train")
    assert dataset.annotations.labels.tolist() == [1, 0]


def test_shapes_can_be_cut_out_and_chosen() -> None:
    entry = "{format: crops, of: {format: shapes, images: 20, size: [64, 80]}}"
    dataset = open_labelled(config(entry, "data.classes=[star, ring]"), "train")
    assert set(dataset.annotations.labels.tolist()) == {0, 1}
    check_dataset(dataset)


def test_an_image_is_held_out_with_all_its_objects(tmp_path: Path) -> None:
    settings = config(coco(tmp_path, [CAT, DOG, CAT], 10), "data.holdout=0.3")
    train, val = (
        {str(name).split("#")[0] for name in ids(open_labelled(settings, split))} for split in ("train", "val")
    )
    assert len(val) == 3
    assert not train & val


def test_joined_crops_are_held_out_by_image(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    entry = f"{coco(tmp_path / 'a', [CAT, DOG], 4)}, {{format: crops, of: {{format: shapes, images: 9}}}}"
    settings = config(entry, "data.holdout=0.5", "data.classes=[cat, dog, star]")
    train, val = open_labelled(settings, "train"), open_labelled(settings, "val")
    assert not {str(name).split("#")[0] for name in ids(train)} & {str(name).split("#")[0] for name in ids(val)}
    assert isinstance(getattr(train, "whole", None), JoinedDataset)


def test_annotations_tell_what_is_cut(tmp_path: Path) -> None:
    dataset = open_labelled(config(coco(tmp_path, [DOG, CAT], context=0.5)), "train")
    # With half of the longer side around each: 8 for the dog, 15 for the cat.
    assert dataset.annotations.boxes_xywh.tolist() == [[52, 12, 32, 24], [-5, -5, 50, 60]]
    assert dataset.annotations.areas.tolist() == [32 * 24, 50 * 60]


@pytest.mark.parametrize(("box", "context"), [([10.0, 10.0, 20.0, 31.0], 0.25), (CAT[1], 0.3), (CAT[1], 0.25)])
def test_the_fingerprint_tells_what_is_cut(tmp_path: Path, box: list[float], context: float) -> None:
    prints = []
    for name, entry in (("before", [CAT, DOG]), ("after", [("cat", box), DOG])):
        (tmp_path / name).mkdir()
        settings = config(coco(tmp_path / name, entry, context=0.25 if name == "before" else context))
        prints.append(open_labelled(settings, "train").annotations.fingerprint())
    assert (prints[0] == prints[1]) == (box == CAT[1] and context == 0.25)


def test_voc_boxes_of_real_images_are_cut_out(shared: Path) -> None:
    entry = f"{{format: crops, of: {{format: voc, root: {shared}/data/bccd/BCCD, split: test}}}}"
    dataset = open_labelled(config(entry), "train")
    assert dataset.annotations.class_names == ("Platelets", "RBC", "WBC")
    check_dataset(dataset)
