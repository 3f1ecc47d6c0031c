"""One batch of tiles through the network: pad, normalise, run.

The recipe (device, precision, batch, threads) is part of the result's provenance, because another number of threads or
another batch changes the last bits of a convolution. With the recipe fixed, the output of a tile depends on the tile's
pixels only: the default network has no style vector, and a batch is always the same consecutive tiles.

A worker keeps the network between tasks (`load_network` is cached), so that weights are read once per worker. Where an
engine lets some tasks of a worker overlap, they take turns at the network (engine/turns.py): one reads, one runs it,
one writes.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from sketchscale.engine.turns import turn
from sketchscale.errors import InputError, SetupError
from sketchscale.intensity import normalize
from sketchscale.networks.checkpoint import Model, load_model
from sketchscale.networks.precision import autocast

__all__ = ["Recipe", "load_network", "pad_tile", "run_tiles", "running"]

Float32 = npt.NDArray[np.float32]

_PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the network is run.

    Attributes:
        device: cpu, cuda or mps.
        precision: float32, bfloat16 or float16; which of the first two is faster here, see networks.precision.
        batch: tiles per call; 1 is fastest on a CPU (the working set stays in the cache).
        threads: of one call on a CPU; 1, because workers share the cores.
        flips: the mean over this many mirrored copies of a tile: 1, 4 (both axes) or 8 (and transposed).
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


def load_network(folder: str, sha256: str, recipe: Recipe) -> Model:
    """The model on its device, read once per worker, whatever the number of its threads.

    Raises:
        InputError: the folder's weights are not those of the plan (`sha256`).
        SetupError: the device is absent here.
    """
    with _LOADING:
        return _loaded(folder, sha256, recipe)


@functools.lru_cache(maxsize=2)
def _loaded(folder: str, sha256: str, recipe: Recipe) -> Model:
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
    return model


def check_device(device: str) -> None:
    """Refuse a device that is not here, rather than run somewhere else.

    Raises:
        SetupError: with the devices there are.
    """
    present = ["cpu"]
    if torch.cuda.is_available():
        present.append("cuda")
    if torch.backends.mps.is_available():
        present.append("mps")
    if device.partition(":")[0] not in present:
        raise SetupError(f"device {device!r} is absent; expected: one of {', '.join(present)}; to fix: change --device")


def pad_tile(pixels: npt.NDArray[np.generic], tile: int) -> npt.NDArray[np.generic]:
    """Mirror a tile that the image's far edges cut, (c, y, x), to full size.

    >>> pad_tile(np.array([[[1, 2]]]), 4)[0, 0]
    array([1, 2, 2, 1])
    """
    missing = [(0, 0)] + [(0, tile - n) for n in pixels.shape[1:]]
    return np.pad(pixels, missing, mode="symmetric")


def run_tiles(
    model: Model,
    recipe: Recipe,
    tiles: Sequence[npt.NDArray[np.generic]],
    ranges: Sequence[tuple[float, float]],
) -> npt.NDArray[np.float16]:
    """Fields of a batch of tiles.

    Args:
        tiles: each (c, tile, tile), the image's own values; channels that the model allows to be absent count as 0.
        ranges: (low, high) of each channel over the whole image; see `intensity`.

    Returns:
        (batch, 3, tile, tile) float16: flow y, flow x, distance in px; or v, h, m.
    """
    absent = model.config.network.channels - len(ranges)
    pixels = torch.from_numpy(np.stack([normalize(tile, ranges) for tile in tiles]))
    pixels = functional.pad(pixels, (0, 0, 0, 0, 0, absent))
    with running(recipe):
        batch = pixels.to(recipe.device, memory_format=torch.channels_last)
        output = mean_over_flips(lambda seen: model.fields(model.network(seen)), batch, recipe.flips)
        output[:, :2] /= model.config.flow_scale
        half: npt.NDArray[np.float16] = output.clamp(-60000, 60000).half().contiguous().cpu().numpy()
    return half


@contextmanager
def running(recipe: Recipe) -> Iterator[None]:
    """Torch as the recipe says, in this task's turn: threads, precision, and no gradients."""
    with turn():
        if recipe.device == "cpu" and torch.get_num_threads() != recipe.threads:
            torch.set_num_threads(recipe.threads)
        with torch.inference_mode(), autocast(recipe.device, recipe.precision):
            yield


def mean_over_flips(network: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor, flips: int) -> torch.Tensor:
    """Fields of the mean of mirrored copies, each turned back: vectors change sign along a mirrored axis.

    Args:
        network: (n, c, y, x) to (n, 3 or more, y, x): flow y, flow x, distance, or v, h, m, which turn as flow does;
            further outputs are left out.
        batch: (n, c, side, side).
        flips: 1 (the network's own output), 4 (mirrored along y, x and both) or 8 (the same of the transposed tile).

    Returns:
        (n, 3, side, side) float32. Terms are added in a fixed order.
    """
    if flips == 1:
        return network(batch)[:, :3].float()
    total = torch.zeros((), device=batch.device)
    for swap in (False, True)[: 1 + (flips == 8)]:
        turned = batch.transpose(2, 3) if swap else batch
        for axes in ((), (2,), (3,), (2, 3))[: min(flips, 4)]:
            seen = turned.flip(axes).contiguous(memory_format=torch.channels_last)
            fields = network(seen)[:, :3].float().flip(axes)
            sign = [-1.0 if 2 in axes else 1.0, -1.0 if 3 in axes else 1.0, 1.0]
            fields = fields * torch.tensor(sign, device=fields.device).reshape(1, 3, 1, 1)
            if swap:
                fields = fields[:, [1, 0, 2]].transpose(2, 3)
            total = total + fields
    return total / flips
