"""Image files are decoded once, and what is amiss with them is found."""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from detector.data.doctor import image_looks
from detector.data.doctor.image_checks import Inspection, inspect_images
from detector.data.findings import KINDS, Finding
from detector.data.images import read_image
from detector.data.raw.structure import RawSet
from detector.errors import ImageError, MachineError, WorkerError

MAX_PIXELS = 1_000_000


def raw_set(
    folder: Path,
    files: Sequence[str],
    sizes: Sequence[tuple[int, int]] | None = None,
    boxes: Sequence[tuple[float, float, float, float]] = (),
    findings: tuple[Finding, ...] = (),
) -> RawSet:
    """A COCO file with images; all boxes lie in the first."""
    none = np.zeros(len(boxes), dtype=np.int64)
    return RawSet(
        "coco",
        "train",
        Path("train.json"),
        folder,
        tuple(range(len(files))),
        tuple(files),
        ("train.json",) * len(files),
        tuple(f"images[{number}]" for number in range(len(files))),
        np.array(sizes or [(0, 0)] * len(files), dtype=np.int64).reshape(-1, 2),
        (1,),
        ("cat",),
        none,
        none,
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.full(len(boxes), np.nan),
        none.astype(bool),
        none.astype(bool),
        none,
        ("",) * len(boxes),
        findings,
    )


def inspect(raw: RawSet, workers: int = 0) -> Inspection:
    inspection = inspect_images(raw, MAX_PIXELS, workers, progress=False)
    assert all(finding.kind in KINDS for finding in inspection.findings)
    assert all("\n" not in finding.what and finding.what.isascii() for finding in inspection.findings)
    return inspection


def kinds(inspection: Inspection) -> list[str]:
    return [finding.kind for finding in inspection.findings]


def photo(height: int = 60, width: int = 80) -> Image.Image:
    """Gray that rises from left to right, so that JPEG keeps it."""
    row = np.linspace(0, 255, width).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(row[None, :, None], (height, width, 3)).copy())


