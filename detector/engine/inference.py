"""The detector over many images, with boxes back in the pixels of the original images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

from detector.config.schema import Config
from detector.data.dataset import DetectionDataset
from detector.data.loader import Batch, Views
from detector.data.transforms import test_views
from detector.engine.device import autocast, evaluation_precision
from detector.engine.distributed import Processes
from detector.engine.each_image import each_image
from detector.models.faster_rcnn import FasterRCNN
from detector.models.roi_head import Candidates
from detector.ops.boxes import clip_boxes, rescale_boxes, usable_boxes
from detector.structures import Detections, ImageBatch, Size


def detect(
    model: FasterRCNN,
    images: ImageBatch,
    mirrored: Sequence[bool],
    original_sizes: Sequence[Size],
    device: torch.device,
    precision: str,
) -> list[Detections]:
    """Detections of a batch, on the CPU, in the pixels of the original images.

    Args:
        model: in evaluation mode, on ``device``.
        images: resized; the same number of views of each original image, one after another.
        mirrored: of each view.
        original_sizes: of the images before resizing.
        device: where to compute.
        precision: fp32, bf16 or fp16.
    """
    with torch.no_grad(), autocast(device, precision):
        found = model.detect(images.to(device))
    views = len(images) // len(original_sizes)
    results = []
    for number, original in enumerate(original_sizes):
        mapped = [
            to_original(found[view], images.sizes[view], mirrored[view], original)
            for view in range(number * views, (number + 1) * views)
        ]
        results.append(mapped[0] if views == 1 else _merge(mapped, model))
    return results


def to_original(detections: Detections, size: Size, mirrored: bool, original: Size) -> Detections:
    """The detections of a view in the pixels of the original image, on the CPU.

    Args:
        detections: in pixels of the view.
        size: of the view.
        mirrored: the view is the mirror image.
        original: size of the image before it was resized.
    """
    boxes = detections.boxes
    if mirrored:
        boxes = torch.stack([size.width - boxes[:, 2], boxes[:, 1], size.width - boxes[:, 0], boxes[:, 3]], dim=1)
    boxes = clip_boxes(rescale_boxes(boxes, size, original), original)
    moved = Detections(boxes, detections.scores, detections.labels).to("cpu")
    return moved.keep(usable_boxes(moved.boxes))


def _merge(views: Sequence[Detections], model: FasterRCNN) -> Detections:
    """The detections of several views of an image, through NMS once more.

    He et al. merge the features of two scales instead (maxout); a union of detections needs no second network.
    """
    boxes, scores, labels = (
        torch.cat([getattr(view, name) for view in views]) for name in ("boxes", "scores", "labels")
    )
    return model.roi_head.select(Candidates(boxes, scores, labels))


def detection_views(config: Config) -> Views:
    """How a configured detector sees images outside training."""
    return functools.partial(test_views, resize=config.data.resize, evaluation=config.evaluation)


def detect_dataset(
    model: FasterRCNN,
    dataset: DetectionDataset,
    config: Config,
    device: torch.device,
    processes: Processes,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Detections] | None:
    """Detections of every image of a data set, in its order, computed by all processes together.

    Args:
        model: its mode is put back at the end.
        dataset: the images.
        config: for the data and evaluation sections and the precision.
        device: where to compute.
        processes: each takes every n-th image.
        should_stop: asked before each batch; one process that is asked stops all.

    Returns:
        One ``Detections`` an image, in original pixels; None if it was stopped. An image that cannot be read has none
        where ``data.on_bad_sample`` allows that.

    Raises:
        DetectorError: as the data set raises it.
    """
    precision = evaluation_precision(config)

    def compute(batch: Batch) -> list[Detections]:
        return detect(model, batch.images, batch.mirrored, batch.original_sizes, device, precision)

    found = each_image(model, dataset, config, device, processes, detection_views(config), compute, should_stop)
    if found is None:
        return None
    nothing = Detections(torch.zeros((0, 4)), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    return [found.get(index, nothing) for index in range(len(dataset))]
