"""Make the attributes of OME-Zarr groups from records, with the libraries of the format.

The classes of `ome-zarr` write axes and transformations as each version requires; then the models that readers use
validate the whole document. Our own store writes it, because the writers of `ome-zarr` set attributes at once, and here
an image must not be visible before it is finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ome_zarr_models.v04.image import ImageAttrs as ImageAttrs04
from ome_zarr_models.v04.image_label import ImageLabelAttrs as ImageLabelAttrs04
from ome_zarr_models.v05.image import ImageAttrs as ImageAttrs05
from ome_zarr_models.v05.image_label import ImageLabelAttrs as ImageLabelAttrs05
from pydantic import BaseModel

from sketchscale.io.ome_zarr.metadata import KINDS, ImageMetadata, Version, validated
from sketchscale.io.stores.documents import bad_metadata, one_line

__all__ = ["image_document", "label_document", "labels_document"]


_COLORS = ("FF0000", "00FF00", "0000FF", "FF00FF", "00FFFF", "FFFF00", "FFFFFF")
_NAMED = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}


def image_document(metadata: ImageMetadata, dtype: npt.DTypeLike, where: str) -> dict[str, Any]:
    """Return the validated attributes of an image group.

    Args:
        metadata: of the image.
        dtype: of the pixels, for the rendering window of the channels.
        where: the group, for errors.
    """
    ome: dict[str, Any] = {"multiscales": [_multiscale(metadata, "mean", where)]}
    if metadata.channels:
        kind = np.dtype(dtype)
        low, high = (0, 1) if kind.kind in "fb" else (int(np.iinfo(kind).min), int(np.iinfo(kind).max))
        window = {"min": low, "max": high, "start": max(0, low), "end": high}
        colors = [_NAMED.get(name, _COLORS[i % len(_COLORS)]) for i, name in enumerate(metadata.channels)]
        entries = zip(metadata.channels, colors, strict=True)
        channels = [{"label": name, "color": color, "active": True, "window": dict(window)} for name, color in entries]
        ome["omero"] = {"channels": channels}
    return _versioned(metadata.version, ome, ImageAttrs04, ImageAttrs05, where)


def label_document(
    metadata: ImageMetadata,
    where: str,
    *,
    colors: Mapping[int, Sequence[int]] | None = None,
    properties: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the validated attributes of one label group.

    Args:
        metadata: of the label image; its channels are ignored.
        where: the group, for errors.
        colors: (red, green, blue, opacity) by label value, 0 to 255. For classes, not for every object.
        properties: records that each have a "label-value"; also for classes only.
    """
    label: dict[str, Any] = {"source": {"image": "../../"}}
    if metadata.version == "0.4":
        label["version"] = "0.4"
    if colors:
        label["colors"] = [{"label-value": int(v), "rgba": [int(c) for c in rgba]} for v, rgba in colors.items()]
    if properties:
        label["properties"] = [dict(entry) for entry in properties]
    ome = {"multiscales": [_multiscale(metadata, "nearest", where)], "image-label": label}
    return _versioned(metadata.version, ome, ImageLabelAttrs04, ImageLabelAttrs05, where)


def labels_document(version: Version, names: Sequence[str]) -> dict[str, Any]:
    """Return the attributes of the `labels` group; without a version, readers may ignore the names."""
    return {"ome": {"version": "0.5", "labels": list(names)}} if version == "0.5" else {"labels": list(names)}


def _versioned(
    version: Version, ome: dict[str, Any], model04: type[BaseModel], model05: type[BaseModel], where: str
) -> dict[str, Any]:
    if version == "0.4":
        validated(model04, ome, where)
        return ome
    ome = {"version": "0.5", **ome}
    validated(model05, {k: v for k, v in ome.items() if k != "omero"}, where)
    return {"ome": ome}


def _multiscale(metadata: ImageMetadata, method: str, where: str) -> dict[str, Any]:
    from ome_zarr.axes import Axes  # takes a second to import, and only writers need it
    from ome_zarr.format import format_from_version

    version = format_from_version(metadata.version)
    datasets = []
    for level in metadata.levels:
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": list(level.scale)}]
        if any(level.translation):
            transforms.append({"type": "translation", "translation": list(level.translation)})
        datasets.append({"path": level.path, "coordinateTransformations": transforms})
    entries = [{"name": axis.name, "type": axis.kind or KINDS[axis.name]} for axis in metadata.axes]
    for entry, axis in zip(entries, metadata.axes, strict=True):
        if axis.unit:
            entry["unit"] = axis.unit
    try:
        axes = Axes(entries, fmt=version).to_list(version)
        version.validate_coordinate_transformations(
            len(axes), len(datasets), [dataset["coordinateTransformations"] for dataset in datasets]
        )
    except ValueError as error:
        raise bad_metadata(where, one_line(error)) from error
    document = {"name": metadata.name, "axes": axes, "datasets": datasets, "type": method}
    return {"version": version.version, **document} if version.zarr_format == 2 else document
