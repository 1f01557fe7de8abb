"""Split a data set into training and validation, or into folds."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detector.cli.entry import Parser, run
from detector.errors import DatasetError, UsageError, one_line, quote

if TYPE_CHECKING:
    import numpy as np

    from detector.data.raw.structure import Source
    from detector.data.raw.write_splits import Pool

_log = logging.getLogger(__name__)
_NAMES = {2: ("train", "val"), 3: ("train", "val", "test")}

_DESCRIPTION = """\
Split a data set anew. Images that are nearly the same come into one split, and each split gets its share of every
class. All splits that are there are joined first. Nothing is copied and nothing in the data set is changed: COCO gets
new JSON files; VOC gets new lists beside links to its annotations and images."""

_EXAMPLE = """\
examples:
  split_dataset.py datasets/blood --fractions 0.8 0.2 --output datasets/blood_split
  split_dataset.py datasets/birds/annotations/all.json --fractions 0.7 0.1 0.2 --names train val test --output birds
  split_dataset.py --config configs/mine.yaml --folds 5 --seed 1 --output datasets/mine_folds"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(_split, argv)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("split_dataset", _DESCRIPTION, _EXAMPLE)
    parser.add_argument(
        "source", metavar="FOLDER_OR_JSON", nargs="?", help="the data set, or one file of COCO's format"
    )
    parser.add_argument("--config", metavar="CONFIG", help="in place of that: the data.train and data.val of this")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--fractions", metavar="F", type=float, nargs="+", help="parts of the images, such as 0.8 0.2")
    how.add_argument("--folds", metavar="K", type=int, help="K pairs of train and val; each image is in one val")
    parser.add_argument("--names", metavar="NAME", nargs="+", help="of the parts (train val, or train val test)")
    parser.add_argument("--seed", type=int, default=0, help="others give other splits (0)")
    parser.add_argument("--output", metavar="DIR", required=True, help="a new or empty folder")
    options = parser.parse_intermixed_args(argv)
    if bool(options.source) == bool(options.config):
        parser.error("give either FOLDER_OR_JSON or --config")
    if options.folds is not None and options.names:
        parser.error("--names is for --fractions; folds are fold_1/train, fold_1/val and so on")
    if options.folds is not None and not 2 <= options.folds <= 100:
        parser.error("--folds must be 2..100")
    return options


