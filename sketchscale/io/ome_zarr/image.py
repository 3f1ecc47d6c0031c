"""Open OME-Zarr images: metadata and addresses, without reading a pixel.

    store                      an address (folder, zip, bucket prefix, memory)
    └── group                  usually the root of the store; "B/3/0" for a field of a plate
        ├── 0, 1, ...          arrays of the pyramid: names come from the metadata, never guessed
        └── labels
            └── cells          a label image: its own pyramid, colours and source

`planes` reads pixels, `new_images` makes new images.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sketchscale.errors import InputError, MissingDataError, UnknownNameError
from sketchscale.io.ome_zarr.arrays import ArrayRef, open_array
from sketchscale.io.ome_zarr.groups import group_key, read_attributes
from sketchscale.io.ome_zarr.metadata import ImageMetadata, ome_attributes, parse_image, parse_labels
from sketchscale.io.ome_zarr.planes import PixelsRef
from sketchscale.io.stores.addresses import join_address, split_address
from sketchscale.io.stores.blobs import blob_stats, check_key, get_blob, has_blobs

__all__ = ["Image", "open_group", "open_image", "series_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An open OME-Zarr image: metadata and addresses, no pixels; picklable.

    Attributes:
        store: address of the store.
        group: path of the image inside it, "" for the root.
        metadata: as parsed.
        shapes, chunks: of the array of each level, in its axes.
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
        """The address of the image, as a user would write it."""
        return join_address(self.store, self.group)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels; "channel_0" and so on if the file has none."""
        order = self.metadata.order
        count = self.shapes[0][order.index("c")] if "c" in order else 1
        named = self.metadata.channels
        return named if len(named) == count else tuple(f"channel_{i}" for i in range(count))

    def array(self, level: int = 0) -> ArrayRef:
        """Return the array of a level.

        Raises:
            InputError: no such level.
        """
        if not 0 <= level < len(self.metadata.levels):
            raise InputError.of(
                found=f"{self.address}: level {level}",
                expected=f"0 to {len(self.metadata.levels) - 1}",
                fix="choose an existing level",
            )
        return ArrayRef(store=self.store, path=group_key(self.group, self.metadata.levels[level].path))

    def plane(self, level: int = 0, t: int | None = None, z: int | None = None) -> PixelsRef:
        """Return one plane with all channels.

        Args:
            level: 0 is the finest.
            t, z: position; optional if the axis is absent or of length 1.

        Raises:
            InputError: several time points or slices without a position, or a position outside.
        """
        array, order = self.array(level), self.metadata.order
        chosen = {"t": t, "z": z}
        index = tuple((name, self._position(name, chosen[name], level)) for name in order if name in "tz")
        for name, position in chosen.items():
            if position and name not in order:
                raise InputError.of(
                    found=f"{self.address} has no {name} axis", expected=f"{name} 0", fix=f"leave {name} out"
                )
        return self._pixels(level, array, index, 2)

    def volume(self, level: int = 0, t: int | None = None) -> PixelsRef:
        """Return the whole depth with all channels.

        Args:
            level: 0 is the finest.
            t: position; optional if the axis is absent or of length 1.

        Raises:
            InputError: no z axis directly before y and x, or several time points without a position.
        """
        array, order = self.array(level), self.metadata.order
        if order[-3:] != "zyx":
            raise InputError.of(
                found=f"{self.address} has axes {order!r}", expected="a volume: axes that end with zyx", fix="a 2-D run"
            )
        if t and "t" not in order:
            raise InputError.of(found=f"{self.address} has no t axis", expected="t 0", fix="leave t out")
        index = (("t", self._position("t", t, level)),) if "t" in order else ()
        return self._pixels(level, array, index, 3)

    def _pixels(self, level: int, array: ArrayRef, index: tuple[tuple[str, int], ...], ndim: int) -> PixelsRef:
        channels, (spacing, unit) = self.channels, self.metadata.sizes(level, ndim)
        return PixelsRef(
            array=array,
            axes=self.metadata.order,
            index=index,
            shape=self.shapes[level][-ndim:],
            channels=channels,
            dtype=self.dtypes[level],
            spacing=spacing,
            unit=unit,
            chunks=self.chunks[level][-ndim:],
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
        """Names of the existing label images, as the file lists them now."""
        group = group_key(self.group, "labels")
        return parse_labels(read_attributes(self.store, group), join_address(self.store, group))

    def label_image(self, name: str) -> Image:
        """Open a label image.

        Raises:
            UnknownNameError: no such labels; lists the existing ones.
            InputError: its pixels are not whole numbers.
        """
        known = self.labels
        if name not in known:
            raise UnknownNameError.among(f"labels in {self.address}:", name, known)
        image = open_group(self.store, group_key(self.group, f"labels/{name}"))
        if np.dtype(image.dtypes[0]).kind not in "iu":
            raise InputError.of(
                found=f"{image.address}: labels of type {image.dtype}", expected="whole numbers", fix="convert them"
            )
        return image

    def label_ref(self, name: str, level: int = 0) -> ArrayRef:
        """Return the array of a label image; see `label_image`."""
        return self.label_image(name).array(level)

    def metadata_digest(self) -> str:
        """Return the SHA-256 of the OME metadata alone: axes, spacing, channels, levels."""
        attributes = read_attributes(self.store, self.group) or {}
        text = json.dumps(ome_attributes(attributes, self.address), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def identity(self) -> str:
        """Return a SHA-256 of the metadata and of (key, size, time or tag) of level 0; no pixel is read.

        Rewriting any chunk changes it. So does copying a folder without keeping the times.
        """
        attributes = read_attributes(self.store, self.group) or {}
        stats = blob_stats(self.store, self.array().path)
        text = json.dumps([ome_attributes(attributes, self.address), stats], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def open_image(address: str | Path, *, series: int = 0) -> Image:
    """Open an OME-Zarr image; no pixel is read.

    Args:
        address: a folder, a zip, a URL, a field of a plate (`plate.zarr/B/3/0`) or a label image.
        series: which image of a collection (bioformats2raw layout).

    Raises:
        MissingDataError: it does not exist, or an array that the metadata names does not.
        InputError: not an OME-Zarr image of version 0.4 or 0.5, or inconsistent metadata.
    """
    store, group = split_address(address)
    attributes = read_attributes(store, group)
    if attributes is None:
        get_blob(store, "zarr.json")  # raises if the store cannot be read
        if not has_blobs(store):
            raise MissingDataError(f"{address} does not exist; expected: an OME-Zarr image; to fix: check the path")
        raise InputError.of(
            found=f"{address}: no Zarr group", expected="an OME-Zarr image", fix="sketchscale convert it"
        )
    ome = ome_attributes(attributes, str(address))
    if "multiscales" not in ome and "plate" in ome:
        raise InputError.of(
            found=f"{address} is a plate", expected="one image", fix=f"name a field, as in {address}/A/1/0"
        )
    if "multiscales" not in ome and "bioformats2raw.layout" in ome:
        paths = series_of(store, group)
        if not 0 <= series < len(paths):
            raise InputError.of(
                found=f"{address}: series {series} of {len(paths)}",
                expected=f"0 to {len(paths) - 1}",
                fix="choose an existing series",
            )
        group = group_key(group, paths[series])
    return open_group(store, group)


def series_of(store: str, group: str = "") -> tuple[str, ...]:
    """Return the paths of the images of a collection: those that `OME` lists, else the groups 0, 1, ..."""
    attributes = read_attributes(store, group_key(group, "OME"))
    listed = ome_attributes(attributes or {}, join_address(store, group_key(group, "OME"))).get("series")
    if isinstance(listed, list) and listed:
        return tuple(check_key(path, what=f"{store}: series") for path in listed[:10_000])
    paths: list[str] = []
    while read_attributes(store, group_key(group, str(len(paths)))) is not None:
        paths.append(str(len(paths)))
    return tuple(paths)


def open_group(store: str, group: str) -> Image:
    """Open the image of a group; see `open_image`."""
    address = join_address(store, group)
    attributes = read_attributes(store, group)
    if attributes is None:
        raise MissingDataError(f"{address} does not exist; expected: an OME-Zarr image; to fix: check the path")
    metadata = parse_image(attributes, address)
    arrays = [open_array(ArrayRef(store=store, path=group_key(group, level.path))) for level in metadata.levels]
    for level, array in zip(metadata.levels, arrays, strict=True):
        if array.ndim != len(metadata.axes):
            raise InputError.of(
                found=f"{address}: {len(metadata.axes)} axes in the metadata, {array.ndim} in array {level.path!r}",
                expected="as many in both",
                fix="rewrite the metadata",
            )
    for finer, coarser in itertools.pairwise(array.shape for array in arrays):
        if any(b > a for a, b in zip(finer, coarser, strict=True)):
            raise InputError.of(
                found=f"{address}: a level of {finer} px is followed by one of {coarser} px",
                expected="levels from fine to coarse",
                fix="rewrite the metadata",
            )
    return Image(
        store=store,
        group=group,
        metadata=metadata,
        shapes=tuple(tuple(array.shape) for array in arrays),
        chunks=tuple(tuple(array.chunks) for array in arrays),
        dtypes=tuple(str(np.dtype(array.dtype).newbyteorder("=")) for array in arrays),
    )
