"""Write the built-in data set of drawn shapes to disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detector.cli.entry import Parser, run
from detector.errors import UsageError

_DESCRIPTION = """\
Draw the built-in shapes and write them in COCO's or VOC's format, to see the layout or to try a pipeline."""

_EXAMPLE = """\
examples:
  make_shapes.py --output datasets/shapes --images 200
  make_shapes.py --output datasets/shapes_voc --format voc --split train --hard"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(_make, argv)


def _make(argv: Sequence[str]) -> int:
    parser = Parser("make_shapes", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("--output", metavar="DIR", required=True, help="a new or empty folder")
    parser.add_argument("--format", choices=("coco", "voc"), default="coco", help="coco")
    parser.add_argument("--images", metavar="N", type=int, default=100, help="how many (100)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other images (0)")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), default=(192, 256), help="192 256")
    parser.add_argument("--hard", action="store_true", help="colours say nothing about the class, busy backgrounds")
    parser.add_argument("--split", default="trainval", help="name of the list that --format voc writes (trainval)")
    options = parser.parse_intermixed_args(argv)
    if options.images < 1 or options.seed < 0 or min(options.size) < 16:
        raise UsageError("--images must be at least 1, --seed at least 0 and --size at least 16 16")
    folder = Path(options.output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: is there and not empty; choose another --output")

    from detector.data.export import write_coco, write_voc
    from detector.data.shapes import ShapesDataset
    from detector.structures import Size

    dataset = ShapesDataset(options.images, options.seed, Size(*options.size), options.hard)
    folder.mkdir(parents=True, exist_ok=True)
    if options.format == "coco":
        write_coco(dataset, folder)
        print(
            f"{{format: coco, images: {folder.absolute()}/images, annotations: {folder.absolute()}/annotations.json}}"
        )
    else:
        write_voc(dataset, folder, options.split)
        print(f"{{format: voc, root: {folder.absolute()}, split: {options.split}}}")
    return 0
