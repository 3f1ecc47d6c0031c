"""Sketches as files: import, export, simulate, show. A sketch file is a log of events, one JSON line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from sketchscale.annotations import geojson, readers
from sketchscale.annotations.events import CLASSES, Event, append_events, read_events, repair_log
from sketchscale.annotations.painting import extent_of
from sketchscale.annotations.simulate import STYLES, simulate_mask, simulate_strokes
from sketchscale.annotations.sketch import Sketch, open_sketch
from sketchscale.errors import InputError, MissingDataError, UnknownNameError
from sketchscale.io.image import open_image
from sketchscale.io.user_files import replacing_file, require_local, writing_place
from sketchscale.workflow.report import draw_sketch
from sketchscale.workflow.runner import refuse_existing

__all__ = ["export_sketch", "import_sketch", "parse_classes", "repair_sketch", "show_sketch", "simulate_sketch"]

KINDS = {".geojson": "geojson", ".gz": "geojson", ".json": "geojson", ".csv": "points"}
"""What an extension means where --kind does not say; everything else is a label image."""


def import_sketch(
    source: str,
    out: str,
    *,
    image: str | None = None,
    kind: str | None = None,
    classes: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> str:
    """Another tool's annotation into a sketch file; returns a line that says what came in.

    Args:
        kind: labels (zero is background), objects (zero is unknown), geojson, points, boxes, or sketchpose (its
            `<stem>_labels.png`, with boundaries and boxes beside it); by extension when None.
        classes: what the classes of a GeoJSON file mean here, such as {"Tumor": "foreground"}.
        image: address of the image it belongs to; needed for geojson, points and boxes, which do not say its size.

    Raises:
        InputError: not of that kind, or something lies outside the image.
        OutputExistsError: the sketch is there.
    """
    require_local(out)
    refuse_existing(out, overwrite=overwrite)
    if not Path(source).is_file():
        raise MissingDataError(f"{source} does not exist; expected: an annotation file; to fix: check the path")
    kind = kind or KINDS.get(Path(source).suffix.lower(), "labels")
    if kind not in _READERS:
        raise UnknownNameError.among("kind of annotation", kind, _READERS)
    if classes and kind != "geojson":
        raise InputError.of(found=f"--class for {kind}", expected="--class with GeoJSON only", fix="leave --class out")
    shape = open_image(image).plane().shape if image else None
    return _write(_READERS[kind](_Source(path=source, shape=shape, classes=classes or {})), out)


def parse_classes(meanings: Sequence[str]) -> dict[str, str]:
    """What `--class NAME=CLASS` says, as a table.

    Raises:
        InputError: no equals sign, or not one of our classes.

    >>> parse_classes(["Tumor=foreground"])
    {'Tumor': 'foreground'}
    """
    table = {}
    for meaning in meanings:
        name, equals, known = meaning.rpartition("=")
        if not equals or not name:
            raise InputError.of(found=f"--class {meaning}", expected="NAME=CLASS", fix="write --class Tumor=foreground")
        if known not in CLASSES:
            raise UnknownNameError.among("class", known, CLASSES)
        table[name] = known
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A file to import, the (y, x) of its image when one was named, and what its classes mean."""

    path: str
    shape: tuple[int, int] | None
    classes: Mapping[str, str]

    @property
    def size(self) -> tuple[int, int]:
        if self.shape is None:
            raise InputError.of(found="no --image", expected="the image that was annotated", fix="name it with --image")
        return self.shape


def _from_labels(source: _Source, zero: Literal["background", "unknown"]) -> Sketch:
    labels = readers.read_label_image(source.path)
    own = (labels.shape[0], labels.shape[1])
    _require_shape(source, own)
    return Sketch(shape=own, events=readers.events_from_labels(labels, readers.Stamp.now(), zero=zero))


def _from_sketchpose(source: _Source) -> Sketch:
    events = readers.events_from_sketchpose(source.path, readers.Stamp.now())
    height, width = readers.read_label_image(source.path).shape
    _require_shape(source, (height, width))
    return Sketch(shape=(height, width), events=events)


def _require_shape(source: _Source, own: tuple[int, int]) -> None:
    if source.shape is not None and source.shape != own:
        raise InputError.of(
            found=f"{source.path} of {own}", expected=f"{source.shape}, as the image", fix="check that they belong"
        )


def _from_geojson(source: _Source) -> Sketch:
    collection = geojson.read_geojson(source.path)
    events = geojson.events_from_geojson(
        collection, readers.Stamp.now(), shape=source.size, classes=dict(source.classes)
    )
    return Sketch(shape=source.size, events=events)


def _from_points(source: _Source) -> Sketch:
    return Sketch(shape=source.size, events=readers.events_from_points(source.path, readers.Stamp.now()))


def _from_boxes(source: _Source) -> Sketch:
    return Sketch(shape=source.size, events=readers.events_from_boxes(source.path, readers.Stamp.now()))


_READERS: dict[str, Callable[[_Source], Sketch]] = {
    "labels": lambda source: _from_labels(source, "background"),
    "objects": lambda source: _from_labels(source, "unknown"),
    "geojson": _from_geojson,
    "points": _from_points,
    "boxes": _from_boxes,
    "sketchpose": _from_sketchpose,
}


def export_sketch(path: str, out: str, *, image: str | None = None, overwrite: bool = False) -> str:
    """A sketch as GeoJSON (packed when `out` ends in .gz); returns a line about it."""
    require_local(out)
    refuse_existing(out, overwrite=overwrite)
    sketch = _open(path, image)
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
    """Partial annotation from a full label image; returns a line about it.

    Args:
        style: gp for a Gaussian-process mask of `percent`, else strokes on `n_objects` objects as a person draws them.
    """
    require_local(out)
    refuse_existing(out, overwrite=overwrite)
    if style not in ("gp", *STYLES):
        raise UnknownNameError.among("style", style, ("gp", *STYLES))
    labels = readers.read_label_image(truth)
    if style == "gp":
        sketch = simulate_mask(labels, percent, seed=seed)
    else:
        sketch = simulate_strokes(labels, n_objects=n_objects, seed=seed, style=cast(Any, style))
    return _write(sketch, out)


def show_sketch(
    path: str, *, image: str | None = None, out: str | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Counts of a sketch, and a picture of it over its image when `out` is given.

    Raises:
        OutputExistsError: the picture is there.
    """
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    sketch = _open(path, image)
    summary = asdict(sketch.summary())
    if out is not None:
        summary["picture"] = draw_sketch(sketch, image, out)
    return summary


def repair_sketch(path: str) -> str:
    """Move a torn last line, which a stopped writer left, out of the log; returns a line that says what was done.

    Raises:
        MissingDataError: no such sketch.
        OutputError: it cannot be written.
    """
    if not Path(path).is_file():
        raise MissingDataError(f"sketch {path} does not exist; expected: a .jsonl log; to fix: check the path")
    with writing_place(path):
        torn = repair_log(path)
    return f"{path}: whole, nothing to repair" if torn is None else f"{path}: the torn last line is in {torn} now"


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


def _write(sketch: Sketch, out: str) -> str:
    """A new log; one that is there is replaced when the new one is complete."""
    summary = sketch.summary()
    with replacing_file(out) as partial:
        append_events(partial, sketch.events)
    pixels = ", ".join(f"{n} {name}" for name, n in summary.pixels.items())
    return f"{out}: {len(sketch.events)} events, {summary.objects} objects, px: {pixels}"
