"""Which boxes learn which ground truth, and which of them are sampled (Faster R-CNN, section 3.1.2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class Role(IntEnum):
    """What a box is to the loss."""

    BACKGROUND = 0
    FOREGROUND = 1
    IGNORED = -1


@dataclass(frozen=True)
class Matches:
    """The outcome of matching N boxes.

    Attributes:
        truth: ``(N,)`` int64: the ground truth of largest IoU; 0 where there is none at all.
        role: ``(N,)`` int8 of ``Role``.
    """

    truth: Tensor
    role: Tensor


def match_boxes(iou: Tensor, foreground_iou: float, background_iou: float, claim_best: bool = False) -> Matches:
    """Assigns each box the ground truth that it overlaps most.

    Args:
        iou: ``(G, N)`` of G ground truths and N boxes; G may be 0, then all boxes are background.
        foreground_iou: from here on a box is foreground.
        background_iou: below this a box is background; in between it is ignored.
        claim_best: every ground truth also makes its best boxes foreground, whatever their IoU (case (i) of the
            paper). Unlike torchvision and detectron2, a ground truth that overlaps no box at all claims none:
            there its best boxes are all boxes.
    """
    if iou.shape[0] == 0:
        nothing = torch.zeros(iou.shape[1], dtype=torch.int64, device=iou.device)
        return Matches(nothing, nothing.to(torch.int8))
    best_iou, truth = iou.max(dim=0)
    role = torch.full_like(truth, Role.IGNORED, dtype=torch.int8)
    role[best_iou < background_iou] = Role.BACKGROUND
    role[best_iou >= foreground_iou] = Role.FOREGROUND
    if claim_best:
        best_of_truth = iou.amax(dim=1, keepdim=True)
        role[((iou == best_of_truth) & (best_of_truth > 0)).any(dim=0)] = Role.FOREGROUND
    return Matches(truth, role)


def sample_roles(role: Tensor, count: int, foreground_fraction: float, seed: int | None) -> tuple[Tensor, Tensor]:
    """Draws boxes for a loss at random.

    Args:
        role: ``(N,)`` of ``Role``.
        count: boxes to draw; fewer come back where there are not enough.
        foreground_fraction: at most this share is foreground; background fills the rest.
        seed: of the draw; None uses torch's global generator.

    Returns:
        Indices of the drawn foreground and background boxes, each ascending.
    """
    foreground = torch.nonzero(role == Role.FOREGROUND).flatten()
    background = torch.nonzero(role == Role.BACKGROUND).flatten()
    generator = None if seed is None else torch.Generator(role.device).manual_seed(seed)
    wanted = min(len(foreground), int(count * foreground_fraction))
    foreground = _draw(foreground, wanted, generator)
    return foreground, _draw(background, min(len(background), count - wanted), generator)


def _draw(indices: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    chosen = torch.randperm(len(indices), generator=generator, device=indices.device)[:count]
    return indices[chosen].sort().values
