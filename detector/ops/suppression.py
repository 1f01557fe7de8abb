"""Non-maximum suppression that stops when it has enough."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import nms


def nms_until(boxes: Tensor, scores: Tensor, iou: float, wanted: int) -> Tensor:
    """The first ``wanted`` boxes that NMS keeps, best first.

    Which of the best boxes are kept does not depend on the rest, and NMS takes quadratic time: a beginning that turns
    out too short is doubled.

    Args:
        boxes: ``(N, 4)``, best first.
        scores: ``(N,)``, descending.
        iou: a box that overlaps a better one by more is dropped.
        wanted: at most so many are returned.

    Returns:
        ``(M,)`` indices.
    """
    considered = 2 * wanted
    while True:
        kept = nms(boxes[:considered], scores[:considered], iou)
        if len(kept) >= wanted or considered >= len(boxes):
            return kept[:wanted]  # type: ignore[no-any-return]
        considered *= 2
