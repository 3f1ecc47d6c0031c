"""Arrays: lazy views of stored images, and segmentation of an array in memory as a whole.

`segment_array` is for crops, and the reference for the stored pipeline: the same pixels give the same labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import numpy.typing as npt
import xarray

from sketchscale.config import Execution, SegmentOptions
from sketchscale.engine.base import Event
from sketchscale.errors import InputError, UnknownKindWarning
from sketchscale.inference.backend import load_backend
from sketchscale.inference.plan import predict_array
from sketchscale.integration.refine import refine_labels
from sketchscale.integration.ways import way_of
from sketchscale.intensity import array_ranges
from sketchscale.io.ome_zarr.arrays import open_array
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.networks.checkpoint import Model, load_model
from sketchscale.workflow.named_axes import named_labels, pixels_by_name
from sketchscale.workflow.runner import quiet
from sketchscale.workflow.segment.found_scale import with_scale
from sketchscale.workflow.segment.job import (
    integration_config,
    recipe_of,
    refine_config,
    refuse_options_of_volumes,
    scale_of,
    views_for,
)
from sketchscale.workflow.segment.segment import segment
from sketchscale.workflow.segment.unknown_kinds import array_statistics, is_tested, kind_record, kind_warning

__all__ = ["fields_of_array", "open_view", "segment_anything", "segment_array"]


def open_view(address: str | Path, labels: str | None = None, *, level: int = 0) -> xarray.DataArray:
    """Return a lazy view: nothing is read before it is computed.

    Args:
        address: of an OME-Zarr image.
        labels: name of a label image to open instead of the intensities.
        level: of the pyramid, 0 is the finest.

    Returns:
        An xarray over dask chunks; dims are the image's axes, coordinates are positions, with their unit in the
        attribute `units` where the image names one.

    Raises:
        UnknownNameError: no labels of that name.
    """
    image = open_image(address)
    image = image.label_image(labels) if labels is not None else image
    array = open_array(image.array(level))
    found, axes = image.metadata.levels[level], image.metadata.order
    coordinates: dict[str, xarray.Variable] = {}
    for i, axis in enumerate(axes):
        if axis in "zyx":
            positions = found.translation[i] + found.scale[i] * np.arange(array.shape[i])
            unit = image.metadata.axes[i].unit
            coordinates[axis] = xarray.Variable(axis, positions, {"units": unit} if unit else {})
    if "c" in axes:
        coordinates["c"] = xarray.Variable("c", np.asarray(image.channels))
    lazy = dask.array.from_zarr(array)
    return xarray.DataArray(lazy, dims=tuple(axes), coords=coordinates, name=labels or image.metadata.name or None)


def segment_anything(
    image: str | Path | npt.ArrayLike,
    options: SegmentOptions | None = None,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
) -> npt.NDArray[np.uint32] | xarray.DataArray:
    """Return labels of an array in memory, or of an image in storage (written into it; returned as a lazy view).

    Args:
        image: an address of an OME-Zarr image, or pixels as for `segment_array`; of xarray, axes are found by name.
        options: model, labels, sizes; see SegmentOptions.
        execution, on_event: how stored images are run, and a callback for their progress.

    Returns:
        For numpy and dask arrays uint32 (y, x) or (z, y, x); for xarray the same with the axes' names, their
        coordinates, and the name of the labels.

    Raises:
        InputError: see `segment_array`, `pixels_by_name` and `workflow.segment.segment`.
    """
    options = options or SegmentOptions()
    if isinstance(image, xarray.DataArray):
        pixels = pixels_by_name(image)
        deep = replace(options, volume=options.volume or "z" in pixels.dims)
        return named_labels(segment_array(pixels, deep), pixels, options.labels)
    if not isinstance(image, str | Path):
        return segment_array(image, options)
    _warn(segment(str(image), options, execution, on_event).warning)
    return open_view(image, options.labels)


def segment_array(image: npt.ArrayLike, options: SegmentOptions | None = None) -> npt.NDArray[np.uint32]:
    """Return labels of an image in memory; the same as `segment` stores for the same pixels.

    Args:
        image: (y, x), (c, y, x), (z, y, x) or (c, z, y, x); numpy, dask or xarray. Channels in the model's order.
            Three axes are (c, y, x) where the first is as long as the model has channels; else sections, where the
            first and the last are longer than 4 or `volume` is set.
        options: `anisotropy` None is 1.

    Returns:
        uint32 (y, x) or (z, y, x), 0 background, objects numbered in raster order of their first pixel. Warns with
        `UnknownKindWarning` where the model does not know the kind of image.

    Raises:
        InputError: another shape, NaN or Inf pixels, a constant channel, or channels that the model does not read.

    >>> import numpy as np
    >>> y, x = np.mgrid[:64, :64]
    >>> blob = (200 * np.exp(-((y - 30) ** 2 + (x - 30) ** 2) / 60)).astype(np.uint8)
    >>> segment_array(blob).shape, segment_array(np.stack([blob] * 6)).shape
    ((64, 64), (6, 64, 64))
    """
    options = options or SegmentOptions()
    model = load_model(options.model)
    pixels = _pixels(image, model, options)
    options = replace(options, volume=pixels.ndim == 4)
    refuse_options_of_volumes(options)
    options = with_scale(options, model, pixels.shape[1:], lambda box: pixels[(slice(None), *box.slices)])
    fields = fields_of_array(pixels, model, options)
    rule = integration_config(model, options, options.anisotropy or 1.0)
    labels = refine_labels(way_of(rule).whole(fields, rule), fields, refine_config(options))
    if is_tested(model.config) and not options.volume:
        found = array_statistics(pixels, fields, model.config, scale_of(model, options))
        _warn(kind_warning("the image", options.model, kind_record(found, model.config), objects=int(labels.max())))
    return labels


def _warn(line: str) -> None:
    """Warn the caller of `segment_anything` or `segment_array`."""
    if line:
        warnings.warn(line, UnknownKindWarning, stacklevel=3)


def fields_of_array(pixels: npt.NDArray[Any], model: Model, options: SegmentOptions) -> npt.NDArray[np.float16]:
    """Return blended fields (axes + 1, ...) of pixels (c, y, x) or (c, z, y, x)."""
    views = views_for(pixels.shape[1:], model, options, options.anisotropy or 1.0)
    ranges = array_ranges(pixels, low=model.config.low, high=model.config.high)
    return predict_array(pixels, load_backend(options.model, model.sha256, recipe_of(options)), views, ranges)


_FEW = 4
"""An axis of at most this length holds channels, unless `volume` is set."""


def _pixels(image: npt.ArrayLike, model: Model, options: SegmentOptions) -> npt.NDArray[Any]:
    """Return the pixels as (c, y, x) or (c, z, y, x)."""
    pixels = np.asarray(image)
    most = model.config.network.channels
    least = most - model.config.absent_channels
    deep = options.volume or model.config.network.dim == 3
    if pixels.ndim == 3 and not least <= pixels.shape[0] <= most:
        deep = deep or min(pixels.shape[0], pixels.shape[-1]) > _FEW
    if pixels.ndim == 2 or (pixels.ndim == 3 and deep):
        pixels = pixels[None]
    known = (4,) if options.volume else (3, 4)
    if pixels.ndim not in known or not least <= pixels.shape[0] <= most or 0 in pixels.shape:
        wanted = most if least == most else f"{least} to {most}"
        raise InputError.of(
            found=f"an array of shape {np.shape(image)}",
            expected=f"(y, x), (c, y, x), (z, y, x) or (c, z, y, x) with {wanted} channels, not empty",
            fix="choose and order the channels; volume=True where the first axis is sections",
        )
    return pixels
