"""One run on several processes, as torchrun starts them. With a single process everything here is a no-op."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from detector.errors import ConfigError


@dataclass(frozen=True)
class Processes:
    """A process among all of a run.

    Attributes:
        rank: 0 .. world_size - 1.
        world_size: processes of the run.
        local_rank: number of this process on its machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """The one process that writes files and talks."""
        return self.rank == 0

    def share_of(self, batch_size: int, micro_batch_size: int | None) -> int:
        """Micro-batch size of a process.

        Raises:
            ConfigError: the batch cannot be split evenly.
        """
        share, rest = divmod(batch_size, self.world_size)
        if rest:
            fitting = [count for count in range(1, batch_size + 1) if batch_size % count == 0]
            raise ConfigError(
                f"training.batch_size: {batch_size} cannot be split over {self.world_size} processes; "
                f"use {', '.join(map(str, fitting))} processes or another batch size"
            )
        micro = min(micro_batch_size or share, share)
        if share % micro:
            raise ConfigError(f"training.micro_batch_size: {micro} does not divide the {share} images of each process")
        return micro

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        if self.world_size > 1:
            dist.all_reduce(values)
            values = values / self.world_size
        return values

    def gather(self, value: Any) -> list[Any]:
        """What each process holds, by rank."""
        if self.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, value)
        return gathered

    def from_main(self, value: Any) -> Any:
        """What the main process holds."""
        if self.world_size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Joins the other processes if torchrun has started this one, and leaves them at the end."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Processes()
        return
    processes = Processes(
        int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", "0"))
    )
    if torch.cuda.is_available():
        torch.cuda.set_device(processes.local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield processes
    finally:
        dist.destroy_process_group()
