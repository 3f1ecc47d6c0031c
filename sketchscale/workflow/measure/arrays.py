"""Measure and score arrays in memory, with the same figures as images in storage.

Measuring reads planes from a store, so the arrays are put into a temporary store in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
import xarray

from sketchscale.config import Execution
from sketchscale.errors import InputError
from sketchscale.evaluation import THRESHOLDS, score_overlaps
from sketchscale.evaluation.plan import collect_overlaps, plan_contingency
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.label_sources import ArrayLabels
from sketchscale.io.ome_zarr.new_images import commit_image, commit_labels, create_image, create_labels
from sketchscale.io.ome_zarr.table import read_table
from sketchscale.io.stores.addresses import memory_store
from sketchscale.objects.measurement.partials import AXES
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.named_axes import pixels_by_name, spacing_by_name
from sketchscale.workflow.runner import Runner

__all__ = ["evaluate_arrays", "measure_arrays"]

_LABELS = "labels"
_IDS = 2**32


def measure_arrays(
    image: npt.ArrayLike,
    labels: npt.ArrayLike,
    execution: Execution | None = None,
    *,
    features: Sequence[str] | None = None,
    without: Sequence[str] = (),
) -> pyarrow.Table:
    """Measure every object of a label array on its image.

    Args:
        image: shaped as the labels, or with channels in front: numpy, dask or xarray. Coordinates y and x of xarray
            with `units` such as micrometer, as `open_view` gives them, add measures in um to those in pixels.
        labels: (y, x) or (z, y, x), whole numbers, 0 background.
        features, without: see `workflow.measure.measure`.

    Returns:
        The table that `measure` stores for the same pixels, ordered by label.

    Raises:
        InputError: labels that do not fit the image or are no labels, or NaN or Inf among the pixels.
        UnknownNameError: no such feature.
    """
    spacing = spacing_by_name(pixels_by_name(image)) if isinstance(image, xarray.DataArray) else None
    pixels, ids = np.asarray(_plain(image)), _ids(labels, "labels")
    fits = pixels.ndim - ids.ndim in (0, 1) and pixels.shape[-ids.ndim :] == ids.shape
    if not fits or ids.ndim not in (2, 3) or 0 in pixels.shape:
        raise InputError.of(
            found=f"labels of shape {ids.shape} for an image of shape {pixels.shape}",
            expected="labels ([z,] y, x) for an image of that shape, or with channels in front",
            fix="cut or choose both alike",
        )
    if ids.size and int(ids.max()) >= _IDS:
        raise InputError.of(found=f"the label {int(ids.max())}", expected="labels below 2^32", fix="number them again")
    with memory_store() as address:
        _store(address, pixels, ids.astype(np.uint32), spacing)
        measure(address, _LABELS, _in_process(execution), features=features, without=without)
        return read_table(address, _LABELS)


def _plain(array: npt.ArrayLike) -> npt.ArrayLike:
    return pixels_by_name(array) if isinstance(array, xarray.DataArray) else array


def _ids(labels: npt.ArrayLike, what: str) -> npt.NDArray[Any]:
    """Return a checked label array; the axes of xarray are brought into the order y, x."""
    ids = np.asarray(_plain(labels))
    if ids.dtype.kind not in "iub" or (ids.size and int(ids.min()) < 0):
        raise InputError.of(
            found=f"{what} of type {ids.dtype}, with fractions or negative numbers",
            expected="whole numbers, 0 for background",
            fix="convert them, as in labels.astype('uint32')",
        )
    return ids


def _in_process(execution: Execution | None) -> Execution:
    """Return an execution within this process, because other processes cannot see arrays in memory."""
    execution = execution or Execution()
    return execution if execution.engine == "serial" else replace(execution, engine="threads", address=None)


def _store(
    address: str, pixels: npt.NDArray[Any], ids: npt.NDArray[np.uint32], spacing: tuple[float, float] | None
) -> None:
    chunks = (512, 512) if ids.ndim == 2 else (64,) * 3
    (level,) = create_image(
        address,
        pixels.shape,
        "c" * (pixels.ndim - ids.ndim) + AXES[-ids.ndim :],
        pixels.dtype,
        (1,) * (pixels.ndim - ids.ndim) + chunks,
        spacing=spacing or (1.0, 1.0),
        unit="pixel" if spacing is None else "micrometer",
        levels=1,
    )
    write_box(level, whole(pixels.shape), pixels)
    commit_image(address)
    image = open_image(address)
    (level,) = create_labels(image, _LABELS, chunks=chunks)
    write_box(level, whole(ids.shape), ids)
    commit_labels(image, _LABELS)


def evaluate_arrays(
    labels: npt.ArrayLike,
    truth: npt.ArrayLike,
    execution: Execution | None = None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, Any]:
    """Return scores of a label array; see metrics.Scores for each.

    Args:
        labels, truth: whole numbers, 0 background: numpy or dask, (y, x) or (z, y, x); or xarray, with axes y and x.
        thresholds: of the IoU.

    Returns:
        The record that `workflow.evaluate.evaluate` returns for the same pixels, with the arrays' names, or "array", in
        place of addresses.

    Raises:
        InputError: they differ in shape, are no labels, or a threshold is outside (0, 1].
    """
    found, true = _ids(labels, "labels"), _ids(truth, "truth")
    if found.shape != true.shape or found.ndim not in (2, 3) or 0 in found.shape:
        raise InputError.of(
            found=f"labels of shape {found.shape}, a truth of shape {true.shape}",
            expected="two label arrays of one shape, (y, x) or (z, y, x)",
            fix="cut or choose both alike",
        )
    execution = _in_process(execution)
    block = tuple(min(n, execution.block) for n in found.shape)
    plan = plan_contingency(ArrayLabels(pixels=found), ArrayLabels(pixels=true), block=block)
    with Runner(execution) as runner:
        overlaps = collect_overlaps(runner.run(plan))
    names = {"image": "array", "labels": _name(labels), "truth": _name(truth)}
    return {**names, **score_overlaps(overlaps, thresholds).as_dict()}


def _name(array: npt.ArrayLike) -> str:
    return str(getattr(array, "name", None) or "array") if isinstance(array, xarray.DataArray) else "array"
