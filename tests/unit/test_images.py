"""Every kind of image file becomes upright RGB, or one clear line."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from detector.data.images import MAX_PIXELS, read_image, read_reduced, read_size, rgb_array
from detector.errors import ImageError
from detector.structures import Size

COLOUR = (10, 20, 30)


def refusal(path: str | Path, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path, max_pixels)
    return str(caught.value)


def png(width: int, height: int) -> bytes:
    """A PNG whose header promises an image that its data do not hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    parts = [struct.pack(">I", len(data)) + kind + data + crc(kind + data) for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def crc(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def noise(height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


# Rotation

# Where EXIF's orientation puts the first pixel of the stored 4 x 6 image, and the one to its right.
ORIENTATIONS = {
    1: ((4, 6), (0, 0), (0, 1)),
    2: ((4, 6), (0, 5), (0, 4)),
    3: ((4, 6), (3, 5), (3, 4)),
    4: ((4, 6), (3, 0), (3, 1)),
    5: ((6, 4), (0, 0), (1, 0)),
    6: ((6, 4), (0, 3), (1, 3)),
    7: ((6, 4), (5, 3), (4, 3)),
    8: ((6, 4), (5, 0), (4, 0)),
}


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def write_turned(path: Path, orientation: int) -> Path:
    """A black 4 x 6 image, its first pixel red and the next one green."""
    image = np.zeros((4, 6, 3), np.uint8)
    image[0, 0], image[0, 1] = (255, 0, 0), (0, 255, 0)
    Image.fromarray(image).save(path, exif=exif(orientation))
    return path


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_rotation_by_exif_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = write_turned(tmp_path / f"a.{suffix}", orientation)
    image = read_image(path)
    size, red, green = ORIENTATIONS[orientation]
    assert image.shape == (*size, 3)
    assert read_size(path) == size
    assert image[red].tolist() == [255, 0, 0]
    assert image[green].tolist() == [0, 255, 0]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_rotation_by_exif_is_applied_to_jpeg(tmp_path: Path, orientation: int) -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24] = 255  # blocks of JPEG are 16 pixels at most
    Image.fromarray(image).save(tmp_path / "a.jpg", exif=exif(orientation))
    turned = read_image(tmp_path / "a.jpg")
    corner = ORIENTATIONS[orientation][1]
    rows = slice(None, 8) if corner[0] == 0 else slice(-8, None)
    columns = slice(None, 8) if corner[1] == 0 else slice(-8, None)
    assert turned.shape[:2] == ((32, 48) if orientation < 5 else (48, 32))
    assert turned[rows, columns].min() > 200


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_means_nothing_is_ignored(tmp_path: Path, orientation: int) -> None:
    assert read_image(write_turned(tmp_path / "a.png", orientation))[0, 0].tolist() == [255, 0, 0]


def test_rotation_by_exif_is_applied_to_16_bits(tmp_path: Path) -> None:
    values = np.zeros((4, 6), np.uint16)
    values[0, 0] = 65535
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif(6))
    assert read_image(tmp_path / "a.png")[0, 3].tolist() == [255, 255, 255]


def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), COLOUR).save(tmp_path / "a.jpg", exif=b"Exif\0\0 nothing of the kind")
    assert read_image(tmp_path / "a.jpg").shape == (4, 6, 3)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_size_is_that_after_rotation(tmp_path: Path, orientation: int) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif(orientation))
    assert read_size(tmp_path / "a.jpg") == Size(*ORIENTATIONS[orientation][0])


@pytest.mark.parametrize("suffix", ["png", "gif", "webp", "bmp", "tif", "ppm"])
def test_the_size_is_that_of_the_header(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / f"a.{suffix}")
    assert read_size(tmp_path / f"a.{suffix}") == Size(4, 6)


def test_the_size_is_read_without_decoding(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(600, 400))
    assert read_size(tmp_path / "a.png") == Size(400, 600)


