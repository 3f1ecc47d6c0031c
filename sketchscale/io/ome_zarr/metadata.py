"""Parse OME-Zarr metadata into frozen records.

`parse_image`, `parse_labels`, `parse_plate` and `parse_well` validate plain attributes with ome-zarr-models and then
with our stricter rules: paths stay inside the store, scales are finite and positive, y and x come last. `new_metadata`
goes the other way.

Known versions are 0.4 (Zarr v2, attributes at the top) and 0.5 (Zarr v3, attributes below `ome`). Any problem is an
`InputError` that names the place; no other type of exception leaves this file.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ome_zarr_models.v04.image import ImageAttrs as ImageAttrs04
from ome_zarr_models.v04.plate import Plate as Plate04
from ome_zarr_models.v04.well_types import WellMeta as WellMeta04
from ome_zarr_models.v05.image import ImageAttrs as ImageAttrs05
from ome_zarr_models.v05.plate import Plate as Plate05
from ome_zarr_models.v05.well_types import WellMeta as WellMeta05
from pydantic import BaseModel

from sketchscale.io.stores.blobs import check_key
from sketchscale.io.stores.documents import bad_metadata, one_line

__all__ = [
    "KINDS",
    "UNITS_UM",
    "Axis",
    "ImageMetadata",
    "Level",
    "PlateMetadata",
    "Version",
    "WellMetadata",
    "WellPlace",
    "ome_attributes",
    "parse_image",
    "parse_labels",
    "parse_plate",
    "parse_well",
    "validated",
    "version_of",
]

Version = Literal["0.4", "0.5"]

UNITS_UM = {
    "angstrom": 1e-4,
    "picometer": 1e-6,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
    "inch": 25400.0,
}
"""Length of a unit in um. With any other unit the spacing is unknown."""

KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis: its name, its kind (space, time, channel) and its unit, empty if unknown."""

    name: str
    kind: str
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of a pyramid: path of the array in the image group; size of a pixel and place of pixel 0 per axis."""

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetadata:
    """Metadata of an image group.

    Attributes:
        version: of OME-Zarr.
        axes: in array order; y and x are the last two.
        levels: finest first; at least one.
        name: may be empty.
        channels: names from the rendering settings, may be empty.
    """

    version: Version
    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]
    name: str = ""
    channels: tuple[str, ...] = ()

    @property
    def order(self) -> str:
        """Names of the axes, such as "tczyx"."""
        return "".join(axis.name for axis in self.axes)

    @property
    def unit(self) -> str:
        """ "micrometer" if y and x have a known unit of length, else "pixel"."""
        return self.sizes(0, 2)[1]

    def spacing(self, level: int = 0) -> tuple[float, float]:
        """Return the spacing (y, x) in um; (1, 1) if the unit is unknown, regardless of the scale."""
        y, x = self.sizes(level, 2)[0]
        return (y, x)

    def sizes(self, level: int, ndim: int) -> tuple[tuple[float, ...], str]:
        """Return the spacing of the last `ndim` axes in um, and "micrometer"; 1 and "pixel" if a unit is unknown."""
        axes = self.axes[-ndim:]
        if any(axis.unit not in UNITS_UM for axis in axes):
            return (1.0,) * ndim, "pixel"
        scales = zip(self.levels[level].scale[-ndim:], axes, strict=True)
        return tuple(scale * UNITS_UM[axis.unit] for scale, axis in scales), "micrometer"


@dataclass(frozen=True, slots=True, kw_only=True)
class WellPlace:
    """A well of a plate: the path of its group, and its row and column by name."""

    path: str
    row: str
    column: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlateMetadata:
    """A plate: its name, the names of rows and columns, and its wells in the order of the file."""

    version: Version
    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    wells: tuple[WellPlace, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WellMetadata:
    """A well: the paths of its fields, and the acquisition of each (0 if unknown)."""

    fields: tuple[str, ...]
    acquisitions: tuple[int, ...]


def validated(model: type[BaseModel], value: Mapping[str, Any], where: str) -> Any:
    """Return the value as a record of ome-zarr-models; its warnings (a "should" of the specification) are ignored.

    Raises:
        InputError: it is not valid.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model.model_validate(dict(value))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise bad_metadata(where, one_line(error)) from error


