"""Convert files to OME-Zarr, or a folder of files to a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.io.convert import ConvertConfig, convert, plan_convert
from sketchscale.io.image import Image
from sketchscale.workflow.runner import Runner, StageLine, quiet

__all__ = ["convert_images", "plan_images"]


def convert_images(
    source: str,
    target: str,
    config: ConvertConfig | None = None,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
) -> list[dict[str, Any]]:
    """Write the images; one record each: address, shape, axes, dtype, levels, summary. See `io.convert.convert`."""
    execution = execution or Execution()
    with Runner(execution, on_event) as runner:
        images = convert(
            source,
            target,
            config=config,
            engine=runner.engine,
            on_event=on_event,
            resume=execution.resume,
            overwrite=execution.overwrite,
            budget_bytes=execution.budget_bytes,
        )
    return [_record(image) for image in images]


def plan_images(
    source: str, target: str, config: ConvertConfig | None = None, execution: Execution | None = None
) -> tuple[StageLine, ...]:
    """What `convert_images` would do; nothing is written."""
    with Runner(execution or Execution()) as runner:
        for conversion in plan_convert(source, target, config):
            runner.dry(conversion.pixels)
        return tuple(runner.stages)


def _record(image: Image) -> dict[str, Any]:
    plane_shape, axes = image.shapes[0], image.metadata.order
    dtype = image.plane(t=0 if "t" in axes else None, z=0 if "z" in axes else None).dtype
    size = " x ".join(map(str, plane_shape))
    return {
        "address": image.address,
        "shape": list(plane_shape),
        "axes": axes,
        "dtype": dtype,
        "levels": len(image.shapes),
        "summary": f"{size} ({axes}) {dtype}, {len(image.shapes)} levels, OME-Zarr {image.metadata.version}",
    }
