"""Saves checkpoints until it is killed, many times over; tells what it found after each kill as a line of JSON.

One process imports everything once and forks a child for each kill. The child writes the iteration to a pipe as soon as
a save has returned: from then on that checkpoint must survive.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import torch

from detector.engine.checkpoint import list_checkpoints, load_newest, prune, save_checkpoint
from tests.reliability.states import is_whole, state_of

NUMBERS = 100_000
KEEP = 2
LONGEST_S = 0.12


def _save_for_ever(folder: Path, iteration: int, pipe: int) -> NoReturn:
    while True:
        iteration += 1
        save_checkpoint(folder, state_of(iteration, NUMBERS))
        os.write(pipe, struct.pack("q", iteration))
        prune(folder, KEEP, keep_every=0, best=None)


def _kill_once(folder: Path, iteration: int, moment: float) -> dict[str, Any]:
    """Lets a child save from an iteration on, kills it after so many seconds, and looks at what is there."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _save_for_ever(folder, iteration, writing)
        finally:
            os._exit(1)
    os.close(writing)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with open(reading, "rb") as pipe:
        told = [item for (item,) in struct.iter_unpack("q", pipe.read())]
    acknowledged = told[-1] if told else iteration
    names = [item.name for item in folder.iterdir()]
    found = load_newest(folder)
    return {
        "killed": os.WIFSIGNALED(status),
        "acknowledged": acknowledged,
        "found": found[1].iteration if found else 0,
        "whole": found is None or is_whole(found[1], NUMBERS),
        "saving": any(name.startswith(".tmp-") for name in names),
        "removing": any(name.startswith(".trash-") for name in names),
        "folders": len(names),
    }


def main(folder: Path, kills: int, seed: int) -> None:
    """All kills, then one save that is left in peace."""
    torch.set_num_threads(1)
    folder.mkdir()
    draws = random.Random(seed)
    iteration = 0
    for _ in range(kills):
        result = _kill_once(folder, iteration, draws.uniform(0, LONGEST_S))
        iteration = result["found"]
        print(json.dumps(result), flush=True)
    save_checkpoint(folder, state_of(iteration + 1, NUMBERS))
    prune(folder, KEEP, keep_every=0, best=None)
    names = sorted(item.name for item in folder.iterdir())
    print(json.dumps({"names": names, "checkpoints": [path.name for path in list_checkpoints(folder)]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
