from __future__ import annotations

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


def test_a_generator_of_nothing_is_refused():
    with pytest.raises(InputError, match="numbers of at least 1"):
        GeneratorConfig(width=0)
