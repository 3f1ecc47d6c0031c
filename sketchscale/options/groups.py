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
"""Heading of options that hardly change results; the last one in `--help`."""
running = partial(option, panel=RUNNING)


@dataclass(frozen=True, kw_only=True)
class Labels(Options):
    __slots__ = ()

    labels: str = option("nuclei", "Name of the label image.")


@dataclass(frozen=True, kw_only=True)
class Components(Options):
    __slots__ = ()

    components: Literal["auto", "always", "never"] = option(
        "auto", "Each connected component of a mask is an object; auto: if the mask has exactly one value above 0."
    )


@dataclass(frozen=True, kw_only=True)
class Channels(Options):
    __slots__ = ()

    channels: tuple[int | str, ...] | None = option(
        None, "Channel to read, by name or index; repeat it for each channel, in order.", flag="--channel"
    )


@dataclass(frozen=True, kw_only=True)
class Device(Options):
    __slots__ = ()

    device: str = running("cpu", "Where networks run: cpu, cuda or mps.")


_PRECISION = "Precision of networks; auto measures which one is faster; a resumed run keeps its precision."


@dataclass(frozen=True, kw_only=True)
class Precision(Device):
    __slots__ = ()

    precision: Literal["auto", "float32", "bfloat16", "float16"] = running("auto", _PRECISION)


@dataclass(frozen=True, kw_only=True)
class NetworkPrecision(Device):
    """Precision without float16, whose range is too small for these networks."""

    __slots__ = ()

    precision: Literal["auto", "float32", "bfloat16"] = running("auto", _PRECISION)


@dataclass(frozen=True, kw_only=True)
class SketchReadingOptions(Options):
    """How to read sketches where their contents do not show it; see annotations.opening."""

    __slots__ = ()

    sketch_kind: str | None = option(
        None,
        "Kind of the sketch: strokes, geojson, points, boxes, sketchpose, objects or labels; by default recognised by "
        "its contents. A painted image is read as objects: pixels of 0 are unknown. Use labels if every object is "
        "painted and 0 is background.",
        flag="--kind",
    )
    sketch_classes: dict[str, str] = option(
        factory=dict,
        help="Meaning of a class of GeoJSON, or of a value of a painted image: Tumor=foreground, none=foreground "
        "(objects without a class), 255=background; repeatable.",
        flag="--class",
    )


@dataclass(frozen=True, kw_only=True)
class Pointed(Options):
    """Images with one point in each object."""

    __slots__ = ()

    images: tuple[str, ...] = option(help="OME-Zarr images or plates.", argument="IMAGE...")
    points: tuple[str, ...] = option(
        help="Centres of the objects of each image, in order: CSV (y, x), GeoJSON or a sketch."
    )
