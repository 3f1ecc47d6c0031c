"""Tasks that give every object a class: each object belongs to the block of its centroid.

    table ──deal_objects──▶ objects/<block>.npz      who is looked at where
    labels, image ──classify──▶ classes/<block>.npz  probabilities; labels and image are read once a block, with a halo
    ──collect_classes──▶ the table with its class columns
    labels ──class-image──▶ uint8 image: position of the class in the classifier's list + 1, 0 for background

Probabilities are those of the patch alone (`classify`), so blocks change no byte. What a person said wins over what the
network says.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Tile, tile_cover
from sketchscale.io.arrays import ArrayRef, open_array, write_box
from sketchscale.io.blobs import get_arrays, put_arrays
from sketchscale.io.image import PlaneRef, read_plane
from sketchscale.objects.classifiers import Classifier
from sketchscale.objects.patches import Windows, cut_patches, object_windows
from sketchscale.objects.sources import LabelSource, label_shape, read_labels

__all__ = ["collect_classes", "deal_objects", "plan_class_image", "plan_classify", "put_class_lookup"]

_WINDOW_FIELDS = ("label", "corner", "center", "cropped")


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClassifyJob:
    labels: LabelSource
    plane: PlaneRef
    classifier: Classifier
    ranges: tuple[tuple[float, float], ...]
    block: tuple[int, int]
    store: str
    prefix: str


def plan_classify(
    labels: LabelSource,
    plane: PlaneRef,
    classifier: Classifier,
    *,
    store: str,
    block: tuple[int, int],
    ranges: Sequence[tuple[float, float]] | None = None,
    prefix: str = "classify",
) -> Plan[Tile]:
    """Class probabilities of all objects; run `deal_objects` before it and `collect_classes` after it.

    Args:
        labels, plane: of one shape; the plane has the classifier's channels.
        store, prefix: where objects and probabilities of each block are kept.
        block: (y, x) in pixels.
        ranges: (low, high) of each channel that become 0 and 1; the classifier's own when None.

    Raises:
        InputError: channels differ from the classifier's, or labels and plane in shape.
    """
    classifier.check_channels(plane.channels)
    if label_shape(labels) != plane.shape:
        raise InputError.of(
            found=f"labels of {label_shape(labels)}, an image of {plane.shape}",
            expected="one shape (y, x)",
            fix="classify on the level that was segmented",
        )
    job = _ClassifyJob(
        labels=labels,
        plane=plane,
        classifier=classifier,
        ranges=tuple(ranges) if ranges is not None else classifier.config.ranges,
        block=block,
        store=store,
        prefix=prefix,
    )
    side = classifier.config.side
    pixels = (block[0] + side + 1) * (block[1] + side + 1)
    depth = np.dtype(plane.dtype).itemsize * len(plane.channels) + 4
    # A batch, its padded copy, and the widest layers between its convolutions: 16 filters, three times.
    number, channels = classifier.batch_shape()[:2]
    batch_bytes = 4 * number * side * side * (3 * channels + 48)
    return Plan(
        stage="classify",
        fn=_classify_block,
        tasks=tile_cover(plane.shape, block, halo=(side + 1) // 2),
        config=job,
        task_bytes=2 * pixels * depth + batch_bytes,
    )


def deal_objects(plan: Plan[Tile], table: pyarrow.Table) -> None:
    """Write down which objects each block of a plan classifies.

    Args:
        plan: of `plan_classify`.
        table: the feature table of the labels.

    Raises:
        InputError: the table lacks a column, or has an object outside the plane.
    """
    job: _ClassifyJob = plan.config
    windows = object_windows(table, job.classifier.config.side)
    shape, block = np.array(job.plane.shape), np.array(job.block)
    if len(windows.label) and not ((windows.center >= 0).all() and (windows.center < shape).all()):
        raise InputError.of(found="objects outside the image", expected="its own table", fix="measure these labels")
    columns = -(-job.plane.shape[1] // job.block[1])
    cell = windows.center // block
    number = cell[:, 0] * columns + cell[:, 1]
    order = np.argsort(number, kind="stable")
    first = np.searchsorted(number[order], np.arange(len(plan.tasks) + 1))
    for i, task in enumerate(plan.tasks):
        mine = windows.take(order[first[i] : first[i + 1]])
        put_arrays(job.store, _key(job, "objects", task), {name: getattr(mine, name) for name in _WINDOW_FIELDS})


def _key(job: _ClassifyJob, kind: str, tile: Tile) -> str:
    return f"{job.prefix}/{kind}/{tile.key}.npz"


def _classify_block(tile: Tile, job: _ClassifyJob) -> Json:
    windows = Windows(**get_arrays(job.store, _key(job, "objects", tile)), side=job.classifier.config.side)
    batches = _batches_of(tile, job, windows) if len(windows.label) else iter(())
    probabilities = job.classifier.predict(batches)
    arrays = {"label": windows.label, "cropped": windows.cropped, "probabilities": probabilities}
    put_arrays(job.store, _key(job, "classes", tile), arrays)
    return {"objects": len(windows.label)}


def _batches_of(tile: Tile, job: _ClassifyJob, windows: Windows) -> Iterator[npt.NDArray[np.float32]]:
    labels, image = read_labels(job.labels, tile.read), read_plane(job.plane, tile.read)
    size = job.classifier.batch_shape()[0]
    for first in range(0, len(windows.label), size):
        some = windows.take(np.arange(first, min(first + size, len(windows.label))))
        yield cut_patches(labels, image, tile.read.start, some, job.ranges)


def collect_classes(plan: Plan[Tile], table: pyarrow.Table, examples: Mapping[int, str] | None = None) -> pyarrow.Table:
    """The feature table with its class columns, replacing those of an earlier classification.

    Args:
        plan: of `plan_classify`, after it has run on the objects of `table`.
        examples: class that a person gave, by label; these objects keep it.

    Returns:
        Rows as in `table`, with `class`; `class_prob`, the network's probability of its own choice (for an annotated
        object, of the class the person gave: a low one is worth a second look; missing when the classifier has no such
        class); `class_source`, "model" or "user"; `in_training`; `patch_cropped`, larger than the patch.

    Raises:
        InputError: an object of the table was not classified.
    """
    job: _ClassifyJob = plan.config
    parts = [get_arrays(job.store, _key(job, "classes", task)) for task in plan.tasks]
    label = np.concatenate([np.zeros(0, np.int64), *(p["label"] for p in parts)])
    wanted = table.column("label").to_numpy()
    order = np.argsort(label)
    if not np.array_equal(label[order], np.sort(wanted)):
        raise InputError.of(
            found=f"{len(label)} classified objects for a table of {len(wanted)}",
            expected="the same objects",
            fix="classify again after measuring",
        )
    rows = order[np.searchsorted(label[order], wanted)]
    names = job.classifier.config.classes
    probabilities = np.concatenate([np.zeros((0, len(names)), np.float32), *(p["probabilities"] for p in parts)])[rows]
    cropped = np.concatenate([np.zeros(0, bool), *(p["cropped"] for p in parts)])[rows]
    return _with_columns(table, _class_columns(wanted, names, probabilities, dict(examples or {})), cropped)


def _class_columns(
    label: npt.NDArray[np.int64], names: Sequence[str], probabilities: npt.NDArray[np.float32], said: Mapping[int, str]
) -> dict[str, list[Any]]:
    choice = probabilities.argmax(axis=1) if len(label) else np.zeros(0, np.int64)
    classes: list[str] = [names[i] for i in choice]
    certain: list[float | None] = [float(p) for p in probabilities.max(axis=1, initial=0)]
    user = np.isin(label, np.array(list(said), np.int64))
    for row in np.flatnonzero(user):
        classes[row] = said[int(label[row])]
        certain[row] = float(probabilities[row, names.index(classes[row])]) if classes[row] in names else None
    return {
        "class": classes,
        "class_prob": certain,
        "class_source": ["user" if u else "model" for u in user],
        "in_training": user.tolist(),
    }


def _with_columns(
    table: pyarrow.Table, columns: Mapping[str, list[Any]], cropped: npt.NDArray[np.bool_]
) -> pyarrow.Table:
    types = [pyarrow.string(), pyarrow.float32(), pyarrow.string(), pyarrow.bool_()]
    arrays = {name: pyarrow.array(v, kind) for (name, v), kind in zip(columns.items(), types, strict=True)}
    arrays["patch_cropped"] = pyarrow.array(cropped)
    table = table.drop_columns([name for name in arrays if name in table.column_names])
    for name, array in arrays.items():
        table = table.append_column(name, array)
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClassImageJob:
    labels: LabelSource
    target: ArrayRef
    store: str
    key: str


def put_class_lookup(store: str, prefix: str, table: pyarrow.Table, classes: Sequence[str]) -> str:
    """Write which label has which class, for `plan_class_image`; returns the key, which names the contents.

    Args:
        table: with label and class; an object without class, or of one that is not listed, becomes 0.
        classes: at most 255 names; the first is 1 in the class image.

    Raises:
        InputError: too many classes.
    """
    if len(classes) > 255:
        raise InputError.of(found=f"{len(classes)} classes", expected="at most 255", fix="merge some")
    code = {name: i + 1 for i, name in enumerate(classes)}
    label = table.column("label").to_numpy().astype(np.uint64)
    codes = np.array([code.get(name, 0) for name in table.column("class").to_pylist()], np.uint8)
    order = np.argsort(label)
    label, codes = label[order], codes[order]
    # Workers keep lookups by key: other contents must have another one.
    key = f"{prefix}/lookup-{zlib.crc32(codes.tobytes(), zlib.crc32(label.tobytes())):08x}.npz"
    put_arrays(store, key, {"label": label, "code": codes})
    return key


def plan_class_image(
    labels: LabelSource, target: ArrayRef, *, store: str, key: str, block: tuple[int, int]
) -> Plan[Tile]:
    """Paint every object with the number of its class.

    Args:
        target: (y, x) uint8 array to fill.
        store, key: of `put_class_lookup`.
        block: (y, x), a whole number of write units of the target.

    Raises:
        InputError: labels and target differ in shape, or the target is not uint8.
    """
    array = open_array(target)
    if tuple(array.shape) != label_shape(labels) or array.dtype != np.uint8:
        raise InputError.of(
            found=f"{target} is {array.dtype} of {tuple(array.shape)}",
            expected=f"uint8 of {label_shape(labels)}",
            fix="create it for these labels",
        )
    return Plan(
        stage="class-image",
        fn=_paint_block,
        tasks=tile_cover(array.shape, block),
        config=_ClassImageJob(labels=labels, target=target, store=store, key=key),
        task_bytes=20 * block[0] * block[1],
    )


@functools.lru_cache(maxsize=2)
def _lookup(store: str, key: str) -> dict[str, npt.NDArray[Any]]:
    return get_arrays(store, key)


def _paint_block(tile: Tile, job: _ClassImageJob) -> Json:
    table = _lookup(job.store, job.key)
    labels = read_labels(job.labels, tile.write)
    ids, place = np.unique(labels, return_inverse=True)
    codes = np.zeros(len(ids), np.uint8)
    row = np.minimum(np.searchsorted(table["label"], ids), max(0, len(table["label"]) - 1))
    if len(table["label"]):
        known = (table["label"][row] == ids) & (ids > 0)
        codes[known] = table["code"][row[known]]
    return {"checksum": write_box(job.target, tile.write, codes[place.reshape(labels.shape)])}
