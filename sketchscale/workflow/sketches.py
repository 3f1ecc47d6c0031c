"""Sketches as files: import, export, simulate, show. A sketch file is a log of events, one JSON line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

from sketchscale.annotations import geojson, readers
from sketchscale.annotations.events import Event, append_events, read_events
from sketchscale.annotations.painting import extent_of
from sketchscale.annotations.simulate import STYLES, simulate_mask, simulate_strokes
from sketchscale.annotations.sketch import Sketch, open_sketch
from sketchscale.errors import InputError, MissingDataError, OutputExistsError, UnknownNameError
from sketchscale.io.image import open_image

__all__ = ["export_sketch", "import_sketch", "show_sketch", "simulate_sketch"]

KINDS = {".geojson": "geojson", ".gz": "geojson", ".json": "geojson", ".csv": "points"}
"""What an extension means where --kind does not say; everything else is a label image."""


def import_sketch(
    source: str, out: str, *, image: str | None = None, kind: str | None = None, overwrite: bool = False
) -> str:
    """Another tool's annotation into a sketch file; returns a line that says what came in.

    Args:
        kind: labels (zero is background), objects (zero is unknown), geojson, points or boxes; by extension when None.
        image: address of the image it belongs to; needed for geojson, points and boxes, which do not say its size.

    Raises:
        InputError: not of that kind, or something lies outside the image.
    """
    if not Path(source).is_file():
        raise MissingDataError(f"{source} does not exist; expected: an annotation file; to fix: check the path")
    kind = kind or KINDS.get(Path(source).suffix.lower(), "labels")
    if kind not in _READERS:
        raise UnknownNameError.among("kind of annotation", kind, _READERS)
    shape = open_image(image).plane().shape if image else None
    sketch = _READERS[kind](source, shape)
    return _write(sketch, out, overwrite)


def _needed(shape: tuple[int, int] | None) -> tuple[int, int]:
    if shape is None:
        raise InputError.of(found="no --image", expected="the image that was annotated", fix="name it with --image")
    return shape


def _from_labels(source: str, shape: tuple[int, int] | None, zero: Literal["background", "unknown"]) -> Sketch:
    labels = readers.read_label_image(source)
    own = (labels.shape[0], labels.shape[1])
    if shape is not None and shape != own:
        raise InputError.of(found=f"{source} of {own}", expected=f"{shape}, as the image", fix="check that they belong")
    return Sketch(shape=own, events=readers.events_from_labels(labels, readers.Stamp.now(), zero=zero))


def _from_geojson(source: str, shape: tuple[int, int] | None) -> Sketch:
    size = _needed(shape)
    collection = geojson.read_geojson(source)
    return Sketch(shape=size, events=geojson.events_from_geojson(collection, readers.Stamp.now(), shape=size))


def _from_points(source: str, shape: tuple[int, int] | None) -> Sketch:
    return Sketch(shape=_needed(shape), events=readers.events_from_points(source, readers.Stamp.now()))


def _from_boxes(source: str, shape: tuple[int, int] | None) -> Sketch:
    return Sketch(shape=_needed(shape), events=readers.events_from_boxes(source, readers.Stamp.now()))


_READERS: dict[str, Any] = {
    "labels": lambda source, shape: _from_labels(source, shape, "background"),
    "objects": lambda source, shape: _from_labels(source, shape, "unknown"),
    "geojson": _from_geojson,
    "points": _from_points,
    "boxes": _from_boxes,
}


def export_sketch(path: str, out: str, *, image: str | None = None, overwrite: bool = False) -> str:
    """A sketch as GeoJSON (packed when `out` ends in .gz); returns a line about it."""
    _refuse_existing(out, overwrite)
    sketch = _open(path, image)
    geojson.write_geojson(out, geojson.geojson_from_sketch(sketch))
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
    """Partial annotation from a full label image; returns a line about it.

    Args:
        style: gp for a Gaussian-process mask of `percent`, else strokes on `n_objects` objects as a person draws them.
    """
    if style not in ("gp", *STYLES):
        raise UnknownNameError.among("style", style, ("gp", *STYLES))
    labels = readers.read_label_image(truth)
    if style == "gp":
        sketch = simulate_mask(labels, percent, seed=seed)
    else:
        sketch = simulate_strokes(labels, n_objects=n_objects, seed=seed, style=cast(Any, style))
    return _write(sketch, out, overwrite)


def show_sketch(path: str, *, image: str | None = None, out: str | None = None) -> dict[str, Any]:
    """Counts of a sketch, and a picture of it over its image when `out` is given."""
    sketch = _open(path, image)
    summary = asdict(sketch.summary())
    if out is not None:
        from sketchscale.workflow.report import draw_sketch

        summary["picture"] = draw_sketch(sketch, image, out)
    return summary


def _open(path: str, image: str | None) -> Sketch:
    if image is not None:
        return open_sketch(path, shape=open_image(image).plane().shape)
    return open_sketch(path, shape=_extent(read_events(path)))


def _extent(events: Sequence[Event]) -> tuple[int, int]:
    """The smallest image that holds the events: enough to count and to export."""
    if not events:
        return 1, 1
    corners = [extent_of(event)[1] for event in events]
    return max(1, int(max(c[0] for c in corners)) + 2), max(1, int(max(c[1] for c in corners)) + 2)


def _refuse_existing(out: str, overwrite: bool) -> None:
    if Path(out).exists() and not overwrite:
        raise OutputExistsError(f"{out} is there already; expected: a new file; to fix: --overwrite, or another --out")


def _write(sketch: Sketch, out: str, overwrite: bool) -> str:
    _refuse_existing(out, overwrite)
    Path(out).unlink(missing_ok=True)
    append_events(out, sketch.events)
    summary = sketch.summary()
    pixels = ", ".join(f"{n} {name}" for name, n in summary.pixels.items())
    return f"{out}: {len(sketch.events)} events, {summary.objects} objects, px: {pixels}"
