"""What goes wrong while a batch is computed, in words for users."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from detector.data.loader import Batch
from detector.engine.machine import is_out_of_memory
from detector.errors import ConfigError, MachineError


@contextmanager
def update_errors(number: int, parts: Sequence[Batch]) -> Iterator[None]:
    """Turns what torch raises in the block into errors that say what to change.

    Args:
        number: of the iteration, counted from 1.
        parts: the micro-batches that are computed.

    Raises:
        MachineError: there is too little memory.
        ConfigError: a batch norm has nothing to make statistics of.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"iteration {number}: a batch norm has a single value a channel to learn from; raise "
            "training.micro_batch_size or the size of the images, or set model.backbone.norm to group"
        ) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        height, width = (max(part.images.pixels.shape[side] for part in parts) for side in (2, 3))
        raise MachineError(
            f"iteration {number}: out of memory with {len(parts[0].images)} images of up to {height} x {width} "
            "pixels at once; lower training.micro_batch_size (accumulation keeps the recipe) or data.resize; "
            "the last checkpoint is whole: start again with that setting to go on"
        ) from None
