"""Run a network over tiles: the one way for every part of the system.

The recipe (device, precision, batch, threads) belongs to the result's provenance, because another number of threads or
another batch changes the last bits of a convolution. With a fixed recipe, the output of a tile depends on the tile's
pixels only: the default network has no style vector, and a batch is always the same consecutive tiles.

A worker keeps the network between tasks (`load_backend` is cached), so that it reads weights once. Where an engine
overlaps the tasks of a worker, they take turns at the network (engine/turns.py): one reads, one predicts, one writes.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from sketchscale.engine.turns import turn
from sketchscale.errors import InputError, SetupError
from sketchscale.intensity import normalize
from sketchscale.networks.checkpoint import Model, load_model
from sketchscale.networks.precision import autocast

__all__ = [
    "Backend",
    "Recipe",
    "TorchBackend",
    "check_device",
    "load_backend",
    "mean_over_flips",
    "run_tiles",
    "running",
]

Float32 = npt.NDArray[np.float32]

_PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to run a network.

    Attributes:
        device: cpu, cuda or mps.
        precision: float32, bfloat16 or float16; networks.precision measures which of the first two is faster.
        batch: tiles per call; 1 is fastest on a CPU (the working set stays in the cache).
        threads: of one call on a CPU; 1, because workers share the cores.
        flips: number of mirrored copies of a tile to average: 1, 4 (both axes) or 8 (and transposed).
    """

    device: str = "cpu"
    precision: str = "float32"
    batch: int = 1
    threads: int = 1
    flips: int = 1

    def __post_init__(self) -> None:
        if self.precision not in _PRECISIONS:
            raise InputError.of(
                found=f"precision {self.precision!r}", expected=", ".join(_PRECISIONS), fix="change --precision"
            )
        if self.batch < 1 or self.threads < 1:
            raise InputError(f"batch {self.batch} and threads {self.threads} must be at least 1")
        if self.flips not in (1, 4, 8):
            raise InputError.of(found=f"flips {self.flips}", expected="1, 4 or 8", fix="change --flips")


_LOADING = threading.Lock()


def load_backend(folder: str, sha256: str, recipe: Recipe) -> TorchBackend:
    """Return the model on its device, ready to run; a worker reads it once, for all its threads.

    Raises:
        InputError: the folder's weights are not those of the plan (`sha256`).
        SetupError: this machine has no such device.
    """
    with _LOADING:
        return _loaded(folder, sha256, recipe)


@functools.lru_cache(maxsize=2)
def _loaded(folder: str, sha256: str, recipe: Recipe) -> TorchBackend:
    model = load_model(folder)
    if model.sha256 != sha256:
        raise InputError.of(
            found=f"model {folder} has weights {model.sha256[:12]}",
            expected=f"{sha256[:12]}, the model of the plan",
            fix="do not change a model while it is used",
        )
    check_device(recipe.device)
    model.network.to(recipe.device)
    if model.config.network.dim == 2:
        model.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchBackend(model=model, recipe=recipe)


def check_device(device: str) -> None:
    """Check that this machine has a device.

    Raises:
        SetupError: it has not; lists the devices it has.
    """
    present = ["cpu"]
    if torch.cuda.is_available():
        present.append("cuda")
    if torch.backends.mps.is_available():
        present.append("mps")
    if device.partition(":")[0] not in present:
        raise SetupError(f"device {device!r} is absent; expected: one of {', '.join(present)}; to fix: change --device")


