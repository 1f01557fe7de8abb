"""The built-in shapes with one shape an image."""

from __future__ import annotations

import numpy as np
import pytest

from detector.config.data_schema import ShapesSet
from detector.data.classification.build import open_labelled
from detector.data.classification.drawn import DrawnDataset, open_drawn
from detector.data.dataset import check_dataset
from detector.data.shapes import CLASS_NAMES, ShapesDataset
from detector.engine.quick_check import leak_sentence
from detector.errors import DatasetError
from detector.structures import Size
from tests.tiny import tiny_config


def drawn(images: int = 12, hard: bool = False, seed: int = 0, size: tuple[int, int] = (32, 40)) -> DrawnDataset:
    return open_drawn(ShapesSet(format="shapes", images=images, seed=seed, size=size, hard=hard), None, {})


@pytest.mark.parametrize("hard", [False, True])
def test_it_passes_the_check(hard: bool) -> None:
    check_dataset(drawn(hard=hard))


def test_every_class_is_equally_frequent() -> None:
    assert np.bincount(drawn(18).annotations.labels).tolist() == [3] * 6


def test_an_image_depends_on_seed_and_number_alone() -> None:
    assert (drawn(4)[3].image == drawn(12)[3].image).all()


def test_another_seed_gives_other_images() -> None:
    assert (drawn(4)[3].image != drawn(4, seed=1)[3].image).any()


def test_seeds_have_ids_of_their_own() -> None:
    assert not set(drawn().annotations.image_ids) & set(drawn(seed=1).annotations.image_ids)


def test_names_and_sizes_tell_all_that_pixels_depend_on() -> None:
    assert drawn().info(3).path == "shape_0_000003.png"
    assert drawn(seed=7, hard=True).info(3).path == "shape_7_hard_000003.png"


def test_images_of_another_kind_are_not_taken_for_the_same() -> None:
    kinds = [drawn(), drawn(hard=True), drawn(size=(40, 32)), drawn(seed=1)]
    assert [leak_sentence(drawn(), other) is None for other in kinds] == [False, True, True, True]
    size = Size(64, 80)
    scenes = [ShapesDataset(6, 0, size, hard=False), ShapesDataset(6, 0, size, hard=True)]
    scenes += [ShapesDataset(6, 0, Size(48, 80), hard=False), ShapesDataset(6, 1, size, hard=False)]
    assert [leak_sentence(scenes[0], other) is None for other in scenes] == [False, True, True, True]


def test_the_box_is_the_whole_image() -> None:
    sample = drawn()[4]
    assert sample.boxes.tolist() == [[0, 0, 40, 32]]
    assert sample.labels.tolist() == [4]
    assert drawn().annotations.boxes_xywh[4].tolist() == [0, 0, 40, 32]


def test_plain_classes_have_hues_of_their_own() -> None:
    sides = [sample.image.reshape(-1, 3).astype(int) for sample in map(drawn().__getitem__, range(6))]
    # The circle is red and the star, three classes on, is cyan.
    assert (sides[0][:, 0] - sides[0][:, 2]).max() > 60
    assert (sides[3][:, 2] - sides[3][:, 0]).max() > 60


def reds(label: int, hard: bool) -> int:
    """How many of 48 images of a class are mostly red where their colours are strongest."""
    dataset = drawn(288, hard, size=(32, 32))
    images = [dataset[index].image.reshape(-1, 3).astype(int) for index in range(label, 288, 6)]
    strongest = [image[np.argsort(np.ptp(image, axis=1))[-20:]].mean(axis=0) for image in images]
    return sum(int(colour.argmax() == 0) for colour in strongest)


def test_colours_of_hard_classes_say_nothing() -> None:
    # A plain circle is red, a plain star cyan, and what is behind them of any colour.
    circle, star = 0, 3
    assert reds(circle, hard=False) > 3 * reds(star, hard=False)
    assert abs(reds(circle, hard=True) - reds(star, hard=True)) < 8


def test_given_classes_choose_and_order() -> None:
    settings = tiny_config("data.train=[{format: shapes, images: 12, size: [32, 32]}]", "data.classes=[star, circle]")
    dataset = open_labelled(settings, "train")
    assert dataset.annotations.class_names == ("star", "circle")
    assert dataset.annotations.labels.tolist() == [1, 0, 1, 0]
    assert (dataset[1].image == drawn(size=(32, 32))[3].image).all()


def test_shapes_are_merged_by_the_configuration() -> None:
    settings = tiny_config(
        "data.train=[{format: shapes, images: 6, size: [32, 32]}]",
        "data.classes=[{name: round, merge: [circle, ring]}, square]",
    )
    assert open_labelled(settings, "train").annotations.labels.tolist() == [0, 1, 0]


def test_classes_that_are_no_shapes_are_refused() -> None:
    with pytest.raises(DatasetError, match=f"none of the wanted classes .* is among its own .*{CLASS_NAMES[0]}"):
        open_labelled(tiny_config("data.classes=[cat]"), "train")


def test_too_few_images_for_a_class_are_told() -> None:
    with pytest.raises(DatasetError, match=r"data\.train: no image of any class \('ring'\)"):
        open_labelled(tiny_config("data.train=[{format: shapes, images: 2}]", "data.classes=[ring]"), "train")
