"""Networks by name. A new one is a file here and a line in NETWORKS; it implements `Network`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Protocol, cast

import torch
from torch import nn

from sketchscale.errors import UnknownNameError
from sketchscale.networks.unet import NetworkConfig, UNet

__all__ = ["NETWORKS", "Network", "NetworkConfig", "create_network", "meta_network"]


class Network(Protocol):
    """A network: a torch module that is made from its configuration, with these declarations."""

    @property
    def stride(self) -> int:
        """Sizes and origins of tiles and patches are multiples of this, px."""
        ...

    @property
    def context(self) -> int:
        """An output pixel depends on nothing farther away, px."""
        ...

    @property
    def bytes_per_pixel(self) -> int:
        """Bytes of the float32 maps held at once during prediction, per input pixel."""
        ...

    def adapt(
        self, weights: dict[str, torch.Tensor], given: NetworkConfig, kept: Mapping[int, float]
    ) -> dict[str, torch.Tensor]:
        """Return the state dict of this network, newly drawn, when it starts from a network of another shape.

        Args:
            weights, given: state dict and shape of that network, which has the same name.
            kept: the outputs with the same meaning in both, and a divisor for each; the others stay random.

        Raises:
            InputError: the shapes do not fit.
        """
        ...

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


NETWORKS: Mapping[str, Callable[[NetworkConfig], nn.Module]] = {"unet": UNet}


def create_network(config: NetworkConfig, *, seed: int = 0) -> nn.Module:
    """Return a network with random weights that depend on the seed only.

    Raises:
        UnknownNameError: no network of that name.

    >>> sum(p.numel() for p in create_network(NetworkConfig()).parameters())
    1561303
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _class_of(config)(config)


@functools.lru_cache(maxsize=8)
def meta_network(config: NetworkConfig) -> Network:
    """Return a network without memory for its weights, for its declarations.

    Raises:
        UnknownNameError: no network of that name.

    >>> meta_network(NetworkConfig()).stride
    8
    """
    with torch.device("meta"):
        return cast(Network, _class_of(config)(config))


def _class_of(config: NetworkConfig) -> Callable[[NetworkConfig], nn.Module]:
    if config.name not in NETWORKS:
        raise UnknownNameError.among("network", config.name, NETWORKS)
    return NETWORKS[config.name]
