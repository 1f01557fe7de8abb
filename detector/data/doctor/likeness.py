"""Images that are the same or nearly the same, within a split and across splits.

Images are compared as thumbnails of 32 x 32 gray pixels, all with all, in blocks. Before that, each pixel is put in
relation to its surroundings, so that brightness, contrast and shadows do not count, and no single edge decides. What
counts is how well two thumbnails correlate where they overlap, one of them moved by up to a fifth of its side or
mirrored. Shape letters: N images, P pairs, W x W a thumbnail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from PIL import Image
from tqdm import tqdm

from detector.data.findings import Finding
from detector.data.raw.structure import RawSet
from detector.errors import quote
from detector.structures import Size

DECODED_SIDE = 128  # a JPEG decoded smaller than this gives too coarse a thumbnail
_SIDE = 32

# Measured: overlapping views of blood cells correlate by 0.92 and more, others by 0.59 at most; unrelated photographs
# by 0.64 at most, quarters of them by 0.76.
_ALIKE = 0.8
# Of the coarse comparison that chooses what is compared finely; overlapping views reach 0.65.
_CANDIDATE = 0.6
_STEP = 3  # pixels between the moves that are tried, and the side of a coarse cell
_REACH = 6
# Copies in another quality or size differ by at most 7 levels in a pixel and 1.1 in the quadratic mean.
_SAME_PIXEL, _SAME_MEAN = 8, 1.5
# Contrast that is noise counts as none: of a thumbnail in gray levels, and of what correlates.
_FAINT, _FLAT = 5.0, 0.05
_BLOCK = 1024
# Frames of a film are all alike: within so large a group, further pairs are not looked for.
_LARGE_GROUP = 50


@dataclass(frozen=True)
class Pair:
    """Two images that are alike; of several equal files, only the first is paired with what is nearly the same.

    Attributes:
        first: index of an image.
        second: index of a later image.
        same: equal files, or equal pixels but for their number and the losses of compression; else nearly the same.
    """

    first: int
    second: int
    same: bool


def thumbnail(pixels: np.ndarray, size: Size) -> np.ndarray:
    """An image as ``find_alike`` compares it: ``(32, 32)`` uint8, gray, each pixel the exact mean of its share.

    Args:
        pixels: ``(H, W, 3)`` uint8, RGB, as ``read_reduced`` gives it for a short side of ``DECODED_SIDE``.
        size: of the whole image; what was decoded at an eighth may end in pixels that are padded.
    """
    gray = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float32)
    factor = min((1, 2, 4, 8), key=lambda factor: abs(-(-size.height // factor) - len(pixels)))
    rows, columns = (_shares(have, min(have, side / factor)) for have, side in zip(gray.shape, size, strict=True))
    return np.asarray(np.rint(rows @ gray @ columns.T).clip(0, 255), dtype=np.uint8)


def _shares(count: int, extent: float) -> np.ndarray:
    """``(32, count)``: how much of each pixel belongs to each part of the extent."""
    edges, pixel = np.linspace(0, extent, _SIDE + 1)[:, None], np.arange(count)
    overlap = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    shares = overlap.clip(0)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), dtype=np.float32)


def find_alike(thumbnails: np.ndarray, digests: Sequence[bytes]) -> list[Pair]:
    """All pairs of images that are alike, by rising indices.

    An image of one colour is like no other, unless their files are equal. Mirrored images are nearly the same: a
    training with mirroring shows them as they are. Within a group of more than 50 images some pairs may be left out;
    the group is whole.

    Args:
        thumbnails: ``(N, 32, 32)`` uint8.
        digests: N hashes of the files; images without one are left out.
    """
    pairs, first_of = [], dict[bytes, int]()
    for image, digest in enumerate(digests):
        if digest and first_of.setdefault(digest, image) != image:
            pairs.append(Pair(first_of[digest], image, True))
    images = sorted(first_of.values())
    search = _Search(thumbnails[images])
    search.run()
    pairs += [Pair(images[first], images[second], same) for (first, second), same in search.found.items()]
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def groups(pairs: Sequence[Pair], count: int) -> np.ndarray:
    """``(count,)`` int64: the group of each image, numbered by first images; alike ones share it, and those like them.

    Args:
        pairs: of alike images.
        count: of images.
    """
    joined = _Groups(count)
    for pair in pairs:
        joined.join(pair.first, pair.second)
    _, first, number = np.unique(joined.label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


class _Groups:
    """Groups that grow.

    Attributes:
        label: ``(N,)`` int64: the same within a group.
        size: ``(N,)`` int64: by label.
    """

    def __init__(self, count: int) -> None:
        self.label = np.arange(count)
        self.size = np.ones(count, dtype=np.int64)
        self._members = {number: [number] for number in range(count)}

    def join(self, first: int, second: int) -> None:
        """Makes two groups one."""
        keep, lose = self.label[first], self.label[second]
        if keep == lose:
            return
        if self.size[keep] < self.size[lose]:
            keep, lose = lose, keep
        members = self._members.pop(lose)
        self.label[members] = keep
        self.size[keep] += len(members)
        self._members[keep] += members


class _Search:
    """Compares all thumbnails with all.

    Attributes:
        found: whether the same, by a pair's indices.
    """

    def __init__(self, thumbnails: np.ndarray) -> None:
        self.found: dict[tuple[int, int], bool] = {}
        self._thumbnails = thumbnails
        self._contrast = _local_contrast(thumbnails)
        self._groups = _Groups(len(thumbnails))

    def run(self) -> None:
        """Looks for pairs under each move, and among mirrored images."""
        moves = range(-_REACH, _REACH + 1, _STEP)
        poses = [(y, x, False) for y in moves for x in moves] + [(0, 0, True)]
        few = len(self._contrast) <= _BLOCK
        for y, x, mirrored in tqdm(poses, "near-duplicates", leave=False, disable=True if few else None):
            others = self._contrast[:, :, ::-1] if mirrored else self._contrast
            for first, second in _candidates(_coarse(self._contrast, y, x), _coarse(others, -y, -x)):
                for start in range(0, len(first), _BLOCK):
                    self._compare(first[start : start + _BLOCK], second[start : start + _BLOCK], y, x, mirrored)

    def _compare(self, first: np.ndarray, second: np.ndarray, y: int, x: int, mirrored: bool) -> None:
        label, size = self._groups.label, self._groups.size
        new = (label[first] != label[second]) | (size[label[first]] <= _LARGE_GROUP)
        first, second = first[new], second[new]
        if not len(first):
            return
        ours, theirs = self._contrast[first], self._contrast[second, :, :: -1 if mirrored else 1]
        best = np.max([_correlation(ours, theirs, y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], axis=0)
        same = np.zeros(len(first), dtype=bool)
        if (y, x, mirrored) == (0, 0, False):
            change = np.abs(self._thumbnails[first].astype(np.float32) - self._thumbnails[second]).reshape(-1, _SIDE**2)
            same = (change.max(axis=1) <= _SAME_PIXEL) & (np.sqrt((change**2).mean(axis=1)) <= _SAME_MEAN)
        for place in np.flatnonzero(best >= _ALIKE):
            pair = int(first[place]), int(second[place])
            self.found[pair] = self.found.get(pair, False) or bool(same[place])
            self._groups.join(*pair)


def _local_contrast(thumbnails: np.ndarray) -> np.ndarray:
    """``(N, W, W)`` float16: smoothed by a pixel, less the mean of 9 x 9, by the deviation from that mean there."""
    result = np.zeros(thumbnails.shape, dtype=np.float16)
    for start in range(0, len(thumbnails), _BLOCK):
        gray = thumbnails[start : start + _BLOCK].astype(np.float32)
        smooth = gray
        for axis in (1, 2):
            smooth = _weighted(smooth, (1, 4, 6, 4, 1), axis)
        detail = smooth - _surroundings(gray)
        result[start : start + _BLOCK] = detail / (np.sqrt(_surroundings(detail**2)) + _FAINT)
    return result


def _surroundings(values: np.ndarray) -> np.ndarray:
    return _weighted(_weighted(values, (1,) * 9, 1), (1,) * 9, 2)


def _weighted(values: np.ndarray, weights: Sequence[int], axis: int) -> np.ndarray:
    """A weighted mean of neighbours along an axis; the outermost pixels go on beyond the edge."""
    reach, length = len(weights) // 2, values.shape[axis]
    padded = np.pad(values, [(reach, reach) if at == axis else (0, 0) for at in range(3)], mode="edge")
    total = np.zeros_like(values)
    for place, weight in enumerate(weights):
        total += weight * np.take(padded, range(place, place + length), axis=axis)
    return total / sum(weights)


def _overlap(values: np.ndarray, y: int, x: int) -> np.ndarray:
    """What a thumbnail shares with one that lies y lower and x further right in it."""
    part: np.ndarray = values[:, max(y, 0) : _SIDE + min(y, 0), max(x, 0) : _SIDE + min(x, 0)]
    return part


def _coarse(contrast: np.ndarray, y: int, x: int) -> np.ndarray:
    """The overlap as unit vectors of ``_STEP``-pixel cells, float32; zero where it is flat."""
    part = _overlap(contrast, y, x)
    rows, columns = part.shape[1] // _STEP, part.shape[2] // _STEP
    top, left = (part.shape[1] - rows * _STEP) // 2, (part.shape[2] - columns * _STEP) // 2
    part = part[:, top : top + rows * _STEP, left : left + columns * _STEP]
    cells = part.reshape(-1, rows, _STEP, columns, _STEP).mean(axis=(2, 4), dtype=np.float32)
    return _unit(cells.reshape(len(part), rows * columns))


def _correlation(first: np.ndarray, second: np.ndarray, y: int, x: int) -> np.ndarray:
    """``(P,)``: of the overlaps, pair by pair."""
    one, other = (_overlap(*item).reshape(len(first), -1) for item in ((first, y, x), (second, -y, -x)))
    return np.asarray(np.einsum("pi,pi->p", _unit(one.astype(np.float32)), _unit(other.astype(np.float32))))


def _unit(vectors: np.ndarray) -> np.ndarray:
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(length, _FLAT * np.sqrt(vectors.shape[1])))


def _candidates(ours: np.ndarray, theirs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of pairs, the first below the second, block by block: the scores of all would not fit into memory."""
    for top in range(0, len(ours), _BLOCK):
        for left in range(top, len(ours), _BLOCK):
            scores = ours[top : top + _BLOCK] @ theirs[left : left + _BLOCK].T
            first, second = np.divmod(np.flatnonzero(scores > _CANDIDATE), scores.shape[1])
            later = first + top < second + left
            yield first[later] + top, second[later] + left


