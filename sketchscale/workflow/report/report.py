"""The page of a run, and pictures of sketches, made by `reports` from what is stored.

Memory is bounded for images of any size: overviews come from a level of the pyramid that fits a screen, enlarged crops
from level 0.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow

from sketchscale import __version__
from sketchscale.annotations.sketch import Sketch
from sketchscale.config import Execution
from sketchscale.errors import InputError, MissingDataError
from sketchscale.geometry import Box, whole
from sketchscale.io.ome_zarr.arrays import read_box
from sketchscale.io.ome_zarr.groups import read_attributes
from sketchscale.io.ome_zarr.image import Image, open_image
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane
from sketchscale.io.ome_zarr.plate import Plate, open_plate
from sketchscale.io.ome_zarr.table import read_table, require_table
from sketchscale.io.runs.ledger import reopen_ledger
from sketchscale.io.stores.addresses import split_address
from sketchscale.io.stores.output_files import put_file
from sketchscale.reports.html import AccuracyRow, Note, ReportData, SeamCheck, Sizes, render
from sketchscale.reports.pictures import Picture, choose_crops, flattened, make_picture, make_sketch_picture, to_rgb
from sketchscale.reports.plate import class_names, sum_counts
from sketchscale.workflow.images import display_ranges, map_measured, short_name
from sketchscale.workflow.measure.count import empty_wells, tally, well_of
from sketchscale.workflow.measure.evaluate import evaluate
from sketchscale.workflow.measure.measure import LabelSetting, label_setting
from sketchscale.workflow.report.training_section import training_log
from sketchscale.workflow.runner import refuse_existing
from sketchscale.workflow.segment.empty_results import why_empty
from sketchscale.workflow.segment.unknown_kinds import kind_warning

__all__ = ["draw_sketch", "write_report"]

_OVERVIEWS, _CROPS, _SCREEN, _NAMES = 4, 6, 2048, 24
_PLATE = 16384

_SIZE_COLUMNS = (
    ("area", "um2", "area_um2"),
    ("area", "px", "area"),
    ("volume", "um3", "volume_um3"),
    ("volume", "voxels", "volume"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """One image of the report: its labels, its table, its percentiles, its committed segmentation."""

    name: str
    setting: LabelSetting
    table: pyarrow.Table
    ranges: tuple[tuple[float, float], ...]
    result: dict[str, Any]


def write_report(
    images: Sequence[str],
    labels: str,
    out: str,
    *,
    title: str = "",
    model: str | None = None,
    truths: Sequence[str] = (),
    overwrite: bool = False,
) -> str:
    """Write one self-contained HTML page about segmented and measured images; return its path.

    Images that were not measured are named on the page, and not counted.

    Args:
        model: folder of the model, for its training curve and strokes; None looks in the working directory for the one
            that made the labels, and leaves curve and strokes out where it is not there.
        truths: true label images, one per image, for the table of accuracy; none leaves it out.

    Raises:
        MissingDataError, UnknownNameError: none of the images was segmented and measured.
        InputError: another number of truths than images.
        OutputExistsError: the page is there.
        OutputError: the page cannot be written.
    """
    refuse_existing(out, overwrite=overwrite)
    if truths and len(truths) != len(images):
        raise InputError(f"{len(truths)} truths for {len(images)} images; expected: one for each, in order")
    found = map_measured(images, lambda address: _show(address, labels))
    shown = [one for one in found if one is not None]
    unmeasured = [address for address, one in zip(images, found, strict=True) if one is None]
    truths = [truth for one, truth in zip(found, truths, strict=False) if one is not None]
    data = _data(shown, unmeasured, labels, title=title, model=model, truths=truths)
    return put_file(out, render(data).encode())


def _show(address: str, labels: str) -> _Shown:
    setting = label_setting(address, labels, Execution())
    require_table(setting.image.address, labels)
    pixels, index = setting.plane, dict(setting.plane.index)
    if pixels.ndim == 2 and (level := _level_within(setting.image, _PLATE)):  # of a slide, a level of a plate's size
        pixels = setting.image.plane(level=level, t=index.get("t"), z=index.get("z"))
    ranges = display_ranges(pixels, setting.block)
    try:
        result = reopen_ledger(setting.image.address, f"segment-{labels}").committed("result")
    except MissingDataError:  # labels of another tool
        result = None
    return _Shown(
        name=short_name(address),
        setting=setting,
        table=read_table(setting.image.address, labels),
        ranges=ranges,
        result=result if isinstance(result, dict) else {},
    )


def _level_within(image: Image, side: int) -> int:
    """Return the finest level whose planes are no longer than `side`; the coarsest where none is."""
    return next((i for i, s in enumerate(image.shapes) if max(s[-2:]) <= side), len(image.shapes) - 1)


def _data(
    shown: Sequence[_Shown],
    unmeasured: Sequence[str],
    labels: str,
    *,
    title: str,
    model: str | None,
    truths: Sequence[str],
) -> ReportData:
    tallies = [tally(one.setting.image.address, labels) for one in shown]
    plates = [open_plate(plate) for plate in sorted({row.plate for row in tallies} - {""})]
    classes = class_names(tallies)
    named = zip(tallies, shown, strict=True)
    rows = tuple(replace(row, image=one.name, plate=short_name(row.plate)) for row, one in named)
    empty = [(short_name(plate.address), well) for plate in plates for well in plate.missing]
    empty += [(short_name(plate), well) for plate, well in map(well_of, unmeasured) if well]
    return ReportData(
        title=title or f"{labels} in {len(shown)} images" if len(shown) != 1 else title or shown[0].name,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        thing=labels,
        rows=rows,
        classes=classes,
        wells=sum_counts([*(row for row in rows if row.well), *empty_wells(empty)], ("plate", "well")),
        notes=(*_notes(shown), *_left_out(shown, unmeasured, plates)),
        sizes=_sizes(shown, classes),
        confusion=_confusion(shown, labels),
        overviews=tuple(_overview(one, classes, 1400 if i == 0 else 700) for i, one in enumerate(shown[:_OVERVIEWS])),
        crops=tuple(_crops(shown, classes)),
        not_shown=tuple(one.name for one in shown[_OVERVIEWS:]),
        seams=_seams(shown),
        training=training_log(shown[0].setting.provenance.get("model", {}) if shown else {}, model),
        accuracy=tuple(_accuracy(shown, labels, truths)),
        provenance=_provenance(shown),
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        config=json.dumps([one.setting.provenance for one in shown[:1]], indent=1),
    )


def _notes(shown: Sequence[_Shown]) -> Iterable[Note]:
    for one in shown:
        if one.table.num_rows == 0:
            why = why_empty(one.result.get("empty", {}))
            if one.result.get("n"):
                why = f"no object was measured, of {one.result['n']} that segmentation found"
            yield Note(level="warning", text=f"{one.name}: {why}.")
        model = one.setting.provenance.get("model", {}).get("name", "")
        kind = one.result.get("kind", {})
        if unknown := kind_warning(one.name, model, kind, objects=one.table.num_rows):
            yield Note(level="warning", text=unknown)
        if absent := one.result.get("absent_chunks", 0):
            yield Note(level="warning", text=f"{one.name}: {absent} chunks are not stored and were read as zeros.")


def _left_out(shown: Sequence[_Shown], unmeasured: Sequence[str], plates: Sequence[Plate]) -> Iterable[Note]:
    """Yield notes on images that were not measured, and on fields and wells of the plates that are left out."""
    if unmeasured:
        names = _listed([short_name(address) for address in unmeasured])
        yield Note(level="warning", text=f"{names}: not segmented or not measured, so not counted.")
    addresses = {one.rstrip("/") for one in (*(one.setting.image.address for one in shown), *unmeasured)}
    for plate in plates:
        name = short_name(plate.address)
        absent = [short_name(one.address) for one in plate.fields if one.address.rstrip("/") not in addresses]
        if absent:
            yield Note(level="info", text=f"{name}: not in this report: {_listed(absent)}.")
        if plate.missing:
            yield Note(level="info", text=f"{name}: wells without an image: {_listed(plate.missing)}.")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def _sizes(shown: Sequence[_Shown], classes: Sequence[str]) -> Sizes:
    columns = (known for known in _SIZE_COLUMNS if all(known[2] in one.table.column_names for one in shown))
    what, unit, column = next(columns, ("", "", ""))
    if not column:
        raise InputError.of(
            found="tables of planes and of volumes", expected="images of one kind", fix="write a report of each kind"
        )
    sizes = [np.asarray(one.table.column(column).to_numpy(), np.float64) for one in shown]
    if not classes:
        return Sizes(areas=(np.concatenate(sizes),), unit=unit, what=what)
    names = [_classes_of(one.table) for one in shown]
    of_class = tuple(np.concatenate([s[n == name] for s, n in zip(sizes, names, strict=True)]) for name in classes)
    return Sizes(areas=of_class, unit=unit, what=what)


def _confusion(shown: Sequence[_Shown], labels: str) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]] | None:
    """Return the held-out score of the classifier, stored with the first table that has one."""
    for one in shown:
        store, group = split_address(one.setting.image.address)
        attributes = read_attributes(store, f"{group}/tables/{labels}".lstrip("/")) or {}
        about = attributes.get("sketchscale", {})
        if about.get("held_out"):
            return tuple(about["classes"]), tuple(tuple(row) for row in about["held_out"]["confusion"])
    return None


def _classes_of(table: pyarrow.Table) -> npt.NDArray[np.str_]:
    found = table.column("class").to_pylist() if "class" in table.column_names else [""] * table.num_rows
    return np.array(["" if name is None else name for name in found], dtype=np.str_)


def _class_places(table: pyarrow.Table, classes: Sequence[str]) -> dict[int, int] | None:
    if not classes:
        return None
    place = {name: i for i, name in enumerate(classes)}
    label = table.column("label").to_pylist()
    return {int(k): place[name] for k, name in zip(label, _classes_of(table).tolist(), strict=True) if name in place}


def _overview(one: _Shown, classes: Sequence[str], width: int) -> Picture:
    setting = one.setting
    level = _level_within(setting.image, _SCREEN)
    rgb, labels = _pixels(one, whole(_section(one, level).shape), level)
    *deep, y, x = setting.plane.shape
    size = f"{x} x {y} px" if not deep else f"volume of {x} x {y} x {deep[0]} voxels, its middle section"
    return make_picture(
        rgb,
        labels,
        class_of=_class_places(one.table, classes),
        width=width,
        title=one.name,
        caption=f"{size}, {one.table.num_rows} objects",
    )


def _section(one: _Shown, level: int) -> PixelsRef:
    """Return the plane that is shown; of a volume, the middle section."""
    index = dict(one.setting.plane.index)
    z = one.setting.image.shapes[level][-3] // 2 if one.setting.plane.ndim == 3 else index.get("z")
    return one.setting.image.plane(level=level, t=index.get("t"), z=z)


def _pixels(one: _Shown, box: Box, level: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer[Any]]]:
    rgb = to_rgb(read_plane(_section(one, level), box), one.ranges)
    middle = tuple(n // 2 for n in one.setting.labels.shapes[level][:-2])
    there = Box((*middle, *box.start), (*(z + 1 for z in middle), *box.stop))
    return rgb, read_box(one.setting.labels.array(level), there).reshape(box.shape)


def _crops(shown: Sequence[_Shown], classes: Sequence[str]) -> Iterable[Picture]:
    """Yield a few enlarged crops, shared out over the first images."""
    share = max(1, _CROPS // max(1, len(shown)))
    for one in shown[:_CROPS]:
        table, plane = one.table, _section(one, 0)
        if one.setting.plane.ndim == 3:  # only objects of the section that is shown
            start, stop = (table.column(f"box_z_{end}").to_numpy() for end in ("start", "stop"))
            middle = one.setting.plane.shape[0] // 2
            table = table.filter(pyarrow.array((start <= middle) & (middle < stop)))
        centroids = np.stack([table.column("y").to_numpy(), table.column("x").to_numpy()], axis=1)
        for box in choose_crops(centroids, plane.section, n=share):
            rgb, labels = _pixels(one, box, 0)
            caption = f"{one.name}, y {box.start[0]}, x {box.start[1]}"
            yield make_picture(rgb, labels, class_of=_class_places(table, classes), width=480, caption=caption)


def _seams(shown: Sequence[_Shown]) -> SeamCheck | None:
    audits = [one.result["audit"] for one in shown if "audit" in one.result]
    if not audits:
        return None
    windows, objects, crossing = (sum(int(a[name]) for a in audits) for name in ("windows", "objects", "crossing"))
    return SeamCheck(
        passed=True,
        sentence=f"{windows} windows on block borders were recomputed as a whole: all {objects} objects in them are "
        f"exactly as stored.",
        facts={
            "objects that cross a block": str(crossing),
            "blocks": str(sum(int(a["blocks"]) for a in audits)),
            "largest displacement": f"{max(float(a['farthest']) for a in audits):.2f} px",
            "bound on it": f"{max(int(a['reach']) for a in audits)} px",
            "halo": f"{max(int(a['halo']) for a in audits)} px",
        },
    )


def _accuracy(shown: Sequence[_Shown], labels: str, truths: Sequence[str]) -> Iterable[AccuracyRow]:
    for one, truth in zip(shown, truths, strict=False):
        scores = evaluate(one.setting.image.address, labels, truth)
        yield AccuracyRow(
            image=one.name,
            n_true=scores["n_true"],
            n_pred=scores["n_pred"],
            ap={float(t): value for t, value in scores["ap"].items()},
            f1=scores["f1"]["0.5"],
        )


def _provenance(shown: Sequence[_Shown]) -> dict[str, str]:
    packages = ("numpy", "torch", "zarr", "numba")
    known = {"sketchscale": __version__, "python": platform.python_version(), "machine": platform.machine()}
    known |= {name: importlib.metadata.version(name) for name in packages}
    known["cores"] = str(os.cpu_count())
    for one in shown[:1]:
        model = one.setting.provenance.get("model", {})
        known |= {f"model {key}": str(value) for key, value in model.items()}
        known |= {f"recipe {key}": str(value) for key, value in one.setting.provenance.get("recipe", {}).items()}
    return known | {f"input {one.name}": one.setting.image.identity()[:16] for one in shown[:8]}


def draw_sketch(sketch: Sketch, image: str | None, out: str) -> str:
    """Write a PNG of a sketch over its image (on black when there is none); return its path."""
    rgb = np.zeros((*sketch.shape, 3), np.uint8)
    if image is not None:
        plane = open_image(image).plane()
        rgb = to_rgb(read_plane(plane, whole(sketch.shape)), display_ranges(plane))
    return put_file(out, flattened(make_sketch_picture(rgb, sketch.rasterize())))
