"""Networks by name. A new one is a file here and a line in NETWORKS; it declares what `Network` says."""

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
    """What a network declares and does besides being a torch module that is made from its configuration.

    Attributes:
        stride: px; sizes and origins of tiles and patches are multiples of it.
        context: px; an output pixel depends on nothing farther away.
        bytes_per_pixel: of float32 maps that are alive at once while it predicts, for each pixel of the input.
    """

    @property
    def stride(self) -> int: ...

    @property
    def context(self) -> int: ...

    @property
    def bytes_per_pixel(self) -> int: ...

    def adapt(
        self, weights: dict[str, torch.Tensor], given: NetworkConfig, kept: Mapping[int, float]
    ) -> dict[str, torch.Tensor]:
        """The state dict of this network, freshly drawn, when it starts from one of the same name and another shape.

        Args:
            weights, given: state dict and shape of that one.
            kept: the outputs that mean the same in both, and by what each is divided; the others stay as drawn.

        Raises:
            InputError: the shapes do not fit.
        """
        ...

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


NETWORKS: Mapping[str, Callable[[NetworkConfig], nn.Module]] = {"unet": UNet}


def create_network(config: NetworkConfig, *, seed: int = 0) -> nn.Module:
    """A network with random weights that depend on the seed alone.

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
    """A network without memory for its weights, which says what it declares.

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
