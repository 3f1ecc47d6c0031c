"""Labels and the image that they lie on, plane or volume, and the rows that measuring a volume gives.

Labels with the axes zyx are a volume, whatever their depth: they lie on the whole depth of the image. All others are a
plane, and lie on the section and time that `segment` wrote down with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow

from sketchscale.engine.base import Plan
from sketchscale.errors import InputError
from sketchscale.geometry import block_shape
from sketchscale.io.arrays import ArrayRef
from sketchscale.io.image import Image
from sketchscale.io.planes import PlaneRef, VolumeRef
from sketchscale.objects.measurement.plan import collect_ranges, needs_ranges, plan_ranges
from sketchscale.objects.measurement.solid_plan import measure_solids, solid_config

__all__ = ["block_of", "intensities_of", "is_volume", "volume_rows"]


def is_volume(labels: Image) -> bool:
    """Whether a label image is a volume: axes z, y and x."""
    return labels.metadata.order == "zyx"


def intensities_of(image: Image, labels: Image, provenance: Mapping[str, Any]) -> PlaneRef | VolumeRef:
    """The part of an image that its labels lie on: one plane, or a volume.

    Args:
        provenance: what `segment` wrote with the labels; says which section and time they are of.

    Raises:
        InputError: a plane of labels on a volume, or the reverse.
    """
    index = provenance.get("plane", {}).get("index", {})
    axes, sections = image.metadata.order, dict(zip(image.metadata.order, image.shapes[0], strict=True)).get("z", 1)
    if is_volume(labels):
        if "z" not in axes:
            raise _misfit(labels, f"a volume of {labels.shapes[0]} (z, y, x)", f"axes {axes!r}: no depth")
        return image.volume(t=index.get("t"))
    if sections > 1 and "z" not in index:
        raise _misfit(labels, f"a plane of {labels.shapes[0][-2:]} (y, x)", f"{sections} sections")
    return image.plane(t=index.get("t"), z=index.get("z"))


def _misfit(labels: Image, are: str, has: str) -> InputError:
    return InputError.of(
        found=f"{labels.address} is {are}, its image has {has}",
        expected="labels with the axes of their image",
        fix="label this image: a volume with segment --volume, a plane with segment --z",
    )


def block_of(labels: Image, plane: PlaneRef | VolumeRef, side: int) -> tuple[int, ...]:
    """The block of a task: whole chunks of the labels, about `side` pixels squared, or as many voxels in a cube."""
    chunks = labels.chunks[0][-len(plane.shape) :]
    target = side if isinstance(plane, PlaneRef) else max(1, round(side ** (2 / 3)))
    return block_shape(plane.shape, chunks, target)


def volume_rows(
    labels: ArrayRef,
    volume: VolumeRef,
    features: Sequence[str] | None,
    run: Callable[[Plan[Any]], list[Any]],
    *,
    store: str,
    block: tuple[int, ...],
) -> Iterator[pyarrow.RecordBatch]:
    """The rows of the table of a volume, ordered by label.

    Args:
        features: of `choose_solid_features`; None for all.
        run: runs a plan and returns its results in task order.
        store: scratch space.
    """
    ranges = collect_ranges(run(plan_ranges(volume, block))) if needs_ranges(volume) else ()
    config = solid_config(labels, volume, ranges=ranges, features=features)
    yield from measure_solids(labels, volume, config, run, store=store, block=block)