def _parts(options: argparse.Namespace) -> dict[str, float]:
    """The share of each part by name."""
    if options.folds is not None:
        return {f"fold_{number}": 1 / options.folds for number in range(1, options.folds + 1)}
    fractions = options.fractions
    if len(fractions) < 2 or not all(0 < share < 1 for share in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise UsageError("--fractions must be two or more parts that sum to 1, such as 0.8 0.2")
    names = options.names or _NAMES.get(len(fractions), ())
    if len(names) != len(fractions) or len({name.casefold() for name in names}) != len(names):
        raise UsageError(f"--names must be {len(fractions)} different names, one for each of --fractions")
    for name in names:
        if not re.fullmatch(r"\w[\w-]*", name, re.ASCII):
            raise UsageError(f"--names: {quote(name)} must be letters, digits, - and _")
    return dict(zip(names, fractions, strict=True))


def _split(argv: Sequence[str]) -> int:
    options = _parse(argv)
    parts, output = _parts(options), Path(options.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output}: is there and not empty; choose another --output")

    from detector.data.raw.recognise import read_raw
    from detector.data.raw.splitting import split_groups
    from detector.data.raw.write_splits import join_splits, write_splits

    sources = _configured(options.config) if options.config else _recognised(Path(options.source), output)
    pool = join_splits([read_raw(source) for source in sources])
    groups = _groups(pool)
    part_of = split_groups(groups, pool.objects, pool.names, list(parts.values()), options.seed)
    if empty := [name for number, name in enumerate(parts) if number not in part_of]:
        raise DatasetError(
            f"{options.source or options.config}: {len(part_of)} images in {len(set(groups.tolist()))} groups of alike "
            f"ones leave none for {empty[0]}; make fewer or larger parts"
        )
    print(_table(pool, part_of, parts))
    for line in _missing(pool, part_of, groups, list(parts)):
        _log.warning("%s", line)
    splits = _splits(part_of, list(parts), folds=options.folds is not None)
    print(_what_next(write_splits(pool, splits, output), options.folds is not None))
    return 0


def _splits(part_of: np.ndarray, names: Sequence[str], folds: bool) -> dict[str, np.ndarray]:
    """Indices of images; each fold has a train and a val."""
    import numpy as np

    splits: dict[str, np.ndarray] = {}
    for number, name in enumerate(names):
        if folds:
            splits[f"{name}/train"] = np.flatnonzero(part_of != number)
        splits[f"{name}/val" if folds else name] = np.flatnonzero(part_of == number)
    return splits


def _recognised(path: Path, output: Path) -> list[Source]:
    from detector.data.raw.recognise import recognise

    folder = path.parent if path.is_file() else path
    if folder.resolve() in [output.resolve(), *output.resolve().parents]:
        raise UsageError(f"{output}: lies in the data set itself; choose another --output")
    sources = recognise(folder)
    if not path.is_file():
        return sources
    chosen = [source for source in sources if source.annotations.is_file() and source.annotations.samefile(path)]
    if not chosen:
        raise DatasetError(f"{one_line(path)}: is no data set that is recognised; name a COCO file or a folder")
    return chosen


def _configured(path: str) -> list[Source]:
    from detector.config.load import load_config
    from detector.data.raw.configured import configured_sources

    sources = configured_sources(load_config(path))
    if not sources:
        raise UsageError(f"{path}: data.train and data.val name no files; drawn shapes need no splitting")
    return sources


def _groups(pool: Pool) -> np.ndarray:
    """``(N,)``: the group of each image; images that are alike share it."""
    import numpy as np

    from detector.data.doctor.image_checks import inspect_images
    from detector.data.doctor.likeness import find_alike, groups
    from detector.data.images import MAX_PIXELS

    workers = min(8, os.cpu_count() or 1) if len(pool.places) > 500 else 0
    looks = [inspect_images(raw, MAX_PIXELS, workers, progress=True) for raw in pool.raws]
    unreadable = sum(not looks[number].readable[image] for number, image in pool.places)
    if unreadable:
        _log.warning(
            "%s that cannot be read are taken as they are; check_dataset.py names them", _count(unreadable, "image")
        )
    pairs = find_alike(
        np.stack([looks[number].thumbnails[image] for number, image in pool.places]),
        [looks[number].digests[image] for number, image in pool.places],
    )
    found = groups(pairs, len(pool.places))
    sizes = np.bincount(found)
    if pairs:
        together = _count(int((sizes > 1).sum()), "group")
        _log.info("%d images are the same or nearly the same as others, in %s", sizes[sizes > 1].sum(), together)
    return found


def _table(pool: Pool, part_of: np.ndarray, parts: Mapping[str, float]) -> str:
    """What each part has of the images, the objects and each class, with the deviation from its share in points.

    Classes without objects are left out.
    """
    import numpy as np

    images = np.ones((len(part_of), 1), dtype=np.int64)
    counts = np.hstack([images, pool.objects.sum(axis=1, keepdims=True), pool.objects])
    rows = [["", "all", *(f"{one_line(name, 20)} ({share:.4g})" for name, share in parts.items())]]
    labels = ["images", "objects", *(f"  {one_line(name, 30)}" for name in pool.class_names)]
    for label, column in zip(labels, counts.T, strict=True):
        total, row = int(column.sum()), [label, str(column.sum())]
        for number, share in enumerate(parts.values()):
            count = int(column[part_of == number].sum())
            row.append(f"{count} {100 * (count / max(total, 1) - share):+5.1f}%")
        if total:
            rows.append(row)
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def _missing(pool: Pool, part_of: np.ndarray, groups: np.ndarray, names: Sequence[str]) -> list[str]:
    """A line for each class that is not in all parts."""
    import numpy as np

    lines = []
    for label, class_name in enumerate(pool.class_names):
        images = np.flatnonzero(pool.objects[:, label])
        without = sorted(set(range(len(names))) - set(part_of[images].tolist()))
        if not len(images) or not without:
            continue
        together = len(np.unique(groups[images]))
        why = f"it is in {_count(len(images), 'image')}"
        if together < len(images):
            why += f", of which near-duplicates make {_count(together, 'group')}"
        lines.append(f"{one_line(class_name, 60)}: not in {', '.join(names[number] for number in without)}; {why}")
    return lines


def _what_next(written: Mapping[str, str], folds: bool) -> str:
    """The settings to paste: training on the first part, or on each fold's, and evaluation on the others."""
    lines = []
    names = list(written)
    pairs = [(names[place], names[place + 1]) for place in range(0, len(names), 2)] if folds else [(names[0], names[1])]
    for train, val in pairs:
        lines += [
            f"train on {train}, evaluate on {val}:",
            f"  {_setting('train', written[train])} {_setting('val', written[val])}",
        ]
    for name in [] if folds else names[2:]:
        lines += [f"evaluate on {name}:", f"  {_setting('val', written[name])}"]
    return "\n" + "\n".join(lines)


def _setting(split: str, sets: str) -> str:
    return shlex.quote(f"data.{split}={sets}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
