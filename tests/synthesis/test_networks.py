from __future__ import annotations

import numpy as np
import pytest
import torch

from sketchscale.errors import InputError
from sketchscale.synthesis.networks import Critic, Generator, GeneratorConfig


def size(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("width", "noise", "parameters"), [(32, 1, 22_317_027), (64, 64, 70_222_787)])
def test_the_papers_sizes_have_the_papers_number_of_parameters(width, noise, parameters):
    with torch.device("meta"):
        assert size(Generator(GeneratorConfig(width=width, noise=noise, hidden=128))) == parameters


def test_the_papers_critic_has_its_number_of_parameters_and_sees_70_px():
    critic = Critic(3)
    assert size(critic) == 2_764_737
    x = torch.zeros(1, 3, 128, 128, requires_grad=True)
    critic(x)[0, 0, 7, 7].backward()
    seen = x.grad[0].abs().sum(0).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [70, 70]


def test_an_image_depends_on_maps_at_every_level_and_on_noise():
    torch.manual_seed(0)
    network = Generator(GeneratorConfig(width=2, hidden=8)).eval()
    maps = torch.randn(1, 3, 64, 96)
    noise = torch.zeros(1, 1)
    image = network(maps, noise)
    assert image.shape == (1, 3, 64, 96)
    assert image.abs().max() <= 1
    moved = maps.clone()
    moved[0, :, 33, 47] += 5  # between the pixels that the coarse start reads
    assert not torch.equal(network(moved, noise), image)
    assert not torch.equal(network(maps, noise + 1), image)


def test_local_noise_changes_the_image_near_its_pixel_alone_but_for_the_normalisation():
    """Against a generator with the same weights: noise that is the same everywhere is noise of the image."""
    torch.manual_seed(0)
    network = Generator(GeneratorConfig(width=2, hidden=8, local_noise=1)).eval()
    torch.manual_seed(0)
    plain = Generator(GeneratorConfig(width=2, hidden=8, noise=2)).eval()
    maps, shared = torch.randn(1, 3, 64, 96), torch.tensor([[0.3, -0.7]])
    spread = shared[..., None, None].expand(-1, -1, 64, 96).clone()
    assert torch.equal(network(maps, spread), plain(maps, shared))
    moved = spread.clone()
    moved[0, 1, 33, 47] += 5
    change = (network(maps, moved) - network(maps, spread)).abs().sum(dim=(0, 1)).detach()
    near = change[25:42, 39:56].mean()
    assert near > 3 * change.mean()
    assert not torch.equal(network(maps, spread.roll(1, 1)), plain(maps, shared))


def test_noise_of_an_image_is_drawn_before_that_of_its_pixels():
    shared = GeneratorConfig(noise=2).draw_noise((64, 32), np.random.default_rng(3))
    both = GeneratorConfig(noise=2, local_noise=3).draw_noise((64, 32), np.random.default_rng(3))
    assert shared.shape == (2,)
    assert both.shape == (5, 64, 32)
    assert (shared.dtype, both.dtype) == (np.float32, np.float32)
    assert (both[:2] == shared[:, None, None]).all()
    assert abs(both[2:].mean()) < 0.05
    assert abs(both[2:].std() - 1) < 0.05
    neighbours = (both[2:, 1:] * both[2:, :-1]).mean()
    assert abs(neighbours) < 0.05


def test_a_generator_of_nothing_is_refused():
    for wrong in ({"width": 0}, {"noise": 0}, {"local_noise": -1}):
        with pytest.raises(InputError, match="numbers of at least 1"):
            GeneratorConfig(**wrong)
