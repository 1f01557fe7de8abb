"""Convert a data set between COCO, VOC and YOLO."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.cli.entry import Parser, run
from detector.errors import UsageError

if TYPE_CHECKING:
    from detector.data.raw.structure import Source

_log = logging.getLogger(__name__)

_DESCRIPTION = """\
Write a data set in COCO's, VOC's or YOLO's format; the format it has is recognised. All splits get one list of
classes. Images keep their bytes. What the new format has no place for is counted; conversion.json keeps the account.
Nothing in the source is changed, and nothing is written if the source has faults."""

_EXAMPLE = """\
examples:
  convert_dataset.py datasets/blood --to coco --output datasets/blood_coco
  convert_dataset.py datasets/coco --to yolo --output datasets/coco_yolo --link
  convert_dataset.py --config configs/mine.yaml --to voc --output datasets/mine_voc"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(_convert, argv)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("convert_dataset", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="the data set")
    parser.add_argument("--config", metavar="CONFIG", help="in place of FOLDER: the data.train and data.val of this")
    parser.add_argument("--to", choices=("coco", "voc", "yolo"), required=True, help="the format to write")
    parser.add_argument("--output", metavar="DIR", required=True, help="a new or empty folder")
    parser.add_argument(
        "--link", action="store_true",
        help="link the images instead of copying them; programs that mend images then mend the originals",
    )  # fmt: skip
    return parser.parse_intermixed_args(argv)


def _convert(argv: Sequence[str]) -> int:
    options = _parse(argv)
    if bool(options.folder) == bool(options.config):
        raise UsageError("give either FOLDER or --config")
    output = Path(options.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output}: is there and not empty; choose another --output")
    if options.folder and Path(options.folder).resolve() in [output.resolve(), *output.resolve().parents]:
        raise UsageError(f"{output}: lies in the data set itself; choose another --output")

    from detector.data.raw.convert import convert, format_conversion
    from detector.data.raw.recognise import read_raw, recognise

    sources = recognise(Path(options.folder)) if options.folder else _configured(options.config)
    account = convert([read_raw(source) for source in sources], options.to, output, options.link)
    print(format_conversion(account))
    _log.info("written: %s", output)
    return 0


def _configured(path: str) -> list[Source]:
    """The sets of data.train and data.val, those of a split under one name."""
    from detector.config.load import load_config
    from detector.data.raw.configured import configured_sources

    sources = configured_sources(load_config(path))
    if not sources:
        raise UsageError(f"{path}: data.train and data.val list no files (make_shapes.py writes the drawn shapes)")
    return [replace(source, split=source.split.split()[0]) for source in sources]
