"""Every network of the table: sizes, declared stride and context, independence of the batch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.networks import NETWORKS, NetworkConfig, create_network

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


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("style", [False, True])
def test_output_has_the_size_of_the_input(name: str, style: bool) -> None:
    network = create_network(NetworkConfig(name=name, channels=2, widths=SMALL, style=style)).eval()
    stride = network.stride
    with torch.inference_mode():
        assert network(torch.zeros(2, 2, stride, 3 * stride)).shape == (2, 3, stride, 3 * stride)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_an_output_depends_on_nothing_beyond_the_context(name: str) -> None:
    network = create_network(NetworkConfig(name=name, widths=SMALL)).eval()
    size = 2 * network.context + 4 * network.stride
    size -= size % network.stride
    image = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for at in range(size // 2, size // 2 + network.stride):
        (gradient,) = torch.autograd.grad(network(image)[0, :, at, at].sum(), image)
        touched = torch.nonzero(gradient[0, 0])
        assert (touched - at).abs().max() <= network.context
        assert (touched - at).abs().max() > network.context // 2


def test_control_the_style_vector_sees_the_whole_tile() -> None:
    network = create_network(NetworkConfig(widths=SMALL, style=True)).eval()
    size = 4 * network.context - 4 * network.context % network.stride
    image = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (gradient,) = torch.autograd.grad(network(image)[0, :, 0, 0].sum(), image)
    assert (torch.nonzero(gradient[0, 0]).max()) > 2 * network.context


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_tiles_at_multiples_of_the_stride_agree_with_the_whole_image(name: str) -> None:
    network = create_network(NetworkConfig(name=name, widths=SMALL)).double().eval()
    reach = -(-network.context // network.stride) * network.stride
    image = torch.randn(1, 1, 3 * reach, 3 * reach, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = network(image)
        tile = network(image[:, :, : 2 * reach + network.stride, network.stride :])
    inner = tile[:, :, :reach, reach : reach + network.stride]
    torch.testing.assert_close(inner, whole[:, :, :reach, reach + network.stride : reach + 2 * network.stride])


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(5)
    a = create_network(NetworkConfig(widths=SMALL), seed=3).state_dict()
    torch.manual_seed(6)
    before = torch.get_rng_state()
    b = create_network(NetworkConfig(widths=SMALL), seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[k], b[k]) for k in a)
    c = create_network(NetworkConfig(widths=SMALL), seed=4).state_dict()
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_impossible_shapes_and_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="levels"):
        NetworkConfig(widths=())
    with pytest.raises(InputError, match="0 channels"):
        NetworkConfig(channels=0)
    with pytest.raises(UnknownNameError, match="unet"):
        create_network(NetworkConfig(name="unnet"))
