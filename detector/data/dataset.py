"""What a data set is, the one over files that all formats share, and several joined as one."""

from __future__ import annotations

import bisect
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np

from detector.data.images import read_image, read_reduced
from detector.data.packed import PackedTexts, pack_ids
from detector.errors import DatasetError, one_line, quote
from detector.structures import Annotations, ImageId, ImageInfo, Sample, Size

_ARRAYS = ("labels", "boxes_xywh", "areas", "crowd", "difficult")


class DetectionDataset(Protocol):
    """Images with their objects. Any object of this form can be trained on; ``check_dataset`` tells what is amiss."""

    @property
    def annotations(self) -> Annotations:
        """The whole ground truth, which evaluation scores against; its images are in the order of this data set."""

    def __len__(self) -> int:
        """The number of images."""

    def info(self, index: int) -> ImageInfo:
        """What is known of an image without decoding it."""

    def __getitem__(self, index: int) -> Sample:
        """One image with its ground truth."""


class FileDataset:
    """Images in files, with annotations that a reader of some format has collected.

    Args:
        annotations: the ground truth.
        folder: of the images.
        names: the file of each image, relative to the folder.
        sizes: ``(N, 2)``: height and width of each image as the annotations state them, 0 where they do not.
        max_pixels: larger images are refused.

    Attributes:
        short_side: larger JPEGs may come smaller, as ``read_reduced`` has it; None for whole images.

    Raises:
        DatasetError: there is no image at all, or files are missing.
    """

    short_side: int | None = None

    def __init__(
        self, annotations: Annotations, folder: str | Path, names: Sequence[str], sizes: np.ndarray, max_pixels: int
    ) -> None:
        missing = _missing_files(str(folder), names)
        if missing:
            more = f" (and {len(missing) - 1} more of {len(names)} images)" if len(missing) > 1 else ""
            raise DatasetError(f"{one_line(missing[0])}: no such image file{more}; is the images folder the right one?")
        self.annotations = annotations
        self.max_pixels = max_pixels
        self.folder = str(folder)
        self.names = names if isinstance(names, PackedTexts) else PackedTexts.of(names)
        self.sizes = np.asarray(sizes, dtype=np.int32).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.names)

    def info(self, index: int) -> ImageInfo:
        """What is known of an image without decoding it."""
        height, width = self.sizes[index]
        size = Size(int(height), int(width)) if height else None
        return ImageInfo(self.annotations.image_ids[index], os.path.join(self.folder, self.names[index]), size)

    def __getitem__(self, index: int) -> Sample:
        """Decodes an image.

        Raises:
            ImageError: it cannot be decoded.
            DatasetError: its size is not the one that the annotations state.
        """
        info = self.info(index)
        if self.short_side is None:
            image = read_image(info.path, self.max_pixels)
            size = Size(*image.shape[:2])
        else:
            image, size = read_reduced(info.path, self.max_pixels, self.short_side)
        boxes = self._boxes(index)
        self._check_size(info, size, boxes)
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, size.width)
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, size.height)
        boxes *= [image.shape[1] / size.width, image.shape[0] / size.height] * 2
        rows = self.annotations.of_image(index)
        sample = Sample(
            image,
            boxes.astype(np.float32),
            self.annotations.labels[rows],
            self.annotations.crowd[rows],
            self.annotations.difficult[rows],
            info,
        )
        # What lies outside counts in scoring but leaves nothing to learn from.
        return sample.keep(((sample.boxes[:, 2:] - sample.boxes[:, :2]) > 0).all(axis=1))

    def _boxes(self, index: int) -> np.ndarray:
        boxes = self.annotations.boxes_xywh[self.annotations.of_image(index)]
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

    def _check_size(self, info: ImageInfo, size: Size, boxes: np.ndarray) -> None:
        if info.size is None or info.size == size:
            return
        # Some tools note the size before rotation by EXIF while their boxes are for the upright image.
        fits = bool((boxes[:, 2] <= size.width + 1).all() and (boxes[:, 3] <= size.height + 1).all())
        if info.size == Size(size.width, size.height) and fits:
            return
        raise DatasetError(
            f"{one_line(info.path)}: the image is {size.width} x {size.height}, "
            f"but its annotation says {info.size.width} x {info.size.height}; "
            "correct the annotation or put back the image it was made for"
        )


class JoinedDataset:
    """Several data sets one after another, such as VOC 2007 and 2012.

    Raises:
        DatasetError: their classes differ, or an image id is in two of them.
    """

    def __init__(self, parts: Sequence[DetectionDataset]) -> None:
        first = parts[0].annotations
        for part in parts[1:]:
            if part.annotations.class_names != first.class_names:
                odd = sorted(set(part.annotations.class_names) ^ set(first.class_names))
                raise DatasetError(
                    f"the joined data sets have different classes: {quote(', '.join(odd))}; set data.classes"
                )
        self.parts = list(parts)
        self._ends = list(accumulate(len(part) for part in parts))
        self.annotations = _join([part.annotations for part in parts])

    def __len__(self) -> int:
        return self._ends[-1]

    def info(self, index: int) -> ImageInfo:
        """What is known of an image without decoding it."""
        part, offset = self._locate(index)
        return part.info(offset)

    def __getitem__(self, index: int) -> Sample:
        part, offset = self._locate(index)
        return part[offset]

    def _locate(self, index: int) -> tuple[DetectionDataset, int]:
        number = bisect.bisect_right(self._ends, index)
        return self.parts[number], index - (self._ends[number - 1] if number else 0)


