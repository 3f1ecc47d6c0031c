"""Losses: what a perfect prediction costs, where gradients go, and how batches are normalised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.annotations.targets import targets_from_sketch
from sketchscale.errors import InputError, UnknownNameError
from sketchscale.losses import LOSSES, BatchTargets, LossConfig, find_loss, sketchpose
from sketchscale.training.patches import stack_targets
from tests.oracles import targets as oracle

quick = settings(max_examples=25, deadline=None)
configs = [LossConfig(), LossConfig(far=0.3, rim=2)]


def batch(*sketches: npt.NDArray[np.int32]) -> BatchTargets:
    targets = [targets_from_sketch(np.where(s == -2, -1, s), s == -2) for s in sketches]
    return stack_targets(targets)


def random_batch(seed: int) -> BatchTargets:
    rng = np.random.default_rng(seed)
    return batch(*(oracle.random_sketch(rng, oracle.random_truth(rng, (14, 17))) for _ in range(2)))


def perfect(t: BatchTargets) -> torch.Tensor:
    distance = torch.where(t.bounded, (t.lower + t.upper.clamp(max=1e3)) / 2, t.distance)
    return torch.cat([t.flow, distance[:, None]], dim=1)


@pytest.mark.parametrize("name", ["sketchpose"])
@pytest.mark.parametrize("config", configs)
@given(seed=st.integers(0, 2**32 - 1))
@quick
def test_a_perfect_prediction_costs_nothing_and_others_do(name: str, config: LossConfig, seed: int) -> None:
    targets = random_batch(seed)
    assert float(LOSSES[name](perfect(targets), targets, config)) <= 1e-10
    if targets.known.any():
        assert float(LOSSES[name](perfect(targets) + 1, targets, config)) > 0


@pytest.mark.parametrize("name", ["sketchpose"])
@pytest.mark.parametrize("config", configs)
@given(seed=st.integers(0, 2**32 - 1))
@quick
def test_no_gradient_reaches_what_the_sketch_does_not_know(name: str, config: LossConfig, seed: int) -> None:
    targets = random_batch(seed)
    prediction = torch.randn(2, 3, 14, 17, generator=torch.Generator().manual_seed(seed % 1000), requires_grad=True)
    (gradient,) = torch.autograd.grad(LOSSES[name](prediction, targets, config), prediction)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, :2][~targets.flow_known[:, None].expand(-1, 2, -1, -1)] == 0).all()
    assert (gradient[:, 2][~(targets.known | targets.bounded)] == 0).all()
    if targets.known.any():
        assert (gradient[:, 2][targets.known] != 0).any()


@given(seed=st.integers(0, 2**32 - 1))
@quick
def test_with_everything_annotated_it_is_the_dense_loss(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.maximum(oracle.random_truth(rng, (12, 12)), 0)
    truth[0, 0], truth[0, 1] = 0, 1
    targets = batch(truth)
    prediction = torch.from_numpy(rng.standard_normal((1, 3, 12, 12)).astype(np.float32))
    dense = 5 * ((prediction[:, :2] - targets.flow) ** 2).sum(1).mean()
    dense = dense + 0.08 * ((prediction[:, 2] - targets.distance) ** 2).mean()
    torch.testing.assert_close(sketchpose(prediction, targets, LossConfig()), dense, rtol=1e-6, atol=1e-6)


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
        prediction = perfect(targets)
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


@pytest.mark.parametrize("value", [-1, 0])
def test_a_batch_without_objects_or_without_anything_gives_no_nan(value: int) -> None:
    targets = batch(np.full((8, 8), value, np.int32))
    prediction = torch.zeros(1, 3, 8, 8, requires_grad=True)
    loss = sketchpose(prediction, targets, LossConfig(far=0.5))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()
    assert (float(loss.detach()) == 0) == (value == -1)


def test_far_background_weighs_less_when_asked() -> None:
    labels = np.zeros((5, 20), np.int32)
    labels[:, :3] = 1
    targets = batch(labels)
    prediction = perfect(targets)
    prediction[0, 2, :, 15:] += 1
    plain, eased = (float(sketchpose(prediction, targets, c)) for c in (LossConfig(), LossConfig(far=0.25, rim=2)))
    assert plain == pytest.approx(0.08 * 25 / 100)
    assert eased == pytest.approx(0.08 * 25 * 0.25 / (25 + 75 * 0.25))


def test_half_precision_is_computed_in_float32() -> None:
    targets = random_batch(3)
    prediction = torch.randn(2, 3, 14, 17, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    assert sketchpose(prediction, targets, LossConfig()).dtype == torch.float32


def test_senseless_weights_and_unknown_names_are_refused() -> None:
    for change in ({"flow": -1.0}, {"far": 0.0}, {"far": 2.0}, {"rim": -1}):
        with pytest.raises(InputError, match="weights"):
            replace(LossConfig(), **change)
    with pytest.raises(UnknownNameError, match="did you mean 'sketchpose'"):
        find_loss("sketchpoze")
