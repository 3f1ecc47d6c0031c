"""The page on which a person reviews proposals: pictures of the proposed objects and their surroundings.

All pictures have one scale, because size is a feature: the side of the window is 2.5 times the median object, and only
an object that does not fit is shown smaller. Contrast comes from percentiles of the image's plane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from sketchscale.config import Execution
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.image import Image
from sketchscale.io.ome_zarr.label_sources import read_labels
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane
from sketchscale.io.ome_zarr.table import list_tables, read_batches
from sketchscale.io.stores.output_files import put_file
from sketchscale.objects.classifiers import load_classifier
from sketchscale.objects.patches import window_columns
from sketchscale.reports.judge import JudgeClass, JudgeItem, JudgePage, outlined, render_judge
from sketchscale.reports.pictures import Picture, color_of, make_picture, to_rgb
from sketchscale.workflow.classify.propose import Proposal, ProposeResult, columns_of, rows_of
from sketchscale.workflow.classify.train import rows_of_labels
from sketchscale.workflow.images import display_ranges
from sketchscale.workflow.measure.measure import label_setting

__all__ = ["class_choices", "known_classes", "write_page"]

_SURROUNDINGS, _SMALLEST, _LARGEST = 2.5, 48, 256
_MARGIN = 1.25
_WIDTH = 480


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """How one image is shown: its labels, and its planes at one contrast."""

    image: Image
    labels: Image
    plane: PixelsRef | None
    ranges: tuple[tuple[float, float], ...]


def class_choices(names: Sequence[str], colors: Mapping[str, str]) -> tuple[JudgeClass, ...]:
    """Return classes with their colours: the given ones, else the palette's; classes with a colour only come last."""
    listed = [name for name in dict.fromkeys([*names, *colors]) if name not in ("none", "unsure", "undo")]
    return tuple(JudgeClass(name=name, color=colors.get(name, color_of(i))) for i, name in enumerate(listed))


def known_classes(classifier: str | None, images: Sequence[str], labels: str) -> dict[str, str]:
    """Return classes that a person may choose, with their colours where known ("" where not).

    Args:
        classifier: folder of a classifier with these classes; None takes those in the tables.

    Raises:
        MissingDataError, InputError: no classifier there.
    """
    if classifier is not None:
        trained = load_classifier(classifier)
        colors = trained.provenance.get("colors", {})
        return {name: str(colors.get(name, "")) for name in trained.config.classes}
    found: set[str] = set()
    for address in images:
        if labels in list_tables(address):
            for batch in read_batches(address, labels):
                if "class" in batch.schema.names:
                    found |= set(pc.unique(batch.column("class")).to_pylist())
    return dict.fromkeys(sorted(name for name in found if name), "")


def write_page(
    result: ProposeResult,
    labels: str,
    out: str,
    *,
    classes: Sequence[JudgeClass] = (),
    show_class: bool = False,
    title: str = "",
) -> str:
    """Write the page of some proposals; return its path.

    Args:
        classes: offered at the start; the person can add others.
        show_class: show the classifier's class, which must stay hidden where counts are estimated.

    Raises:
        OutputError: the page cannot be written.
    """
    proposals = result.proposals
    views = {one.address: _view(one, labels) for one in {p.address: p for p in reversed(proposals)}.values()}
    rows = _rows(proposals, labels)
    extents = {key: _extent(row) for key, row in rows.items()}
    common = round(_SURROUNDINGS * float(np.median([extents[one.address, one.label] for one in proposals])))
    common = int(np.clip(common, _SMALLEST, _LARGEST))
    items = []
    for one, row in zip(proposals, rows_of(result), strict=True):
        key = one.address, one.label
        place = ", ".join(f"{name} {v:.0f}" for name, v in zip("zyx"[-len(one.center) :], one.center, strict=True))
        guess = rows[key].get("class") if show_class else None
        caption = f"{one.image}, {place}" + (f" · {guess} {rows[key].get('class_prob') or 0:.2f}" if guess else "")
        picture = _picture(one, views[one.address], max(common, round(_MARGIN * extents[key])))
        items.append(JudgeItem(row=row, picture=picture, caption=caption))
    page = JudgePage(
        title=title or f"{len(proposals)} {labels}",
        columns=columns_of(result),
        items=tuple(items),
        classes=tuple(classes),
        note=_note(result),
        file=f"{Path(out).stem}.csv",
    )
    put_file(out, render_judge(page).encode())
    return str(out)


def _note(result: ProposeResult) -> str:
    reason, n = result.proposals[0].reason, f"{result.drawn_from:,}"
    if reason == "random":
        return f"Drawn at random from {n} objects: judge them in order, and choose unsure rather than skip one."
    return f"Chosen by {reason} from {n} objects: good examples to learn from, but no sample to count from."


def _rows(proposals: Sequence[Proposal], labels: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Return rows of the tables, by address and label."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for address in dict.fromkeys(one.address for one in proposals):
        wanted = np.array([one.label for one in proposals if one.address == address], np.int64)
        boxes = [name for name in window_columns("zyx") if name.startswith("box_")]
        rows = rows_of_labels(address, labels, wanted, ["label", "class", "class_prob", *boxes])
        found |= {(address, int(row["label"])): row for row in rows.to_pylist()}
    return found


def _extent(row: Mapping[str, Any]) -> int:
    """Return the larger side of an object's box in its plane; the smallest window where the table has no boxes."""
    if "box_y_start" not in row:
        return _SMALLEST
    return max(int(row[f"box_{axis}_stop"] - row[f"box_{axis}_start"]) for axis in "yx")


def _view(one: Proposal, labels: str) -> _View:
    """Open an image with its contrast: that of its plane or, in a volume, of the section of its first proposal."""
    setting = label_setting(one.address, labels, Execution())
    is_flat = setting.plane.ndim == 2
    plane = setting.plane if is_flat else setting.image.plane(z=round(one.center[0]))
    ranges = display_ranges(plane)
    return _View(image=setting.image, labels=setting.labels, plane=plane if is_flat else None, ranges=ranges)


def _picture(one: Proposal, view: _View, side: int) -> Picture:
    plane = view.plane or view.image.plane(z=round(one.center[0]))
    y, x = (round(v) - side // 2 for v in one.center[-2:])
    window = Box((y, x), (y + side, x + side))
    box = window.clip(plane.shape)
    section = (round(one.center[0]),) if len(one.center) == 3 else ()
    whole = Box((*section, *box.start), (*(s + 1 for s in section), *box.stop))
    mask = (read_labels(view.labels.array(0), whole) == one.label).reshape(box.shape)
    rgb = to_rgb(read_plane(plane, box), view.ranges)
    shown = make_picture(_padded(rgb, window, box), _padded(mask.astype(np.uint8), window, box), width=_WIDTH)
    return outlined(shown)


def _padded(pixels: npt.NDArray[np.uint8], window: Box, box: Box) -> npt.NDArray[np.uint8]:
    """Return the pixels of a box in its window; black where the window leaves the image."""
    whole = np.zeros((*window.shape, *pixels.shape[2:]), np.uint8)
    whole[box.relative_to(window.start).slices] = pixels
    return whole
