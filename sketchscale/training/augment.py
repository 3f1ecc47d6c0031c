"""Turn, scale and re-expose patches: image and annotation together, so that targets are computed afterwards.

Vectors are never turned, and distances never scaled: flow and distance are computed from the moved annotation, so that
every affine map is allowed. Labels are sampled by nearest neighbour, the image bilinearly; beyond the image it
continues as its mirror image, and the annotation says "beyond".

Of a volume, sections are flipped and turned by quarters, and their order is reversed; nothing is scaled or stretched,
so that strokes in single planes stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sketchscale.annotations.targets import BEYOND
from sketchscale.errors import InputError

__all__ = ["AUGMENTS", "AugmentConfig", "Pose", "draw_pose", "expose", "mirrored_codes", "sample_patch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """How much patches vary.

    Attributes:
        turn: flips and quarter turns.
        scale: range of the isotropic scale, drawn evenly in the logarithm.
        small_scale: upper end of the scale for images whose objects are below `small_px` across: they are the hard
            part, and larger copies of them teach shape.
        small_px: see above; the median over annotated objects.
        plain: share of patches taken at scale 1, free of interpolation.
        gain: range of the contrast factor, drawn evenly in the logarithm; wide, so that a dim field on a bright
            plate is still read.
        gamma: range of the exponent.
        offset: largest shift of the background, in units of the normalised range.
        noise: largest standard deviation of white noise, in the same units.
        blur: largest sigma in px; every third patch is blurred.
        rotate: turns by any angle, in addition to quarter turns; not of plain patches.
        stretch: largest ratio of the two axes of a stretch in any direction, 1 for none; not of plain patches.
        invert: share of patches with dark and bright exchanged.
        tint: range of a factor and of an exponent of each channel of its own, both drawn evenly in the logarithm.
        shuffle: share of patches whose channels are permuted.
        grey: share of patches of several channels shown as their mean in the first channel, with 0 in the others.
    """

    turn: bool = True
    scale: tuple[float, float] = (0.7, 1.4)
    small_scale: float = 2.0
    small_px: float = 14.0
    plain: float = 0.3
    gain: tuple[float, float] = (0.5, 1.4)
    gamma: tuple[float, float] = (0.75, 1.35)
    offset: float = 0.05
    noise: float = 0.04
    blur: float = 0.8
    rotate: bool = False
    stretch: float = 1.0
    invert: float = 0.0
    tint: tuple[float, float] = (1.0, 1.0)
    shuffle: float = 0.0
    grey: float = 0.0

    def __post_init__(self) -> None:
        for name in ("scale", "gain", "gamma", "tint"):
            pair = tuple(float(v) for v in getattr(self, name))
            object.__setattr__(self, name, pair)
            if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
                raise InputError.of(found=f"{name} {pair}", expected="two rising numbers above 0", fix="(0.7, 1.4)")
        if min(self.offset, self.noise, self.blur) < 0 or self.stretch < 1:
            raise InputError.of(
                found=f"offset {self.offset}, noise {self.noise}, blur {self.blur}, stretch {self.stretch}",
                expected="none below 0, and stretch at least 1",
                fix="set what is not wanted to 0, and stretch to 1",
            )
        shares = (self.plain, self.invert, self.shuffle, self.grey)
        if not all(0 <= share <= 1 for share in shares):
            raise InputError.of(
                found=f"plain, invert, shuffle and grey {shares}", expected="shares from 0 to 1", fix="0 for none"
            )


_SAME = (1.0, 1.0)
_STEADY: dict[str, Any] = {"gain": _SAME, "gamma": _SAME, "offset": 0.0, "noise": 0.0, "blur": 0.0}
AUGMENTS = {
    "none": AugmentConfig(turn=False, scale=_SAME, small_scale=1.0, **_STEADY),
    "turns": AugmentConfig(scale=_SAME, small_scale=1.0, **_STEADY),
    "shapes": AugmentConfig(**_STEADY),
    "all": AugmentConfig(),
}
"""What users choose with --augment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """An affine map: patch pixel p shows image position `centre + turn @ (p - middle) / scale`."""

    centre: tuple[float, ...]
    scale: float = 1.0
    turn: tuple[tuple[float, ...], ...] = ((1.0, 0.0), (0.0, 1.0))


