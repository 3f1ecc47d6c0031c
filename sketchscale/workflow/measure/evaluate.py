"""Compare predicted labels with true ones, in blocks: neither has to fit in memory.

Several images are summarised in two ways, which differ when images differ in their number of objects:

    by_image   the mean of each figure over images; every image counts the same
    pooled     the figures of all objects together; every object counts the same
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.errors import InputError
from sketchscale.evaluation import THRESHOLDS, Overlaps, join_images, mean_figures, score_overlaps
from sketchscale.evaluation.plan import collect_overlaps, plan_contingency
from sketchscale.evaluation.truth import open_true_labels, stored_labels
from sketchscale.geometry import block_shape
from sketchscale.io.ome_zarr.image import Image, open_image
from sketchscale.io.ome_zarr.label_sources import source_shape
from sketchscale.workflow.csv_file import put_csv
from sketchscale.workflow.images import matches
from sketchscale.workflow.labels.components import check_components, find_few, split_components
from sketchscale.workflow.runner import Runner, quiet
from sketchscale.workflow.verbs import verb

__all__ = ["Compared", "compare", "evaluate", "pair_truths", "summarize", "write_scores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One image's labels compared with the truth; all scores are made from `overlaps`."""

    image: str
    labels: str
    truth: str
    overlaps: Overlaps
    note: str = ""


def evaluate(
    address: str,
    labels: str,
    truth: str,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    components: str = "auto",
    cancel: threading.Event | None = None,
) -> dict[str, Any]:
    """Return scores of an image's labels; see metrics.Scores for each.

    Args:
        labels: name of the label image; (y, x), or (z, y, x) of a volume.
        truth: address of the true label image: TIFF, PNG, NPY, or an OME-Zarr label image; of the same shape.
        thresholds: of the IoU.
        components: auto takes each connected component of a truth with a single value above 0 as an object; see
            workflow.components.

    Returns:
        JSON: `ap` and `f1` keyed by IoU threshold "0.5" to "0.95", `n_true`, `n_pred`, and the rest of the figures.

    Raises:
        UnknownNameError: no labels of that name.
        InputError: truth and labels differ in shape, the truth is no label image or has no 0, or a threshold is outside
            (0, 1].
    """
    compared = compare(address, labels, truth, execution, on_event, components=components, cancel=cancel)
    return _record(compared, thresholds)


@verb({"values": 1, "pieces": 1, "evaluate": 4})
def compare(
    address: str,
    labels: str,
    truth: str,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    components: str = "auto",
    cancel: threading.Event | None = None,
) -> Compared:
    """Count the pixels that labels and truth share; `note` is set if a mask was split. See `summarize` for scores."""
    execution = execution or Execution()
    image = open_image(address).label_image(labels)
    predicted, true = stored_labels(image), open_true_labels(truth)
    block = _block(image, len(source_shape(predicted)), execution.block)
    with Runner(execution, on_event) as runner:
        plan_contingency(predicted, true, block=block)  # refuses another shape before anything is read
        check_components(components, None, truth)
        few = find_few(true, block, runner) if components == "auto" else None
        check_components(components, few, truth)
        split = split_components(true, components, few, block, runner)
        overlaps = collect_overlaps(runner.run(plan_contingency(predicted, split.labels, block=block)))
    return Compared(image=address, labels=labels, truth=truth, overlaps=overlaps, note=split.note)


def _block(labels: Image, axes: int, side: int) -> tuple[int, ...]:
    """Return whole chunks; of a volume, one chunk deep and as many voxels as a plane's block has pixels."""
    shape, chunks = labels.shapes[0][-2:], labels.chunks[0]
    deep = max(chunks[:-2], default=1) if axes == 3 else 1
    block = block_shape(shape, chunks[-2:], max(1, round(side / deep**0.5)))
    return (deep, *block) if axes == 3 else block


def pair_truths(images: Sequence[str], truths: Sequence[str], truth_labels: str | None = None) -> list[str]:
    """Return the truth of each image, in order.

    Args:
        truths: addresses, or glob patterns, which stand for their matches by name.
        truth_labels: name of a label image in each image, instead.

    Raises:
        InputError: not one truth for each image, or both ways at once.
        MissingDataError: a pattern that matches nothing.

    >>> pair_truths(["a.zarr", "b.zarr"], [], "truth")
    ['a.zarr/labels/truth', 'b.zarr/labels/truth']
    """
    found = [match for truth in truths for match in matches(truth)]
    if truth_labels is not None and not found:
        return [f"{image.rstrip('/')}/labels/{truth_labels}" for image in images]
    if truth_labels is not None or len(found) != len(images):
        raise InputError.of(
            found=f"{len(images)} images and {len(found)} truths" + (" with --truth-labels" if truth_labels else ""),
            expected="one truth for each image, in order",
            fix="repeat --truth, or name a label image of each image with --truth-labels",
        )
    return found


def summarize(compared: Sequence[Compared], thresholds: Sequence[float] = THRESHOLDS) -> dict[str, Any]:
    """Return scores of one or several images.

    Args:
        compared: at least one.

    Returns:
        JSON. For several images: `images` (the figures of each, as `evaluate` gives them), `by_image` and `pooled`. For
        a single image its figures alone, as `evaluate` gives them.
    """
    records = [_record(one, thresholds) for one in compared]
    if len(records) == 1:
        return records[0]
    scores = [score_overlaps(one.overlaps, thresholds) for one in compared]
    pooled = score_overlaps(join_images(one.overlaps for one in compared), thresholds)
    return {"images": records, "by_image": mean_figures(scores), "pooled": pooled.as_dict()}


def _record(compared: Compared, thresholds: Sequence[float]) -> dict[str, Any]:
    figures = score_overlaps(compared.overlaps, thresholds).as_dict()
    return {"image": compared.image, "labels": compared.labels, "truth": compared.truth, **figures}


def write_scores(summary: dict[str, Any], out: str) -> str:
    """Write the summary as CSV, columns as ap_0.5: a row for each image, and for several `by_image` and `pooled`.

    Raises:
        OutputError: it cannot be written.
    """
    rows = [_flat(record) for record in summary.get("images", [summary])]
    rows += [{"image": name, **_flat(summary[name])} for name in ("by_image", "pooled") if name in summary]
    return put_csv(out, list(rows[0]), ([row.get(name) for name in rows[0]] for row in rows))


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= {f"{name}_{t}": v for t, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat
