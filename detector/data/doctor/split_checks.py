"""What can be amiss between the splits of a data set, and with files that none of them names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from detector.data.findings import Finding
from detector.data.images import SUFFIXES
from detector.data.raw.structure import RawSet
from detector.errors import quote


def check_splits(raws: Sequence[RawSet]) -> list[Finding]:
    """Files that are in two splits or in none.

    Args:
        raws: the splits; the first is the one to train on.
    """
    paths = [paths_of(raw) for raw in raws]
    return [*_shared_findings(raws, paths), *_unlisted_annotations(raws), *_unlisted_images(raws, paths)]


def paths_of(raw: RawSet) -> dict[str, int]:
    """The image of each file, but for unsafe names."""
    folder = os.path.realpath(raw.folder)
    unsafe = raw.unsafe_images()
    paths: dict[str, int] = {}
    for image, name in enumerate(raw.file_names):
        if image not in unsafe:
            paths.setdefault(os.path.normpath(os.path.join(folder, name)), image)
    return paths


def _shared_findings(raws: Sequence[RawSet], paths: Sequence[dict[str, int]]) -> Iterator[Finding]:
    summaries = {number for number in range(len(raws)) if is_summary(number, raws, paths)}
    single = [number for number in range(len(raws)) if number not in summaries]
    for place, first in enumerate(single):
        for second in single[place + 1 :]:
            for image in (image for path, image in paths[first].items() if path in paths[second]):
                what = f"the image is in {quote(raws[first].split)} and in {quote(raws[second].split)}"
                yield raws[first].about_image("image-in-two-splits", image, what)


def is_summary(number: int, raws: Sequence[RawSet], paths: Sequence[dict[str, int]]) -> bool:
    """Whether a split is others taken together, and perhaps more, as VOC's trainval is train and val."""
    parts = [set(paths[part]) for part in parts_of(number, raws)]
    return len(parts) > 1 and set().union(*parts) <= paths[number].keys()


def parts_of(number: int, raws: Sequence[RawSet]) -> list[int]:
    """The splits whose names stand within that of another: train and val for trainval, of the same data set."""
    name, _, home = raws[number].split.partition("-")
    names = [raw.split.partition("-") for raw in raws]
    return [other for other, (part, _, place) in enumerate(names) if place == home and part != name and part in name]


def _unlisted_annotations(raws: Sequence[RawSet]) -> Iterator[Finding]:
    """XML files that stand in VOC's Annotations, but in none of its lists."""
    for root, members in _by_root(raws).items():
        listed = _listed(root) | {Path(file).stem for raw in members for file in raw.annotation_files}
        folder = root / "Annotations"
        for name in _files(folder):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() == ".xml" and stem not in listed:
                what = "no list in ImageSets names this annotation"
                yield Finding("split-incomplete", members[0].split, str(folder / name), "", what)


def _by_root(raws: Sequence[RawSet]) -> dict[Path, list[RawSet]]:
    """VOC data sets that have lists."""
    roots: dict[Path, list[RawSet]] = {}
    for raw in raws:
        if raw.format == "voc" and (raw.source / "ImageSets").is_dir():
            roots.setdefault(raw.source, []).append(raw)
    return roots


def _listed(root: Path) -> set[str]:
    """All names in the lists of a VOC data set: those for segmentation, say, count as well as Main's."""
    names: set[str] = set()
    for path in sorted((root / "ImageSets").glob("*/*.txt")):
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            names.update(line.split()[0] for line in lines if line.strip())
    return names


def _unlisted_images(raws: Sequence[RawSet], paths: Sequence[dict[str, int]]) -> Iterator[Finding]:
    named = {path for part in paths for path in part}
    splits: dict[str, str] = {}
    for raw, part in zip(raws, paths, strict=True):
        for folder in {os.path.realpath(raw.folder), *(os.path.dirname(path) for path in part)}:
            splits.setdefault(folder, raw.split)
    # An image with an annotation that no list names is told of as that.
    known = {
        os.path.realpath(root / "JPEGImages"): _listed(root)
        | {Path(name).stem for name in _files(root / "Annotations")}
        for root in _by_root(raws)
    }
    for folder, split in sorted(splits.items()):
        images = [name for name in _files(folder) if name.lower().endswith(SUFFIXES)]
        loose = [name for name in images if os.path.join(folder, name) not in named]
        loose = [name for name in loose if Path(name).stem not in known.get(folder, ())]
        if loose:
            more = ", ..." if len(loose) > 3 else ""
            what = f"{len(loose)} of {len(images)} image files: {', '.join(quote(name) for name in loose[:3])}{more}"
            yield Finding("image-unlisted", split, folder, "", what)


def _files(folder: str | Path) -> list[str]:
    """The files of a folder, without hidden ones and sorted; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
    except OSError:
        return []
