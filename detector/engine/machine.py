"""Limits of the machine that training would run into, met before it starts."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import torch

from detector.config.schema import Config

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)

_SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 2  # batches a worker prepares ahead, torch's default


def raise_file_limit() -> None:
    """Allows as many open files as the system lets this process have: workers hand over each tensor in one."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            _log.debug("the limit of %d open files cannot be raised", soft)


def workers_that_fit(config: Config, images: int, folder: Path = _SHARED_MEMORY) -> int:
    """``data.workers``, or fewer where shared memory cannot hold what they prepare ahead (in containers, often 64 MiB).

    Args:
        config: all settings.
        images: that a worker hands over at once.
        folder: where shared memory lies.
    """
    wanted = config.data.workers
    if not wanted or not folder.is_dir():
        return wanted
    batch = images * 3 * _largest_area(config)
    # Processes on one machine share its memory.
    free = shutil.disk_usage(folder).free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fitting = min(wanted, free // (batch * (PREFETCHED + 1)))
    if fitting < wanted:
        _log.warning(
            "%s has %d MiB free, %d workers may need %d; using %d (docker run --shm-size=1g gives more; "
            "data.workers=0 needs none)",
            folder, free // 2**20, wanted, wanted * batch * (PREFETCHED + 1) // 2**20 + 1, fitting,
        )  # fmt: skip
    return int(fitting)


def _largest_area(config: Config) -> int:
    """Pixels of the largest image that the network may get."""
    if config.model.classifier is not None:
        return config.data.crop.size**2
    resize = config.data.resize
    longest = max(resize.max_long_side, resize.test_short_side)
    return min(longest, max(*resize.train_short_side, resize.test_short_side)) * longest


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory, the GPU's or the machine's, is exhausted."""
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text