class Subset:
    """Some images of a data set.

    Args:
        whole: the data set.
        indices: of the images.
    """

    def __init__(self, whole: DetectionDataset, indices: Sequence[int]) -> None:
        self.whole = whole
        self.indices = np.asarray(indices, dtype=np.int64)  # of a list workers would copy page by page
        old = whole.annotations
        rows = [np.arange(old.rows[index], old.rows[index + 1]) for index in self.indices.tolist()]
        chosen = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        self.annotations = replace(
            old,
            image_ids=pack_ids([old.image_ids[index] for index in self.indices.tolist()]),
            rows=np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int64),
            **{field: getattr(old, field)[chosen] for field in _ARRAYS},
        )

    @classmethod
    def with_objects(cls, whole: DetectionDataset, count: int, spread: bool = False) -> Subset:
        """The first images that hold an object which is no crowd.

        Args:
            whole: the data set.
            count: how many.
            spread: take them evenly from the whole instead.

        Raises:
            DatasetError: there are fewer than ``count``.
        """
        annotations = whole.annotations
        fitting = [index for index in range(len(whole)) if not annotations.crowd[annotations.of_image(index)].all()]
        if len(fitting) < count:
            raise DatasetError(f"{count} images with objects are wanted, the data set has {len(fitting)}")
        chosen = np.linspace(0, len(fitting) - 1, count).astype(int) if spread else range(count)
        return cls(whole, [fitting[number] for number in chosen])

    def __len__(self) -> int:
        return len(self.indices)

    def info(self, index: int) -> ImageInfo:
        """What is known of an image without decoding it."""
        return self.whole.info(int(self.indices[index]))

    def __getitem__(self, index: int) -> Sample:
        return self.whole[int(self.indices[index])]


def _missing_files(folder: str, names: Sequence[str]) -> list[str]:
    """Paths of files that are not there; a listing of each folder asks the disk less than a look at each file."""
    there: dict[str, set[str]] = {}
    missing = []
    for name in names:
        inner, file = os.path.split(name)
        if inner not in there:
            there[inner] = _files_in(os.path.join(folder, inner))
        # Some disks take several spellings of a name for the same.
        if file not in there[inner] and not os.path.isfile(os.path.join(folder, name)):
            missing.append(os.path.join(folder, name))
    return missing


def _files_in(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):
        return set()


def _join(parts: Sequence[Annotations]) -> Annotations:
    image_ids: list[ImageId] = [image_id for part in parts for image_id in part.image_ids]
    counts_of = Counter(image_ids)
    if len(counts_of) < len(image_ids):
        twice = counts_of.most_common(1)[0][0]
        raise DatasetError(f"the image id {quote(twice)} is in two of the joined data sets; is one listed twice?")
    counts = np.concatenate([np.diff(part.rows) for part in parts])
    return Annotations(
        pack_ids(image_ids),
        parts[0].class_names,
        parts[0].category_ids,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        *(np.concatenate([getattr(part, field) for part in parts]) for field in _ARRAYS),
    )


def check_dataset(dataset: DetectionDataset, images: int = 20) -> None:
    """Looks whether an object keeps the contract of ``DetectionDataset``; for data sets of your own.

    Args:
        dataset: the object.
        images: so many images, spread over the data set, are decoded.

    Raises:
        DatasetError: says at which image and what is wrong.
    """
    annotations, count = dataset.annotations, len(dataset)
    if count == 0:
        raise DatasetError("the data set holds no images")
    if len(set(annotations.image_ids)) < len(annotations.image_ids):
        raise DatasetError("the data set gives one id to several images")
    if len(annotations.image_ids) != count:
        raise DatasetError(f"the data set has {count} images but annotations for {len(annotations.image_ids)}")
    for index in sorted({int(index) for index in np.linspace(0, count - 1, min(images, count))}):
        sample, info = dataset[index], dataset.info(index)
        problem = _problem_of(sample, len(annotations.class_names))
        if info.image_id != annotations.image_ids[index] or sample.info.image_id != info.image_id:
            problem = f"its id is {quote(sample.info.image_id)} here and {quote(annotations.image_ids[index])} there"
        if problem:
            raise DatasetError(f"image {index} of the data set: {problem}")


def _problem_of(sample: Sample, num_classes: int) -> str | None:
    boxes, labels = sample.boxes, sample.labels
    if boxes.dtype != np.float32 or labels.dtype != np.int64:
        return f"boxes must be float32 and labels int64, not {boxes.dtype} and {labels.dtype}"
    if ((labels < 0) | (labels >= num_classes)).any():
        return f"labels must be 0..{num_classes - 1}, got {labels.min()}..{labels.max()}"
    if not np.isfinite(boxes).all() or not ((boxes[:, 2:] - boxes[:, :2]) > 0).all():
        return "boxes must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2"
    if (boxes < 0).any() or (boxes > np.array([sample.size.width, sample.size.height] * 2)).any():
        return f"boxes must lie inside the image of {sample.size.width} x {sample.size.height} pixels"
    return None
