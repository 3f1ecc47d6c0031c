"""OME-Zarr metadata as frozen records, read from plain attributes and written back as plain attributes.

1. `parse_json` turns bytes into a document, with limits on size, depth and duplicate keys.
2. `check_array_document` refuses array metadata that would make a reader allocate, enumerate or run something absurd.
3. `parse_image`, `parse_labels`, `parse_plate` and `parse_well` validate with ome-zarr-models and then with our own,
   stricter rules (paths stay inside the store, scales are finite and positive, y and x come last), and return records.
4. `image_document`, `label_document` and `labels_document` are the way back; they are validated by the same models.

Versions 0.4 (Zarr v2, attributes at the top) and 0.5 (Zarr v3, attributes below `ome`) are the known ones. Whatever is
wrong ends in one `InputError` that names the place; no other type of exception leaves this file.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from ome_zarr_models.v04.image import ImageAttrs as ImageAttrs04
from ome_zarr_models.v04.image_label import ImageLabelAttrs as ImageLabelAttrs04
from ome_zarr_models.v04.plate import Plate as Plate04
from ome_zarr_models.v04.well_types import WellMeta as WellMeta04
from ome_zarr_models.v05.image import ImageAttrs as ImageAttrs05
from ome_zarr_models.v05.image_label import ImageLabelAttrs as ImageLabelAttrs05
from ome_zarr_models.v05.plate import Plate as Plate05
from ome_zarr_models.v05.well_types import WellMeta as WellMeta05
from pydantic import BaseModel, ValidationError

from sketchscale.errors import InputError
from sketchscale.io.blobs import check_key

__all__ = [
    "Axis",
    "ImageMetadata",
    "Level",
    "PlateMetadata",
    "Version",
    "WellMetadata",
    "WellPlace",
    "check_array_document",
    "image_document",
    "label_document",
    "labels_document",
    "ome_attributes",
    "parse_image",
    "parse_json",
    "parse_labels",
    "parse_plate",
    "parse_well",
    "version_of",
]

Version = Literal["0.4", "0.5"]

METADATA_BYTES = 16 * 2**20
METADATA_DEPTH = 64
AXIS_LIMIT = 2**31
CHUNK_LIMIT = 10**8
CHUNK_BYTES = 2**31

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
"""Length of a unit in um. Any other unit leaves the spacing unknown."""

_CODECS = frozenset({
    "bytes", "transpose", "blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma", "crc32c", "crc32", "adler32",
    "fletcher32", "shuffle", "delta", "bitround", "packbits", "fixedscaleoffset", "sharding_indexed",
})  # fmt: skip
"""What may decode a chunk: pure number crunching. Never pickle, json, vlen or anything that can hold an object."""

_KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis: its name, its kind (space, time, channel) and its unit, empty when unknown."""

    name: str
    kind: str
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of a pyramid: the array's path in the image group, size of a pixel and place of pixel 0, per axis."""

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetadata:
    """What an image group says about itself.

    Attributes:
        version: of OME-Zarr.
        axes: in array order; y and x are the last two.
        levels: finest first; at least one.
        name: may be empty.
        channels: names from the rendering settings; empty when there are none.
    """

    version: Version
    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]
    name: str = ""
    channels: tuple[str, ...] = ()

    @property
    def order(self) -> str:
        """Names of the axes in one word, such as "tczyx"."""
        return "".join(axis.name for axis in self.axes)

    @property
    def unit(self) -> str:
        """ "micrometer" when y and x have a known unit of length, else "pixel"."""
        return "micrometer" if all(axis.unit in UNITS_UM for axis in self.axes[-2:]) else "pixel"

    def spacing(self, level: int = 0) -> tuple[float, float]:
        """(y, x) in um; (1, 1) when the unit is unknown, whatever the scale says."""
        if self.unit == "pixel":
            return (1.0, 1.0)
        y, x = (s * UNITS_UM[a.unit] for s, a in zip(self.levels[level].scale[-2:], self.axes[-2:], strict=True))
        return (y, x)