def draw_pose(rng: np.random.Generator, centre: tuple[float, ...], diameter: float, config: AugmentConfig) -> Pose:
    """Return a random pose about a centre.

    Args:
        centre: (y, x) or (z, y, x).
        diameter: of the image's objects, px (median); decides how far it may be enlarged. 0 if there are none.
    """
    low, high = config.scale
    if 0 < diameter < config.small_px:
        high = max(high, config.small_scale)
    scale = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    plain = rng.random() < config.plain
    quarter, flip = (int(rng.integers(4)), bool(rng.integers(2))) if config.turn else (0, False)
    turn = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), quarter) @ np.diag([1.0, -1.0 if flip else 1.0])
    if len(centre) == 3:
        deep = np.diag([-1.0 if config.turn and rng.integers(2) else 1.0, 1.0, 1.0])
        deep[1:, 1:] = turn
        return Pose(centre=centre, turn=tuple(map(tuple, deep.tolist())))
    if config.rotate and not plain:
        turn = turn @ _rotation(rng)
    if config.stretch > 1 and not plain:
        along, half = _rotation(rng), float(np.exp(0.5 * rng.uniform(0, np.log(config.stretch))))
        turn = turn @ along @ np.diag([half, 1 / half]) @ along.T
    (a, b), (c, d) = turn.tolist()
    return Pose(centre=centre, scale=1.0 if plain else scale, turn=((a, b), (c, d)))


