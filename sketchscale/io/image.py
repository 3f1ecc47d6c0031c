"""OME-Zarr images: open them, read planes, and make new images and label images that appear only when finished.

    store                      an address (folder, zip, bucket prefix, memory)
    └── group                  usually the store's root; "B/3/0" for a field of a plate
        ├── 0, 1, ...          arrays of the pyramid: names come from the metadata, never guessed
        └── labels
            └── cells          a label image: its own pyramid, colours and source

Order of writing is the commit: arrays first, a group's metadata last, and a label's name in `labels` after its own
metadata. Until then no reader sees anything.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from sketchscale.errors import InputError, MissingDataError, UnknownNameError
from sketchscale.geometry import Box
from sketchscale.io.arrays import ArrayRef, create_array, open_array, read_box
from sketchscale.io.blobs import blob_stats, check_key, delete_blob, delete_blobs, get_blob, list_blobs, put_blob
from sketchscale.io.documents import parse_json
from sketchscale.io.metadata import (
    UNITS_UM,
    Axis,
    ImageMetadata,
    Level,
    Version,
    ome_attributes,
    parse_image,
    parse_labels,
    version_of,
)
from sketchscale.io.new_metadata import image_document, label_document, labels_document
from sketchscale.io.store import join_address, split_address

__all__ = [
    "Image",
    "PlaneRef",
    "VolumeRef",
    "commit_image",
    "commit_labels",
    "count_absent",
    "create_image",
    "create_labels",
    "delete_labels",
    "label_arrays",
    "level_shapes",
    "open_image",
    "read_attributes",
    "read_plane",
    "series_of",
    "write_attributes",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneRef:
    """One (y, x) plane with its channels, by address: what tasks carry.

    Attributes:
        array: the level's array.
        axes: of the array, such as "tczyx"; y and x last.
        index: fixed positions of t and z, as (("t", 0), ("z", 0)); c is never fixed.
        shape: (y, x) in pixels.
        channels: names; an image without a channel axis has one.
        dtype: numpy's name of the pixel type.
        spacing: um per pixel (y, x) and unit "micrometer"; (1, 1) and "pixel" when unknown.
        chunks: (y, x) of what is read at once.
    """

    array: ArrayRef
    axes: str
    index: tuple[tuple[str, int], ...]
    shape: tuple[int, int]
    channels: tuple[str, ...]
    dtype: str
    spacing: tuple[float, float]
    unit: str
    chunks: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRef:
    """One (z, y, x) volume with its channels, by address: a `PlaneRef` in which z is free.

    Attributes:
        array: the level's array.
        axes: of the array, such as "tczyx"; z, y and x last.
        index: fixed position of t, as (("t", 0),), where there is such an axis.
        shape: (z, y, x) in voxels.
        channels, dtype: as of a plane.
        spacing: um per voxel (z, y, x) and unit "micrometer"; (1, 1, 1) and "pixel" when one of them is unknown.
        chunks: (z, y, x) of what is read at once.
    """

    array: ArrayRef
    axes: str
    index: tuple[tuple[str, int], ...]
    shape: tuple[int, int, int]
    channels: tuple[str, ...]
    dtype: str
    spacing: tuple[float, float, float]
    unit: str
    chunks: tuple[int, int, int]


def read_plane(plane: PlaneRef | VolumeRef, box: Box, channels: Sequence[int] | None = None) -> npt.NDArray[Any]:
    """Pixels of a box, channels first: (c, y, x) in the image's own type; (c, z, y, x) of a volume.

    Args:
        plane: where to read.
        box: (y, x), inside the plane; (z, y, x) of a volume.
        channels: positions in this order; all when None.

    Returns:
        Chunks that are absent read as the array's fill value, as sparse images mean it; see `count_absent`.

    Raises:
        InputError: a box or channel outside the image, or a chunk that does not decode.
    """
    wanted = tuple(range(len(plane.channels))) if channels is None else tuple(channels)
    if not box.clip(plane.shape) == box or any(not 0 <= c < len(plane.channels) for c in wanted):
        raise InputError(f"{plane.array}: box {box}, channels {wanted} leave {plane.shape}, {len(plane.channels)}")
    if "c" not in plane.axes:
        return np.stack([_read(plane, box, 0)] * len(wanted)) if wanted else np.empty((0, *box.shape), plane.dtype)
    if wanted == tuple(range(len(plane.channels))):
        return _read(plane, box, slice(0, len(wanted)))
    return np.stack([_read(plane, box, c)[0] for c in wanted])


def _read(plane: PlaneRef | VolumeRef, box: Box, channel: int | slice) -> npt.NDArray[Any]:
    """The box of an array without channels, else (c, box); one read of the store."""
    at = dict(plane.index)
    first, last = (channel.start, channel.stop) if isinstance(channel, slice) else (channel, channel + 1)
    names = plane.axes[: len(plane.axes) - len(plane.shape)]
    leading = [(first, last) if name == "c" else (at[name], at[name] + 1) for name in names]
    full = Box(tuple(a for a, _ in leading) + box.start, tuple(b for _, b in leading) + box.stop)
    values = read_box(plane.array, full, missing="fill")
    return values.reshape((last - first, *box.shape) if "c" in plane.axes else box.shape)


def count_absent(plane: PlaneRef | VolumeRef) -> int:
    """How many stored units of a plane or volume (all channels) are not there; they read as the fill value.

    Counted from one listing of what exists, so the cost does not grow with what is missing.
    """
    array = open_array(plane.array)
    unit = tuple(array.shards or array.chunks)
    at = dict(plane.index)
    fixed = {i: at[name] // unit[i] for i, name in enumerate(plane.axes) if name in at}
    grid = [-(-n // u) for n, u in zip(array.shape, unit, strict=True)]
    planned = math.prod(1 if i in fixed else n for i, n in enumerate(grid))
    keys = _stored_chunks(plane.array, array)
    present = sum(all(0 <= i < n for i, n in zip(key, grid, strict=True)) and _matches(key, fixed) for key in keys)
    return planned - present


def _matches(key: tuple[int, ...], fixed: Mapping[int, int]) -> bool:
    return all(key[i] == position for i, position in fixed.items())


def _stored_chunks(ref: ArrayRef, array: zarr.Array[Any]) -> set[tuple[int, ...]]:
    """Grid coordinates of the chunks (or shards) in the store; other files there are ignored."""
    probe = array.metadata.encode_chunk_key((0,) * array.ndim)
    separator = probe[len(probe) - 2] if array.ndim > 1 else "/"
    lead = probe[: len(probe) - (2 * array.ndim - 1)]
    names = (key[len(ref.path) :].lstrip("/") for key in list_blobs(ref.store, ref.path))
    parts = (name.removeprefix(lead).split(separator) for name in names if name.startswith(lead))
    return {tuple(int(p) for p in part) for part in parts if len(part) == array.ndim and all(map(str.isdigit, part))}


# ---- groups


def read_attributes(store: str, group: str) -> dict[str, Any] | None:
    """Attributes of a Zarr group of either format; None when there is no group.

    Read from the group's own document, never from consolidated metadata, which may be older.

    Raises:
        InputError: the document is not readable.
    """
    data = get_blob(store, _key(group, "zarr.json"))
    if data is not None:
        document = parse_json(data, f"{join_address(store, group)}/zarr.json")
        if document.get("zarr_format") != 3 or document.get("node_type") != "group":
            return None
        attributes = document.get("attributes") or {}
        if not isinstance(attributes, dict):
            raise InputError(f"{join_address(store, group)}/zarr.json: attributes are no object; to fix: restore it")
        return attributes
    if get_blob(store, _key(group, ".zgroup")) is None and get_blob(store, _key(group, ".zattrs")) is None:
        return None
    data = get_blob(store, _key(group, ".zattrs"))
    return {} if data is None else parse_json(data, f"{join_address(store, group)}/.zattrs")


def write_attributes(store: str, group: str, attributes: Mapping[str, Any], version: Version) -> None:
    """Replace the attributes of a group (made when there is none); one atomic write, the last step of a commit.

    Consolidated metadata of the group is dropped: it would hide what is new from its readers.
    """
    text = json.dumps(attributes, indent=2, allow_nan=False)
    if version == "0.5":
        document = {"zarr_format": 3, "node_type": "group", "attributes": json.loads(text)}
        put_blob(store, _key(group, "zarr.json"), json.dumps(document, indent=2).encode())
        return
    put_blob(store, _key(group, ".zgroup"), json.dumps({"zarr_format": 2}).encode())
    put_blob(store, _key(group, ".zattrs"), text.encode())


def _key(group: str, name: str) -> str:
    return f"{group}/{name}" if group else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An OME-Zarr image, opened: metadata and addresses, no pixels; picklable.

    Attributes:
        store: address of the store.
        group: path of the image inside it, "" for the root.
        metadata: as parsed.
        shapes, chunks: of each level's array, in its axes.
        dtypes: of each level; some writers change the type between levels.
    """

    store: str
    group: str
    metadata: ImageMetadata
    shapes: tuple[tuple[int, ...], ...]
    chunks: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]

    @property
    def dtype(self) -> str:
        """Pixel type of level 0."""
        return self.dtypes[0]

    @property
    def address(self) -> str:
        """Where it is, as a user would write it."""
        return join_address(self.store, self.group)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels; "channel_0" and so on where the file has none."""
        order = self.metadata.order
        count = self.shapes[0][order.index("c")] if "c" in order else 1
        named = self.metadata.channels
        return named if len(named) == count else tuple(f"channel_{i}" for i in range(count))

    def array(self, level: int = 0) -> ArrayRef:
        """The array of a level.

        Raises:
            InputError: no such level.
        """
        if not 0 <= level < len(self.metadata.levels):
            raise InputError.of(
                found=f"{self.address}: level {level}",
                expected=f"0 to {len(self.metadata.levels) - 1}",
                fix="choose an existing level",
            )
        return ArrayRef(store=self.store, path=_key(self.group, self.metadata.levels[level].path))

    def plane(self, level: int = 0, t: int | None = None, z: int | None = None) -> PlaneRef:
        """One plane with all channels.

        Args:
            level: 0 is the finest.
            t, z: position; may be left out where the axis is absent or of length 1.

        Raises:
            InputError: several time points or slices and no position given, or a position outside.
        """
        array = self.array(level)
        shape, order = self.shapes[level], self.metadata.order
        chosen = {"t": t, "z": z}
        index = tuple((name, self._position(name, chosen[name], level)) for name in order if name in "tz")
        for name, position in chosen.items():
            if position and name not in order:
                raise InputError.of(
                    found=f"{self.address} has no {name} axis", expected=f"{name} 0", fix=f"leave {name} out"
                )
        return PlaneRef(
            array=array,
            axes=order,
            index=index,
            shape=(shape[-2], shape[-1]),
            channels=self.channels,
            dtype=self.dtypes[level],
            spacing=self.metadata.spacing(level),
            unit=self.metadata.unit,
            chunks=(self.chunks[level][-2], self.chunks[level][-1]),
        )

    def volume(self, level: int = 0, t: int | None = None) -> VolumeRef:
        """The whole depth with all channels.

        Args:
            level: 0 is the finest.
            t: position; may be left out where the axis is absent or of length 1.

        Raises:
            InputError: no z axis right before y and x, or several time points and no position given.
        """
        array, order, shape, chunks = self.array(level), self.metadata.order, self.shapes[level], self.chunks[level]
        if order[-3:] != "zyx":
            raise InputError.of(
                found=f"{self.address} has axes {order!r}", expected="a volume: axes that end with zyx", fix="a 2-D run"
            )
        if t and "t" not in order:
            raise InputError.of(found=f"{self.address} has no t axis", expected="t 0", fix="leave t out")
        known = all(axis.unit in UNITS_UM for axis in self.metadata.axes[-3:])
        sizes = zip(self.metadata.levels[level].scale[-3:], self.metadata.axes[-3:], strict=True)
        z, y, x = (s * UNITS_UM[a.unit] for s, a in sizes) if known else (1.0, 1.0, 1.0)
        return VolumeRef(
            array=array,
            axes=order,
            index=(("t", self._position("t", t, level)),) if "t" in order else (),
            shape=(shape[-3], shape[-2], shape[-1]),
            channels=self.channels,
            dtype=self.dtypes[level],
            spacing=(z, y, x),
            unit="micrometer" if known else "pixel",
            chunks=(chunks[-3], chunks[-2], chunks[-1]),
        )

    def _position(self, name: str, given: int | None, level: int) -> int:
        length = self.shapes[level][self.metadata.order.index(name)]
        if given is None and length > 1:
            raise InputError.of(
                found=f"{self.address}: {length} positions along {name}",
                expected="one plane",
                fix=f"choose with --{name} 0 to {length - 1}",
            )
        position = given or 0
        if not 0 <= position < length:
            raise InputError(f"{self.address}: {name} = {position} is outside 0 to {length - 1}")
        return position

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label images that are there, as the file lists them now."""
        group = _key(self.group, "labels")
        return parse_labels(read_attributes(self.store, group), join_address(self.store, group))

    def label_image(self, name: str) -> Image:
        """A label image, opened.

        Raises:
            UnknownNameError: lists those that are there.
            InputError: it is not a label image of whole numbers.
        """
        known = self.labels
        if name not in known:
            raise UnknownNameError.among(f"labels in {self.address}:", name, known)
        image = _open_group(self.store, _key(self.group, f"labels/{name}"))
        if np.dtype(image.dtype).kind not in "iu":
            raise InputError.of(
                found=f"{image.address}: labels of type {image.dtype}", expected="whole numbers", fix="convert them"
            )
        return image

    def label_ref(self, name: str, level: int = 0) -> ArrayRef:
        """The array of a label image; see `label_image`."""
        return self.label_image(name).array(level)

    def metadata_digest(self) -> str:
        """SHA-256 of the OME metadata alone: axes, spacing, channels, levels."""
        attributes = read_attributes(self.store, self.group) or {}
        text = json.dumps(ome_attributes(attributes, self.address), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def identity(self) -> str:
        """What pixels and metadata are, cheaply: SHA-256 of the metadata and of (key, size, time or tag) of level 0.

        Rewriting any chunk changes it. Copying a folder changes it too where times are not kept.
        """
        attributes = read_attributes(self.store, self.group) or {}
        stats = blob_stats(self.store, self.array().path)
        text = json.dumps([ome_attributes(attributes, self.address), stats], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def open_image(address: str | Path, *, series: int = 0) -> Image:
    """Open an OME-Zarr image; no pixel is read.

    Args:
        address: of the image: a folder, a zip, a URL, a field of a plate (`plate.zarr/B/3/0`), a label image.
        series: which image of a collection (bioformats2raw layout).

    Raises:
        MissingDataError: nothing is there, or the metadata names an array that is not.
        InputError: not an OME-Zarr image of version 0.4 or 0.5, or one that contradicts itself.
    """
    store, group = split_address(address)
    attributes = read_attributes(store, group)
    if attributes is None:
        raise _no_group(str(address), store)
    ome = ome_attributes(attributes, str(address))
    if "multiscales" not in ome and "plate" in ome:
        raise InputError.of(
            found=f"{address} is a plate", expected="one image", fix=f"name a field, as in {address}/A/1/0"
        )
    if "multiscales" not in ome and "bioformats2raw.layout" in ome:
        return _open_group(store, _key(group, _series(store, group, series)))
    return _open_group(store, group)


def _no_group(address: str, store: str) -> InputError:
    """The error for a place without a group; a store that is not there at all is told from one without metadata."""
    get_blob(store, "zarr.json")
    if not list_blobs(store, ""):
        return MissingDataError(f"{address} does not exist; expected: an OME-Zarr image; to fix: check the path")
    return InputError.of(found=f"{address}: no Zarr group", expected="an OME-Zarr image", fix="sketchscale convert it")


def series_of(store: str, group: str = "") -> tuple[str, ...]:
    """Paths of the images of a collection: what `OME` lists, else 0, 1, ... as far as there are groups."""
    attributes = read_attributes(store, _key(group, "OME"))
    listed = ome_attributes(attributes or {}, join_address(store, _key(group, "OME"))).get("series")
    if isinstance(listed, list) and listed:
        return tuple(check_key(path, what=f"{store}: series") for path in listed[:10_000])
    paths: list[str] = []
    while read_attributes(store, _key(group, str(len(paths)))) is not None:
        paths.append(str(len(paths)))
    return tuple(paths)


def _series(store: str, group: str, series: int) -> str:
    paths = series_of(store, group)
    if not 0 <= series < len(paths):
        raise InputError.of(
            found=f"{join_address(store, group)}: series {series} of {len(paths)}",
            expected=f"0 to {len(paths) - 1}",
            fix="choose an existing series",
        )
    return paths[series]


def _open_group(store: str, group: str) -> Image:
    address = join_address(store, group)
    attributes = read_attributes(store, group)
    if attributes is None:
        raise MissingDataError(f"{address} does not exist; expected: an OME-Zarr image; to fix: check the path")
    metadata = parse_image(attributes, address)
    arrays = [open_array(ArrayRef(store=store, path=_key(group, level.path))) for level in metadata.levels]
    _check_levels(metadata, [array.shape for array in arrays], address)
    return Image(
        store=store,
        group=group,
        metadata=metadata,
        shapes=tuple(tuple(array.shape) for array in arrays),
        chunks=tuple(tuple(array.chunks) for array in arrays),
        dtypes=tuple(str(np.dtype(array.dtype).newbyteorder("=")) for array in arrays),
    )


def _check_levels(metadata: ImageMetadata, shapes: Sequence[tuple[int, ...]], where: str) -> None:
    """As many axes in each array as in the metadata, and no level larger than the one before."""
    for level, shape in zip(metadata.levels, shapes, strict=True):
        if len(shape) != len(metadata.axes):
            raise InputError.of(
                found=f"{where}: {len(metadata.axes)} axes in the metadata, {len(shape)} in array {level.path!r}",
                expected="as many in both",
                fix="rewrite the metadata",
            )
    for finer, coarser in itertools.pairwise(shapes):
        if any(b > a for a, b in zip(finer, coarser, strict=True)):
            raise InputError.of(
                found=f"{where}: a level of {finer} px is followed by one of {coarser} px",
                expected="levels from fine to coarse",
                fix="rewrite the metadata",
            )


# ---- new images


def level_shapes(shape: Sequence[int], levels: int | None = None) -> tuple[tuple[int, ...], ...]:
    """Shapes of a pyramid: y and x are halved and rounded up, other axes stay.

    Args:
        shape: of level 0.
        levels: how many; None halves until the smaller side is at most 256.

    >>> level_shapes((2, 1001, 600))
    ((2, 1001, 600), (2, 501, 300), (2, 251, 150))
    """
    shapes = [tuple(int(n) for n in shape)]
    while len(shapes) < levels if levels is not None else min(shapes[-1][-2:]) > 256:
        *leading, y, x = shapes[-1]
        shapes.append((*leading, -(-y // 2), -(-x // 2)))
    return tuple(shapes)


def create_image(
    address: str | Path,
    shape: Sequence[int],
    axes: str,
    dtype: npt.DTypeLike,
    chunks: Sequence[int],
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    depth: float | None = None,
    unit: str = "pixel",
    channels: Sequence[str] = (),
    version: Version = "0.5",
    shards: Sequence[int] | None = None,
    levels: int | None = None,
    name: str = "",
) -> tuple[ArrayRef, ...]:
    """Make the empty arrays of a new image, all levels; nobody sees an image before `commit_image`.

    The metadata is made and validated now and kept beside the arrays, where no reader looks; the commit publishes it.

    Args:
        address: of a new or unfinished store.
        shape, axes: as in (3, 8000, 8000), "cyx".
        chunks, shards: in pixels per axis; shards need version 0.5.
        spacing: of level 0, (y, x) in `unit`; "pixel" leaves the unit out.
        depth: distance of two sections in `unit`; None leaves it unknown.
        channels: names, one per channel; may be empty.
        levels: see `level_shapes`.

    Returns:
        The arrays, finest first.

    Raises:
        InputError: the metadata would not be valid.
        OutputError: the store cannot be written.

    >>> _ = create_image("memory://doc-image", (4, 6), "yx", "uint8", (4, 6))
    >>> commit_image("memory://doc-image").plane().shape
    (4, 6)
    """
    store, group = split_address(address)
    shapes = level_shapes(shape, levels)
    measured = "yx" if depth is None else "zyx"
    metadata = ImageMetadata(
        version=version,
        axes=tuple(Axis(name=a, kind="", unit=unit if a in measured and unit != "pixel" else "") for a in axes),
        levels=tuple(_new_level(i, axes, spacing, 1.0 if depth is None else depth) for i in range(len(shapes))),
        name=name,
        channels=tuple(channels),
    )
    document = image_document(metadata, dtype, str(address))
    parse_image(document, str(address))
    put_blob(store, _key(group, _PREPARED), json.dumps(document, allow_nan=False).encode())
    return _create_levels(store, group, axes, shapes, dtype, chunks, version, shards)


_PREPARED = ".sketchscale/image.json"


def commit_image(address: str | Path) -> Image:
    """Publish the metadata of an image whose arrays are complete: from here on it is one. Twice is as good as once.

    Raises:
        MissingDataError: nothing was prepared by `create_image`.
    """
    store, group = split_address(address)
    data = get_blob(store, _key(group, _PREPARED))
    if data is None:
        return _open_group(store, group)
    document = parse_json(data, f"{address}/{_PREPARED}")
    version = version_of(document, str(address))
    write_attributes(store, group, {**(read_attributes(store, group) or {}), **document}, version)
    delete_blob(store, _key(group, _PREPARED))
    return _open_group(store, group)


def _create_levels(
    store: str,
    group: str,
    axes: str,
    shapes: Sequence[tuple[int, ...]],
    dtype: npt.DTypeLike,
    chunks: Sequence[int],
    version: Version,
    shards: Sequence[int] | None,
) -> tuple[ArrayRef, ...]:
    if shards is not None and version == "0.4":
        raise InputError.of(found="shards in OME-Zarr 0.4", expected="shards in 0.5 only", fix="write version 0.5")
    refs = tuple(ArrayRef(store=store, path=_key(group, str(level))) for level in range(len(shapes)))
    for ref, shape in zip(refs, shapes, strict=True):
        create_array(
            ref,
            shape=shape,
            chunks=chunks,
            shards=_level_shards(shape, chunks, shards),
            dtype=dtype,
            zarr_format=3 if version == "0.5" else 2,
            dimension_names=tuple(axes) if version == "0.5" else None,
        )
    return refs


def _level_shards(shape: Sequence[int], chunks: Sequence[int], shards: Sequence[int] | None) -> tuple[int, ...] | None:
    """Shards of a level: whole chunks, no more of them than the level needs."""
    if shards is None:
        return None
    cut = [max(1, min(c, n)) for c, n in zip(chunks, shape, strict=True)]
    return tuple(c * max(1, min(s // c, -(-n // c))) for c, s, n in zip(cut, shards, shape, strict=True))


def _new_level(index: int, axes: str, spacing: tuple[float, float], depth: float = 1.0) -> Level:
    """Level `index` of our pyramids: y and x twice as large each time, and centres half a pixel further in; z stays."""
    base = {"y": spacing[0], "x": spacing[1]}
    scale = tuple(base[a] * 2**index if a in base else depth if a == "z" else 1.0 for a in axes)
    shift = tuple(base[a] * (2**index - 1) / 2 if a in base else 0.0 for a in axes)
    return Level(path=str(index), scale=scale, translation=shift)


# ---- labels


def create_labels(
    image: Image,
    name: str,
    *,
    dtype: npt.DTypeLike = "uint32",
    chunks: Sequence[int] = (512, 512),
    levels: int | None = None,
    shards: Sequence[int] | None = None,
) -> tuple[ArrayRef, ...]:
    """Make the empty arrays of a label image beside its image, (y, x) or (z, y, x); invisible until `commit_labels`.

    Args:
        name: of the labels: one path part.
        chunks, shards: (y, x); (z, y, x) makes label volumes, whose levels all keep the image's depth.
        levels: as many as the image has when None, as readers expect.

    Returns:
        The arrays, finest first, in the image's version of OME-Zarr.
    """
    if "/" in check_key(name, what="label name"):
        raise InputError.of(found=f"label name {name!r}", expected="a name without '/'", fix="choose another name")
    shapes = level_shapes(image.shapes[0][-len(chunks) :], levels or len(image.shapes))
    group, axes = _key(image.group, f"labels/{name}"), "zyx"[-len(chunks) :]
    return _create_levels(image.store, group, axes, shapes, dtype, chunks, image.metadata.version, shards)


def label_arrays(image: Image, name: str, levels: int | None = None) -> tuple[ArrayRef, ...]:
    """Where the arrays of a label image are, or will be, finest first; nothing is opened."""
    count = len(level_shapes(image.shapes[0][-2:], levels or len(image.shapes)))
    group = _key(image.group, f"labels/{name}")
    return tuple(ArrayRef(store=image.store, path=_key(group, str(level))) for level in range(count))


def delete_labels(image: Image, name: str) -> None:
    """Take a label image away: first its name, so that no reader sees half of it, then its arrays."""
    version, group = image.metadata.version, _key(image.group, "labels")
    old = read_attributes(image.store, group) or {}
    names = parse_labels(old, join_address(image.store, group))
    if name in names:
        document = labels_document(version, [n for n in names if n != name])
        write_attributes(image.store, group, {**old, **document}, version)
    delete_blobs(image.store, _key(group, name))


def commit_labels(
    image: Image,
    name: str,
    *,
    colors: Mapping[int, Sequence[int]] | None = None,
    properties: Sequence[Mapping[str, Any]] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write the metadata of a label image whose arrays are complete, then its name: from here on it is seen.

    Args:
        colors, properties: by label value; for classes, not for every object (see `new_metadata.label_document`).
        attributes: more for the label group, such as provenance; plain JSON.

    Raises:
        MissingDataError: its arrays were not made.
    """
    group = _key(image.group, f"labels/{name}")
    levels = _count_levels(image.store, group)
    rank = open_array(ArrayRef(store=image.store, path=_key(group, "0"))).ndim
    metadata = _label_metadata(image, name, levels, rank)
    document = label_document(metadata, join_address(image.store, group), colors=colors, properties=properties)
    write_attributes(image.store, group, {**(attributes or {}), **document}, image.metadata.version)
    _list_labels(image, name)


def _count_levels(store: str, group: str) -> int:
    count = 0
    while any(get_blob(store, _key(group, f"{count}/{kind}")) is not None for kind in ("zarr.json", ".zarray")):
        count += 1
    if not count:
        raise MissingDataError(f"{join_address(store, group)} has no arrays; expected: those of create_labels")
    return count


def _label_metadata(image: Image, name: str, levels: int, rank: int) -> ImageMetadata:
    """Axes, spacing and place of the image's level 0, in (y, x) or (z, y, x)."""
    finest, axes = image.metadata.levels[0], image.metadata.axes[-rank:]
    spacing, depth = (finest.scale[-2], finest.scale[-1]), finest.scale[-rank]
    shift = finest.translation[-rank:]
    new = (_new_level(i, "zyx"[-rank:], spacing, depth) for i in range(levels))
    placed = tuple(replace(n, translation=tuple(a + b for a, b in zip(n.translation, shift, strict=True))) for n in new)
    return ImageMetadata(version=image.metadata.version, axes=axes, levels=placed, name=name)


def _list_labels(image: Image, name: str) -> None:
    version, group = image.metadata.version, _key(image.group, "labels")
    _drop_consolidated(image)
    old = read_attributes(image.store, group) or {}
    names = parse_labels(old, join_address(image.store, group))
    document = labels_document(version, [*(n for n in names if n != name), name])
    write_attributes(image.store, group, {**old, **document}, version)


def _drop_consolidated(image: Image) -> None:
    """Consolidated metadata of the image group would hide the new labels from its readers."""
    data = get_blob(image.store, _key(image.group, "zarr.json"))
    if image.metadata.version == "0.4":
        delete_blob(image.store, _key(image.group, ".zmetadata"))
    elif data is not None and b'"consolidated_metadata"' in data:
        write_attributes(image.store, image.group, read_attributes(image.store, image.group) or {}, "0.5")
