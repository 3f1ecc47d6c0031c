"""Start a network from the weights of another one with other inputs and outputs.

The network decides what can be kept of the weights (`Network.adapt`); this file decides which outputs mean the same:

    flow      divided by the model's `flow_scale`: unit length
    distance  kept; random where the model has a logit of foreground instead
    others    kept where the model has them, else random
    target    another one: all outputs are random
"""

from __future__ import annotations

from typing import cast

import torch

from sketchscale.errors import InputError
from sketchscale.networks import Network, NetworkConfig, create_network
from sketchscale.networks.model import Model

__all__ = ["adapt_notes", "adapt_weights"]

Weights = dict[str, torch.Tensor]


def adapt_weights(model: Model, wanted: NetworkConfig, *, target: str = "flow", seed: int = 0) -> Weights:
    """Return the state dict of a network of shape `wanted` that starts from `model`.

    Args:
        target: what the network is trained to give, see ModelConfig.
        seed: of the random weights.

    Returns:
        New tensors: training does not change the model.

    Raises:
        InputError: the networks have different names, or shapes that do not fit.

    >>> from sketchscale.networks.model import ModelConfig
    >>> small = NetworkConfig(widths=(4, 8))
    >>> start = Model(network=create_network(small), config=ModelConfig(network=small), provenance={})
    >>> adapt_weights(start, NetworkConfig(widths=(4, 8), outputs=4))["head.2.bias"].shape
    torch.Size([4])
    """
    _refuse_other(model.config.network, wanted)
    weights = {k: v.detach().cpu().clone() for k, v in model.network.state_dict().items()}
    fresh = cast(Network, create_network(wanted, seed=seed))
    kept: dict[int, float] = {}
    if model.config.target == target:
        for row in range(min(wanted.outputs, model.config.network.outputs)):
            if row != wanted.dim or not model.config.logit:
                kept[row] = model.config.flow_scale if row < wanted.dim else 1.0
    return fresh.adapt(weights, model.config.network, kept)


def adapt_notes(model: Model, wanted: NetworkConfig, *, target: str = "flow") -> tuple[str, ...]:
    """Describe what `adapt_weights` cannot keep; empty when the start computes the same as the model.

    Raises:
        InputError: the networks have different names.

    >>> from sketchscale.networks.model import ModelConfig
    >>> small = NetworkConfig(widths=(4, 8))
    >>> start = Model(network=create_network(small), config=ModelConfig(network=small), provenance={})
    >>> adapt_notes(start, NetworkConfig(widths=(4, 8), outputs=4))
    ('output 3 starts from random weights',)
    """
    given, notes = model.config.network, []
    _refuse_other(given, wanted)
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
    if wanted.channels > given.channels:
        first = "channel" if given.channels == 1 else f"{given.channels} channels"
        notes.append(
            f"the starting model reads the first {first}, the others begin without weight; --channel chooses and orders"
        )
    if wanted.padding != given.padding:
        notes.append(f"the starting model pads with {given.padding}, the network with {wanted.padding}")
    return tuple(notes)


def _refuse_other(given: NetworkConfig, wanted: NetworkConfig) -> None:
    if given.name != wanted.name:
        raise InputError.of(
            found=f"a starting model with name {given.name}",
            expected=f"name {wanted.name}, as the network to train",
            fix=f"--network {given.name}, or start from random weights",
        )