def _rotation(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the matrix of a rotation by any angle."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def sample_patch(
    image: npt.NDArray[np.float32],
    codes: npt.NDArray[np.int32],
    pose: Pose,
    size: int | Sequence[int],
    margin: int | Sequence[int],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return image and annotation of a patch in a pose.

    Args:
        image: (c, y, x) or (c, z, y, x). codes: (y, x) or (z, y, x), see annotations.targets.region_codes.
        size: of the patch, px; of a volume along each axis.
        margin: extra annotation on every side, px, for the targets' sake; of a volume along each axis.

    Returns:
        (c, size, size) and (size + 2 margin, size + 2 margin). At scale 1 about a pixel's centre (or corner, by the
        parity of `size`) both are exact copies.
    """
    if not isinstance(size, int) or not isinstance(margin, int):
        sizes, margins = np.broadcast_to(size, codes.ndim), np.broadcast_to(margin, codes.ndim)
        channels = [_copied(channel, pose, sizes.tolist(), mirror=True) for channel in image]
        return np.stack(channels), _copied(codes, pose, (sizes + 2 * margins).tolist(), mirror=False)
    matrix = np.array(pose.turn, np.float64) / pose.scale
    centre = np.array(pose.centre, np.float64)
    wide = size + 2 * margin
    return (
        _bilinear(image, centre, matrix, size),
        _nearest(codes, centre, matrix, wide, False),
    )


def _copied(values: npt.NDArray[Any], pose: Pose, sizes: Sequence[int], *, mirror: bool) -> npt.NDArray[Any]:
    """Return a patch at scale 1 of flips and quarter turns; beyond the image its mirror image, or `BEYOND`."""
    turn = np.array(pose.turn)
    ways = np.argmax(np.abs(turn), axis=1)  # the axis of the patch that runs along each axis of the image
    at = [
        np.floor(centre + turn[axis, way] * (np.arange(sizes[way]) - (sizes[way] - 1) / 2) + 0.5).astype(np.int64)
        for axis, (centre, way) in enumerate(zip(pose.centre, ways, strict=True))
    ]
    inner = [_mirror_images(i, n) for i, n in zip(at, values.shape, strict=True)]
    out = values[np.ix_(*inner)]
    for axis, (i, n) in enumerate(zip(at, values.shape, strict=True)):
        if not mirror:
            out[(slice(None),) * axis + ((i < 0) | (i >= n),)] = BEYOND
    return np.ascontiguousarray(out.transpose(np.argsort(ways)))


def _mirror_images(i: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """Return the indices of the mirror images of any integers; see `_mirrored`."""
    period = max(1, 2 * n - 2)
    folded: npt.NDArray[np.int64] = np.minimum(np.abs(i) % period, period - np.abs(i) % period) % n
    return folded


def mirrored_codes(
    codes: npt.NDArray[np.int32], pose: Pose, size: int | Sequence[int], margin: int | Sequence[int]
) -> npt.NDArray[np.int32]:
    """Return the annotation of a patch as `sample_patch` does, but mirrored beyond the image as the image is."""
    if not isinstance(size, int) or not isinstance(margin, int):
        sizes = np.broadcast_to(size, codes.ndim) + 2 * np.broadcast_to(margin, codes.ndim)
        return _copied(codes, pose, sizes.tolist(), mirror=True)
    matrix = np.array(pose.turn, np.float64) / pose.scale
    mirrored: npt.NDArray[np.int32] = _nearest(
        codes, np.array(pose.centre, np.float64), matrix, size + 2 * margin, True
    )
    return mirrored


@numba.njit(cache=True, nogil=True)
def _mirrored(i: int, n: int) -> int:
    """Return the index of the mirror image of any integer; the border pixel is not repeated."""
    if n == 1:
        return 0
    i = abs(i) % (2 * n - 2)
    return 2 * n - 2 - i if i >= n else i


@numba.njit(cache=True, nogil=True)
def _bilinear(
    image: npt.NDArray[np.float32], centre: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64], size: int
) -> npt.NDArray[np.float32]:
    channels, h, w = image.shape
    out = np.empty((channels, size, size), np.float32)
    middle = (size - 1) / 2
    for i in range(size):
        for j in range(size):
            y = centre[0] + matrix[0, 0] * (i - middle) + matrix[0, 1] * (j - middle)
            x = centre[1] + matrix[1, 0] * (i - middle) + matrix[1, 1] * (j - middle)
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            fy, fx = np.float32(y - y0), np.float32(x - x0)
            ya, yb, xa, xb = _mirrored(y0, h), _mirrored(y0 + 1, h), _mirrored(x0, w), _mirrored(x0 + 1, w)
            for c in range(channels):
                top = image[c, ya, xa] * (1 - fx) + image[c, ya, xb] * fx
                low = image[c, yb, xa] * (1 - fx) + image[c, yb, xb] * fx
                out[c, i, j] = top * (1 - fy) + low * fy
    return out


@numba.njit(cache=True, nogil=True)
def _nearest(
    codes: npt.NDArray[np.int32],
    centre: npt.NDArray[np.float64],
    matrix: npt.NDArray[np.float64],
    size: int,
    mirror: bool,
) -> npt.NDArray[np.int32]:
    h, w = codes.shape
    out = np.full((size, size), BEYOND, np.int32)
    middle = (size - 1) / 2
    for i in range(size):
        for j in range(size):
            y = int(np.floor(centre[0] + matrix[0, 0] * (i - middle) + matrix[0, 1] * (j - middle) + 0.5))
            x = int(np.floor(centre[1] + matrix[1, 0] * (i - middle) + matrix[1, 1] * (j - middle) + 0.5))
            if mirror:
                y, x = _mirrored(y, h), _mirrored(x, w)
            if 0 <= y < h and 0 <= x < w:
                out[i, j] = codes[y, x]
    return out


def expose(image: npt.NDArray[np.float32], rng: np.random.Generator, config: AugmentConfig) -> npt.NDArray[np.float32]:
    """Return the image with random gamma, gain, offset, blur and noise, the same for all channels, and other colours.

    Args:
        image: (c, y, x) or (c, z, y, x), normalised, about 0 to 1; values outside keep their sign.
    """
    image = _recoloured(image, rng, config)
    gamma = np.float32(_log_uniform(rng, config.gamma))
    gain = np.float32(_log_uniform(rng, config.gain))
    offset = np.float32(rng.uniform(-config.offset, config.offset))
    out: npt.NDArray[Any] = np.sign(image) * np.abs(image) ** gamma * gain + offset
    if rng.random() < 1 / 3 and config.blur > 0:
        sigma = rng.uniform(0, config.blur)
        out = ndimage.gaussian_filter(out, (0, *(sigma,) * (out.ndim - 1)), truncate=3)
    noise = np.float32(rng.uniform(0, config.noise))
    return np.asarray(out + noise * rng.standard_normal(out.shape, np.float32), np.float32)


def _recoloured(
    image: npt.NDArray[np.float32], rng: np.random.Generator, config: AugmentConfig
) -> npt.NDArray[np.float32]:
    """Return the image with channels tinted, permuted, mixed to grey or inverted, as far as the settings want it."""
    if config.tint != (1.0, 1.0):
        low, high = np.log(config.tint).tolist()
        drawn = rng.uniform(low, high, (2, len(image)))
        factors, exponents = np.exp(drawn).astype(np.float32).reshape(2, len(image), *(1,) * (image.ndim - 1))
        image = np.sign(image) * np.abs(image) ** exponents * factors
    if len(image) > 1 and config.shuffle and rng.random() < config.shuffle:
        image = image[rng.permutation(len(image))]
    if len(image) > 1 and config.grey and rng.random() < config.grey:
        mean = image.mean(0)
        image = np.zeros_like(image)
        image[0] = mean
    if config.invert and rng.random() < config.invert:
        image = np.float32(1) - image
    return image


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))
