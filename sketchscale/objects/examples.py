"""Objects with a class given by a person: read from a file, resolved to object ids.

Two kinds of CSV file, told apart by their header; other columns are left alone:

    label,class          y,x,class
    17,mitotic           204.5,1033,mitotic        pixel indices of level 0, centres at integers
    23,resting           12,87,resting

A point means the object under it. Every mark must hit an object, and no object may have two classes.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError, MissingDataError
from sketchscale.geometry import Box
from sketchscale.objects.sources import LabelSource, label_shape, read_labels

__all__ = ["Mark", "read_marks", "resolve_marks"]

_CELL = 512
"""Points in one square of this size are looked up with one read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One annotation: the class of an object named by its label, or by a point (y, x) on it.

    Attributes:
        where: for messages, such as "cells.csv, line 7".
    """

    name: str
    label: int | None = None
    point: tuple[float, float] | None = None
    where: str = "annotation"


def read_marks(path: str | Path) -> tuple[Mark, ...]:
    """Read a CSV file of annotated objects.

    Raises:
        MissingDataError: there is no such file.
        InputError: not such a table; names the line.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
            return tuple(_mark(path, reader.line_num, row, columns) for row in reader)
    except OSError as error:
        raise MissingDataError(f"{path}: {error.strerror}; expected: a CSV file of annotated objects") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError.of(found=f"{path}: {error}", expected="a CSV file in UTF-8", fix="export it again") from error


def _mark(path: str | Path, line: int, row: Mapping[str, str], columns: Mapping[str, str]) -> Mark:
    where = f"{path}, line {line}"
    if not ({"label", "class"} <= set(columns) or {"y", "x", "class"} <= set(columns)):
        raise InputError.of(
            found=f"{path}: columns {', '.join(columns) or 'none'}",
            expected="label,class or y,x,class",
            fix="name the columns in the first line",
        )
    name = (row[columns["class"]] or "").strip()
    if not name:
        raise InputError.of(found=f"{where}: no class", expected="a name", fix="fill it in or remove the line")
    try:
        if "label" in columns:
            return Mark(name=name, label=int(row[columns["label"]]), where=where)
        y, x = float(row[columns["y"]]), float(row[columns["x"]])
    except (TypeError, ValueError) as error:
        raise InputError.of(found=f"{where}: {error}", expected="numbers", fix="correct the line") from error
    return Mark(name=name, point=(y, x), where=where)


def resolve_marks(marks: Iterable[Mark], labels: LabelSource, known: npt.NDArray[np.integer]) -> dict[int, str]:
    """The class of each annotated object, by label, ascending.

    Args:
        labels: where points are looked up; a point belongs to the pixel whose centre is nearest.
        known: labels of all objects, such as the column of the feature table.

    Raises:
        InputError: a mark that hits no object or lies outside the image, an object with two classes, fewer than two
            classes.
    """
    listed = list(marks)
    hits = _looked_up(listed, labels)
    present = set(np.asarray(known).tolist())
    found: dict[int, str] = {}
    for mark, label in zip(listed, hits, strict=True):
        if label not in present:
            place = f"label {label}" if mark.point is None else f"point {mark.point}"
            raise InputError.of(
                found=f"{mark.where}: no object at {place}", expected="an object", fix="remove or move the mark"
            )
        if found.setdefault(label, mark.name) != mark.name:
            raise InputError.of(
                found=f"{mark.where}: object {label} is {mark.name!r} and {found[label]!r}",
                expected="one class an object",
                fix="remove one of the marks",
            )
    if len(set(found.values())) < 2:
        raise InputError.of(
            found=f"{len(found)} annotated objects of {len(set(found.values()))} class",
            expected="at least two classes",
            fix="annotate some objects of another class",
        )
    return dict(sorted(found.items()))


def _looked_up(marks: Sequence[Mark], labels: LabelSource) -> list[int]:
    """The label of each mark; 0 where a point is on background."""
    found = [mark.label or 0 for mark in marks]
    height, width = label_shape(labels)
    cells: dict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
    for i, mark in enumerate(marks):
        if mark.point is not None:
            y, x = (math.floor(v + 0.5) if math.isfinite(v) else -1 for v in mark.point)
            if not (0 <= y < height and 0 <= x < width):
                raise InputError.of(
                    found=f"{mark.where}: point {mark.point} outside the image",
                    expected=f"y below {height}, x below {width}, in pixels",
                    fix="remove the mark, or use the coordinates of level 0",
                )
            cells[y // _CELL, x // _CELL].append((i, y, x))
    for points in cells.values():
        ys, xs = [y for _, y, _ in points], [x for _, _, x in points]
        box = Box((min(ys), min(xs)), (max(ys) + 1, max(xs) + 1))
        inside = read_labels(labels, box)
        for i, y, x in points:
            found[i] = int(inside[y - box.start[0], x - box.start[1]])
    return found
