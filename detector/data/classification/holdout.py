"""Which training images are kept for evaluation where no other images are given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from detector.data.classification.crops import CropsDataset
from detector.data.dataset import DetectionDataset, JoinedDataset


def without_held_out(dataset: DetectionDataset, share: float, seed: int) -> np.ndarray:
    """``(N,)`` bool: the images that stay in training.

    About the share of each class is held out, and at least one image of it stays. What one image was cut from stays
    or goes as a whole. Who goes depends on the seed and the ids of the images, not on their order.

    Args:
        dataset: of labelled images.
        share: that is held out, in 0..1.
        seed: another one holds out others.
    """
    names = _sources(dataset)
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    source = np.fromiter((number[name] for name in names), np.int64, len(names))
    rank = np.argsort(np.argsort([_hash(name, seed) for name in number], kind="stable"))
    place = rank[source]
    return np.asarray(~_choose(place, dataset.annotations.labels, share)[place])


def _sources(dataset: DetectionDataset) -> Sequence[str]:
    """What each image was cut from, by name."""
    match dataset:
        case CropsDataset():
            return dataset.sources()
        case JoinedDataset():
            return [name for part in dataset.parts for name in _sources(part)]
    return [str(image_id) for image_id in dataset.annotations.image_ids]


def _hash(name: str, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed} {name}".encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little", signed=True)


def _choose(sources: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """``(G,)`` bool: the sources that are held out.

    The rarest class comes first, and takes whole sources until it has its share (as Sechidis et al. 2011, "On the
    Stratification of Multi-label Data"); sources of one image each are so divided class by class.

    Args:
        sources: ``(N,)`` int64 of each image, 0..G-1, in the random order in which they are taken.
        labels: ``(N,)`` int64 of each image.
        share: that is held out.
    """
    total = np.bincount(labels)
    pairs, counts = np.unique(sources * len(total) + labels, return_counts=True)
    source_of, class_of = np.divmod(pairs, len(total))
    starts = np.searchsorted(source_of, np.arange(source_of[-1] + 2)).tolist()
    # Lists: a million single numbers out of arrays take ten times as long.
    members = list(zip(class_of.tolist(), counts.tolist(), strict=True))
    most = total.tolist()
    held, decided = [0] * len(most), [False] * (len(starts) - 1)
    taken = np.zeros(len(decided), dtype=bool)
    for label in np.argsort(total, kind="stable").tolist():
        for source in source_of[class_of == label].tolist():
            if decided[source]:
                continue
            decided[source] = True
            own = members[starts[source] : starts[source + 1]]
            fits = held[label] + dict(own)[label] / 2 <= share * most[label]
            if fits and all(held[member] + count < most[member] for member, count in own):
                taken[source] = True
                for member, count in own:
                    held[member] += count
    return taken
