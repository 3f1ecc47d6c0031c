"""Create images and label images that become visible only when they are finished.

The order of writing is the commit: first the arrays, then the metadata of a group, and the name of a label image in
`labels` after its own metadata. Until then no reader sees anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from sketchscale.errors import InputError, MissingDataError
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, open_array
from sketchscale.io.ome_zarr.groups import group_key, read_attributes, update_attributes, write_attributes
from sketchscale.io.ome_zarr.image import Image, open_group
from sketchscale.io.ome_zarr.metadata import Axis, ImageMetadata, Level, Version, parse_image, parse_labels, version_of
from sketchscale.io.ome_zarr.new_metadata import image_document, label_document, labels_document
from sketchscale.io.stores.addresses import join_address, split_address
from sketchscale.io.stores.blobs import check_key, delete_blob, delete_blobs, get_blob, put_blob
from sketchscale.io.stores.documents import parse_json

__all__ = [
    "commit_image",
    "commit_labels",
    "create_image",
    "create_labels",
    "delete_labels",
    "label_arrays",
    "level_arrays",
    "level_shapes",
]


def level_shapes(shape: Sequence[int], levels: int | None = None) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a pyramid: y and x are halved and rounded up, other axes stay.

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
    """Create the empty arrays of all levels of a new image, which stays invisible until `commit_image`.

    The metadata is made and validated now and stored where no reader looks; the commit publishes it.

    Args:
        address: of a new or unfinished store.
        shape, axes: as in (3, 8000, 8000), "cyx".
        chunks, shards: in pixels per axis; shards need version 0.5.
        spacing: of level 0, (y, x) in `unit`; with "pixel" no unit is written.
        depth: distance of two sections in `unit`; None if unknown.
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
    put_blob(store, group_key(group, _PREPARED), json.dumps(document, allow_nan=False).encode())
    return _create_levels(level_arrays(store, group, len(shapes)), axes, shapes, dtype, chunks, version, shards)


_PREPARED = ".sketchscale/image.json"


def commit_image(address: str | Path) -> Image:
    """Publish the metadata of an image whose arrays are complete, which makes it visible. Idempotent.

    Raises:
        MissingDataError: `create_image` prepared nothing.
    """
    store, group = split_address(address)
    data = get_blob(store, group_key(group, _PREPARED))
    if data is None:
        return open_group(store, group)
    document = parse_json(data, f"{address}/{_PREPARED}")
    version = version_of(document, str(address))
    write_attributes(store, group, {**(read_attributes(store, group) or {}), **document}, version)
    delete_blob(store, group_key(group, _PREPARED))
    return open_group(store, group)


