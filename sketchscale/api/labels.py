"""The public functions that train a model and outline objects with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray

from sketchscale.api.fields import options_and_execution
from sketchscale.config import Execution, SegmentOptions, TrainOptions
from sketchscale.engine.base import Event
from sketchscale.engine.cancelling import cancelled_by
from sketchscale.errors import InputError
from sketchscale.workflow.runner import quiet
from sketchscale.workflow.segment.arrays import segment_anything
from sketchscale.workflow.train import train as training

__all__ = ["segment", "train"]


def segment(
    image: str | Path | npt.ArrayLike,
    options: SegmentOptions | None = None,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    cancel: threading.Event | None = None,
    **fields: Any,
) -> npt.NDArray[np.uint32] | xarray.DataArray:
    """Return labels of an array in memory, or of an image in storage (written into it; returned as a lazy view).

    Args:
        image: an address of an OME-Zarr image, or (y, x) or (c, y, x) pixels: numpy or dask, or xarray, whose axes are
            found by name.
        options: model, labels, sizes; see SegmentOptions.
        execution: how stored images are run; see Execution.
        on_event: called with the progress on a stored image.
        cancel: ends the work with `Cancelled` once it is set; for a stored image, `resume` continues.
        fields: fields of both as keyword arguments, as in `segment(image, model="my-model", min_size=20)`.

    Returns:
        Of numpy and dask arrays uint32 (y, x), 0 background; of xarray a DataArray with axes, coordinates and a name.

    Raises:
        UnknownNameError: a keyword argument that is no option.
        InputError: an option out of range, or pixels that the model does not read.

    >>> import numpy as np
    >>> y, x = np.mgrid[:96, :96]
    >>> disc = np.uint8(20 + 150 * (np.hypot(y - 48, x - 40) < 10))
    >>> segment(disc, min_size=20).max()
    np.uint32(1)
    """
    chosen, how = options_and_execution("segment", SegmentOptions, options, execution, fields)
    with cancelled_by(cancel):
        return segment_anything(image, chosen, how, on_event)


def train(
    image: str | Path | Sequence[str | Path] | TrainOptions | None = None,
    options: TrainOptions | None = None,
    execution: Execution | None = None,
    on_step: Callable[[str], None] = lambda line: None,
    on_event: Callable[[Event], None] = quiet,
    *,
    cancel: threading.Event | None = None,
    **fields: Any,
) -> training.TrainResult:
    """Train a model on images with sketches, as in `train("a.zarr", sketch="a.jsonl", out="my-model", minutes=2)`.

    Args:
        image: address of an image, or several; or the options.
        options: images, sketches, where to write and how to train; see TrainOptions.
        execution: see Execution.
        on_step: called with a line of text every so often.
        cancel: ends the training with `Cancelled` once it is set; its state is saved for `resume`.
        fields: fields of both as keyword arguments, or the names of their flags.

    Raises:
        UnknownNameError: a keyword argument that is no option.
        InputError: nothing to train on, or a sketch that does not fit its image; see `workflow.train.train`.
    """
    if isinstance(image, str | Path | Sequence):
        fields["images"] = image
    elif image is not None:
        options = image
    chosen, how = options_and_execution("train", TrainOptions, options, execution, fields)
    if len(chosen.images) != len(chosen.sketches) or not (chosen.images or chosen.synthetic):
        raise InputError.of(
            found=f"train(): {len(chosen.images)} images and {len(chosen.sketches)} sketches",
            expected="a sketch for each image, or a synthesis",
            fix='train("image.zarr", sketch="strokes.jsonl")',
        )
    return training.train(chosen, how, on_step, on_event, cancel=cancel)