def ome_attributes(attributes: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the OME part of the attributes of a group: below `ome` in 0.5, the attributes themselves in 0.4."""
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, Mapping):
        raise bad_metadata(where, f"'ome' is {type(ome).__name__}", "an object")
    return ome


def version_of(attributes: Mapping[str, Any], where: str) -> Version:
    """Return the OME-Zarr version of the attributes of a group.

    Raises:
        InputError: an unknown version; lists the known ones.
    """
    ome = ome_attributes(attributes, where)
    known: Version = "0.5" if "ome" in attributes else "0.4"
    if known == "0.5":
        found = ome.get("version")
    else:  # written in the first entry, or absent: then every reader assumes 0.4
        entries = (ome.get(key) for key in ("multiscales", "plate", "well", "image-label"))
        firsts = (entry[0] if isinstance(entry, list) and entry else entry for entry in entries)
        versions = (first.get("version") for first in firsts if isinstance(first, Mapping))
        found = next((version for version in versions if version is not None), "0.4")
    if found != known:
        raise bad_metadata(where, f"OME-Zarr version {str(found)[:20]!r}", "0.4 in Zarr v2 or 0.5 in Zarr v3")
    return known


def parse_image(attributes: Mapping[str, Any], where: str) -> ImageMetadata:
    """Parse the metadata of an image or label group; the first multiscale counts if there are several.

    Args:
        attributes: of the group, as stored.
        where: the group, for errors.

    Raises:
        InputError: no multiscales, an unknown version, or a violation of the specification or of our rules.
    """
    if "multiscales" not in ome_attributes(attributes, where):
        raise bad_metadata(where, "no 'multiscales' in the metadata", "an OME-Zarr image")
    version = version_of(attributes, where)
    ome = dict(ome_attributes(attributes, where))
    channels = _channel_names(ome.pop("omero", None))
    model = ImageAttrs05 if version == "0.5" else ImageAttrs04
    multiscale = validated(model, ome, where).multiscales[0]
    axes = tuple(
        Axis(name=str(axis.name), kind=str(axis.type or ""), unit=axis.unit if isinstance(axis.unit, str) else "")
        for axis in multiscale.axes
    )
    names = [axis.name for axis in axes]
    if names[-2:] != ["y", "x"] or set(names) - set(KINDS) or len(set(names)) != len(names):
        raise bad_metadata(where, f"axes {', '.join(names)[:60]}", "any of t, c, z and then y, x")
    world = _transform(multiscale.coordinateTransformations, len(axes), where)
    levels = tuple(_level(dataset, world, len(axes), where) for dataset in multiscale.datasets)
    name = multiscale.name if isinstance(multiscale.name, str) else ""
    return ImageMetadata(version=version, axes=axes, levels=levels, name=name, channels=channels)


_Vector = tuple[float, ...]


def _transform(transforms: Any, ndim: int, where: str) -> tuple[_Vector, _Vector]:
    """Return (scale, translation) of a list of transforms; the identity if it is empty."""
    scale, translation = (1.0,) * ndim, (0.0,) * ndim
    for transform in transforms or ():
        if hasattr(transform, "scale"):
            scale = _vector(transform.scale, ndim, where, "scale")
        elif hasattr(transform, "translation"):
            translation = _vector(transform.translation, ndim, where, "translation")
        elif getattr(transform, "type", "") != "identity":
            raise bad_metadata(where, f"transformation {str(transform)[:60]!r}", "scale and translation as numbers")
    if min(scale) <= 0:
        raise bad_metadata(where, f"scale {list(scale)}", "numbers above 0")
    return scale, translation


def _vector(values: Any, ndim: int, where: str, what: str) -> _Vector:
    numbers = tuple(float(v) for v in values) if isinstance(values, (list, tuple)) else ()
    if len(numbers) != ndim or not all(math.isfinite(v) for v in numbers):
        raise bad_metadata(where, f"{what} {str(values)[:60]}", f"{ndim} finite numbers")
    return numbers


def _level(dataset: Any, world: tuple[_Vector, _Vector], ndim: int, where: str) -> Level:
    scale, translation = _transform(dataset.coordinateTransformations, ndim, where)
    return Level(
        path=check_key(dataset.path, what=f"{where}: dataset path"),
        scale=tuple(w * s for w, s in zip(world[0], scale, strict=True)),
        translation=tuple(w * t + o for w, t, o in zip(world[0], translation, world[1], strict=True)),
    )


def _channel_names(omero: object) -> tuple[str, ...]:
    """Return the labels in the rendering settings, which are optional; none if they are incomplete."""
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return ()
    labels = [str(c.get("label") or "") if isinstance(c, dict) else "" for c in channels]
    return tuple(labels) if all(labels) else ()


def parse_labels(attributes: Mapping[str, Any] | None, where: str) -> tuple[str, ...]:
    """Return the names in a `labels` group, in the order of the file; none if there is no such group.

    Labels without a `version` are read as well, because some writers leave it out.

    Raises:
        InputError: not a list of relative paths.
    """
    if attributes is None:
        return ()
    names = ome_attributes(attributes, where).get("labels", [])
    if not isinstance(names, list) or len(names) > 10_000:
        raise bad_metadata(where, f"labels {str(names)[:60]}", "a list of at most 10,000 names")
    return tuple(check_key(name, what=f"{where}: label name") for name in names)


def parse_plate(attributes: Mapping[str, Any], where: str) -> PlateMetadata:
    """Parse the metadata of a plate group.

    Row and column of a well come from its path, which the specification builds from their names. The indices are not
    used, because some writers get them wrong.

    Raises:
        InputError: not a plate, a path that leaves it, a duplicate well, or more than 10,000 wells.
    """
    version = version_of(attributes, where)
    plate = ome_attributes(attributes, where).get("plate")
    if not isinstance(plate, Mapping):
        raise bad_metadata(where, "no 'plate' in the metadata", "an OME-Zarr plate")
    record = validated(Plate05 if version == "0.5" else Plate04, plate, where)
    paths = [check_key(well.path, what=f"{where}: well path") for well in record.wells]
    if len(set(paths)) != len(paths) or len(paths) > 10_000:
        raise bad_metadata(where, f"{len(paths)} wells, {len(set(paths))} different", "each well once, at most 10,000")
    places = (path.split("/") for path in paths)
    return PlateMetadata(
        version=version,
        name=record.name or "",
        rows=tuple(row.name for row in record.rows),
        columns=tuple(column.name for column in record.columns),
        wells=tuple(
            WellPlace(path=path, row=row, column=column) for path, (row, column) in zip(paths, places, strict=True)
        ),
    )


def parse_well(attributes: Mapping[str, Any], where: str) -> WellMetadata:
    """Parse the metadata of a well group.

    Raises:
        InputError: not a well, or a field path that leaves it or appears twice.
    """
    version = version_of(attributes, where)
    well = ome_attributes(attributes, where).get("well")
    if not isinstance(well, Mapping):
        raise bad_metadata(where, "no 'well' in the metadata", "an OME-Zarr well")
    record = validated(WellMeta05 if version == "0.5" else WellMeta04, well, where)
    paths = tuple(check_key(image.path, what=f"{where}: field path") for image in record.images)
    if len(set(paths)) != len(paths):
        raise bad_metadata(where, "a field appears twice", "each field once")
    return WellMetadata(fields=paths, acquisitions=tuple(image.acquisition or 0 for image in record.images))
