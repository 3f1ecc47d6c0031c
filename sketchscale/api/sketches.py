"""Sketches that are made, saved and opened in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from sketchscale.annotations import sketch
from sketchscale.annotations.events import Polygon, Stroke, append_events
from sketchscale.annotations.opening import open_sketch_file
from sketchscale.annotations.readers import Stamp, events_from_labels, outlines, stamped
from sketchscale.errors import InputError, OutputExistsError
from sketchscale.io.stores.output_files import require_local

__all__ = ["Sketch"]

Line = Sequence[tuple[float, float]]
"""Points (y, x), px."""


@dataclass(frozen=True, kw_only=True)
class Sketch(sketch.Sketch):
    """A person's annotation of an image of `shape` (y, x): `events`; everything else is unknown.

    >>> import numpy as np
    >>> labels = np.zeros((40, 60), int)
    >>> labels[10:20, 10:20] = 1
    >>> painted = Sketch.from_labels(labels)
    >>> background = {"background": [[(35, 5), (35, 50)]]}
    >>> drawn = Sketch.from_lines((40, 60), background, outlined=[[(9, 9), (9, 20), (20, 9)]])
    >>> painted.summary().objects, drawn.summary().pixels["background"] > 40
    (1, True)
    """

    @classmethod
    def from_labels(cls, labels: npt.ArrayLike, *, zero: Literal["background", "unknown"] = "unknown") -> Sketch:
        """Return a sketch of painted objects.

        Args:
            labels: (y, x), integers; k > 0 is object k, and negative values are unknown.
            zero: what 0 means. Where it is unknown, the outlines of the objects are drawn, as they are whole.

        Raises:
            InputError: another shape, or no integers.
        """
        ids = np.asarray(labels)
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise InputError.of(
                found=f"labels of type {ids.dtype} and shape {ids.shape}",
                expected="integers (y, x)",
                fix="convert them",
            )
        return cls(shape=(ids.shape[0], ids.shape[1]), events=events_from_labels(ids, Stamp.now(), zero=zero))

    @classmethod
    def from_lines(
        cls,
        shape: tuple[int, int],
        lines: Mapping[str, Sequence[Line]] | None = None,
        *,
        outlined: Sequence[Line] = (),
        radius_px: float = 1.5,
    ) -> Sketch:
        """Return a sketch of strokes, and of polygons around whole objects.

        Args:
            lines: strokes by class: background, foreground, boundary or unknown.
            outlined: for each object the polygon around it.
            radius_px: of the brush.

        Raises:
            InputError: no such class, or a point outside the image.
        """
        stamp = Stamp.now()
        objects = [
            Polygon(rings=(_points(ring),), label="foreground", object=number)
            for number, ring in enumerate(outlined, start=1)
        ]
        strokes = [
            Stroke(points=_points(line), radius_px=radius_px, label=label)
            for label, several in (lines or {}).items()
            for line in several
        ]
        drawn = cls(shape=shape, events=(*objects, *strokes)).events  # refuses what lies outside
        return cls(shape=shape, events=stamped((*drawn, *outlines(objects, shape, stamp)), stamp))

    @classmethod
    def open(cls, path: str | Path, *, shape: tuple[int, int] | None = None) -> Sketch:
        """Return a sketch from any file that `sketch import` reads.

        Args:
            shape: (y, x) of its image; not needed for a painted image, and for a stroke log as large as what is drawn
                when None.

        Raises:
            MissingDataError, InputError: see annotations.opening.
        """
        found = open_sketch_file(path, shape=shape).sketch
        return cls(shape=found.shape, events=found.events, image=found.image)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a stroke log, which training and every command that takes a sketch read.

        Raises:
            OutputExistsError: the file is there.
            OutputError: it cannot be written.
        """
        require_local(str(path))
        if Path(path).exists() and not overwrite:
            raise OutputExistsError(f"{path} exists; to fix: another name, or overwrite=True")
        Path(path).unlink(missing_ok=True)
        append_events(path, self.events)


def _points(line: Line) -> tuple[tuple[float, float], ...]:
    return tuple((float(y), float(x)) for y, x in line)
