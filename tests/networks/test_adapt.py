"""A start from other weights computes what the model computed, wherever inputs and outputs allow it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sketchscale.errors import InputError
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.adapt import adapt_notes, adapt_weights
from sketchscale.networks.checkpoint import Model, ModelConfig

SMALL = NetworkConfig(channels=2, widths=(4, 6), outputs=4, style=True)


def lived_in(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Statistics and weights as after training: nothing is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.is_floating_point() and value.ndim == 1:
            value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return network.eval()


def start(config: NetworkConfig = SMALL, **settings: object) -> Model:
    network = lived_in(create_network(config, seed=1))
    return Model(network=network, config=ModelConfig(network=config, **settings), provenance={})  # type: ignore[arg-type]


def image(config: NetworkConfig, size: int = 24) -> torch.Tensor:
    shape = (1, config.channels, *(size,) * config.dim)
    return torch.rand(shape, generator=torch.Generator().manual_seed(5))


def run(model: Model, wanted: NetworkConfig, x: torch.Tensor) -> torch.Tensor:
    network = create_network(wanted, seed=9)
    network.load_state_dict(adapt_weights(model, wanted), strict=True)
    with torch.inference_mode():
        return network.eval()(x)


def output(model: Model, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.network(x)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_same_shape_is_the_same_network(dim: int) -> None:
    config = replace(SMALL, dim=dim)
    model, x = start(config), image(config, 8)
    assert torch.equal(run(model, config, x), output(model, x))
    assert adapt_notes(model, config) == ()


def test_fewer_outputs_are_the_first_ones() -> None:
    model, x = start(), image(SMALL)
    torch.testing.assert_close(run(model, replace(SMALL, outputs=3), x), output(model, x)[:, :3])


def test_more_outputs_keep_the_first_ones_and_draw_the_others() -> None:
    config = replace(SMALL, outputs=3)
    model, x = start(config), image(config)
    wide = run(model, replace(config, outputs=5), x)
    torch.testing.assert_close(wide[:, :3], output(model, x))
    assert wide[:, 3:].std() > 0
    assert adapt_notes(model, replace(config, outputs=5)) == (
        "output 3 starts from random weights",
        "output 4 starts from random weights",
    )


def test_a_new_channel_changes_nothing_whatever_it_holds() -> None:
    model, x = start(), image(replace(SMALL, channels=3))
    torch.testing.assert_close(run(model, replace(SMALL, channels=3), x), output(model, x[:, :2]))


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_a_channel_left_out_counts_as_zero(padding: str) -> None:
    config = replace(SMALL, padding=padding, style=False)
    model, x = start(config), image(config, 64)
    x[:, 1] = 0
    for path, sign in (("units.0", -1), ("projection", 1)):  # batch norm makes -1 of it, which ReLU stops, or 1
        norm = model.network.get_submodule(f"down.0.{path}.0")
        with torch.no_grad():
            norm.running_mean[1], norm.bias[1] = 0, sign
    found, expected = run(model, replace(config, channels=1), x[:, :1]), output(model, x)
    seen = create_network(config).context + 1
    inner = slice(seen, -seen) if padding == "zeros" else slice(None)
    assert found[..., inner, inner].numel() > 0
    torch.testing.assert_close(found[..., inner, inner], expected[..., inner, inner], rtol=1e-4, atol=1e-5)


def test_control_the_left_out_channel_mattered() -> None:
    model, x = start(), image(SMALL)
    assert (output(model, x * torch.tensor([1.0, 0.0])[:, None, None]) - output(model, x)).abs().max() > 0.01


def test_flow_becomes_unit_flow_and_a_logit_is_drawn_anew() -> None:
    config = replace(SMALL, outputs=3)
    model, x = start(config, flow_scale=5.0, logit=True), image(config)
    found, before = run(model, config, x), output(model, x)
    torch.testing.assert_close(found[:, :2], before[:, :2] / 5)
    assert (found[:, 2] - before[:, 2]).abs().max() > 0.1
    assert "logit" in adapt_notes(model, config)[0]


def test_flow_of_three_dimensions_has_three_components() -> None:
    config = replace(SMALL, dim=3)
    model, x = start(config, flow_scale=5.0), image(config, 8)
    scale = torch.tensor([5.0, 5, 5, 1])[:, None, None, None]
    torch.testing.assert_close(run(model, config, x) * scale, output(model, x))


def test_a_style_vector_can_be_gained_but_not_lost() -> None:
    plain = replace(SMALL, style=False)
    model, x = start(plain), image(plain)
    assert torch.equal(run(model, SMALL, x), output(model, x))
    with pytest.raises(InputError, match="style"):
        adapt_weights(start(), plain)


@pytest.mark.parametrize(("what", "value"), [("widths", (4, 8)), ("widths", (4, 6, 8)), ("dim", 3)])
def test_what_cannot_fit_is_refused_by_name(what: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{what} .*expected: {what}"):
        adapt_weights(start(), replace(SMALL, **{what: value}))  # type: ignore[arg-type]


def test_training_the_copy_leaves_the_model_alone() -> None:
    model = start()
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    for value in adapt_weights(model, SMALL).values():
        value.zero_()
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())
