"""A data set as its files have it. Shape letters: N images, M objects, K categories."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from detector.data.findings import Finding
from detector.structures import ImageId

Format = Literal["coco", "voc", "yolo"]


@dataclass(frozen=True)
class Source:
    """Where one split of a data set is.

    Attributes:
        format: of the annotations.
        split: its name, such as "train".
        images: COCO and YOLO: the images' folder. VOC: the folder that holds Annotations/ and JPEGImages/, or the one
            in which XML files stand beside their images.
        annotations: COCO: the JSON file. VOC: the list of names (ImageSets/Main/SPLIT.txt), or the folder again where
            all images are meant. YOLO: the folder of the text files.
        class_names: of YOLO, whose text files have numbers alone.
    """

    format: Format
    split: str
    images: Path
    annotations: Path
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawSet:
    """One split of a data set before anything is refused, dropped or clipped.

    What could not be read at all is not in the arrays but among the findings.

    Attributes:
        format: of the annotations.
        split: its name, such as "train".
        source: the annotation file (COCO), or the folder of the data set.
        folder: the images' folder; file names are relative to it.
        image_ids: N; for VOC and YOLO the file's name without folder and suffix.
        file_names: N; as recorded. For VOC and YOLO, the file found; where there is none, the one expected.
        annotation_files: N; the file that holds an image's objects; the same for all in COCO.
        image_records: N; the place of the image in its annotation file, such as "images[3] (id 17)"; else "".
        sizes: ``(N, 2)`` int64: height and width as recorded, 0 where not.
        category_ids: K.
        class_names: K.
        images: ``(M,)`` int64: the object's image; -1 where the file knows none. Not sorted.
        labels: ``(M,)`` int64: an index of ``class_names``; -1 where the category is not declared.
        boxes: ``(M, 4)`` float64: x, y, width, height in pixels, with no value changed: negative widths for reversed
            boxes, NaN where there are no four numbers. VOC's pixels count from 1 and stand here as
            ``[xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]`` (without the "+ 1" where reversed).
        areas: ``(M,)`` float64; NaN where not recorded.
        crowd: ``(M,)`` bool.
        difficult: ``(M,)`` bool.
        positions: ``(M,)`` int64: of the object in its file: in COCO's "annotations", among the XML's <object>, the
            YOLO file's lines (from 0).
        object_records: M; the place as a message says it, such as "annotations[4] (id 17)" or "object[1]".
        findings: what reading brought up.
    """

    format: Format
    split: str
    source: Path
    folder: Path
    image_ids: tuple[ImageId, ...]
    file_names: tuple[str, ...]
    annotation_files: tuple[str, ...]
    image_records: tuple[str, ...]
    sizes: np.ndarray
    category_ids: tuple[ImageId, ...]
    class_names: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    positions: np.ndarray
    object_records: tuple[str, ...]
    findings: tuple[Finding, ...]

    def __post_init__(self) -> None:
        count = len(self.labels)
        assert len(self.image_ids) == len(self.file_names) == len(self.annotation_files) == len(self.image_records)
        assert self.sizes.shape == (len(self.image_ids), 2)
        assert self.boxes.shape == (count, 4)
        assert len(self.images) == len(self.areas) == len(self.crowd) == len(self.difficult) == count
        assert len(self.positions) == len(self.object_records) == count

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, image: int) -> str:
        """The image's file."""
        return os.path.join(self.folder, self.file_names[image])

    def unsafe_images(self) -> set[int]:
        """Images whose names leave their folder: they are neither opened nor counted as files of the split."""
        return {finding.image for finding in self.findings if finding.kind == "file-name-unsafe"}

    def about_image(self, kind: str, image: int, what: str) -> Finding:
        """A finding about an image."""
        return Finding(kind, self.split, self.path(image), self.image_records[image], what, image)

    def about_object(self, kind: str, row: int, what: str) -> Finding:
        """A finding about an object."""
        image = int(self.images[row])
        file = self.annotation_files[image] if image >= 0 else str(self.source)
        return Finding(kind, self.split, file, self.object_records[row], what, image, row)

    def about_all(self, kind: str, what: str) -> Finding:
        """A finding about the whole split."""
        return Finding(kind, self.split, str(self.source), "", what)
