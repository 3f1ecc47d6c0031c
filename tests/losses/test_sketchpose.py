"""The journal's loss: its dense form, and how batches and bounds are normalised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.losses import BatchTargets, LossConfig, dense, sketchpose
from tests.losses import test_table
from tests.losses.batches import batch, full_mask, random_prediction
from tests.oracles import losses as oracle

quick = settings(max_examples=25, deadline=None)


@given(seed=st.integers(0, 2**32 - 1))
@quick
def test_with_everything_annotated_it_is_the_dense_loss(seed: int) -> None:
    targets = batch(full_mask(seed, (12, 12)))
    prediction = random_prediction(seed, targets, 3)
    plain = oracle.dense(*(x[0].double().numpy() for x in (prediction, targets.flow, targets.distance)), LossConfig())
    for loss in (sketchpose, dense):
        assert float(loss(prediction, targets, LossConfig())) == pytest.approx(plain, rel=1e-6)


def test_a_batch_is_normalised_by_its_totals_not_image_by_image() -> None:
    little = np.full((6, 6), -1, np.int32)
    little[0, 0] = 0
    much = np.zeros((6, 6), np.int32)
    prediction = torch.zeros(2, 3, 6, 6)
    prediction[:, 2] = -5
    prediction[0, 2] = -4
    got = float(sketchpose(prediction, batch(little, much), LossConfig()))
    assert got == pytest.approx(0.08 * 1 / 37)


def test_the_bounds_push_from_both_sides_and_only_there() -> None:
    targets = batch(np.array([[0, 1, 1, 1, 1, 1, -1, -1]], np.int32))
    where = torch.nonzero(targets.bounded[0, 0]).flatten()
    assert where.tolist() == [4, 5]
    low, high = float(targets.lower[0, 0, 4]), float(targets.upper[0, 0, 4])
    assert (low, high) == (1.5, 3.5)
    for value, cost in ((low, 0.0), (high, 0.0), (low - 1, 1.0), (high + 2, 4.0)):
        prediction = test_table.TestSketchpose().perfect(targets)
        prediction[0, 2, 0, 4] = value
        assert float(sketchpose(prediction, targets, LossConfig())) == pytest.approx(0.08 * cost / 5, abs=1e-7)


def test_a_few_bounded_pixels_do_not_outweigh_the_others() -> None:
    labels = np.zeros((60, 60), np.int32)
    labels[:25], labels[:, 59] = 1, -1
    targets = batch(labels)
    assert 0 < int(targets.bounded.sum()) < 0.3 * int(targets.inside.sum())
    prediction = torch.zeros(1, 3, 60, 60)
    got = float(sketchpose(prediction, targets, LossConfig(flow=0, distance=0)))
    assert got == pytest.approx(0.08 * float((targets.lower[targets.bounded] ** 2).sum() / targets.inside.sum()))


def test_far_background_weighs_less_when_asked() -> None:
    labels = np.zeros((5, 20), np.int32)
    labels[:, :3] = 1
    targets = batch(labels)
    prediction = test_table.TestSketchpose().perfect(targets)
    prediction[0, 2, :, 15:] += 1
    plain, eased = (float(sketchpose(prediction, targets, c)) for c in (LossConfig(), LossConfig(far=0.25, rim=2)))
    assert plain == pytest.approx(0.08 * 25 / 100)
    assert eased == pytest.approx(0.08 * 25 * 0.25 / (25 + 75 * 0.25))


def beside_a_stroke(width: int) -> BatchTargets:
    """Object 1, then a stroke, then another object."""
    codes = np.ones((31, 48), np.int32)
    codes[:, 24:] = 2
    codes[:, 24 - width // 2 : 24 - width // 2 + width] = -2
    return batch(codes)


@pytest.mark.parametrize("width", [1, 7])
def test_within_its_bounds_a_distance_is_free_beside_a_wide_stroke_and_guessed_beside_a_thin_one(width: int) -> None:
    targets, config = beside_a_stroke(width), LossConfig(flow=0)
    inside = targets.bounded & targets.inside
    assert torch.equal(inside, targets.two_sided)
    half = (targets.upper - targets.lower) / 2
    thin = inside & (half <= 1)
    assert (thin.sum() > 0.8 * inside.sum()) if width == 1 else not thin.any()
    middle = targets.lower + half
    for distance, out in ((middle, 0.0), (targets.upper, 0.0), (targets.lower - 1, 1.0)):
        guess = ((distance - middle) ** 2 / (1 + half**2))[thin].sum()
        cost = (guess + out * thin.sum()) / max(1, int(thin.sum())) + out * (inside & ~thin).sum() / inside.sum()
        prediction = torch.cat([torch.zeros(1, 2, 31, 48), torch.where(inside, distance, 0.0)[:, None]], dim=1)
        assert float(sketchpose(prediction, targets, config)) == pytest.approx(0.08 * float(cost), rel=1e-4, abs=1e-7)


def test_a_brush_that_leaves_little_of_an_object_is_not_outweighed_by_background() -> None:
    codes = np.zeros((40, 60), np.int32)
    codes[:, :20], codes[:, :12] = -2, 1
    few, many = batch(codes[:, :30].copy()), batch(codes)
    costs = []
    for targets in (few, many):
        prediction = torch.where(targets.background, -5.0, 0.0)
        prediction = torch.cat([torch.zeros(1, 2, *prediction.shape[1:]), prediction[:, None]], dim=1)
        costs.append(float(sketchpose(prediction, targets, LossConfig(flow=0))))
    assert costs[0] == pytest.approx(costs[1])
    assert costs[0] > 1
