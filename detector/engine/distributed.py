"""One run on several processes, as torchrun starts them. With a single process everything here is a no-op."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from detector.errors import ConfigError, DetectorError, FailedElsewhere, WorkerError

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True)
class Processes:
    """A process among all of a run.

    Attributes:
        rank: 0 .. world_size - 1.
        world_size: processes of the run.
        local_rank: number of this process on its machine.
        store: what all of them can read and write at any time; None if there is one process only.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    store: Store | None = None

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

    def take_buffers_of_main(self, model: nn.Module) -> None:
        """Gives all processes the main one's running statistics, which each has from its own images."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in some process. The message goes from CPU to CPU: no GPU waits for it."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor([float(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def agree(self, problem: DetectorError | None) -> None:
        """Fails in all processes if one of them has a problem, so that none goes on and waits for the others.

        Args:
            problem: of this process.

        Raises:
            DetectorError: this process's own problem, if it is the first that has one.
            FailedElsewhere: in all others.
        """
        if not self.any(problem is not None):
            return
        told = self.gather(None if problem is None else (str(problem), problem.exit_code))
        rank, (message, code) = next((rank, item) for rank, item in enumerate(told) if item)
        if problem is not None and rank == self.rank:
            raise problem
        raise FailedElsewhere(f"process {rank}: {message}", code)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What goes wrong for one process in this block ends all of them at its end."""
        problem = None
        try:
            yield
        except DetectorError as error:
            problem = error
        self.agree(problem)

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

    def shared_flag(self) -> SharedFlag:
        """A new flag that any process may set; all have to make it at the same point of the program."""
        return SharedFlag(self.store)


class SharedFlag:
    """Set by one process, seen by all, without any of them waiting for another."""

    _made = 0

    def __init__(self, store: Store | None) -> None:
        SharedFlag._made += 1
        self._key = f"flag-{SharedFlag._made}"
        self._store = store
        self._set = False

    def set(self) -> None:
        """From now on the flag is set."""
        if self._store is not None and not self._set:
            self._store.set(self._key, "1")
        self._set = True

    def is_set(self) -> bool:
        """Whether some process has set it."""
        self._set = self._set or (self._store is not None and self._store.check([self._key]))
        return self._set


@contextmanager
def join_processes(timeout: int) -> Iterator[Processes]:
    """Joins the other processes if torchrun has started this one, and leaves them at the end.

    Args:
        timeout: seconds after which a process that does not answer counts as lost.

    Raises:
        WorkerError: another process was lost.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Processes()
        return
    rank, world_size, local_rank = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    _end_with_parent()
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    try:
        store = _connect(rank, world_size, timedelta(seconds=timeout))
        yield Processes(rank, world_size, local_rank, store)
    except (RuntimeError, TimeoutError) as error:
        if not _is_about_others(error):
            raise
        raise WorkerError(
            f"process {rank} of {world_size} lost contact to the others ({str(error).splitlines()[0][:200]}); see "
            "their messages; under torchrun --max-restarts, or started again, the run resumes from its last checkpoint"
        ) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _connect(rank: int, world_size: int, timeout: timedelta) -> Store:
    """Meets the others.

    torchrun hands all its attempts one store, in which a restarted process would find the addresses of dead ones
    (pytorch issue 135712); each attempt gets its own corner of it here.
    """
    store, _, _ = next(rendezvous("env://", rank, world_size, timeout=timeout))
    store.set_timeout(timeout)
    attempt = f"{os.environ.get('TORCHELASTIC_RUN_ID', '')}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=PrefixStore(f"{attempt}/group", store),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
    )
    return PrefixStore(f"{attempt}/run", store)


def _is_about_others(error: BaseException) -> bool:
    text = str(error).lower()
    signs = ("connection", "gloo", "nccl", "timed out", "timeout", "processgroup", "socket")
    return isinstance(error, dist.DistError) or any(sign in text for sign in signs)


def _end_with_parent() -> None:
    """Asks Linux to send SIGTERM when torchrun dies: the run is then saved, instead of training on without a keeper."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
