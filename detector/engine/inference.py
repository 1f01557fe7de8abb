"""The detector over many images, with boxes back in the pixels of the original images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm

from detector.config.schema import Config
from detector.data.dataset import DetectionDataset
from detector.data.loader import EvaluationBatches, iterate
from detector.engine.device import autocast, evaluation_precision
from detector.engine.distributed import Processes
from detector.engine.machine import workers_that_fit
from detector.errors import DetectorError
from detector.models.faster_rcnn import FasterRCNN
from detector.models.roi_head import Candidates
from detector.ops.boxes import clip_boxes, rescale_boxes, usable_boxes
from detector.structures import Detections, ImageBatch, Size

_log = logging.getLogger(__name__)


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


def _workers(config: Config) -> int:
    evaluation = config.evaluation
    views = max(1, len(evaluation.short_sides)) * (2 if evaluation.flip else 1)
    return workers_that_fit(config, evaluation.batch_size * views)


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
    mine = range(processes.rank, len(dataset), processes.world_size)
    batches = EvaluationBatches(dataset, mine, config)
    stream = iterate(
        batches, range(len(batches)), min(_workers(config), len(batches)), device, config.data.worker_timeout
    )
    precision = evaluation_precision(config)
    found: dict[int, Detections] = {}
    problem: DetectorError | None = None
    stop = processes.shared_flag()
    was_training = model.training
    model.eval()
    try:
        for batch in tqdm(stream, "evaluating", len(batches), leave=False, disable=None if processes.is_main else True):
            if should_stop():
                stop.set()
            if stop.is_set():
                break
            for item in batch.bad:
                _log.warning("%s; it counts as an image without detections", item.problem)
            if batch.infos:
                detections = detect(model, batch.images, batch.mirrored, batch.original_sizes, device, precision)
                found.update(zip(batch.indices, detections, strict=True))
    except DetectorError as error:
        problem = error
        stop.set()
    finally:
        model.train(was_training)
    processes.agree(problem)
    if processes.any(stop.is_set()):
        return None
    gathered: dict[int, Detections] = {}
    for part in processes.gather(found):
        gathered.update(part)
    nothing = Detections(torch.zeros((0, 4)), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    return [gathered.get(index, nothing) for index in range(len(dataset))]
