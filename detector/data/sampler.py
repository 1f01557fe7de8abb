"""The order of training: which image stands at which position of the whole run.

A run is one long sequence of positions: epoch after epoch, each a permutation of the data set, or of what a choice
with repeats makes of it. The image at a position is a function of seed and position alone, so nothing needs to be
stored to resume, and neither the number of processes nor that of workers changes the order.
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
        repeats: ``(N,)``: how often an epoch shows each image on average; None for once.
    """

    def __init__(self, wide: np.ndarray, batch_size: int, seed: int, repeats: np.ndarray | None = None) -> None:
        self.wide = wide
        self.repeats = repeats
        self.epoch_length = len(wide) if repeats is None else max(1, round(float(repeats.sum())))
        self.batch_size = batch_size
        self.seed = seed
        self._made: dict[int, np.ndarray] = {}  # of the epochs around the present one

    def index(self, position: int) -> int:
        """The image at a position."""
        epoch, offset = divmod(position, self.epoch_length)
        return int(self._permutation(epoch)[offset])

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._made:
            self._made = {near: order for near, order in self._made.items() if abs(near - epoch) == 1}
            self._made[epoch] = self._make_permutation(epoch)
        return self._made[epoch]

    def _make_permutation(self, epoch: int) -> np.ndarray:
        """The images of an epoch; batches of one group, in random order, between those that mix leftovers.

        An epoch rarely begins at the start of a batch, so its first images complete the batch that the epoch before
        left unfinished; leftovers of both groups go there and to the end.
        """
        count, size = self.epoch_length, self.batch_size
        random = random_stream(Purpose.ORDER, self.seed, epoch)
        order = random.permutation(self._chosen(random))
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

    def _chosen(self, random: np.random.Generator) -> np.ndarray:
        """The images of an epoch, unordered: each the whole part of its repeats, and by chance once more.

        Systematic sampling: one draw places equal steps over the running sum, so that every epoch is of one length.
        """
        if self.repeats is None:
            return np.arange(len(self.wide))
        ends = np.cumsum(self.repeats)
        steps = (np.arange(self.epoch_length) + random.random()) * (ends[-1] / self.epoch_length)
        return np.asarray(np.minimum(np.searchsorted(ends, steps, side="right"), len(ends) - 1))
