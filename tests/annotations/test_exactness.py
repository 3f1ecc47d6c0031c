"""No wrong pixel: 200 random label maps, masks and crops against what the whole truth says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from sketchscale.annotations.targets import Targets, targets_from_sketch
from sketchscale.training.patches import patch_targets
from tests.oracles import targets as oracle

Codes = npt.NDArray[np.int32]


def of(codes: Codes) -> Targets:
    return targets_from_sketch(np.where(codes == oracle.DRAWN, -1, codes), codes == oracle.DRAWN)


def hidden_and_cropped(seed: int) -> tuple[Codes, Codes]:
    """A truth, and what is left of it: a mask and, around a random box, nothing."""
    rng = np.random.default_rng((8, seed))
    shape = (int(rng.integers(2, 25)), int(rng.integers(2, 25)))
    truth = oracle.random_truth(rng, shape)
    sketch = oracle.random_sketch(rng, truth)
    if seed % 2:
        (top, bottom), (left, right) = (np.sort(rng.integers(0, n + 1, 2)) for n in shape)
        crop = np.full_like(sketch, oracle.UNKNOWN)
        crop[top:bottom, left:right] = sketch[top:bottom, left:right]
        sketch = crop
    return truth, sketch


def wrong_pixels(got: Targets, truth: Codes) -> dict[str, int]:
    """How many pixels of each valid set contradict the truth, by the definitions (the flow: as with nothing hidden)."""
    distance = oracle.true_distance(truth).astype(np.float32)
    signed = oracle.signed_distance(truth).astype(np.float32)
    inside = got.known & (truth > 0)
    turned = (got.flow != of(truth).flow).any(axis=0)
    return {
        "distance": int((got.distance != distance)[inside].sum()),
        "background": int((got.distance != -5)[got.known & ~inside].sum()),
        "flow": int(turned[got.flow_known].sum()),
        "lower": int((got.lower > distance)[got.bounded].sum()),
        "upper": int((got.upper < distance)[got.bounded].sum()),
        "signed": int((got.signed != signed)[got.signed_known].sum()),
        "boundary": int((got.boundary != oracle.boundary_pixels(truth))[got.boundary_known].sum()),
    }


def test_no_wrong_pixel_on_200_label_maps_masks_and_crops() -> None:
    known = np.zeros(4, np.int64)
    for seed in range(200):
        truth, sketch = hidden_and_cropped(seed)
        got = of(sketch)
        assert not any(wrong_pixels(got, truth).values()), (seed, wrong_pixels(got, truth))
        known += [x.sum() for x in (got.known & (sketch > 0), got.flow_known, got.signed_known, got.boundary_known)]
    assert (known > 5000).all(), known


def test_control_carrying_the_targets_of_a_crop_without_unknown_surroundings_is_wrong() -> None:
    found = 0
    for seed in range(0, 40, 2):
        truth, _ = hidden_and_cropped(seed)
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
        np.testing.assert_array_equal(got.boundary[got.boundary_known], on_boundary[got.boundary_known])


def test_the_sets_of_signed_distance_and_boundary_are_those_of_brute_force() -> None:
    for seed in range(60):
        _, sketch = hidden_and_cropped(seed)
        got = of(sketch)
        plain = np.where(sketch == oracle.DRAWN, 0, sketch)
        to_object, to_unknown = (oracle.squared_distances(sketch, sites) for sites in oracle.cracks(plain))
        exact = (sketch == 0) & (to_object <= to_unknown) & np.isfinite(to_object)
        np.testing.assert_array_equal(got.signed_known & (sketch == 0), exact)
        np.testing.assert_array_equal(got.signed_known & (sketch > 0), got.known & (sketch > 0))
        beside, maybe = (oracle.squared_distances(sketch, sites) == 1 for sites in oracle.cracks(sketch))
        certain = (sketch == 0) | (sketch == oracle.DRAWN) | ((sketch > 0) & (beside | ~maybe))
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
