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
from sketchscale.losses.sketchpose import sketchpose

__all__ = ["LOSSES", "BatchTargets", "Loss", "LossConfig", "find_loss", "sketchpose"]

LOSSES: Mapping[str, Loss] = {"sketchpose": Loss(compute=sketchpose, outputs=3)}


def find_loss(name: str) -> Loss:
    """A loss by name.

    Raises:
        UnknownNameError: lists the known ones.
    """
    if name not in LOSSES:
        raise UnknownNameError.among("loss", name, LOSSES)
    return LOSSES[name]
