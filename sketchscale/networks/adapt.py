"""Weights of one network as the start of another whose inputs and outputs differ.

What lies between the first and the last convolution is kept as it is; widths, levels and dimensions must agree.

    channels   more      the new channels weigh nothing: the same outputs, until training finds a use for them
               fewer     as if the channels left out were 0 everywhere, what their constant adds going into the bias;
                         exact under "reflect"; under "zeros" and without style, farther from the tile's border than
                         the network's context
    outputs    flow      divided by the model's `flow_scale`: unit length
               distance  kept; drawn anew where the model has a logit of foreground there
               others    kept where the model has them, else drawn anew
    target     another   the outputs are drawn anew, all else is kept
    style      none to some: linear layers of 0, the same outputs; some to none is refused
    padding    kept weights, another border
"""

from __future__ import annotations

import torch

from sketchscale.errors import InputError
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.model import Model

__all__ = ["adapt_notes", "adapt_weights"]

_EPSILON = 1e-5
"""Of batch norm, as in unet.py."""

Weights = dict[str, torch.Tensor]


def adapt_weights(model: Model, wanted: NetworkConfig, *, target: str = "flow", seed: int = 0) -> Weights:
    """The state dict of a network of shape `wanted` that starts from `model`.

    Args:
        target: what the network is to be taught, see ModelConfig.
        seed: of what has to be drawn anew.

    Returns:
        Tensors of their own: training does not change the model.

    Raises:
        InputError: widths, dimensions or kind of network differ, or the style vector would be lost.

    >>> from sketchscale.networks.model import ModelConfig
    >>> small = NetworkConfig(widths=(4, 8))
    >>> start = Model(network=create_network(small), config=ModelConfig(network=small), provenance={})
    >>> adapt_weights(start, NetworkConfig(widths=(4, 8), outputs=4))["head.2.bias"].shape
    torch.Size([4])
    """
    given = model.config.network
    _refuse_unfit(given, wanted)
    fresh = create_network(wanted, seed=seed).state_dict()
    weights = {k: v.detach().cpu().clone() for k, v in model.network.state_dict().items()}
    _adapt_channels(weights, given.channels, wanted.channels)
    _adapt_head(weights, fresh, model, _kept_outputs(model, wanted, target))
    for key in fresh.keys() - weights.keys():
        weights[key] = torch.zeros_like(fresh[key])  # the style's linear layers
    return weights


def adapt_notes(model: Model, wanted: NetworkConfig, *, target: str = "flow") -> tuple[str, ...]:
    """What `adapt_weights` cannot keep, for people; empty when the start computes what the model computed.

    >>> from sketchscale.networks.model import ModelConfig
    >>> small = NetworkConfig(widths=(4, 8))
    >>> start = Model(network=create_network(small), config=ModelConfig(network=small), provenance={})
    >>> adapt_notes(start, NetworkConfig(widths=(4, 8), outputs=4))
    ('output 3 starts from random weights',)
    """
    given, notes = model.config.network, []
    if model.config.target != target:
        notes.append(
            f"the starting model gives {model.config.target}: the outputs, {target}, start from random weights"
        )
    elif model.config.logit:
        notes.append(
            "output 2 of the starting model is a logit of foreground, no distance: it starts from random weights"
        )
    if model.config.target == target:
        notes += [f"output {row} starts from random weights" for row in range(given.outputs, wanted.outputs)]
    if wanted.channels < given.channels:
        notes.append(f"the starting model reads {given.channels} channels: the last are taken as 0")
    if wanted.padding != given.padding:
        notes.append(f"the starting model pads with {given.padding}, the network with {wanted.padding}")
    return tuple(notes)


def _refuse_unfit(given: NetworkConfig, wanted: NetworkConfig) -> None:
    for what in ("name", "widths", "dim"):
        if getattr(given, what) != getattr(wanted, what):
            raise InputError.of(
                found=f"a starting model with {what} {getattr(given, what)}",
                expected=f"{what} {getattr(wanted, what)}, as the network to train",
                fix="choose the starting model's, or start from random weights",
            )
    if given.style and not wanted.style:
        raise InputError.of(
            found="a starting model with a style vector",
            expected="none, as the network to train",
            fix="train a network with style, or start from random weights",
        )


def _adapt_channels(weights: Weights, given: int, wanted: int) -> None:
    """Another number of input channels, in place; see the module.

    The first block has two paths: batch norm, ReLU, convolution, and batch norm, 1 x 1 convolution.
    """
    for norm, convolution, rectified in (
        ("down.0.units.0.0", "down.0.units.0.2", True),
        ("down.0.projection.0", "down.0.projection.1", False),
    ):
        if wanted < given:
            constant = _response_to_zero(weights, norm)[wanted:]
            constant = constant.relu() if rectified else constant
            kernel = weights[f"{convolution}.weight"][:, wanted:].flatten(2).sum(dim=2)
            weights[f"{convolution}.bias"] += kernel @ constant
        weights[f"{convolution}.weight"] = _resized(weights[f"{convolution}.weight"], wanted, axis=1, fill=0)
        for name, fill in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            weights[f"{norm}.{name}"] = _resized(weights[f"{norm}.{name}"], wanted, axis=0, fill=fill)


def _response_to_zero(weights: Weights, norm: str) -> torch.Tensor:
    """What batch norm makes of a channel that is 0 everywhere."""
    scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + _EPSILON).sqrt()
    return weights[f"{norm}.bias"] - scale * weights[f"{norm}.running_mean"]


def _resized(values: torch.Tensor, size: int, *, axis: int, fill: float) -> torch.Tensor:
    """The first `size` along an axis, filled up at the end."""
    missing = size - values.shape[axis]
    if missing <= 0:
        return values.narrow(axis, 0, size).clone()
    shape = [missing if i == axis else n for i, n in enumerate(values.shape)]
    return torch.cat([values, torch.full(shape, fill, dtype=values.dtype)], dim=axis)


def _kept_outputs(model: Model, wanted: NetworkConfig, target: str) -> list[int]:
    """Those that mean the same in both."""
    if model.config.target != target:
        return []
    both = range(min(wanted.outputs, model.config.network.outputs))
    return [row for row in both if not (row == wanted.dim and model.config.logit)]


def _adapt_head(weights: Weights, fresh: Weights, model: Model, kept: list[int]) -> None:
    """In place, rows of the last convolution."""
    vectors = [row for row in kept if row < model.config.network.dim]
    for name in ("head.2.weight", "head.2.bias"):
        rows = fresh[name].clone()
        rows[kept] = weights[name][kept]
        rows[vectors] /= model.config.flow_scale
        weights[name] = rows
