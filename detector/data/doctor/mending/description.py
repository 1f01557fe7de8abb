"""The file that describes a YOLO data set: data.yaml, or classes.txt."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from detector.config.yaml_tree import Dumper, parse_yaml
from detector.data.raw.recognise import recognise
from detector.data.raw.structure import RawSet, Source
from detector.errors import DatasetError, DetectorError, one_line

_LEVELS = 4  # it stands so many folders above the images at most
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Description:
    """What tells of a YOLO split.

    Attributes:
        folder: that of data.yaml or classes.txt.
        source: the split, as recognised from there.
    """

    folder: Path
    source: Source


def described_by(raw: RawSet) -> Description:
    """Finds the description of a split.

    Raises:
        DatasetError: there is none.
    """
    start = Path(os.path.commonpath([os.path.abspath(raw.folder), os.path.abspath(raw.source)]))
    for folder in (start, *start.parents)[:_LEVELS]:
        try:
            sources = recognise(folder)
        except DatasetError:
            continue
        for source in sources:
            if source.format == "yolo" and _is_of(source, raw):
                return Description(folder, source)
    raise DatasetError(f"{one_line(raw.folder)}: no data.yaml or classes.txt tells of these images")


def _is_of(source: Source, raw: RawSet) -> bool:
    folder = source.annotations if source.images.is_file() else source.images
    return os.path.realpath(folder) == os.path.realpath(raw.folder) and _key(source) == _key(raw)


def _key(split: Source | RawSet) -> str:
    return next((key for key in _SPLITS if split.split.startswith(key)), split.split)


def write_description(old: Path, new: Path, splits: dict[str, Path]) -> None:
    """Writes data.yaml without its "path" and with the new places, or copies classes.txt.

    Args:
        old: the folder of the description.
        new: its folder in the copy.
        splits: folder or list of each split in the copy.

    Raises:
        OSError: as the system reports it.
    """
    new.mkdir(parents=True, exist_ok=True)
    for path in sorted((*old.glob("*.yaml"), *old.glob("*.yml"))):
        content = _content(path)
        if "names" in content and any(content.get(key) for key in _SPLITS):
            content = {key: value for key, value in content.items() if key not in (*_SPLITS, "path")}
            if isinstance(content["names"], dict):
                content["names"] = {int(number): name for number, name in content["names"].items()}
            content |= {key: Path(os.path.relpath(place, new)).as_posix() for key, place in splits.items()}
            text = yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True)
            (new / path.name).write_text(text, encoding="utf-8")
            return
    for name in ("classes.txt", "labels/classes.txt"):
        if (old / name).is_file():
            (new / name).parent.mkdir(exist_ok=True)
            shutil.copy2(old / name, new / name)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(path.read_text(encoding="utf-8-sig"), one_line(path)).value
    except (DetectorError, OSError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}
