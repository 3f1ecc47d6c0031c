"""The same segmentation on an array in memory, in one piece: the API for crops, and the oracle of the stored pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.config import SegmentOptions
from sketchscale.errors import InputError
from sketchscale.geometry import whole
from sketchscale.integration.plan import integrate
from sketchscale.intensity import array_ranges
from sketchscale.networks.checkpoint import Model, load_model
from sketchscale.prediction.blend import TileGrid, blend_box
from sketchscale.prediction.predictor import load_network, pad_tile, run_tiles
from sketchscale.workflow.segment import integration_config, recipe_of, tile_grid

__all__ = ["predict_array", "segment_array"]


def segment_array(image: npt.ArrayLike, options: SegmentOptions | None = None) -> npt.NDArray[np.uint32]:
    """Labels of an image in memory; the same as `segment` stores for the same pixels.

    Args:
        image: (y, x) or (c, y, x); numpy, dask or xarray. Channels as the model reads them.

    Returns:
        uint32 (y, x), 0 background, objects numbered in raster order of their first pixel.

    Raises:
        InputError: another shape, NaN or Inf pixels, a constant channel, or channels that the model does not read.

    >>> import numpy as np
    >>> blobs = np.random.default_rng(0).poisson(9, (64, 64)).astype(np.uint8)
    >>> segment_array(blobs).shape
    (64, 64)
    """
    options = options or SegmentOptions()
    model = load_model(options.model)
    return integrate(predict_array(_pixels(image, model), model, options), integration_config(model, options))


def predict_array(
    pixels: npt.NDArray[Any], model: Model, options: SegmentOptions
) -> npt.NDArray[np.float16]:
    """Blended fields (3, y, x) of pixels (c, y, x)."""
    ranges = array_ranges(pixels, low=model.config.low, high=model.config.high)
    grid, recipe = tile_grid((pixels.shape[1], pixels.shape[2]), model, options), recipe_of(options)
    network = load_network(options.model, model.sha256, recipe)

    def run(position: int) -> npt.NDArray[np.float16]:
        tile = pixels[(slice(None), *grid.box(position).clip(grid.shape).slices)]
        batch = [pad_tile(tile, grid.tile)] * recipe.batch
        return np.asarray(run_tiles(network, recipe, batch, ranges)[0])

    return blend_box(grid, whole(grid.shape), run).astype(np.float16)


def _pixels(image: npt.ArrayLike, model: Model) -> npt.NDArray[Any]:
    pixels = np.asarray(image)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    channels = model.config.network.channels
    if pixels.ndim != 3 or pixels.shape[0] != channels or 0 in pixels.shape:
        raise InputError.of(
            found=f"an array of shape {np.shape(image)}",
            expected=f"(y, x) or (c, y, x) with {channels} channels, not empty",
            fix="choose and order the channels",
        )
    return pixels
