"""Look at what a network finds, or at a data set."""

from __future__ import annotations

import argparse
import glob
import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.cli.entry import Parser, run
from detector.durable import not_a_link, replace_file
from detector.errors import DatasetError, ImageError, UsageError, one_line, printable, quote

if TYPE_CHECKING:
    from detector.cli.drawing import Network

_log = logging.getLogger(__name__)

_VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")

_DESCRIPTION = """\
Draw what a detector finds, or the classes that a classifier tells, in images, folders, globs and videos; or, with
--config, look at a data set: its ground truth, its augmented samples, or ground truth beside what the network finds."""

_EXAMPLE = """\
examples:
  visualize.py runs/quickstart/model_best.safetensors photo.jpg holiday/ 'frames/*.png' --score-threshold 0.6
  visualize.py --config configs/quickstart.yaml --split train --augmented --output look
  visualize.py --config configs/quickstart.yaml --weights runs/quickstart/model_best.safetensors --output look"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(_visualize, argv)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("visualize", _DESCRIPTION, _EXAMPLE)
    parser.add_argument(
        "inputs", metavar="WEIGHTS INPUT", nargs="*",
        help="weights file, then images, folders, globs or videos; with --config: settings as key=value",
    )  # fmt: skip
    parser.add_argument("--output", metavar="DIR", help="default: visualize/ beside the weights")
    parser.add_argument("--score-threshold", metavar="T", type=float, help="default: what the weights store, else 0.5")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="bf16 is faster on a CPU or GPU that has it",
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the backbone: 10 to 15 s an image size, then a little faster"
    )
    parser.add_argument("--config", metavar="CONFIG", help="look at the data sets of this configuration")
    parser.add_argument("--split", choices=("train", "val"), default="val", help="data.train or data.val (val)")
    parser.add_argument("--count", metavar="N", type=int, default=16, help="images of the data set to draw (16)")
    parser.add_argument("--augmented", action="store_true", help="draw the images as training gets them")
    parser.add_argument("--weights", metavar="WEIGHTS", help="draw what this network finds, too")
    return parser.parse_intermixed_args(argv)


def _visualize(argv: Sequence[str]) -> int:
    options = _parse(argv)
    if options.score_threshold is not None and not 0 <= options.score_threshold <= 1:
        raise UsageError(f"--score-threshold must be in 0..1, got {options.score_threshold}")
    if options.config:
        return _draw_data_set(options)
    if options.augmented or options.weights:
        raise UsageError("--augmented and --weights belong to --config; name the weights file first, then the images")
    if len(options.inputs) < 2:
        raise UsageError("give a weights file and at least one image, folder, glob or video, or --config")
    return _draw_inputs(options.inputs[0], options.inputs[1:], options)


def _draw_inputs(weights: str, inputs: Sequence[str], options: argparse.Namespace) -> int:
    paths = [path for text in inputs for path in _expand(text)]
    network = _load(weights, options)
    output = Path(options.output) if options.output else Path(weights).parent / "visualize"
    records: list[dict[str, Any]] = []
    failed = 0
    names = _Names(output, {path.resolve() for path in paths})
    for path in paths:
        try:
            if path.suffix.lower() in _VIDEO_SUFFIXES:
                records += _draw_video(network, path, names.of(path, ".mp4"))
            else:
                records += _draw_image(network, path, names.of(path, ".jpg"))
        except ImageError as error:
            # One bad file does not cost the others.
            failed += 1
            print(f"error: {printable(str(error))}", file=sys.stderr)
    output.mkdir(parents=True, exist_ok=True)
    replace_file(output / f"{network.finds}.json", json.dumps(records, indent=1))
    print(f"{len(paths) - failed} of {len(paths)} files drawn, {len(records)} {network.finds}: {output}/")
    return 2 if failed else 0


def _load(weights: str, options: argparse.Namespace) -> Network:
    from detector.cli.drawing import load_network

    return load_network(weights, options.device, options.precision, options.compile, options.score_threshold)


def _expand(text: str) -> list[Path]:
    from detector.data.images import SUFFIXES

    path = Path(text)
    if "://" in text:
        raise UsageError(f"{quote(text)}: only local files are read; download it first")
    if path.is_dir():
        found = sorted(item for item in path.iterdir() if item.suffix.lower() in SUFFIXES + _VIDEO_SUFFIXES)
    elif path.exists():
        found = [path]
    else:
        found = sorted(Path(item) for item in glob.glob(text, recursive=True) if Path(item).is_file())
    if not found:
        raise ImageError(f"{one_line(text)}: no such image, and no image of that pattern or in that folder")
    return found


class _Names:
    """Output names that fit any file system, differ from each other and from all inputs."""

    def __init__(self, folder: Path, inputs: set[Path]) -> None:
        self.folder = folder
        self.inputs = inputs
        self.taken: set[Path] = set()

    def of(self, path: Path, suffix: str) -> Path:
        """The file that the drawing of ``path`` goes to."""
        # Of a name that begins with points alone, none could tell the kind of file.
        stem = re.sub(r"[^\w.-]+", "_", path.stem).lstrip(".")[:100] or "image"
        number = 1
        while True:
            name = self.folder / f"{stem}{'' if number == 1 else f'-{number}'}{suffix}"
            if name not in self.taken and name.resolve() not in self.inputs:
                self.taken.add(name)
                return name
            number += 1


def _draw_image(network: Network, path: Path, target: Path) -> list[dict[str, Any]]:
    from detector.data.images import read_image
    from detector.visualization.draw import save_image

    picture, records = network.draw(read_image(path, network.max_pixels), str(path))
    save_image(target, picture)
    return records


def _draw_video(network: Network, path: Path, target: Path) -> list[dict[str, Any]]:
    import cv2
    import numpy as np
    from tqdm import tqdm

    from detector.errors import MachineError

    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS)
    count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    records: list[dict[str, Any]] = []
    writer = None
    frames = tqdm(_frames(capture), path.name, count or None, leave=False, disable=None)
    for number, image in enumerate(frames):
        drawn, found = network.draw(image, f"{path}#{number}")
        records += found
        if writer is None:
            target.parent.mkdir(parents=True, exist_ok=True)
            size = (drawn.shape[1], drawn.shape[0])
            writer = cv2.VideoWriter(
                str(not_a_link(target)), cv2.VideoWriter.fourcc(*"mp4v"), rate if rate > 0 else 25, size
            )
            if not writer.isOpened():
                raise MachineError(f"{target}: the video cannot be written")
        writer.write(np.ascontiguousarray(drawn[:, :, ::-1]))
    capture.release()
    if writer is None:
        raise ImageError(f"{one_line(path)}: not a video that can be read")
    writer.release()
    return records


def _frames(capture: Any) -> Iterator[Any]:
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield frame[:, :, ::-1].copy()


def _draw_data_set(options: argparse.Namespace) -> int:
    from detector.config.load import load_config
    from detector.data.reduced_decoding import as_trained_on
    from detector.engine.task import task_of
    from detector.visualization.draw import draw_batch, draw_ground_truth, save_image

    if not options.output:
        raise UsageError("--config needs --output, a folder for the pictures")
    if options.augmented and options.weights:
        raise UsageError("--augmented and --weights exclude each other")
    if options.count < 1:
        raise UsageError(f"--count must be at least 1, got {options.count}")
    config = load_config(options.config, options.inputs)
    network = _load(options.weights, options) if options.weights else None
    if network and network.classifies != (config.model.classifier is not None):
        raise UsageError(
            f"{options.weights}: holds a {'classifier' if network.classifies else 'detector'}, which {options.config} "
            "does not describe"
        )
    task = task_of(config)
    dataset = task.open_split(config, options.split, network.class_names if network else None, None)
    if options.augmented:
        dataset = as_trained_on(dataset, config.data)
    transform = task.transform(config)
    class_names = dataset.annotations.class_names
    failed = 0
    for index in range(min(options.count, len(dataset))):
        try:
            sample = dataset[index]
        except (ImageError, DatasetError) as error:
            failed += 1
            print(f"error: {printable(str(error))}", file=sys.stderr)
            continue
        if options.augmented:
            picture = draw_batch([transform(sample, index)], class_names)
        elif network:
            picture = network.compare(sample)
        else:
            picture = draw_ground_truth(sample, class_names)
        stem = re.sub(r"[^\w.-]+", "_", Path(sample.info.path).stem)[:100]
        save_image(Path(options.output) / f"{index:06d}-{stem}.jpg", picture)
    print(f"{min(options.count, len(dataset)) - failed} images of data.{options.split} drawn: {options.output}/")
    return 2 if failed else 0
