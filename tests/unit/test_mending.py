"""A mended copy of a data set."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from detector.config.data_schema import ResizeConfig
from detector.data.doctor.box_checks import check_boxes
from detector.data.doctor.image_checks import inspect_images
from detector.data.doctor.likeness import check_likeness, find_alike
from detector.data.doctor.mending.boxes import mended_box, turned
from detector.data.doctor.mending.draft import Change
from detector.data.doctor.mending.mend import mend
from detector.data.doctor.mending.pictures import copy_image, orientation_of
from detector.data.doctor.split_checks import check_splits
from detector.data.findings import KINDS, Finding
from detector.data.images import read_image
from detector.data.raw.recognise import read_raw, recognise
from detector.data.raw.structure import RawSet
from detector.durable import checksum
from detector.errors import DatasetError, UsageError
from detector.structures import Size

_WIDTH, _HEIGHT = 60, 40
_TURNED = 6  # EXIF: by 90 degrees to the right


# Data sets in which all is well, to be spoilt


def _picture(path: Path, number: int, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (_HEIGHT // 4, _WIDTH // 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((_WIDTH, _HEIGHT)).save(path, **options)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = _TURNED
    exif[0x010F] = "a camera"
    return exif


def _coco(folder: Path, splits: Sequence[str] = ("train", "val"), count: int = 6) -> None:
    for number, split in enumerate(splits):
        images, annotations = [], []
        for image in range(1, count + 1):
            name = f"{100 * number + image:03d}.png"
            _picture(folder / split / name, 100 * number + image)
            images.append({"id": image, "file_name": name, "width": _WIDTH, "height": _HEIGHT, "licence": "mine"})
            for k in range(2):
                box = [5 + 20 * k, 6 + image, 12, 9]
                annotation = {"id": len(annotations) + 1, "image_id": image, "category_id": 7, "bbox": box, "area": 50}
                annotations.append(annotation | {"segmentation": [[1, 1, 5, 5, 1, 5]], "note": "kept"})
        content = {"info": {"year": 2020}, "images": images, "annotations": annotations}
        content["categories"] = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}]
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def _voc(folder: Path) -> None:
    for number in range(1, 9):
        _picture(folder / "JPEGImages" / f"{number:03d}.png", number)
        objects = "".join(_voc_object(5 + 20 * k, 6 + number, 16 + 20 * k, 14 + number) for k in range(2))
        _write(folder / "Annotations" / f"{number:03d}.xml", _voc_xml(f"{number:03d}.png", objects))
    lists = {"train": range(1, 5), "val": range(5, 9), "trainval": range(1, 9)}
    for split, numbers in lists.items():
        _write(folder / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{number:03d}\n" for number in numbers))


def _voc_xml(name: str, objects: str) -> str:
    size = f"<size><width>{_WIDTH}</width><height>{_HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename><owner>me</owner>{size}{objects}</annotation>"


def _voc_object(xmin: float, ymin: float, xmax: float, ymax: float, name: str = "cat") -> str:
    box = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name><pose>Left</pose><bndbox>{box}</bndbox></object>"


def _yolo(folder: Path) -> None:
    for number, split in enumerate(("train", "val")):
        for image in range(1, 7):
            _picture(folder / "images" / split / f"{image:03d}.png", 100 * number + image)
            lines = [f"0 {0.2 + 0.4 * k} {0.3 + 0.02 * image} 0.2 0.25\n" for k in range(2)]
            _write(folder / "labels" / split / f"{image:03d}.txt", "".join(lines))
    content = "path: /nowhere\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\nlicence: mine\n"
    _write(folder / "data.yaml", content)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# Check and mend


def _check(folder: Path) -> tuple[list[RawSet], list[Finding], list[np.ndarray]]:
    raws = [read_raw(source) for source in recognise(folder)]
    inspections = [inspect_images(raw, 10**6, 0, progress=False) for raw in raws]
    findings = check_splits(raws)
    for raw, inspection in zip(raws, inspections, strict=True):
        findings += [*raw.findings, *inspection.findings, *check_boxes(raw, inspection.sizes, ResizeConfig())]
    thumbnails = np.concatenate([inspection.thumbnails for inspection in inspections])
    digests = [digest for inspection in inspections for digest in inspection.digests]
    findings += check_likeness(raws, find_alike(thumbnails, digests))
    return raws, findings, [inspection.sizes for inspection in inspections]


def _mended(folder: Path, copy: Path) -> list[Change]:
    raws, findings, sizes = _check(folder)
    return mend(raws, findings, sizes, copy, progress=False)


def _of_mended_kinds(findings: Sequence[Finding]) -> Counter[str]:
    """Kinds of what is mended; like pictures in different files are left to people."""
    return Counter(
        finding.kind
        for finding in findings
        if KINDS[finding.kind].mended and not (finding.other and checksum(finding.file) != checksum(finding.other))
    )


def _sums(folder: Path) -> dict[str, str]:
    return {str(path): checksum(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _content(folder: Path, split: str = "train") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
    return content


def _spoil(folder: Path, change: Callable[[dict[str, Any]], object], split: str = "train") -> None:
    content = _content(folder, split)
    change(content)
    _write(folder / "annotations" / f"instances_{split}.json", json.dumps(content))


# All kinds of flaws


def _set_box(position: int, box: object) -> Callable[[Path], None]:
    return lambda folder: _spoil(folder, lambda content: content["annotations"][position].update(bbox=box))


def _set_image(position: int, **values: object) -> Callable[[Path], None]:
    return lambda folder: _spoil(folder, lambda content: content["images"][position].update(values))


def _set_object(position: int, **values: object) -> Callable[[Path], None]:
    return lambda folder: _spoil(folder, lambda content: content["annotations"][position].update(values))


def _add_image(**values: object) -> Callable[[Path], None]:
    return lambda folder: _spoil(folder, lambda content: content["images"].append(values))


def _corners(folder: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for record in content["annotations"]:
            if isinstance(record, dict):
                record["bbox"] = [30, 20, 50, 38]
                record["image_id"] = 1 + len(str(record)) % 6

    _spoil(folder, change)


def _turn_file_alone(folder: Path) -> None:
    """The boxes lie in the file as it is stored, and one of them outside of the upright image."""
    _turn_file("005.png")(folder)
    _set_box(8, [48, 3, 10, 5])(folder)


def _missing_twice(folder: Path) -> None:
    """One file could stand for both."""
    _add_image(id=97, file_name="a.gif")(folder)
    _add_image(id=96, file_name="a.bmp")(folder)
    _picture(folder / "train" / "A.png", 300)


def _turn_file(name: str) -> Callable[[Path], None]:
    return lambda folder: _picture(folder / "train" / name, 77, exif=_exif())


def _duplicate(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copy(folder / old, folder / new)


_COCO_FLAWS: dict[str, Callable[[Path], object]] = {
    "reversed": _set_box(0, [20, 20, -9, -12]),
    "reversed and over the edge": _set_box(1, [10, 20, -30, 9]),
    "no area": _set_box(2, [3, 3, 0, 5]),
    "outside": _set_box(3, [100, 3, 9, 5]),
    "partly outside": _set_box(4, [50, 30, 30, 30.5]),
    "clipped to a twin": lambda folder: (_set_box(4, [50, 30, 30, 30])(folder), _set_box(5, [50, 30, 10, 10])(folder)),
    "a sliver inside": _set_box(6, [59.9999, 3, 9, 5]),
    "box of text": _set_box(7, ["1", 2, 3, 4]),
    "box of three": _set_box(8, [1, 2, 3]),
    "twin": _set_box(9, [5, 11, 12, 9]),
    "corners": _corners,
    "image unknown": _set_object(10, image_id=4711),
    "category unknown": _set_object(10, category_id=4711),
    "area of text": _set_object(10, area="big"),
    "crowd of text": _set_object(11, iscrowd="no"),
    "id again": _set_object(10, id=1),
    "id 0": _set_object(0, id=0),
    "no object": lambda folder: _spoil(folder, lambda content: content["annotations"].append(4)),
    "no image": lambda folder: _spoil(folder, lambda content: content["images"].insert(1, [])),
    "no category": lambda folder: _spoil(folder, lambda content: content["categories"].insert(0, {"id": 1})),
    "image without name": _set_image(4, file_name=""),
    "image id again": _set_image(4, id=4),
    "image record again": _add_image(id=1, file_name="001.png"),
    "file again": _add_image(id=99, file_name="002.png", width=1, height=1),
    "unsafe name": _add_image(id=98, file_name="../elsewhere.png"),
    "wrong size": _set_image(2, width=50),
    "size of text": _set_image(3, width="wide"),
    "missing twice": _missing_twice,
    "missing": lambda folder: os.unlink(folder / "train" / "005.png"),
    "other capitals": lambda folder: os.rename(folder / "train" / "006.png", folder / "train" / "006.PNG"),
    "other suffix": _set_image(5, file_name="006.jpeg"),
    "empty": lambda folder: _write(folder / "train" / "004.png", ""),
    "no picture": lambda folder: _write(folder / "train" / "004.png", "<html>"),
    "truncated": lambda folder: os.truncate(folder / "train" / "003.png", 300),
    "mislabelled": lambda folder: _picture(folder / "train" / "002.png", 5, format="JPEG"),
    "turned": _turn_file("001.png"),
    "turned without its boxes": _turn_file_alone,
    "same content": _duplicate("train/001.png", "train/004.png"),
    "same content in both splits": _duplicate("train/003.png", "val/101.png"),
    "same content in both splits, twice": _duplicate("val/102.png", "train/003.png"),
}  # fmt: skip


def _in_xml(number: int, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "Annotations" / f"{number:03d}.xml"
        if path.exists():
            path.write_text(path.read_text().replace(old, new))

    return change


def _add_object(number: int, *corners: float) -> Callable[[Path], object]:
    return _in_xml(number, "</annotation>", f"{_voc_object(*corners)}</annotation>")


_VOC_FLAWS: dict[str, Callable[[Path], object]] = {
    "reversed": _add_object(1, 30, 30, 20, 38),
    "no area": _add_object(1, 9, 9, 9, 12),
    "outside": _add_object(2, 80, 9, 90, 12),
    "partly outside": _add_object(2, 50, -9, 70, 12.5),
    "twin": _add_object(3, 5, 9, 16, 17),
    "box of text": _add_object(3, "a", 9, 16, 17),  # type: ignore[arg-type]
    "no box": _in_xml(3, "</annotation>", "<object><name>dog</name></object></annotation>"),
    "no name": _in_xml(4, "<name>cat</name>", "<name/>"),
    "odd flag": _in_xml(4, "<pose>", "<difficult>9</difficult><pose>"),
    "no xml": lambda folder: _write(folder / "Annotations" / "005.xml", "<annotation>"),
    "doctype": _in_xml(6, "<annotation>", "<!DOCTYPE a><annotation>"),
    "no annotation": lambda folder: os.unlink(folder / "Annotations" / "007.xml"),
    "name of another": _in_xml(1, "001.png", "other.png"),
    "wrong size": _in_xml(2, f"<width>{_WIDTH}</width>", "<width>9</width>"),
    "size of text": _in_xml(3, f"<width>{_WIDTH}</width>", "<width>wide</width>"),
    "missing": lambda folder: os.unlink(folder / "JPEGImages" / "004.png"),
    "other capitals": lambda folder: (
        _in_xml(8, "008.png", "x.png")(folder),
        os.rename(folder / "JPEGImages" / "008.png", folder / "JPEGImages" / "008.Png"),
    ),
    "mislabelled": lambda folder: _picture(folder / "JPEGImages" / "003.png", 5, format="JPEG"),
    "turned": lambda folder: _picture(folder / "JPEGImages" / "006.png", 5, exif=_exif()),
    "empty": lambda folder: _write(folder / "JPEGImages" / "002.png", ""),
    "listed twice": lambda folder: _write(
        folder / "ImageSets" / "Main" / "train.txt", "001\n002\n001\n../003\n003\n004\n"
    ),
    "in both": lambda folder: _write(folder / "ImageSets" / "Main" / "val.txt", "001\n005\n006\n007\n008\n"),
    "same content": _duplicate("JPEGImages/001.png", "JPEGImages/008.png"),
}

_YOLO_FLAWS: dict[str, Callable[[Path], object]] = {
    "no area": lambda folder: _append(folder, 1, "0 0.5 0.5 0 0.1"),
    "reversed": lambda folder: _append(folder, 1, "0 0.5 0.5 -0.2 0.1"),
    "outside": lambda folder: _append(folder, 2, "0 1.5 0.5 0.2 0.1"),
    "partly outside": lambda folder: _append(folder, 2, "0 0.9 0.5 0.6 0.1"),
    "polygon partly outside": lambda folder: _append(folder, 2, "0 0.5 0.5 1.5 0.6 0.7 0.9"),
    "twin": lambda folder: _append(folder, 3, "0 0.6 0.36 0.2 0.25"),
    "unknown class": lambda folder: _append(folder, 3, "5 0.6 0.36 0.2 0.25"),
    "no class": lambda folder: _append(folder, 3, "cat 0.6 0.36 0.2 0.25"),
    "three numbers": lambda folder: _append(folder, 4, "0 0.6 0.36 0.2"),
    "no text": lambda folder: (folder / "labels/train/004.txt").write_bytes(b"\xff\xfe\x00"),
    "no picture": lambda folder: _write(folder / "images/train/005.png", "?"),
    "missing": lambda folder: (folder / "images/train/006.png").unlink(),
    "two images of one text": lambda folder: _picture(folder / "images/train/001.jpg", 99),
    "mislabelled": lambda folder: _picture(folder / "images/train/002.png", 98, format="JPEG"),
    "turned": lambda folder: _picture(folder / "images/train/003.png", 97, exif=_exif()),
    "in both": _duplicate("images/train/001.png", "images/val/002.png"),
    "same content": _duplicate("images/val/001.png", "images/val/005.png"),
}


def _append(folder: Path, number: int, line: str) -> None:
    with open(folder / "labels" / "train" / f"{number:03d}.txt", "a") as file:
        file.write(line + "\n")


_FORMATS = {"coco": (_coco, _COCO_FLAWS), "voc": (_voc, _VOC_FLAWS), "yolo": (_yolo, _YOLO_FLAWS)}
_EACH = [(name, flaw) for name, (_, flaws) in _FORMATS.items() for flaw in flaws]


def _assert_mended(name: str, flaws: Sequence[str], folder: Path) -> None:
    build, known = _FORMATS[name]
    build(folder / "old")
    for flaw in flaws:
        known[flaw](folder / "old")
    before = _sums(folder / "old")
    raws, findings, sizes = _check(folder / "old")
    assert _of_mended_kinds(findings) != Counter()
    mend(raws, findings, sizes, folder / "new", progress=False)
    raws, findings, sizes = _check(folder / "new")
    assert _of_mended_kinds(findings) == Counter()
    assert mend(raws, findings, sizes, folder / "newer", progress=False) == []
    assert _sums(folder / "old") == before


# What becomes of what


def test_the_copy_of_a_faultless_set_has_the_same_annotations_and_images(tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    assert _mended(tmp_path / "old", tmp_path / "new") == []
    new = _sums(tmp_path / "new")
    assert new.pop(str(tmp_path / "new" / "changes.txt"))
    assert new.pop(str(tmp_path / "new" / "changes.json"))
    assert list(new.values()) == list(_sums(tmp_path / "old").values())


def test_images_are_copied_and_not_linked(tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    _mended(tmp_path / "old", tmp_path / "new")
    assert os.stat(tmp_path / "new" / "train" / "001.png").st_nlink == 1
    assert not (tmp_path / "new" / "train" / "001.png").is_symlink()


def test_what_the_toolkit_does_not_use_stays_in_a_coco_file(tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    _set_box(0, [20, 20, -9, -12])(tmp_path / "old")
    _mended(tmp_path / "old", tmp_path / "new")
    expected = _content(tmp_path / "old")
    expected["annotations"][0]["bbox"] = [11, 8, 9, 12]
    assert _content(tmp_path / "new") == expected


def test_what_the_toolkit_does_not_use_stays_in_an_xml_file(tmp_path: Path) -> None:
    _voc(tmp_path / "old")
    _add_object(1, 30, 30, 20, 38)(tmp_path / "old")
    _mended(tmp_path / "old", tmp_path / "new")
    old = (tmp_path / "old" / "Annotations" / "001.xml").read_text()
    expected = old.replace(_voc_object(30, 30, 20, 38), _voc_object(20, 30, 30, 38))
    assert (tmp_path / "new" / "Annotations" / "001.xml").read_text() == expected


def test_the_polygon_of_a_clipped_box_stays_a_polygon(tmp_path: Path) -> None:
    _yolo(tmp_path / "old")
    _append(tmp_path / "old", 2, "0 0.5 0.5 1.5 0.6 0.7 0.9")
    _mended(tmp_path / "old", tmp_path / "new")
    lines = (tmp_path / "new" / "labels" / "train" / "002.txt").read_text().splitlines()
    np.testing.assert_allclose([float(word) for word in lines[2].split()], [0, 0.5, 0.5, 1, 0.6, 0.7, 0.9])


def test_data_yaml_leads_to_the_copy_and_keeps_the_rest(tmp_path: Path) -> None:
    _yolo(tmp_path / "old")
    _mended(tmp_path / "old", tmp_path / "new")
    text = (tmp_path / "new" / "data.yaml").read_text()
    expected = {"names": {0: "cat", 1: "dog"}, "licence": "mine", "train": "images/train", "val": "images/val"}
    assert yaml.safe_load(text) == expected


def test_an_image_whose_id_is_taken_gets_a_new_one_and_the_first_keeps_the_objects(tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    _set_image(4, id=4)(tmp_path / "old")
    _mended(tmp_path / "old", tmp_path / "new")
    content = _content(tmp_path / "new")
    assert [image["id"] for image in content["images"]] == [1, 2, 3, 4, 7, 6]
    assert [record["id"] for record in content["annotations"] if record["image_id"] == 4] == [7, 8]


def test_objects_of_a_file_that_is_listed_twice_go_to_the_first(tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    _add_image(id=99, file_name="002.png")(tmp_path / "old")
    _set_object(11, image_id=99)(tmp_path / "old")
    _mended(tmp_path / "old", tmp_path / "new")
    content = _content(tmp_path / "new")
    assert content["annotations"][11]["image_id"] == 2
    assert 99 not in [image["id"] for image in content["images"]]


def test_an_image_that_took_the_name_of_another_gets_a_number(tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    _picture(tmp_path / "old" / "train" / "002.jpg", 50)
    _add_image(id=50, file_name="002.jpg")(tmp_path / "old")
    _picture(tmp_path / "old" / "train" / "002.png", 51, format="JPEG")
    _mended(tmp_path / "old", tmp_path / "new")
    assert _content(tmp_path / "new")["images"][1]["file_name"] == "002_2.jpg"
    assert checksum(tmp_path / "new/train/002_2.jpg") == checksum(tmp_path / "old/train/002.png")


def test_annotations_are_numbered_from_1_where_ids_repeat(tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    _set_object(10, id=1)(tmp_path / "old")
    _mended(tmp_path / "old", tmp_path / "new")
    assert [record["id"] for record in _content(tmp_path / "new")["annotations"]] == list(range(1, 13))


def test_an_image_in_two_splits_leaves_the_training_split(tmp_path: Path) -> None:
    _voc(tmp_path / "old")
    _VOC_FLAWS["in both"](tmp_path / "old")
    _mended(tmp_path / "old", tmp_path / "new")
    lists = tmp_path / "new" / "ImageSets" / "Main"
    assert (lists / "train.txt").read_text().split() == ["002", "003", "004"]
    assert (lists / "val.txt").read_text().split() == ["001", "005", "006", "007", "008"]
    assert len((lists / "trainval.txt").read_text().split()) == 8


def test_a_split_whose_images_are_all_in_another_is_not_emptied(tmp_path: Path) -> None:
    _voc(tmp_path / "old")
    _write(tmp_path / "old" / "ImageSets" / "Main" / "val.txt", "001\n002\n003\n004\n")
    (tmp_path / "old" / "ImageSets" / "Main" / "trainval.txt").unlink()
    with pytest.raises(DatasetError, match="'train': all its images are in another split"):
        _mended(tmp_path / "old", tmp_path / "new")


def test_lists_of_one_class_lose_what_their_split_loses(tmp_path: Path) -> None:
    _voc(tmp_path / "old")
    _write(tmp_path / "old" / "ImageSets" / "Main" / "cat_train.txt", "001 1\n002 -1\n003 1\n004 1\n")
    _write(tmp_path / "old" / "JPEGImages" / "002.png", "")
    _mended(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "new" / "ImageSets" / "Main" / "cat_train.txt").read_text() == "001 1\n003 1\n004 1\n"


def test_a_list_that_gets_empty_is_told_of(tmp_path: Path) -> None:
    _voc(tmp_path / "old")
    for number in range(5, 9):
        _write(tmp_path / "old" / "JPEGImages" / f"{number:03d}.png", "")
    changes = _mended(tmp_path / "old", tmp_path / "new")
    path = tmp_path / "old" / "ImageSets" / "Main" / "val.txt"
    assert Change(str(path), "", "the list is empty now") in changes
    assert (tmp_path / "new" / "ImageSets" / "Main" / "val.txt").read_text() == ""


def test_changes_are_written_down_as_they_are_returned(tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    _set_box(0, [20, 20, -9, -12])(tmp_path / "old")
    (change,) = _mended(tmp_path / "old", tmp_path / "new")
    file = tmp_path / "old" / "annotations" / "instances_train.json"
    assert change == Change(str(file), "annotations[0] (id 1)", "box reversed: [20, 20, -9, -12] -> [11, 8, 9, 12]")
    assert (tmp_path / "new" / "changes.txt").read_text() == f"{change}\n"
    assert json.loads((tmp_path / "new" / "changes.json").read_text())["changes"][0]["what"] == change.what


# Turned images


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_turned_box_marks_the_same_pixels(orientation: int) -> None:
    pixels = np.zeros((_HEIGHT, _WIDTH), dtype=np.uint8)
    pixels[3:8, 20:50] = 255
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(image)
    box = turned(np.array([[20.0, 3, 30, 5]]), orientation, Size(upright.height, upright.width))[0]
    left, top, right, bottom = upright.getbbox() or (0, 0, 0, 0)
    assert box.tolist() == [left, top, right - left, bottom - top]


def test_the_rest_of_exif_is_kept(tmp_path: Path) -> None:
    _picture(tmp_path / "old.jpg", 1, exif=_exif())
    copy_image(str(tmp_path / "old.jpg"), tmp_path / "new.jpg", upright=True)
    with Image.open(tmp_path / "new.jpg") as image:
        assert dict(image.getexif()) == {0x010F: "a camera"}


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_an_upright_copy_of_a_lossless_image_has_the_same_pixels(suffix: str, tmp_path: Path) -> None:
    _picture(tmp_path / f"old.{suffix}", 1, exif=_exif())
    copy_image(str(tmp_path / f"old.{suffix}"), tmp_path / f"new.{suffix}", upright=True)
    np.testing.assert_array_equal(read_image(tmp_path / f"new.{suffix}"), read_image(tmp_path / f"old.{suffix}"))
    assert orientation_of(str(tmp_path / f"new.{suffix}")) == 1


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_an_upright_copy_of_a_lossy_image_is_nearly_the_same(suffix: str, tmp_path: Path) -> None:
    _picture(tmp_path / f"old.{suffix}", 1, exif=_exif(), icc_profile=b"a profile")
    copy_image(str(tmp_path / f"old.{suffix}"), tmp_path / f"new.{suffix}", upright=True)
    new, old = read_image(tmp_path / f"new.{suffix}").astype(int), read_image(tmp_path / f"old.{suffix}").astype(int)
    assert np.abs(new - old).mean() < 8
    assert orientation_of(str(tmp_path / f"new.{suffix}")) == 1
    with Image.open(tmp_path / f"new.{suffix}") as image:
        assert image.info["icc_profile"] == b"a profile"


def test_boxes_that_fit_the_upright_image_are_not_turned(tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    _turn_file("001.png")(tmp_path / "old")
    _mended(tmp_path / "old", tmp_path / "new")
    content = _content(tmp_path / "new")
    assert content["annotations"] == _content(tmp_path / "old")["annotations"]
    assert (content["images"][0]["width"], content["images"][0]["height"]) == (_HEIGHT, _WIDTH)


def test_boxes_that_fit_only_the_stored_image_are_turned(tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    _turn_file_alone(tmp_path / "old")
    _mended(tmp_path / "old", tmp_path / "new")
    first, second = (record for record in _content(tmp_path / "new")["annotations"] if record["image_id"] == 5)
    assert first["bbox"] == [_HEIGHT - 3 - 5, 48, 5, 10]
    assert second["bbox"] == [_HEIGHT - 11 - 9, 25, 9, 12]
    assert "segmentation" not in first


def test_boxes_are_clipped_and_not_turned_where_the_recorded_size_is_the_upright_one(tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    _turn_file_alone(tmp_path / "old")
    _set_image(4, width=_HEIGHT, height=_WIDTH)(tmp_path / "old")
    _mended(tmp_path / "old", tmp_path / "new")
    boxes = [record["bbox"] for record in _content(tmp_path / "new")["annotations"] if record["image_id"] == 5]
    assert boxes == [[25, 11, 12, 9]]


# Boxes

_SIDES = st.floats(-200, 200)


@given(box=st.tuples(_SIDES, _SIDES, _SIDES, _SIDES), voc=st.booleans())
def test_a_mended_box_lies_inside_and_has_an_area_and_needs_no_mending(box: tuple[float, ...], voc: bool) -> None:
    size = Size(_HEIGHT, _WIDTH)
    mended, _ = mended_box(np.array(box), size, voc)
    if mended is not None:
        assert (mended[2:] > 0).all()
        assert (mended[:2] >= -1.001).all()
        assert (mended[:2] + mended[2:] <= np.array([_WIDTH, _HEIGHT]) + 1.001).all()
        assert mended_box(mended, size, voc)[1] == ""


# Where the copy goes


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    _write(tmp_path / "new" / "mine.txt", "")
    with pytest.raises(UsageError, match="is not empty"):
        _mended(tmp_path / "old", tmp_path / "new")


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    (tmp_path / "new").mkdir()
    _mended(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "new" / "changes.txt").read_text() == "Nothing had to be changed.\n"


@pytest.mark.parametrize("inside", ["", "new", "train/new"])
def test_a_folder_in_the_data_set_is_refused(inside: str, tmp_path: Path) -> None:
    _coco(tmp_path / "old")
    before = _sums(tmp_path)
    with pytest.raises(UsageError, match=r"is not empty|lies in the data set"):
        _mended(tmp_path / "old", tmp_path / "old" / inside)
    assert _sums(tmp_path) == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_copy_that_was_not_finished(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _coco(tmp_path / "old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("detector.data.doctor.mending.mend.copy_image", fail)
    with pytest.raises(type(error)):
        _mended(tmp_path / "old", tmp_path / "new")
    assert os.listdir(tmp_path) == ["old"]


def test_a_set_without_any_readable_image_is_not_copied(tmp_path: Path) -> None:
    _coco(tmp_path / "old", splits=("train",))
    for path in (tmp_path / "old" / "train").iterdir():
        path.write_text("")
    with pytest.raises(DatasetError, match="no image would be left"):
        _mended(tmp_path / "old", tmp_path / "new")


# Layouts


def _beside(folder: Path) -> None:
    """JSON files beside their images."""
    _coco(folder)
    for split in ("train", "val"):
        os.rename(folder / "annotations" / f"instances_{split}.json", folder / split / "_annotations.coco.json")


def _flat_voc(folder: Path) -> None:
    _voc(folder / "whole")
    for split, numbers in (("train", range(1, 5)), ("test", range(5, 9))):
        (folder / split).mkdir()
        for number in numbers:
            shutil.copy(folder / "whole" / "Annotations" / f"{number:03d}.xml", folder / split)
            shutil.copy(folder / "whole" / "JPEGImages" / f"{number:03d}.png", folder / split)
    shutil.rmtree(folder / "whole")


def _yolo_lists(folder: Path) -> None:
    _yolo(folder)
    for split in ("train", "val"):
        names = sorted(path.name for path in (folder / "images" / split).iterdir())
        _write(folder / f"{split}.txt", "".join(f"./images/{split}/{name}\n" for name in names))
    _write(folder / "data.yaml", "train: train.txt\nval: val.txt\nnames: [cat, dog]\n")


def _yolo_classes(folder: Path) -> None:
    _yolo(folder)
    (folder / "data.yaml").unlink()
    _write(folder / "classes.txt", "cat\ndog\n")


def _yolo_beside(folder: Path) -> None:
    """train/images and train/labels."""
    _yolo(folder)
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (folder / split).mkdir(exist_ok=True)
            os.rename(folder / part / split, folder / split / part)
    _write(folder / "data.yaml", "train: ../train/images\nval: ../val/images\nnames: [cat, dog]\n")


def _two_devkits(folder: Path) -> None:
    for name in ("VOC2007", "VOC2012"):
        _voc(folder / name)
        (folder / name / "ImageSets" / "Main" / "trainval.txt").unlink()
        if name == "VOC2012":
            for number in range(1, 9):
                _picture(folder / name / "JPEGImages" / f"{number:03d}.png", 100 + number)


@pytest.mark.parametrize(
    "build",
    [_beside, _flat_voc, _yolo_lists, _yolo_classes, _yolo_beside, _two_devkits],
    ids=lambda build: build.__name__,
)
def test_the_copy_has_the_layout_of_the_original(build: Callable[[Path], None], tmp_path: Path) -> None:
    build(tmp_path / "old")
    _mended(tmp_path / "old", tmp_path / "new")
    old, new = _check(tmp_path / "old")[0], _check(tmp_path / "new")[0]
    assert [(raw.split, raw.file_names, raw.class_names) for raw in old] == [
        (raw.split, raw.file_names, raw.class_names) for raw in new
    ]
    assert all(str(raw.folder).startswith(str(tmp_path / "new")) for raw in new)
    for before, after in zip(old, new, strict=True):
        np.testing.assert_array_equal(before.boxes, after.boxes)


def test_an_image_leaves_a_list_of_yolo(tmp_path: Path) -> None:
    _yolo_lists(tmp_path / "old")
    _write(tmp_path / "old" / "images" / "train" / "002.png", "")
    _mended(tmp_path / "old", tmp_path / "new")
    lines = (tmp_path / "new" / "train.txt").read_text().splitlines()
    assert lines == [f"./images/train/00{number}.png" for number in (1, 3, 4, 5, 6)]


# Real data


def test_two_clicks_without_area_leave_the_blood_cells(shared: Path, tmp_path: Path) -> None:
    changes = _mended(shared / "data" / "bccd", tmp_path / "new")
    assert [(Path(change.file).name, change.record) for change in changes] == [
        ("BloodImage_00343.xml", "object[3] ('RBC')"),
        ("BloodImage_00338.xml", "object[12] ('RBC')"),
    ]


def test_the_hard_image_files_are_mended(shared: Path, tmp_path: Path) -> None:
    changes = _mended(shared / "data" / "nasty", tmp_path / "new")
    assert sorted(os.path.basename(change.file) for change in changes) == [
        "empty.jpg", "exif3.jpg", "exif6.jpg", "exif8.jpg", "png named.jpg", "truncated.jpg",
    ]  # fmt: skip
    assert _of_mended_kinds(_check(tmp_path / "new")[1]) == Counter()


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_flaws_together_are_mended(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    name = data.draw(st.sampled_from(sorted(_FORMATS)))
    flaws = data.draw(st.lists(st.sampled_from(list(_FORMATS[name][1])), min_size=2, max_size=6, unique=True))
    _assert_mended(name, flaws, tmp_path_factory.mktemp("mending"))


@pytest.mark.parametrize(("name", "flaw"), _EACH)
def test_a_flaw_is_mended_and_mending_again_changes_nothing(name: str, flaw: str, tmp_path: Path) -> None:
    _assert_mended(name, [flaw], tmp_path)