# Colours


def palette(colour: tuple[int, int, int]) -> Image.Image:
    image = Image.new("P", (6, 4), 3)
    image.putpalette([0, 0, 0] * 3 + list(colour) + [0, 0, 0] * 252)
    return image


@pytest.mark.parametrize(
    ("mode", "value", "suffix", "expected"),
    [
        ("RGB", COLOUR, "png", COLOUR),
        ("RGB", COLOUR, "bmp", COLOUR),
        ("RGB", COLOUR, "tif", COLOUR),
        ("RGB", COLOUR, "ppm", COLOUR),
        ("L", 100, "png", (100, 100, 100)),
        ("L", 100, "ppm", (100, 100, 100)),
        ("LA", (100, 255), "png", (100, 100, 100)),
        ("LA", (100, 0), "png", (100, 100, 100)),
        ("RGBA", (*COLOUR, 255), "png", COLOUR),
        ("RGBA", (*COLOUR, 0), "png", COLOUR),
        ("RGBA", (*COLOUR, 7), "tif", COLOUR),
        ("1", 1, "png", (255, 255, 255)),
        ("1", 0, "png", (0, 0, 0)),
        ("1", 1, "tif", (255, 255, 255)),
        ("CMYK", (0, 0, 0, 0), "tif", (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "tif", (255, 0, 0)),
        ("CMYK", (0, 0, 0, 0), "jpg", (255, 255, 255)),
        ("I;16", 65535, "png", (255, 255, 255)),
    ],
)
def test_a_mode_becomes_rgb(
    tmp_path: Path, mode: str, value: float | tuple[int, ...], suffix: str, expected: tuple[int, int, int]
) -> None:
    Image.new(mode, (6, 4), value).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == (4, 6, 3)
    assert (image == expected).all()


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
def test_a_palette_gives_its_colours(tmp_path: Path, suffix: str) -> None:
    palette(COLOUR).save(tmp_path / f"a.{suffix}")
    assert (read_image(tmp_path / f"a.{suffix}") == COLOUR).all()


@pytest.mark.parametrize("transparency", [3, b"\xff\xff\xff\x00"], ids=["index", "bytes"])
def test_transparency_of_a_palette_is_dropped(tmp_path: Path, transparency: int | bytes) -> None:
    palette(COLOUR).save(tmp_path / "a.png", transparency=transparency)
    assert (read_image(tmp_path / "a.png") == COLOUR).all()


def test_a_palette_with_alpha_gives_its_colours(tmp_path: Path) -> None:
    palette(COLOUR).convert("PA").save(tmp_path / "a.tif")
    assert (read_image(tmp_path / "a.tif") == COLOUR).all()


@pytest.mark.parametrize(("mode", "value"), [("RGB", COLOUR), ("L", 100), ("1", 1)])
def test_a_transparent_colour_is_dropped(tmp_path: Path, mode: str, value: int | tuple[int, int, int]) -> None:
    image = Image.new(mode, (6, 4), value)
    image.save(tmp_path / "a.png", transparency=value)
    assert (read_image(tmp_path / "a.png") == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("kind", ["png", "tif", "big-endian tif"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path, kind: str) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=">u2" if kind.startswith("big") else "<u2")
    path = tmp_path / f"a.{kind[-3:]}"
    Image.fromarray(values).save(path)
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_32_bits_that_hold_16_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535]], dtype=np.int32)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("value", [65536, -1])
def test_32_bits_are_refused(tmp_path: Path, value: int) -> None:
    Image.fromarray(np.array([[0, value]], dtype=np.int32)).save(tmp_path / "a.tif")
    assert refusal(tmp_path / "a.tif").startswith(f"{tmp_path / 'a.tif'}: holds 32-bit values")


def test_fractions_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5]], dtype=np.float32)).save(tmp_path / "a.tif")
    assert refusal(tmp_path / "a.tif").startswith(f"{tmp_path / 'a.tif'}: holds fractions")


