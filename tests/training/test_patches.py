"""Patches: exact copies where nothing is drawn at random, turned vectors, targets that no crop makes wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.annotations.targets import BEYOND, targets_from_sketch
from sketchscale.errors import InputError
from sketchscale.training.augment import AugmentConfig, Pose, draw_pose, expose, sample_patch
from sketchscale.training.patches import MARGIN, PatchSource, TrainingImage, patch_targets
from tests.oracles import targets as oracle

STILL = AugmentConfig(
    turn=False, scale=(1, 1), small_scale=1, gain=(1, 1), gamma=(1, 1), offset=0, noise=0, blur=0, plain=1
)


def random_image(seed: int, shape: tuple[int, int] = (40, 52)) -> TrainingImage:
    rng = np.random.default_rng(seed)
    labels = oracle.random_sketch(rng, oracle.random_truth(rng, shape))
    drawn = labels == oracle.DRAWN
    image = rng.random((2, *shape), np.float32)
    return TrainingImage(image=image, labels=np.where(drawn, -1, labels).astype(np.int32), boundary=drawn)


def codes_of(image: TrainingImage) -> npt.NDArray[np.int32]:
    return np.where(image.boundary, oracle.DRAWN, image.labels).astype(np.int32)


@pytest.mark.parametrize("size", [16, 17])
def test_a_still_patch_is_a_copy_and_the_image_goes_on_as_its_mirror(size: int) -> None:
    image = random_image(1)
    half = 0.5 * (1 - size % 2)
    pose = Pose(centre=(10 + half, 12 + half))
    pixels, codes = sample_patch(image.image, codes_of(image), pose, size, 4)
    y, x = 10 - (size - 1) // 2, 12 - (size - 1) // 2
    np.testing.assert_array_equal(pixels, image.image[:, y : y + size, x : x + size])
    np.testing.assert_array_equal(codes[4:-4, 4:-4], codes_of(image)[y : y + size, x : x + size])
    corner, codes = sample_patch(image.image, codes_of(image), Pose(centre=(half, half)), size, 4)
    start = (size - 1) // 2
    mirrored = np.pad(image.image, ((0, 0), (start, 0), (start, 0)), mode="reflect")
    np.testing.assert_array_equal(corner, mirrored[:, :size, :size])
    assert (codes[: 4 + start] == BEYOND).all()


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_turned_patches_have_turned_targets(seed: int) -> None:
    image = random_image(seed % 50)
    turning = replace(STILL, turn=True)
    pose = draw_pose(np.random.default_rng(seed), (20.5, 26.5), 10.0, turning)
    pixels, codes = sample_patch(image.image, codes_of(image), pose, 16, MARGIN)
    still_pixels, still_codes = sample_patch(image.image, codes_of(image), Pose(centre=(20.5, 26.5)), 16, MARGIN)
    got, still = patch_targets(codes, MARGIN, -5.0), patch_targets(still_codes, MARGIN, -5.0)
    matrix = np.array(pose.turn)
    grid = np.stack(np.meshgrid(*[np.arange(16)] * 2, indexing="ij")) - 7.5
    y, x = (np.einsum("ab,bij->aij", matrix, grid) + 7.5).astype(int)
    np.testing.assert_array_equal(pixels, still_pixels[:, y, x])
    np.testing.assert_array_equal(got.distance, still.distance[y, x])
    np.testing.assert_array_equal(got.flow_known, still.flow_known[y, x])
    turned_back = np.einsum("ba,aij->bij", matrix, got.flow)
    np.testing.assert_allclose(turned_back, still.flow[:, y, x], atol=1e-5)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_crop_never_makes_a_target_wrong(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = oracle.random_truth(rng, (44, 44))
    sketch = oracle.random_sketch(rng, truth)
    y, x = rng.integers(0, 20, 2)
    crop = sketch[y : y + 24, x : x + 24]
    got = patch_targets(crop, 4, -5.0)
    core = np.s_[y + 4 : y + 20, x + 4 : x + 20]
    distance = oracle.true_distance(truth)[core].astype(np.float32)
    inside = got.known & (sketch[core] > 0)
    np.testing.assert_array_equal(got.distance[inside], distance[inside])
    signed = oracle.signed_distance(truth)[core].astype(np.float32)
    assert ((got.lower <= signed) & (signed <= got.upper))[got.bounded].all()
    if not (sketch == oracle.DRAWN).any():
        flow = targets_from_sketch(truth).flow[(slice(None), *core)]
        np.testing.assert_array_equal(got.flow[:, got.flow_known], flow[:, got.flow_known])


def test_enlarged_objects_have_enlarged_distances() -> None:
    labels = np.zeros((64, 64), np.int32)
    y, x = np.indices(labels.shape)
    labels[(y - 32) ** 2 + (x - 32) ** 2 < 100] = 1
    image = np.zeros((1, 64, 64), np.float32)
    _, codes = sample_patch(image, labels, Pose(centre=(32.0, 32.0), scale=2.0), 65, MARGIN)
    plain = targets_from_sketch(labels).distance.max()
    assert patch_targets(codes, MARGIN, -5.0).distance.max() == pytest.approx(2 * plain, abs=1)


@pytest.mark.parametrize("scale", [0.5, 0.77, 1.6, 3.0])
@pytest.mark.parametrize("size", [64, 65])
def test_a_rescaled_image_and_its_annotation_stay_on_top_of_one_another(scale: float, size: int) -> None:
    y, x = np.indices((80, 80))
    labels = (np.hypot(y - 40.3, x - 39.6) < 9).astype(np.int32)
    pose = Pose(centre=(40.37, 39.71), scale=scale)
    pixels, codes = sample_patch(labels[None].astype(np.float32), labels, pose, size, 0)
    seen, drawn = (np.argwhere(mask).mean(axis=0) for mask in (pixels[0] > 0.5, codes > 0))
    np.testing.assert_allclose(seen, drawn, atol=0.2 * max(scale, 1))


def test_patches_are_centred_on_objects_as_often_as_on_background() -> None:
    labels = np.zeros((400, 400), np.int32)
    labels[20:28, 20:28] = 1
    image = TrainingImage(image=np.zeros((1, 400, 400), np.float32), labels=labels)
    source = PatchSource([image], size=32, augment=STILL, outside=-5.0)
    _, targets = source.batch(np.random.default_rng(0), 200)
    with_object = targets.inside.flatten(1).any(1).float().mean()
    assert 0.4 < with_object < 0.65  # half of them; by area it would be one in a hundred


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_every_patch_shows_something_the_sketch_knows(seed: int) -> None:
    labels = np.full((120, 150), -1, np.int32)
    labels[100:104, 140:146] = 5
    labels[3:5, 3:9] = 0
    image = TrainingImage(image=np.zeros((1, 120, 150), np.float32), labels=labels)
    source = PatchSource([image], size=32, augment=replace(STILL, turn=True), outside=-5.0)
    _, targets = source.batch(np.random.default_rng(seed), 3)
    assert (targets.known | targets.bounded | targets.inside).flatten(1).any(1).all()


def test_a_batch_is_a_function_of_its_seed() -> None:
    source = PatchSource([random_image(1), random_image(2)], size=24, augment=AugmentConfig(), outside=-5.0)
    (a, ta), (b, tb) = (source.batch(np.random.default_rng((3, 7)), 4) for _ in range(2))
    assert (a == b).all()
    assert (ta.flow == tb.flow).all()
    assert a.shape == (4, 2, 24, 24)
    assert str(a.dtype) == "torch.float32"
    c, _ = source.batch(np.random.default_rng((3, 8)), 4)
    assert (a != c).any()


def test_exposure_changes_nothing_when_all_of_it_is_off() -> None:
    image = np.random.default_rng(0).standard_normal((2, 9, 9)).astype(np.float32)
    np.testing.assert_allclose(expose(image, np.random.default_rng(1), STILL), image, rtol=1e-6)
    changed = expose(image, np.random.default_rng(1), AugmentConfig())
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()


def test_small_objects_are_enlarged_more() -> None:
    rng = np.random.default_rng(0)
    small, large = (max(draw_pose(rng, (0, 0), d, AugmentConfig()).scale for _ in range(300)) for d in (8.0, 30.0))
    assert large <= 1.4 < small <= 2.0


def test_images_of_one_pixel_make_patches() -> None:
    image = TrainingImage(image=np.ones((1, 1, 1), np.float32), labels=np.zeros((1, 1), np.int32))
    pixels, _ = PatchSource([image], size=16, augment=STILL, outside=-5.0).batch(np.random.default_rng(0), 1)
    assert (pixels == 1).all()


def test_what_does_not_fit_together_is_refused() -> None:
    labels = np.zeros((4, 4), np.int32)
    with pytest.raises(InputError, match="same size"):
        TrainingImage(image=np.zeros((1, 4, 5), np.float32), labels=labels)
    with pytest.raises(InputError, match="NaN"):
        TrainingImage(image=np.full((1, 4, 4), np.nan, np.float32), labels=labels)
    with pytest.raises(InputError, match="no annotated pixel"):
        PatchSource(
            [TrainingImage(image=np.zeros((1, 4, 4), np.float32), labels=labels - 1)],
            size=16,
            augment=STILL,
            outside=-5.0,
        )
    with pytest.raises(InputError, match="rising"):
        AugmentConfig(scale=(2.0, 1.0))
