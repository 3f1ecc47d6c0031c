"""Small fields drawn in the tests: from labels, and deliberately nasty ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from scipy import ndimage

Fields = npt.NDArray[np.float16]


def fields_of(labels: npt.NDArray[np.integer]) -> Fields:
    """Flow and distance of labelled objects: the gradient of each one's own smoothed distance to its outside."""
    fields = np.zeros((3, *labels.shape), np.float32)
    fields[2] = -5
    for k in np.unique(labels[labels > 0]):
        mask = np.pad(labels == k, 1)
        distance = ndimage.distance_transform_edt(mask) - 0.5 * mask
        smooth = ndimage.gaussian_filter(np.where(mask, distance, -0.5), 1)
        gradient = np.stack(np.gradient(smooth))[:, 1:-1, 1:-1]
        here = labels == k
        fields[:2, here] = gradient[:, here]
        fields[2, here] = distance[1:-1, 1:-1][here]
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


def spiral_labels(side: int, pitch: float = 14.0) -> npt.NDArray:
    """One object, 8 px wide, winding from near the middle of a square image to its border."""
    y, x = np.indices((side, side)) - (side - 1) / 2
    mask = np.zeros((side, side), bool)
    for angle in np.arange(3, 2 * np.pi * (side / 2 - 4) / pitch, 0.05):
        radius = pitch * angle / (2 * np.pi)
        mask |= np.hypot(y - radius * np.sin(angle), x - radius * np.cos(angle)) < 4
    return mask.astype(np.int32)


def _noisy(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    fields = rng.normal(size=(3, *shape)).astype(np.float16)
    fields[2] *= 4
    return fields


def _constant(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    fields = np.ones((3, *shape), np.float16)
    fields[:2] = rng.normal(size=2)[:, None, None]
    return fields


def _axial(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    """Steps along the axes: displacements of exactly half a pixel, where rounding shows."""
    fields = np.ones((3, *shape), np.float16)
    fields[:2] = rng.choice([-1, 0, 1], size=(2, *shape) if rng.random() < 0.5 else (2, 1, 1))
    return fields


def _checkerboard(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    fields = _noisy(shape, rng)
    fields[2] = np.where(np.indices(shape).sum(axis=0) % 2, 1, -5)
    return fields


def _discs(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    return fields_of(disc_labels(shape, max(1, shape[0] * shape[1] // 150), int(rng.integers(1000))))


def _noisy_discs(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    fields = _discs(shape, rng)
    fields[:2] += rng.normal(size=(2, *shape)).astype(np.float16) * np.float16(0.5)
    return fields


def _still(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    fields = np.zeros((3, *shape), np.float16)
    fields[2] = rng.choice([-5, 1], size=shape)
    return fields


def _empty(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    fields = _noisy(shape, rng)
    fields[2] = -5
    return fields


def _spiral(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    return fields_of(spiral_labels(max(shape)))[:, : shape[0], : shape[1]]


KINDS = (_noisy, _constant, _axial, _checkerboard, _discs, _noisy_discs, _still, _empty, _spiral)


@st.composite
def any_fields(draw: st.DrawFn, largest: int = 48) -> Fields:
    """Fields of any kind and shape, one pixel thin ones included."""
    side = st.integers(1, largest)
    shape = draw(st.one_of(st.tuples(side, side), st.tuples(st.just(1), side), st.tuples(side, st.just(1))))
    kind = draw(st.sampled_from(KINDS))
    return kind(shape, np.random.default_rng(draw(st.integers(0, 2**16))))
