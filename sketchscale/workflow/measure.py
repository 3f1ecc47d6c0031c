"""Measure objects into a table.

The table is `tables/<labels>`: one row per object, ordered by label. It is written whole when all blocks are measured,
and again with classes by `workflow.classify`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow

from sketchscale import __version__
from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.geometry import block_shape
from sketchscale.io.image import Image, PlaneRef, open_image, read_attributes
from sketchscale.io.ledger import StoreLedger
from sketchscale.io.store import split_address
from sketchscale.io.table import table_digest, write_table
from sketchscale.objects.features import MeasureConfig, choose_features
from sketchscale.objects.plan import (
    collect_ranges,
    measure_config,
    needs_ranges,
    plan_ranges,
)
from sketchscale.objects.stream import measure_objects
from sketchscale.workflow.runner import Runner, forgotten_if_unfit, open_run, quiet

__all__ = ["MeasureResult", "label_provenance", "label_setting", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureResult:
    """Where the table is and how large."""

    image: str
    table: str
    n: int
    columns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSetting:
    """A label image with the plane that it was made on.

    Attributes:
        provenance: what `segment` wrote with the labels; empty for labels of another tool.
        block: (y, x) of a task; whole chunks of the labels, which a class image shares.
    """

    image: Image
    plane: PlaneRef
    labels: Image
    provenance: dict[str, Any]
    block: tuple[int, int]


def label_setting(address: str, labels: str, execution: Execution) -> LabelSetting:
    """Open an image with its labels.

    Raises:
        UnknownNameError: no labels of that name; lists those that are there.
    """
    image = open_image(address)
    label_image = image.label_image(labels)
    provenance = label_provenance(label_image)
    index = provenance.get("plane", {}).get("index", {})
    plane = image.plane(t=index.get("t"), z=index.get("z"))
    y, x = block_shape(plane.shape, label_image.plane().chunks, execution.block)
    return LabelSetting(image=image, plane=plane, labels=label_image, provenance=provenance, block=(y, x))


def label_provenance(labels: Image) -> dict[str, Any]:
    """What `segment` wrote with a label image; empty when another tool made it."""
    store, group = split_address(labels.address)
    found = (read_attributes(store, group) or {}).get("sketchscale", {})
    return found if isinstance(found, dict) else {}


def measure(
    address: str,
    labels: str = "nuclei",
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    features: Sequence[str] | None = None,
    without: Sequence[str] = (),
) -> MeasureResult:
    """Measure every object of a label image on its image; the table replaces none unless asked.

    Args:
        features: names of FEATURES or of GROUPS to report besides the position; None is all.
        without: names or groups to leave out.

    Raises:
        UnknownNameError: no labels of that name, or no such feature.
        OutputExistsError: the table is there; overwrite or resume.
    """
    execution = execution or Execution()
    chosen = choose_features(features, without)
    setting = label_setting(address, labels, execution)
    fingerprint = {
        "code": __version__,
        "input": setting.image.identity(),
        "labels": setting.labels.identity(),
        "block": json.dumps(setting.block),
        "features": json.dumps(chosen),
    }
    ledger = open_run(setting.image, f"measure-{labels}", fingerprint, execution, outputs=(f"tables/{labels}",))
    committed = ledger.committed("result")
    if committed is None:
        with Runner(execution, on_event) as runner, forgotten_if_unfit(ledger):
            committed = _measure(setting, labels, chosen, runner, ledger)
    ledger.clear_scratch()
    return MeasureResult(image=setting.image.address, table=labels, n=committed["n"], columns=committed["columns"])


def _measure(
    setting: LabelSetting, labels: str, features: Sequence[str], runner: Runner, ledger: StoreLedger
) -> dict[str, Any]:
    source, plane = setting.labels.array(0), setting.plane
    config = _config(setting, features, runner, ledger)
    rows = measure_objects(
        source, plane, config, lambda plan: runner.run(plan, ledger), store=ledger.scratch, block=setting.block
    )
    size = [0, 0]
    attributes = {"sketchscale": {"stage": "measure", "version": __version__, "labels": setting.provenance}}
    write_table(setting.image.address, labels, _counted(rows, size), region=labels, attributes=attributes)
    digest = table_digest(setting.image.address, labels)
    result = {"n": size[0], "columns": size[1], "sha256": digest}
    ledger.commit("result", result)
    return result


def _config(setting: LabelSetting, features: Sequence[str], runner: Runner, ledger: StoreLedger) -> MeasureConfig:
    ranges: tuple[tuple[float, float], ...] = ()
    if needs_ranges(setting.plane):
        plan = plan_ranges(setting.plane, block=setting.block)
        ranges = collect_ranges(runner.run(plan, ledger))
    grid = setting.provenance.get("grid")
    stride = grid["tile"] - grid["overlap"] if grid else None
    return measure_config(
        setting.labels.array(0),
        setting.plane,
        ranges=ranges,
        tile_stride=(stride, stride) if stride else None,
        features=features,
    )


def _counted(batches: Iterable[pyarrow.RecordBatch], size: list[int]) -> Iterator[pyarrow.RecordBatch]:
    """The same batches; their rows and columns are noted on the way."""
    for batch in batches:
        size[:] = size[0] + batch.num_rows, batch.num_columns
        yield batch