def orientation(value: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = value
    return tags


def bomb(width: int, height: int) -> bytes:
    """A small PNG that promises many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# What is right


def test_an_ordinary_image_is_no_finding(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.jpg")
    inspection = inspect(raw_set(tmp_path, ["a.jpg"], [(60, 80)]))
    assert inspection.findings == []
    assert inspection.sizes.tolist() == [[60, 80]]
    assert inspection.readable.tolist() == [True]


def test_a_gray_image_is_ordinary(tmp_path: Path) -> None:
    photo().convert("L").save(tmp_path / "a.PNG")
    assert inspect(raw_set(tmp_path, ["a.PNG"])).findings == []


def test_a_set_without_images_is_inspected(tmp_path: Path) -> None:
    inspection = inspect(raw_set(tmp_path, []))
    assert inspection.sizes.shape == (0, 2)
    assert inspection.thumbnails.shape == (0, 32, 32)


# Files that cannot be read


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (b"", "image-empty"),
        (b"<html>not found</html>", "image-unreadable"),
        (bomb(1001, 1000), "image-oversized"),
        (bomb(20000, 20000), "image-oversized"),
    ],
    ids=["empty", "a page", "large", "beyond Pillow's limit"],
)
def test_files_that_cannot_be_read_are_told_apart(tmp_path: Path, contents: bytes, expected: str) -> None:
    (tmp_path / "a.png").write_bytes(contents)
    inspection = inspect(raw_set(tmp_path, ["a.png"]))
    assert kinds(inspection) == [expected]
    assert inspection.readable.tolist() == [False]
    assert not inspection.thumbnails.any()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    (finding,) = inspect(raw_set(tmp_path, ["a.jpg"])).findings
    assert (finding.kind, finding.what, finding.file) == (
        "image-missing", "no such image file", str(tmp_path / "a.jpg")
    )  # fmt: skip


@pytest.mark.parametrize("name", ["a.png", "A.jpg", "a.JPG"])
def test_a_missing_file_may_have_another_suffix_or_capitals(tmp_path: Path, name: str) -> None:
    photo().save(tmp_path / name)
    if (tmp_path / "a.jpg").exists():
        pytest.skip("this file system does not know capitals")
    (finding,) = inspect(raw_set(tmp_path, ["a.jpg"])).findings
    assert finding.what.endswith(f"; there is '{name}'")


def test_a_link_to_nowhere_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "b.png")
    (finding,) = inspect(raw_set(tmp_path, ["a.jpg"])).findings
    assert (finding.kind, finding.what) == ("image-missing", "no such image file")


def test_of_a_truncated_image_nothing_else_is_said(tmp_path: Path) -> None:
    photo(60, 80).save(tmp_path / "a.jpg", exif=orientation(6))
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-100])
    assert kinds(inspect(raw_set(tmp_path, ["a.jpg"], [(60, 80)]))) == ["image-truncated"]


@pytest.mark.parametrize("words", ["the file is empty", "the image is truncated"])
def test_a_folder_s_name_does_not_decide(tmp_path: Path, words: str) -> None:
    (tmp_path / words).mkdir()
    assert kinds(inspect(raw_set(tmp_path / words, ["a.jpg"]))) == ["image-missing"]


def test_folders_pipes_and_devices_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    inspection = inspect(raw_set(tmp_path, ["folder.jpg", "pipe.jpg", "device.jpg"]))
    assert [finding.what for finding in inspection.findings] == ["not a regular file"] * 3
    assert inspection.digests == [b""] * 3


def test_files_of_unsafe_names_are_not_opened(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.jpg")
    unsafe = Finding("file-name-unsafe", "train", "train.json", "images[0]", "leaves the images folder", 0)
    (tmp_path / "images").mkdir()
    inspection = inspect(raw_set(tmp_path / "images", ["../a.jpg"], findings=(unsafe,)))
    assert inspection.findings == []
    assert inspection.readable.tolist() == [False]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(60, 80), (600, 800)])
def test_a_reduced_jpeg_that_is_cut_anywhere_is_refused_as_a_whole_one(
    tmp_path: Path, size: tuple[int, int], progressive: bool
) -> None:
    photo(*size).save(tmp_path / "a.jpg", progressive=progressive)
    contents = (tmp_path / "a.jpg").read_bytes()
    for length in np.linspace(1, len(contents), 40, dtype=int).tolist():
        (tmp_path / "a.jpg").write_bytes(contents[:length])
        try:
            read_image(tmp_path / "a.jpg")
            whole = True
        except ImageError:
            whole = False
        assert inspect(raw_set(tmp_path, ["a.jpg"])).readable.tolist() == [whole], length


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "gif", "ppm"])
def test_an_image_without_its_last_quarter_is_truncated(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    inspection = inspect(raw_set(tmp_path, [path.name]))
    assert kinds(inspection) == ["image-truncated"]
    assert inspection.sizes.tolist() == [[200, 200]]


def test_damaged_exif_is_passed_over_in_silence(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\0")
    assert inspect(raw_set(tmp_path, ["a.jpg"])).findings == []


# What is unusual


def test_a_name_that_claims_another_format_is_told(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.jpg", format="PNG")
    (finding,) = inspect(raw_set(tmp_path, ["a.jpg"])).findings
    assert (finding.kind, finding.what) == ("image-mislabelled", "the file is a PNG")


@pytest.mark.parametrize("name", ["a", "a.001", "a.jpe", "a.JPEG"])
def test_a_name_that_claims_nothing_else_is_no_finding(tmp_path: Path, name: str) -> None:
    photo().save(tmp_path / name, format="JPEG")
    assert inspect(raw_set(tmp_path, [name])).findings == []


def test_a_photograph_with_a_preview_is_a_jpeg(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[photo()])
    inspection = inspect(raw_set(tmp_path, ["a.jpg"]))
    assert inspection.findings == []
    assert inspection.readable.tolist() == [True]


@pytest.mark.parametrize(
    ("mode", "suffix", "expected"),
    [
        ("CMYK", "jpg", "CMYK"),
        ("1", "png", "1 bit a pixel"),
        ("P", "png", "a palette"),
        ("RGBA", "png", "transparency"),
        ("LA", "png", "gray with transparency"),
        ("I;16", "png", "16 bits a channel"),
    ],
)
def test_unusual_pixels_are_named(tmp_path: Path, mode: str, suffix: str, expected: str) -> None:
    image = Image.fromarray(np.zeros((60, 80), np.uint16)) if mode == "I;16" else photo().convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    (finding,) = inspect(raw_set(tmp_path, [f"a.{suffix}"])).findings
    assert (finding.kind, finding.what) == ("image-unusual", expected)


def test_several_frames_are_told(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.gif", save_all=True, append_images=[photo().rotate(180)])
    (finding,) = inspect(raw_set(tmp_path, ["a.gif"])).findings
    assert finding.what == "a palette, several frames, of which the first is taken"


def test_a_second_frame_that_is_damaged_does_no_harm(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.gif", save_all=True, append_images=[photo().rotate(180)])
    contents = (tmp_path / "a.gif").read_bytes()
    start = contents.rindex(b"!\xf9")
    for length in range(start, start + 30):
        (tmp_path / "a.gif").write_bytes(contents[:length])
        assert set(kinds(inspect(raw_set(tmp_path, ["a.gif"])))) <= {"image-unusual"}


@pytest.mark.parametrize("size", [(15, 60), (60, 15), (20, 161), (161, 20)])
def test_tiny_and_very_long_images_are_extreme(tmp_path: Path, size: tuple[int, int]) -> None:
    photo(*size).save(tmp_path / "a.png")
    assert kinds(inspect(raw_set(tmp_path, ["a.png"]))) == ["image-extreme"]


def test_an_image_of_16_by_128_is_not_extreme(tmp_path: Path) -> None:
    photo(16, 128).save(tmp_path / "a.png")
    assert inspect(raw_set(tmp_path, ["a.png"])).findings == []


# Sizes and rotation


def test_a_size_that_differs_is_told(tmp_path: Path) -> None:
    photo(60, 80).save(tmp_path / "a.jpg")
    (finding,) = inspect(raw_set(tmp_path, ["a.jpg"], [(80, 60)])).findings
    assert finding.kind == "recorded-size-differs"
    assert finding.what == "the image is 80 x 60, but its annotation says 60 x 80"


@pytest.mark.parametrize(("recorded", "word"), [((80, 60), "after"), ((60, 80), "before")])
def test_either_size_of_a_turned_image_may_be_recorded(tmp_path: Path, recorded: tuple[int, int], word: str) -> None:
    photo(60, 80).save(tmp_path / "a.jpg", exif=orientation(6))
    inspection = inspect(raw_set(tmp_path, ["a.jpg"], [recorded]))
    assert kinds(inspection) == ["image-rotated"]
    assert inspection.findings[0].what.startswith("EXIF orientation 6 turns it by 90 degrees to the right")
    assert inspection.findings[0].what.endswith(f"is that {word} it")
    assert inspection.sizes.tolist() == [[80, 60]]


def test_a_third_size_of_a_turned_image_differs(tmp_path: Path) -> None:
    photo(60, 80).save(tmp_path / "a.jpg", exif=orientation(6))
    assert kinds(inspect(raw_set(tmp_path, ["a.jpg"], [(61, 80)]))) == ["image-rotated", "recorded-size-differs"]


@pytest.mark.parametrize(
    ("box", "expected"),
    [((10, 10, 65, 20), True), ((10, 10, 20, 65), False), ((5, 5, 20, 20), False), ((10, 10, 65, 65), False)],
)
def test_boxes_that_fit_only_before_the_turn_are_told(
    tmp_path: Path, box: tuple[float, float, float, float], expected: bool
) -> None:
    photo(60, 80).save(tmp_path / "a.jpg", exif=orientation(6))
    assert ("boxes-not-turned" in kinds(inspect(raw_set(tmp_path, ["a.jpg"], boxes=[box])))) == expected


@pytest.mark.parametrize("value", [0, 1, 9])
def test_an_orientation_that_turns_nothing_is_no_finding(tmp_path: Path, value: int) -> None:
    photo().save(tmp_path / "a.jpg", exif=orientation(value))
    assert inspect(raw_set(tmp_path, ["a.jpg"])).findings == []


# Thumbnails and digests


@pytest.mark.parametrize("size", [(60, 80), (480, 640), (16, 100)])
def test_a_thumbnail_is_the_mean_of_each_share(tmp_path: Path, size: tuple[int, int]) -> None:
    photo(*size).save(tmp_path / "a.jpg", quality=95)
    (thumbnail,) = inspect(raw_set(tmp_path, ["a.jpg"])).thumbnails
    expected = 255 * (np.arange(32) + 0.5) / 32
    np.testing.assert_allclose(thumbnail, np.broadcast_to(expected, (32, 32)), atol=4)


def test_a_thumbnail_is_upright(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.jpg", exif=orientation(8))
    (thumbnail,) = inspect(raw_set(tmp_path, ["a.jpg"])).thumbnails
    assert thumbnail[0].min() > 240
    assert thumbnail[-1].max() < 15


def test_a_digest_is_that_of_the_contents(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    photo().save(tmp_path / "b.png")
    photo(61, 80).save(tmp_path / "c.png")
    first, second, third, missing = inspect(raw_set(tmp_path, ["a.png", "b.png", "c.png", "d.png"])).digests
    assert first == second != third
    assert missing == b""


# Processes


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    for number in range(40):
        photo(60, 60 + number).save(tmp_path / f"{number}.jpg")
    (tmp_path / "3.jpg").write_bytes(b"")
    raw = raw_set(tmp_path, [f"{number}.jpg" for number in range(40)])
    alone, together = inspect(raw), inspect(raw, workers=2)
    assert together.findings == alone.findings
    assert together.digests == alone.digests
    np.testing.assert_array_equal(together.sizes, alone.sizes)
    np.testing.assert_array_equal(together.thumbnails, alone.thumbnails)


def kill_itself(path: str, max_pixels: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="the patch reaches forked processes alone")
def test_a_killed_process_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_looks, "_look_at", kill_itself)
    with pytest.raises(WorkerError, match=r"a\.jpg or one of the next.*use fewer workers"):
        inspect(raw_set(tmp_path, ["a.jpg", "b.jpg"]), workers=1)


def run_out_of_memory(path: str, max_pixels: int) -> None:
    raise MemoryError


def test_too_little_memory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_looks, "_look_at", run_out_of_memory)
    with pytest.raises(MachineError, match="out of memory"):
        inspect(raw_set(tmp_path, ["a.jpg"]))


SLEEPERS = """
import multiprocessing, sys, time
from detector.data.doctor import image_looks

def sleep(path, max_pixels):
    time.sleep(600)

if __name__ == "__main__":
    image_looks._look_at = sleep
    list(image_looks.look_at_files(["a"] * 100, 1, 2))
"""


@pytest.mark.slow
@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="the patch reaches forked processes alone")
def test_no_process_outlives_the_main_one(tmp_path: Path) -> None:
    (tmp_path / "sleepers.py").write_text(SLEEPERS)
    with subprocess.Popen([sys.executable, str(tmp_path / "sleepers.py")]) as main:
        end = time.monotonic() + 60
        while len(children := psutil.Process(main.pid).children()) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        main.kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    for child in alive:
        child.kill()
    assert len(children) == 2
    assert not alive


SPAWNED = """
import multiprocessing, sys
from detector.data.doctor.image_looks import look_at_files

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    print(*[look.size for look in look_at_files(sys.argv[1:], 10**6, 2)])
"""


@pytest.mark.slow
def test_processes_may_be_spawned(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.jpg")
    (tmp_path / "spawned.py").write_text(SPAWNED)
    command = [sys.executable, str(tmp_path / "spawned.py"), str(tmp_path / "a.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "Size(height=60, width=80)\n"


# Real data


def test_all_hard_files_are_told_apart(shared: Path) -> None:
    folder = shared / "data" / "nasty" / "images"
    inspection = inspect(raw_set(folder, sorted(path.name for path in folder.iterdir())))
    assert Counter(kinds(inspection)) == {
        "image-rotated": 3,
        "image-unusual": 6,
        "image-truncated": 1,
        "image-empty": 1,
        "image-mislabelled": 1,
    }


def test_ordinary_photographs_are_no_finding(shared: Path) -> None:
    folder = shared / "data" / "coco_by" / "val2017"
    inspection = inspect(raw_set(folder, sorted(path.name for path in folder.iterdir())), workers=2)
    assert inspection.findings == []
    assert inspection.readable.all()
