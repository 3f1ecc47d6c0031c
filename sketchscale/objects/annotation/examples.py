"""Assign marks to their images and resolve them to objects.

    file ──read_marks──▶ marks ──assign_marks──▶ marks of each image ──resolve_marks──▶ {label: class}

A point marks the object under it. An outline marks the object with the most pixel centres inside it (on ties the
smaller id); background inside does not count. Every mark must hit an object.

Rows are read in order. A mark `undo` cancels earlier marks on its object. Two classes for one object are refused, or
the last one counts, as requested. Objects marked `unsure` are no examples.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.events import Polygon
from sketchscale.annotations.painting import polygon_masks
from sketchscale.errors import InputError, SketchscaleError
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.groups import read_attributes
from sketchscale.io.ome_zarr.label_sources import LabelSource, read_labels, source_shape
from sketchscale.io.ome_zarr.plate import well_name
from sketchscale.io.stores.addresses import absolute_address, split_address
from sketchscale.objects.annotation.mark_files import UNDO, UNSURE, Mark, class_colors, read_marks

__all__ = [
    "AssignedMarks",
    "Mark",
    "OnConflict",
    "assign_marks",
    "class_colors",
    "hit_labels",
    "read_marks",
    "resolve_marks",
    "settled",
]

OnConflict = Literal["refuse", "last"]

_CELL = 512
"""Points in one square of this size (px) are looked up with one read."""

_ENDINGS = re.compile(r"(\.ome)?\.(zarr|zip|tiff?|png|jpe?g|npy)$|\.zarr\.zip$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignedMarks:
    """Marks by image address. `ignored`: number of rows about images that exist but were not requested, by name."""

    of: Mapping[str, tuple[Mark, ...]]
    ignored: Mapping[str, int]


def assign_marks(marks: Iterable[Mark], addresses: Sequence[str]) -> AssignedMarks:
    """Assign every mark to its image.

    Args:
        addresses: of the images; with a single image, marks need not name it.

    Raises:
        InputError: a mark names no image although there are several, or its name matches several images or none.

    >>> assigned = assign_marks([Mark(name="a", label=1, image="B03"), Mark(name="b", label=1, image="B/4/0")],
    ...                    ["p.zarr/B/3/0", "p.zarr/B/4/0"])
    >>> [len(marks) for marks in assigned.of.values()]
    [1, 1]
    """
    of: dict[str, list[Mark]] = {address: [] for address in addresses}
    ignored: Counter[str] = Counter()
    owners: dict[str, str | None] = {}
    for mark in marks:
        if mark.image not in owners:
            owners[mark.image] = _owner(mark, addresses)
        owner = owners[mark.image]
        if owner is None:
            ignored[mark.image] += 1
        else:
            of[owner].append(mark)
    return AssignedMarks(of={address: tuple(mine) for address, mine in of.items()}, ignored=ignored)


def _owner(mark: Mark, addresses: Sequence[str]) -> str | None:
    """Return the address that a mark names; None for another image that exists."""
    if not mark.image and len(addresses) == 1:
        return addresses[0]
    named = _split(mark.image)
    wanted = _split(absolute_address(mark.image)) if named[0] in (".", "..") else named
    fitting = [
        address
        for address in addresses
        if mark.image and any(parts[-len(wanted) :] == wanted for parts in _spellings(absolute_address(address)))
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting or not mark.image:
        raise InputError.of(
            found=f"{mark.where}: image {mark.image!r} may mean any of {len(fitting) or len(addresses)} images",
            expected="a column image that names one",
            fix="write its address, or row, column and field as in B/3/0",
        )
    if not _exists(mark.image, addresses):
        raise InputError.of(
            found=f"{mark.where}: unknown image {mark.image!r}",
            expected=f"one of {', '.join(addresses[:3])}{' ...' if len(addresses) > 3 else ''}",
            fix="correct the column image",
        )
    return None


def _split(name: str) -> tuple[str, ...]:
    return tuple(name.replace("\\", "/").rstrip("/").split("/"))


def _spellings(address: str) -> list[tuple[str, ...]]:
    """Return names of an image, as parts of a path: its address, with another ending or none, and its well."""
    parts = _split(address)
    found = [parts, (*parts[:-1], _ENDINGS.sub("", parts[-1]))]
    found += [(*parts[:-1], f"{found[1][-1]}{ending}") for ending in (".tif", ".tiff", ".ome.tif", ".png")]
    if len(parts) >= 3 and parts[-2].isdigit() and parts[-1].isdigit() and parts[-3].isalpha():
        plate, well = parts[:-3], well_name(parts[-3], parts[-2])
        found += [parts[:-1], (*plate, well), (*plate, well, parts[-1])]
    return found


def _exists(name: str, addresses: Sequence[str]) -> bool:
    """Whether an image of that name exists: at its own address or next to one of the given addresses."""
    parts = _split(name)
    wells = re.fullmatch(r"([A-Za-z]+)(\d+)", parts[0])
    spelled = [name, *([f"{wells[1]}/{int(wells[2])}"] if wells else [])]
    roots = {address.rsplit("/", n)[0] for address in addresses for n in (1, 3) if address.count("/") >= n}
    for place in (name, *(f"{root}/{one}" for root in sorted(roots) for one in spelled)):
        with contextlib.suppress(SketchscaleError):
            if read_attributes(*split_address(place)) is not None:
                return True
    return False


def resolve_marks(
    marks: Iterable[Mark],
    labels: LabelSource,
    known: npt.NDArray[np.integer],
    *,
    spacing: Sequence[float] | None = None,
    on_conflict: OnConflict = "refuse",
    least: int = 2,
) -> dict[int, str]:
    """Return the class of each annotated object of one image, by label in ascending order.

    Args:
        labels: for looking up points and outlines; a point belongs to the pixel with the nearest centre.
        known: labels of all objects, such as the column of the feature table.
        spacing: um per pixel in array order, for marks in um; None if unknown.
        on_conflict: what to do with two classes for one object.
        least: required number of classes; 0 for one of several images that are trained on together.

    Raises:
        InputError: a mark hits no object or lies outside the image, an object has two classes, or there are too few
            classes.
    """
    listed = list(marks)
    found = settled(listed, hit_labels(listed, labels, spacing), known, on_conflict)
    examples = {label: name for label, name in found.items() if name != UNSURE}
    names = set(examples.values())
    if len(names) < least:
        raise InputError.of(
            found=f"{len(examples)} annotated objects of {len(names)} class{'es' if len(names) > 1 else ''}",
            expected=f"at least {'two' if least == 2 else least} classes",
            fix="annotate some objects of another class",
        )
    return examples


def settled(
    marks: Sequence[Mark], hits: Sequence[int], known: npt.NDArray[np.integer], on_conflict: OnConflict = "refuse"
) -> dict[int, str]:
    """Return the class of each object after all marks, by label in ascending order; UNSURE is kept.

    Args:
        hits: label of each mark, see `hit_labels`.

    Raises:
        InputError: a label is unknown, or an object has two classes.

    >>> marks = [Mark(name="a", label=3), Mark(name="undo", label=3), Mark(name="b", label=3)]
    >>> settled(marks, [3, 3, 3], np.array([3]))
    {3: 'b'}
    """
    present = set(np.asarray(known).tolist())
    found: dict[int, str] = {}
    for mark, label in zip(marks, hits, strict=True):
        if label not in present:
            place = f"at point {mark.point}" if mark.point is not None else "inside the outline"
            place = place if mark.label is None else f"at label {mark.label}"
            raise InputError.of(
                found=f"{mark.where}: no object {place}", expected="an object", fix="remove or move the mark"
            )
        if mark.name == UNDO:
            found.pop(label, None)
        elif on_conflict == "refuse" and found.get(label, mark.name) != mark.name:
            raise InputError.of(
                found=f"{mark.where}: object {label} is {mark.name!r} and {found[label]!r}",
                expected="one class per object",
                fix="remove one of the marks, put an undo between them, or use --on-conflict last",
            )
        else:
            found[label] = mark.name
    return dict(sorted(found.items()))


def hit_labels(marks: Sequence[Mark], labels: LabelSource, spacing: Sequence[float] | None = None) -> list[int]:
    """Return the label that each mark hits; 0 for a point on background or an outline that contains only background.

    Raises:
        InputError: a point lies outside the image, has another number of axes, or is in um and the spacing is unknown.
    """
    shape = source_shape(labels)
    found = [mark.label or 0 for mark in marks]
    cells: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    for i, mark in enumerate(marks):
        if mark.point is not None and mark.label is None:
            at = _pixel(mark, shape, spacing)
            cells[(*at[:-2], at[-2] // _CELL, at[-1] // _CELL)].append((i, at))
        elif mark.rings:
            found[i] = _most_inside(mark, labels, shape)
    for points in cells.values():
        places = np.array([at for _, at in points])
        box = Box(tuple(places.min(axis=0).tolist()), tuple((places.max(axis=0) + 1).tolist()))
        inside = read_labels(labels, box)
        for i, at in points:
            found[i] = int(inside[tuple(a - b for a, b in zip(at, box.start, strict=True))])
    return found


def _pixel(mark: Mark, shape: tuple[int, ...], spacing: Sequence[float] | None) -> tuple[int, ...]:
    """Return the index of the pixel of a mark's point."""
    point = mark.point or ()
    if len(point) != len(shape):
        raise InputError.of(
            found=f"{mark.where}: a point with {len(point)} coordinates",
            expected=f"{', '.join('zyx'[-len(shape) :])}",
            fix="correct the columns",
        )
    if mark.unit == "um" and spacing is None:
        raise InputError.of(
            found=f"{mark.where}: a point in um on an image whose pixel size is unknown",
            expected="y,x in pixels",
            fix="convert the image with --spacing, or give pixels",
        )
    steps = spacing if mark.unit == "um" and spacing is not None else (1.0,) * len(shape)
    at = tuple(math.floor(v / s + 0.5) if math.isfinite(v) else -1 for v, s in zip(point, steps, strict=True))
    if not all(0 <= a < n for a, n in zip(at, shape, strict=True)):
        limits = ", ".join(
            f"{name} below {n * s:g}" for name, n, s in zip("zyx"[-len(shape) :], shape, steps, strict=True)
        )
        raise InputError.of(
            found=f"{mark.where}: point {point} outside the image",
            expected=f"{limits}, in {'um' if mark.unit == 'um' else 'pixels'}",
            fix="remove the mark, or use the coordinates of level 0",
        )
    return at


def _most_inside(mark: Mark, labels: LabelSource, shape: tuple[int, ...]) -> int:
    """Return the label with the most pixels inside an outline; 0 if there is none."""
    if len(shape) != 2:
        raise InputError.of(
            found=f"{mark.where}: an outline on labels of shape {shape}", expected="a plane", fix="use points z,y,x"
        )
    numbers: Counter[int] = Counter()
    for box, mask in polygon_masks(Polygon(rings=mark.rings, label="foreground"), (shape[0], shape[1])):
        if box.size and mask.any():
            ids, times = np.unique(read_labels(labels, box)[mask], return_counts=True)
            numbers.update(dict(zip(ids.tolist(), times.tolist(), strict=True)))
    del numbers[0]
    return min(numbers, key=lambda label: (-numbers[label], label), default=0)
