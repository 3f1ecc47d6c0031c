"""Whether a model knows the kind of an image: the test of networks/kind.py, for stored images and for arrays.

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
    """Whether images are compared with what the model knows."""
    return config.kind is not None and has_statistics(config)


def has_statistics(config: ModelConfig) -> bool:
    """Whether the fields are flow and a distance in px, which the statistics are made for."""
    return TARGETS[config.target].rule == "flow" and not config.logit and config.network.dim == 2


def levels_of(config: ModelConfig, scale: float = 1.0) -> FieldLevels:
    """What is counted. The levels are the model's, whatever threshold a user asks for.

    Args:
        scale: pixels of the network per pixel of the image.
    """
    return FieldLevels.of(config.threshold, config.outside, scale)


def stored_statistics(levels: Sequence[Levels], blended: Iterable[Mapping[str, Any]]) -> Statistics:
    """Of a stored image.

    Args:
        levels: of each channel that the model reads.
        blended: what the tasks of blending noted, with `counts`.
    """
    return statistics_of([one.brightness for one in levels], add_counts(noted["counts"] for noted in blended))


def array_statistics(
    pixels: npt.NDArray[Any], fields: npt.NDArray[np.float16], config: ModelConfig, scale: float = 1.0
) -> Statistics:
    """Of pixels (c, y, x) in memory and their fields (3, y, x); the same as of the stored image."""
    levels = array_levels(pixels, low=config.low, high=config.high)
    return stored_statistics(levels, [{"counts": count_fields(fields, levels_of(config, scale))}])


def kind_record(found: Statistics, config: ModelConfig) -> dict[str, Any]:
    """Statistics for provenance, with `unknown`: why the image is of an unknown kind, empty where it is not."""
    return {**asdict(found), "unknown": unfamiliar(found, config.kind) if config.kind is not None else ""}


def kind_warning(image: str, model: str, found: Mapping[str, Any], *, objects: int) -> str:
    """One line about an image of an unknown kind; empty for a known one, and where no object was found.

    Args:
        found: of `kind_record`; empty where nothing was tested.
    """
    if not found.get("unknown") or not objects:
        return ""
    return (
        f"{image} is not like the images that model {model} knows: {found['unknown']}; its {objects} objects cannot be "
        f"trusted; to fix: draw a few strokes on such an image and `sketchscale train IMAGE --sketch SKETCH --out "
        f"MODEL`, or choose another --model"
    )
