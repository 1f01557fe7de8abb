"""Measure speed, memory and work."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.cli.entry import Parser, run
from detector.errors import MachineError, UsageError

if TYPE_CHECKING:
    import torch

    from detector.engine.benchmark.machine import Peak
    from detector.engine.benchmark.workload import Work

_log = logging.getLogger(__name__)

_DESCRIPTION = """\
Measure a configuration's network, part by part: time, images a second, peak memory, floating-point operations, and
how near they come to the most that this machine reaches (which is measured first). All ways take turns, so that
whatever else the machine does meets them alike: trust the ratios, and CPU time more than time on the wall.
Writes benchmark.json, or with --scaling scaling.json and a plot for each curve; prints tables."""

_EXAMPLE = """\
examples:
  benchmark.py configs/coco/faster_rcnn_r101_c4_3x.yaml --proposals 300 --against plain torchvision
  benchmark.py configs/coco/faster_rcnn_r50_c4_1x.yaml --mode training --precision bf16 --batch 2
  benchmark.py configs/mine.yaml --mode data --against torchvision detectron2
  benchmark.py configs/quickstart.yaml model.backbone.depth=50 --scaling side proposals=100,1000 --precision fp32

how to read it:
  CPU ms/thread  CPU time of all threads / their number: what the time would be on a machine with nothing else to do
  GFLOP          of convolutions and matrix products, as this way computes them (two for a multiplication and addition)
  of peak        GFLOP/s by that CPU time, as part of what the best matrix product or convolution reaches
  6.02 (5.9 .. 6.1)  median of the rounds and its quartiles"""

_MODES = ("inference", "training", "data", "all")
_AXES = ("side", "proposals", "batch", "classes", "objects")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(_benchmark, argv)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("benchmark", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("config", metavar="CONFIG", help="a YAML file")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="settings, such as model.backbone.depth=50")
    parser.add_argument("--mode", choices=_MODES, help="what is measured (inference; with --scaling only the curves)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), nargs="+", default=["fp32", "bf16"], help="fp32 bf16")
    parser.add_argument("--image-size", metavar="HEIGHTxWIDTH", type=_size, default=(800, 1088), help="800x1088")
    parser.add_argument("--batch", metavar="N", type=_count, default=1, help="images at once (1)")
    parser.add_argument(
        "--proposals", metavar="N", type=_count, help="an image; regions sampled in training (the configuration's)"
    )
    parser.add_argument("--classes", metavar="K", type=_count, help="the configuration's, else 80 for COCO, 20 for VOC")
    parser.add_argument("--objects", metavar="N", type=_count, default=8, help="in an image, for training (8)")
    parser.add_argument("--runs", metavar="N", type=_count, default=5, help="timed runs of each way (5)")
    parser.add_argument("--threads", metavar="N", type=_count, help="of the CPU (torch's choice)")
    parser.add_argument(
        "--against", choices=("plain", "torchvision", "detectron2"), nargs="+", action="extend",
        default=[],
        help="plain: this network as the paper defines it; torchvision: its FasterRCNN around the same layers; "
        "with --mode data: the loading of torchvision's and detectron2's training",
    )  # fmt: skip
    parser.add_argument("--weights", metavar="FILE", help="instead of random weights")
    parser.add_argument(
        "--scaling", metavar="NAME[=N,N,...]", type=_axis, nargs="*",
        help=f"time over {', '.join(_AXES[:-1])} or {_AXES[-1]}; none named: all",
    )  # fmt: skip
    parser.add_argument("--output", metavar="DIR", default="runs/benchmark", help="overwritten (runs/benchmark)")
    options = parser.parse_intermixed_args(argv)
    if options.weights and "classes" in dict(options.scaling or ()):
        raise UsageError("--scaling classes needs random weights: the file holds its number of classes")
    if options.weights and options.classes:
        raise UsageError("--classes and --weights exclude each other: the file holds its number of classes")
    options.mode = options.mode or ("inference" if options.scaling is None else None)
    options.scaling = dict.fromkeys(_AXES, ()) if options.scaling == [] else dict(options.scaling or ())
    options.precision = tuple(dict.fromkeys(options.precision))
    return options


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None or not all(32 <= int(side) <= 16384 for side in found.groups()):
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH in pixels, 32..16384 each, got {text!a}")
    return int(found[1]), int(found[2])


def _axis(text: str) -> tuple[str, tuple[int, ...]]:
    name, given, values = text.partition("=")
    if name not in _AXES:
        raise argparse.ArgumentTypeError(f"must be of {', '.join(_AXES)}, such as side or side=400,800; got {text!a}")
    chosen = tuple(sorted({_count(value) for value in values.split(",")})) if given else ()
    if len(chosen) == 1:
        raise argparse.ArgumentTypeError(f"a curve needs two different values or more, got {text!a}")
    if name == "side" and chosen and not 32 <= chosen[0] <= chosen[-1] <= 16384:
        raise argparse.ArgumentTypeError(f"sides must be 32..16384 pixels, got {text!a}")
    return name, chosen


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,6}", text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 9999999, got {text!a}")
    return int(text)


def _benchmark(argv: Sequence[str]) -> int:
    options = _parse(argv)
    if "torch" not in sys.modules:
        # Threads that wait for work would else spin, and their CPU time would count as work.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from detector.config.load import load_config, of_a_detector
    from detector.engine.benchmark.machine import describe_machine, measure_peak
    from detector.engine.benchmark.report import format_machine, machine_json
    from detector.engine.device import select_device

    config = of_a_detector(load_config(options.config, options.overrides))
    _check(options, config)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = select_device(config.device)
    work = _work(options, config)
    output = _folder(Path(options.output))
    _log.info("measuring the peak of this machine")
    peaks = {precision: measure_peak(precision, device) for precision in options.precision}
    machine = describe_machine(device)
    print(format_machine(machine, peaks))
    known = {"config": options.config, "overrides": options.overrides, "machine": machine_json(machine, peaks)}
    if options.mode:
        _write(output / "benchmark.json", {**known, **_compare(options, work, peaks, device)})
    if options.scaling:
        _write(output / "scaling.json", {**known, "curves": _curves(options, work, device, output)})
    return 0


def _check(options: argparse.Namespace, config: Any) -> None:
    if "detectron2" in options.against and options.mode not in ("data", "all"):
        raise UsageError("--against detectron2 compares the loading of images alone; add --mode data")
    evaluation = config.evaluation
    if "torchvision" in options.against and (evaluation.box_refinement or evaluation.box_voting):
        raise UsageError(
            "--against torchvision: it has neither evaluation.box_refinement nor evaluation.box_voting; "
            "set them to false"
        )
    if "torchvision" in options.against and any(side % 32 for side in options.image_size):
        _log.warning("torchvision pads images to multiples of 32: it computes more than the other ways here")


def _work(options: argparse.Namespace, config: Any) -> Work:
    from detector.engine.benchmark.workload import Work, class_count
    from detector.engine.setup import load_model
    from detector.structures import Size

    classes = options.classes or class_count(config)
    if options.weights:
        classes = len(load_model(options.weights, config).info.class_names)
    work = Work(config, options.weights, classes, Size(*options.image_size), options.batch, options.objects)
    return work.with_proposals(options.proposals) if options.proposals else work


def _folder(path: Path) -> Path:
    from detector.durable import make_folders

    try:
        make_folders(path)
    except OSError as error:
        raise MachineError(f"{path}: cannot be made ({error.strerror}); choose another --output") from None
    return path


def _compare(options: argparse.Namespace, work: Work, peaks: dict[str, Peak], device: torch.device) -> dict[str, Any]:
    from detector.engine.benchmark.loading import measure_loading
    from detector.engine.benchmark.measure import measure
    from detector.engine.benchmark.report import comparison_json, format_comparison, format_loading, loading_json
    from detector.engine.benchmark.variants import variants

    modes = {"all": ("inference", "training"), "data": ("training",)}.get(options.mode, (options.mode,))
    networks = [name for name in options.against if name in ("plain", "torchvision") and options.mode != "data"]
    loaders = [name for name in options.against if name != "plain"]
    with_data = options.mode in ("data", "all")
    loading = measure_loading(work.config, work.batch, options.runs, loaders) if with_data else []
    comparisons = []
    for mode in modes:
        chosen = variants([mode], options.precision, networks)
        comparisons.append(measure(work, chosen, peaks, options.runs, device))
        print("\n" + format_comparison(work, comparisons[-1]))
    if loading:
        print("\n" + format_loading(loading, comparisons[-1].results[0], work.batch))
    return {
        "comparisons": [comparison_json(work, comparison) for comparison in comparisons],
        "data": loading_json(loading),
    }


def _curves(options: argparse.Namespace, work: Work, device: torch.device, output: Path) -> list[dict[str, Any]]:
    from detector.engine.benchmark.scaling import draw_curve, format_curve, measure_curve

    curves = []
    for name, values in options.scaling.items():
        curve = measure_curve(work, name, options.precision[0], options.runs, device, values)
        print("\n" + format_curve(curve))
        draw_curve(curve, output / f"scaling_{name}.png")
        curves.append(curve.json())
    return curves


def _write(path: Path, values: dict[str, Any]) -> None:
    from detector.durable import replace_file

    replace_file(path, json.dumps(values, indent=1))
    _log.info("written: %s", path)
