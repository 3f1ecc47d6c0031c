"""The public functions that convert files to images, and write a report about images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sketchscale.api.fields import options_and_execution
from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.io.files.convert import ConvertConfig
from sketchscale.workflow.convert import convert_images
from sketchscale.workflow.images import expand
from sketchscale.workflow.report.report import write_report
from sketchscale.workflow.runner import quiet

__all__ = ["convert", "report"]


def convert(
    source: str | Path,
    target: str | Path,
    config: ConvertConfig | None = None,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    say: Callable[[str], None] = lambda line: None,
    *,
    cancel: threading.Event | None = None,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Write image files as OME-Zarr; one record for each image: address, shape, axes, dtype, levels, notes, summary.

    Args:
        source: an image file, or a folder of them.
        target: address of the new image; for a folder, of the folder of the new images.
        config: how files become images; see ConvertConfig.
        say: called, before anything is written, with a line for each thing that files do not say and that was assumed,
            or that is left out.
        cancel: ends the work once it is set, with `Cancelled`; what finished is kept for `resume`.
        fields: fields of ConvertConfig and Execution as keyword arguments, as in `convert(a, b, chunk=256)`.

    Raises:
        UnknownNameError: a keyword argument that is no option.
        InputError, MissingDataError, OutputExistsError: see `workflow.convert.convert_images`.
    """
    chosen, how = options_and_execution("convert", ConvertConfig, config, execution, fields)
    return convert_images(str(source), str(target), chosen, how, on_event, say, cancel=cancel)


def report(
    images: str | Path | Sequence[str | Path],
    labels: str,
    out: str | Path,
    *,
    title: str = "",
    model: str | None = None,
    truths: Sequence[str] = (),
    overwrite: bool = False,
) -> str:
    """Write one self-contained HTML page about segmented and measured images; returns its path.

    Args:
        images: one or several addresses, of images or plates.
        labels: name of their label images.
        model, truths: see `workflow.report.write_report`.

    Raises:
        InputError, MissingDataError, OutputExistsError, OutputError: see `workflow.report.write_report`.
    """
    several = [images] if isinstance(images, str | Path) else images
    addresses = expand([str(image) for image in several])
    return write_report(addresses, labels, str(out), title=title, model=model, truths=truths, overwrite=overwrite)
