"""Tasks that classify every object; each object belongs to the block of its centroid.

    table ──assign_objects──▶ objects/<block>.npz    objects of each block, and the features that are read
    labels, image ──classify──▶ classes/<block>.npz  probabilities; labels and image are read once per block, with halo
    ──collect_classes──▶ class columns ──with_classes──▶ the table, row group by row group

A probability depends on the patch and the row alone (`classifiers`), so blocks change no byte. An annotation overrides
the classifier. All data are arrays: a million objects of three classes take about 60 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow

from sketchscale.engine.base import Json, Needs, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Tile, tile_cover
from sketchscale.io.ome_zarr.label_sources import LabelSource, read_labels, source_shape
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane
from sketchscale.io.ome_zarr.table import batches_of
from sketchscale.io.runs.partial_results import get_arrays, put_arrays
from sketchscale.objects.classifiers import Classifier
from sketchscale.objects.classifiers.rows import feature_rows
from sketchscale.objects.patches import Windows, check_axes, cut_patches, object_windows

__all__ = ["CLASS_COLUMNS", "assign_objects", "check_same_shape", "collect_classes", "plan_classify", "with_classes"]

CLASS_COLUMNS = ("class", "class_prob", "class_source", "in_training", "patch_cropped")
"""Columns of every classification, in their order; after them one `prob_<class>` for each class of the classifier."""

_WINDOW_FIELDS = ("label", "corner", "center", "cropped")


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClassifyJob:
    labels: LabelSource
    plane: PixelsRef
    classifier: Classifier
    precision: str
    ranges: tuple[tuple[float, float], ...]
    block: tuple[int, ...]
    store: str


def check_same_shape(labels: LabelSource, plane: PixelsRef) -> None:
    """Raise InputError if labels and image differ in shape."""
    if source_shape(labels) != plane.shape:
        raise InputError.of(
            found=f"labels of {source_shape(labels)}, an image of {plane.shape}",
            expected="one shape",
            fix="classify on the level that was segmented",
        )


def plan_classify(
    labels: LabelSource,
    plane: PixelsRef,
    classifier: Classifier,
    *,
    store: str,
    block: tuple[int, ...],
    ranges: Sequence[tuple[float, float]] | None = None,
    precision: str = "float32",
) -> Plan[Tile]:
    """Return the plan that computes class probabilities; run `assign_objects` before it, `collect_classes` after it.

    Args:
        labels, plane: of one shape, (y, x) or (z, y, x); the plane has the classifier's channels.
        store: for objects and probabilities of each block.
        block: one length per axis, px.
        ranges: (low, high) of each channel that become 0 and 1; those of the classifier when None.
        precision: of the classifier's network.

    Raises:
        InputError: channels differ from the classifier's, or labels and plane in shape.
    """
    classifier.check_channels(plane.channels)
    check_same_shape(labels, plane)
    job = _ClassifyJob(
        labels=labels,
        plane=plane,
        classifier=classifier,
        precision=precision,
        ranges=tuple(ranges) if ranges is not None else classifier.config.ranges,
        block=block,
        store=store,
    )
    halo, task_bytes = 0, 1 << 20
    if classifier.needs_patches:  # labels and image of a block, and a batch in the network
        halo = (classifier.config.side + 1) // 2
        pixels = int(np.prod([min(b + 2 * halo, n) for b, n in zip(block, plane.shape, strict=True)]))
        depth = np.dtype(plane.dtype).itemsize * len(plane.channels) + 4
        task_bytes = 2 * pixels * depth + classifier.batch_bytes()
    return Plan(
        stage="classify",
        fn=_classify_block,
        tasks=tile_cover(plane.shape, block, halo=halo),
        config=job,
        task_bytes=task_bytes,
        needs=Needs(warm=classifier.needs_patches),
    )


def assign_objects(plan: Plan[Tile], table: pyarrow.Table) -> None:
    """Store which objects each block of a plan classifies.

    Args:
        plan: of `plan_classify`.
        table: label, centroid and box of the objects, and the columns that the classifier reads.

    Raises:
        InputError: a column is missing, or an object lies outside the plane.
    """
    job: _ClassifyJob = plan.config
    windows = object_windows(table, max(1, job.classifier.config.side))
    rows = feature_rows(table, job.classifier.config.features)
    shape, block = np.array(job.plane.shape), np.array(job.block)
    check_axes(windows, job.plane.shape)
    if len(windows.label) and not ((windows.center >= 0).all() and (windows.center < shape).all()):
        raise InputError.of(found="objects outside the image", expected="its own table", fix="measure these labels")
    number = np.ravel_multi_index(tuple((windows.center // block).T), tuple(-(-shape // block)))
    order = np.argsort(number, kind="stable")
    first = np.searchsorted(number[order], np.arange(len(plan.tasks) + 1))
    for i, task in enumerate(plan.tasks):
        mine = order[first[i] : first[i + 1]]
        some = windows.take(mine)
        arrays = {name: getattr(some, name) for name in _WINDOW_FIELDS} | {"rows": rows[mine]}
        put_arrays(job.store, _key("objects", task), arrays)


def _key(kind: str, tile: Tile) -> str:
    return f"classify/{kind}/{tile.key}.npz"


def _classify_block(tile: Tile, job: _ClassifyJob) -> Json:
    arrays = get_arrays(job.store, _key("objects", tile))
    rows = arrays.pop("rows")
    uses_patches = job.classifier.needs_patches
    windows = Windows(**arrays, side=job.classifier.config.side)

    def batches() -> Iterator[npt.NDArray[np.float32]]:
        labels, image = read_labels(job.labels, tile.read), read_plane(job.plane, tile.read)
        size = job.classifier.batch_shape()[0]
        for first in range(0, len(windows.label), size):
            some = windows.take(np.arange(first, min(first + size, len(windows.label))))
            mirror = job.classifier.config.patches.mirror
            yield cut_patches(labels, image, tile.read.start, some, job.ranges, mirror=mirror)

    patches = batches() if len(windows.label) and uses_patches else iter(())
    probabilities = job.classifier.predict(patches, rows, precision=job.precision)
    found = {"label": windows.label, "cropped": windows.cropped & uses_patches, "probabilities": probabilities}
    put_arrays(job.store, _key("classes", tile), found)
    return {"objects": len(windows.label), "cropped": int(found["cropped"].sum())}


def collect_classes(plan: Plan[Tile], table: pyarrow.Table, examples: Mapping[int, str] | None = None) -> pyarrow.Table:
    """Return the feature table with class columns, which replace those of an earlier classification.

    Args:
        plan: of `plan_classify`, after it has run on the objects of `table`.
        table: with `label`; its other columns are kept. For a table that is too large for memory pass the labels alone
            and add the columns with `with_classes`.
        examples: class given by a person, by label; these objects keep it.

    Returns:
        Rows as in `table`, with `class`; `class_prob`, the probability of the chosen class (of an annotated object: of
        the class given by the person, so a low one is worth a second look; missing if the classifier does not know the
        class); `class_source`, "model" or "user"; `in_training`; `patch_cropped`, larger than the patch; and
        `prob_<class>` for each class of the classifier.

    Raises:
        InputError: an object of the table was not classified.
    """
    job: _ClassifyJob = plan.config
    names = job.classifier.config.classes
    wanted = table.column("label").to_numpy().astype(np.int64)
    parts = [get_arrays(job.store, _key("classes", task)) for task in plan.tasks]
    label = np.concatenate([np.zeros(0, np.int64), *(p["label"] for p in parts)])
    probabilities = np.concatenate([np.zeros((0, len(names)), np.float32), *(p["probabilities"] for p in parts)])
    cropped = np.concatenate([np.zeros(0, bool), *(p["cropped"] for p in parts)])
    order = np.argsort(label)
    if not np.array_equal(label[order], np.sort(wanted)):
        raise InputError.of(
            found=f"{len(label)} classified objects for a table of {len(wanted)}",
            expected="the same objects",
            fix="classify again after measuring",
        )
    rows = order[np.searchsorted(label[order], wanted)]
    columns = _class_columns(wanted, names, probabilities[rows], examples or {})
    columns["patch_cropped"] = pyarrow.array(cropped[rows])
    columns |= {f"prob_{name}": pyarrow.array(p) for name, p in zip(names, probabilities[rows].T.copy(), strict=True)}
    return _with_columns(table, columns)


def _class_columns(
    label: npt.NDArray[np.int64], names: Sequence[str], probabilities: npt.NDArray[np.float32], given: Mapping[int, str]
) -> dict[str, pyarrow.Array]:
    """Return the columns that an annotation may change; `names` come first in the list of all classes."""
    known = (*names, *sorted({*given.values()} - {*names}))
    code = probabilities.argmax(axis=1) if len(label) else np.zeros(0, np.int64)
    user = np.isin(label, np.array(list(given), np.int64))
    code[user] = [known.index(given[k]) for k in label[user].tolist()]
    unknown = code >= len(names)
    certain = np.take_along_axis(probabilities, np.where(unknown, 0, code)[:, None], axis=1)[:, 0]
    return {
        "class": _words(code, known),
        "class_prob": pyarrow.array(certain, pyarrow.float32(), mask=unknown),
        "class_source": _words(user.astype(np.int64), ("model", "user")),
        "in_training": pyarrow.array(user),
    }


def _words(code: npt.NDArray[np.int64], words: Sequence[str]) -> pyarrow.Array:
    return pyarrow.array(words, pyarrow.string()).take(pyarrow.array(code))


def _with_columns(table: pyarrow.Table, columns: Mapping[str, pyarrow.Array]) -> pyarrow.Table:
    table = table.drop_columns([name for name in table.column_names if _is_class_column(name)])
    for name, array in columns.items():
        table = table.append_column(name, array)
    return table


def _is_class_column(name: str) -> bool:
    return name in CLASS_COLUMNS or name.startswith("prob_")


def with_classes(batches: Iterable[pyarrow.RecordBatch], classified: pyarrow.Table) -> Iterator[pyarrow.RecordBatch]:
    """Yield rows of a stored table with class columns, which replace earlier ones; one batch is held at a time.

    Args:
        batches: of the stored table.
        classified: of `collect_classes`, with the same rows in the same order.

    Raises:
        InputError: the rows are of other objects.
    """
    columns = [name for name in classified.column_names if _is_class_column(name)]
    first = 0
    for batch in batches:
        mine = classified.slice(first, batch.num_rows)
        first += batch.num_rows
        if not np.array_equal(mine.column("label").to_numpy(), batch.column("label").to_numpy()):
            raise InputError.of(
                found="a table that changed while its objects were classified",
                expected="the rows that were read",
                fix="classify again",
            )
        rows = _with_columns(pyarrow.Table.from_batches([batch]), {name: mine.column(name) for name in columns})
        yield from batches_of(rows.combine_chunks())
