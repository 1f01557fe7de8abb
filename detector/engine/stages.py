"""Where in the two-stage detector each missed object was lost.

An object is missed if no final detection of its class overlaps it by an IoU of 0.5. Its way is followed to the last
stage that still had it: a good box among the anchors, among what the RPN makes of them, among the proposals that reach
the head, among the boxes that the head scores, and among the detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from detector.config.schema import Config
from detector.data.dataset import DetectionDataset
from detector.data.transforms import resized_size, test_views
from detector.engine.device import autocast, evaluation_precision
from detector.errors import DatasetError, ImageError
from detector.models.faster_rcnn import FasterRCNN
from detector.ops.box_coder import decode_boxes
from detector.ops.boxes import clip_boxes
from detector.structures import ImageBatch, Sample, Size

STAGES = (
    "no anchor fits",
    "RPN did not propose it",
    "cut by proposal NMS or the limit of proposals",
    "taken for background",
    "taken for another class",
    "box too far off",
    "removed by the final NMS",
    "beyond the limit of detections",
    "given to a neighbour",
)
_FOUND_IOU = 0.5
_PROPOSALS = (100, 300, 1000)


@dataclass
class StageCount:
    """What a pass over images has found.

    Attributes:
        lost: missed objects by stage.
        missed: all of them.
        objects: that were looked at, crowds left out.
        covered: by a number of proposals, the objects that one of the best so many overlaps by 0.5.
    """

    lost: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    missed: int = 0
    objects: int = 0
    covered: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_PROPOSALS, 0))

    def as_dict(self, images: int) -> dict[str, Any]:
        """For analysis.json."""
        recall = {str(count): hit / max(self.objects, 1) for count, hit in self.covered.items()}
        return {
            "images": images,
            "objects": self.objects,
            "missed": self.missed,
            "lost": self.lost,
            "proposal_recall": recall,
        }


def find_lost(
    model: FasterRCNN, dataset: DetectionDataset, indices: Sequence[int], config: Config, device: torch.device
) -> dict[str, Any]:
    """Follows the objects of some images through the network, one view of each image.

    Args:
        model: on ``device``.
        dataset: the images.
        indices: which of them.
        config: for the resize rule and the precision.
        device: where to compute.

    Returns:
        ``images``, ``objects``, ``missed``, ``lost`` by stage, and ``proposal_recall`` at 100, 300 and 1000 proposals
        (as far as so many reach the head).

    Raises:
        DetectorError: an image cannot be read.
    """
    count = StageCount()
    was_training = model.training
    model.eval()
    try:
        for index in indices:
            try:
                sample = dataset[index]
            except (ImageError, DatasetError):
                if config.data.on_bad_sample == "error":
                    raise
                continue  # it has been told
            _follow(model, sample, config, device, count)
    finally:
        model.train(was_training)
    return count.as_dict(len(indices))


@torch.no_grad()
def _follow(model: FasterRCNN, sample: Sample, config: Config, device: torch.device, count: StageCount) -> None:
    sample = sample.keep(~sample.crowd)
    if not len(sample.labels):
        return
    resize = config.data.resize
    size = resized_size(sample.size, resize.test_short_side, resize.max_long_side)
    one_view = config.evaluation.model_copy(update={"short_sides": (), "flip": False})
    pixels, _ = test_views(sample.image, resize, one_view)[0]
    scale = np.array([size.width / sample.size.width, size.height / sample.size.height] * 2, dtype=np.float32)
    truth = torch.from_numpy(sample.boxes * scale).to(device)
    labels = torch.from_numpy(sample.labels).to(device)
    with autocast(device, evaluation_precision(config)):
        features, outputs = model.features(ImageBatch.of([pixels]).to(device))
        proposals = model.rpn.propose(outputs[0])
        logits, deltas = model.roi_head(features, [proposals])
    best_anchor = _best(truth, outputs[0].anchors)
    decoded = clip_boxes(decode_boxes(outputs[0].deltas, outputs[0].anchors), size)
    best_decoded = _best(truth, decoded[torch.isfinite(decoded).all(dim=1)])
    overlap = box_iou(truth, proposals)
    count.objects += len(labels)
    for number in _PROPOSALS:
        count.covered[number] += int((_best(truth, proposals[:number]) >= _FOUND_IOU).sum())
    head = _Head(model, proposals, logits.softmax(dim=1), deltas, size)
    found = head.matches(truth, labels)
    for number in torch.nonzero(~found).flatten().tolist():
        if best_decoded[number] < _FOUND_IOU:
            stage = STAGES[int(best_anchor[number] >= model.rpn.config.background_iou)]
        elif not (overlap[number] >= _FOUND_IOU).any():
            stage = STAGES[2]
        else:
            stage = head.blame(truth[number], int(labels[number]), overlap[number] >= _FOUND_IOU)
        count.lost[stage] += 1
        count.missed += 1


def _best(truth: Tensor, boxes: Tensor) -> Tensor:
    """``(N,)``: the largest IoU of each object with any of the boxes."""
    return box_iou(truth, boxes).amax(dim=1) if len(boxes) else torch.zeros(len(truth), device=truth.device)


class _Head:
    """What the head makes of the proposals of one image.

    Args:
        model: for its rules.
        proposals: ``(P, 4)``.
        scores: ``(P, K + 1)``.
        deltas: ``(P, K, 4)``.
        size: of the image as the network sees it.
    """

    def __init__(self, model: FasterRCNN, proposals: Tensor, scores: Tensor, deltas: Tensor, size: Size) -> None:
        self.config = model.roi_head.config
        self.scores = scores[:, :-1]
        self.boxes = clip_boxes(decode_boxes(deltas, proposals[:, None], self.config.box_weights), size)
        rows, self.labels = torch.nonzero(self.scores > self.config.score_threshold).unbind(dim=1)
        self.candidates = self.boxes[rows, self.labels]
        self.candidate_scores = self.scores[rows, self.labels]
        self.kept = batched_nms(self.candidates, self.candidate_scores, self.labels, self.config.nms_iou)
        self.final = self.kept[: self.config.detections_per_image]

    def matches(self, truth: Tensor, labels: Tensor) -> Tensor:
        """``(N,)`` bool: a detection took the object; each takes the best that is free, in the order of scores."""
        found = torch.zeros(len(truth), dtype=torch.bool, device=truth.device)
        iou = box_iou(truth, self.candidates[self.final])
        for column, detection in enumerate(self.final.tolist()):
            free = torch.where((labels == self.labels[detection]) & ~found, iou[:, column], -1.0)
            if free.max() >= _FOUND_IOU:
                found[free.argmax()] = True
        return found

    def blame(self, box: Tensor, label: int, covering: Tensor) -> str:
        """The stage of the head that lost an object which some proposals cover.

        Args:
            box: ``(4,)`` of the object.
            label: its class.
            covering: ``(P,)`` bool: the proposals that overlap it by 0.5.
        """
        threshold = self.config.score_threshold
        right = self.scores[covering, label] > threshold
        if not right.any():
            others = self.scores[covering].amax() > threshold
            return STAGES[4] if others else STAGES[3]
        iou = box_iou(box[None], self.boxes[covering, label])[0]
        if not (iou[right] >= _FOUND_IOU).any():
            return STAGES[5]
        good = (self.labels == label) & (box_iou(box[None], self.candidates)[0] >= _FOUND_IOU)
        if good[self.final].any():
            return STAGES[8]
        return STAGES[7] if good[self.kept].any() else STAGES[6]
