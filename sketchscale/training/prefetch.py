"""Draw batches ahead in background threads, so that augmentation and targets take no time of a step.

The patch k of step t is drawn from the random stream (seed, t, k), so a batch is a function of (images, configuration,
seed, t) alone: drawn ahead or not, by any number of threads or processes, it is the same batch to the bit. The kernels
release Python's lock; what is left of Python in a patch takes well under a millisecond.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import torch

from sketchscale.engine import usable_cores
from sketchscale.losses import BatchTargets
from sketchscale.training.patches import PatchSource

__all__ = ["Batch", "Prefetcher", "choose_workers", "draw_batch", "move_batch", "pin_batch"]

Batch: TypeAlias = tuple[torch.Tensor, BatchTargets]
"""(n, c, y, x) and its targets."""

T = TypeVar("T")

_MOST_WORKERS = 8


def draw_batch(source: PatchSource, seed: int, step: int, which: Sequence[int]) -> Batch:
    """Return the patches `which` of a step, on the CPU; see the module."""
    return source.patches([np.random.default_rng((seed, step, k)) for k in which])


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on a device, channels last; a copy from pinned memory runs while the network computes."""
    image, targets = batch

    moved = _mapped(lambda value: value.to(device, non_blocking=True), targets)
    layout = torch.channels_last if image.ndim == 4 else torch.channels_last_3d
    return image.to(device, memory_format=layout, non_blocking=True), moved


def pin_batch(batch: Batch) -> Batch:
    """Return the batch in pinned memory, so that copies to a GPU run during computation."""
    image, targets = batch
    return image.pin_memory(), _mapped(torch.Tensor.pin_memory, targets)


def _mapped(change: Callable[[torch.Tensor], torch.Tensor], targets: BatchTargets) -> BatchTargets:
    return BatchTargets(**{f.name: change(getattr(targets, f.name)) for f in fields(BatchTargets)})


def choose_workers(wanted: int | None, device: torch.device) -> int:
    """Return the number of threads that draw ahead: as wanted, else by the usable cores; 0 on a single core."""
    if wanted is not None:
        return wanted
    cores = usable_cores()
    if cores == 1:
        return 0
    return min(_MOST_WORKERS, cores - 1) if device.type == "cuda" else 1


class Prefetcher(Generic[T]):
    """The batches of consecutive steps, drawn ahead; use it as a context, or close it.

    Args:
        draw: the batch of a step; called in any thread.
        steps: in order.
        workers: threads; as many batches and one more wait at most. 0 for none.
    """

    def __init__(self, draw: Callable[[int], T], steps: range, *, workers: int) -> None:
        self._draw, self._steps, self._ahead = draw, iter(steps), workers + 1
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="patches") if workers else None
        self._waiting: deque[Future[T]] = deque()

    def take(self) -> T:
        """Return the batch of the next step.

        Raises:
            StopIteration: there is none.
            Exception: any error of drawing it.
        """
        if self._pool is None:
            return self._draw(next(self._steps))
        self._fill(self._pool)
        if not self._waiting:
            raise StopIteration
        batch = self._waiting.popleft().result()
        self._fill(self._pool)
        return batch

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        while len(self._waiting) < self._ahead and (step := next(self._steps, None)) is not None:
            self._waiting.append(pool.submit(contextvars.copy_context().run, self._draw, step))

    def close(self) -> None:
        """Discard waiting batches; on return no thread draws any more."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
