"""The resize rule, mirroring and augmentation, of images together with their boxes."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detector.config import parse_config
from detector.config.data_schema import DataConfig
from detector.data.loader import Batch
from detector.data.shapes import ShapesDataset
from detector.data.transforms import TrainTransform, resize_fast, resize_image, resized_size, to_pixels
from detector.errors import ConfigError
from detector.structures import ImageInfo, Sample, Size, Target
from tests.tiny import evaluation_batches

EXAMPLES = settings(max_examples=200, deadline=None, database=None, derandomize=True)
SHAPES = ShapesDataset(30, 0, Size(64, 80), hard=False)


def data(*overrides: str, augmentations: str = "[]") -> DataConfig:
    """Settings that leave an image of 64 x 80 as it is, but for the overrides."""
    lines = ["resize={train_short_side: [64], test_short_side: 64, max_long_side: 200}", "horizontal_flip=0"]
    given_lines = [*lines, f"augmentations={augmentations}", *overrides]
    return parse_config("", "a.yaml", [f"data.{line}" for line in given_lines]).data


def sample_of(image: np.ndarray, boxes: list[list[float]], crowd: list[bool] | None = None) -> Sample:
    count = len(boxes)
    return Sample(
        image,
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.arange(count),
        np.array(crowd or [False] * count, dtype=bool),
        np.zeros(count, dtype=bool),
        ImageInfo(0, "drawn", None),
    )


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def back(pixels: torch.Tensor) -> np.ndarray:
    """Pixels as an image again."""
    return np.ascontiguousarray(pixels.numpy().transpose(1, 2, 0))


def assert_same(one: tuple[torch.Tensor, Target], other: tuple[torch.Tensor, Target]) -> None:
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=0)
    torch.testing.assert_close(one[1].boxes, other[1].boxes, rtol=0, atol=0)
    torch.testing.assert_close(one[1].labels, other[1].labels, rtol=0, atol=0)
    assert one[1].seed == other[1].seed


# The resize rule


@pytest.mark.parametrize(
    ("size", "short_side", "limit", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),  # 640 * 800 / 480 = 1066.67
        ((640, 480), 800, 1333, (1067, 800)),
        ((427, 640), 800, 1333, (800, 1199)),  # 640 * 800 / 427 = 1199.06
        ((426, 640), 800, 1333, (800, 1202)),  # 640 * 800 / 426 = 1201.88
        ((600, 600), 800, 1333, (800, 800)),
        ((800, 1333), 800, 1333, (800, 1333)),
        ((300, 900), 800, 1333, (444, 1333)),  # 2400 is too long: 800 * 1333 / 2400 = 444.33
        ((900, 300), 800, 1333, (1333, 444)),
        ((1080, 1920), 800, 1333, (750, 1333)),  # 1422.2 is too long: 800 * 1333 / 1422.2 = 749.8
        ((375, 500), 600, 1000, (600, 800)),
        ((333, 500), 600, 1000, (600, 901)),  # 500 * 600 / 333 = 900.9
        ((1200, 1600), 640, 1333, (640, 853)),  # 853.33
        ((100, 200), 50, 75, (38, 75)),  # 100 is too long: 50 * 75 / 100 = 37.5, halves go up
        ((1, 10000), 800, 1333, (1, 1333)),  # detectron2 would make it 0 high
        ((1, 1), 800, 1333, (800, 800)),
    ],
)
def test_the_size_is_detectron2s(size: tuple[int, int], short_side: int, limit: int, expected: tuple[int, int]) -> None:
    assert resized_size(Size(*size), short_side, limit) == Size(*expected)


sides = st.integers(1, 20_000)


@EXAMPLES
@given(sides, sides, st.integers(1, 2000), st.integers(1, 2000))
def test_no_side_is_empty_or_passes_its_limit(height: int, width: int, short_side: int, limit: int) -> None:
    result = resized_size(Size(height, width), short_side, limit)
    assert min(result) >= 1
    assert max(result) <= max(limit, 1)
    assert min(result) <= short_side


@EXAMPLES
@given(sides, sides)
def test_turning_an_image_turns_its_size(height: int, width: int) -> None:
    turned = resized_size(Size(width, height), 800, 1333)
    assert resized_size(Size(height, width), 800, 1333) == Size(turned.width, turned.height)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (30, 41), (31, 40), (30, 40), (50, 67), (97, 200)])
def test_a_resized_image_is_pillows_to_the_last_bit(size: tuple[int, int]) -> None:
    image = noise(30, 40)
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    for given_image in (image, image[:, ::-1][:, ::-1], np.asfortranarray(image)):
        assert (back(resize_image(given_image, Size(*size))) == expected).all()


def test_a_resized_image_keeps_its_mean() -> None:
    image = noise(40, 40)
    smaller = resize_image(image, Size(10, 20))
    assert smaller.shape == (3, 10, 20)
    assert abs(smaller.float().mean().item() - image.mean()) < 1


def test_pixels_are_channels_first() -> None:
    image = noise(3, 5)
    pixels = to_pixels(image)
    assert pixels.shape == (3, 3, 5)
    assert pixels.dtype == torch.uint8
    assert pixels[1, 2, 4] == image[2, 4, 1]


def test_outside_training_an_image_is_resized_and_nothing_else() -> None:
    config = parse_config("", "a.yaml", ["data.resize={train_short_side: [7], test_short_side: 24}"])
    batch = evaluation_batches(SHAPES, [3], config)[0]
    assert isinstance(batch, Batch)
    assert (back(batch.images.pixels[0]) == back(resize_image(SHAPES[3].image, Size(24, 30)))).all()


# Training


def test_boxes_are_resized_with_their_image() -> None:
    sample = sample_of(noise(48, 64), [[10, 5, 30, 35]])
    transform = TrainTransform(data("resize={train_short_side: [96], max_long_side: 200}"), seed=0)
    pixels, target = transform(sample, 0)
    assert pixels.shape == (3, 96, 128)
    assert target.boxes.tolist() == [[20, 10, 60, 70]]


def test_height_and_width_scale_by_what_they_are_rounded_to() -> None:
    sample = sample_of(noise(31, 100), [[0, 0, 100, 31]])
    transform = TrainTransform(data("resize={train_short_side: [50], max_long_side: 75}"), seed=0)
    pixels, target = transform(sample, 0)
    assert pixels.shape == (3, 23, 75)  # 161.3 is too long: 50 * 75 / 161.3 = 23.25
    torch.testing.assert_close(target.boxes, torch.tensor([[0.0, 0.0, 75.0, 23.0]]))


def test_an_image_that_needs_nothing_passes_unchanged() -> None:
    sample = SHAPES[0]
    pixels, target = TrainTransform(data(), seed=0)(sample, 0)
    assert (back(pixels) == sample.image).all()
    assert (target.boxes.numpy() == sample.boxes).all()
    assert (target.labels.numpy() == sample.labels).all()


def test_a_mirrored_box_counts_from_the_other_side() -> None:
    sample = sample_of(noise(64, 80), [[10, 5, 30, 35]])
    pixels, target = TrainTransform(data("horizontal_flip=1"), seed=0)(sample, 0)
    assert (back(pixels) == sample.image[:, ::-1]).all()
    assert target.boxes.tolist() == [[50, 5, 70, 35]]


def test_mirroring_twice_changes_nothing() -> None:
    transform = TrainTransform(data("horizontal_flip=1"), seed=0)
    for index in range(5):
        sample = SHAPES[index]
        pixels, target = transform(sample, 0)
        once = replace(sample, image=back(pixels), boxes=target.boxes.numpy())
        pixels, target = transform(once, 0)
        assert (back(pixels) == sample.image).all()
        np.testing.assert_allclose(target.boxes.numpy(), sample.boxes, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("probability", "low", "high"), [(0, 0, 0), (0.5, 70, 130), (1, 200, 200)])
def test_images_are_mirrored_as_often_as_asked(probability: float, low: int, high: int) -> None:
    transform = TrainTransform(data(f"horizontal_flip={probability}"), seed=0)
    sample = sample_of(noise(64, 80), [[10, 5, 30, 35]])
    mirrored = sum(transform(sample, position)[1].boxes[0, 0].item() == 50 for position in range(200))
    assert low <= mirrored <= high


def test_every_short_side_is_drawn_and_no_other() -> None:
    transform = TrainTransform(data("resize={train_short_side: [32, 48, 64], max_long_side: 200}"), seed=0)
    heights = {transform(SHAPES[0], position)[0].shape[1] for position in range(40)}
    assert heights == {32, 48, 64}


def test_an_image_without_objects_has_an_empty_target() -> None:
    _, target = TrainTransform(data("horizontal_flip=1"), seed=0)(sample_of(noise(64, 80), []), 0)
    assert target.boxes.shape == (0, 4)
    assert target.boxes.dtype == torch.float32
    assert target.labels.dtype == torch.int64


def test_a_crowd_is_no_target() -> None:
    boxes: list[list[float]] = [[0, 0, 10, 10], [5, 5, 60, 60], [20, 20, 40, 40]]
    sample = sample_of(noise(64, 80), boxes, crowd=[False, True, False])
    _, target = TrainTransform(data(), seed=0)(sample, 0)
    assert target.labels.tolist() == [0, 2]
    assert target.boxes.tolist() == [boxes[0], boxes[2]]


def test_a_difficult_object_is_a_target() -> None:
    sample = replace(sample_of(noise(64, 80), [[0, 0, 10, 10]]), difficult=np.ones(1, dtype=bool))
    assert len(TrainTransform(data(), seed=0)(sample, 0)[1].boxes) == 1


def test_a_sample_is_left_as_it_was() -> None:
    sample = SHAPES[1]
    before = sample.image.copy(), sample.boxes.copy()
    augmentations = "[{name: InvertImg, arguments: {p: 1}}, {name: VerticalFlip, arguments: {p: 1}}]"
    TrainTransform(data("horizontal_flip=1", augmentations=augmentations), seed=0)(sample, 0)
    assert (sample.image == before[0]).all()
    assert (sample.boxes == before[1]).all()


# Randomness

VARIED = "[{name: RandomBrightnessContrast, arguments: {p: 0.5}}, {name: Affine, arguments: {rotate: 30, p: 0.5}}]"


def varied(seed: int = 0) -> TrainTransform:
    overrides = ("horizontal_flip=0.5", "resize={train_short_side: [48, 56, 64], max_long_side: 200}")
    return TrainTransform(data(*overrides, augmentations=VARIED), seed)


def test_a_result_depends_on_seed_and_position_alone() -> None:
    expected = [varied()(SHAPES[0], position) for position in range(10)]
    transform = varied()
    for position in (7, 2, 7, 0, 9):
        random.seed(position)
        np.random.seed(position)  # noqa: NPY002, the old stream is what is tested
        torch.manual_seed(position)
        assert_same(transform(SHAPES[0], position), expected[position])


def test_other_positions_and_other_seeds_draw_anew() -> None:
    seeds = {varied(seed)(SHAPES[0], position)[1].seed for seed in range(5) for position in range(20)}
    assert len(seeds) == 100


def test_global_streams_are_not_touched() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    varied()(SHAPES[0], 0)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]  # noqa: NPY002
    torch.testing.assert_close(torch.get_rng_state(), before[2])


def test_augmentations_of_half_probability_fire_independently() -> None:
    names = ("HorizontalFlip", "VerticalFlip", "InvertImg")
    augmentations = ", ".join(f"{{name: {name}, arguments: {{p: 0.5}}}}" for name in names)
    transform = TrainTransform(data(augmentations=f"[{augmentations}]"), seed=0)
    image = np.zeros((64, 80, 3), np.uint8)
    image[0, 0] = 100
    counts: Counter[tuple[int, int, int]] = Counter()
    for position in range(400):
        channel = transform(sample_of(image, []), position)[0][0]
        inverted = int(channel[32, 40])
        row, column = (channel != inverted).nonzero()[0].tolist()
        counts[inverted, row, column] += 1
    # Each of the eight combinations is due in 50 of 400.
    assert len(counts) == 8
    assert min(counts.values()) > 25


# Augmentations and boxes


def test_labels_stay_with_their_boxes_when_one_is_cropped_away() -> None:
    boxes: list[list[float]] = [[0, 0, 10, 10], [40, 40, 60, 60], [70, 0, 80, 10]]
    augmentations = "[{name: Crop, arguments: {x_min: 30, y_min: 20, x_max: 70, y_max: 64, p: 1}}]"
    pixels, target = TrainTransform(
        data("resize={train_short_side: [44], max_long_side: 200}", augmentations=augmentations), seed=0
    )(sample_of(noise(64, 80), boxes), 0)
    assert target.labels.tolist() == [1]
    scale_x, scale_y = pixels.shape[2] / 40, pixels.shape[1] / 44
    expected = torch.tensor([[10 * scale_x, 20 * scale_y, 30 * scale_x, 40 * scale_y]])
    torch.testing.assert_close(target.boxes, expected, rtol=1e-5, atol=1e-4)


def test_an_object_of_which_almost_nothing_is_left_is_gone() -> None:
    augmentations = "[{name: Crop, arguments: {x_min: 0, y_min: 0, x_max: 40, y_max: 64, p: 1}}]"
    boxes: list[list[float]] = [[38, 0, 78, 20], [30, 0, 50, 20]]  # 5 % and 50 % of them remain
    sample = TrainTransform(data(augmentations=augmentations), seed=0).augment(sample_of(noise(64, 80), boxes), 0)
    assert sample.labels.tolist() == [1]


def test_augmentations_of_colours_leave_boxes_alone() -> None:
    transform = TrainTransform(data(augmentations="[{name: InvertImg, arguments: {p: 1}}]"), seed=0)
    pixels, target = transform(SHAPES[0], 0)
    assert (back(pixels) == 255 - SHAPES[0].image).all()
    np.testing.assert_allclose(target.boxes.numpy(), SHAPES[0].boxes, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "augmentations",
    [
        "[]",
        "[{name: Affine, arguments: {rotate: 90, scale: [0.5, 2], translate_percent: 0.3, shear: 20, p: 1}}]",
        "[{name: RandomCrop, arguments: {height: 32, width: 40, p: 1}}]",
        "[{name: RandomScale, arguments: {scale_limit: 0.7, p: 1}}]",
        "[{name: Perspective, arguments: {scale: [0.1, 0.3], p: 1}}, {name: RandomRotate90, arguments: {p: 0.5}}]",
        "[{name: ElasticTransform, arguments: {p: 1}}, {name: D4, arguments: {p: 1}}]",
        "[{name: CoarseDropout, arguments: {p: 1}}, {name: MotionBlur, arguments: {p: 1}}]",
        "[{name: PadIfNeeded, arguments: {min_height: 100, min_width: 90, p: 1}}]",
    ],
)
def test_boxes_stay_inside_the_image_and_keep_an_area(augmentations: str) -> None:
    overrides = ("horizontal_flip=0.5", "resize={train_short_side: [37, 64], max_long_side: 90}")
    transform = TrainTransform(data(*overrides, augmentations=augmentations), seed=0)
    seen = 0
    for position in range(60):
        pixels, target = transform(SHAPES[position % len(SHAPES)], position)
        height, width = pixels.shape[1:]
        low, high = target.boxes[:, :2], target.boxes[:, 2:]
        # Rounding in 32 bits may carry a box at the border a hair's breadth beyond it.
        assert (low >= -1e-4).all()
        assert (high <= torch.tensor([width, height]) + 1e-4).all()
        assert (high > low).all()
        assert len(target.boxes) == len(target.labels)
        seen += len(target.boxes)
    assert seen > 60


# Mistakes in augmentations


def refusal(augmentations: str) -> str:
    """The message for augmentations that fail when they are built or, at the latest, at the first image."""
    with pytest.raises(ConfigError) as caught:
        TrainTransform(data(augmentations=augmentations), seed=0)(SHAPES[0], 0)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    return message


@pytest.mark.parametrize(
    ("augmentations", "words"),
    [
        ("[{name: Blurr}]", "data.augmentations.0.name: albumentations has no transform 'Blurr'; did you mean Blur?"),
        ("[{name: Blur}, {name: horizontal_flip}]", "data.augmentations.1.name: albumentations has no transform"),
        ("[{name: Compose}]", "data.augmentations.0.name: albumentations has no transform 'Compose'"),
        ("[{name: os.system}]", "data.augmentations.0.name: albumentations has no transform 'os.system'"),
        ("[{name: BasicTransform}]", "data.augmentations.0"),
        ("[{name: DualTransform}]", "data.augmentations.0"),
        (
            "[{name: Blur, arguments: {blur_limt: 3}}]",
            "data.augmentations.0.arguments: Blur has no argument 'blur_limt'; did you mean blur_limit?",
        ),
        (
            "[{name: HorizontalFlip, arguments: {strength: 3}}]",
            "data.augmentations.0.arguments: HorizontalFlip has no argument 'strength'; it takes p",
        ),
        ("[{name: Blur, arguments: {blur_limit: much}}]", "data.augmentations.0.arguments: Blur: "),
        ("[{name: Blur, arguments: {p: 2}}]", "data.augmentations.0.arguments: Blur: "),
        ("[{name: RandomCrop}]", "data.augmentations.0.arguments: RandomCrop: "),
    ],
)
def test_a_mistake_in_an_augmentation_is_told_with_its_key(augmentations: str, words: str) -> None:
    assert refusal(augmentations).startswith(words)


@pytest.mark.parametrize(
    "augmentation",
    [
        "{name: Normalize, arguments: {p: 1}}",
        "{name: ToFloat, arguments: {p: 1}}",
        "{name: ToTensorV2, arguments: {p: 1}}",
        "{name: ToGray, arguments: {num_output_channels: 1, p: 1}}",
        "{name: FDA, arguments: {p: 1}}",
        "{name: MaskDropout, arguments: {p: 1}}",
        "{name: RandomCrop, arguments: {height: 500, width: 500, p: 1}}",
    ],
)
def test_an_augmentation_that_cannot_serve_here_is_a_mistake_in_the_configuration(augmentation: str) -> None:
    assert "data.augmentations" in refusal(f"[{augmentation}]")


def test_albumentations_does_not_ask_the_network_for_news() -> None:
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


@pytest.mark.parametrize("size", [Size(20, 31), Size(48, 64), Size(101, 77), Size(1, 1)])
def test_the_fast_resize_differs_by_one_level_at_most(size: Size) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    exact, fast = resize_image(image, size).int(), resize_fast(image, size)
    assert fast.is_contiguous()
    assert (exact - fast).abs().max() <= 1
    assert (exact != fast).float().mean() < 0.02
