"""The solved eikonal equation: lands beside a slow flood, levels on edges, and what is pulled where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.annotations.targets import targets_from_sketch
from sketchscale.losses import BatchTargets, EikonalConfig, eikonal
from sketchscale.losses.lands import agreement_with_strokes, choose_level, lands, solve
from tests.losses.batches import batch, random_batch, random_prediction
from tests.oracles import losses as oracle
from tests.training.examples import discs

quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
Labels = npt.NDArray[np.int32]


@given(seed=seeds)
@quick
def test_lands_are_those_of_a_slow_flood(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 9)), int(rng.integers(1, 9)))
    phi = (rng.permutation(shape[0] * shape[1]).reshape(shape) - rng.integers(0, 20)).astype(np.float32)
    objects = np.where(rng.random(shape) < 0.15, rng.integers(1, 4, shape), 0).astype(np.int32)
    np.testing.assert_array_equal(lands(phi, objects), oracle.lands(phi, objects))


def dots(labels: Labels) -> Labels:
    """One numbered pixel in each object, the first of those farthest from its edge."""
    signed = targets_from_sketch(labels).signed
    out = np.zeros_like(labels)
    for k in range(1, int(labels.max()) + 1):
        at = np.argmax(np.where(labels == k, signed, -np.inf))
        out.ravel()[at] = k
    return out


def test_a_dot_in_each_object_and_their_distance_give_the_full_masks_back() -> None:
    labels = discs(3)
    truth = targets_from_sketch(labels)
    phi, objects = (torch.from_numpy(a)[None] for a in (truth.signed, dots(labels)))
    solution = solve(phi, objects)
    np.testing.assert_array_equal(lands(truth.signed, dots(labels)) > 0, labels > 0)
    same = np.abs(solution.signed[0].numpy() - truth.signed) < 1e-6
    assert same.mean() > 0.97
    along = (solution.flow[0].numpy() * truth.flow).sum(axis=0)[(labels > 0) & (np.hypot(*truth.flow) > 0.9)]
    assert np.median(along) > 0.999


def test_without_a_boundary_nothing_is_defined() -> None:
    for value in (1.0, -1.0):
        solution = solve(torch.full((1, 4, 5), value), torch.zeros((1, 4, 5), dtype=torch.int32))
        assert not solution.signed_known.any()
        assert torch.isfinite(solution.signed).all()


def interior(labels: Labels, seed: int = 0) -> Labels:
    """Region codes of a dot in each object, and background at random places."""
    codes = np.where(dots(labels) > 0, labels, -1)
    return np.where((labels == 0) & (np.random.default_rng(seed).random(labels.shape) < 0.05), 0, codes)


def with_edges(targets: BatchTargets, labels: Labels) -> BatchTargets:
    """Edges of an image that is bright inside objects and dark outside."""
    rise = np.zeros(labels.shape, np.float32)
    rise[1:] += (labels[1:] > 0) != (labels[:-1] > 0)
    rise[:, 1:] += (labels[:, 1:] > 0) != (labels[:, :-1] > 0)
    return replace(targets, edges=torch.from_numpy(rise)[None, None])


@pytest.mark.parametrize("shift", [-1.5, 0.0, 1.5])
def test_the_level_is_where_the_contour_lies_on_edges(shift: float) -> None:
    labels = discs(3)
    targets = with_edges(batch(interior(labels)), labels)
    phi = torch.from_numpy(targets_from_sketch(labels).signed)[None] + shift
    level, _ = choose_level(phi, targets)
    assert abs(level - shift) <= 0.5  # of few pixels; the edge between them lies beside either
    assert choose_level(phi, replace(targets, edges=targets.edges[:, :0]))[0] == 0


def test_a_level_with_strokes_on_the_wrong_side_is_not_chosen_for_its_edges() -> None:
    labels = discs(3)
    phi = torch.from_numpy(targets_from_sketch(labels).signed)[None]
    edges = 1 + ((phi > 2.4) & (phi < 3.6)).float()[:, None]
    free, held = (replace(batch(codes), edges=edges) for codes in (interior(labels), labels))
    assert choose_level(phi, free)[0] > 2
    assert choose_level(phi, held)[0] <= 0.5


def test_agreement_is_0_by_chance_and_1_when_all_strokes_are_on_their_side() -> None:
    targets = batch(np.array([[1, 1, -1, 0, 0]], np.int32))
    right = torch.tensor([[[2.0, 1.0, 9.0, -1.0, -2.0]]])
    assert agreement_with_strokes(right, targets) == 1
    assert agreement_with_strokes(-right, targets) == 0
    assert agreement_with_strokes(torch.ones_like(right), targets) == 0
    assert agreement_with_strokes(torch.tensor([[[2.0, -1.0, 9.0, -1.0, -2.0]]]), targets) == 0.5
    inside = batch(np.array([[1, 1, -1]], np.int32))
    assert agreement_with_strokes(torch.tensor([[[2.0, 1.0, 0.0]]]), inside) == 1
    assert agreement_with_strokes(right[..., :3], batch(np.array([[-1, -1, -1]], np.int32))) == 0


def descended(targets: BatchTargets, phi: torch.Tensor, steps: int = 150) -> npt.NDArray[np.float32]:
    """A free field after descent on the loss, without a network."""
    phi = phi.clone().requires_grad_()
    v = torch.zeros(1, 2, *phi.shape[1:], requires_grad=True)
    optimizer = torch.optim.Adam([phi, v], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = eikonal(torch.cat([v, phi[:, None]], dim=1), targets, EikonalConfig())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return phi.detach()[0].numpy()


def test_two_numbers_in_one_bump_lay_a_boundary_between_and_one_number_does_not() -> None:
    """A single high region with two strokes: with different numbers no way from one to the other stays inside."""
    y, x = np.indices((15, 31))
    bump = torch.from_numpy((6 - np.hypot(y - 7, np.maximum(0, np.abs(x - 15) - 8))).astype(np.float32))[None]
    lowest = {}
    for second in (2, 1):
        codes = np.full((15, 31), -1, np.int32)
        codes[7, 6:9], codes[7, 22:25] = 1, second
        codes[0], codes[-1] = 0, 0
        phi = descended(batch(codes), bump)
        assert (phi[7, [7, 23]] > 1).all()
        lowest[second] = phi[7, 9:22].min()
    assert lowest[2] < 1
    assert lowest[1] > 3


def test_what_is_ignored_gets_no_gradient() -> None:
    targets = random_batch(7)
    targets.ignored[:, :, 3:9] = ~(targets.inside | targets.background | targets.boundary)[:, :, 3:9]
    prediction = random_prediction(2, targets, 3) * 3 + torch.where(targets.inside, 2.0, -2.0)[:, None]
    prediction.requires_grad_()
    (gradient,) = torch.autograd.grad(eikonal(prediction, targets, EikonalConfig()), prediction)
    assert (gradient.abs().sum(dim=1)[targets.ignored] == 0).all()
    unknown = ~(targets.inside | targets.background | targets.boundary | targets.ignored)
    assert (gradient.abs().sum(dim=1)[unknown] > 0).any()


@pytest.mark.parametrize("right", [True, False])
def test_a_start_model_is_kept_where_it_agrees_with_the_strokes_and_left_where_it_does_not(right: bool) -> None:
    labels = discs(3)
    truth = targets_from_sketch(labels)
    phi = truth.signed if right else -truth.signed
    given = torch.from_numpy(np.concatenate([truth.flow, phi[None]]))[None]
    targets = replace(batch(interior(labels)), start=torch.cat([given, given[:, 2:]], dim=1))
    moved = given.clone().requires_grad_()
    (still,) = torch.autograd.grad(eikonal(moved, targets, EikonalConfig()), moved)
    away = (given + 0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(eikonal(away, targets, EikonalConfig()), away)
    unknown = ~(targets.inside | targets.background)[0]
    if right:
        assert float(still.abs().max()) == 0
        assert (gradient[0, 2][unknown] > 0).all()
    else:
        assert float(gradient[0, 2][unknown].abs().max()) == 0
