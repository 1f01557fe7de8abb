"""Images that are the same or nearly the same, on drawn pictures and on real ones."""

from __future__ import annotations

import io
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from detector.data.doctor.likeness import DECODED_SIDE, Pair, check_likeness, find_alike, groups, thumbnail
from detector.data.findings import Finding
from detector.data.images import MAX_PIXELS, read_reduced
from detector.data.raw.structure import RawSet
from detector.structures import Size

WIDTH, HEIGHT = 320, 240


def scene(seed: int) -> Image.Image:
    """A busy picture, as sharp as a lens draws: 60 boxes of all sizes and colours."""
    rng = np.random.default_rng(seed)
    pixels = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)
    for _ in range(60):
        y, x = int(rng.integers(0, HEIGHT)), int(rng.integers(0, WIDTH))
        height, width = rng.integers(8, 70, 2)
        pixels[y : y + height, x : x + width] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.5))


def small(image: Image.Image) -> np.ndarray:
    return thumbnail(np.asarray(image.convert("RGB")), Size(image.height, image.width))


def alike(*images: Image.Image) -> list[Pair]:
    """The pairs among pictures whose files all differ."""
    return find_alike(
        np.stack([small(image) for image in images]), [bytes([number + 1]) for number in range(len(images))]
    )


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def brighter(image: Image.Image, factor: float) -> Image.Image:
    return Image.fromarray((np.asarray(image) * factor).clip(0, 255).astype(np.uint8))


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Without these parts of its sides."""
    width, height = image.size
    return image.crop((int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height)))


SAME: dict[str, Callable[[Image.Image], Image.Image]] = {
    "quality 50": lambda image: jpeg(image, 50),
    "half the size": lambda image: image.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.LANCZOS),
    "half the size, quality 50": lambda image: jpeg(image.resize((WIDTH // 2, HEIGHT // 2)), 50),
    "an odd size": lambda image: image.resize((211, 157), Image.Resampling.BICUBIC),
    "gray": lambda image: image.convert("L"),
}
NEAR: dict[str, Callable[[Image.Image], Image.Image]] = {
    "15 % brighter": lambda image: brighter(image, 1.15),
    "15 % darker": lambda image: brighter(image, 0.85),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "3 % off two sides": lambda image: cropped(image, 0.03, 0.03, 0, 0),
    "3 % off one side": lambda image: cropped(image, 0, 0, 0.03, 0),
    "mirrored": ImageOps.mirror,
}


# What is alike


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("seed", range(3))
def test_a_copy_in_another_quality_or_size_is_the_same(name: str, seed: int) -> None:
    assert alike(scene(seed), SAME[name](scene(seed))) == [Pair(0, 1, same=True)]


@pytest.mark.parametrize("name", NEAR)
@pytest.mark.parametrize("seed", range(3))
def test_a_slightly_changed_copy_is_nearly_the_same(name: str, seed: int) -> None:
    assert alike(scene(seed), NEAR[name](scene(seed))) == [Pair(0, 1, same=False)]


@pytest.mark.parametrize(("left", "top"), [(48, 0), (0, -36), (40, 30), (-15, 10)])
def test_views_that_overlap_by_four_fifths_of_their_sides_are_nearly_the_same(left: int, top: int) -> None:
    views = [scene(1).crop((x, y, x + 240, y + 180)) for x, y in ((20, 40), (20 + left, 40 + top))]
    assert alike(*views) == [Pair(0, 1, same=False)]


def test_an_object_that_moved_makes_a_picture_another_one() -> None:
    later = scene(0)
    later.paste((255, 0, 0), (100, 100, 140, 140))
    assert alike(scene(0), later) == [Pair(0, 1, same=False)]


def test_different_scenes_are_not_alike() -> None:
    assert alike(*[scene(seed) for seed in range(60)]) == []


def test_different_scenes_of_one_kind_are_not_alike() -> None:
    """Round cells of one size and colour on one ground."""
    rng, images = np.random.default_rng(0), []
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for _ in range(60):
        pixels = np.full((HEIGHT, WIDTH), 200, dtype=np.uint8)
        for centre_y, centre_x in rng.uniform((0, 0), (HEIGHT, WIDTH), (20, 2)):
            pixels[np.hypot(y - centre_y, x - centre_x) < 22] = 120
        images.append(Image.fromarray(pixels))
    assert alike(*images) == []


@pytest.mark.parametrize("noise", [0, 2])
def test_images_of_one_colour_are_not_alike(noise: int) -> None:
    rng = np.random.default_rng(0)
    plain = [np.clip(rng.normal(level, noise, (HEIGHT, WIDTH)), 0, 255).astype(np.uint8) for level in (90, 90, 91, 200)]
    assert alike(*map(Image.fromarray, plain)) == []


def test_equal_files_are_the_same_whatever_they_show() -> None:
    digests = [b"a", b"b", b"a", b"a"]
    assert find_alike(np.zeros((4, 32, 32), dtype=np.uint8), digests) == [Pair(0, 2, True), Pair(0, 3, True)]


def test_an_image_without_a_digest_is_left_out() -> None:
    shown = np.stack([small(scene(0))] * 3)
    assert find_alike(shown, [b"a", b"", b"c"]) == [Pair(0, 2, True)]


def test_no_images_have_no_pairs() -> None:
    assert find_alike(np.zeros((0, 32, 32), dtype=np.uint8), []) == []


def test_pairs_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.data.doctor.likeness._BLOCK", 4)
    images = [scene(seed) for seed in range(10)]
    assert alike(*images, jpeg(images[1], 50), brighter(images[9], 0.9)) == [Pair(1, 10, True), Pair(9, 11, False)]


def test_a_film_of_one_scene_is_one_group() -> None:
    rng = np.random.default_rng(0)
    first = small(scene(0)).astype(np.int64)
    frames = (first + rng.integers(-9, 10, (300, 32, 32))).clip(0, 255).astype(np.uint8)
    pairs = find_alike(frames, [str(number).encode() for number in range(300)])
    assert groups(pairs, 300).max() == 0


# Thumbnails


def test_a_thumbnail_has_the_mean_of_each_share() -> None:
    pixels = np.repeat(np.repeat(np.arange(64, dtype=np.uint8).reshape(1, 64, 1), 64, axis=0), 3, axis=2)
    assert small(Image.fromarray(pixels))[5].tolist() == [int(np.rint(2 * place + 0.5)) for place in range(32)]


def test_an_image_smaller_than_a_thumbnail_is_enlarged() -> None:
    assert small(Image.new("RGB", (3, 1), (50, 50, 50))).tolist() == [[50] * 32] * 32


def test_a_thumbnail_does_not_depend_on_how_far_a_jpeg_was_decoded(tmp_path: Path) -> None:
    image = scene(0).resize((1283, 1027), Image.Resampling.BICUBIC)  # no multiples of 8
    image.save(tmp_path / "a.jpg", quality=95)
    image.save(tmp_path / "a.png")
    one, other = (
        thumbnail(*read_reduced(tmp_path / name, MAX_PIXELS, DECODED_SIDE)).astype(int) for name in ("a.jpg", "a.png")
    )
    assert np.abs(one - other).max() <= 3


# Groups


def test_groups_join_what_is_joined_by_others() -> None:
    pairs = [Pair(1, 4, True), Pair(2, 3, False), Pair(3, 4, False)]
    assert groups(pairs, 6).tolist() == [0, 1, 1, 1, 1, 2]


def test_without_pairs_each_image_is_a_group() -> None:
    assert groups([], 3).tolist() == [0, 1, 2]


# Findings


def raw_set(split: str, *names: str, folder: str = "/data") -> RawSet:
    count, none = len(names), np.zeros(0, dtype=np.int64)
    return RawSet(
        "coco", split, Path(f"/data/{split}.json"), Path(folder), tuple(range(count)), names,
        (f"{split}.json",) * count, tuple(f"images[{place}]" for place in range(count)),
        np.zeros((count, 2), dtype=np.int64), (), (), none, none,
        np.zeros((0, 4)), np.zeros(0), none.astype(bool), none.astype(bool), none, (), (),
    )  # fmt: skip


def told(*findings: Finding) -> list[tuple[str, str, int, str]]:
    return [(finding.kind, finding.split, finding.image, finding.what) for finding in findings]


def test_of_two_in_a_split_the_later_is_told() -> None:
    found = check_likeness([raw_set("train", "a", "b", "c")], [Pair(0, 1, True), Pair(0, 2, False)])
    assert told(*found) == [
        ("image-twice", "train", 1, "the same picture as 'a'"),
        ("image-nearly-twice", "train", 2, "nearly the same picture as 'a'"),
    ]


def test_of_two_splits_the_first_is_told() -> None:
    raws = [raw_set("train", "a", "b"), raw_set("val", "c", "d")]
    assert told(*check_likeness(raws, [Pair(0, 3, True), Pair(1, 2, False)])) == [
        ("image-in-two-splits", "train", 0, "the same picture as 'd' in 'val'"),
        ("image-nearly-in-two-splits", "train", 1, "nearly the same picture as 'c' in 'val'"),
    ]


def test_many_partners_are_one_finding() -> None:
    raws = [raw_set("train", "a"), raw_set("val", "b", "c", "d")]
    found = check_likeness(raws, [Pair(0, 1, False), Pair(0, 2, False), Pair(0, 3, False)])
    assert [finding.what for finding in found] == ["nearly the same picture as 'b' in 'val' and 2 more"]


def test_a_file_that_two_splits_list_is_left_to_others() -> None:
    raws = [raw_set("train", "a"), raw_set("val", "./a")]
    assert check_likeness(raws, [Pair(0, 1, True)]) == []


@pytest.mark.parametrize(
    "order", [("train", "val", "trainval"), ("trainval", "train", "val"), ("train", "trainval", "val")]
)
def test_a_split_that_sums_up_others_does_not_hide_what_is_in_both(order: tuple[str, ...]) -> None:
    names = {"train": ("a", "b"), "val": ("c",), "trainval": ("a", "b", "c")}
    raws = [raw_set(split, *names[split]) for split in order]
    listed = [name for split in order for name in names[split]]
    # As find_alike tells it: equal files with the first of them, near-duplicates by their first files.
    pairs = [Pair(listed.index(name), place, True) for place, name in enumerate(listed) if listed.index(name) < place]
    first, second = sorted((listed.index("a"), listed.index("c")))
    found = check_likeness(raws, [*pairs, Pair(first, second, False)])
    assert sorted((finding.kind, finding.split) for finding in found) == [
        ("image-nearly-in-two-splits", "train"),
        ("image-nearly-twice", "trainval"),
    ]


def test_equal_names_in_different_folders_are_different_files() -> None:
    raws = [raw_set("train", "a", folder="/data/train"), raw_set("val", "a", folder="/data/val")]
    assert [finding.kind for finding in check_likeness(raws, [Pair(0, 1, True)])] == ["image-in-two-splits"]


# Real images

# Views of one smear; the first eight overlap by 0.85 of their sides and more.
BLOOD = [
    ("37", "38"), ("204", "277"), ("227", "260"), ("229", "258"), ("230", "257"), ("231", "256"), ("382", "395"),
    ("386", "391"), ("223", "263"), ("226", "261"), ("236", "253"), ("244", "247"),
]  # fmt: skip


def alike_files(paths: list[Path]) -> set[tuple[str, str]]:
    shown = np.stack([thumbnail(*read_reduced(path, MAX_PIXELS, DECODED_SIDE)) for path in paths])
    pairs = find_alike(shown, [blake2b(path.read_bytes()).digest() for path in paths])
    assert not any(pair.same for pair in pairs)
    return {(paths[pair.first].stem, paths[pair.second].stem) for pair in pairs}


def test_of_blood_cells_just_the_overlapping_views_are_found(shared: Path) -> None:
    found = alike_files(sorted((shared / "data/bccd/BCCD/JPEGImages").iterdir()))
    assert found == {(f"BloodImage_{first:>05}", f"BloodImage_{second:>05}") for first, second in BLOOD}


def test_unrelated_photographs_are_not_alike(shared: Path) -> None:
    assert alike_files(sorted((shared / "data/coco_by").glob("*2017/*.jpg"))) == set()


def test_of_microcontrollers_one_board_turned_round_is_found(shared: Path) -> None:
    found = alike_files(sorted((shared / "data/microcontroller/images").glob("*/*.jpg")))
    assert found == {
        ("IMG_20190104_163855", "IMG_20190104_163902"),
        ("IMG_20190104_163855", "IMG_20190104_163915"),
    }
