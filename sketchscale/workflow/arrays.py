"""Arrays in and out: lazy views of what is stored, and the segmentation of an array in memory in one piece.

`segment_array` is the API for crops and the oracle of the stored pipeline: the same pixels give the same labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import numpy.typing as npt
import xarray

from sketchscale.config import Execution, SegmentOptions
from sketchscale.engine.base import Event
from sketchscale.engine.cancelling import check_cancelled
from sketchscale.errors import InputError, UnknownKindWarning
from sketchscale.geometry import whole
from sketchscale.integration.refine import refine_labels
from sketchscale.integration.ways import way_of
from sketchscale.intensity import array_ranges
from sketchscale.io.arrays import open_array
from sketchscale.io.image import open_image
from sketchscale.networks.checkpoint import Model, load_model
from sketchscale.prediction.blend import blend_box
from sketchscale.prediction.predictor import load_network, pad_tile, run_tiles
from sketchscale.prediction.rescale import fields_of_image, pixels_at_scale
from sketchscale.workflow.kinds import array_statistics, is_tested, judged, kind_warning
from sketchscale.workflow.named_axes import named_labels, plane_by_name
from sketchscale.workflow.runner import quiet
from sketchscale.workflow.segment import segment
from sketchscale.workflow.segment_job import (
    integration_config,
    recipe_of,
    refine_config,
    refuse_volume_network,
    scale_of,
    tile_grid,
    zoom_of,
)

__all__ = ["open_view", "predict_array", "segment_anything", "segment_array"]


def open_view(address: str | Path, labels: str | None = None, *, level: int = 0) -> xarray.DataArray:
    """A lazy view: nothing is read before it is computed.

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
    """Labels of an array (in memory), or of an image in storage (written beside it; a lazy view comes back).

    Args:
        image: an address of an OME-Zarr image, or (y, x) or (c, y, x) pixels: numpy or dask, or xarray, whose axes are
            found by name.
        options: model, labels, sizes; see SegmentOptions.
        execution, on_event: how stored images are run, and who is told.

    Returns:
        Of numpy and dask arrays uint32 (y, x); of xarray the same with the axes' names, their coordinates, and the name
        of the labels.

    Raises:
        InputError: see `segment_array`, `plane_by_name` and `workflow.segment.segment`.
    """
    options = options or SegmentOptions()
    if isinstance(image, xarray.DataArray):
        plane = plane_by_name(image)
        return named_labels(segment_array(plane, options), plane, options.labels)
    if not isinstance(image, str | Path):
        return segment_array(image, options)
    _warn(segment(str(image), options, execution, on_event).warning)
    return open_view(image, options.labels)


def segment_array(image: npt.ArrayLike, options: SegmentOptions | None = None) -> npt.NDArray[np.uint32]:
    """Labels of an image in memory; the same as `segment` stores for the same pixels.

    Args:
        image: (y, x) or (c, y, x); numpy, dask or xarray. Channels as the model reads them.

    Returns:
        uint32 (y, x), 0 background, objects numbered in raster order of their first pixel. Warns with
        `UnknownKindWarning` where the model does not know the kind of image.

    Raises:
        InputError: another shape, NaN or Inf pixels, a constant channel, or channels that the model does not read.

    >>> import numpy as np
    >>> y, x = np.mgrid[:64, :64]
    >>> blob = (200 * np.exp(-((y - 30) ** 2 + (x - 30) ** 2) / 60)).astype(np.uint8)
    >>> segment_array(blob).shape
    (64, 64)
    """
    options = options or SegmentOptions()
    model = load_model(options.model)
    refuse_volume_network(model.config, options.model)
    pixels = _pixels(image, model)
    fields = predict_array(pixels, model, options)
    rule = integration_config(model, options)
    labels = refine_labels(way_of(rule).whole(fields, rule), fields, refine_config(options))
    if is_tested(model.config):
        found = array_statistics(pixels, fields, model.config, scale_of(model, options))
        _warn(kind_warning("the image", options.model, judged(found, model.config), objects=int(labels.max())))
    return labels


def _warn(line: str) -> None:
    """To the caller of `segment_anything` or `segment_array`."""
    if line:
        warnings.warn(line, UnknownKindWarning, stacklevel=3)


def predict_array(pixels: npt.NDArray[Any], model: Model, options: SegmentOptions) -> npt.NDArray[np.float16]:
    """Blended fields (3, y, x) of pixels (c, y, x)."""
    ranges = array_ranges(pixels, low=model.config.low, high=model.config.high)
    zoom = zoom_of((pixels.shape[1], pixels.shape[2]), model, options)
    grid, recipe = tile_grid(zoom.scaled_shape, model, options), recipe_of(options)
    network = load_network(options.model, model.sha256, recipe)

    def run(position: int) -> npt.NDArray[np.float16]:
        check_cancelled()
        tile = pixels_at_scale(zoom, grid.box(position).clip(grid.shape), lambda b: pixels[(slice(None), *b.slices)])
        batch = [pad_tile(tile, grid.tile)] * recipe.batch
        return np.asarray(run_tiles(network, recipe, batch, ranges)[0])

    blended = blend_box(grid, whole(grid.shape), run)
    fields = fields_of_image(zoom, whole(zoom.shape), lambda b: blended[(slice(None), *b.slices)])
    return fields.astype(np.float16)


def _pixels(image: npt.ArrayLike, model: Model) -> npt.NDArray[Any]:
    pixels = np.asarray(image)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    channels = model.config.network.channels
    least = channels - model.config.absent_channels
    if pixels.ndim != 3 or not least <= pixels.shape[0] <= channels or 0 in pixels.shape:
        wanted = channels if least == channels else f"{least} to {channels}"
        raise InputError.of(
            found=f"an array of shape {np.shape(image)}",
            expected=f"(y, x) or (c, y, x) with {wanted} channels, not empty",
            fix="choose and order the channels",
        )
    return pixels
