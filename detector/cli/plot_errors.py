"""Draw training and test errors of several classifiers in one figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.cli.entry import Parser, run
from detector.config.load import parse_config
from detector.errors import UsageError, one_line, printable, quote

if TYPE_CHECKING:
    from detector.visualization.error_curves import ErrorCurve

_DESCRIPTION = """\
Draw training error (dashed) and test error of several runs of pretrain.py over their iterations.
Plain, residual and pre-activation networks get a panel each, as in figure 6 of He et al. 2015."""

_EXAMPLE = """\
example:
  plot_errors.py runs/plain20 runs/plain56 runs/resnet20 runs/resnet56 --output errors.png"""

_PANELS = {"plain": "Plain networks", "residual": "Residual networks", "preactivation": "Pre-activation networks"}
_OTHERS = "Other networks"
_TITLES = (*_PANELS.values(), _OTHERS)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(_plot, argv)


def _plot(argv: Sequence[str]) -> int:
    parser = Parser("plot_errors", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's folder")
    parser.add_argument("--output", metavar="FILE", required=True, help="the picture to write, a PNG")
    options = parser.parse_args(argv)
    if not options.output.lower().endswith(".png"):
        raise UsageError(f"--output {quote(options.output)}: name a file that ends in .png")

    from detector.visualization.error_curves import plot_error_curves, smoothed

    panels: dict[str, list[ErrorCurve]] = {}
    # By the whole path, since "run" and "./a/../run" are one.
    folders = {folder.resolve(): folder for folder in map(Path, options.runs)}
    for place, folder in folders.items():
        title, curve = _read(folder)
        taken = [other.name for other in panels.get(title, [])]
        if curve.name in taken:  # two runs of one network
            curve = replace(curve, name=_name(place, folders))
        panels.setdefault(title, []).append(curve)
    ordered = {title: panels[title] for title in _TITLES if title in panels}
    plot_error_curves(Path(options.output), ordered)
    for title, curves in ordered.items():
        for curve in curves:
            train, test = (100 * points[-1][1] for points in (smoothed(curve.train), curve.test))
            print(f"{title}: {curve.name}: training error {train:.1f} %, test error {test:.1f} % at the end")
    print(f"written: {options.output}")
    return 0


def _name(folder: Path, folders: Iterable[Path]) -> str:
    """The end of a folder's path, as much of it as no other of the folders ends in; at most 40 letters."""
    others = [other.parts for other in folders if other != folder]
    ends = (folder.parts[-length:] for length in range(1, len(folder.parts) + 1))
    end = next((end for end in ends if all(other[-len(end) :] != end for other in others)), folder.parts)
    name = printable(str(Path(*end)))
    return name if len(name) <= 40 else "..." + name[-37:]


def _read(folder: Path) -> tuple[str, ErrorCurve]:
    """The panel and the errors of a run.

    Raises:
        UsageError: it is no run of a classifier, or has not been evaluated.
    """
    from detector.visualization.error_curves import ErrorCurve

    try:
        config = parse_config((folder / "config.yaml").read_text(encoding="utf-8"), str(folder / "config.yaml"))
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{one_line(folder)}: not a run's folder with config.yaml and metrics.jsonl ({error})"
        ) from None
    records = list(_records(lines))
    train = [(record["iteration"], record["error"]) for record in records if "error" in record]
    top1 = [(record["iteration"], record.get("classification", {}).get("top1")) for record in records]
    test = [(iteration, 1 - value) for iteration, value in top1 if value is not None]
    classifier = config.model.classifier
    if classifier is None or not train or not test:
        raise UsageError(f"{one_line(folder)}: not a run of pretrain.py that has been evaluated")
    if not classifier.has_stages:
        return _OTHERS, ErrorCurve(classifier.network, train, test)
    return _PANELS[classifier.block], ErrorCurve(f"{config.model.classifier_depth} layers", train, test)


def _records(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What the log of a run holds; the last line may just be being written."""
    for line in lines:
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record