class Backend(Protocol):
    """Runs a network over batches of tiles; torch is the only implementation so far."""

    @property
    def batch(self) -> int:
        """Number of tiles per call."""
        ...

    def run(self, tiles: Float32) -> npt.NDArray[np.float16]:
        """Return the fields of one batch.

        Args:
            tiles: (batch, c, *tile), normalised.

        Returns:
            (batch, axes + 1, *tile) float16: flow along each axis, distance in px; or v, h, m.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchBackend:
    """A model that torch runs by a recipe; absent channels that the model allows count as 0."""

    model: Model
    recipe: Recipe

    @property
    def batch(self) -> int:
        """See `Backend`."""
        return self.recipe.batch

    def run(self, tiles: Float32) -> npt.NDArray[np.float16]:
        """See `Backend`."""
        config = self.model.config
        axes = config.network.dim
        absent = config.network.channels - tiles.shape[1]
        pixels = functional.pad(torch.from_numpy(tiles), (0, 0) * axes + (0, absent))
        layout = torch.channels_last if axes == 2 else torch.preserve_format
        with running(self.recipe):
            batch = pixels.to(self.recipe.device, memory_format=layout)
            output = mean_over_flips(lambda seen: self.model.fields(self.model.network(seen)), batch, self.recipe.flips)
            output[:, :axes] /= config.flow_scale
            if config.network.anisotropy != 1:  # a unit vector in space, as a step in voxels
                output[:, 0] /= config.network.anisotropy
            half: npt.NDArray[np.float16] = output.clamp(-60000, 60000).half().contiguous().cpu().numpy()
        return half


def run_tiles(
    backend: Backend, tiles: Sequence[npt.NDArray[np.generic]], ranges: Sequence[tuple[float, float]]
) -> npt.NDArray[np.float16]:
    """Return the fields of tiles: the one way to run a network over an image.

    Args:
        tiles: each (c, *tile), values of the image; the last tile fills the last batch.
        ranges: (low, high) of each channel over the whole image; see `intensity`.

    Returns:
        (tiles, axes + 1, *tile) float16.

    Raises:
        InputError: the network's output is not finite.
    """
    found = []
    for first in range(0, len(tiles), backend.batch):
        group = [normalize(tile, ranges) for tile in tiles[first : first + backend.batch]]
        group += [group[-1]] * (backend.batch - len(group))
        found.append(backend.run(np.stack(group)))
    fields = np.concatenate(found)[: len(tiles)]
    if not np.isfinite(fields).all():
        raise InputError.of(
            found="an output of the network that is not finite",
            expected="finite fields",
            fix="use another model, or --precision float32",
        )
    return fields


@contextmanager
def running(recipe: Recipe) -> Iterator[None]:
    """Set up torch by the recipe, in this task's turn: threads, precision, and no gradients."""
    with turn():
        if recipe.device == "cpu" and torch.get_num_threads() != recipe.threads:
            torch.set_num_threads(recipe.threads)
        with torch.inference_mode(), autocast(recipe.device, recipe.precision):
            yield


def mean_over_flips(network: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor, flips: int) -> torch.Tensor:
    """Return the mean of the fields of mirrored copies, each turned back: flow changes sign along a mirrored axis.

    Args:
        network: (n, c, ...) to (n, axes + 1 or more, ...): flow along each axis, distance; or v, h, m, which turn like
            flow. Further outputs are left out.
        batch: (n, c, y, x) or (n, c, z, y, x); y and x have the same length for 8 flips.
        flips: 1 (the network's own output), 4 (mirrored along y, x and both) or 8 (also of the transposed tile).

    Returns:
        (n, axes + 1, ...) float32. Terms are added in a fixed order.
    """
    axes = batch.ndim - 2
    if flips == 1:
        return network(batch)[:, : axes + 1].float()
    y, x = axes - 2, axes - 1  # channels of their flow
    layout = torch.channels_last if axes == 2 else torch.contiguous_format
    exchanged = [*range(axes - 2), x, y, axes]
    total = torch.zeros((), device=batch.device)
    for swap in (False, True)[: 1 + (flips == 8)]:
        turned = batch.transpose(-2, -1) if swap else batch
        for mirrored in ((), (-2,), (-1,), (-2, -1))[: min(flips, 4)]:
            seen = turned.flip(mirrored).contiguous(memory_format=layout)
            fields = network(seen)[:, : axes + 1].float().flip(mirrored)
            sign = torch.ones(axes + 1, device=fields.device)
            sign[[channel for channel, axis in ((y, -2), (x, -1)) if axis in mirrored]] = -1
            fields = fields * sign.reshape(1, -1, *(1,) * axes)
            if swap:
                fields = fields[:, exchanged].transpose(-2, -1)
            total = total + fields
    return total / flips
