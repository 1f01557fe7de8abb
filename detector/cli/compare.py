"""Compare two runs: is one really better."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detector.cli.entry import Parser, run
from detector.errors import UsageError

if TYPE_CHECKING:
    from detector.structures import Annotations

_log = logging.getLogger(__name__)

_DESCRIPTION = """\
Compare the detections of two runs on the same images: is B better than A, or would other images turn it round?
Draws the images with replacement a thousand times (paired bootstrap) and gives the 95 % interval of the difference."""

_EXAMPLE = """\
examples:
  compare.py runs/baseline runs/mine
  compare.py a.json b.json --ground-truth instances_val2017.json --output difference.json"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(_compare, argv)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("compare", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("a", metavar="RUN_A", help="a run's folder, its evaluation folder, or COCO results")
    parser.add_argument("b", metavar="RUN_B", help="the same of the other")
    parser.add_argument("--ground-truth", metavar="JSON", help="COCO annotations (default: data.val of RUN_A)")
    parser.add_argument("--samples", type=int, default=1000, help="draws of images (1000)")
    parser.add_argument("--output", metavar="JSON", help="write the numbers there, too")
    options = parser.parse_args(argv)
    if not 100 <= options.samples <= 100_000:
        parser.error("--samples must be 100..100000")
    return options


def _compare(argv: Sequence[str]) -> int:
    options = _parse(argv)
    from detector.durable import replace_file
    from detector.evaluation.comparison import compare, format_comparison
    from detector.evaluation.results_file import read_results

    truth = _ground_truth(options)
    if not options.ground_truth:
        for place in (options.a, options.b):
            _check_images(place, truth)
    a, b = (read_results(_detections(place), truth) for place in (options.a, options.b))
    result = compare(truth, a, b, options.samples)
    print(format_comparison(result, options.a, options.b))
    if options.output:
        replace_file(Path(options.output), json.dumps({"a": options.a, "b": options.b, **result}, indent=1))
    return 0


def _detections(place: str) -> Path:
    path = Path(place)
    if path.is_file():
        return path
    for found in (path / "evaluation" / "detections.json", path / "detections.json"):
        if found.is_file():
            return found
    raise UsageError(f"{place}: no detections.json there; evaluate the run first (evaluate.py), or name a results file")


def _check_images(place: str, truth: Annotations) -> None:
    """A run may have been evaluated on other images since, such as --split train."""
    from detector.strict_json import read_json

    analysis = _detections(place).parent / "analysis.json"
    told = read_json(analysis) if analysis.is_file() else None
    data = told.get("data") if isinstance(told, dict) else None
    fingerprint = data.get("fingerprint") if isinstance(data, dict) else None
    if fingerprint is not None and fingerprint != truth.fingerprint():
        raise UsageError(
            f"{place}: was last evaluated on other images, annotations or classes than data.val of the first; "
            "evaluate it on them again"
        )


def _ground_truth(options: argparse.Namespace) -> Annotations:
    from detector.config.load import load_config, of_a_detector
    from detector.data.build import open_split
    from detector.data.coco import read_coco_annotations

    if options.ground_truth:
        return read_coco_annotations(options.ground_truth)
    configs = []
    for place in (options.a, options.b):
        found = [folder / "config.yaml" for folder in (Path(place), Path(place).parent)]
        existing = [path for path in found if path.is_file()]
        if not existing:
            raise UsageError(f"{place}: no config.yaml there, so its data set is unknown; give --ground-truth")
        configs.append(of_a_detector(load_config(existing[0])))
    if configs[0].data.val != configs[1].data.val:
        raise UsageError(
            "the two runs were evaluated on different data (data.val); only the same images can be compared"
        )
    classes = configs[0].data.class_names or open_split(configs[0], "train").annotations.class_names
    return open_split(configs[0], "val", classes).annotations
