"""Fields that several records have, each declared once; a record inherits the groups that it needs.

In `--help` a record's own fields come first, then those of its groups in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from sketchscale.settings import Options, option

__all__ = [
    "RUNNING",
    "Channels",
    "Components",
    "Device",
    "Labels",
    "NetworkPrecision",
    "Pointed",
    "Precision",
    "SketchReadingOptions",
    "running",
]

RUNNING = "Running"
"""Heading of what does not change results, or hardly; the last one in `--help`."""
running = partial(option, panel=RUNNING)


@dataclass(frozen=True, kw_only=True)
class Labels(Options):
    __slots__ = ()

    labels: str = option("nuclei", "Name of the label image.")


@dataclass(frozen=True, kw_only=True)
class Components(Options):
    __slots__ = ()

    components: Literal["auto", "always", "never"] = option(
        "auto", "Each connected piece of a mask is an object; auto: where the mask has exactly one value above 0."
    )


@dataclass(frozen=True, kw_only=True)
class Channels(Options):
    __slots__ = ()

    channels: tuple[int | str, ...] | None = option(
        None, "Channel to read, name or index; once per channel, in order.", flag="--channel"
    )


@dataclass(frozen=True, kw_only=True)
class Device(Options):
    __slots__ = ()

    device: str = running("cpu", "Where networks run: cpu, cuda or mps.")


_PRECISION = "Of networks; auto is the faster one, by measurement; a resumed run keeps its own."


@dataclass(frozen=True, kw_only=True)
class Precision(Device):
    __slots__ = ()

    precision: Literal["auto", "float32", "bfloat16", "float16"] = running("auto", _PRECISION)


@dataclass(frozen=True, kw_only=True)
class NetworkPrecision(Device):
    """Without float16, whose range is too small for these networks."""

    __slots__ = ()

    precision: Literal["auto", "float32", "bfloat16"] = running("auto", _PRECISION)


@dataclass(frozen=True, kw_only=True)
class SketchReadingOptions(Options):
    """How sketches are to be read where their contents do not show it; see annotations.opening."""

    __slots__ = ()

    sketch_kind: str | None = option(
        None,
        "Of the sketch: strokes, geojson, points, boxes, sketchpose, objects or labels. Recognised by contents if not "
        "given; a painted image counts as objects: where it is 0, nothing is known. labels: every object is painted, "
        "and 0 is background.",
        flag="--kind",
    )
    sketch_classes: dict[str, str] = option(
        factory=dict,
        help="What a class of GeoJSON means, or a value of a painted image: Tumor=foreground, none=foreground (without "
        "a class), 255=background; repeatable.",
        flag="--class",
    )


@dataclass(frozen=True, kw_only=True)
class Pointed(Options):
    """Images with one point in each object."""

    __slots__ = ()

    images: tuple[str, ...] = option(help="OME-Zarr images or plates.", argument="IMAGE...")
    points: tuple[str, ...] = option(help="Centres in each image, in order: CSV (y, x), GeoJSON or a sketch.")
