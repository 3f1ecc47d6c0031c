"""Small fields drawn in the tests, of planes and volumes: from labels, and deliberately nasty ones."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from scipy import ndimage

from sketchscale.integration.config import IntegrationConfig

Fields = npt.NDArray[np.float16]


def rule(axes: int, **options: object) -> IntegrationConfig:
    """The usual rule for so many axes: volumes have crowds."""
    return IntegrationConfig(**{"threshold": -2.0, "crowd": 1 if axes == 2 else 8} | options)  # type: ignore[arg-type]


def fields_of(labels: npt.NDArray[np.integer], spacing: tuple[float, ...] | None = None) -> Fields:
    """Flow and distance of labelled objects: the gradient of each one's own smoothed distance to its outside.

    Args:
        spacing: of the axes; flow is in pixels along each, as trajectories in index space need it.
    """
    axes = labels.ndim
    steps = (1.0,) * axes if spacing is None else spacing
    fields = np.zeros((axes + 1, *labels.shape), np.float32)
    fields[axes] = -5
    for k, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        mask = np.pad(labels[box] == k, 3)
        distance = ndimage.distance_transform_edt(mask, sampling=steps) - 0.5 * mask
        smooth = ndimage.gaussian_filter(np.where(mask, distance, -0.5), [1 / s for s in steps])
        gradient = np.stack([g / s for g, s in zip(np.gradient(smooth, *steps), steps, strict=True)])
        inside, here = mask[(slice(3, -3),) * axes], (slice(None), *box)
        fields[here][:axes, inside] = gradient[:, mask]
        fields[here][axes, inside] = distance[mask]
    return fields.astype(np.float16)


def disc_labels(shape: tuple[int, int], count: int, seed: int, radius: tuple[float, float] = (3, 9)) -> npt.NDArray:
    """Discs at random places, later ones behind earlier ones, so that many touch."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    y, x = np.indices(shape)
    for k in range(1, count + 1):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        labels[(np.hypot(y - cy, x - cx) < rng.uniform(*radius)) & (labels == 0)] = k
    return labels


def ellipsoid_labels(
    shape: tuple[int, ...], count: int, seed: int, radius: tuple[float, float] = (4, 8), flat: float = 1.0
) -> npt.NDArray[np.int32]:
    """Ellipsoids at random places that keep 70 % of their voxels free of earlier ones; many touch.

    Args:
        flat: how much shorter along z they are (the spacing along z of an anisotropic volume).
    """
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    grid = np.indices(shape).astype(np.float64)
    done = 0
    for _ in range(40 * count):
        half = rng.uniform(*radius, size=3) / (flat, 1, 1)
        low = np.minimum(half, (np.array(shape) - 1) / 2)
        centre = rng.uniform(low, np.array(shape) - 1 - low)
        ball = sum(((g - c) / h) ** 2 for g, c, h in zip(grid, centre, half, strict=True)) < 1
        free = ball & (labels == 0)
        if free.sum() > 0.7 * ball.sum() and ndimage.label(free)[1] == 1:
            done += 1
            labels[free] = done
        if done == count:
            break
    return labels


def spiral_labels(side: int, pitch: float = 14.0) -> npt.NDArray:
    """One object, 8 px wide, winding from near the middle of a square image to its border."""
    y, x = np.indices((side, side)) - (side - 1) / 2
    mask = np.zeros((side, side), bool)
    for angle in np.arange(3, 2 * np.pi * (side / 2 - 4) / pitch, 0.05):
        radius = pitch * angle / (2 * np.pi)
        mask |= np.hypot(y - radius * np.sin(angle), x - radius * np.cos(angle)) < 4
    return mask.astype(np.int32)


def helix_labels(side: int) -> npt.NDArray:
    """One object, 8 voxels thick, winding through a cube along z."""
    grid, middle = np.indices((side,) * 3), (side - 1) / 2
    mask = np.zeros((side,) * 3, bool)
    for t in np.linspace(0, 3, 300):
        turn = 2 * np.pi * t
        centre = (4 + (side - 8.5) / 3 * t, middle + 0.3 * side * np.sin(turn), middle + 0.3 * side * np.cos(turn))
        mask |= sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < 16
    return mask.astype(np.int32)


def _noisy(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    fields = rng.normal(size=(len(shape) + 1, *shape)).astype(np.float16)
    fields[-1] *= 4
    return fields


def _constant(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    fields = np.ones((len(shape) + 1, *shape), np.float16)
    fields[:-1] = rng.normal(size=(len(shape), *(1,) * len(shape)))
    return fields


def _axial(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    """Steps along the axes: displacements of exactly half a pixel, where rounding shows."""
    fields = np.ones((len(shape) + 1, *shape), np.float16)
    alike = (1,) * len(shape)
    fields[:-1] = rng.choice([-1, 0, 1], size=(len(shape), *(shape if rng.random() < 0.5 else alike)))
    return fields


def _checkerboard(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    fields = _noisy(shape, rng)
    fields[-1] = np.where(np.indices(shape).sum(axis=0) % 2, 1, -5)
    return fields


def _blobs(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    seed = int(rng.integers(1000))
    if len(shape) == 3:
        return fields_of(ellipsoid_labels(shape, 6, seed, (1.5, 4)))
    return fields_of(disc_labels(shape, max(1, shape[0] * shape[1] // 150), seed))  # type: ignore[arg-type]


def _noisy_blobs(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    fields = _blobs(shape, rng)
    fields[:-1] += rng.normal(size=fields[:-1].shape).astype(np.float16) * np.float16(0.5)
    return fields


def _still(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    fields = np.zeros((len(shape) + 1, *shape), np.float16)
    fields[-1] = rng.choice([-5, 1], size=shape, p=(0.5, 0.5) if len(shape) == 2 else (0.8, 0.2))
    return fields


def _empty(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    fields = _noisy(shape, rng)
    fields[-1] = -5
    return fields


def _spiral(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    return fields_of(spiral_labels(max(shape)))[:, : shape[0], : shape[1]]


_ANY = (_noisy, _constant, _axial, _checkerboard, _blobs, _noisy_blobs, _still, _empty)
KINDS = {2: (*_ANY, _spiral), 3: _ANY}


@st.composite
def any_fields(draw: st.DrawFn, largest: int = 48, *, axes: int = 2) -> Fields:
    """Fields of any kind and shape, one pixel thin ones included."""
    shape = list(draw(st.tuples(*[st.integers(1, largest)] * axes)))
    if draw(st.booleans()):
        shape[draw(st.integers(0, axes - 1))] = 1
    kind = draw(st.sampled_from(KINDS[axes]))
    return kind(tuple(shape), np.random.default_rng(draw(st.integers(0, 2**16))))


any_plane = functools.partial(any_fields, axes=2)
any_volume = functools.partial(any_fields, axes=3)


def planes_and_volumes(plane: int, volume: int) -> st.SearchStrategy[Fields]:
    """Fields of planes and of volumes, of at most so many pixels along an axis."""
    return st.one_of(any_plane(plane), any_volume(volume))
