"""Files of strangers, opened only where that can neither wait nor go on for ever."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_regular(path: str | Path, limit: int) -> bytes:
    """The content of a file of at most ``limit`` bytes; a device or pipe is not opened.

    Raises:
        OSError: it is missing, no regular file or too large, or what else the system reports.
        ValueError: its name cannot be one of a file.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    with open(path, "rb") as file:
        return file.read()
