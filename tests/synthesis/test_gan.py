from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sketchscale.errors import InputError
from sketchscale.synthesis.gan import PAPER_SIZE, Gan, GanConfig
from sketchscale.synthesis.layouts import LayoutPrior
from sketchscale.synthesis.networks import GeneratorConfig
from sketchscale.synthesis.scenes import Scenes
from sketchscale.training.frame import NotANumberError
from tests.synthesis.test_scenes import pointed

PRIOR = LayoutPrior(diameter=10)
TINY = GanConfig(
    generator=GeneratorConfig(width=1, hidden=4),
    critic_width=4,
    mask_widths=(4, 4),
    prior=PRIOR,
    steps=8,
    batch=2,
    crop=64,
)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes([pointed(shape=(80, 90))], crop=64, prior=PRIOR)


def taught(scenes: Scenes, steps: range, gan: Gan | None = None) -> Gan:
    gan = gan or Gan(TINY, torch.device("cpu"))
    for step in steps:
        gan.learn(scenes.batch(step, range(2)), step)
    return gan


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_step_teaches_all_four_networks_and_the_means_follow(scenes):
    before = {k: v.clone() for k, v in Gan(TINY, torch.device("cpu")).tensors().items() if k.startswith("nets")}
    after = taught(scenes, range(1)).tensors()
    for part in ("g", "f", "dx", "ds"):
        changed = [k for k in before if k.startswith(f"nets.{part}.") and not torch.equal(before[k], after[k])]
        assert changed, part
    assert not torch.equal(after["means.g.head.weight"], before["nets.g.head.weight"])


def test_a_generator_with_local_noise_learns_to_use_it():
    config = replace(TINY, generator=replace(TINY.generator, local_noise=1))
    scenes = Scenes([pointed(shape=(80, 90))], crop=64, prior=PRIOR, generator=config.generator)
    gan = Gan(config, torch.device("cpu"))
    before = gan.nets["g"].start.weight.detach().clone()
    terms = gan.learn(scenes.batch(0, range(2)), 0)
    assert all(np.isfinite(value) for value in terms.values())
    assert not torch.equal(gan.nets["g"].start.weight[:, 1], before[:, 1])


def test_going_on_from_a_state_gives_the_same_bits(scenes):
    whole = taught(scenes, range(4)).tensors()
    half = {k: v.clone() for k, v in taught(scenes, range(2)).tensors().items()}
    resumed = Gan(TINY, torch.device("cpu"))
    resumed.take(half)
    assert same(taught(scenes, range(2, 4), resumed).tensors(), whole)


def test_a_step_that_is_not_a_number_changes_nothing(scenes):
    gan = taught(scenes, range(2))
    before = {k: v.clone() for k, v in gan.tensors().items()}
    bad = scenes.batch(2, range(2))
    bad.image[0, 0, 3, 3] = np.nan
    with pytest.raises(NotANumberError, match="cycle_image nan"):
        gan.learn(bad, 2)
    assert same(gan.tensors(), before)


def test_the_rate_is_constant_and_then_falls_to_nothing():
    rates = [TINY.rate_at(step) for step in range(9)]
    assert rates[:7] == [TINY.rate] * 7
    assert rates[8] == 0 < rates[7] < TINY.rate


def test_the_papers_size_is_there_and_odd_crops_are_refused():
    assert (PAPER_SIZE.generator.width, PAPER_SIZE.crop, PAPER_SIZE.batch) == (32, 256, 8)
    with pytest.raises(InputError, match="crops of 100 px; expected: a multiple of 32"):
        GanConfig(crop=100)


@pytest.mark.parametrize("rate", [0.0, -1.0, 2.0, float("inf"), float("nan")])
def test_a_rate_that_ruins_the_weights_is_refused(rate):
    with pytest.raises(InputError, match=r"a rate of .*; expected: above 0, at most 1"):
        GanConfig(rate=rate)


def test_the_means_paint_with_norms_of_their_own_weights(scenes):
    gan = taught(scenes, range(6))
    g, _ = gan.ema()
    checked = 0
    for module in g.modules():
        for norms in getattr(module, "parametrizations", {}).values():
            weight = norms.original.flatten(1)
            used = norms[0]._u @ weight @ norms[0]._v
            assert used == pytest.approx(float(torch.linalg.matrix_norm(weight, 2)), rel=1e-4)
            checked += 1
    assert checked > 10


def test_going_on_after_a_look_at_the_means_changes_nothing(scenes):
    looked = taught(scenes, range(2))
    looked.ema()
    assert same(taught(scenes, range(2, 4), looked).tensors(), taught(scenes, range(4)).tensors())
