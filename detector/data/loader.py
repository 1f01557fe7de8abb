"""Batches, prepared by worker processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from detector.config.schema import Config
from detector.data.dataset import DetectionDataset
from detector.data.sampler import TrainingOrder
from detector.data.transforms import TrainTransform, test_views
from detector.errors import DetectorError, WorkerError
from detector.structures import ImageBatch, ImageInfo, Size, Target

WORKER_TIMEOUT_S = 300


@dataclass(frozen=True)
class Batch:
    """What a process computes at once.

    Attributes:
        images: B images.
        targets: B targets; empty in evaluation.
        indices: of the images in the data set.
        infos: where the images came from.
        original_sizes: before resizing.
        mirrored: of each of the images, in evaluation, where several views of one image may follow each other.
    """

    images: ImageBatch
    targets: tuple[Target, ...]
    indices: tuple[int, ...]
    infos: tuple[ImageInfo, ...]
    original_sizes: tuple[Size, ...]
    mirrored: tuple[bool, ...] = ()

    def pin_memory(self) -> Batch:
        """Called by the loader where copies to a GPU gain from it."""
        return replace(self, images=ImageBatch(self.images.pixels.pin_memory(), self.images.sizes))


class TrainingBatches(Dataset[Batch | DetectorError]):
    """Micro-batch ``n`` of one process, for any ``n``.

    Args:
        dataset: what to train on.
        order: the image at each position of the run.
        transform: from sample to input.
        rank: of this process.
        world_size: processes; each takes an equal, contiguous share of every batch.
        micro_batch_size: images a micro-batch; divides the share.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        order: TrainingOrder,
        transform: TrainTransform,
        rank: int,
        world_size: int,
        micro_batch_size: int,
    ) -> None:
        self.dataset = dataset
        self.order = order
        self.transform = transform
        self.share = order.batch_size // world_size
        self.first = rank * self.share
        self.micro_batch_size = micro_batch_size

    def positions(self, number: int) -> range:
        """The positions of the run that micro-batch ``number`` of this process holds."""
        iteration, part = divmod(number, self.share // self.micro_batch_size)
        start = iteration * self.order.batch_size + self.first + part * self.micro_batch_size
        return range(start, start + self.micro_batch_size)

    def __getitem__(self, number: int) -> Batch | DetectorError:
        # An error travels as a value: raised in a worker it would arrive wrapped in a traceback.
        try:
            indices = [self.order.index(position) for position in self.positions(number)]
            samples = [self.dataset[index] for index in indices]
            pairs = [
                self.transform(sample, position)
                for sample, position in zip(samples, self.positions(number), strict=True)
            ]
        except DetectorError as error:
            return error
        return Batch(
            ImageBatch.of([pixels for pixels, _ in pairs]),
            tuple(target for _, target in pairs),
            tuple(indices),
            tuple(sample.info for sample in samples),
            tuple(sample.size for sample in samples),
        )


class EvaluationBatches(Dataset[Batch | DetectorError]):
    """Images of a data set without augmentation, in chunks.

    Args:
        dataset: what to evaluate on.
        indices: the images, in order.
        config: for the resize rule and the number of images computed at once.
    """

    def __init__(self, dataset: DetectionDataset, indices: Sequence[int], config: Config) -> None:
        size = config.evaluation.batch_size
        self.dataset = dataset
        self.config = config
        self.chunks = [tuple(indices[start : start + size]) for start in range(0, len(indices), size)]

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Batch | DetectorError:
        try:
            samples = [self.dataset[index] for index in self.chunks[number]]
            views = [
                view
                for sample in samples
                for view in test_views(sample.image, self.config.data.resize, self.config.evaluation)
            ]
        except DetectorError as error:
            return error
        return Batch(
            ImageBatch.of([pixels for pixels, _ in views]),
            (),
            self.chunks[number],
            tuple(sample.info for sample in samples),
            tuple(sample.size for sample in samples),
            tuple(mirrored for _, mirrored in views),
        )


def iterate(
    batches: Dataset[Batch | DetectorError], numbers: range, workers: int, device: torch.device
) -> Iterator[Batch]:
    """Prepares batches ``numbers`` in order, ahead of their use.

    Args:
        batches: training or evaluation batches.
        numbers: which of them.
        workers: processes; 0 prepares them in this one.
        device: where they will be used; for a GPU their memory is pinned.

    Raises:
        DetectorError: as the data set raises it.
        WorkerError: a worker process died or hung.
    """
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        timeout=WORKER_TIMEOUT_S if workers else 0,
        worker_init_fn=_prepare_worker,
        # Its own, since the loader would draw from the global one at every start.
        generator=torch.Generator(),
    )
    iterator = iter(loader)
    try:
        for number in numbers:
            try:
                batch = next(iterator)
            except (RuntimeError, OSError, EOFError) as error:
                # "Caught" begins what a worker raised itself: a bug, which needs its traceback.
                if not workers or str(error).startswith("Caught "):
                    raise
                raise WorkerError(
                    f"a loader worker was lost at batch {number} ({str(error).splitlines()[0]}); "
                    "is memory short? lower data.workers, then start again: the run resumes"
                ) from None
            if isinstance(batch, DetectorError):
                raise batch
            yield batch
    finally:
        # An error's traceback would keep the workers alive, and torch watching them, until some later collection.
        if workers:
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def _prepare_worker(_: int) -> None:
    # The main process decides about stopping; one thread a worker, since there is a worker a core.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
