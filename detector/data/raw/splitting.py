"""Images shared out over splits: what belongs together stays together, and every split gets its share of each class.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011), with groups of images in place of images and shares
measured in objects: the rarest class is dealt out first, each group of images to the split that lacks most of it.
Shape letters: N images, G groups, K classes, S splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np


def split_groups(
    groups: np.ndarray, objects: np.ndarray, names: Sequence[str], shares: Sequence[float], seed: int
) -> np.ndarray:
    """The split of each image.

    The result does not depend on the order of the images. No split has more or fewer images than its share by more
    than the largest group. When a class is dealt out, a split that has nothing of it gets a group as long as there
    are some, unless it has all its images by then.

    Args:
        groups: ``(N,)`` int64: images of one group come into one split.
        objects: ``(N, K)`` int64: how many of each class are in an image.
        names: N different names; together with the seed they decide what is left to chance.
        shares: S parts of the images, in any unit.
        seed: another one gives another split.

    Returns:
        ``(N,)`` int64, in 0 .. S - 1.
    """
    number = np.unique(groups, return_inverse=True)[1]
    deal = _Deal(_amounts(number, objects), np.asarray(shares, dtype=np.float64) / sum(shares))
    order = _order(number, names, seed)
    while (column := deal.rarest()) is not None:
        for group in order[deal.is_open(column)[order]]:
            deal.give(group, deal.neediest(group, column))
    deal.even_out(order)
    split: np.ndarray = deal.split_of[number]
    return split


def _amounts(number: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """``(G, 1 + K)``: the images of each group and its objects of each class."""
    amounts = np.zeros((number.max(initial=-1) + 1, 1 + objects.shape[1]), dtype=np.int64)
    np.add.at(amounts, number, np.column_stack([np.ones(len(number), dtype=np.int64), objects]))
    return amounts


def _order(number: np.ndarray, names: Sequence[str], seed: int) -> np.ndarray:
    """Large groups first, since they are the hardest to place; those of one size by lot."""
    lots: dict[int, bytes] = {}
    for group, name in zip(number.tolist(), names, strict=True):
        lot = blake2b(f"{seed} {name}".encode(errors="surrogatepass"), digest_size=16).digest()
        lots[group] = min(lot, lots.get(group, lot))
    sizes = np.bincount(number)
    return np.array(sorted(lots, key=lambda group: (-sizes[group], lots[group])), dtype=np.int64)


class _Deal:
    """Groups on their way into splits.

    Args:
        amounts: ``(G, 1 + K)``: images and objects of each class.
        shares: ``(S,)``, of sum 1.

    Attributes:
        split_of: ``(G,)`` int64: the split of each group; -1 where it has none yet.
    """

    def __init__(self, amounts: np.ndarray, shares: np.ndarray) -> None:
        self.split_of = np.full(len(amounts), -1)
        self._amounts = amounts
        self._wanted = shares[:, None] * amounts.sum(axis=0)
        self._need = self._wanted.copy()
        self._open = (amounts > 0).sum(axis=0)  # groups without a split that have any of a column

    def rarest(self) -> int | None:
        """The class in the fewest open groups; 0, for images, where only such without objects are left."""
        classes = [column for column in range(1, len(self._open)) if self._open[column]]
        if not classes:
            return 0 if self._open[0] else None
        return min(classes, key=lambda column: int(self._open[column]))

    def is_open(self, column: int) -> np.ndarray:
        """``(G,)`` bool: has no split yet, but something of a column."""
        return np.asarray((self.split_of < 0) & (self._amounts[:, column] > 0))

    def give(self, group: int, split: int) -> None:
        """Puts a group into a split."""
        self._open -= self._amounts[group] > 0
        self._need[split] -= self._amounts[group]
        self.split_of[group] = split

    def neediest(self, group: int, column: int) -> int:
        """Of the splits with room for half a group, the one that lacks the largest part of what it is to have.

        Once there are just enough groups for the splits that have nothing of the column, only these count.
        """
        room = self._need[:, 0]
        possible = room >= min(self._amounts[group, 0] / 2, room.max())
        without = possible & (self._need[:, column] == self._wanted[:, column])
        if 0 < self._open[column] <= without.sum():
            possible = without
        lack = self._need / np.maximum(self._wanted, 1e-9)
        return int(max(np.flatnonzero(possible), key=lambda split: (lack[split, column], lack[split, 0], room[split])))

    def even_out(self, order: np.ndarray) -> None:
        """Moves groups, the smallest first, into splits that lack more images than the largest group has."""
        largest = self._amounts[:, 0].max(initial=0)
        while self._need[:, 0].max(initial=0) > largest:
            poor, rich = int(self._need[:, 0].argmax()), int(self._need[:, 0].argmin())
            group = order[self.split_of[order] == rich][-1]
            self._need[rich] += self._amounts[group]
            self._need[poor] -= self._amounts[group]
            self.split_of[group] = poor
