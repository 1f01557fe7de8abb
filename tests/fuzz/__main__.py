"""``python -m tests.fuzz coco --count 10000 --seed 0``: runs a target and tells what became of its files."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch

from tests.fuzz.runner import keep, run
from tests.fuzz.targets import TARGETS


def main() -> int:
    """The command; returns 1 if any file was not dealt with as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="files (1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the mutations (0)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first file (0)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the files of failures go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shared = os.environ.get("DETECTOR_SHARED")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        target = TARGETS[options.target](Path(folder), Path(shared) if shared else None)
        summary = run(target, options.count, options.seed, options.first)
        print("\n".join(summary.lines()))
        if options.keep:
            keep(target, options.seed, summary, options.keep)
    return 1 if summary.failures else 0


if __name__ == "__main__":
    sys.exit(main())