@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "webp"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    assert (read_image(tmp_path / f"a.{suffix}") == (255, 0, 0)).all()


def test_the_array_can_be_written_to(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous


def test_a_picture_in_memory_follows_the_same_rules() -> None:
    assert (rgb_array(palette(COLOUR)) == COLOUR).all()
    assert rgb_array(Image.fromarray(np.array([[32768]], dtype=np.uint16))).tolist() == [[[128, 128, 128]]]


# Names


@pytest.mark.parametrize(
    "name",
    [
        "a b.png",
        "#%20?&=.png",
        "ünï.png",
        "日本.png",
        "-r.png",
        "'\".png",
        "line\nbreak.png",
        "x" * 240 + ".png",
        "none",
    ],
)
def test_an_odd_name_is_a_name(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (6, 4), COLOUR).save(tmp_path / name, format="PNG")
    assert (read_image(tmp_path / name) == COLOUR).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.gif", "a.txt", "a.JPG"])
def test_the_contents_decide_and_not_the_name(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (6, 4), COLOUR).save(tmp_path / name, format="PNG")
    assert (read_image(tmp_path / name) == COLOUR).all()


@pytest.mark.parametrize("name", ["line\nbreak.jpg", "red\x1b[31m.jpg", "return\r.jpg"])
def test_a_name_cannot_forge_a_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no image")
    assert refusal(tmp_path / name).isprintable()


def test_a_link_is_followed(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), COLOUR).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    assert (read_image(tmp_path / "link.png") == COLOUR).all()


# Files that cannot be used


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "bmp", "webp"])
@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.filterwarnings("ignore:Truncated File Read")  # Pillow's, for TIFF
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise()).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert refusal(path).startswith(f"{path}: ")


def test_a_truncated_jpeg_says_so(tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    assert refusal(tmp_path / "a.jpg") == (
        f"{tmp_path / 'a.jpg'}: the image is truncated; fetch it again or take it out of the data set"
    )


def test_the_switch_that_lets_truncated_images_pass_is_off() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert refusal(tmp_path / "a.jpg").startswith(f"{tmp_path / 'a.jpg'}: the file is empty")


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>404</html>",
        b"\0",
        b"%PDF-1.4",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"II*\0",
    ],
    ids=["html", "zero", "pdf", "eps", "svg", "start of tiff"],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert refusal(tmp_path / "a.jpg").startswith(f"{tmp_path / 'a.jpg'}: ")


def test_what_is_no_image_lists_what_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("<html>404</html>")
    assert refusal(tmp_path / "a.jpg").endswith(
        "not an image that can be read (JPEG, PNG, BMP, WebP, TIFF, GIF or PPM)"
    )


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.jpg") == f"{tmp_path / 'a.jpg'}: no such image file"


def test_a_link_to_nothing_is_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "b.jpg")
    assert refusal(tmp_path / "a.jpg") == f"{tmp_path / 'a.jpg'}: no such image file"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: not a regular file"


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert refusal(tmp_path / "a.jpg") == f"{tmp_path / 'a.jpg'}: not a regular file"


@pytest.mark.parametrize("path", ["a\0b.jpg", "x" * 5000])
def test_a_path_that_cannot_be_is_refused(path: str) -> None:
    message = refusal(path)
    assert len(message) < 400
    assert "cannot be read" in message


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it then reads or refuses
@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "webp"])
def test_flipped_bytes_give_an_image_or_a_clear_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(12, 16)).save(path)
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = content.copy()
        # Half of the flips hit the header, where most can go wrong.
        places = np.concatenate([random.integers(0, min(64, len(content)), 2), random.integers(0, len(content), 2)])
        damaged[places] = random.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        try:
            assert read_image(path).shape[2] == 3
        except ImageError as error:
            assert str(error).isprintable()


# Size


