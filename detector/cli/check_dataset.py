"""Look for faults in a data set."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detector.cli.entry import Parser, run
from detector.errors import UsageError, one_line

if TYPE_CHECKING:
    from detector.config.schema import Config
    from detector.data.raw.structure import Source
    from detector.engine.doctor import Diagnosis

_log = logging.getLogger(__name__)

_DESCRIPTION = """\
Look for everything that spoils a training: broken images, wrong boxes, duplicates, leaks between splits, odd classes,
and what the detector's anchors will miss. Prints what was found, each with file, record and remedy; writes report.html
with pictures, and findings.json. Exit code 0: nothing but notes, 1: findings, 2: cannot be read."""

_EXAMPLE = """\
examples:
  check_dataset.py configs/mine.yaml
  check_dataset.py datasets/blood                  (COCO, VOC or YOLO: recognised)
  check_dataset.py datasets/blood --fix datasets/blood_mended
  check_dataset.py --format coco --images train2017 --annotations instances_train2017.json --json
  check_dataset.py --format voc --images VOC2007 --annotations VOC2007/ImageSets/Main/trainval.txt"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(_check, argv)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("check_dataset", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("what", metavar="CONFIG|FOLDER", nargs="?", help="a configuration, or a folder with a data set")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="settings, such as data.classes='[cat, dog]'")
    parser.add_argument("--config", metavar="CONFIG", help="with a folder: take resize, anchors and limits from here")
    parser.add_argument("--format", choices=("coco", "voc", "yolo"), help="with --images; recognised if not given")
    parser.add_argument(
        "--images", metavar="DIR", help="instead of CONFIG or FOLDER; of VOC the folder above JPEGImages"
    )
    parser.add_argument("--annotations", metavar="PATH", help="JSON file (coco), list of names (voc), folder (yolo)")
    parser.add_argument("--classes", metavar="NAME", nargs="+", default=(), help="of --format yolo, in order")
    parser.add_argument("--output", metavar="DIR", help="for the report; default: runs/check-NAME")
    parser.add_argument("--fix", metavar="DIR", help="write a mended copy here, with a list of the changes")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--quick", action="store_true", help="leave the image files alone: seconds instead of minutes")
    parser.add_argument("--workers", metavar="N", type=int, help="processes that decode images (one a core)")
    return parser.parse_intermixed_args(argv)


def _check(argv: Sequence[str]) -> int:
    options = _parse(argv)
    if options.what and "=" in options.what and options.images:
        options.overrides, options.what = [options.what, *options.overrides], None
    if bool(options.what) == bool(options.images):
        raise UsageError("give either CONFIG or FOLDER, or --images with --annotations")
    if (options.format or options.annotations) and not options.images:
        raise UsageError("--format and --annotations belong to --images")
    if options.workers is not None and options.workers < 0:
        raise UsageError("--workers must be 0 or more")
    if options.what and options.what.endswith(".json"):
        raise UsageError(f"{one_line(options.what)}: annotations need their images: --images DIR --annotations FILE")
    if options.fix and options.what and _lies_in(Path(options.fix), Path(options.what)):
        raise UsageError(f"{one_line(options.fix)}: lies in the data set itself; choose another folder for --fix")
    if options.fix and options.quick:
        raise UsageError("--fix needs to look at the image files; leave --quick out")

    from detector.data.findings import has_faults
    from detector.data.raw.configured import configured_drawings
    from detector.engine.doctor import as_json, default_workers, diagnose, summarise, write_page

    sources, config, name = _sources(options)
    drawn = {} if options.images or Path(options.what).is_dir() else configured_drawings(config)
    if not sources and not drawn:
        raise UsageError(f"{options.what}: data.train and data.val list no data set")
    if options.fix and drawn:
        raise UsageError(f"{options.what}: shapes are drawn; --fix mends files alone")
    workers = default_workers() if options.workers is None else options.workers
    diagnosis = diagnose(sources, config, options.quick, workers, drawn)
    output = Path(options.output or f"runs/check-{name}")
    found = as_json(diagnosis)
    _write(output, found)
    write_page(diagnosis, config, name, output / "report.html")
    print(json.dumps(found, indent=1) if options.json else "\n".join(summarise(diagnosis, shown=5)))
    _log.info("written: %s/report.html, findings.json", output)
    if options.fix:
        _fix(diagnosis, Path(options.fix))
    return 1 if has_faults(diagnosis.findings) else 0


def _lies_in(inner: Path, outer: Path) -> bool:
    return outer.is_dir() and outer.resolve() in (inner.resolve(), *inner.resolve().parents)


def _sources(options: argparse.Namespace) -> tuple[list[Source], Config, str]:
    """What to look at, with which settings, and its name."""
    from detector.config.load import load_config, of_a_detector, parse_config
    from detector.data.raw.configured import configured_sources
    from detector.data.raw.recognise import recognise
    from detector.data.raw.structure import Format, Source

    folder = Path(options.images or options.what)
    is_config = options.what is not None and not folder.is_dir()
    path = options.what if is_config else options.config
    config = load_config(path, options.overrides) if path else parse_config("{}", "settings", options.overrides)
    of_a_detector(config)
    if not is_config and not options.annotations:
        found = recognise(folder)
        sources = [source for source in found if options.format in (None, source.format)]
        if not sources:
            raise UsageError(f"{folder}: looks like {found[0].format}, not like {options.format}")
        return sources, config, folder.resolve().name
    if not is_config:
        annotations = Path(options.annotations)
        if options.format is None and annotations.suffix != ".json":
            raise UsageError(f"{annotations}: say of which --format it is")
        kind: Format = options.format or "coco"
        return [Source(kind, annotations.stem, folder, annotations, tuple(options.classes))], config, annotations.stem
    return configured_sources(config), config, Path(options.what).stem


def _write(output: Path, found: dict[str, object]) -> None:
    from detector.durable import make_folders, replace_file

    make_folders(output)
    replace_file(output / "findings.json", json.dumps(found, indent=1))


def _fix(diagnosis: Diagnosis, folder: Path) -> None:
    from detector.data.doctor.mending.mend import mend

    changes = mend(diagnosis.sets, diagnosis.findings, diagnosis.sizes, folder, True)
    _log.info("written: %s, a mended copy; %d changes, listed in changes.txt", folder, len(changes))
