"""The order of training: which image stands at which position of the whole run.

A run is one long sequence of positions: epoch after epoch, each a permutation of the data set. The image at a position
is a function of seed and position alone, so nothing needs to be stored to resume, and neither the number of
processes nor that of workers changes the order.
"""

from __future__ import annotations

import numpy as np

from detector.data.randomness import Purpose, random_stream


class TrainingOrder:
    """Maps positions to images.

    Args:
        wide: ``(N,)`` bool: the group of each image; a batch holds images of one group wherever the numbers allow.
        batch_size: of the whole batch; positions ``k * batch_size ..`` form batch ``k``.
        seed: of all permutations.
    """

    def __init__(self, wide: np.ndarray, batch_size: int, seed: int) -> None:
        self.wide = wide
        self.batch_size = batch_size
        self.seed = seed
        self._made: dict[int, np.ndarray] = {}  # of the epochs around the present one

    def index(self, position: int) -> int:
        """The image at a position."""
        epoch, offset = divmod(position, len(self.wide))
        return int(self._permutation(epoch)[offset])

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._made:
            self._made = {near: order for near, order in self._made.items() if abs(near - epoch) == 1}
            self._made[epoch] = self._make_permutation(epoch)
        return self._made[epoch]

    def _make_permutation(self, epoch: int) -> np.ndarray:
        """All images once; batches of one group, in random order, between those that mix leftovers.

        An epoch rarely begins at the start of a batch, so its first images complete the batch that the epoch before
        left unfinished; leftovers of both groups go there and to the end.
        """
        count, size = len(self.wide), self.batch_size
        random = random_stream(Purpose.ORDER, self.seed, epoch)
        order = random.permutation(count)
        head = min(-epoch * count % size, count)
        full: list[np.ndarray] = []
        left: list[np.ndarray] = []
        for group in (order[self.wide[order]], order[~self.wide[order]]):
            whole = len(group) // size * size
            full += np.split(group[:whole], whole // size) if whole else []
            left.append(group[whole:])
        leftovers = np.concatenate(left)
        while len(leftovers) < head:  # too few to complete the unfinished batch
            leftovers = np.concatenate([leftovers, full.pop()])
        batches = [full[number] for number in random.permutation(len(full))]
        return np.concatenate([leftovers[:head], *batches, leftovers[head:]])
