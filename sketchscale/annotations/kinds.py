"""Recognise the kind of annotation in a file, by its contents and not by its name.

    strokes      a stroke log: its first line is a JSON object with an "event"
    geojson      a FeatureCollection, a Feature, or a list of them; packed or not
    objects      a label image (TIFF, PNG, NPY) with some of the objects; 0 is unknown
    labels       a label image with all objects; 0 is background
    sketchpose   <stem>_labels.png with <stem>_boundaries.png or <stem>_bbox.csv next to it
    points       CSV with columns y, x, class
    boxes        CSV with columns y0, x0, y1, x1, or napari's table of shapes

A label image alone cannot show whether all objects are painted, so it counts as `objects`: pixels of value 0 are
background only where the user declares it.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from sketchscale.errors import InputError, MissingDataError

__all__ = ["FAMILIES", "KINDS", "companions", "holds_strokes", "kind_of", "unknown_kind", "unlike"]

KINDS: Mapping[str, str] = {
    "strokes": "a stroke log",
    "geojson": "GeoJSON",
    "objects": "a label image of some objects",
    "labels": "a label image of every object",
    "sketchpose": "Sketchpose's label image",
    "points": "a table of points",
    "boxes": "a table of boxes",
}
"""Description of each kind."""

FAMILIES: Mapping[str, str] = {"labels": "objects", "sketchpose": "objects", "boxes": "points"}
"""Kinds that the same file can be read as: the kind that represents the others."""

_HEAD_BYTES = 65536
_EVENT = re.compile(rb'\s*\{\s*"event"\s*:')
_FEATURE = re.compile(rb'"type"\s*:\s*"Feature(Collection)?"')
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x93NUMPY")
_SUFFIXES = {
    ".jsonl": "strokes",
    ".geojson": "geojson",
    ".json": "geojson",
    ".gz": "geojson",
    ".tif": "objects",
    ".tiff": "objects",
    ".png": "objects",
    ".npy": "objects",
}
"""Kinds by the file's name, for error messages about damaged contents."""


def kind_of(path: Path) -> str:
    """Return the kind of annotation in a file; empty when it is unknown.

    Raises:
        MissingDataError: the file cannot be read.
    """
    head = _head(path)
    return next((kind for kind, holds in _SIGNS.items() if holds(path, head)), _SUFFIXES.get(path.suffix.lower(), ""))


def holds_strokes(path: Path) -> bool:
    """Whether a file is a stroke log by its first line, whole or torn; never by its name only."""
    return _holds_strokes(path, _head(path))


def unlike(path: Path, expected: str) -> InputError:
    """Return the error for a file of another kind than `expected`, a key of KINDS; names the recognised kind."""
    kind = kind_of(path)
    if kind in ("", expected):
        return InputError.of(found=f"{path} is something else", expected=KINDS[expected], fix="check the path")
    return InputError.of(
        found=f"{path} seems to be {KINDS[kind]}",
        expected=KINDS[expected],
        fix="`sketch import` and `train --sketch` read it as it is, without --kind and without repair",
    )


def unknown_kind(path: Path) -> InputError:
    """Return the error for a file of unknown kind."""
    return InputError.of(
        found=f"{path} is no kind of sketch that is known{_described(path)}",
        expected="a stroke log (.jsonl), GeoJSON, a label image (TIFF, PNG, NPY), or CSV with the columns y, x, class "
        "or y0, x0, y1, x1",
        fix="export the annotation as one of these",
    )


def companions(path: Path) -> tuple[Path, ...]:
    """Return the existing files that are read together with a Sketchpose label image; none for other files."""
    if not path.name.endswith("_labels.png"):
        return ()
    stem = path.name.removesuffix("_labels.png")
    names = (f"{stem}_boundaries.png", f"{stem}_bbox.csv")
    return tuple(found for name in names if (found := path.with_name(name)).is_file())


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        expected = "a file with an annotation"
        raise MissingDataError(
            f"sketch {path} cannot be read: {error.strerror}; expected: {expected}; to fix: check the path"
        ) from error


def _holds_strokes(path: Path, head: bytes) -> bool:
    first, newline, _ = head.lstrip().partition(b"\n")
    if _EVENT.match(first):
        return True
    if not newline:
        return path.suffix.lower() == ".jsonl" and first != b"" and b'{"event":'.startswith(first)
    try:
        record = json.loads(first)
    except ValueError:
        return False
    return isinstance(record, dict) and "event" in record


def _holds_geojson(path: Path, head: bytes) -> bool:
    if head.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(path) as file:
                head = file.read(_HEAD_BYTES)
        except (OSError, EOFError):
            return False
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") and _FEATURE.search(head) is not None


def _columns(head: bytes) -> set[str]:
    first = head.decode("utf-8-sig", "replace").partition("\n")[0]
    return {column.strip().strip('"') for column in first.split(",")}


_BOX_COLUMNS = ({"y0", "x0", "y1", "x1"}, {"index", "shape-type", "axis-0", "axis-1"})
_POINT_COLUMNS = ({"y", "x", "class"}, {"axis-0", "axis-1", "class"})
_SIGNS: Mapping[str, Callable[[Path, bytes], bool]] = {
    "strokes": _holds_strokes,
    "geojson": _holds_geojson,
    "sketchpose": lambda path, head: head.startswith(_PICTURES) and bool(companions(path)),
    "objects": lambda path, head: head.startswith(_PICTURES),
    "boxes": lambda path, head: any(needed <= _columns(head) for needed in _BOX_COLUMNS),
    "points": lambda path, head: any(needed <= _columns(head) for needed in _POINT_COLUMNS),
}


def _described(path: Path) -> str:
    """Describe a file that was not recognised, for an error message."""
    head = _head(path)
    if not head:
        return " (it is empty)"
    if head.startswith(b"\xff\xd8"):
        return " (a JPEG picture, which does not keep ids)"
    if path.suffix.lower() == ".csv":
        return f" (columns {', '.join(sorted(_columns(head)))})"[:200]
    return ""
