"""Open plates with their wells and fields, and find the images behind any address.

    plate.zarr            rows, columns, wells
    └── B/3               well "B03": its fields
        ├── 0             an image
        └── 1             an image

A well that the plate lists but that does not exist is reported as missing, never silently skipped: a table of results
has a row for every planned well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sketchscale.errors import InputError, MissingDataError
from sketchscale.io.ome_zarr.groups import read_attributes
from sketchscale.io.ome_zarr.image import series_of
from sketchscale.io.ome_zarr.metadata import PlateMetadata, WellPlace, ome_attributes, parse_plate, parse_well
from sketchscale.io.stores.addresses import join_address, split_address

__all__ = ["Field", "Plate", "image_addresses", "open_plate", "well_name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One image of a plate.

    Attributes:
        address: for `open_image`.
        well: name such as "B03".
        row, column: names as in the plate.
        path: of the field in its well, such as "0".
        acquisition: number of the acquisition, 0 if unknown.
    """

    address: str
    well: str
    row: str
    column: str
    path: str
    acquisition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plate:
    """A plate with all its fields, in the order of the file; `missing` lists wells that are absent or empty."""

    address: str
    metadata: PlateMetadata
    fields: tuple[Field, ...]
    missing: tuple[str, ...]


def well_name(row: str, column: str) -> str:
    """Return the usual name of a well, with numbers padded to two digits.

    >>> well_name("B", "3")
    'B03'
    """
    return f"{row}{column.zfill(2)}" if column.isdigit() else f"{row}{column}"


def open_plate(address: str | Path) -> Plate:
    """Read the metadata of a plate and of its wells; no image is opened.

    Raises:
        MissingDataError: it does not exist.
        InputError: not a plate, or a path that leaves it.
    """
    store, group = split_address(address)
    attributes = read_attributes(store, group)
    if attributes is None:
        raise MissingDataError(f"{address} does not exist; expected: an OME-Zarr plate; to fix: check the path")
    metadata = parse_plate(attributes, str(address))
    fields: list[Field] = []
    missing: list[str] = []
    for place in metadata.wells:
        found = _fields(store, group, place)
        fields += found
        if not found:
            missing.append(well_name(place.row, place.column))
    return Plate(address=str(address), metadata=metadata, fields=tuple(fields), missing=tuple(missing))


def _fields(store: str, group: str, place: WellPlace) -> list[Field]:
    path = f"{group}/{place.path}" if group else place.path
    attributes = read_attributes(store, path)
    if attributes is None:
        return []
    well = parse_well(attributes, join_address(store, path))
    return [
        Field(
            address=join_address(store, f"{path}/{field}"),
            well=well_name(place.row, place.column),
            row=place.row,
            column=place.column,
            path=field,
            acquisition=acquisition,
        )
        for field, acquisition in zip(well.fields, well.acquisitions, strict=True)
    ]


def image_addresses(address: str | Path) -> tuple[str, ...]:
    """Return the addresses of all images behind an address: itself, the fields of a plate, the series of a collection.

    Raises:
        MissingDataError: it does not exist.
        InputError: none of these.
    """
    store, group = split_address(address)
    attributes = read_attributes(store, group)
    if attributes is None:
        raise MissingDataError(f"{address} does not exist; expected: an OME-Zarr image; to fix: check the path")
    ome = ome_attributes(attributes, str(address))
    if "multiscales" in ome:
        return (str(address),)
    if "plate" in ome:
        return tuple(field.address for field in open_plate(address).fields)
    if "bioformats2raw.layout" in ome:
        return tuple(join_address(address, path) for path in series_of(store, group))
    raise InputError.of(
        found=f"{address}: a Zarr group without images", expected="an OME-Zarr image or plate", fix="check the path"
    )
