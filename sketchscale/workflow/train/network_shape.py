"""The shape of the network that a training makes, by its options, images and the model to start from."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from sketchscale.config import TrainOptions
from sketchscale.errors import InputError
from sketchscale.losses import find_loss
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import Model
from sketchscale.workflow.train.images import SketchedImages

__all__ = ["network_shape", "refuse_options_of_planes"]


def network_shape(options: TrainOptions, channels: int, init: Model | None, data: SketchedImages) -> NetworkConfig:
    """Return the shape of the network to train.

    Args:
        channels: of the images.
        init: the model to start from, whose shape is kept.
        data: the images, which know how far apart their sections are.

    Raises:
        InputError: a model of planes for volumes, or the other way round; volumes with different spacings.
    """
    widths = tuple(int(options.width) * 2**level for level in range(4))
    shape = NetworkConfig(widths=widths) if init is None else init.config.network
    dim: Literal[2, 3] = 3 if options.volume else 2
    if init is not None and shape.dim != dim:
        kinds = {2: "planes", 3: "volumes"}
        raise InputError.of(
            found=f"a starting model of {kinds[shape.dim]}, for {kinds[dim]}",
            expected=f"a model of {kinds[dim]}",
            fix="another --init, or random weights",
        )
    outputs = find_loss(options.loss).outputs + dim - 2
    shape = replace(shape, name=options.network, channels=channels, outputs=outputs, dim=dim)
    if not options.volume:
        return shape
    return replace(shape, anisotropy=_common(data.ratios) if options.anisotropy is None else options.anisotropy)


def _common(ratios: list[float]) -> float:
    if max(ratios) > 1.1 * min(ratios):
        raise InputError.of(
            found=f"volumes with spacing z / spacing y from {min(ratios):g} to {max(ratios):g}",
            expected="the same for all",
            fix="train on each kind, or give one for all with --anisotropy",
        )
    return ratios[0]


def refuse_options_of_planes(options: TrainOptions) -> None:
    """Refuse options of planes for volumes, and the other way round, rather than ignore them.

    Raises:
        InputError: names the option.
    """
    for name in ("synthetic", "diameter", "rescale"):
        if options.volume and getattr(options, name) not in (None, ()):
            raise InputError.of(found=f"--{name} with --volume", expected="planes", fix="leave out one of them")
    if options.anisotropy is not None and not options.volume:
        raise InputError.of(found="--anisotropy without --volume", expected="a volume", fix="add --volume")
