"""Every loss of the table through the suite, and what only one of them says of itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.losses import LOSSES, BatchTargets, EikonalConfig, LossConfig, OmniposeConfig, find_loss, loss_config
from sketchscale.networks.targets import TARGETS
from tests.conformance.losses import LossSuite, annotated
from tests.losses.batches import batch, random_batch, random_prediction
from tests.training.examples import TINY


class TestSketchpose(LossSuite):
    name = "sketchpose"


class TestDense(LossSuite):
    name = "dense"

    def distance(self, t: BatchTargets) -> torch.Tensor:
        return t.distance


class TestSketchpose1(LossSuite):
    name = "sketchpose-1"

    def perfect(self, t: BatchTargets) -> torch.Tensor:
        return torch.cat([super().perfect(t), torch.where(t.boundary, 40.0, -40.0)[:, None]], dim=1)

    def test_the_boundary_logit_is_taught_where_it_is_known(self) -> None:
        targets = random_batch(3)
        prediction = random_prediction(3, targets, 4).requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(prediction, targets, self.config()), prediction)
        assert torch.equal(gradient[:, 3] != 0, targets.boundary_known)


class TestEikonal(LossSuite):
    name = "eikonal"
    everywhere = ("length", "slope", "coupling", "solved_distance", "solved_flow")

    def taught(self, t: BatchTargets) -> torch.Tensor:
        return annotated(t)

    def exact(self, t: BatchTargets) -> torch.Tensor:
        return t.signed_known & (t.signed > -5)

    def distance(self, t: BatchTargets) -> torch.Tensor:
        distance = torch.where(t.signed_known, t.signed, torch.where(t.inside, 1.0, -1.0))
        return torch.where(t.bounded, (t.lower + t.upper.clamp(max=1e3)) / 2, distance)

    def imperfect(self, t: BatchTargets) -> torch.Tensor:
        return self.perfect(t) + 0.7 * random_prediction(5, t, 3)

    def complete(self, t: BatchTargets) -> BatchTargets:
        given = self.perfect(t) + 0.6 * random_prediction(9, t, 3)
        return replace(t, start=torch.cat([given, given[:, 2:]], dim=1))

    def all_terms(self) -> EikonalConfig:
        return EikonalConfig(length=1, slope=1, coupling=1)

    def test_the_terms_of_slope_and_length_act_everywhere_but_where_pixels_are_ignored(self) -> None:
        targets = batch(np.full((9, 9), -1, np.int32))
        targets.ignored[:, 3:5] = True
        prediction = random_prediction(1, targets, 3).requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(prediction, targets, self.all_terms()), prediction)
        assert torch.equal(gradient.abs().sum(dim=1) > 0, ~targets.ignored)


class TestHover(LossSuite):
    name = "hover"

    def vectors_known(self, t: BatchTargets) -> torch.Tensor:
        return (t.maps[:, 3] > 0) & self.taught(t)

    def taught(self, t: BatchTargets) -> torch.Tensor:
        return t.inside | t.background | t.boundary

    exact = taught

    def perfect(self, t: BatchTargets) -> torch.Tensor:
        signs = torch.where(t.maps[:, 2:3] > 0, 40.0, -40.0)
        return torch.cat([torch.atanh(t.maps[:, :2]).clamp(-20, 20), signs], dim=1)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_weights_that_are_all_0_are_refused(name: str) -> None:
    config = loss_config(name)
    first, *others = config.weights
    assert getattr(replace(config, **dict.fromkeys(others, 0.0), **{first: 1.0}), first) == 1
    with pytest.raises(InputError, match=f"the loss {name} with .*; expected: at least one weight above 0; to fix:"):
        replace(config, **dict.fromkeys(config.weights, 0.0))


def test_every_loss_and_every_target_of_the_tables_has_a_suite() -> None:
    suites = LossSuite.__subclasses__()
    assert {suite.name for suite in suites} == set(LOSSES)
    assert {LOSSES[suite.name].target for suite in suites} == set(TARGETS)


def test_settings_out_of_range_of_another_loss_and_unknown_names_are_refused() -> None:
    for make in (
        lambda: LossConfig(flow=-1.0),
        lambda: LossConfig(far=0.0),
        lambda: LossConfig(far=2.0),
        lambda: LossConfig(rim=-1),
        lambda: OmniposeConfig(alpha=0.0),
        lambda: OmniposeConfig(steps=0),
        lambda: OmniposeConfig(stride=0),
        lambda: EikonalConfig(exponent=3),
        lambda: EikonalConfig(near=0.0),
        lambda: replace(TINY, loss=LossConfig(name="eikonal")),
    ):
        with pytest.raises(InputError, match="expected"):
            make()
    for named in (find_loss, loss_config):
        with pytest.raises(UnknownNameError, match="did you mean 'sketchpose'"):
            named("sketchpoze")
