"""Batches, prepared by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detector.config.data_schema import DataConfig
from detector.config.schema import Config
from detector.data.dataset import DetectionDataset
from detector.data.randomness import seed_global_streams
from detector.data.reduced_decoding import as_trained_on
from detector.data.sampler import TrainingOrder
from detector.data.workers import (
    Unsent,
    cause_of_death,
    explain_loss,
    look_for_lost,
    prepare_worker,
    watch,
    worker_context,
)
from detector.errors import DatasetError, DetectorError, ImageError, one_line
from detector.structures import ImageBatch, ImageInfo, Sample, Size, Target

Views = Callable[[np.ndarray], list[tuple[Tensor, bool]]]
# So many unreadable images one after another are no accident.
_MAX_REPLACED = 100


@dataclass(frozen=True)
class BadSample:
    """An image that could not be read and was left out.

    Attributes:
        path: its file.
        problem: what is wrong with it.
    """

    path: str
    problem: str


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
        bad: what was left out; in training other images stand in for them.
    """

    images: ImageBatch
    targets: tuple[Target, ...]
    indices: tuple[int, ...]
    infos: tuple[ImageInfo, ...]
    original_sizes: tuple[Size, ...]
    mirrored: tuple[bool, ...] = ()
    bad: tuple[BadSample, ...] = ()

    def pin_memory(self) -> Batch:
        """Called by the loader where copies to a GPU gain from it."""
        return replace(
            self,
            images=ImageBatch(self.images.pixels.pin_memory(), self.images.sizes),
            targets=tuple(target.pin_memory() for target in self.targets),
        )


class Transform(Protocol):
    """From a sample to what the network gets of it."""

    @property
    def config(self) -> DataConfig:
        """How images are read."""

    @property
    def seed(self) -> int:
        """Of all random draws."""

    def __call__(self, sample: Sample, position: int) -> tuple[Tensor, Target]:
        """``(3, h, w)`` uint8 pixels and the target of a sample; a function of its position in the run."""


