"""What all data sets of classifiers share: each image has one object, which is the whole of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from detector.data.packed import pack_ids
from detector.errors import DatasetError, quote
from detector.structures import Annotations, ImageId, ImageInfo, Sample, Size

_log = logging.getLogger(__name__)


def choose_classes(
    found: Sequence[str], classes: Sequence[str] | None, aliases: Mapping[str, str], source: str
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Which classes of a data set are wanted, and the label of each.

    Args:
        found: the names that the data set has.
        classes: class names in the order of labels; None takes those of the data set.
        aliases: names in the data set that mean another class, such as {"car": "vehicle"}.
        source: the data set, for messages.

    Returns:
        The class names, and the label of each name in the data set; names that are not wanted have none.

    Raises:
        DatasetError: none of the wanted classes is there.
    """
    names = tuple(classes or found)
    label_of_class = {name: label for label, name in enumerate(names)}
    labels = {name: label_of_class.get(aliases.get(name, name)) for name in found}
    label_of = {name: label for name, label in labels.items() if label is not None}
    if not label_of:
        raise DatasetError(
            f"{source}: none of the wanted classes ({quote(', '.join(names))}) "
            f"is among its own ({quote(', '.join(found))})"
        )
    unwanted = [quote(name) for name in found if name not in label_of]
    if unwanted:
        more = f" and {len(unwanted) - 5} more" if len(unwanted) > 5 else ""
        _log.warning("%s: left out the classes that are not wanted: %s%s", source, ", ".join(unwanted[:5]), more)
    return names, label_of


def label_annotations(
    image_ids: Sequence[ImageId], class_names: tuple[str, ...], labels: np.ndarray, size: Size | None = None
) -> Annotations:
    """One object an image.

    Args:
        image_ids: of N images.
        class_names: K names.
        labels: ``(N,)`` int64.
        size: of every image; None where only decoding tells, and all boxes are then zeros.
    """
    count = len(labels)
    height, width = size or (0, 0)
    none = np.zeros(count, dtype=bool)
    return Annotations(
        pack_ids(image_ids),
        class_names,
        tuple(range(1, len(class_names) + 1)),
        np.arange(count + 1, dtype=np.int64),
        labels,
        np.tile(np.array([0, 0, width, height], dtype=np.float64), (count, 1)),
        np.full(count, float(width * height)),
        none,
        none,
    )


def labelled_sample(image: np.ndarray, label: int, info: ImageInfo) -> Sample:
    """An image with its label, as the class of a box around all of it."""
    height, width = image.shape[:2]
    none = np.zeros(1, dtype=bool)
    box = np.array([[0, 0, width, height]], dtype=np.float32)
    return Sample(image, box, np.array([label], dtype=np.int64), none, none, info)
