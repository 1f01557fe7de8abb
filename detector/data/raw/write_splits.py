"""The images of a data set taken together, and lists of some of them that leave the data set itself as it is."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.findings import KINDS
from detector.data.raw.structure import RawSet
from detector.durable import make_folders, replace_file
from detector.errors import DatasetError, MachineError, one_line, quote
from detector.strict_json import read_json

_MAX_LINE = 390


@dataclass(frozen=True)
class Pool:
    """The images of all splits.

    Attributes:
        raws: the splits, without those that are others taken together.
        places: N times (index in ``raws``, image's index there); each file once.
        names: N different names, the same wherever the data set lies.
        class_names: K, sorted.
        objects: ``(N, K)`` int64: how many of each class an image has, without crowds.
        folder: the images' folder that ``names`` are relative to, in COCO.
    """

    raws: tuple[RawSet, ...]
    places: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    objects: np.ndarray
    folder: Path


def join_splits(raws: Sequence[RawSet]) -> Pool:
    """Takes the splits of a data set together.

    VOC's lists may overlap, such as train and trainval; a file that two COCO files list may have other objects in each.

    Raises:
        DatasetError: a split has faults that forbid it, is in a format that has no lists, or shares images with
            another.
    """
    _check(raws)
    # The largest first, so that trainval covers train and val.
    ordered = sorted(raws, key=lambda raw: (-len(raw), raw.split)) if raws[0].format == "voc" else list(raws)
    homes: dict[str, tuple[int, int]] = {}
    used: list[RawSet] = []
    for raw in ordered:
        known = len(homes)
        used.append(raw)
        for image, name in enumerate(raw.file_names):
            file = os.path.join(os.path.realpath(raw.folder), os.path.normpath(name))
            if homes.setdefault(file, (len(used) - 1, image)) != (len(used) - 1, image) and raw.format == "coco":
                raise _listed_twice(file, used[homes[file][0]], raw)
        if len(homes) == known:
            used.pop()
    common = os.path.commonpath([os.path.realpath(raw.folder) for raw in used])
    names = tuple(Path(os.path.relpath(file, common)).as_posix() for file in homes)
    classes = tuple(sorted({name for raw in used for name in raw.class_names}))
    places = tuple(homes.values())
    folder = Path(common) if len(used) > 1 else used[0].folder.absolute()
    return Pool(tuple(used), places, names, classes, _count_objects(used, places, classes), folder)


def _listed_twice(file: str, first: RawSet, second: RawSet) -> DatasetError:
    return DatasetError(
        f"{one_line(file)}: is listed in {one_line(first.source)} and in {one_line(second.source)}; "
        "name one of these files in place of the folder"
        if first is not second
        else f"{one_line(second.source)}: lists {one_line(file)} twice; check_dataset.py --fix takes one out"
    )


def _check(raws: Sequence[RawSet]) -> None:
    for raw in raws:
        if raw.format == "yolo" or (raw.format == "voc" and raw.folder.name != "JPEGImages"):
            raise DatasetError(
                f"{one_line(raw.source)}: this format has no lists of images to split; write it as COCO first: "
                f"convert_dataset.py FOLDER --to coco --output DIR"
            )
        errors = [finding for finding in raw.findings if KINDS[finding.kind].severity == "error"]
        if errors:
            more = f" (and {len(errors) - 1} more such faults)" if len(errors) > 1 else ""
            raise DatasetError(
                f"{one_line(errors[0], _MAX_LINE - 90)}{more}; check_dataset.py --fix writes a data set without them"
            )
    if len({raw.format for raw in raws}) > 1:
        raise DatasetError("the splits are in several formats; convert_dataset.py writes all in one")


def _count_objects(raws: Sequence[RawSet], places: Sequence[tuple[int, int]], classes: Sequence[str]) -> np.ndarray:
    column = {name: place for place, name in enumerate(classes)}
    counts = []
    for raw in raws:
        count = np.zeros((len(raw), len(classes)), dtype=np.int64)
        real = ~raw.crowd
        columns = np.array([column[name] for name in raw.class_names], dtype=np.int64)
        np.add.at(count, (raw.images[real], columns[raw.labels[real]]), 1)
        counts.append(count)
    return np.array([counts[number][image] for number, image in places]).reshape(len(places), len(classes))


def write_splits(pool: Pool, splits: Mapping[str, np.ndarray], output: Path) -> dict[str, str]:
    """Writes the lists into a new folder; images and annotations stay where they are.

    COCO gets a JSON file for each split, whose records are as they were. VOC gets folders whose annotations and images
    are links to the original, with lists of their own.

    Args:
        pool: the images.
        splits: indices of images by name; what stands before a "/" becomes a folder.
        output: the folder.

    Returns:
        For each split the data sets as a configuration has them.

    Raises:
        DatasetError: the files of several splits contradict each other.
        MachineError: a link cannot be made.
    """
    return _write_coco(pool, splits, output) if pool.raws[0].format == "coco" else _write_voc(pool, splits, output)


# COCO


def _write_coco(pool: Pool, splits: Mapping[str, np.ndarray], output: Path) -> dict[str, str]:
    content = _merge(pool)
    written = {}
    for split, images in splits.items():
        records = [content["images"][image] for image in images]
        ids = {record["id"] for record in records}
        annotations = [record for record in content["annotations"] if record["image_id"] in ids]
        path = output.absolute() / split
        path = path.with_name(f"instances_{path.name}.json")
        make_folders(path.parent)
        replace_file(path, json.dumps(content | {"images": records, "annotations": annotations}))
        written[split] = _as_setting([{"format": "coco", "images": str(pool.folder), "annotations": str(path)}])
    return written


def _merge(pool: Pool) -> dict[str, Any]:
    """One file's content: images as in the pool; ids that stand in two files get new numbers in the later one."""
    contents = [read_json(raw.source) for raw in pool.raws]
    merged: dict[str, Any] = {}
    for content in reversed(contents):
        merged |= content
    merged["categories"] = _categories(pool, contents)
    for key in ("images", "annotations"):
        merged[key] = []
    for content in contents:
        new = _new_ids(merged["images"], content["images"])
        merged["images"] += [_renumbered(record, "id", new) for record in content["images"]]
        records = [_renumbered(record, "image_id", new) for record in content["annotations"]]
        new = _new_ids(merged["annotations"], records)
        merged["annotations"] += [_renumbered(record, "id", new) for record in records]
    if len(contents) > 1:
        for record, name in zip(merged["images"], pool.names, strict=True):
            record["file_name"] = name
    return merged


def _categories(pool: Pool, contents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    categories: dict[Any, dict[str, Any]] = {}
    for raw, content in zip(pool.raws, contents, strict=True):
        for record in content["categories"]:
            known = categories.setdefault(record["id"], record)
            same_name = [other["id"] for other in categories.values() if other["name"] == record["name"]]
            if known["name"] != record["name"] or same_name != [record["id"]]:
                raise DatasetError(
                    f"{one_line(raw.source)}: the category {quote(record['name'])} (id {quote(record['id'])}) is "
                    f"another one in {one_line(pool.raws[0].source)}; convert_dataset.py gives all splits one list"
                )
    return list(categories.values())


def _new_ids(taken: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]) -> dict[Any, int]:
    """For the ids of records that are taken: one that is not."""
    own, others = ({record["id"] for record in items if "id" in record} for items in (records, taken))
    free = max((number for number in own | others if isinstance(number, int)), default=0) + 1
    return {clash: free + place for place, clash in enumerate(sorted(own & others, key=str))}


def _renumbered(record: dict[str, Any], key: str, new: Mapping[Any, int]) -> dict[str, Any]:
    return record | {key: new[record[key]]} if record.get(key) in new else record


# VOC


def _write_voc(pool: Pool, splits: Mapping[str, np.ndarray], output: Path) -> dict[str, str]:
    root_of = [raw.folder.absolute().parent for raw in pool.raws]
    roots = list(dict.fromkeys(root_of))
    targets = {root: output.absolute() / f"{number}-{root.name}" for number, root in enumerate(roots, start=1)}
    targets = targets if len(roots) > 1 else {roots[0]: output.absolute()}
    for root, target in targets.items():
        make_folders(target / "ImageSets" / "Main")
        for name in ("Annotations", "JPEGImages"):
            try:
                (target / name).symlink_to(root / name, target_is_directory=True)
            except OSError as error:
                raise MachineError(f"{target / name}: cannot be made a link ({error.strerror}); use COCO") from None
    written = {}
    for split, images in splits.items():
        name, sets = split.replace("/", "_"), []
        for root, target in targets.items():
            places = [pool.places[image] for image in images if root_of[pool.places[image][0]] == root]
            lines = [f"{pool.raws[number].image_ids[image]}\n" for number, image in places]
            if lines:
                replace_file(target / "ImageSets" / "Main" / f"{name}.txt", "".join(lines))
                sets.append({"format": "voc", "root": str(target), "split": name})
        written[split] = _as_setting(sets)
    return written


def _as_setting(sets: Sequence[Mapping[str, str]]) -> str:
    """A list of data sets in YAML on one line."""
    items = (
        ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in item.items()) for item in sets
    )
    return "[" + ", ".join(f"{{{item}}}" for item in items) + "]"
