"""`count --review`: correct counts by comparing the tables with a person's classes of randomly drawn objects.

A file made for other labels is refused: a reviewed object must lie where the file states, and must not have been used
in training, because the classifier's examples are not representative.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc

from sketchscale.config import Execution
from sketchscale.errors import InputError
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.table import read_batches, require_table
from sketchscale.objects.annotation.examples import Mark, OnConflict, assign_marks, hit_labels, read_marks, settled
from sketchscale.objects.annotation.review import Review, check_random, estimate, passed_over
from sketchscale.workflow.measure.measure import label_setting

__all__ = ["ReviewResult", "review_counts", "review_rows", "review_text"]

_COLUMNS = ("label", "z", "y", "x", "class", "in_training")
_NEAR_PX = 0.02
"""Tolerance of positions, which are written with two decimals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewResult:
    """The corrected counts.

    Attributes:
        ignored: rows of the file about images that were not counted.
        passed_over: proposals that were skipped though later ones were reviewed.
    """

    review: Review
    ignored: int
    passed_over: int


def review_counts(images: Sequence[str], labels: str, path: str, *, on_conflict: OnConflict = "refuse") -> ReviewResult:
    """Return corrected counts of classified images.

    Args:
        images: addresses of single images, those that the proposals were drawn from.
        path: file of reviewed objects, see `objects.annotation.mark_files`.

    Raises:
        InputError: objects that were not drawn at random, were used in training, lie elsewhere, or have no class; or
            the objects were drawn from fewer objects than there are.
    """
    marks = read_marks(path)
    check_random(marks)
    assigned = assign_marks(marks, images)
    predicted, known, judged = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for address in images:
        table = _table(address, labels)
        is_known = pc.fill_null(table.column("in_training"), False)
        known.update(_numbers(table.filter(is_known)))
        predicted.update(_numbers(table.filter(pc.invert(is_known))))
        judged.update(_judged(address, labels, table, assigned.of[address], on_conflict))
    ignored = sum(assigned.ignored.values())
    drawn = {int(n) for mark in marks if (n := (mark.row or {}).get("drawn_from", "")).isdigit()}
    if drawn and not ignored and predicted.total() > max(drawn):  # a sample of fewer objects does not represent all
        raise InputError.of(
            found=f"objects drawn from {max(drawn)}, counts of {predicted.total()}",
            expected="a sample of all that are counted",
            fix="count the images that the proposals were drawn from, or propose from all of these",
        )
    return ReviewResult(review=estimate(predicted, judged, known), ignored=ignored, passed_over=passed_over(marks))


def _table(address: str, labels: str) -> pyarrow.Table:
    """Return positions and classes of the objects of an image, ordered by label."""
    require_table(open_image(address).address, labels)
    batches = []
    for batch in read_batches(address, labels):
        names = [name for name in _COLUMNS if name in batch.schema.names]
        if "class" not in names:
            raise InputError.of(
                found=f"{address}: objects without class", expected="a class each", fix="run classify apply first"
            )
        batches.append(batch.select(names))
    table = pyarrow.Table.from_batches(batches)
    if "in_training" not in table.column_names:
        table = table.append_column("in_training", pyarrow.array(np.zeros(table.num_rows, bool)))
    return table.sort_by("label")


def _numbers(table: pyarrow.Table) -> dict[str, int]:
    counts = pc.value_counts(pc.fill_null(table.column("class"), "unclassified")).to_pylist()
    return {one["values"]: one["counts"] for one in counts}


def _judged(
    address: str, labels: str, table: pyarrow.Table, marks: Sequence[Mark], on_conflict: OnConflict
) -> Counter[tuple[str, str]]:
    """Count the reviewed objects of an image by (predicted class, class by the person)."""
    if not marks:
        return Counter()
    known = table.column("label").to_numpy()
    if all(mark.label is not None for mark in marks):
        hits = [mark.label or 0 for mark in marks]
    else:
        setting = label_setting(address, labels, Execution())
        hits = hit_labels(marks, setting.labels.array(0), setting.plane.spacing_um)
    classes = settled(marks, hits, known, on_conflict)
    rows = np.searchsorted(known, list(classes))
    found = dict(zip(classes, table.take(rows).to_pylist(), strict=True))
    for mark, label in zip(marks, hits, strict=True):
        if label in found:
            _check_same(mark, label, found[label])
    return Counter((found[label]["class"] or "unclassified", name) for label, name in classes.items())


def _check_same(mark: Mark, label: int, row: Mapping[str, Any]) -> None:
    """Check that the object lies where the file states, and was not used in training."""
    stated = mark.row or {}
    axes = [axis for axis in ("z", "y", "x") if stated.get(axis) and axis in row]
    if mark.label is not None and any(abs(float(stated[axis]) - row[axis]) > _NEAR_PX for axis in axes):
        place = ", ".join(f"{axis} {row[axis]:.2f}" for axis in axes)
        raise InputError.of(
            found=f"{mark.where}: object {label} is at {place}",
            expected=f"{', '.join(f'{axis} {stated[axis]}' for axis in axes)}",
            fix="judge objects of these labels: propose again",
        )
    if row["in_training"]:
        raise InputError.of(
            found=f"{mark.where}: object {label} was an example in training",
            expected="objects that the classifier was not shown",
            fix="judge new ones of classify propose",
        )


def review_rows(result: ReviewResult, labels: str) -> list[dict[str, Any]]:
    """Return one record per class, then the total, for CSV and JSON."""
    rows: list[dict[str, Any]] = [
        {
            "labels": labels,
            "class": one.name,
            "n": one.predicted,
            "estimate": round(one.estimate, 1),
            "low": round(one.low, 1),
            "high": round(one.high, 1),
            "judged": one.judged,
        }
        for one in result.review.classes
    ]
    total = dict(zip(("estimate", "low", "high"), (round(v, 1) for v in result.review.total), strict=True))
    n = result.review.population + result.review.annotated
    return [*rows, {"labels": labels, "class": "all but none", "n": n, **total, "judged": result.review.judged}]


def review_text(result: ReviewResult, labels: str) -> str:
    """Return corrected counts, accuracy and confusion for people."""
    review = result.review
    lines = [f"{'class':<20}{'predicted':>10}{'estimate':>10}   95 % interval"]
    lines += [
        f"{row['class']:<20}{row['n']:>10,}{row['estimate']:>10,.0f}   {row['low']:,.0f} to {row['high']:,.0f}"
        for row in review_rows(result, labels)
    ]
    share, low, high = (100 * v for v in review.accuracy)
    lines += [
        "",
        f"{review.judged} judged of {review.population:,} objects ({review.annotated:,} annotated ones are known)",
        f"accuracy {share:.1f} %, 95 % interval {low:.1f} to {high:.1f} %",
        *(f"  {guess} judged {name}: {n}" for guess, name, n in review.confusion),
    ]
    if result.passed_over:
        lines.append(f"{result.passed_over} proposals were passed over: if they were hard ones, the estimate is biased")
    if result.ignored:
        lines.append(f"{result.ignored} rows of images that were not counted are left out")
    return "\n".join(lines)
