"""Count objects from their tables: by class, by image, by well of a plate.

A well or an image where a class was not found has a row with 0; so has a well that its plate names and that holds no
image. Rows come in the order of the images, wells by row and column, classes by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sketchscale.errors import InputError
from sketchscale.io.ome_zarr.groups import read_attributes
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.metadata import ome_attributes, parse_plate
from sketchscale.io.ome_zarr.plate import open_plate, well_name
from sketchscale.io.ome_zarr.table import read_batches, require_table
from sketchscale.io.stores.addresses import split_address
from sketchscale.reports.plate import UNCLASSIFIED, CountRow, sum_counts
from sketchscale.workflow.csv_file import put_csv
from sketchscale.workflow.images import expand, matches

__all__ = [
    "BY",
    "count",
    "counts_by",
    "counts_text",
    "empty_wells",
    "missing_wells",
    "parse_by",
    "save_counts",
    "tally",
    "well_of",
]

BY = ("image", "well", "class")
"""Names that rows can be split by."""


def parse_by(words: Iterable[str]) -> tuple[str, ...]:
    """Return the names given by `--by`, repeated or separated by commas; none of them for `none`.

    Raises:
        InputError: another word, or `none` together with one.

    >>> parse_by(["class,well"]), parse_by(["none"])
    (('well', 'class'), ())
    """
    found = {word.strip() for text in words for word in text.split(",")} - {""}
    if not found <= {*BY, "none"} or ("none" in found and len(found) > 1):
        raise InputError.of(
            found=f"--by {','.join(sorted(found))}", expected="class, well and image, or none", fix="choose of these"
        )
    return tuple(name for name in BY if name in found)


def count(
    images: str | Sequence[str], labels: str = "nuclei", by: Sequence[str] = ("image", "class")
) -> list[dict[str, Any]]:
    """Count objects of images or plates, from the tables that `measure` and `classify` wrote.

    Args:
        images: addresses, plates or patterns.
        by: see `counts_by`.

    Returns:
        Records with the names that they are split by, `labels` and `n`; class None before `classify`.

    Raises:
        MissingDataError: an image was not measured.
    """
    given = [images] if isinstance(images, str) else list(images)
    tallies = [tally(address, labels) for address in expand(given)]
    return counts_by(tallies, labels, by, missing=missing_wells(given) if "well" in by else ())


def tally(address: str, labels: str = "nuclei") -> CountRow:
    """Count the objects of one image; its table is read a row group at a time.

    Raises:
        MissingDataError: nothing was measured yet.
    """
    image = open_image(address)
    require_table(image.address, labels)
    plate, well = well_of(image.address)
    n, numbers = 0, Counter[str]()
    for batch in read_batches(image.address, labels, columns=["label", "class"]):
        n += batch.num_rows
        if "class" in batch.schema.names:
            numbers.update(name or UNCLASSIFIED for name in batch.column("class").to_pylist())
    return CountRow(image=image.address, plate=plate, well=well, n=n, by_class=dict(sorted(numbers.items())))


def well_of(address: str) -> tuple[str, str]:
    """Return (plate, well) of a field, from the path and the plate's own list of wells; empty for other images."""
    plate = address.rsplit("/", 3)[0]
    if plate == address or not _is_plate(plate):
        return "", ""
    path = address.removeprefix(f"{plate}/").rpartition("/")[0]
    wells = parse_plate(read_attributes(*split_address(plate)) or {}, plate).wells
    return next(((plate, well_name(w.row, w.column)) for w in wells if w.path == path), ("", ""))


def missing_wells(addresses: Sequence[str]) -> list[tuple[str, str]]:
    """Return (plate, well) of wells that the plates among these addresses name and that hold no image."""
    given = [one.rstrip("/") for address in addresses for one in matches(address)]
    return [(one, well) for one in given if _is_plate(one) for well in open_plate(one).missing]


def _is_plate(address: str) -> bool:
    attributes = read_attributes(*split_address(address))
    return attributes is not None and "plate" in ome_attributes(attributes, address)


def counts_by(
    tallies: Sequence[CountRow], labels: str, by: Sequence[str], *, missing: Sequence[tuple[str, str]] = ()
) -> list[dict[str, Any]]:
    """Return sums over images.

    Args:
        by: some of BY; none of them gives one sum over all.
        missing: (plate, well) that have a row with 0 when counting by well.

    >>> one = CountRow(image="a", n=2, by_class={"round": 2}), CountRow(image="b", n=1, by_class={"long": 1})
    >>> counts_by(one, "cells", ["class"])
    [{'labels': 'cells', 'class': 'long', 'n': 1}, {'labels': 'cells', 'class': 'round', 'n': 2}]
    >>> [row["n"] for row in counts_by(one, "cells", ["image", "class"])]
    [0, 2, 1, 0]
    """
    place = (*(("plate", "well") if "well" in by else ()), *(("image",) if "image" in by else ()))
    names = sorted({name for one in tallies for name in one.by_class})
    rows: list[dict[str, Any]] = []
    for row in sum_counts([*tallies, *(empty_wells(missing) if "well" in by else ())], place):
        split = {name: getattr(row, name) for name in place} | {"labels": labels}
        if "class" not in by:
            rows.append({**split, "n": row.n})
            continue
        rows += [{**split, "class": name, "n": row.by_class.get(name, 0)} for name in names]
        rest = row.n - sum(row.by_class.values())
        if rest or not names:  # of tables without classes
            rows.append({**split, "class": None, "n": rest})
    return rows


def empty_wells(wells: Iterable[tuple[str, str]]) -> list[CountRow]:
    """Return rows for (plate, well) in which no image was counted."""
    return [CountRow(n=0, fields=0, plate=plate, well=well) for plate, well in wells]


def counts_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return records as lines with tabs: place, class ("all" where there is none), number."""
    return "\n".join(
        "\t".join(str("all" if value is None else value) for name, value in row.items() if name != "labels")
        for row in rows
    )


def save_counts(rows: Sequence[Mapping[str, Any]], out: str) -> str:
    """Write records as a CSV file; return its path.

    Raises:
        OutputError: it cannot be written.
    """
    return put_csv(out, list(rows[0]) if rows else ["n"], (row.values() for row in rows))
