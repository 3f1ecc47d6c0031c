"""One batch of tiles through the network: pad, normalise, run.

The recipe (device, precision, batch, threads) is part of the result's provenance, because another number of threads or
another batch changes the last bits of a convolution. With the recipe fixed, the output of a tile depends on the tile's
pixels only: the default network has no style vector, and a batch is always the same consecutive tiles.

A worker keeps the network between tasks (`load_network` is cached), so that weights are read once per worker.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sketchscale.errors import InputError, SetupError
from sketchscale.intensity import normalize
from sketchscale.networks.checkpoint import Model, load_model

__all__ = ["Recipe", "load_network", "pad_tile", "run_tiles"]

Float32 = npt.NDArray[np.float32]

_PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the network is run.

    Attributes:
        device: cpu, cuda or mps.
        precision: float32; bfloat16 is about twice as fast on processors and GPUs that have it.
        batch: tiles per call; 1 is fastest on a CPU (the working set stays in the cache).
        threads: of one call on a CPU; 1, because workers share the cores.
    """

    device: str = "cpu"
    precision: str = "float32"
    batch: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        if self.precision not in _PRECISIONS:
            raise InputError.of(
                found=f"precision {self.precision!r}", expected=", ".join(_PRECISIONS), fix="change --precision"
            )
        if self.batch < 1 or self.threads < 1:
            raise InputError(f"batch {self.batch} and threads {self.threads} must be at least 1")


@functools.lru_cache(maxsize=2)
def load_network(folder: str, sha256: str, recipe: Recipe) -> Model:
    """The model on its device, read once per worker.

    Raises:
        InputError: the folder's weights are not those of the plan (`sha256`).
        SetupError: the device is absent here.
    """
    model = load_model(folder)
    if model.sha256 != sha256:
        raise InputError.of(
            found=f"model {folder} has weights {model.sha256[:12]}",
            expected=f"{sha256[:12]}, the model of the plan",
            fix="do not change a model while it is used",
        )
    check_device(recipe.device)
    model.network.to(recipe.device)
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
        tiles: each (c, tile, tile), the image's own values.
        ranges: (low, high) of each channel over the whole image; see `intensity`.

    Returns:
        (batch, 3, tile, tile) float16: flow y, flow x, distance in px.
    """
    batch = torch.from_numpy(np.stack([normalize(tile, ranges) for tile in tiles]))
    batch = batch.to(recipe.device, memory_format=torch.channels_last)
    kind = _PRECISIONS[recipe.precision]
    if recipe.device == "cpu" and torch.get_num_threads() != recipe.threads:
        torch.set_num_threads(recipe.threads)
    with torch.inference_mode(), torch.autocast(recipe.device.partition(":")[0], dtype=kind, enabled=kind is not None):
        output = model.network(batch)
    half: npt.NDArray[np.float16] = output.float().clamp(-60000, 60000).half().contiguous().cpu().numpy()
    return half