@dataclass(frozen=True, slots=True, kw_only=True)
class WellPlace:
    """A well of a plate: the path of its group, and its row and column by name."""

    path: str
    row: str
    column: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlateMetadata:
    """A plate: its name, the names of rows and columns, and the wells that exist, in the order of the file."""

    version: Version
    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    wells: tuple[WellPlace, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WellMetadata:
    """A well: the paths of its fields, and the acquisition of each (0 when the file does not say)."""

    fields: tuple[str, ...]
    acquisitions: tuple[int, ...]


def _refuse(where: str, problem: str, expected: str = "valid OME-Zarr metadata") -> InputError:
    return InputError.of(found=f"{where}: {problem}", expected=expected, fix="restore or rewrite the metadata")


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """A metadata document.

    Args:
        data: UTF-8.
        where: the file, for errors.

    Raises:
        InputError: not JSON, not an object, larger than 16 MiB, deeper than 64, or with a key twice in one object.

    >>> parse_json(b'{"a": 1}', "x.json")
    {'a': 1}
    """
    if len(data) > METADATA_BYTES:
        raise _refuse(where, f"{len(data) / 2**20:.0f} MiB of metadata", "at most 16 MiB")
    try:
        document = json.loads(data, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise _refuse(where, f"not readable as JSON ({_one_line(error)})", "a JSON document") from error
    if not isinstance(document, dict):
        raise _refuse(where, f"a JSON {type(document).__name__}", "a JSON object")
    if _depth(document) > METADATA_DEPTH:
        raise _refuse(where, f"nested deeper than {METADATA_DEPTH}", "a flat document")
    return document


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice")
    return document


def _depth(document: object) -> int:
    level, depth = [document], 0
    while level and depth <= METADATA_DEPTH:
        depth += 1
        inner = [list(d.values()) if isinstance(d, dict) else d for d in level if isinstance(d, (dict, list))]
        level = [item for items in inner for item in items if isinstance(item, (dict, list))]
    return depth


def _one_line(error: BaseException, limit: int = 200) -> str:
    """What went wrong, without line breaks, addresses of documentation or echoes of the whole input."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        text = f"{place}: {first['msg']}" if place else str(first["msg"])
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())[:limit]


# ---- arrays


def check_array_document(document: Mapping[str, Any], where: str) -> None:
    """Refuse array metadata before anything is made of it.

    Args:
        document: a parsed `zarr.json` or `.zarray`.
        where: the array, for errors.

    Raises:
        InputError: an axis outside 1..2^31, more than 10^8 chunks, a chunk of more than 2 GiB, a rank that differs
            between shape and chunks, a type that is not a number, a codec that is not on the list.
    """
    if document.get("zarr_format") not in (2, 3):
        raise _refuse(where, f"zarr_format {str(document.get('zarr_format'))[:20]!r}", "2 or 3")
    if document["zarr_format"] == 3 and document.get("node_type") != "array":
        raise _refuse(where, f"a Zarr {str(document.get('node_type'))[:20]}", "a Zarr array")
    shape = _lengths(document.get("shape"), where, "shape")
    itemsize = _itemsize(document.get("data_type" if document["zarr_format"] == 3 else "dtype"), where)
    for chunks in _chunk_shapes(document, where):
        _check_chunks(shape, chunks, itemsize, where)
    for name in _codec_names(document, where):
        if name not in _CODECS:
            raise _refuse(where, f"codec {name[:40]!r}", f"one of {', '.join(sorted(_CODECS))}")


def _lengths(value: object, where: str, what: str) -> tuple[int, ...]:
    entries = value if isinstance(value, list) else []
    good = 0 < len(entries) <= 8 and all(type(n) is int and 0 < n <= AXIS_LIMIT for n in entries)
    if not good:
        raise _refuse(where, f"{what} {str(value)[:60]}", "one to eight whole numbers from 1 to 2^31")
    return tuple(entries)


def _itemsize(name: object, where: str) -> int:
    try:
        dtype = np.dtype(name) if isinstance(name, str) else None
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if dtype is None or dtype.kind not in "biuf":
        raise _refuse(where, f"data type {str(name)[:40]!r}", "a boolean, integer or floating point type")
    return dtype.itemsize


def _chunk_shapes(document: Mapping[str, Any], where: str) -> Iterator[tuple[int, ...]]:
    """The chunk grid's shape, and the inner chunks of shards."""
    if document["zarr_format"] == 2:
        yield _lengths(document.get("chunks"), where, "chunks")
        return
    grid = document.get("chunk_grid")
    settings = grid.get("configuration") if isinstance(grid, dict) else None
    yield _lengths(settings.get("chunk_shape") if isinstance(settings, dict) else None, where, "chunk_shape")
    for codec in _codec_list(document.get("codecs"), where):
        inner = codec.get("configuration")
        if codec.get("name") == "sharding_indexed":
            yield _lengths(inner.get("chunk_shape") if isinstance(inner, dict) else None, where, "inner chunk_shape")


def _check_chunks(shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int, where: str) -> None:
    if len(shape) != len(chunks):
        raise _refuse(where, f"{len(shape)} axes in shape, {len(chunks)} in chunks", "as many in both")
    if math.prod(chunks) * itemsize > CHUNK_BYTES:
        raise _refuse(where, f"a chunk of {math.prod(chunks) * itemsize / 2**30:.1f} GiB", "at most 2 GiB")
    count = math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    if count > CHUNK_LIMIT:
        raise _refuse(where, f"{count:.1e} chunks", "at most 10^8")


def _codec_list(value: object, where: str) -> list[dict[str, Any]]:
    entries = value if isinstance(value, list) else []
    codecs = [{"name": codec} if isinstance(codec, str) else codec for codec in entries]
    if len(codecs) > 16 or not all(isinstance(codec, dict) for codec in codecs):
        raise _refuse(where, f"codecs {str(value)[:60]}", "a list of named codecs")
    return codecs


def _codec_names(document: Mapping[str, Any], where: str) -> Iterator[str]:
    if document["zarr_format"] == 2:
        compressor, filters = document.get("compressor"), document.get("filters")
        used = ([] if compressor is None else [compressor]) + ([] if filters is None else [filters])
        flat = [entry for item in used for entry in (item if isinstance(item, list) else [item])]
        yield from (str(codec.get("id")) for codec in _codec_list(flat, where))
        return
    yield from _codec_names_v3(document.get("codecs"), where, nested=False)


def _codec_names_v3(value: object, where: str, *, nested: bool) -> Iterator[str]:
    for codec in _codec_list(value, where):
        name = str(codec.get("name")).removeprefix("numcodecs.")
        if name == "sharding_indexed":
            if nested:
                raise _refuse(where, "shards inside shards", "one level of shards")
            settings = codec.get("configuration")
            inner = settings if isinstance(settings, dict) else {}
            yield from _codec_names_v3(inner.get("codecs"), where, nested=True)
            yield from _codec_names_v3(inner.get("index_codecs"), where, nested=True)
        yield name


# ---- groups


def ome_attributes(attributes: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The OME part of a group's attributes: below `ome` in 0.5, the attributes themselves in 0.4."""
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, Mapping):
        raise _refuse(where, f"'ome' is {type(ome).__name__}", "an object")
    return ome


def version_of(attributes: Mapping[str, Any], where: str) -> Version:
    """The OME-Zarr version of a group's attributes.

    Raises:
        InputError: a version this package does not know; lists the known ones.
    """
    ome = ome_attributes(attributes, where)
    found = ome.get("version") if "ome" in attributes else _version_04(ome)
    known: Version = "0.5" if "ome" in attributes else "0.4"
    if found != known:
        raise _refuse(where, f"OME-Zarr version {str(found)[:20]!r}", "0.4 in Zarr v2 or 0.5 in Zarr v3")
    return known


def _version_04(ome: Mapping[str, Any]) -> object:
    """The version where 0.4 keeps it; files that say none are read as 0.4, as every reader does."""
    for key in ("multiscales", "plate", "well", "image-label"):
        entry = ome.get(key)
        first = entry[0] if isinstance(entry, list) and entry else entry
        if isinstance(first, Mapping) and first.get("version") is not None:
            return first["version"]
    return "0.4"


def _validate(model: type[BaseModel], value: Mapping[str, Any], where: str) -> Any:
    """The value as a record of ome-zarr-models; its warnings (a "should" of the specification) are not errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model.model_validate(dict(value))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise _refuse(where, _one_line(error)) from error


def parse_image(attributes: Mapping[str, Any], where: str) -> ImageMetadata:
    """Metadata of an image or label group; the first multiscale counts where there are several.

    Args:
        attributes: of the group, as stored.
        where: the group, for errors.

    Raises:
        InputError: no multiscales, an unknown version, or anything the specification or this package does not allow.
    """
    if "multiscales" not in ome_attributes(attributes, where):
        raise _refuse(where, "no 'multiscales' in the metadata", "an OME-Zarr image")
    version = version_of(attributes, where)
    ome = dict(ome_attributes(attributes, where))
    channels = _channel_names(ome.pop("omero", None))
    model = ImageAttrs05 if version == "0.5" else ImageAttrs04
    multiscale = _validate(model, ome, where).multiscales[0]
    axes = tuple(_axis(axis) for axis in multiscale.axes)
    _check_axes(axes, where)
    world = _transform(multiscale.coordinateTransformations, len(axes), where)
    levels = tuple(_level(dataset, world, len(axes), where) for dataset in multiscale.datasets)
    name = multiscale.name if isinstance(multiscale.name, str) else ""
    return ImageMetadata(version=version, axes=axes, levels=levels, name=name, channels=channels)


def _axis(axis: Any) -> Axis:
    unit = axis.unit if isinstance(axis.unit, str) else ""
    return Axis(name=str(axis.name), kind=str(axis.type or ""), unit=unit)


def _check_axes(axes: tuple[Axis, ...], where: str) -> None:
    names = [axis.name for axis in axes]
    if names[-2:] != ["y", "x"] or set(names) - set(_KINDS) or len(set(names)) != len(names):
        raise _refuse(where, f"axes {', '.join(names)[:60]}", "any of t, c, z and then y, x")


_Vector = tuple[float, ...]


def _transform(transforms: Any, ndim: int, where: str) -> tuple[_Vector, _Vector]:
    """(scale, translation) of a list of transforms; the identity when there is none."""
    scale, translation = (1.0,) * ndim, (0.0,) * ndim
    for transform in transforms or ():
        if hasattr(transform, "scale"):
            scale = _vector(transform.scale, ndim, where, "scale")
        elif hasattr(transform, "translation"):
            translation = _vector(transform.translation, ndim, where, "translation")
        elif getattr(transform, "type", "") != "identity":
            raise _refuse(where, f"transformation {str(transform)[:60]!r}", "scale and translation as numbers")
    if min(scale) <= 0:
        raise _refuse(where, f"scale {list(scale)}", "numbers above 0")
    return scale, translation


def _vector(values: Any, ndim: int, where: str, what: str) -> _Vector:
    numbers = tuple(float(v) for v in values) if isinstance(values, (list, tuple)) else ()
    if len(numbers) != ndim or not all(math.isfinite(v) for v in numbers):
        raise _refuse(where, f"{what} {str(values)[:60]}", f"{ndim} finite numbers")
    return numbers


def _level(dataset: Any, world: tuple[_Vector, _Vector], ndim: int, where: str) -> Level:
    scale, translation = _transform(dataset.coordinateTransformations, ndim, where)
    return Level(
        path=check_key(dataset.path, what=f"{where}: dataset path"),
        scale=tuple(w * s for w, s in zip(world[0], scale, strict=True)),
        translation=tuple(w * t + o for w, t, o in zip(world[0], translation, world[1], strict=True)),
    )


def _channel_names(omero: object) -> tuple[str, ...]:
    """Labels of the rendering settings; none when they are incomplete, because they are only a courtesy."""
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return ()
    labels = [str(c.get("label") or "") if isinstance(c, dict) else "" for c in channels]
    return tuple(labels) if all(labels) else ()


def parse_labels(attributes: Mapping[str, Any] | None, where: str) -> tuple[str, ...]:
    """Names in a `labels` group, in the order of the file; none when there is no such group.

    Labels without a `version` (some writers leave it out) are read all the same.

    Raises:
        InputError: not a list of relative paths.
    """
    if attributes is None:
        return ()
    names = ome_attributes(attributes, where).get("labels", [])
    if not isinstance(names, list) or len(names) > 10_000:
        raise _refuse(where, f"labels {str(names)[:60]}", "a list of at most 10,000 names")
    return tuple(check_key(name, what=f"{where}: label name") for name in names)


def parse_plate(attributes: Mapping[str, Any], where: str) -> PlateMetadata:
    """Metadata of a plate group.

    Row and column of a well are taken from its path, which the specification builds from their names; the indices are
    not trusted, because writers get them wrong.

    Raises:
        InputError: not a plate, a path that leaves it, a well twice, or more than 10,000 wells.
    """
    version = version_of(attributes, where)
    plate = ome_attributes(attributes, where).get("plate")
    if not isinstance(plate, Mapping):
        raise _refuse(where, "no 'plate' in the metadata", "an OME-Zarr plate")
    record = _validate(Plate05 if version == "0.5" else Plate04, plate, where)
    paths = [check_key(well.path, what=f"{where}: well path") for well in record.wells]
    if len(set(paths)) != len(paths) or len(paths) > 10_000:
        raise _refuse(where, f"{len(paths)} wells, {len(set(paths))} different", "each well once, at most 10,000")
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
    """Metadata of a well group.

    Raises:
        InputError: not a well, or a field path that leaves it or comes twice.
    """
    version = version_of(attributes, where)
    well = ome_attributes(attributes, where).get("well")
    if not isinstance(well, Mapping):
        raise _refuse(where, "no 'well' in the metadata", "an OME-Zarr well")
    record = _validate(WellMeta05 if version == "0.5" else WellMeta04, well, where)
    paths = tuple(check_key(image.path, what=f"{where}: field path") for image in record.images)
    if len(set(paths)) != len(paths):
        raise _refuse(where, "a field appears twice", "each field once")
    return WellMetadata(fields=paths, acquisitions=tuple(image.acquisition or 0 for image in record.images))


# ---- the way back


def image_document(metadata: ImageMetadata, dtype: npt.DTypeLike, where: str) -> dict[str, Any]:
    """Attributes of an image group, validated.

    Args:
        metadata: what to say.
        dtype: of the pixels, for the rendering window of the channels.
        where: the group, for errors.
    """
    ome: dict[str, Any] = {"multiscales": [_multiscale(metadata, "mean")]}
    if metadata.channels:
        ome["omero"] = {"channels": [_channel(i, name, dtype) for i, name in enumerate(metadata.channels)]}
    return _versioned(metadata.version, ome, ImageAttrs04, ImageAttrs05, where)


def label_document(
    metadata: ImageMetadata,
    where: str,
    *,
    colors: Mapping[int, Sequence[int]] | None = None,
    properties: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Attributes of one label group, validated.

    Args:
        metadata: of the label image; its channels are ignored.
        where: the group, for errors.
        colors: (red, green, blue, opacity) by label value, 0 to 255. For classes, not for every object.
        properties: records that each have a "label-value". Same advice.
    """
    label: dict[str, Any] = {"source": {"image": "../../"}}
    if metadata.version == "0.4":
        label["version"] = "0.4"
    if colors:
        label["colors"] = [{"label-value": int(v), "rgba": [int(c) for c in rgba]} for v, rgba in colors.items()]
    if properties:
        label["properties"] = [dict(entry) for entry in properties]
    ome = {"multiscales": [_multiscale(metadata, "nearest")], "image-label": label}
    return _versioned(metadata.version, ome, ImageLabelAttrs04, ImageLabelAttrs05, where)


def labels_document(version: Version, names: Sequence[str]) -> dict[str, Any]:
    """Attributes of the `labels` group; with a version, because readers that find none may drop the names."""
    return {"ome": {"version": "0.5", "labels": list(names)}} if version == "0.5" else {"labels": list(names)}


def _versioned(
    version: Version, ome: dict[str, Any], model04: type[BaseModel], model05: type[BaseModel], where: str
) -> dict[str, Any]:
    if version == "0.4":
        _validate(model04, ome, where)
        return ome
    ome = {"version": "0.5", **ome}
    _validate(model05, {k: v for k, v in ome.items() if k != "omero"}, where)
    return {"ome": ome}


def _multiscale(metadata: ImageMetadata, method: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": metadata.name,
        "axes": [_axis_document(axis) for axis in metadata.axes],
        "datasets": [_dataset(level) for level in metadata.levels],
        "type": method,
    }
    return {"version": "0.4", **entry} if metadata.version == "0.4" else entry


def _axis_document(axis: Axis) -> dict[str, str]:
    entry = {"name": axis.name, "type": axis.kind or _KINDS[axis.name]}
    return {**entry, "unit": axis.unit} if axis.unit else entry


def _dataset(level: Level) -> dict[str, Any]:
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": list(level.scale)}]
    if any(level.translation):
        transforms.append({"type": "translation", "translation": list(level.translation)})
    return {"path": level.path, "coordinateTransformations": transforms}


_COLORS = ("FF0000", "00FF00", "0000FF", "FF00FF", "00FFFF", "FFFF00", "FFFFFF")


def _channel(index: int, name: str, dtype: npt.DTypeLike) -> dict[str, Any]:
    kind = np.dtype(dtype)
    low, high = (0, 1) if kind.kind in "fb" else (int(np.iinfo(kind).min), int(np.iinfo(kind).max))
    color = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}.get(name, _COLORS[index % len(_COLORS)])
    window = {"min": low, "max": high, "start": max(0, low), "end": high}
    return {"label": name, "color": color, "active": True, "window": window}
