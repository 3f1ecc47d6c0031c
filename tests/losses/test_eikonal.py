"""The eikonal functional: the scheme beside a slow one, true distances as minimisers, and fields that find them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sketchscale.annotations.targets import targets_from_sketch
from sketchscale.losses import EikonalConfig, eikonal
from sketchscale.losses.base import combined
from sketchscale.losses.eikonal import eikonal_terms, upwind_gradient
from tests.losses.batches import batch, full_mask, random_prediction
from tests.oracles import losses as oracle
from tests.oracles import targets as target_oracle

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
PAPER = EikonalConfig(length=1, slope=1, coupling=1, solved_distance=0, solved_flow=0, band=8)
Labels = npt.NDArray[np.int32]


def disc(rng: np.random.Generator, y: Labels, x: Labels) -> npt.NDArray[np.bool_]:
    return np.asarray((y - rng.uniform(44, 52)) ** 2 + (x - rng.uniform(44, 52)) ** 2 < rng.uniform(8, 30) ** 2)


def ellipse(rng: np.random.Generator, y: Labels, x: Labels) -> npt.NDArray[np.bool_]:
    turn, (a, b) = rng.uniform(0, np.pi), rng.uniform(10, 40, 2)
    u = (y - 48) * np.cos(turn) + (x - 48) * np.sin(turn)
    v = (x - 48) * np.cos(turn) - (y - 48) * np.sin(turn)
    return np.asarray((u / a) ** 2 + (v / b) ** 2 < 1)


def blob(rng: np.random.Generator, y: Labels, x: Labels) -> npt.NDArray[np.bool_]:
    field = ndimage.gaussian_filter(rng.standard_normal(y.shape), 9)
    return np.asarray(field > np.quantile(field, 0.5))


@given(seed=seeds, shape=st.sampled_from([(1, 1), (1, 7), (6, 9), (3, 4, 5)]))
@quick
def test_the_scheme_is_that_of_a_slow_walk_over_pixels(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    phi = np.round(rng.standard_normal(shape) * 3)
    spacing = tuple(rng.choice([0.5, 1.0, 3.0], len(shape)))
    gradient, slope = upwind_gradient(torch.from_numpy(phi)[None], spacing)
    expected = oracle.upwind(phi, spacing)
    np.testing.assert_allclose(gradient[0].numpy(), expected[0], atol=1e-9)
    np.testing.assert_allclose(slope[0].numpy(), expected[1], atol=1e-5)


def test_derivatives_are_by_the_pixel_itself_and_lift_pits() -> None:
    rng = np.random.default_rng(0)
    spacing = (2.0, 0.5)
    hilly = np.abs(rng.standard_normal((1, 7, 8))) * 3 * np.where(np.arange(8) < 4, 1, -1)
    phi = torch.from_numpy(hilly).requires_grad_()
    _, slope = upwind_gradient(phi, spacing)
    (found,) = torch.autograd.grad(slope.sum(), phi)
    pits = 0
    for at in np.ndindex(7, 8):
        if slope[(0, *at)] <= 0:
            pits += 1
            assert found[(0, *at)] * phi[(0, *at)] > 0
        if slope[(0, *at)] == 0:
            continue  # a pit at the border, beside itself: only the derivative from below is defined
        values = []
        for change in (-1e-6, 1e-6):
            moved = np.pad(phi.detach()[0].numpy(), 1, mode="edge")
            moved[at[0] + 1, at[1] + 1] += change
            values.append([part[..., at[0] + 1, at[1] + 1] for part in oracle.upwind(moved, spacing)])
        assert float(found[(0, *at)]) == pytest.approx((values[1][1] - values[0][1]) / 2e-6, abs=1e-4), at
        for axis in range(2):
            component = upwind_gradient(phi, spacing)[0][(0, axis, *at)]
            (rate,) = torch.autograd.grad(component, phi)
            if component == 0:
                assert float(rate.abs().sum()) == 0
                continue
            assert float(rate[(0, *at)]) == pytest.approx((values[1][0][axis] - values[0][0][axis]) / 2e-6, abs=1e-4)
            assert int((rate != 0).sum()) <= 1
    assert pits > 3


@given(seed=seeds)
@quick
def test_with_everything_annotated_it_is_the_dense_form(seed: int) -> None:
    truth = full_mask(seed, (10, 12))
    targets = batch(truth)
    prediction = 2 * random_prediction(seed, targets, 3).double()
    plain = oracle.dense_eikonal(
        prediction[0].numpy(),
        targets.flow[0].double().numpy(),
        target_oracle.signed_distance(truth),
        truth > 0,
        PAPER,
    )
    assert float(eikonal(prediction, targets, PAPER)) == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("shape", [disc, ellipse, blob])
@pytest.mark.parametrize("seed", range(4))
def test_a_signed_distance_has_slope_one_and_points_uphill_in_every_quadrant(
    shape: Callable[..., npt.NDArray[np.bool_]], seed: int
) -> None:
    y, x = np.indices((96, 96), np.int32)
    inside = shape(np.random.default_rng(seed), y, x)
    signed = targets_from_sketch(inside.astype(np.int32)).signed
    gradient, slope = (a[0].numpy() for a in upwind_gradient(torch.from_numpy(signed)[None], (1.0, 1.0)))
    off = np.abs(signed) > 0.5
    up, right = np.gradient(signed)
    for quadrant in (
        (up >= 0) & (right >= 0),
        (up >= 0) & (right < 0),
        (up < 0) & (right >= 0),
        (up < 0) & (right < 0),
    ):
        assert ((slope - 1) ** 2)[quadrant & off].mean() < 1e-2
        along = (gradient[0] * up + gradient[1] * right)[quadrant & off & (np.hypot(up, right) > 0.9)]
        assert along.mean() > 0.9
        assert (along > 0).mean() > 0.99


def test_control_without_signs_the_background_of_the_same_field_costs_far_more() -> None:
    y, x = np.indices((64, 64))
    labels = (((y - 20) ** 2 + (x - 20) ** 2 < 64) | ((y - 44) ** 2 + (x - 44) ** 2 < 64)).astype(np.int32)
    signed = torch.from_numpy(targets_from_sketch(labels).signed)[None]
    away = signed[0] < -0.5
    _, ours = upwind_gradient(signed, (1.0, 1.0))
    _, printed = upwind_gradient(signed + 1000, (1.0, 1.0))
    costs = [float(((slope[0] - 1) ** 2)[away].mean()) for slope in (ours, printed)]
    assert costs[0] < 5e-3
    assert costs[1] > 5 * costs[0]


def test_in_three_dimensions_slopes_are_per_unit_of_length() -> None:
    spacing = (3.0, 1.0, 0.5)
    z, y, x = (s * (np.arange(n) - n // 2) for n, s in zip((12, 36, 72), spacing, strict=True))
    ball = 12 - np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    gradient, slope = (a[0].numpy() for a in upwind_gradient(torch.from_numpy(ball)[None], spacing))
    off = np.abs(ball) > 3
    assert ((slope - 1) ** 2)[off].mean() < 1e-2
    towards = np.stack(np.broadcast_arrays(-z[:, None, None], -y[:, None], -x)) / np.maximum(12 - ball, 1e-6)
    assert (gradient * towards).sum(axis=0)[off].mean() > 0.95
    terms = eikonal_terms(
        torch.from_numpy(ball)[None],
        torch.from_numpy(towards)[None],
        torch.zeros(1, *ball.shape),
        torch.from_numpy(ball < -3)[None],
        torch.from_numpy(ball > 3)[None],
        spacing,
        PAPER,
    )
    assert float(combined(list(terms.values()))) < 0.05


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.5, 0.5, 1.0)])
def test_strokes_alone_are_the_functional_in_two_and_three_dimensions(spacing: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    shape = (4, 6, 5)[: len(spacing)]
    prediction = torch.from_numpy(rng.standard_normal((1, len(spacing) + 1, *shape)) * 2)
    boundary = np.where(rng.random(shape) < 0.2, 0.25, 0.0)
    background, foreground = rng.random(shape) < 0.3, rng.random(shape) < 0.3
    known = (torch.from_numpy(a)[None] for a in (boundary, background, foreground))
    terms = eikonal_terms(prediction[:, -1], prediction[:, :-1], *known, spacing, PAPER)
    got = combined(list(terms.values()))
    v, phi = prediction[0, :-1].numpy(), prediction[0, -1].numpy()
    gradient, slope = oracle.upwind(phi, spacing)
    off = boundary == 0
    weight, half = np.where(np.abs(phi) < min(spacing), 0.2, 1.0)[off], min(spacing) / 2
    expected = ((np.linalg.norm(v, axis=0) - 1) ** 2).mean()
    expected += np.average(((slope - 1) ** 2 + ((gradient - v) ** 2).sum(axis=0))[off], weights=weight)
    expected += ((phi - boundary) ** 2)[~off].mean()
    expected += (np.maximum(phi + half, 0) ** 2)[background].mean()
    expected += (np.maximum(half - phi, 0) ** 2)[foreground].mean()
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_the_border_repeats_its_pixels() -> None:
    phi = torch.tensor([[[3.0, 2.0, 1.0, 2.0]]])
    _, slope = upwind_gradient(phi, (1.0, 1.0))
    assert slope[0, 0].tolist() == [1.0, 1.0, 0.0, 1.0]


def test_beside_a_known_boundary_phi_is_half_a_pixel_and_its_slope_is_left_alone() -> None:
    targets = batch(np.array([[1, 1, 1, 2, 2, 2]], np.int32))
    exact = torch.cat([targets.flow, targets.signed[:, None]], dim=1)
    assert targets.signed[0, 0].tolist() == [2.5, 1.5, 0.5, 0.5, 1.5, 2.5]
    assert float(eikonal(exact, targets, PAPER)) < 1e-7
    moved = exact.clone()
    moved[0, 2, 0, 2] = 0.0
    moved = eikonal(moved, targets, replace(PAPER, flow=0, distance=0, length=0, slope=0, coupling=0, sides=0))
    assert float(moved) == pytest.approx(0.25 / 2)


def test_a_boundary_that_nobody_drew_costs_little() -> None:
    phi = torch.tensor([[[2.5, 1.5, 0.5, 0.5, 1.5, 2.5]]])
    none = torch.zeros(phi.shape, dtype=torch.bool)
    parts = [
        eikonal_terms(phi, torch.zeros(1, 2, 1, 6), none.float(), none, none, (1.0, 1.0), replace(PAPER, near=near))
        for near in (0.2, 1.0)
    ]
    robust, plain = (float(combined([terms["slope"]])) for terms in parts)
    assert plain == pytest.approx(2 / 6)
    assert robust == pytest.approx(0.4 / 4.4)


@pytest.mark.parametrize("exponent", [1, 2])
def test_hinges_keep_phi_on_its_side(exponent: int) -> None:
    phi = torch.tensor([[[-2.5, 1.5]]])
    sides = torch.tensor([[[True, False]]])
    config = EikonalConfig(exponent=exponent)
    right, wrong = (
        eikonal_terms(phi, torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2), a, ~a, (1.0, 1.0), config)
        for a in (sides, ~sides)
    )
    assert [float(combined([right[k]])) for k in ("background", "foreground")] == [0.0, 0.0]
    assert [float(combined([wrong[k]])) for k in ("background", "foreground")] == [2.0**exponent, 3.0**exponent]


def objects(seed: int) -> Labels:
    """A few ellipses in 48 x 48 px, some touching."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((48, 48))
    labels = np.zeros((48, 48), np.int32)
    for k in range(1, 5):
        (cy, cx), (a, b), turn = rng.uniform(8, 40, 2), rng.uniform(5, 11, 2), rng.uniform(0, np.pi)
        u = (y - cy) * np.cos(turn) + (x - cx) * np.sin(turn)
        v = (x - cx) * np.cos(turn) - (y - cy) * np.sin(turn)
        labels[((u / a) ** 2 + (v / b) ** 2 < 1) & (labels == 0)] = k
    return labels