def check_likeness(raws: Sequence[RawSet], pairs: Sequence[Pair]) -> list[Finding]:
    """Images that are there twice: a finding for each image of each kind, which names one of its partners.

    A pair that one split holds is not told again as one of two splits, such as VOC's train and trainval; a file that
    two splits list is left to ``check_splits``.

    Args:
        raws: the splits; the first is the one to train on.
        pairs: of images counted through all splits.
    """
    files = [_file(raw, name) for raw in raws for name in raw.file_names]
    places = [(number, image) for number, raw in enumerate(raws) for image in range(len(raw))]
    homes: dict[str, list[tuple[int, int]]] = {}
    # A name that leaves the folder is refused, and makes no file a member of the split.
    unsafe = {(number, image) for number, raw in enumerate(raws) for image in raw.unsafe_images()}
    for file, place in zip(files, places, strict=True):
        if place not in unsafe:
            homes.setdefault(file, []).append(place)
    partners: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
    for pair in pairs:
        ours, theirs = homes[files[pair.first]], homes[files[pair.second]]
        together = {split for split, _ in ours} & {split for split, _ in theirs}
        for home, other_home in product(ours, theirs) if ours is not theirs else ():
            (split, image), (other, partner) = sorted((home, other_home))
            if split == other:
                kind = "image-twice" if pair.same else "image-nearly-twice"
                partners.setdefault((kind, split, partner), []).append((split, image))
            elif not {split, other} & together:
                kind = "image-in-two-splits" if pair.same else "image-nearly-in-two-splits"
                partners.setdefault((kind, split, image), []).append((other, partner))
    return [_finding(raws, *key, found) for key, found in sorted(partners.items(), key=lambda item: item[0][1:])]


def _file(raw: RawSet, name: str) -> str:
    return os.path.normpath(os.path.join(os.path.realpath(raw.folder), name))


def _finding(raws: Sequence[RawSet], kind: str, split: int, image: int, found: Sequence[tuple[int, int]]) -> Finding:
    other, partner = min(found)
    what = f"{'nearly ' if 'nearly' in kind else ''}the same picture as {quote(raws[other].file_names[partner], 120)}"
    what += f" in {quote(raws[other].split)}" if other != split else ""
    more = len(set(found)) - 1
    finding = raws[split].about_image(kind, image, what + (f" and {more} more" if more else ""))
    return replace(finding, other=raws[other].path(partner))
