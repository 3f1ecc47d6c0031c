"""Small fields of volumes drawn in the tests: from labels, and deliberately nasty ones."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from scipy import ndimage

from sketchscale.integration.config import IntegrationConfig

Fields = npt.NDArray[np.float16]

space_rule = functools.partial(IntegrationConfig, crowd=8)
"""Volumes have crowds."""


def volume_fields_of(labels: npt.NDArray[np.integer], spacing: tuple[float, float, float] = (1, 1, 1)) -> Fields:
    """Flow and distance of labelled objects: the exact distance to each one's outside in space, lightly smoothed.

    Flow along z is in voxels: the gradient in space divided by spacing z, as trajectories in index space need it.
    """
    fields = np.zeros((4, *labels.shape), np.float32)
    fields[3] = -5
    for k, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        mask = np.pad(labels[box] == k, 3)
        distance = ndimage.distance_transform_edt(mask, sampling=spacing) - 0.5 * mask
        smooth = ndimage.gaussian_filter(np.where(mask, distance, -0.5), [1 / s for s in spacing])
        gradient = np.stack([g / s for g, s in zip(np.gradient(smooth, *spacing), spacing, strict=True)])
        inside, here = mask[3:-3, 3:-3, 3:-3], (slice(None), *box)
        fields[here][:3, inside] = gradient[:, mask]
        fields[here][3, inside] = distance[mask]
    return fields.astype(np.float16)


def ellipsoid_labels(
    shape: tuple[int, int, int], count: int, seed: int, radius: tuple[float, float] = (4, 8), flat: float = 1.0
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


def _noisy(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    fields = rng.normal(size=(4, *shape)).astype(np.float16)
    fields[3] *= 4
    return fields


def _constant(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    fields = np.ones((4, *shape), np.float16)
    fields[:3] = rng.normal(size=(3, 1, 1, 1))
    return fields


def _axial(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    """Steps along the axes: displacements of exactly half a voxel, where rounding shows."""
    fields = np.ones((4, *shape), np.float16)
    fields[:3] = rng.choice([-1, 0, 1], size=(3, *shape) if rng.random() < 0.5 else (3, 1, 1, 1))
    return fields


def _balls(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    labels = ellipsoid_labels(shape, 6, int(rng.integers(1000)), (1.5, 4))  # type: ignore[arg-type]
    return volume_fields_of(labels)


def _noisy_balls(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    fields = _balls(shape, rng)
    fields[:3] += rng.normal(size=(3, *shape)).astype(np.float16) * np.float16(0.5)
    return fields


def _still(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    fields = np.zeros((4, *shape), np.float16)
    fields[3] = rng.choice([-5, 1], size=shape, p=(0.8, 0.2))
    return fields


def _empty(shape: tuple[int, ...], rng: np.random.Generator) -> Fields:
    fields = _noisy(shape, rng)
    fields[3] = -5
    return fields


KINDS = (_noisy, _constant, _axial, _balls, _noisy_balls, _still, _empty)


@st.composite
def any_volume(draw: st.DrawFn, largest: int = 20) -> Fields:
    """Fields of any kind and shape, one voxel thin ones included."""
    side = st.integers(1, largest)
    shape = list(draw(st.tuples(side, side, side)))
    if draw(st.booleans()):
        shape[draw(st.integers(0, 2))] = 1
    kind = draw(st.sampled_from(KINDS))
    return kind(tuple(shape), np.random.default_rng(draw(st.integers(0, 2**16))))
