"""The Omnipose family: its dense form, trajectories beside a slow walk, and each term's own set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.losses import OmniposeConfig, sketchpose, sketchpose_1
from sketchscale.losses.omnipose import sample_flow, trajectories
from tests.losses import test_table
from tests.losses.batches import batch, full_mask, random_batch, random_prediction
from tests.oracles import losses as oracle

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
OFF = OmniposeConfig(boundary=0, norm=0, euler=0)


@given(seed=seeds, stride=st.sampled_from([1, 3]))
@quick
def test_with_everything_annotated_it_is_the_dense_loss(seed: int, stride: int) -> None:
    config = OmniposeConfig(stride=stride, steps=6)
    targets = batch(full_mask(seed, (9, 11)))
    prediction = random_prediction(seed, targets, 4).double()
    flow, distance, boundary, inside = (
        getattr(targets, k)[0].numpy() for k in ("flow", "distance", "boundary", "inside")
    )
    plain = oracle.dense_omnipose(
        prediction[0].numpy(), flow.astype(float), distance.astype(float), boundary, inside, config
    )
    assert float(sketchpose_1(prediction, targets, config)) == pytest.approx(plain, rel=1e-6)


@given(seed=seeds, shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), stride=st.integers(1, 5))
@quick
def test_trajectories_are_those_of_a_slow_walk_at_any_shape(seed: int, shape: tuple[int, int], stride: int) -> None:
    flow = np.random.default_rng(seed).standard_normal((2, 2, *shape)) * 1.5
    got = trajectories(torch.from_numpy(flow), steps=7, stride=stride).numpy()
    starts = oracle.starts(shape, stride)
    assert got.shape == (7, 2, 2, len(starts))
    for n in range(2):
        for p, start in enumerate(starts):
            np.testing.assert_allclose(got[:, n, :, p], oracle.follow(flow[n], start, 7), atol=1e-9)


def test_flow_y_moves_along_y() -> None:
    flow = torch.zeros(1, 2, 5, 9)
    flow[:, 0] = 1.0
    assert trajectories(flow, steps=2)[-1, 0, :, 3].tolist() == [2.0, 3.0]


def test_gradients_are_right_between_pixels_and_reach_trajectories_held_at_the_border() -> None:
    generator = torch.Generator().manual_seed(0)
    flow = torch.randn(1, 2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    inner = torch.rand(1, 2, 6, generator=generator, dtype=torch.float64) * 2.9 + 0.05
    assert torch.autograd.gradcheck(sample_flow, (flow, inner.requires_grad_()))
    corner = torch.tensor([[[3.0], [4.0]]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(sample_flow(flow, corner)[0, 0, 0], corner)
    expected = torch.stack([flow[0, 0, 3, 4] - flow[0, 0, 2, 4], flow[0, 0, 3, 4] - flow[0, 0, 3, 3]])
    torch.testing.assert_close(slope[0, :, 0], expected)
    out = torch.full((1, 2, 4, 5), 3.0, requires_grad=True)
    trajectories(out, steps=2)[-1].sum().backward()  # type: ignore[no-untyped-call]
    assert out.grad is not None
    assert (out.grad[0, :, 3, 4] > 0).all()


def test_what_a_trajectory_does_beyond_the_strokes_costs_nothing() -> None:
    labels = np.full((9, 15), -1, np.int32)
    labels[:, :3] = 0
    labels[:, 3:9] = 1
    targets = batch(labels)
    config = replace(OFF, flow=0, distance=0, bounds=0, euler=1.0, stride=1)
    prediction = test_table.TestSketchpose1().perfect(targets)
    changed = prediction.clone()
    changed[:, :2] += 3 * (~targets.flow_known[:, None]).float()
    assert (~targets.flow_known).any()
    assert float(sketchpose_1(changed, targets, config)) == float(sketchpose_1(prediction, targets, config)) == 0
    changed[:, :2] += targets.flow_known[:, None].float()
    assert float(sketchpose_1(changed, targets, config)) > 1


def test_the_norm_is_taught_inside_objects_only() -> None:
    targets = batch(full_mask(2, (12, 12)))
    config = replace(OFF, flow=0, distance=0, bounds=0, norm=1.0)
    prediction = test_table.TestSketchpose1().perfect(targets)
    prediction[:, :2] += 2 * targets.background[:, None]
    assert float(sketchpose_1(prediction, targets, config)) == 0
    doubled = torch.cat([2 * targets.flow, prediction[:, 2:]], dim=1)
    taught = targets.inside & (targets.flow.norm(dim=1) > 0.5)
    rho = 2 + torch.exp(-targets.distance / 5)
    expected = rho[taught].sum() / rho[targets.inside].sum()
    assert float(sketchpose_1(doubled, targets, config)) == pytest.approx(float(expected), rel=1e-4)


def test_pixels_near_a_boundary_weigh_more() -> None:
    labels = np.zeros((3, 14), np.int32)
    labels[:, :12] = 1
    targets = batch(labels)
    config = replace(OFF, flow=0, bounds=0)

    def cost(column: int) -> float:
        prediction = test_table.TestSketchpose1().perfect(targets)
        prediction[:, 2, :, column] += 1
        return float(sketchpose_1(prediction, targets, config))

    assert cost(11) / cost(0) == pytest.approx((2 + np.exp(-0.5 / 5)) / (2 + np.exp(-11.5 / 5)), rel=1e-5)
    assert cost(12) == pytest.approx(cost(13))


def test_boundary_pixels_are_told_from_others_where_that_is_known() -> None:
    targets = batch(np.array([[0, 1, 1, 1, 2, 2, -1, -1]], np.int32))
    assert targets.boundary[0, 0].tolist() == [False, True, False, True, True, False, False, False]
    assert targets.boundary_known[0, 0].tolist() == [True, True, True, True, True, False, False, False]
    config = replace(OFF, flow=0, distance=0, bounds=0, boundary=2.0)
    assert float(sketchpose_1(torch.zeros(1, 4, 1, 8), targets, config)) == pytest.approx(2 * np.log(2))


@given(seed=seeds)
@quick
def test_without_its_own_terms_and_weights_it_is_the_journals_loss(seed: int) -> None:
    targets = random_batch(seed)
    prediction = random_prediction(seed, targets, 4)
    config = replace(OFF, alpha=1e-6)
    away = replace(targets, distance=targets.distance.abs() + 1)
    journal = sketchpose(prediction[:, :3], away, config)
    torch.testing.assert_close(sketchpose_1(prediction, away, config), journal, rtol=1e-5, atol=1e-6)
