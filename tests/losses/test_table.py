"""What every loss of the table keeps: a perfect prediction, gradients within the strokes, empty sets, precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.losses import LOSSES, EikonalConfig, HoverConfig, LossConfig, OmniposeConfig, find_loss
from sketchscale.networks import NetworkConfig, create_network
from tests.losses.batches import batch, data_only, full_mask, perfect, random_batch, random_prediction

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
every_loss = pytest.mark.parametrize("name", sorted(LOSSES))
sketch_losses = pytest.mark.parametrize("name", sorted(n for n, loss in LOSSES.items() if not loss.dense))


@every_loss
@pytest.mark.parametrize("far", [1.0, 0.3])
@given(seed=seeds)
@quick
def test_a_perfect_prediction_costs_nothing_and_others_do(name: str, far: float, seed: int) -> None:
    targets, config = random_batch(seed), data_only(name, LossConfig(far=far, rim=2))
    assert float(LOSSES[name](perfect(name, targets), targets, config)) <= 1e-9
    if targets.known.any():
        assert float(LOSSES[name](perfect(name, targets) + 1, targets, config)) > 0


@sketch_losses
@given(seed=seeds)
@quick
def test_no_gradient_leaves_the_strokes(name: str, seed: int) -> None:
    targets = random_batch(seed)
    prediction = random_prediction(seed, targets, LOSSES[name].outputs).requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[name](prediction, targets, data_only(name)), prediction)
    assert torch.isfinite(gradient).all()
    drawn = targets.boundary & targets.boundary_known & ~targets.inside
    annotated = targets.inside | targets.background | drawn
    assert (gradient.abs().sum(dim=1)[~annotated] == 0).all()
    vectors_known = targets.maps[:, 3] > 0 if name == "hover" else targets.flow_known
    assert (gradient[:, :2].abs().sum(dim=1)[~vectors_known] == 0).all()
    if name == "eikonal":
        exact, taught = targets.signed_known & (targets.signed > -8), targets.inside | targets.background | drawn
    elif name == "hover":
        exact = taught = annotated
    else:
        exact, taught = targets.known, targets.known | targets.bounded
    assert (gradient[:, 2][~taught] == 0).all()
    assert (gradient[:, 2][exact] != 0).all()
    if name == "sketchpose-1":
        assert (gradient[:, 3][~targets.boundary_known] == 0).all()
        assert (gradient[:, 3][targets.boundary_known] != 0).all()


def test_the_eikonal_terms_of_slope_and_length_act_everywhere_by_design() -> None:
    targets = batch(np.full((9, 9), -1, np.int32))
    prediction = random_prediction(1, targets, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES["eikonal"](prediction, targets, LossConfig()), prediction)
    assert (gradient.abs().sum(dim=1) > 0).all()


@every_loss
@pytest.mark.parametrize("value", [-1, 0, 1], ids=["unknown", "background", "one object"])
def test_batches_that_know_little_give_numbers_and_no_gradient_from_nothing(name: str, value: int) -> None:
    targets = batch(np.full((8, 8), value, np.int32), np.full((8, 8), -1, np.int32))
    prediction = random_prediction(3, targets, LOSSES[name].outputs).requires_grad_()
    loss = LOSSES[name](prediction, targets, data_only(name))
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    if value == -1 and not LOSSES[name].dense:
        assert float(loss.detach()) == 0
        assert (gradient == 0).all()


@every_loss
def test_every_term_has_a_weight_that_switches_it_off(name: str) -> None:
    own = EikonalConfig(length=0, slope=0, coupling=0, boundary=0, sides=0)
    config = LossConfig(
        flow=0,
        distance=0,
        bounds=0,
        omnipose=OmniposeConfig(boundary=0, norm=0, euler=0),
        eikonal=own,
        hover=HoverConfig(squares=0, slopes=0, entropy=0, dice=0),
    )
    targets = random_batch(5)
    assert float(LOSSES[name](random_prediction(5, targets, LOSSES[name].outputs), targets, config)) == 0


@every_loss
def test_half_precision_is_computed_in_float32(name: str) -> None:
    targets = random_batch(3)
    prediction = random_prediction(0, targets, LOSSES[name].outputs).to(torch.bfloat16)
    assert LOSSES[name](prediction, targets, LossConfig()).dtype == torch.float32


@every_loss
def test_it_is_a_mean_over_the_batch_so_that_a_batch_twice_over_costs_the_same(name: str) -> None:
    targets = random_batch(11)
    doubled = type(targets)(**{k: torch.cat([getattr(targets, k)] * 2) for k in targets.__slots__})
    prediction = random_prediction(1, targets, LOSSES[name].outputs)
    once, twice = (
        LOSSES[name](p, t, LossConfig()) for p, t in ((prediction, targets), (torch.cat([prediction] * 2), doubled))
    )
    torch.testing.assert_close(once, twice, rtol=1e-5, atol=1e-6)


@every_loss
def test_a_few_steps_of_a_network_make_it_smaller(name: str) -> None:
    torch.manual_seed(0)
    loss, targets = LOSSES[name], batch(full_mask(4, (32, 32)))
    network = create_network(NetworkConfig(widths=(4, 8), outputs=loss.outputs), seed=0).train()
    image = targets.inside.float()[:, None]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    costs = []
    for _ in range(12):
        cost = loss(network(image), targets, LossConfig(name=name))
        optimizer.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        costs.append(float(cost.detach()))
    assert costs[-1] < 0.7 * costs[0]


def test_senseless_weights_and_unknown_names_are_refused() -> None:
    for make in (
        lambda: LossConfig(flow=-1.0),
        lambda: LossConfig(far=0.0),
        lambda: LossConfig(far=2.0),
        lambda: LossConfig(rim=-1),
        lambda: OmniposeConfig(euler=-1.0),
        lambda: OmniposeConfig(alpha=0.0),
        lambda: OmniposeConfig(steps=0),
        lambda: OmniposeConfig(stride=0),
        lambda: EikonalConfig(slope=-1.0),
        lambda: EikonalConfig(exponent=3),
        lambda: EikonalConfig(near=0.0),
        lambda: HoverConfig(slopes=-1.0),
    ):
        with pytest.raises(InputError, match="expected"):
            make()
    with pytest.raises(UnknownNameError, match="did you mean 'sketchpose'"):
        find_loss("sketchpoze")
