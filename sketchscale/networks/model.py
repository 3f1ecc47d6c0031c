"""A model: a network, and the settings to use its weights. checkpoint.py and peers.py read and write files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Never, cast

import torch
from torch import nn

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.networks import Network, NetworkConfig
from sketchscale.networks.kind import Kind
from sketchscale.networks.targets import TARGETS, Target
from sketchscale.rule import ModelRule
from sketchscale.settings import check

__all__ = ["Model", "ModelConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig(ModelRule[Never]):
    """The settings to use the weights, and the rule that suits the fields.

    Attributes:
        target: meaning of the first outputs: key of TARGETS.
        low, high: percentiles of the image, per channel, that become 0 and 1.
        outside: training target of the distance in background, px.
        tile, overlap: of prediction, px.
        diameter: median of the training objects, px of the network.
        finds_scale: prediction brings the objects of an image to this diameter by itself; else the scale is 1.
        pixel_um: um per px of the network, where all training images knew theirs; 0 for unknown.
        flow_scale: length of the network's flow inside objects; fields are stored with length 1.
        logit: the third output is the logit of foreground, as in Cellpose, instead of a distance in px.
        absent_channels: number of last channels that an image may lack; they count as 0.
        kind: the known kind of images, for a warning about others; None never warns.
        notes: for people.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    target: str = "flow"
    low: float = 1.0
    high: float = 99.8
    outside: float = -5.0
    tile: int = 512
    overlap: int = 64
    diameter: float = 0.0
    finds_scale: bool = False
    pixel_um: float = 0.0
    flow_scale: float = 1.0
    logit: bool = False
    absent_channels: int = 0
    kind: Kind | None = None
    notes: str = ""

    def __post_init__(self) -> None:
        check(self)
        if not 0 <= self.low < self.high <= 100:
            raise InputError.of(
                found=f"percentiles {self.low} and {self.high}", expected="0 <= low < high <= 100", fix="1 and 99.8"
            )
        if self.target not in TARGETS:
            raise UnknownNameError.among("target", self.target, TARGETS)
        target = TARGETS[self.target]
        fits_maps = 0 < self.threshold < 1 and self.network.dim == 2 and self.network.outputs >= 3
        if not target.lengths and not fits_maps:
            raise InputError.of(
                found=f"{target.gives} with threshold {self.threshold}, {self.network.dim} dimensions and "
                f"{self.network.outputs} outputs",
                expected="a probability above 0 and below 1, 2 dimensions, at least 3 outputs",
                fix="threshold 0.5, and a network for planes",
            )
        if self.outside >= 0 or not 0 <= self.overlap < self.tile:
            raise InputError.of(
                found=f"outside {self.outside}, tile {self.tile}, overlap {self.overlap}",
                expected="outside < 0, 0 <= overlap < tile",
                fix="correct them, or leave them out",
            )
        if not 0 < self.flow_scale < math.inf or not 0 <= self.absent_channels < self.network.channels:
            raise InputError.of(
                found=f"flow_scale {self.flow_scale}, absent_channels {self.absent_channels}",
                expected="a positive flow_scale, fewer absent channels than channels",
                fix="1 and 0, unless the weights come from Cellpose or Omnipose",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A network ready to predict.

    Attributes:
        network: in evaluation mode, on the CPU, float32.
        sha256: of the file with the weights; empty for an unsaved model.
    """

    network: nn.Module
    config: ModelConfig
    provenance: Mapping[str, Any]
    sha256: str = ""

    @property
    def target(self) -> Target:
        """Meaning of the first outputs."""
        return TARGETS[self.config.target]

    @property
    def declares(self) -> Network:
        """The network, for its declarations."""
        return cast(Network, self.network)

    def fields(self, outputs: torch.Tensor) -> torch.Tensor:
        """Convert the network's outputs (n, 3 or more, ...) to fields as they are stored."""
        return self.target.fields(outputs)