def test_an_image_of_as_many_pixels_as_are_allowed_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=24).shape == (4, 6, 3)


def test_an_image_of_one_pixel_more_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (5, 5)).save(tmp_path / "a.png")
    assert refusal(tmp_path / "a.png", max_pixels=24) == (
        f"{tmp_path / 'a.png'}: 5 x 5 is more than the 24 pixels that are allowed; "
        "shrink the image or raise data.max_image_pixels"
    )


@pytest.mark.parametrize("side", [8001, 9_999, 13_000, 20_000, 2**31 - 1])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    # Decoded, it would be found truncated.
    (tmp_path / "a.png").write_bytes(png(side, side))
    assert "more than the 64000000 pixels that are allowed" in refusal(tmp_path / "a.png")


# The hard files of the shared data

NASTY = [
    "exif6.jpg", "exif8.jpg", "exif3.jpg", "cmyk.jpg", "gray.jpg", "rgba.png", "palette.png", "gray16.png", "la.png",
    "onebit.png", "progressive.jpg", "png named.jpg", "UPPER#=ünï.JPG", "webp.webp",
]  # fmt: skip


@pytest.mark.parametrize("name", NASTY)
def test_a_hard_file_is_read_upright(shared: Path, name: str) -> None:
    content = json.loads((shared / "data/nasty/instances.json").read_text(encoding="utf-8"))
    record = next(record for record in content["images"] if record["file_name"] == name)
    image = read_image(shared / "data/nasty/images" / name)
    assert image.shape == (record["height"], record["width"], 3)
    assert image.std() > 10


@pytest.mark.parametrize(("name", "words"), [("truncated.jpg", "is truncated"), ("empty.jpg", "the file is empty")])
def test_a_spoilt_file_is_refused(shared: Path, name: str, words: str) -> None:
    assert words in refusal(shared / "data/nasty/images" / name)


# Reduced decoding


def jpeg(path: Path, size: tuple[int, int], orientation: int = 1) -> Path:
    """A smooth picture, so that resized ones are comparable, of the given height and width as stored."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    pixels = np.stack([127 + 120 * np.sin(x / 150), 127 + 120 * np.cos(y / 90), (x + y) % 400 / 2], axis=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95, exif=exif)
    return path


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((1600, 1200), 300, (400, 300)),
        ((1600, 1200), 301, (800, 600)),
        ((1600, 1200), 600, (800, 600)),
        ((1600, 1200), 601, (1600, 1200)),
        ((1600, 1200), 5000, (1600, 1200)),
        ((1601, 1203), 150, (201, 151)),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_leaves_enough(
    tmp_path: Path, size: tuple[int, int], short_side: int, expected: tuple[int, int]
) -> None:
    image, whole = read_reduced(jpeg(tmp_path / "a.jpg", size), MAX_PIXELS, short_side)
    assert whole == size
    assert image.shape == (*expected, 3)


def test_a_reduced_jpeg_is_turned_upright_too(tmp_path: Path) -> None:
    image, whole = read_reduced(jpeg(tmp_path / "a.jpg", (800, 1200), orientation=6), MAX_PIXELS, 300)
    assert whole == (1200, 800)
    assert image.shape == (600, 400, 3)


def test_a_reduced_jpeg_shows_the_same_picture(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", (800, 1200))
    image, _ = read_reduced(path, MAX_PIXELS, 100)
    expected = Image.fromarray(read_image(path)).resize((150, 100), Image.Resampling.BOX)
    assert np.abs(image.astype(float) - np.asarray(expected)).mean() < 2


def test_other_formats_are_decoded_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (400, 300)).save(path)
    image, whole = read_reduced(path, MAX_PIXELS, 20)
    assert image.shape[:2] == whole == (300, 400)


def test_the_limit_on_pixels_counts_the_whole_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="more than the 1000 pixels"):
        read_reduced(jpeg(tmp_path / "a.jpg", (400, 300)), 1000, 20)
