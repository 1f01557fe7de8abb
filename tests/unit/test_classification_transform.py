"""From an image to the square that a classifier sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detector.config import Config, parse_config
from detector.data.classification.labelled import labelled_sample
from detector.data.classification.transform import ClassificationTransform, classification_views
from detector.data.transforms import resize_image
from detector.errors import ConfigError
from detector.structures import ImageInfo, Sample, Size


def config(*overrides: str, side: int = 32, size: int = 32) -> Config:
    """Images come to ``side`` and squares of ``size``."""
    text = f"""
    model: {{pixel_order: rgb, pixel_mean: [10.4, 20.6, 30.0]}}
    data:
      horizontal_flip: 0
      resize: {{train_short_side: [{side}], test_short_side: {side}}}
      crop: {{size: {size}, padding: 0}}
    """
    return parse_config(text, "test.yaml", overrides)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sample(image: np.ndarray, label: int = 3) -> Sample:
    return labelled_sample(image, label, ImageInfo(0, "a.png", None))


def chw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


# Training


def test_an_image_of_the_right_size_stays_as_it_is() -> None:
    image = noise(32, 32)
    pixels, target = ClassificationTransform(config())(sample(image), 0)
    assert torch.equal(pixels, chw(image))
    assert target.boxes.tolist() == [[0, 0, 32, 32]]
    assert target.labels.tolist() == [3]


def test_the_square_can_be_the_central_one() -> None:
    image = noise(32, 48)
    transform = ClassificationTransform(config("data.crop.random=false", "data.crop.padding=4", size=20))
    assert all(torch.equal(transform(sample(image), position)[0], chw(image[6:26, 14:34])) for position in range(5))


def test_the_square_is_somewhere_in_the_image() -> None:
    image = noise(32, 48)
    transform = ClassificationTransform(config(size=20))
    starts = set()
    for position in range(40):
        pixels, _ = transform(sample(image), position)
        found = [
            (top, left)
            for top in range(13)
            for left in range(29)
            if torch.equal(pixels, chw(image[top : top + 20, left : left + 20]))
        ]
        assert len(found) == 1
        starts.add(found[0])
    assert len(starts) > 20


def test_padding_shows_the_mean_beyond_the_border() -> None:
    transform = ClassificationTransform(config("data.crop.padding=4"))
    image = np.full((32, 32, 3), 200, dtype=np.uint8)
    outside = set()
    for position in range(60):
        pixels, _ = transform(sample(image), position)
        colours = {tuple(colour) for colour in pixels.flatten(1).T.tolist()}
        assert colours <= {(200, 200, 200), (10, 21, 30)}
        outside.add(int((pixels[0, 16] != 200).sum()))
    assert outside == {0, 1, 2, 3, 4}


def test_the_mean_is_given_in_the_order_of_the_network() -> None:
    bgr = config("model.pixel_order=bgr", side=16)
    pixels, _ = ClassificationTransform(bgr)(sample(noise(16, 16)), 0)
    assert pixels[:, 0, 0].tolist() == [30, 21, 10]


def test_a_smaller_image_stands_in_the_middle() -> None:
    image = noise(16, 20)
    pixels, _ = ClassificationTransform(config(side=16))(sample(image), 0)
    assert torch.equal(pixels[:, 8:24, 6:26], chw(image))


def test_the_short_side_is_drawn() -> None:
    transform = ClassificationTransform(config("data.resize.train_short_side=[16, 32]"))
    image = np.full((40, 40, 3), 200, dtype=np.uint8)
    covered = {int((transform(sample(image), position)[0][0] == 200).sum()) for position in range(20)}
    assert covered == {16 * 16, 32 * 32}


def test_the_long_side_has_its_limit() -> None:
    settings = config("data.resize.max_long_side=16")
    pixels, _ = ClassificationTransform(settings)(sample(np.full((20, 40, 3), 200, dtype=np.uint8)), 0)
    assert int((pixels[0] == 200).sum()) == 8 * 16


def test_images_are_mirrored_with_the_given_probability() -> None:
    image = noise(32, 32)
    transform = ClassificationTransform(config("data.horizontal_flip=0.25"))
    mirrored = [torch.equal(transform(sample(image), position)[0], chw(image[:, ::-1])) for position in range(200)]
    assert 30 < sum(mirrored) < 70


@pytest.mark.parametrize("overrides", [[], ["data.augmentations=[{name: RandomRotate90, arguments: {p: 0.5}}]"]])
def test_a_sample_depends_on_seed_and_position_alone(overrides: list[str]) -> None:
    settings = config("data.crop.padding=4", "data.horizontal_flip=0.5", *overrides)
    one, other = ClassificationTransform(settings), ClassificationTransform(settings)
    other(sample(noise(50, 40)), 3)
    (pixels, target), (again, same) = one(sample(noise(40, 50)), 7), other(sample(noise(40, 50)), 7)
    assert torch.equal(pixels, again)
    assert target.seed == same.seed


def test_positions_have_seeds_of_their_own() -> None:
    transform = ClassificationTransform(config())
    assert len({transform(sample(noise(32, 32)), position)[1].seed for position in range(20)}) == 20


def test_an_augmentation_may_change_the_size() -> None:
    settings = config("data.augmentations=[{name: CenterCrop, arguments: {height: 20, width: 10}}]", side=10, size=10)
    image = noise(40, 40)
    pixels, target = ClassificationTransform(settings)(sample(image), 0)
    columns = chw(image[10:30, 15:25])
    assert any(torch.equal(pixels, columns[:, top : top + 10]) for top in range(11))
    assert target.labels.tolist() == [3]


def test_a_crop_never_drops_the_label() -> None:
    settings = config("data.augmentations=[{name: RandomCrop, arguments: {height: 2, width: 2}}]")
    _, target = ClassificationTransform(settings)(sample(noise(64, 64)), 0)
    assert target.labels.tolist() == [3]


def test_an_augmentation_that_fails_is_told_with_its_image() -> None:
    settings = config("data.augmentations=[{name: RandomCrop, arguments: {height: 50, width: 50}}]")
    with pytest.raises(ConfigError, match=r"data\.augmentations: at image a\.png"):
        ClassificationTransform(settings)(sample(noise(8, 8)), 0)


def test_an_unknown_augmentation_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="albumentations has no transform 'RandomCorp'; did you mean RandomCrop"):
        ClassificationTransform(config("data.augmentations=[{name: RandomCorp}]"))


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_every_image_comes_to_a_square(height: int, width: int, side: int, size: int, padding: int) -> None:
    settings = config(f"data.crop.padding={min(padding, size - 1)}", side=side, size=size)
    pixels, _ = ClassificationTransform(settings)(sample(noise(height, width)), 0)
    assert pixels.shape == (3, size, size)
    assert all(view.shape == (3, size, size) for view, _ in classification_views(noise(height, width), settings))


@pytest.mark.parametrize("padding", [4, 5])
def test_padding_that_could_fill_the_square_is_refused(padding: int) -> None:
    with pytest.raises(ConfigError, match=f"padding {padding} must be smaller than size 4"):
        config(f"data.crop.padding={padding}", size=4)


def test_an_augmentation_for_boxes_is_refused() -> None:
    settings = config("data.augmentations=[{name: BBoxSafeRandomCrop, arguments: {p: 1}}]")
    with pytest.raises(ConfigError, match="needs 'bboxes', which images of this kind do not have"):
        ClassificationTransform(settings)(sample(noise(8, 8)), 0)


# Evaluation


def test_a_view_is_the_centre_of_the_resized_image() -> None:
    image = noise(30, 60)
    ((pixels, mirrored),) = classification_views(image, config(side=20, size=16))
    assert torch.equal(pixels, resize_image(image, Size(20, 40))[:, 2:18, 12:28])
    assert not mirrored


def test_the_long_side_of_a_view_has_its_limit_which_grows_with_the_short_side() -> None:
    image = np.full((20, 40, 3), 200, dtype=np.uint8)
    settings = config("data.resize.max_long_side=12", "evaluation.short_sides=[16, 32, 64]")
    views = classification_views(image, settings)
    # The short side of 32 is the usual one, and that of 64 may have twice the limit.
    assert [int((pixels[0] == 200).sum()) for pixels, _ in views] == [6 * 12, 6 * 12, 12 * 24]


def test_padding_is_of_training_alone() -> None:
    image = noise(32, 32)
    ((pixels, _),) = classification_views(image, config("data.crop.padding=4"))
    assert torch.equal(pixels, chw(image))


def test_each_of_several_sizes_is_a_view() -> None:
    image = noise(32, 32)
    views = classification_views(image, config("evaluation.short_sides=[32, 64]"))
    assert torch.equal(views[0][0], chw(image))
    assert torch.equal(views[1][0], resize_image(image, Size(64, 64))[:, 16:48, 16:48])


def test_the_mirror_image_is_a_view() -> None:
    (plain, first), (mirror, second) = classification_views(noise(32, 32), config("evaluation.flip=true"))
    assert (first, second) == (False, True)
    assert torch.equal(mirror, plain.flip(2))


def test_a_small_image_is_padded_in_its_middle() -> None:
    image = noise(10, 10)
    ((pixels, _),) = classification_views(image, config(side=10))
    assert torch.equal(pixels[:, 11:21, 11:21], chw(image))
    assert pixels[:, 0, 0].tolist() == [10, 21, 30]