def _create_levels(
    refs: tuple[ArrayRef, ...],
    axes: str,
    shapes: Sequence[tuple[int, ...]],
    dtype: npt.DTypeLike,
    chunks: Sequence[int],
    version: Version,
    shards: Sequence[int] | None,
) -> tuple[ArrayRef, ...]:
    if shards is not None and version == "0.4":
        raise InputError.of(found="shards in OME-Zarr 0.4", expected="shards in 0.5 only", fix="write version 0.5")
    for ref, shape in zip(refs, shapes, strict=True):
        cut: tuple[int, ...] | None = None
        if shards is not None:  # whole chunks, no more of them than the level needs
            sides = [(max(1, min(c, n)), s, n) for c, s, n in zip(chunks, shards, shape, strict=True)]
            cut = tuple(c * max(1, min(s // c, -(-n // c))) for c, s, n in sides)
        create_array(
            ref,
            shape=shape,
            chunks=chunks,
            shards=cut,
            dtype=dtype,
            zarr_format=3 if version == "0.5" else 2,
            dimension_names=tuple(axes) if version == "0.5" else None,
        )
    return refs


def _new_level(index: int, axes: str, spacing: tuple[float, float], depth: float = 1.0) -> Level:
    """Return level `index` of our pyramids: y and x double each time, centres move half a pixel inwards, z stays."""
    base = {"y": spacing[0], "x": spacing[1]}
    scale = tuple(base[a] * 2**index if a in base else depth if a == "z" else 1.0 for a in axes)
    shift = tuple(base[a] * (2**index - 1) / 2 if a in base else 0.0 for a in axes)
    return Level(path=str(index), scale=scale, translation=shift)


def create_labels(
    image: Image,
    name: str,
    *,
    dtype: npt.DTypeLike = "uint32",
    chunks: Sequence[int] = (512, 512),
    levels: int | None = None,
    shards: Sequence[int] | None = None,
) -> tuple[ArrayRef, ...]:
    """Create the empty arrays of a label image in its image, (y, x) or (z, y, x), invisible until `commit_labels`.

    Args:
        name: of the labels, without slash.
        chunks, shards: (y, x), or (z, y, x) for label volumes, whose levels all keep the depth of the image.
        levels: None means as many as the image has, as readers expect.

    Returns:
        The arrays, finest first, in the OME-Zarr version of the image.

    Raises:
        InputError: a name with a slash, or one that leaves the store.
        OutputError: the store cannot be written.
    """
    if "/" in check_key(name, what="label name"):
        raise InputError.of(found=f"label name {name!r}", expected="a name without '/'", fix="choose another name")
    shapes = level_shapes(image.shapes[0][-len(chunks) :], levels or len(image.shapes))
    group, axes = group_key(image.group, f"labels/{name}"), "zyx"[-len(chunks) :]
    refs = level_arrays(image.store, group, len(shapes))
    return _create_levels(refs, axes, shapes, dtype, chunks, image.metadata.version, shards)


def label_arrays(image: Image, name: str, levels: int | None = None) -> tuple[ArrayRef, ...]:
    """Return the existing or future arrays of a label image, finest first, without opening them."""
    count = len(level_shapes(image.shapes[0][-2:], levels or len(image.shapes)))
    return level_arrays(image.store, group_key(image.group, f"labels/{name}"), count)


def level_arrays(store: str, group: str, count: int) -> tuple[ArrayRef, ...]:
    """Return the arrays of the levels of an image that we wrote, finest first."""
    return tuple(ArrayRef(store=store, path=group_key(group, str(level))) for level in range(count))


def delete_labels(image: Image, name: str) -> None:
    """Delete a label image: first its name, so that no reader sees half of it, then its arrays."""
    version, group = image.metadata.version, group_key(image.group, "labels")
    where = join_address(image.store, group)
    if name in parse_labels(read_attributes(image.store, group) or {}, where):

        def unlisted(old: dict[str, Any]) -> dict[str, Any]:
            return {**old, **labels_document(version, [n for n in parse_labels(old, where) if n != name])}

        update_attributes(image.store, group, unlisted, version)
    delete_blobs(image.store, group_key(group, name))


def commit_labels(
    image: Image,
    name: str,
    *,
    colors: Mapping[int, Sequence[int]] | None = None,
    properties: Sequence[Mapping[str, Any]] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write the metadata of a label image whose arrays are complete, then its name, which makes it visible.

    Args:
        colors, properties: by label value; for classes, not for every object (see `new_metadata.label_document`).
        attributes: more attributes of the label group, such as provenance; plain JSON.

    Raises:
        MissingDataError: its arrays were not created.
    """
    version, parent = image.metadata.version, group_key(image.group, "labels")
    group, where = group_key(parent, name), join_address(image.store, parent)
    metadata = _label_metadata(image, name)
    document = label_document(metadata, join_address(image.store, group), colors=colors, properties=properties)
    write_attributes(image.store, group, {**(attributes or {}), **document}, version)
    # consolidated metadata of the image group would hide the new labels from its readers
    stored = get_blob(image.store, group_key(image.group, "zarr.json"))
    if version == "0.4":
        delete_blob(image.store, group_key(image.group, ".zmetadata"))
    elif stored is not None and b'"consolidated_metadata"' in stored:
        write_attributes(image.store, image.group, read_attributes(image.store, image.group) or {}, "0.5")

    def listed(old: dict[str, Any]) -> dict[str, Any]:
        names = [n for n in parse_labels(old, where) if n != name]
        return {**old, **labels_document(version, [*names, name])}

    update_attributes(image.store, parent, listed, version)


def _label_metadata(image: Image, name: str) -> ImageMetadata:
    """Return the metadata of stored label arrays: axes, spacing and place of level 0 of the image."""
    group, levels = group_key(image.group, f"labels/{name}"), 0
    while any(get_blob(image.store, f"{group}/{levels}/{kind}") is not None for kind in ("zarr.json", ".zarray")):
        levels += 1
    if not levels:
        raise MissingDataError(f"{join_address(image.store, group)} has no arrays; expected: those of create_labels")
    rank = open_array(level_arrays(image.store, group, 1)[0]).ndim
    finest, axes = image.metadata.levels[0], image.metadata.axes[-rank:]
    spacing, depth = (finest.scale[-2], finest.scale[-1]), finest.scale[-rank]
    shift = finest.translation[-rank:]
    new = (_new_level(i, "zyx"[-rank:], spacing, depth) for i in range(levels))
    placed = tuple(replace(n, translation=tuple(a + b for a, b in zip(n.translation, shift, strict=True))) for n in new)
    return ImageMetadata(version=image.metadata.version, axes=axes, levels=placed, name=name)
