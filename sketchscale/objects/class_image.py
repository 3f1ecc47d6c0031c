"""Tasks that write classes as images: the class of every object, or the objects of a single class.

    labels ──class-image──▶ uint8 image: position of the class in the list of names + 1, 0 for background
    labels ──class-mask-<n>──▶ labels of one class with their ids, which can be measured and counted like any others

Both read a lookup from label to class and each block of the labels once. The lookup takes one byte per label where
labels nearly count from 1.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Tile, tile_cover
from sketchscale.io.ome_zarr.arrays import ArrayRef, open_array, write_box
from sketchscale.io.ome_zarr.label_sources import LabelSource, read_labels, source_shape
from sketchscale.io.runs.partial_results import get_arrays, put_arrays

__all__ = ["plan_class_image", "plan_class_mask", "put_class_lookup"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClassImageJob:
    """`code`: the class that a mask keeps; 0 for the image of all classes."""

    labels: LabelSource
    target: ArrayRef
    store: str
    key: str
    code: int = 0


def put_class_lookup(store: str, prefix: str, table: pyarrow.Table, classes: Sequence[str]) -> str:
    """Store the class of each label for `plan_class_image` and return the key, which contains a digest of the content.

    Labels that nearly count from 1 become an array indexed by label, one byte each; others a sorted list.

    Args:
        table: with label and class; an object without a class, or with one that is not listed, becomes 0.
        classes: at most 255 names; the first is 1 in the class image.

    Raises:
        InputError: too many classes.
    """
    if len(classes) > 255:
        raise InputError.of(found=f"{len(classes)} classes", expected="at most 255", fix="merge some")
    place = pyarrow.compute.index_in(table.column("class"), pyarrow.array(classes, pyarrow.string()))
    codes = (place.fill_null(-1).to_numpy() + 1).astype(np.uint8)
    label = table.column("label").to_numpy().astype(np.uint64)
    largest = int(label.max(initial=0))
    if largest <= 8 * len(label) + 65536:
        by_label = np.zeros(largest + 2, np.uint8)  # the last entry, 0, stands for every larger label
        by_label[label] = codes
        by_label[0] = 0
        lookup = {"code": by_label}
    else:
        order = np.argsort(label)
        lookup = {"code": codes[order], "label": label[order]}
    # Workers cache lookups by key: other contents must have another one.
    digest = functools.reduce(lambda crc, array: zlib.crc32(array.tobytes(), crc), lookup.values(), 0)
    key = f"{prefix}/lookup-{digest:08x}.npz"
    put_arrays(store, key, lookup)
    return key


def plan_class_image(
    labels: LabelSource, target: ArrayRef, *, store: str, key: str, block: tuple[int, ...]
) -> Plan[Tile]:
    """Return the plan that writes the number of its class to every object's pixels.

    Args:
        target: uint8 array to fill, of the shape of the labels.
        store, key: of `put_class_lookup`.
        block: one length per axis, a whole number of write units of the target.

    Raises:
        InputError: labels and target differ in shape, or the target is not uint8.
    """
    return _plan("class-image", _ClassImageJob(labels=labels, target=target, store=store, key=key), block, "uint8")


def plan_class_mask(
    labels: LabelSource, target: ArrayRef, *, code: int, store: str, key: str, block: tuple[int, ...]
) -> Plan[Tile]:
    """Return the plan that copies the objects of one class with their ids; all others become background.

    Args:
        target: uint32 or uint64 array to fill, of the shape of the labels.
        code: number of the class in the class image, from 1.
        store, key, block: as of `plan_class_image`.

    Raises:
        InputError: labels and target differ in shape.
    """
    job = _ClassImageJob(labels=labels, target=target, store=store, key=key, code=code)
    return _plan(f"class-mask-{code}", job, block, str(open_array(target).dtype))


def _plan(stage: str, job: _ClassImageJob, block: tuple[int, ...], dtype: str) -> Plan[Tile]:
    array = open_array(job.target)
    if tuple(array.shape) != source_shape(job.labels) or array.dtype != np.dtype(dtype):
        raise InputError.of(
            found=f"{job.target} is {array.dtype} of {tuple(array.shape)}",
            expected=f"{dtype} of {source_shape(job.labels)}",
            fix="create it for these labels",
        )
    tasks, task_bytes = tile_cover(array.shape, block), 30 * int(np.prod(block))
    return Plan(stage=stage, fn=_write_block, tasks=tasks, config=job, task_bytes=task_bytes)


@functools.lru_cache(maxsize=2)
def _lookup(store: str, key: str) -> dict[str, npt.NDArray[Any]]:
    return get_arrays(store, key)


def _write_block(tile: Tile, job: _ClassImageJob) -> Json:
    labels, lookup = read_labels(job.labels, tile.write), _lookup(job.store, job.key)
    code = lookup["code"]
    if "label" in lookup:  # 0 for background and for labels without a class
        ids, place = np.unique(labels, return_inverse=True)
        row = np.minimum(np.searchsorted(lookup["label"], ids), len(code) - 1)
        codes = np.where((lookup["label"][row] == ids) & (ids > 0), code[row], 0)
        values = np.asarray(codes[place.reshape(labels.shape)], np.uint8)
    else:
        values = code[np.minimum(labels, len(code) - 1).astype(np.intp)]
    if job.code:
        values = np.where(values == job.code, labels, 0).astype(open_array(job.target).dtype)
    return {"checksum": write_box(job.target, tile.write, values)}