@pytest.mark.parametrize("seed", range(2))
def test_a_free_field_finds_the_distance_from_boundaries_and_strokes(seed: int) -> None:
    """No network: descent from the side of the nearest annotated pixel; 10 % of the pixels are strokes."""
    labels = objects(seed)
    signed = targets_from_sketch(labels).signed
    kept = np.random.default_rng(seed).random(labels.shape) < 0.1
    beside = np.where(np.abs(signed) == 0.5, signed, 0)
    marks = np.where((beside != 0) | kept, np.sign(signed), 0)
    nearest = ndimage.distance_transform_edt(marks == 0, return_distances=False, return_indices=True)
    phi = torch.from_numpy(marks[tuple(nearest)].astype(np.float32))[None].requires_grad_()
    v = torch.randn(1, 2, 48, 48, generator=torch.Generator().manual_seed(seed)).mul(0.1).requires_grad_()
    strokes = (torch.from_numpy((sign * signed > 0) & kept)[None] for sign in (-1, 1))
    known = (torch.from_numpy(beside)[None], *strokes, (1.0, 1.0), PAPER)
    optimizer = torch.optim.Adam([phi, v], lr=0.2)
    steps = 600
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / steps)
        cost = combined(list(eikonal_terms(phi, v, *known).values()))
        optimizer.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    wrong = np.abs(phi.detach()[0].numpy() - signed)
    assert wrong.mean() < 0.5
    assert wrong[labels > 0].mean() < 0.2
    truth = upwind_gradient(torch.from_numpy(signed)[None], (1.0, 1.0))[0][0].numpy()
    agree = (v.detach()[0].numpy() * truth).sum(axis=0)[(np.abs(signed) > 0.5) & (np.hypot(*truth) > 0.9)]
    assert np.median(agree) > 0.9


