"""The resize rule for many images at once."""

from __future__ import annotations

import numpy as np

from detector.config.data_schema import ResizeConfig
from detector.data.transforms import resized_size
from detector.structures import Size


def resized_sizes(sizes: np.ndarray, resize: ResizeConfig) -> np.ndarray:
    """``(N, 2)`` int64: what evaluation resizes images to.

    Args:
        sizes: ``(N, 2)`` positive heights and widths; each different one is computed once.
        resize: the rule.
    """
    sizes = sizes.reshape(-1, 2).astype(np.int64)
    _, first, which = np.unique(sizes[:, 0] << 32 | sizes[:, 1], return_index=True, return_inverse=True)
    resized = [
        resized_size(Size(*size), resize.test_short_side, resize.max_long_side) for size in sizes[first].tolist()
    ]
    return np.array(resized, dtype=np.int64).reshape(-1, 2)[which.reshape(-1)]
