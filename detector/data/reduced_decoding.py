"""Large images decoded smaller than they are, for training alone."""

from __future__ import annotations

import copy

from detector.config.data_schema import DataConfig
from detector.data.dataset import DetectionDataset, FileDataset, JoinedDataset, Subset


def as_trained_on(dataset: DetectionDataset, data: DataConfig) -> DetectionDataset:
    """The images as training decodes them: smaller, if ``data.reduced_decoding`` allows that.

    Args:
        dataset: left as it is.
        data: the data section.
    """
    return with_reduced_decoding(dataset, max(data.resize.train_short_side)) if data.reduced_decoding else dataset


def with_reduced_decoding(dataset: DetectionDataset, short_side: int) -> DetectionDataset:
    """The same images, of which JPEG files may be decoded smaller, with boxes to match; for training alone.

    Data sets of other kinds are given back as they are.

    Args:
        dataset: left as it is.
        short_side: the shorter side of an image keeps at least so many pixels.
    """
    if not isinstance(dataset, FileDataset | JoinedDataset | Subset):
        return dataset
    smaller = copy.copy(dataset)
    match smaller:
        case FileDataset():
            smaller.short_side = short_side
        case JoinedDataset():
            smaller.parts = [with_reduced_decoding(part, short_side) for part in smaller.parts]
        case Subset():
            smaller.whole = with_reduced_decoding(smaller.whole, short_side)
    return smaller