def test_nothing_is_asserted_in_a_boundary_stroke_but_its_reach() -> None:
    codes = np.zeros((30, 40), np.int32)
    codes[:, :12], codes[:, 12:19] = 1, -2
    targets = batch(codes)
    config = replace(PAPER, length=0, slope=0, coupling=0)
    stroke = targets.bounded & ~targets.inside & ~targets.background
    assert stroke[0, 15, 12:19].all()
    assert not targets.signed_known[stroke].any()
    reach = targets.upper[0, 15, 12:19]
    assert 3.5 <= float(reach.min()) <= 4.1
    v = targets.flow * targets.inside[:, None]
    for share, costs in ((0.0, False), (0.9, False), (-0.9, False), (1.5, True), (-1.5, True)):
        phi = torch.where(targets.inside, (targets.lower + targets.upper) / 2, -9.0)
        phi = torch.where(targets.bounded & targets.background, (targets.lower + targets.upper) / 2, phi)
        phi = torch.where(stroke, share * targets.upper, phi)
        prediction = torch.cat([v, phi[:, None]], dim=1).requires_grad_()
        loss = eikonal(prediction, targets, config)
        (gradient,) = torch.autograd.grad(loss, prediction)
        assert (float(loss.detach()) > 1e-3) == costs
        assert bool((gradient[:, 2][stroke] != 0).any()) == costs


def test_the_solution_parts_two_objects_at_the_centre_line_of_a_stroke_of_any_width() -> None:
    for width in (1, 5, 9):
        codes = np.ones((24, 40), np.int32)
        codes[:, 20:] = 2
        codes[:, 20 - width // 2 : 21 + width // 2] = -2
        targets = batch(codes)
        line = targets.boundary & ~targets.inside
        assert line[0, 12].nonzero().flatten().tolist() == [20]
        assert (targets.boundary_known & ~targets.inside).sum() == line.sum()
        whole = torch.full((1, 24, 40), 8.0)
        prediction = torch.cat([torch.zeros(1, 2, 24, 40), whole[:, None]], dim=1).requires_grad_()
        loss = eikonal(prediction, targets, replace(EikonalConfig(), distance=0, bounds=0, flow=0, boundary=0, sides=0))
        (gradient,) = torch.autograd.grad(loss, prediction)
        in_stroke = targets.bounded & ~targets.inside
        assert (gradient[:, 2][in_stroke] == 0).all()
        assert (gradient[0, 2, 12, [14, 26]] > 0).all()  # 6 px from the line the solution is lower than 8
