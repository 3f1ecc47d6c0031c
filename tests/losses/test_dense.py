"""The dense loss and its patches: no masks, targets of the whole image, partial labels refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.annotations.targets import BEYOND, targets_from_sketch
from sketchscale.errors import InputError
from sketchscale.losses import LOSSES, LossConfig, dense
from sketchscale.training.augment import AugmentConfig, Pose, mirrored_codes, sample_patch
from sketchscale.training.patches import PatchSource, TrainingImage, check_dense, patch_targets
from tests.losses.batches import batch, random_batch, random_prediction
from tests.oracles import losses as oracle
from tests.oracles import targets as target_oracle

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
STILL = AugmentConfig(
    turn=False, scale=(1, 1), small_scale=1, gain=(1, 1), gamma=(1, 1), offset=0, noise=0, blur=0, plain=1
)


def truth_of(seed: int, shape: tuple[int, int]) -> np.ndarray:
    return np.maximum(target_oracle.random_truth(np.random.default_rng(seed), shape), 0)


def image_of(labels: np.ndarray, boundary: np.ndarray | None = None) -> TrainingImage:
    """Its pixels say where they are."""
    pixels = np.arange(labels.size, dtype=np.float32).reshape(1, *labels.shape)
    return TrainingImage(image=pixels, labels=labels, boundary=boundary, name="cells")


@given(seed=seeds)
@quick
def test_masks_do_not_matter(seed: int) -> None:
    targets = random_batch(seed)
    prediction = random_prediction(seed, targets, 3)
    parts = (x.double().numpy() for x in (prediction, targets.flow, targets.distance))
    plain = np.mean([oracle.dense(*image, LossConfig()) for image in zip(*parts, strict=True)])
    assert float(dense(prediction, targets, LossConfig())) == pytest.approx(plain, rel=1e-6)


def test_every_pixel_has_a_gradient_also_one_that_nobody_annotated() -> None:
    targets = batch(np.full((6, 6), -1, np.int32))
    prediction = random_prediction(0, targets, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES["dense"](prediction, targets, LossConfig()), prediction)
    assert (gradient != 0).all()


@given(seed=seeds)
@quick
def test_a_dense_patch_has_the_targets_of_the_whole_image(seed: int) -> None:
    """The image fits into the margin, so nothing is cut."""
    truth = truth_of(seed, (24, 28))
    truth[0, :2] = 0, 1
    source = PatchSource([image_of(truth)], size=16, augment=STILL, outside=-5.0, dense=True)
    images, targets = source.batch(np.random.default_rng(seed), 2)
    whole = targets_from_sketch(truth)
    for n in range(2):
        pixels = images[n, 0].long().numpy()
        inside = ~beyond_image(pixels)
        y, x = np.divmod(pixels, 28)
        np.testing.assert_array_equal(targets.distance[n].numpy(), whole.distance[y, x])
        np.testing.assert_array_equal(targets.flow[n].numpy()[:, inside], whole.flow[:, y, x][:, inside])


def beyond_image(pixels: np.ndarray) -> np.ndarray:
    """Where a still patch shows the mirrored image: its position does not rise by one (28) along x (y)."""
    rows, columns = pixels // 28, pixels % 28
    y, x = np.diff(rows[:, 0]), np.diff(columns[0])
    outside_y = np.append(y < 0, y[-1:] < 0) | np.insert(y < 0, 0, False)
    outside_x = np.append(x < 0, x[-1:] < 0) | np.insert(x < 0, 0, False)
    return np.asarray(outside_y[:, None] | outside_x[None, :])


def test_a_crop_of_an_object_goes_on_where_a_sketch_would_stop() -> None:
    labels = np.zeros((60, 60), np.int32)
    labels[:, 10:50] = 1
    crop = labels[10:50, 14:54]
    taught, cut = (patch_targets(crop, 4, -5.0, dense=flag) for flag in (True, False))
    assert taught.known.all()
    assert not cut.known.all()
    np.testing.assert_array_equal(taught.distance[8], 31.5 - np.arange(32))


def test_a_crop_without_any_boundary_is_as_far_from_it_as_the_crop_shows() -> None:
    taught = patch_targets(np.ones((20, 20), np.int32), 2, -5.0, dense=True)
    assert taught.distance[0, 0] == 1.5
    assert taught.distance[8, 8] == 8.5
    assert (taught.flow == 0).all()


def test_beyond_the_image_the_annotation_is_mirrored_as_the_image_is() -> None:
    labels = np.arange(1, 31, dtype=np.int32).reshape(5, 6)
    pose = Pose(centre=(0.0, 1.0), scale=0.8, turn=((0, -1), (1, 0)))
    pixels, codes = sample_patch(labels[None].astype(np.float32), labels, Pose(centre=(0.0, 1.0)), 9, 2)
    np.testing.assert_array_equal(mirrored_codes(labels, Pose(centre=(0.0, 1.0)), 9, 2)[2:-2, 2:-2], pixels[0])
    seen, mirrored = (
        sample_patch(labels[None].astype(np.float32), labels, pose, 9, 2)[1],
        mirrored_codes(labels, pose, 9, 2),
    )
    np.testing.assert_array_equal(mirrored[seen != BEYOND], seen[seen != BEYOND])
    assert (mirrored > 0).all()
    assert (codes == BEYOND).any()


def test_a_drawn_boundary_counts_as_background() -> None:
    labels = np.ones((12, 12), np.int32)
    drawn = np.zeros((12, 12), bool)
    drawn[:, 6] = True
    source = PatchSource([image_of(labels, drawn)], size=16, augment=STILL, outside=-5.0, dense=True)
    _, targets = source.batch(np.random.default_rng(0), 1)
    assert set(targets.distance.unique().tolist()) >= {-5.0, 0.5, 1.5}
    assert targets.known.all()


def test_partial_labels_are_refused_by_name() -> None:
    labels = np.zeros((10, 10), np.int32)
    labels[2:5, 2:5] = 1
    check_dense([image_of(labels)])
    labels[9, :] = -1
    with pytest.raises(InputError, match=r"cells: 10.0% of its pixels have no label.*--loss sketchpose"):
        PatchSource([image_of(labels)], size=16, augment=STILL, outside=-5.0, dense=True)
    drawn = labels == -1
    check_dense([image_of(labels, drawn)])
