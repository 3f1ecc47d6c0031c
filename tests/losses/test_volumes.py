"""Losses of volumes: a volume of one section costs what its plane costs, and nothing unknown is taught."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.annotations.targets import targets_from_sketch
from sketchscale.losses import LOSSES, BatchTargets, loss_config
from sketchscale.losses.lands import lands, solve
from sketchscale.training.patches import stack_targets
from tests.losses.batches import random_batch, random_prediction
from tests.oracles import losses as loss_oracle
from tests.oracles import targets as oracle

quick = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32 - 1)
NAMES = sorted(name for name in LOSSES if not LOSSES[name].planes_only)


def as_volume(targets: BatchTargets) -> BatchTargets:
    """The same targets with an axis z of one section."""
    deep = {f.name: getattr(targets, f.name).unsqueeze(-3) for f in fields(targets)}
    return replace(targets, **{**deep, "flow": torch.cat([torch.zeros_like(deep["flow"][:, :1]), deep["flow"]], dim=1)})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("far", [1.0, 0.3])
def test_a_volume_of_one_section_costs_what_its_plane_costs(name: str, far: float) -> None:
    for seed in range(4):
        targets = random_batch(seed)
        prediction = random_prediction(seed, targets, 3)
        config = replace(loss_config(name), far=far)
        plane = LOSSES[name](prediction, targets, config)
        deep = torch.cat([torch.zeros_like(prediction[:, :1]), prediction], dim=1).unsqueeze(-3)
        torch.testing.assert_close(LOSSES[name](deep, as_volume(targets), config), plane)


def drawn_in_planes(seed: int, ratio: float) -> BatchTargets:
    rng = np.random.default_rng(seed)
    truth = oracle.lined(rng, oracle.random_truth(rng, (5, 9, 8)))
    shown = np.zeros(truth.shape, np.bool_)
    shown[2] = shown[:, 4] = True
    codes = np.where(shown, truth, -1)
    drawn = codes == oracle.DRAWN
    return stack_targets([targets_from_sketch(np.where(drawn, -1, codes), drawn, spacing=(ratio, 1, 1))])


@pytest.mark.parametrize("name", ["sketchpose", "eikonal"])
def test_strokes_in_planes_teach_their_planes_and_the_equation_the_rest(name: str) -> None:
    @given(seed=seeds)
    @quick
    def holds(seed: int) -> None:
        targets = drawn_in_planes(seed, 2.0)
        outputs = torch.randn(1, 4, 5, 9, 8, generator=torch.Generator().manual_seed(seed % 2**31)).requires_grad_()
        config = replace(loss_config(name), anisotropy=2.0)
        (gradient,) = torch.autograd.grad(LOSSES[name](outputs, targets, config), outputs)
        assert torch.isfinite(gradient).all()
        annotated = targets.inside | targets.background | targets.boundary
        if name == "sketchpose":
            assert (gradient.abs().sum(dim=1)[~annotated] == 0).all()

    holds()


@given(seed=seeds)
@quick
def test_lands_of_a_volume_are_those_of_a_slow_flood(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 5, 3))
    phi = (rng.permutation(int(np.prod(shape))).reshape(shape) - rng.integers(0, 20)).astype(np.float32)
    objects = np.where(rng.random(shape) < 0.15, rng.integers(1, 4, shape), 0).astype(np.int32)
    np.testing.assert_array_equal(lands(phi, objects), loss_oracle.lands(phi, objects))


def test_the_solution_has_the_spacing_of_the_volume() -> None:
    z, y, x = np.ogrid[:16, :32, :32]
    inside = ((z - 8) * 2) ** 2 + (y - 16) ** 2 + (x - 16) ** 2 < 144
    phi = torch.from_numpy(np.where(inside, 1.0, -1.0).astype(np.float32))[None]
    found = solve(phi, torch.zeros(phi.shape, dtype=torch.int32), 2.0)
    wanted = targets_from_sketch(inside.astype(np.int32), spacing=(2, 1, 1))
    assert float(found.signed.max()) == pytest.approx(12, abs=1)
    np.testing.assert_array_equal(found.signed[0].numpy(), wanted.signed)
    assert float(solve(phi, torch.zeros(phi.shape, dtype=torch.int32)).signed.max()) < 7
