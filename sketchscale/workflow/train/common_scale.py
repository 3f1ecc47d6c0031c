"""The scale of each training image, settled once by the process that starts the training; see training/scale.py."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from sketchscale.config import TrainOptions
from sketchscale.errors import InputError
from sketchscale.losses import find_loss
from sketchscale.networks.checkpoint import Model
from sketchscale.networks.targets import TARGETS
from sketchscale.training.scale import DIAMETER, outlined_diameter, rounded_scale
from sketchscale.training.state import kept_setting
from sketchscale.workflow.train.images import SketchedImages

__all__ = ["network_pixel_um", "settle_scales"]


def settle_scales(
    options: TrainOptions,
    data: SketchedImages,
    init: Model | None,
    say: Callable[[str], None] = lambda line: None,
    *,
    resume: bool = False,
) -> tuple[float, ...]:
    """Return network px per image px of each image; () where images stay as they are, and prediction keeps scale 1.

    Volumes stay as they are, and so do images for h/v maps, whose scale a first pass cannot find. Scales are those of a
    training that goes on, else `rescale`, else what brings objects of `diameter`, or of the typical diameter of the
    outlined ones, to that of the model to start from. An image without outlines has the median of the others.

    Args:
        say: called with one line on the choice.

    Raises:
        InputError: both `diameter` and `rescale` were given.
    """
    if options.volume:
        return ()
    if options.diameter is not None and options.rescale is not None:
        raise InputError("--diameter and --rescale exclude each other: give the objects' size, or the scale itself")
    if kept_setting(options.out, "seed", resume=resume) is not None:  # an older state has no scales
        return tuple(map(float, json.loads(kept_setting(options.out, "scales", resume=resume) or "[]")))
    if options.rescale is not None:
        return () if options.rescale == 1 else (options.rescale,) * len(data.paths)
    wanted = DIAMETER if init is None or init.config.diameter <= 0 else init.config.diameter
    given = [options.diameter or outlined_diameter(parts) for parts in data.by_image]
    known = [diameter for diameter in given if diameter is not None]
    if options.loss != "auto" and TARGETS[find_loss(options.loss).target].rule != "flow":
        return ()
    if not known:
        if data.paths:
            say("scale: 1, as no object is outlined; --diameter says how large objects are")
        return ()
    scales = tuple(rounded_scale(wanted / (diameter or float(np.median(known)))) for diameter in given)
    say(f"scale: {_range(known)} px brought to {wanted:.3g} px, images scaled by {_range(scales)}")
    return scales


def _range(values: list[float] | tuple[float, ...]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def network_pixel_um(data: SketchedImages) -> float:
    """Return um per network px, where all images know their pixel size and agree within a quarter; else 0."""
    scales = data.scales or (1.0,) * len(data.paths)
    sizes = [size / scale if size else 0.0 for size, scale in zip(data.pixel_um, scales, strict=True)]
    if not sizes or min(sizes) <= 0 or max(sizes) > 1.25 * min(sizes):
        return 0.0
    return round(float(np.median(sizes)), 6)
