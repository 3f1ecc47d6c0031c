"""Convert files to OME-Zarr, or a folder of files to a folder of images."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.io.files.convert import (
    Conversion,
    ConvertConfig,
    check_target,
    conversion_notes,
    convert,
    plan_convert,
)
from sketchscale.io.ome_zarr.image import Image
from sketchscale.workflow.runner import Runner, StageLine, keep_engines, quiet
from sketchscale.workflow.verbs import Progress, share_of, verb

__all__ = ["convert_images", "plan_images"]

_STAGES = {"pixels": 3, "level": 1}


@verb()
def convert_images(
    source: str,
    target: str,
    config: ConvertConfig | None = None,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    say: Callable[[str], None] = lambda line: None,
    *,
    cancel: threading.Event | None = None,
) -> list[dict[str, Any]]:
    """Write the images; return for each a record: address, shape, axes, dtype, levels, spacing_um, notes, summary.

    Args:
        say: called, before anything is written, with a line for each assumption about a file, and for each part of it
            that is left out; also in the records' `notes`.

    Raises:
        OutputExistsError: something is at the target, and neither resume nor overwrite was asked for.
        InputError, MissingDataError: see `io.convert.plan_convert` and `io.convert.convert`.
    """
    execution = execution or Execution()
    conversions = plan_convert(source, target, config)
    for line in conversion_notes(conversions):
        say(line)
    how = {"resume": execution.resume, "overwrite": execution.overwrite}
    for conversion in conversions:
        check_target(conversion.dst, **how)
    records = []
    with keep_engines():
        for number, conversion in enumerate(conversions):
            progress = Progress(share_of(on_event, number, len(conversions)), _STAGES)
            with Runner(execution, progress) as runner:
                records.append(_record(convert(conversion, runner.run, **how), conversion))
    return records


@verb()
def plan_images(
    source: str,
    target: str,
    config: ConvertConfig | None = None,
    execution: Execution | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[StageLine, ...]:
    """Return the stages that `convert_images` would run; nothing is written."""
    conversions = plan_convert(source, target, config)
    for line in conversion_notes(conversions):
        say(line)
    with Runner(execution or Execution()) as runner:
        for conversion in conversions:
            runner.dry(conversion.pixels)
        return tuple(runner.stages)


def _record(image: Image, conversion: Conversion) -> dict[str, Any]:
    plane_shape, axes, source = image.shapes[0], image.metadata.order, conversion.source
    spacing = {} if source.spacing is None else dict(zip("yx", source.spacing, strict=True))
    if source.depth is not None:
        spacing = {"z": source.depth, **spacing}
    dtype = image.plane(t=0 if "t" in axes else None, z=0 if "z" in axes else None).dtype
    size = " x ".join(map(str, plane_shape))
    return {
        "address": image.address,
        "shape": list(plane_shape),
        "axes": axes,
        "dtype": dtype,
        "levels": len(image.shapes),
        "spacing_um": spacing,
        "notes": list(source.notes),
        "summary": f"{size} ({axes}) {dtype}, {len(image.shapes)} levels, OME-Zarr {image.metadata.version}",
    }
