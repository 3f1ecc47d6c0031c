"""Weights of one network as the start of another whose inputs and outputs differ.

What can be kept of the weights is the network's to say (`Network.adapt`); what its outputs mean is said here:

    flow      divided by the model's `flow_scale`: unit length
    distance  kept; drawn anew where the model has a logit of foreground there
    others    kept where the model has them, else drawn anew
    target    another: all outputs are drawn anew
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
    """The state dict of a network of shape `wanted` that starts from `model`.

    Args:
        target: what the network is to be taught, see ModelConfig.
        seed: of what has to be drawn anew.

    Returns:
        Tensors of their own: training does not change the model.

    Raises:
        InputError: the networks are of another kind, or of shapes that do not fit.

    >>> from sketchscale.networks.model import ModelConfig
    >>> small = NetworkConfig(widths=(4, 8))
    >>> start = Model(network=create_network(small), config=ModelConfig(network=small), provenance={})
    >>> adapt_weights(start, NetworkConfig(widths=(4, 8), outputs=4))["head.2.bias"].shape
    torch.Size([4])
    """
    _refuse_other(model.config.network, wanted)
    weights = {k: v.detach().cpu().clone() for k, v in model.network.state_dict().items()}
    fresh = cast(Network, create_network(wanted, seed=seed))
    return fresh.adapt(weights, model.config.network, _kept_outputs(model, wanted, target))


def adapt_notes(model: Model, wanted: NetworkConfig, *, target: str = "flow") -> tuple[str, ...]:
    """What `adapt_weights` cannot keep, for people; empty when the start computes what the model computed.

    Raises:
        InputError: the networks are of another kind.

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


def _kept_outputs(model: Model, wanted: NetworkConfig, target: str) -> dict[int, float]:
    """Those that mean the same in both, and by what each is divided."""
    if model.config.target != target:
        return {}
    both = range(min(wanted.outputs, model.config.network.outputs))
    rows = [row for row in both if not (row == wanted.dim and model.config.logit)]
    return {row: model.config.flow_scale if row < wanted.dim else 1.0 for row in rows}
