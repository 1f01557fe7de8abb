"""Box voting (Gidaris and Komodakis 2015, section 4; used in He et al. 2015, appendix B)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

VOTING_IOU = 0.5


def vote_boxes(boxes: Tensor, labels: Tensor, voters: Tensor, voter_scores: Tensor, voter_labels: Tensor) -> Tensor:
    """Moves each box to the mean, weighted by score, of all boxes of its class that overlap it by an IoU of 0.5.

    Args:
        boxes: ``(N, 4)`` boxes that NMS kept.
        labels: ``(N,)``.
        voters: ``(M, 4)`` boxes before NMS, those kept among them.
        voter_scores: ``(M,)``.
        voter_labels: ``(M,)``.

    Returns:
        ``(N, 4)``.
    """
    counts = (box_iou(boxes, voters) >= VOTING_IOU) & (labels[:, None] == voter_labels)
    weights = torch.where(counts, voter_scores, voter_scores.new_zeros(()))
    total = weights.sum(dim=1, keepdim=True)
    return torch.where(total > 0, weights @ voters / total.clamp(min=1e-12), boxes)
