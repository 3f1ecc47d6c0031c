"""A common scale of training images: sizes, labels, boundaries, and annotation in place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sketchscale.geometry import Box
from sketchscale.training.patches import TrainingImage
from sketchscale.training.scale import ScaledImage, outlined_diameter, rounded_scale, scaled_image, typical_diameter


def discs(radius: float, *, shape: tuple[int, int] = (96, 120), step: int = 40) -> TrainingImage:
    """An image of bright discs with full labels."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for number, (cy, cx) in enumerate(
        ((a, b) for a in range(20, shape[0], step) for b in range(20, shape[1], step)), start=1
    ):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return TrainingImage(image=(labels > 0).astype(np.float32)[None], labels=labels)


def test_annotation_stays_on_its_object_at_any_scale() -> None:
    image = discs(10)
    for scale in (0.25, 0.4585, 0.5, 0.84, 1.41, 2.0, 3.3):
        found = scaled_image(image, scale)
        inside = found.image[0] > 0.5
        differ = (inside != (found.labels > 0)).sum()
        rim = 2 * np.pi * 10 * scale * found.labels.max()
        assert found.image.shape[1:] == found.labels.shape
        assert differ < 0.4 * rim
        ys, xs = np.nonzero(found.labels == 1)
        assert ys.mean() == pytest.approx((20.5 * scale) - 0.5, abs=0.3)  # half a pixel's shift would be 0.5 scale
        assert xs.mean() == pytest.approx((20.5 * scale) - 0.5, abs=0.3)


def test_diameter_is_that_of_outlined_objects() -> None:
    assert outlined_diameter([discs(10)]) == pytest.approx(20, rel=0.03)
    small = scaled_image(discs(10), 0.5)
    assert outlined_diameter([small]) == pytest.approx(10, rel=0.08)
    scribbles = np.full((60, 60), -1, np.int32)
    scribbles[20:40, 30:33] = 1
    assert outlined_diameter([TrainingImage(image=np.zeros((1, 60, 60), np.float32), labels=scribbles)]) is None


@given(st.lists(st.integers(1, 500), min_size=1, max_size=30))
def test_typical_diameter_halves_the_foreground(areas: list[int]) -> None:
    found = np.pi / 4 * typical_diameter(np.array(areas)) ** 2
    assert any(found == pytest.approx(a) for a in areas)
    assert sum(a for a in areas if a < found - 1e-6) <= sum(areas) / 2
    assert sum(a for a in areas if a > found + 1e-6) <= sum(areas) / 2


def test_a_thin_boundary_stays_connected_when_reduced() -> None:
    boundary = np.zeros((80, 80), np.bool_)
    boundary[np.arange(80), np.arange(80)] = True
    labels = np.where(np.tri(80, k=-1) > 0, 1, 2).astype(np.int32)
    image = TrainingImage(image=np.zeros((1, 80, 80), np.float32), labels=labels, boundary=boundary)
    found = scaled_image(image, 0.3)
    assert found.boundary is not None
    assert found.boundary.any(axis=0).all()
    assert found.boundary.any(axis=1).all()


def test_scale_1_changes_nothing_and_parts_keep_their_core() -> None:
    image = discs(8)
    assert scaled_image(image, 1.0) is image
    part = ScaledImage(
        original=TrainingImage(image=image.image, labels=image.labels, core=Box((8, 10), (48, 60))), scale=0.5
    )
    assert part.core == Box((4, 5), (24, 30))


@given(st.floats(0.06, 3.9))
def test_scales_are_rounded_to_a_twelfth_of_their_size(scale: float) -> None:
    assert 0.957 < rounded_scale(scale) / scale < 1.045
    assert rounded_scale(rounded_scale(scale)) == rounded_scale(scale)


def test_scales_have_limits() -> None:
    assert rounded_scale(1e-6) == pytest.approx(0.05, rel=0.05)
    assert rounded_scale(99) == 4
