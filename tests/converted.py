"""Files as images, for tests that only want the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sketchscale.config import Execution
from sketchscale.io.files.convert import ConvertConfig
from sketchscale.io.ome_zarr.image import Image, open_image
from sketchscale.workflow.convert import convert_images
from sketchscale.workflow.runner import quiet

__all__ = ["convert"]


def convert(
    src: str | Path, dst: str | Path, *, config: ConvertConfig | None = None, on_event: Any = quiet, **execution: Any
) -> tuple[Image, ...]:
    """`convert_images` with fields of Execution, serial where they name no engine; opens what it wrote."""
    how = Execution(**{"engine": "serial", **execution})
    records = convert_images(str(src), str(dst), config, how, on_event)
    return tuple(open_image(record["address"]) for record in records)
