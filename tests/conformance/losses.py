"""What every loss must do: inherit `LossSuite`, give `name` and what is known to it, receive the tests."""

from __future__ import annotations

import pkgutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.annotations.targets import region_codes
from sketchscale.config import Execution, SegmentOptions
from sketchscale.errors import InputError
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import read_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.losses import LOSSES, BatchTargets, Loss, LossConfig, loss_config
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.checkpoint import load_model, save_model
from sketchscale.networks.targets import TARGETS
from sketchscale.training.loop import train
from sketchscale.workflow.segment.arrays import fields_of_array, segment_array
from sketchscale.workflow.segment.segment import segment
from tests.losses.batches import batch, full_mask, random_batch, random_prediction
from tests.pipeline import draw_nuclei, store_image
from tests.training.examples import TINY, example, same, weights

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def annotated(t: BatchTargets) -> torch.Tensor:
    drawn = t.boundary & t.boundary_known & ~t.inside
    return t.inside | t.background | drawn | t.bounded


class LossSuite:
    """Of losses that teach flow and distance; others say otherwise."""

    name: str

    everywhere: tuple[str, ...] = ()
    """Weights of the terms that act where nothing is drawn, by design."""

    def vectors_known(self, t: BatchTargets) -> torch.Tensor:
        return t.flow_known

    def taught(self, t: BatchTargets) -> torch.Tensor:
        """Where the third output may be taught."""
        return t.known | (t.bounded & ~t.background)

    def exact(self, t: BatchTargets) -> torch.Tensor:
        """Where it must be."""
        return t.known

    def distance(self, t: BatchTargets) -> torch.Tensor:
        """A third output that costs nothing."""
        return torch.where(t.bounded & t.inside, (t.lower + t.upper.clamp(max=1e3)) / 2, t.distance)

    def perfect(self, t: BatchTargets) -> torch.Tensor:
        """A prediction without any fault that the data terms could find."""
        return torch.cat([t.flow, self.distance(t)[:, None]], dim=1)

    @property
    def loss(self) -> Loss:
        return LOSSES[self.name]

    def config(self, **changes: float) -> LossConfig:
        """Without the terms that act everywhere."""
        return replace(loss_config(self.name), **dict.fromkeys(self.everywhere, 0.0), **changes)

    def imperfect(self, t: BatchTargets) -> torch.Tensor:
        """A prediction of which every term finds faults."""
        return random_prediction(5, t, self.loss.outputs)

    def complete(self, t: BatchTargets) -> BatchTargets:
        """With everything that some term asks for."""
        return t

    def all_terms(self) -> LossConfig:
        """With every term."""
        return loss_config(self.name)

    @pytest.mark.parametrize("far", [1.0, 0.3])
    def test_a_perfect_prediction_costs_nothing_and_others_do(self, far: float) -> None:
        @given(seed=seeds)
        @quick
        def holds(seed: int) -> None:
            targets, config = random_batch(seed), self.config(far=far, rim=2)
            assert float(self.loss(self.perfect(targets), targets, config)) <= 1e-9
            if self.exact(targets).any():
                assert float(self.loss(self.perfect(targets) + 1, targets, config)) > 0

        holds()

    def test_no_gradient_leaves_what_is_known(self) -> None:
        @given(seed=seeds)
        @quick
        def holds(seed: int) -> None:
            targets = random_batch(seed)
            prediction = random_prediction(seed, targets, self.loss.outputs).requires_grad_()
            (gradient,) = torch.autograd.grad(self.loss(prediction, targets, self.config()), prediction)
            assert torch.isfinite(gradient).all()
            if self.loss.dense:
                return
            assert (gradient.abs().sum(dim=1)[~annotated(targets)] == 0).all()
            assert (gradient[:, :2].abs().sum(dim=1)[~self.vectors_known(targets)] == 0).all()
            assert (gradient[:, 2][~self.taught(targets)] == 0).all()
            assert (gradient[:, 2][self.exact(targets)] != 0).all()

        holds()

    @pytest.mark.parametrize("value", [-1, 0, 1], ids=["unknown", "background", "one object"])
    def test_batches_that_know_little_give_numbers_and_no_gradient_from_nothing(self, value: int) -> None:
        targets = batch(np.full((8, 8), value, np.int32), np.full((8, 8), -1, np.int32))
        prediction = random_prediction(3, targets, self.loss.outputs).requires_grad_()
        loss = self.loss(prediction, targets, self.config())
        (gradient,) = torch.autograd.grad(loss, prediction)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
        if value == -1 and not self.loss.dense:
            assert float(loss.detach()) == 0
            assert (gradient == 0).all()

    def test_every_weight_of_its_own_class_counts_and_is_refused_below_0(self) -> None:
        targets = self.complete(random_batch(4))
        prediction = self.imperfect(targets)
        shared = {f.name for f in fields(LossConfig)}
        own = [f.name for f in fields(self.loss.config) if f.name not in shared]
        before = float(self.loss(prediction, targets, self.all_terms()))
        for name in own:
            changed = replace(self.all_terms(), **{name: 1 if name in ("exponent", "near") else 3})
            assert float(self.loss(prediction, targets, changed)) != before, name
            with pytest.raises(InputError, match=f"{self.name} with .*{name} -1.*expected: .*to fix: leave them at"):
                replace(loss_config(self.name), **{name: -1})

    def test_half_precision_is_computed_in_float32(self) -> None:
        targets = random_batch(3)
        prediction = random_prediction(0, targets, self.loss.outputs).to(torch.bfloat16)
        assert self.loss(prediction, targets, loss_config(self.name)).dtype == torch.float32

    def test_it_is_a_mean_over_the_batch_so_that_a_batch_twice_over_costs_the_same(self) -> None:
        targets = random_batch(11)
        doubled = type(targets)(**{k: torch.cat([getattr(targets, k)] * 2) for k in targets.__slots__})
        prediction = random_prediction(1, targets, self.loss.outputs)
        config = loss_config(self.name)
        once, twice = self.loss(prediction, targets, config), self.loss(torch.cat([prediction] * 2), doubled, config)
        torch.testing.assert_close(once, twice, rtol=1e-5, atol=1e-6)

    def test_a_few_steps_of_a_network_make_it_smaller(self) -> None:
        targets = batch(full_mask(4, (32, 32)))
        network = create_network(NetworkConfig(widths=(4, 8), outputs=self.loss.outputs), seed=0).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
        costs = []
        for _ in range(12):
            cost = self.loss(network(targets.inside.float()[:, None]), targets, loss_config(self.name))
            optimizer.zero_grad()
            cost.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            costs.append(float(cost.detach()))
        assert costs[-1] < 0.7 * costs[0]

    def test_its_target_says_where_an_object_is_known(self) -> None:
        target, labels = TARGETS[self.loss.target], example().labels
        if target.maps:
            *maps, known = pkgutil.resolve_name(target.maps)(region_codes(labels, None))
            assert len(maps) >= 3
            assert known[labels > 0].all()
        assert target.fields(torch.zeros(1, self.loss.outputs, 4, 4)).shape == (1, self.loss.outputs, 4, 4)
        assert target.middle(-5.0) == (-2.25 if target.lengths else 0.5)

    def test_trained_with_weights_of_ones_own_saved_and_segmented_by_blocks_as_in_one_piece(
        self, tmp_path: Path
    ) -> None:
        network = NetworkConfig(widths=(4, 8), outputs=self.loss.outputs)
        config = replace(TINY, network=network, steps=3, loss=loss_config(self.name), min_size=0)
        taught = train([example()], config, run_folder=tmp_path / "run")
        other = replace(config, loss=replace(config.loss, far=0.5), steps=1)
        assert not same(train([example()], other, run_folder=tmp_path / "other"), taught)
        save_model(tmp_path / "model", taught.network, taught.config, taught.provenance)
        folder, pixels = str(tmp_path / "model"), draw_nuclei((100, 130))
        assert load_model(folder).config.target == self.loss.target
        assert all(torch.equal(v, weights(taught)[k]) for k, v in weights(load_model(folder)).items())
        options = SegmentOptions(model=folder, tile=64, overlap=16, min_size=0)
        said = fields_of_array(pixels[None], load_model(folder), options)[2]
        options = replace(options, threshold=float(np.quantile(said, 0.7)))
        address = store_image(tmp_path / "image.zarr", pixels)
        result = segment(address, options, Execution(block=64))
        stored = read_box(open_image(address).label_ref("nuclei"), whole(pixels.shape))
        np.testing.assert_array_equal(stored, segment_array(pixels, options))
        assert result.n > 0
