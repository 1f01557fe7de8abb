"""Which data sets a folder holds, told from what is in it."""

from __future__ import annotations

import codecs
import json
import logging
import mmap
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from detector.config.yaml_tree import parse_yaml
from detector.data.images import SUFFIXES
from detector.data.raw.coco import read_raw_coco, unsafe_name
from detector.data.raw.structure import RawSet, Source
from detector.data.raw.voc import read_raw_voc
from detector.data.raw.yolo import files_below, read_raw_yolo, text_file_of
from detector.errors import DatasetError, DetectorError, one_line, quote

_log = logging.getLogger(__name__)
_READERS = {"coco": read_raw_coco, "voc": read_raw_voc, "yolo": read_raw_yolo}
_ORDER = ("train", "val", "test")
_SAMPLES = 20
_PEEKED_BYTES = 4096
_MAX_YAML_BYTES = 1024**2
# Of the files that COCO itself hands out, those beside "instances".
_OTHER_TASKS = re.compile(r"(person_keypoints|captions|panoptic|stuff)_")


def recognise(folder: Path) -> list[Source]:
    """The splits of the data set in a folder: train, val, test and others, in this order.

    Args:
        folder: of the whole data set, or one above it.

    Raises:
        DatasetError: there is none; says what was looked for.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{one_line(folder)}: no such folder")
    found = _recognise_here(folder)
    if not found:
        inside = {child.name: _recognise_here(child) for child in _subfolders(folder)}
        inside = {name: sources for name, sources in inside.items() if sources}
        found = _renamed(inside) if len(inside) > 1 else [source for sources in inside.values() for source in sources]
    if not found:
        raise DatasetError(
            f"{one_line(folder)}: no data set is recognised here; looked for COCO (a JSON file with images, "
            "annotations and categories, in the folder, in annotations/ or beside its images), VOC (Annotations/ and "
            "JPEGImages/, or XML files beside their images) and YOLO (a YAML file with names and train or val, or "
            "images/ and labels/ with classes.txt)"
        )
    return found


def read_raw(source: Source) -> RawSet:
    """Reads a split, flaws included.

    Raises:
        DatasetError: its annotations cannot be read at all.
    """
    return _READERS[source.format](source)


def _recognise_here(folder: Path) -> list[Source]:
    for look in (_voc_devkit, _coco, _yolo_with_yaml, _yolo_with_classes, _voc_flat):
        sources = look(folder)
        if sources:
            return sorted(sources, key=lambda source: (_rank(source.split), source.split))
    return []


def _rank(split: str) -> int:
    return next((rank for rank, name in enumerate(_ORDER) if split.lower().startswith(name)), len(_ORDER))


def _renamed(inside: dict[str, list[Source]]) -> list[Source]:
    """The splits of several data sets side by side, such as VOC2007 and VOC2012."""
    both = [(source.split, name, source) for name, sources in inside.items() for source in sources]
    both.sort(key=lambda item: (_rank(item[0]), item[0], item[1]))
    return [replace(source, split=f"{split}-{name}") for split, name, source in both]


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    except OSError:
        return []


def _files(folder: Path, *suffixes: str) -> list[Path]:
    try:
        entries = [entry for entry in os.scandir(folder) if entry.name.lower().endswith(suffixes)]
    except OSError:
        return []
    return sorted(Path(entry.path) for entry in entries if entry.is_file())


def _peek(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_PEEKED_BYTES)
    except OSError:
        return b""


# VOC


def _voc_devkit(folder: Path) -> list[Source]:
    if not ((folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir()):
        return []
    lists = [path for path in _files(folder / "ImageSets" / "Main", ".txt") if not _is_of_one_class(path)]
    if lists:
        return [Source("voc", path.stem, folder, path) for path in lists]
    return [Source("voc", "all", folder, folder)] if _files(folder / "Annotations", ".xml") else []


def _is_of_one_class(path: Path) -> bool:
    """Whether a list has a second column that says if the class is in the image."""
    return re.match(rb"\s*\S+[ \t]+(-1|0|1)\s", _peek(path) + b"\n") is not None


def _voc_flat(folder: Path) -> list[Source]:
    places = [place for place in (folder, *_subfolders(folder)) if _holds_xml(place)]
    return [Source("voc", place.resolve().name, place, place) for place in places]


def _holds_xml(folder: Path) -> bool:
    xml = _files(folder, ".xml")[:_SAMPLES]
    return any(b"<annotation" in _peek(path) for path in xml) and bool(_files(folder, *SUFFIXES))


# COCO


def _coco(folder: Path) -> list[Source]:
    paths = [path for place in (folder, *_subfolders(folder)) for path in _files(place, ".json")]
    samples = {path: names for path in paths if (names := _coco_file_names(path)) is not None}
    own = [path for path in samples if not _OTHER_TASKS.match(path.name)] or list(samples)
    splits = [_coco_split(path, folder) for path in own]
    images = [_coco_images(path, split, samples[path], folder) for path, split in zip(own, splits, strict=True)]
    for number, path in enumerate(own):
        if splits.count(splits[number]) > 1:
            splits[number] = "-".join(path.relative_to(folder).with_suffix("").parts)
    return [Source("coco", split, place, path) for split, place, path in zip(splits, images, own, strict=True)]


def _coco_file_names(path: Path) -> list[str] | None:
    """The first file names of a COCO file; None where it is none. It may be huge and is not parsed."""
    if not _peek(path).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
        return None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if any(content.find(key) < 0 for key in (b'"images"', b'"annotations"', b'"categories"')):
            return None
        names: list[str] = []
        place = content.find(b'"file_name"')
        while place >= 0 and len(names) < _SAMPLES:
            literal = re.match(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', content[place : place + _PEEKED_BYTES])
            names += [_json_text(literal[1])] if literal else []
            place = content.find(b'"file_name"', place + 1)
        return names


def _json_text(literal: bytes) -> str:
    try:
        return str(json.loads(literal))
    except ValueError:
        return ""


def _coco_split(path: Path, folder: Path) -> str:
    """instances_train2017.json is train2017, train/_annotations.coco.json is train, annotations.json is all."""
    words = r"(instances|annotations?|coco|labels?|results?)"
    name = re.sub(rf"^({words}[_.-])+|([_.-]{words})+$|^{words}$", "", path.stem, flags=re.IGNORECASE)
    if name:
        return name
    place = path.resolve().parent.name
    in_its_own_folder = place.lower() != "annotations" and (path.parent != folder or path.stem.startswith("_"))
    return place if in_its_own_folder else "all"


def _coco_images(path: Path, split: str, names: list[str], folder: Path) -> Path:
    """The expected folder that holds half of the first images or more; else the one with most of them."""
    beside = path.parent.parent if path.parent.name.lower() == "annotations" else path.parent
    bases = [beside] if path.parent == folder else list(dict.fromkeys([beside, path.parent, path.parent.parent]))
    likely = [base / inner for base in bases for inner in (split, Path("images", split), "images", "")]
    others = [child for base in bases for inner in ("", "images") for child in _subfolders(base / inner)]
    safe = [name for name in names if name and not unsafe_name(name)]
    counts = {place: _count_there(place, safe) for place in _existing([*likely, *others])}
    # Splits may use the same file names, and one lack a file that the other has.
    return next(
        (place for place, count in counts.items() if 2 * count > len(safe)),
        max(counts, key=lambda place: counts[place]),
    )


def _existing(places: Iterable[Path]) -> list[Path]:
    return [place for place in places if place.is_dir()]


def _count_there(folder: Path, names: list[str]) -> int:
    return sum(os.path.isfile(os.path.join(folder, name)) for name in names)


# YOLO


def _yolo_with_yaml(folder: Path) -> list[Source]:
    for path in _files(folder, ".yaml", ".yml"):
        content = _yaml_mapping(path)
        keys = [key for key in _ORDER if content.get(key)]
        if "names" in content and keys:
            places = {key: _place_of(path, content, key) for key in keys}
            return _yolo_splits(path, content, places)
    return []


def _yolo_splits(path: Path, content: dict[str, object], places: dict[str, Path | None]) -> list[Source]:
    names, sources = _class_names(path, content["names"]), []
    for key, place in places.items():
        if place is None:
            _log.warning("%s: %s: %s is not there; left out", one_line(path), key, quote(content[key]))
        elif place.is_file():
            roots = (place.parent, path.parent / str(content.get("path") or ""), path.parent)
            sources.append(Source("yolo", key, place, _root_of_list(place, roots), names))
        else:
            sources.append(Source("yolo", key, place, _labels_of(place), names))
    if not sources:
        raise DatasetError(f"{one_line(path)}: none of its folders ({', '.join(places)}) is there; correct path")
    return sources


def _place_of(path: Path, content: dict[str, object], key: str) -> Path | None:
    """The folder or list of a split."""
    value, root = content[key], content.get("path") or ""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or not isinstance(root, str):
        raise DatasetError(f"{one_line(path)}: {key} must be one folder or one list of files, got {quote(value)}")
    # Some tools write "../train/images" for what stands beside the YAML file.
    values = (value, value.removeprefix("../"))
    places = (os.path.join(path.parent, base, item) for base in (root, "") for item in values)
    return next((Path(place) for place in places if os.path.exists(place)), None)


def _yaml_mapping(path: Path) -> dict[str, object]:
    """What a YAML file says, if it is one; other programs leave all kinds of them."""
    try:
        if path.stat().st_size > _MAX_YAML_BYTES:
            return {}
        text = path.read_text(encoding="utf-8-sig")
        content = parse_yaml(text, one_line(path)).value if re.search(r"^names\s*:", text, re.MULTILINE) else None
    except (UnicodeDecodeError, OSError):
        return {}
    except DetectorError as error:
        raise DatasetError(str(error)) from None
    return content if isinstance(content, dict) else {}


def _class_names(path: Path, names: object) -> tuple[str, ...]:
    if isinstance(names, dict):
        if set(names) != {str(number) for number in range(len(names))}:
            raise DatasetError(f"{one_line(path)}: names must have the numbers 0 to {len(names) - 1}")
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DatasetError(f"{one_line(path)}: there must be a list of class names, got {quote(names)}")
    for number, name in enumerate(names):
        if isinstance(name, dict | list | None) or not str(name).strip():
            raise DatasetError(f"{one_line(path)}: the class {number} must have a name, got {quote(name)}")
    return tuple(str(name).strip() for name in names)


def _root_of_list(path: Path, places: Iterable[Path]) -> Path:
    """The folder that the files of a list are relative to."""
    lines = _peek(path).decode(errors="replace").splitlines()[:_SAMPLES]
    return max(_existing(places), key=lambda place: _count_there(place, [line.strip() for line in lines]))


def _labels_of(images: Path) -> Path:
    """images/train has labels/train, unless the text files are beside the images."""
    labels = text_file_of(images / "any.jpg").parent
    return images if not labels.is_dir() and files_below(images, (".txt",)) else labels


def _yolo_with_classes(folder: Path) -> list[Source]:
    images, labels = folder / "images", folder / "labels"
    lists = [path for path in (folder / "classes.txt", labels / "classes.txt") if path.is_file()]
    if not (images.is_dir() and labels.is_dir() and lists):
        return []
    names = _class_names(lists[0], _lines(lists[0]))
    splits = [] if _files(images, *SUFFIXES) else _subfolders(images)
    inner = [Source("yolo", split.name, split, labels / split.name, names) for split in splits]
    return inner or [Source("yolo", "all", images, labels, names)]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError):
        raise DatasetError(f"{one_line(path)}: is no list of class names") from None
