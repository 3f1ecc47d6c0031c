"""Losses of a prediction against what a sketch knows, and the LOSSES table.

A loss is a function `(prediction, targets, config) -> scalar` of tensors on one device. Every term is a sum over the
pixels where its target is known, divided by the number of them in the whole batch, so that a patch with few strokes
weighs as little as it says; a term without any pixel is left out (no 0 / 0). No gradient reaches a pixel about which
the sketch says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from sketchscale.errors import UnknownNameError
from sketchscale.losses.base import BatchTargets, Loss, LossConfig
from sketchscale.losses.dense import dense
from sketchscale.losses.eikonal import EikonalConfig, eikonal
from sketchscale.losses.hover import HoverConfig, hover
from sketchscale.losses.omnipose import OmniposeConfig, sketchpose_1
from sketchscale.losses.sketchpose import sketchpose

__all__ = [
    "LOSSES",
    "BatchTargets",
    "EikonalConfig",
    "HoverConfig",
    "Loss",
    "LossConfig",
    "OmniposeConfig",
    "dense",
    "eikonal",
    "find_loss",
    "hover",
    "loss_config",
    "sketchpose",
    "sketchpose_1",
]

LOSSES: Mapping[str, Loss] = {
    "sketchpose": Loss(compute=sketchpose),
    "sketchpose-1": Loss(compute=sketchpose_1, config=OmniposeConfig, outputs=4, planes_only=True),
    "eikonal": Loss(compute=eikonal, config=EikonalConfig, signed=True, interior=True),
    "dense": Loss(compute=dense, dense=True),
    "hover": Loss(compute=hover, config=HoverConfig, target="hover", planes_only=True),
}


def find_loss(name: str) -> Loss:
    """Return the loss with this name.

    Raises:
        UnknownNameError: unknown name; the error lists the known ones.
    """
    if name not in LOSSES:
        raise UnknownNameError.among("loss", name, LOSSES)
    return LOSSES[name]


def loss_config(name: str) -> LossConfig:
    """Return the default settings of a loss.

    Raises:
        UnknownNameError: unknown name; the error lists the known losses.

    >>> loss_config("eikonal")  # doctest: +ELLIPSIS
    EikonalConfig(name='eikonal', flow=5.0, ...)
    """
    return find_loss(name).config(name=name)
