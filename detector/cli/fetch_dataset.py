"""Fetch a public data set into the layout that the configurations expect."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from detector.cli.entry import Parser, run
from detector.data.fetching.archives import PUBLIC_SETS, PublicSet

_DESCRIPTION = """\
Fetch COCO 2017 or PASCAL VOC 2007 + 2012 from where they are published, check the archives against published sha256
sums, and unpack them into the layout that configs/coco and configs/voc expect. A call that was interrupted is taken
up by the next; what is there is not fetched again. To download: coco2017 20.4 GB, voc0712 2.9 GB; on the disk at most
41 GB and 5.2 GB, in the end 21 GB and 3 GB."""

_EXAMPLE = """\
examples:
  fetch_dataset.py voc0712
  fetch_dataset.py coco2017 --root /data/sets
  HTTPS_PROXY=http://proxy:3128 fetch_dataset.py coco2017 --keep-archives

An archive that you have already may be put into DIR/archives first; it is then checked and unpacked, not fetched."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(fetch_and_check, argv)


def fetch_and_check(argv: Sequence[str], sets: Mapping[str, PublicSet] = PUBLIC_SETS) -> int:
    """What the command does, with what the data sets consist of as an argument."""
    parser = Parser("fetch_dataset", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("name", choices=tuple(sets), help="which data set")
    parser.add_argument(
        "--root", metavar="DIR", type=Path, help="the folder of all data sets ($DETECTOR_DATASETS, else datasets/)"
    )
    parser.add_argument("--keep-archives", action="store_true", help="leave them in DIR/archives once unpacked")
    options = parser.parse_intermixed_args(argv)
    root = options.root or _default_root()

    from detector.data.fetching.fetch import fetch

    fetch(sets[options.name], root, options.keep_archives)
    _tell(root, options.name)
    return 0


def _tell(root: Path, name: str) -> None:
    """What is there, and what a quick look at it finds."""
    from detector.config.schema import Config
    from detector.data.fetching.check import open_fetched
    from detector.engine.quick_check import quick_check

    print(f"{'split':<18} {'images':>8} {'objects':>8} {'classes':>8}")
    for split, dataset in open_fetched(root, name):
        found = dataset.annotations
        print(f"{split:<18} {len(dataset):>8} {len(found.labels):>8} {len(found.class_names):>8}")
        for line in quick_check(dataset, Config(), split):
            print(f"  {line}")


def _default_root() -> Path:
    """Where data paths of configurations are looked for first."""
    if root := os.environ.get("DETECTOR_DATASETS"):
        return Path(root)
    # Installed, the folder above this package is site-packages, where a "datasets" is somebody else's package.
    checkout = Path(__file__).resolve().parents[2]
    return (checkout if (checkout / "setup.cfg").is_file() else Path()) / "datasets"
