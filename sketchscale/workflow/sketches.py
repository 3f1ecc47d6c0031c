"""Sketches as files: import, export, simulate, show, repair."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from sketchscale.annotations import geojson, readers
from sketchscale.annotations.events import append_events, repair_log
from sketchscale.annotations.opening import SketchFile, SketchReading, open_sketch_file
from sketchscale.annotations.simulate import (
    INTERIOR_STYLES,
    STYLES,
    simulate_interior,
    simulate_strokes,
)
from sketchscale.annotations.simulate_mask import simulate_mask
from sketchscale.annotations.sketch import Sketch
from sketchscale.errors import MissingDataError, UnknownNameError
from sketchscale.io.files.masks import few_values, is_mask, label_components, require_background
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.stores.output_files import replacing_file, require_local, writing_place
from sketchscale.options.groups import SketchReadingOptions
from sketchscale.workflow.report.report import draw_sketch
from sketchscale.workflow.runner import refuse_existing

__all__ = ["export_sketch", "import_sketch", "repair_sketch", "show_sketch", "simulate_sketch", "sketch_reading"]


def import_sketch(
    source: str, out: str, *, image: str | None = None, reading: SketchReading | None = None, overwrite: bool = False
) -> str:
    """Write another tool's annotation as a stroke log; return a line on how it was understood.

    Args:
        reading: the kind of file and what its classes mean; see annotations.opening.
        image: address of its image; needed for geojson, points and boxes, which lack the image's size.

    Raises:
        InputError: not of that kind, or something lies outside the image.
        OutputExistsError: the sketch is there.
    """
    require_local(out)
    refuse_existing(out, overwrite=overwrite)
    opened = _open(source, image, reading)
    _write(opened.sketch, out)
    return f"{out}: {len(opened.sketch.events)} events from {opened.line}"


def sketch_reading(options: SketchReadingOptions) -> SketchReading:
    """Return how to read sketch files, from `--kind` and `--class`.

    Raises:
        UnknownNameError: no such kind, or not one of our classes.
    """
    return SketchReading(kind=options.sketch_kind, classes=options.sketch_classes)


def export_sketch(
    path: str, out: str, *, image: str | None = None, reading: SketchReading | None = None, overwrite: bool = False
) -> str:
    """Write a sketch as GeoJSON (compressed when `out` ends in .gz); return a line about it."""
    require_local(out)
    refuse_existing(out, overwrite=overwrite)
    sketch = _open(path, image, reading).sketch
    with replacing_file(out) as partial:
        geojson.write_geojson(partial, geojson.geojson_from_sketch(sketch))
    return f"{out}: {len(sketch.marks)} features"


def simulate_sketch(
    truth: str,
    out: str,
    *,
    style: str = "fill",
    n_objects: int = 20,
    percent: float = 10.0,
    seed: int = 0,
    overwrite: bool = False,
) -> str:
    """Write a partial annotation of a full label image; return a line about it.

    Args:
        truth: ids of all objects; of a mask with a single value, the connected components are the objects.
        style: gp for a Gaussian-process mask of `percent`, else strokes on `n_objects` objects as a person draws them,
            with outlines (STYLES) or without (INTERIOR_STYLES).
    """
    require_local(out)
    refuse_existing(out, overwrite=overwrite)
    if style not in (known := ("gp", *STYLES, *INTERIOR_STYLES)):
        raise UnknownNameError.among("style", style, known)
    labels = readers.read_label_image(truth)
    few = few_values(labels)
    require_background(few, f"label image {truth}", "write 0 where no object is")
    labels = label_components(labels) if is_mask(few) else labels
    if style == "gp":
        sketch = simulate_mask(labels, percent, seed=seed)
    elif style in INTERIOR_STYLES:
        sketch = simulate_interior(labels, n_objects=n_objects, seed=seed, style=cast(Any, style))
    else:
        sketch = simulate_strokes(labels, n_objects=n_objects, seed=seed, style=cast(Any, style))
    return _write(sketch, out)


def show_sketch(
    path: str,
    *,
    image: str | None = None,
    out: str | None = None,
    reading: SketchReading | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Return counts of what a sketch holds, and draw it over its image when `out` is given.

    Without an image every brush counts whole, so that the figures are the same as with it, unless a brush crosses the
    edge of the image. `shape` is None where neither an image nor the file gives it.

    Raises:
        OutputExistsError: the picture is there.
    """
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    opened = _open(path, image, reading)
    summary = {"kind": opened.kind, **asdict(opened.sketch.summary())}
    if not opened.sized:
        summary["shape"] = None
    if out is not None:
        summary["picture"] = draw_sketch(opened.sketch, image, out)
    return summary


def repair_sketch(path: str) -> str:
    """Move an incomplete last line, which an interrupted writer left, out of the log; return a line on what was done.

    Raises:
        MissingDataError: no such sketch.
        InputError: not a stroke log by its first line; the file is left as it is.
        OutputError: it cannot be written.
    """
    if not Path(path).is_file():
        raise MissingDataError(f"sketch {path} does not exist; expected: a .jsonl log; to fix: check the path")
    with writing_place(path):
        torn = repair_log(path)
    return f"{path}: whole, nothing to repair" if torn is None else f"{path}: the torn last line is in {torn} now"


def _open(path: str, image: str | None, reading: SketchReading | None = None) -> SketchFile:
    shape = open_image(image).plane().section if image is not None else None
    return open_sketch_file(path, shape=shape, reading=reading)


def _write(sketch: Sketch, out: str) -> str:
    """Write a log; an existing one is replaced when the new one is complete."""
    summary = sketch.summary()
    with replacing_file(out) as partial:
        append_events(partial, sketch.events)
    pixels = ", ".join(f"{n} {name}" for name, n in summary.pixels.items())
    return f"{out}: {len(sketch.events)} events, {summary.objects} objects, px: {pixels}"
