"""Connect several processes that train one network, as `torchrun` starts them.

Every process holds the whole network and draws its share of the batch of a step, so that the batch is the same whatever
the number of processes. Losses and gradients are averaged over the processes; the losses divide by what is annotated
in the whole batch (see losses.base), so the mean is what one process would have found. Decisions that depend on clocks,
files or signals are taken together, before each step.

Rank, number of processes and meeting point come from the environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT,
LOCAL_RANK). CUDA tensors travel by NCCL, all else by gloo.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed

from sketchscale.errors import InputError, SketchscaleError

__all__ = ["World", "is_first_process", "join_world", "was_restarted"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among those that train together; a single process gets its own values back."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports for all."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Return which of `count` patches this process draws.

        Raises:
            InputError: there are fewer patches than processes.

        >>> World(rank=1, size=2).share(5)
        range(2, 5)
        """
        if count < self.size:
            raise InputError.of(
                found=f"{count} patches a step for {self.size} processes",
                expected="at least one patch for each",
                fix=f"--batch {self.size}, or fewer processes",
            )
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def largest(self, values: Sequence[float]) -> list[float]:
        """Return for each value the largest of all processes."""
        if self.size == 1:
            return [float(v) for v in values]
        both = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(both, distributed.ReduceOp.MAX)
        return both.tolist()

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors of all processes in their order; all have one shape and type."""
        if self.size == 1:
            return [values]
        found = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(found, values)
        return found

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors of one type by their means over all processes, in one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        distributed.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [t.numel() for t in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def first_says(self, value: _T) -> _T:
        """Return the value of the first process in all processes; it is sent as a pickle."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def first_does(self, work: Callable[[], _T]) -> _T:
        """Do work in the first process, and return its result in all; the others wait and need no access to its files.

        Raises:
            SketchscaleError: the work raised it; it is raised in all processes.

        >>> World().first_does(lambda: 3)
        3
        """
        made: list[_T] = []
        error: SketchscaleError | None = None
        if self.first:
            try:
                made = [work()]
            except SketchscaleError as problem:
                error = problem
        made, error = self.first_says((made, error))
        if error is not None:
            raise error
        return made[0]

    def all_do(self, work: Callable[[], object]) -> None:
        """Do work in every process.

        Raises:
            SketchscaleError: raised in all processes when one fails; of several errors that of the lowest rank.
        """
        error: SketchscaleError | None = None
        try:
            work()
        except SketchscaleError as problem:
            error = problem
        errors: list[SketchscaleError | None] = [error] * self.size
        if self.size > 1:
            distributed.all_gather_object(errors, error)
        for found in errors:
            if found is not None:
                raise found


def is_first_process() -> bool:
    """Return whether this process is alone or the first of several, by the environment variables."""
    return os.environ.get("RANK", "0") == "0"


def was_restarted() -> bool:
    """Return whether torchrun (`--max-restarts`) started these processes again because one of them had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the other processes that the environment names; a process without others is alone.

    With CUDA each process takes the GPU of its LOCAL_RANK. A group that was made before is used and left as it is.
    """
    if distributed.is_available() and distributed.is_initialized():
        yield World(rank=distributed.get_rank(), size=distributed.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank=distributed.get_rank(), size=distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
