"""What only the U-Net says of itself: its number of parameters, and what a style vector sees."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sketchscale.networks import NetworkConfig, create_network

SMALL = (4, 6, 8)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def parameters(config: NetworkConfig) -> int:
    return sum(p.numel() for p in create_network(config).parameters())


def test_full_width_with_style_has_the_papers_number_of_parameters() -> None:
    full = NetworkConfig(channels=2, widths=(32, 64, 128, 256), outputs=3, style=True)
    assert parameters(full) == 6_600_843
    assert parameters(NetworkConfig(channels=2, widths=(32, 64, 128, 256), outputs=4, style=True)) == 6_600_876
    assert parameters(NetworkConfig(channels=1, widths=(32, 64, 128, 256), outputs=3, style=True)) == 6_600_519


def test_the_default_width_has_a_quarter_and_no_style() -> None:
    assert parameters(NetworkConfig()) == 1_561_303


def test_control_the_style_vector_sees_the_whole_tile() -> None:
    network = create_network(NetworkConfig(widths=SMALL, style=True)).eval()
    size = 4 * network.context - 4 * network.context % network.stride
    image = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (gradient,) = torch.autograd.grad(network(image)[0, :, 0, 0].sum(), image)
    assert (torch.nonzero(gradient[0, 0]).max()) > 2 * network.context