class TrainingBatches(Dataset[Batch | DetectorError]):
    """Micro-batch ``n`` of one process, for any ``n``.

    Args:
        dataset: what to train on.
        order: the image at each position of the run.
        transform: from sample to input.
        rank: of this process.
        world_size: processes; each takes an equal, contiguous share of every batch.
        micro_batch_size: images a micro-batch; divides the share.
        skip_bad: an image that cannot be read is replaced by the one at the next position that can.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        order: TrainingOrder,
        transform: Transform,
        rank: int,
        world_size: int,
        micro_batch_size: int,
        skip_bad: bool = False,
    ) -> None:
        self.dataset = as_trained_on(dataset, transform.config)
        self.order = order
        self.transform = transform
        self.share = order.batch_size // world_size
        self.first = rank * self.share
        self.micro_batch_size = micro_batch_size
        self.skip_bad = skip_bad

    def positions(self, number: int) -> range:
        """The positions of the run that micro-batch ``number`` of this process holds."""
        iteration, part = divmod(number, self.share // self.micro_batch_size)
        start = iteration * self.order.batch_size + self.first + part * self.micro_batch_size
        return range(start, start + self.micro_batch_size)

    def describe(self, number: int) -> str:
        """The files of a micro-batch, for messages."""
        return _files(self.dataset, [self.order.index(position) for position in self.positions(number)])

    def __getitem__(self, number: int) -> Batch | DetectorError:
        positions = self.positions(number)
        seed_global_streams(self.order.seed, positions.start)
        bad: list[BadSample] = []
        # An error travels as a value: raised in a worker it would arrive wrapped in a traceback.
        try:
            chosen = [self._read(position, bad) for position in positions]
            pairs = [self.transform(sample, position) for (_, sample), position in zip(chosen, positions, strict=True)]
        except DetectorError as error:
            return error
        return Batch(
            ImageBatch.of([pixels for pixels, _ in pairs]),
            tuple(target for _, target in pairs),
            tuple(index for index, _ in chosen),
            tuple(sample.info for _, sample in chosen),
            tuple(sample.size for _, sample in chosen),
            bad=tuple(bad),
        )

    def _read(self, position: int, bad: list[BadSample]) -> tuple[int, Sample]:
        """The image at a position, or the nearest after it that can be read."""
        for following in range(position, position + _MAX_REPLACED):
            index = self.order.index(following)
            try:
                return index, self.dataset[index]
            except (ImageError, DatasetError) as error:
                if not self.skip_bad:
                    raise
                bad.append(BadSample(self.dataset.info(index).path, str(error)))
        raise DatasetError(f"{_MAX_REPLACED} images in a row cannot be read; the last: {bad[-1].problem}")


class EvaluationBatches(Dataset[Batch | DetectorError]):
    """Images of a data set without augmentation, in chunks.

    Args:
        dataset: what to evaluate on.
        indices: the images, in order.
        config: for the number of images computed at once.
        views: all the forms in which an image is shown to the network.
    """

    def __init__(self, dataset: DetectionDataset, indices: Sequence[int], config: Config, views: Views) -> None:
        size = config.evaluation.batch_size
        self.dataset = dataset
        self.config = config
        self.views = views
        self.chunks = [tuple(indices[start : start + size]) for start in range(0, len(indices), size)]

    def __len__(self) -> int:
        return len(self.chunks)

    def describe(self, number: int) -> str:
        """The files of a chunk, for messages."""
        return _files(self.dataset, self.chunks[number])

    def __getitem__(self, number: int) -> Batch | DetectorError:
        seed_global_streams(self.config.seed, number)
        bad: list[BadSample] = []
        chosen: list[tuple[int, Sample]] = []
        for index in self.chunks[number]:
            try:
                chosen.append((index, self.dataset[index]))
            except DetectorError as error:
                if self.config.data.on_bad_sample == "error" or not isinstance(error, ImageError | DatasetError):
                    return error
                bad.append(BadSample(self.dataset.info(index).path, str(error)))
        views = [view for _, sample in chosen for view in self.views(sample.image)]
        return Batch(
            ImageBatch.of([pixels for pixels, _ in views]),
            (),
            tuple(index for index, _ in chosen),
            tuple(sample.info for _, sample in chosen),
            tuple(sample.size for _, sample in chosen),
            tuple(mirrored for _, mirrored in views),
            tuple(bad),
        )


def iterate(
    batches: TrainingBatches | EvaluationBatches, numbers: range, workers: int, device: torch.device, timeout: int
) -> Iterator[Batch]:
    """Prepares batches ``numbers`` in order, ahead of their use.

    Args:
        batches: training or evaluation batches.
        numbers: which of them.
        workers: processes; 0 prepares them in this one.
        device: where they will be used; for a GPU their memory is pinned.
        timeout: seconds after which a worker that gives nothing counts as hung.

    Raises:
        DetectorError: as the data set raises it.
        WorkerError: a worker process died or hung.
        MachineError: there are too few open files or too little shared memory.
    """
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        timeout=timeout if workers else 0,
        worker_init_fn=prepare_worker,
        # Its own, since the loader would draw from the global one at every start.
        generator=torch.Generator(),
        multiprocessing_context=worker_context() if workers else None,
    )
    iterator = None
    try:
        for number in numbers:
            try:
                with watch:
                    iterator = iterator or iter(loader)
                    look_for_lost(iterator)
                    batch = next(iterator)
            except (RuntimeError, OSError, EOFError) as error:
                # "Caught" begins what a worker raised itself: a bug, which needs its traceback.
                if not workers or str(error).startswith("Caught "):
                    raise
                raise explain_loss(
                    error, batches.describe(number), workers, timeout, cause_of_death(iterator)
                ) from None
            if isinstance(batch, Unsent):
                raise explain_loss(batch.reason, batches.describe(number), workers, timeout)
            if isinstance(batch, DetectorError):
                raise batch
            yield batch
    finally:
        # An error's traceback would keep the workers alive, and torch watching them, until some later collection.
        if workers and iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def _files(dataset: DetectionDataset, indices: Sequence[int]) -> str:
    names = [one_line(dataset.info(index).path, 80) for index in indices[:2]]
    return ", ".join(names) + (f" or {len(indices) - 2} more" if len(indices) > 2 else "")
