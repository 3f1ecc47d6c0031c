"""No wrong pixel: 200 random label maps, masks and crops against what the whole truth says."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from sketchscale.annotations.strokes import centre_line
from sketchscale.annotations.targets import Targets, targets_from_sketch
from sketchscale.training.patches import patch_targets
from tests.oracles import targets as oracle

Codes = npt.NDArray[np.int32]


def of(codes: Codes) -> Targets:
    return targets_from_sketch(np.where(codes == oracle.DRAWN, -1, codes), codes == oracle.DRAWN)


Box = tuple[slice, slice]


def hidden_and_cropped(seed: int) -> tuple[Codes, Codes, Box]:
    """A truth, what is left of it under a mask, and a random box of it (every second time all)."""
    rng = np.random.default_rng((8, seed))
    shape = (int(rng.integers(2, 25)), int(rng.integers(2, 25)))
    truth = oracle.random_truth(rng, shape)
    sketch = oracle.random_sketch(rng, truth)
    if seed % 2 == 0:
        return truth, sketch, np.s_[:, :]
    (top, bottom), (left, right) = (np.sort(rng.integers(0, n + 1, 2)) for n in shape)
    return truth, sketch, np.s_[top:bottom, left:right]


def of_crop(sketch: Codes, box: Box) -> tuple[Codes, Targets]:
    """A sketch with unknown pixels around a box, from its border on, and its targets."""
    crop = sketch[box] if sketch[box].shape == sketch.shape else np.pad(sketch[box], 1, constant_values=oracle.UNKNOWN)
    return crop, of(crop)


def wrong_pixels(sketch: Codes, truth: Codes, box: Box) -> tuple[dict[str, int], Targets]:
    """How many pixels of each valid set contradict the truth, by the definitions (the flow: as with nothing hidden)."""
    crop, got = of_crop(sketch, box)
    ring = (crop.shape[0] - sketch[box].shape[0]) // 2

    def seen(whole: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.pad(whole[(..., *box)], [(0, 0)] * (whole.ndim - 2) + [(ring, ring)] * 2)

    distance = seen(oracle.true_distance(truth).astype(np.float32))
    signed = seen(oracle.signed_distance(truth).astype(np.float32))
    inside = got.known & (crop > 0)
    drawn = crop == oracle.DRAWN
    near_stroke = ndimage.binary_dilation(drawn | (got.two_sided & ~got.known), np.ones((5, 5)))
    turned = (got.flow != seen(of(truth).flow)).any(axis=0) & got.known & ~near_stroke
    boundary = seen(oracle.boundary_pixels(truth))
    return {
        "distance": int((got.distance != distance)[inside].sum()),
        "background": int((got.distance != -5)[got.known & ~inside].sum()),
        "flow": int(turned[got.flow_known].sum()),
        "lower": int((got.lower > signed)[got.bounded].sum()),
        "upper": int((got.upper < signed)[got.bounded].sum()),
        "signed": int((got.signed != signed)[got.signed_known].sum()),
        "boundary": int((got.boundary != boundary)[got.boundary_known & ~drawn].sum()),
    }, got


def test_no_wrong_pixel_on_200_label_maps_masks_and_crops() -> None:
    known = np.zeros(5, np.int64)
    for seed in range(200):
        truth, sketch, box = hidden_and_cropped(seed)
        wrong, got = wrong_pixels(sketch, truth, box)
        assert not any(wrong.values()), (seed, wrong)
        sets = (got.known & got.inside, got.flow_known, got.signed_known, got.boundary_known, got.bounded & ~got.inside)
        known += [x.sum() for x in sets]
    assert (known > 2000).all(), known


def test_control_carrying_the_targets_of_a_crop_without_unknown_surroundings_is_wrong() -> None:
    found = 0
    for seed in range(0, 40, 2):
        truth, _, _ = hidden_and_cropped(seed)
        crop = truth[: max(1, len(truth) // 2)]
        got = of(np.ascontiguousarray(crop))
        whole = oracle.signed_distance(truth)[: len(crop)].astype(np.float32)
        found += int((got.signed != whole)[got.signed_known].sum())
    assert found > 50


@pytest.mark.parametrize("margin", [1, 4])
def test_patches_are_as_exact_as_sketches(margin: int) -> None:
    for seed in range(30):
        rng = np.random.default_rng((9, seed))
        truth = oracle.random_truth(rng, (30, 30))
        sketch = oracle.random_sketch(rng, truth)
        y, x = rng.integers(0, 30 - 16 - 2 * margin + 1, 2)
        got = patch_targets(sketch[y : y + 16 + 2 * margin, x : x + 16 + 2 * margin], margin, -5.0)
        core = np.s_[y + margin : y + margin + 16, x + margin : x + margin + 16]
        signed = oracle.signed_distance(truth)[core].astype(np.float32)
        np.testing.assert_array_equal(got.signed[got.signed_known], signed[got.signed_known])
        on_boundary = oracle.boundary_pixels(truth)[core]
        known = got.boundary_known & (sketch[core] != oracle.DRAWN)
        np.testing.assert_array_equal(got.boundary[known], on_boundary[known])
        assert (got.lower[got.bounded] <= signed[got.bounded]).all()
        assert (got.upper[got.bounded] >= signed[got.bounded]).all()


def test_the_sets_of_signed_distance_and_boundary_are_those_of_brute_force() -> None:
    for seed in range(60):
        _, sketch, box = hidden_and_cropped(seed)
        sketch, got = of_crop(sketch, box)
        to_edge, to_unknown, to_side = (oracle.squared_distances(sketch, sites) for sites in oracle.cracks(sketch))
        exact = (sketch == 0) & (to_edge <= np.minimum(to_unknown, to_side)) & np.isfinite(to_edge)
        np.testing.assert_array_equal(got.signed_known & (sketch == 0), exact)
        np.testing.assert_array_equal(got.signed_known & (sketch > 0), got.known & (sketch > 0))
        maybe = np.minimum(to_unknown, to_side) == 1
        line = centre_line(sketch == oracle.DRAWN)
        certain = (sketch == 0) | line | ((sketch > 0) & ((to_edge == 1) | ~maybe))
        np.testing.assert_array_equal(got.boundary_known, certain)


def test_distances_in_wide_background_are_exact() -> None:
    labels = np.zeros((90, 140), np.int32)
    labels[40, 70] = 1
    y, x = np.indices(labels.shape)
    expected = -np.sqrt(
        np.minimum((np.abs(y - 40) - 0.5) ** 2 + (x - 70) ** 2, (y - 40) ** 2 + (np.abs(x - 70) - 0.5) ** 2)
    )
    got = targets_from_sketch(labels)
    away = labels == 0
    np.testing.assert_allclose(got.signed[away], expected[away], rtol=1e-6)
    assert got.signed_known.all()
