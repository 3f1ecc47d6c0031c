"""Measure objects into a table.

The table is `tables/<labels>`: one row per object, ordered by label. It is written once all blocks are measured, and
written again with classes by `workflow.classify`.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow

from sketchscale import __version__
from sketchscale.config import Execution
from sketchscale.engine.base import Event, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import block_shape
from sketchscale.io.ome_zarr.groups import read_attributes
from sketchscale.io.ome_zarr.image import Image, open_image
from sketchscale.io.ome_zarr.planes import PixelsRef
from sketchscale.io.ome_zarr.table import table_digest, write_table
from sketchscale.io.runs.ledger import StoreLedger
from sketchscale.io.stores.addresses import split_address
from sketchscale.objects.measurement.features import choose_features
from sketchscale.objects.measurement.plan import collect_ranges, measure_config, needs_ranges, plan_ranges
from sketchscale.objects.measurement.stream import measure_objects
from sketchscale.workflow.measure.export_table import check_profile, write_profile
from sketchscale.workflow.runner import Runner, forget_run_if_unfit, open_run, quiet
from sketchscale.workflow.verbs import verb

__all__ = ["MeasureResult", "label_provenance", "label_setting", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureResult:
    """The name and size of the table."""

    image: str
    table: str
    n: int
    columns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSetting:
    """A label image with the plane or volume that it belongs to.

    Attributes:
        provenance: what `segment` stored with the labels; empty for labels of another tool.
        block: ([z,] y, x) of a task; whole chunks of the labels, which a class image shares.
    """

    image: Image
    plane: PixelsRef
    labels: Image
    provenance: dict[str, Any]
    block: tuple[int, ...]


def label_setting(address: str, labels: str, execution: Execution) -> LabelSetting:
    """Open an image with its labels.

    Raises:
        UnknownNameError: no labels of that name; lists those that are there.
        InputError: a plane of labels on a volume, or the reverse.
    """
    image = open_image(address)
    label_image = image.label_image(labels)
    provenance = label_provenance(label_image)
    plane = _intensities_of(image, label_image, provenance)
    # About `block` pixels squared, or as many voxels in a cube.
    axes = len(plane.shape)
    target = max(1, round(execution.block ** (2 / axes)))
    block = block_shape(plane.shape, label_image.chunks[0][-axes:], target)
    return LabelSetting(image=image, plane=plane, labels=label_image, provenance=provenance, block=block)


def _intensities_of(image: Image, labels: Image, provenance: Mapping[str, Any]) -> PixelsRef:
    """Return the part of an image that its labels belong to: one plane, or a volume.

    Labels with the axes zyx are a volume, whatever their depth, and belong to the whole depth of the image. All others
    belong to the section and time that `segment` stored with them.
    """
    index = provenance.get("plane", {}).get("index", {})
    axes, sections = image.metadata.order, dict(zip(image.metadata.order, image.shapes[0], strict=True)).get("z", 1)
    if labels.metadata.order == "zyx":
        if "z" not in axes:
            raise _misfit(labels, f"a volume of {labels.shapes[0]} (z, y, x)", f"axes {axes!r}: no depth")
        return image.volume(t=index.get("t"))
    if sections > 1 and "z" not in index:
        raise _misfit(labels, f"a plane of {labels.shapes[0][-2:]} (y, x)", f"{sections} sections")
    return image.plane(t=index.get("t"), z=index.get("z"))


def _misfit(labels: Image, are: str, has: str) -> InputError:
    return InputError.of(
        found=f"{labels.address} is {are}, its image has {has}",
        expected="labels with the axes of their image",
        fix="label this image: a volume with segment --volume, a plane with segment --z",
    )


def label_provenance(labels: Image) -> dict[str, Any]:
    """Return what `segment` stored with a label image; empty when another tool made it."""
    store, group = split_address(labels.address)
    found = (read_attributes(store, group) or {}).get("sketchscale", {})
    return found if isinstance(found, dict) else {}


@verb({"ranges": 1, "measure": 9})
def measure(
    address: str,
    labels: str = "nuclei",
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    features: Sequence[str] | None = None,
    without: Sequence[str] = (),
    profile: str | None = None,
    cancel: threading.Event | None = None,
) -> MeasureResult:
    """Measure every object of a label image on its image; an existing table is kept unless overwrite is set.

    Args:
        features: names of FEATURES or of GROUPS to report besides the position; None is all that apply to the axes.
        without: names or groups to leave out.
        profile: one of PROFILES, to write a second table `<labels>_<profile>` under the names of another tool.

    Raises:
        UnknownNameError: no labels of that name, or no such feature or profile.
        OutputExistsError: the table is there; overwrite or resume.
    """
    execution = execution or Execution()
    check_profile(profile)
    setting = label_setting(address, labels, execution)
    chosen = choose_features(features, without, axes=len(setting.plane.shape))
    fingerprint = {
        "code": __version__,
        "input": setting.image.identity(),
        "labels": setting.labels.identity(),
        "block": json.dumps(setting.block),
        "features": json.dumps(chosen),
    }
    tables = (labels, f"{labels}_{profile}") if profile else (labels,)
    outputs = tuple(f"tables/{table}" for table in tables)
    with open_run(setting.image, f"measure-{labels}", fingerprint, execution, outputs=outputs) as ledger:
        committed = ledger.committed("result")
        if committed is None:
            with Runner(execution, on_event) as runner, forget_run_if_unfit(ledger):
                committed = _measure(setting, labels, chosen, runner, ledger)
        ledger.clear_scratch()
    if profile is not None:
        write_profile(address, labels, profile=profile)
    return MeasureResult(image=setting.image.address, table=labels, n=committed["n"], columns=committed["columns"])


def _measure(
    setting: LabelSetting, labels: str, features: Sequence[str], runner: Runner, ledger: StoreLedger
) -> dict[str, Any]:
    rows = _rows(setting, features, lambda plan: runner.run(plan, ledger), ledger.scratch)
    # The first batch comes once all blocks are measured: nothing is written where that fails.
    first = next(rows)
    size = [0, 0]
    attributes = {"sketchscale": {"stage": "measure", "version": __version__, "labels": setting.provenance}}
    write_table(
        setting.image.address,
        labels,
        _counted(itertools.chain((first,), rows), size),
        region=labels,
        attributes=attributes,
    )
    digest = table_digest(setting.image.address, labels)
    result = {"n": size[0], "columns": size[1], "sha256": digest}
    ledger.commit("result", result)
    return result


def _rows(
    setting: LabelSetting, features: Sequence[str], run: Callable[[Plan[Any]], list[Any]], store: str
) -> Iterator[pyarrow.RecordBatch]:
    source, plane, block = setting.labels.array(0), setting.plane, setting.block
    ranges = collect_ranges(run(plan_ranges(plane, block))) if needs_ranges(plane) else ()
    grid, stride = setting.provenance.get("grid"), None
    if isinstance(grid, dict):  # segment used a single grid
        stride = tuple(np.broadcast_to(np.subtract(grid["tile"], grid["overlap"]), len(plane.shape)).tolist())
    config = measure_config(source, plane, ranges=ranges, tile_stride=stride, features=features)
    yield from measure_objects(source, plane, config, run, store=store, block=block)


def _counted(batches: Iterable[pyarrow.RecordBatch], size: list[int]) -> Iterator[pyarrow.RecordBatch]:
    """Yield the same batches, and record their rows and columns in `size`."""
    for batch in batches:
        size[:] = size[0] + batch.num_rows, batch.num_columns
        yield batch
