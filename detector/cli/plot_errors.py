"""Draw training and test errors of several classifiers in one figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.cli.entry import Parser, run
from detector.config.load import parse_config
from detector.config.schema import Config
from detector.errors import UsageError, one_line

if TYPE_CHECKING:
    from detector.visualization.error_curves import ErrorCurve

_DESCRIPTION = """\
Draw training error (dashed) and test error of several runs of pretrain.py over their iterations.
Plain, residual and pre-activation networks get a panel each, as in figure 6 of He et al. 2015."""

_EXAMPLE = """\
example:
  plot_errors.py runs/plain20 runs/plain56 runs/resnet20 runs/resnet56 --output errors.png"""

_PANELS = {"plain": "Plain networks", "residual": "Residual networks", "preactivation": "Pre-activation networks"}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(_plot, argv)


def _plot(argv: Sequence[str]) -> int:
    parser = Parser("plot_errors", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's folder")
    parser.add_argument("--output", metavar="FILE", required=True, help="the picture to write, a PNG")
    options = parser.parse_args(argv)

    from detector.visualization.error_curves import plot_error_curves

    panels: dict[str, list[ErrorCurve]] = {}
    for folder in map(Path, options.runs):
        config, curve = _read(folder)
        assert config.model.classifier is not None
        panels.setdefault(config.model.classifier.block, []).append(curve)
    ordered = {title: panels[block] for block, title in _PANELS.items() if block in panels}
    plot_error_curves(Path(options.output), ordered)
    for title, curves in ordered.items():
        for curve in curves:
            train, test = (100 * points[-1][1] for points in (curve.train, curve.test))
            print(f"{title}: {curve.name}: training error {train:.1f} %, test error {test:.1f} % at the end")
    print(f"written: {options.output}")
    return 0


def _read(folder: Path) -> tuple[Config, ErrorCurve]:
    """The settings and the errors of a run.

    Raises:
        UsageError: it is no run of a classifier, or has not been evaluated.
    """
    from detector.visualization.error_curves import ErrorCurve

    try:
        config = parse_config((folder / "config.yaml").read_text(encoding="utf-8"), str(folder / "config.yaml"))
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{one_line(folder)}: not a run's folder with config.yaml and metrics.jsonl ({error})"
        ) from None
    train = [(record["iteration"], record["error"]) for record in records if "error" in record]
    test = [(record["iteration"], 1 - record["classification"]["top1"]) for record in records if "headline" in record]
    if config.model.classifier is None or not train or not test:
        raise UsageError(f"{one_line(folder)}: not a run of pretrain.py that has been evaluated")
    classifier = config.model.classifier
    depths = {"cifar": classifier.depth, "resnet": config.model.backbone.depth}
    depth = depths.get(classifier.network)
    return config, ErrorCurve(classifier.network if depth is None else f"{depth} layers", train, test)
