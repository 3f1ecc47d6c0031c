"""Random changes of training patches, so that the class does not depend on orientation or intensity.

Turns by 90 degrees and flips move pixels without changing them; in volumes they act in the (y, x) plane, and flips also
along z. Turns do not mix z with y and x, because it is rarely sampled alike. Brightness, noise and blur change
intensities, never the mask; they are off by default.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from sketchscale.errors import InputError

__all__ = ["AUGMENTS", "AugmentOptions", "augmented"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentOptions:
    """Limits of the random changes of patches.

    Attributes:
        rotate: probability that a patch is turned, by 0, 90, 180 or 270 degrees.
        flip: probability that it is mirrored along x; in volumes also along z and, where nothing is turned, along y,
            drawn independently.
        brightness: intensities are multiplied by a factor within 1 +- this, and shifted by at most this.
        noise: standard deviation of Gaussian noise, in units of the normalised intensities.
        blur: largest standard deviation of a Gaussian blur along y and x, px; one is drawn per step.
    """

    rotate: float = 1.0
    flip: float = 0.5
    brightness: float = 0.0
    noise: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.rotate, self.flip, self.brightness)
        if not all(0 <= share <= 1 for share in shares) or not min(self.noise, self.blur) >= 0 or self.blur > 10:
            raise InputError.of(
                found=f"augmentation rotate {self.rotate}, flip {self.flip}, brightness {self.brightness}, "
                f"noise {self.noise}, blur {self.blur}",
                expected="0 to 1 for the first three, noise of 0 or more, blur of 0 to 10 px",
                fix="leave out options that you do not need",
            )


AUGMENTS = {
    "none": AugmentOptions(rotate=0.0, flip=0.0),
    "flips": AugmentOptions(rotate=0.0),
    "rotations": AugmentOptions(flip=0.0),
    "turns": AugmentOptions(),
    "all": AugmentOptions(brightness=0.2, noise=0.03, blur=0.8),
}
"""What users choose with --augment."""


def augmented(patches: torch.Tensor, options: AugmentOptions, rng: np.random.Generator, images: int) -> torch.Tensor:
    """Return a changed copy of some patches.

    Args:
        patches: (n, C, [s,] s, s).
        images: number of channels with intensities, which come first; the rest are masks.
    """
    moved = _moved(patches, options, rng)
    if images and options.brightness:
        factor, shift = (rng.uniform(-options.brightness, options.brightness, (len(moved), images)) for _ in range(2))
        shape = (len(moved), images, *(1,) * (moved.ndim - 2))
        changed = moved[:, :images] * _tensor(1 + factor, shape) + _tensor(shift, shape)
        moved[:, :images] = changed
    if images and options.blur:
        sigma = rng.uniform(0, options.blur)
        radius = max(1, int(3 * sigma + 0.5))
        weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / max(sigma, 1e-3)) ** 2)
        weights = weights / weights.sum()
        flat = moved[:, :images].reshape(-1, 1, *moved.shape[-2:])
        wide = functional.pad(flat, (radius, radius, radius, radius), mode="replicate")
        tall = functional.conv2d(wide, weights.reshape(1, 1, -1, 1))
        moved[:, :images] = functional.conv2d(tall, weights.reshape(1, 1, 1, -1)).reshape(moved[:, :images].shape)
    if images and options.noise:
        drawn = rng.normal(0, options.noise, (len(moved), images, *moved.shape[2:]))
        moved[:, :images] += _tensor(drawn, drawn.shape)
    return moved


def _tensor(values: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def _moved(patches: torch.Tensor, options: AugmentOptions, rng: np.random.Generator) -> torch.Tensor:
    """Return turned and mirrored patches; all patches with the same move are moved together."""
    n, solid = len(patches), patches.ndim == 5
    turns = rng.integers(0, 4, n) * (rng.random(n) < options.rotate)
    flips = (rng.random(n) < options.flip) + 2 * (solid & (rng.random(n) < options.flip))
    if not options.rotate:  # else a turn by 180 degrees and a flip along x make one along y
        flips = flips + 4 * (rng.random(n) < options.flip)
    moved = torch.empty_like(patches)
    for move in np.unique(turns + 4 * flips):
        rows = torch.from_numpy(np.flatnonzero(turns + 4 * flips == move))
        turned = torch.rot90(patches[rows], int(move) % 4, dims=(-2, -1))
        axes = [axis for axis, bit in ((-1, 4), (-3, 8), (-2, 16)) if move & bit]
        moved[rows] = turned.flip(axes)
    return moved
