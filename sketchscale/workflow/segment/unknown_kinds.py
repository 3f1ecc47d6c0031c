"""Test whether a model knows the kind of an image, as in networks/kind.py, for stored images and for arrays.

A model without intervals in its configuration, one that gives h/v maps or logits, and volumes are not tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.intensity import Levels, array_levels
from sketchscale.networks.kind import FieldLevels, Statistics, add_counts, count_fields, statistics_of, unfamiliar
from sketchscale.networks.model import ModelConfig
from sketchscale.networks.targets import TARGETS

__all__ = [
    "array_statistics",
    "has_statistics",
    "is_tested",
    "kind_record",
    "kind_warning",
    "levels_of",
    "stored_statistics",
]


def is_tested(config: ModelConfig) -> bool:
    """Return whether images are compared with the kind that the model knows."""
    return config.kind is not None and has_statistics(config)


def has_statistics(config: ModelConfig) -> bool:
    """Return whether the fields are flow and a distance in px, for which the statistics are made."""
    return TARGETS[config.target].rule == "flow" and not config.logit and config.network.dim == 2


def levels_of(config: ModelConfig, scale: float = 1.0) -> FieldLevels:
    """Return the levels that are counted: the model's, whichever threshold a user asks for.

    Args:
        scale: pixels of the network per pixel of the image.
    """
    return FieldLevels.of(config.threshold, config.outside, scale)


def stored_statistics(levels: Sequence[Levels], blended: Iterable[Mapping[str, Any]]) -> Statistics:
    """Return the statistics of a stored image.

    Args:
        levels: of each channel that the model reads.
        blended: records of the blending tasks, with `counts`.
    """
    return statistics_of([one.brightness for one in levels], add_counts(noted["counts"] for noted in blended))


def array_statistics(
    pixels: npt.NDArray[Any], fields: npt.NDArray[np.float16], config: ModelConfig, scale: float = 1.0
) -> Statistics:
    """Return the statistics of pixels (c, y, x) and fields (3, y, x) in memory; the same as of the stored image."""
    levels = array_levels(pixels, low=config.low, high=config.high)
    return stored_statistics(levels, [{"counts": count_fields(fields, levels_of(config, scale))}])


def kind_record(found: Statistics, config: ModelConfig) -> dict[str, Any]:
    """Return the statistics for provenance, with `unknown`: why the kind of image is unknown, "" where it is known."""
    return {**asdict(found), "unknown": unfamiliar(found, config.kind) if config.kind is not None else ""}


def kind_warning(image: str, model: str, found: Mapping[str, Any], *, objects: int) -> str:
    """Return one line about an image of an unknown kind; "" for a known one, and where no object was found.

    Args:
        found: from `kind_record`; empty where nothing was tested.
    """
    if not found.get("unknown") or not objects:
        return ""
    return (
        f"{image} is not like the images that model {model} knows: {found['unknown']}; its {objects} objects cannot be "
        f"trusted; to fix: draw a few strokes on such an image and `sketchscale train IMAGE --sketch SKETCH --out "
        f"MODEL`, or choose another --model"
    )
