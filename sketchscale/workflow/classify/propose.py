"""Propose objects to annotate or to review, as a CSV file and as a page.

    image,label,y,x,class,reason,rank,drawn_from
    plate.zarr/B/3/0,117,204.50,1033.00,,random,1,16071

A person fills in `class`. `drawn_from` is the number of objects from which the proposals were chosen: all that are not
annotated. Tables are read a row group at a time, with the needed columns only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow

from sketchscale.errors import InputError
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.table import read_batches, require_table
from sketchscale.objects.annotation.propose import Candidates, candidates_of, choose, feature_names, keep, pool_size
from sketchscale.options import ProposeOptions
from sketchscale.workflow.csv_file import put_csv

__all__ = ["COLUMNS", "Proposal", "ProposeResult", "columns_of", "image_names", "propose", "rows_of", "save_proposals"]

COLUMNS = ("image", "label", "y", "x", "class", "reason", "rank", "drawn_from")
"""Columns of the CSV file; volumes have `z` before `y`."""

_REASONS = {"both": "uncertainty and diversity"}
_NEEDED = ("label", "z", "y", "x", "area", "volume", "in_training", "class_prob")
_SHOWN = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An object to look at.

    Attributes:
        rank: 1 is first.
        address: of its image. image: the image's name in the file.
        center: centroid in pixels, (y, x) or (z, y, x).
        reason: why it was chosen.
    """

    rank: int
    address: str
    image: str
    label: int
    center: tuple[float, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeResult:
    """The proposals, and from how many objects they were chosen; `annotated` ones were left out."""

    proposals: tuple[Proposal, ...]
    drawn_from: int
    annotated: int


def propose(images: Sequence[str], labels: str = "nuclei", options: ProposeOptions | None = None) -> ProposeResult:
    """Choose objects of measured images for a person to look at.

    Args:
        images: addresses of single images.

    Raises:
        MissingDataError: an image was not measured.
        InputError: uncertainty of objects that were not classified, or nothing left to propose.
    """
    options = options or ProposeOptions()
    for address in images:
        require_table(open_image(address).address, labels)
    names = image_names(images)
    features = _features(images, labels) if options.by in ("diversity", "both") else ()
    pool, shown, total, annotated = _pooled(images, labels, names, features, options)
    chosen = choose(pool, options.n, options.by, shown.features if len(shown) else None)
    if not len(chosen):
        raise InputError.of(
            found=f"no object to propose, {annotated} annotated ones",
            expected="an object that is not annotated",
            fix="choose other images or labels",
        )
    reason = _REASONS.get(options.by, options.by)
    proposals = tuple(
        Proposal(
            rank=i + 1,
            address=images[int(chosen.image[i])],
            image=names[int(chosen.image[i])],
            label=int(chosen.label[i]),
            center=tuple(chosen.center[i].tolist()),
            reason=reason,
        )
        for i in range(len(chosen))
    )
    return ProposeResult(proposals=proposals, drawn_from=total, annotated=annotated)


def image_names(addresses: Sequence[str]) -> list[str]:
    """Return a short name for each image that is the same on every machine: from the last folder with an extension.

    Images that would share a name keep their whole address.

    >>> image_names(["/data/a/plate.zarr/B/3/0", "s3://bucket/image.ome.zarr"])
    ['plate.zarr/B/3/0', 'image.ome.zarr']
    """
    short = []
    for address in addresses:
        parts = address.rstrip("/").split("/")
        first = max((i for i, part in enumerate(parts) if "." in part.strip(".")), default=len(parts) - 1)
        short.append("/".join(parts[first:]))
    return [name if short.count(name) == 1 else address for name, address in zip(short, addresses, strict=True)]


def _features(images: Sequence[str], labels: str) -> tuple[str, ...]:
    """Return the feature columns that all tables have."""
    known: list[tuple[str, ...]] = []
    for address in images:
        schema = next(read_batches(address, labels)).schema
        known.append(feature_names(dict(zip(schema.names, schema.types, strict=True))))
    common = tuple(name for name in known[0] if all(name in others for others in known))
    if not common:
        raise InputError("tables without a common feature; expected: the columns of `measure`; to fix: measure again")
    return common


def _pooled(
    images: Sequence[str], labels: str, names: Sequence[str], features: tuple[str, ...], options: ProposeOptions
) -> tuple[Candidates, Candidates, int, int]:
    """Return the best candidates, the annotated ones to keep away from, and how many there are of both."""
    most = pool_size(options.by, options.n)
    pool = shown = Candidates(
        image=np.zeros(0, np.int64),
        label=np.zeros(0, np.int64),
        center=np.zeros((0, 2)),
        key=np.zeros(0, np.uint64),
        rank=np.zeros(0),
        features=np.zeros((0, len(features))),
    )
    total = annotated = 0
    for number, address in enumerate(images):
        for table in _batches(address, labels, features):
            more: dict[str, Any] = {"number": number, "image": names[number], "seed": options.seed}
            more["features"] = features
            new = candidates_of(table, by=options.by, **more)
            known = candidates_of(table, by="random", annotated=True, **more)
            total, annotated = total + len(new), annotated + len(known)
            pool = keep([one for one in (pool, new) if len(one)] or [pool], most)
            shown = keep([one for one in (shown, known) if len(one)] or [shown], _SHOWN)
    return pool, shown, total, annotated


def _batches(address: str, labels: str, features: tuple[str, ...]) -> Iterator[pyarrow.Table]:
    """Yield the rows of a table, with the columns that are needed."""
    for batch in read_batches(address, labels):
        names = batch.schema.names
        wanted = [n for n in names if n in _NEEDED or n in features or n.startswith("prob_")]
        yield pyarrow.Table.from_batches([batch]).select(wanted)


def columns_of(result: ProposeResult) -> tuple[str, ...]:
    """Return the columns of the CSV file; volumes have `z`."""
    is_deep = len(result.proposals[0].center) == 3
    return (*COLUMNS[:2], "z", *COLUMNS[2:]) if is_deep else COLUMNS


def rows_of(result: ProposeResult) -> list[tuple[str, ...]]:
    """Return the values of the CSV file, as text; `class` is empty."""
    return [
        (p.image, str(p.label), *(f"{v:.2f}" for v in p.center), "", p.reason, str(p.rank), str(result.drawn_from))
        for p in result.proposals
    ]


def save_proposals(result: ProposeResult, out: str) -> str:
    """Write the CSV file; return its path.

    Raises:
        OutputError: it cannot be written.
    """
    return put_csv(out, columns_of(result), rows_of(result))
