"""Networks by name. A new one is a file here and a line in NETWORKS; it declares `stride` and `context` in pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, cast

import torch
from torch import nn

from sketchscale.errors import UnknownNameError
from sketchscale.networks.unet import NetworkConfig, UNet

__all__ = ["NETWORKS", "Network", "NetworkConfig", "create_network"]


class Network(Protocol):
    """What prediction asks of a network besides being a torch module."""

    @property
    def stride(self) -> int: ...

    @property
    def context(self) -> int: ...

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


NETWORKS: Mapping[str, Callable[[NetworkConfig], nn.Module]] = {"unet": UNet}


def create_network(config: NetworkConfig, *, seed: int = 0) -> UNet:
    """A network with random weights that depend on the seed alone.

    Raises:
        UnknownNameError: no network of that name.

    >>> sum(p.numel() for p in create_network(NetworkConfig()).parameters())
    1561303
    """
    if config.name not in NETWORKS:
        raise UnknownNameError.among("network", config.name, NETWORKS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cast(UNet, NETWORKS[config.name](config))
