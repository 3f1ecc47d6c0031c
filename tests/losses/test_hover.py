"""The loss of h/v maps: on full annotation that of the synthesis; on partial annotation nothing beyond it is taught."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sketchscale.annotations.hover_maps import maps_from_labels, maps_from_sketch
from sketchscale.annotations.targets import BEYOND, targets_from_sketch
from sketchscale.errors import InputError
from sketchscale.losses import HoverConfig, hover
from sketchscale.networks.targets import TARGETS
from sketchscale.synthesis.losses import map_loss
from sketchscale.training.augment import AugmentConfig
from sketchscale.training.patches import PatchSource, TrainingImage, patch_targets, stack_targets
from tests.losses.batches import batch, full_mask, random_prediction
from tests.oracles import targets as oracle

MAPS = TARGETS["hover"].maps

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds)
@quick
def test_full_annotation_costs_what_the_map_loss_of_the_synthesis_says(seed: int) -> None:
    masks = [full_mask(seed + n, (17, 21)) for n in range(2)]
    targets = batch(*masks)
    prediction = random_prediction(seed, targets, 3)
    maps = torch.from_numpy(np.stack([maps_from_labels(mask) for mask in masks]))
    assert float(hover(prediction, targets, HoverConfig())) == pytest.approx(
        float(map_loss(prediction[:, [1, 0, 2]], maps)), rel=1e-4
    )


def in_one_piece(truth: np.ndarray) -> np.ndarray:
    """Every piece of an object with an id of its own."""
    result = np.where(truth > 0, 0, truth)
    for k in np.unique(truth[truth > 0]):
        pieces, _ = ndimage.label(truth == k)
        result = np.where(pieces > 0, pieces + result.max(initial=0), result)
    return np.asarray(result, np.int32)


@given(seed=seeds)
@quick
def test_what_is_known_of_a_sketch_is_what_the_truth_has_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = in_one_piece(oracle.random_truth(rng, (20, 24)))
    sketch = oracle.random_sketch(rng, truth)
    v, h, m, known = maps_from_sketch(sketch)
    taught = np.stack([v, h])[:, known > 0]
    drawn = sketch == -2
    shape = np.where(drawn, 0, np.maximum(truth, 0))
    whole = ~np.isin(truth, np.unique(truth[drawn]))  # a drawn line takes pixels from an object
    expected = maps_from_labels(shape)[[1, 0]]
    sure = (known > 0) & whole
    np.testing.assert_allclose(np.stack([v, h])[:, sure], expected[:, sure], atol=1e-6)
    assert np.abs(taught).max(initial=0) <= 1
    assert (m[sketch > 0] == 1).all()
    assert (m[sketch <= 0] == 0).all()


def test_objects_that_may_go_on_are_not_taught_and_those_at_the_images_border_are() -> None:
    codes = np.zeros((6, 9), np.int32)
    codes[1:3, 1:3], codes[1:3, 5:7], codes[4:, 4:6] = 1, 2, 3
    codes[1, 7], codes[3, 3] = -1, -1
    known = maps_from_sketch(codes)[3] > 0
    assert known[codes == 1].all()  # a corner is no neighbour
    assert not known[codes == 2].any()
    assert known[codes == 3].all()
    assert known[codes == 0].all()
    codes[5] = BEYOND
    assert (maps_from_sketch(codes)[3] > 0)[4, 4:6].all()


def test_a_crop_teaches_the_maps_of_the_whole_image_or_nothing() -> None:
    labels = np.zeros((60, 60), np.int32)
    labels[10:24, 10:24], labels[20:50, 30:55] = 1, 2
    whole = maps_from_sketch(labels)
    crop = patch_targets(labels[4:44, 4:44], 8, -5.0, maps=MAPS).maps
    inner = whole[:, 12:36, 12:36]
    assert (crop[:2, crop[3] > 0] == inner[:2, crop[3] > 0]).all()
    assert crop[3][labels[12:36, 12:36] == 1].all()
    assert not crop[3][labels[12:36, 12:36] == 2].any()


def test_slopes_are_taught_only_where_all_of_their_window_is_known() -> None:
    codes = np.zeros((12, 12), np.int32)
    codes[2:10, 2:10] = 1
    codes[4, 11] = -1
    targets = batch(codes)
    prediction = torch.zeros(1, 3, 12, 12)
    wrong = prediction.clone()
    wrong[0, 0, 4, 9] = 2.0  # within 5 x 5 px of the unknown one; a pixel of the object
    cost, worse = (float(hover(p, targets, HoverConfig(flow=0))) for p in (prediction, wrong))
    assert worse > cost
    prediction.requires_grad_()
    (gradient,) = torch.autograd.grad(hover(prediction, targets, HoverConfig()), prediction)
    assert (gradient[0, :, 4, 11] == 0).all()


def test_other_losses_draw_the_very_same_batches_and_no_maps() -> None:
    labels = full_mask(3, (50, 50))
    image = TrainingImage(image=np.random.default_rng(0).random((1, 50, 50), np.float32), labels=labels)
    plain = PatchSource([image], size=32, augment=AugmentConfig(), outside=-5.0)
    with_maps = PatchSource([image], size=32, augment=AugmentConfig(), outside=-5.0, maps=MAPS)
    (a, t), (b, s) = (source.batch(np.random.default_rng(5), 3) for source in (plain, with_maps))
    assert torch.equal(a, b)
    assert torch.equal(t.inside, s.inside)
    assert t.maps.shape == (3, 0, 32, 32)
    assert s.maps.shape == (3, 4, 32, 32)


def test_targets_without_maps_are_refused() -> None:
    targets = stack_targets([targets_from_sketch(full_mask(0, (8, 8)))])
    with pytest.raises(InputError, match="without h/v maps"):
        hover(torch.zeros(1, 3, 8, 8), targets, HoverConfig())
