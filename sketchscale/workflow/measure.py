"""Measure objects into a table.

The table is `tables/<labels>`: one row per object, ordered by label. It is written whole when all blocks are measured,
and again with classes by `workflow.classify`.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow

from sketchscale import __version__
from sketchscale.config import Execution
from sketchscale.engine.base import Event, Plan
from sketchscale.io.groups import read_attributes
from sketchscale.io.image import Image, open_image
from sketchscale.io.ledger import StoreLedger
from sketchscale.io.planes import PlaneRef, VolumeRef
from sketchscale.io.store import split_address
from sketchscale.io.table import table_digest, write_table
from sketchscale.objects.measurement.features import MeasureConfig, choose_features
from sketchscale.objects.measurement.plan import collect_ranges, measure_config, needs_ranges, plan_ranges
from sketchscale.objects.measurement.solid_features import choose_solid_features
from sketchscale.objects.measurement.stream import measure_objects
from sketchscale.workflow.export_table import check_profile, write_profile
from sketchscale.workflow.measure_volume import block_of, intensities_of, volume_rows
from sketchscale.workflow.runner import Runner, forgotten_if_unfit, open_run, quiet
from sketchscale.workflow.verbs import verb

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
    """A label image with the plane or volume that it was made on.

    Attributes:
        provenance: what `segment` wrote with the labels; empty for labels of another tool.
        block: ([z,] y, x) of a task; whole chunks of the labels, which a class image shares.
    """

    image: Image
    plane: PlaneRef | VolumeRef
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
    plane = intensities_of(image, label_image, provenance)
    block = block_of(label_image, plane, execution.block)
    return LabelSetting(image=image, plane=plane, labels=label_image, provenance=provenance, block=block)


def label_provenance(labels: Image) -> dict[str, Any]:
    """What `segment` wrote with a label image; empty when another tool made it."""
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
    """Measure every object of a label image on its image; the table replaces none unless asked.

    Args:
        features: names of FEATURES or of GROUPS to report besides the position (of SOLID_FEATURES, SOLID_GROUPS in a
            volume); None is all.
        without: names or groups to leave out.
        profile: one of PROFILES, to write a second table `<labels>_<profile>` under the names of another tool.

    Raises:
        UnknownNameError: no labels of that name, or no such feature or profile.
        OutputExistsError: the table is there; overwrite or resume.
    """
    execution = execution or Execution()
    check_profile(profile)
    setting = label_setting(address, labels, execution)
    choose = choose_solid_features if isinstance(setting.plane, VolumeRef) else choose_features
    chosen = choose(features, without)
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
            with Runner(execution, on_event) as runner, forgotten_if_unfit(ledger):
                committed = _measure(setting, labels, chosen, runner, ledger)
        ledger.clear_scratch()
    if profile is not None:
        write_profile(address, labels, profile=profile)
    return MeasureResult(image=setting.image.address, table=labels, n=committed["n"], columns=committed["columns"])


def _measure(
    setting: LabelSetting, labels: str, features: Sequence[str], runner: Runner, ledger: StoreLedger
) -> dict[str, Any]:
    rows = _rows(setting, features, lambda plan: runner.run(plan, ledger), ledger.scratch)
    # All blocks are measured by the first batch: nothing is written where that fails.
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
    if isinstance(plane, VolumeRef):
        return volume_rows(source, plane, features, run, store=store, block=block)
    config = _config(setting, plane, features, run)
    return measure_objects(source, plane, config, run, store=store, block=(block[0], block[1]))


def _config(
    setting: LabelSetting, plane: PlaneRef, features: Sequence[str], run: Callable[[Plan[Any]], list[Any]]
) -> MeasureConfig:
    ranges = collect_ranges(run(plan_ranges(plane, block=setting.block))) if needs_ranges(plane) else ()
    grid = setting.provenance.get("grid")
    stride = grid["tile"] - grid["overlap"] if grid else None
    return measure_config(
        setting.labels.array(0),
        plane,
        ranges=ranges,
        tile_stride=(stride, stride) if stride else None,
        features=features,
    )


def _counted(batches: Iterable[pyarrow.RecordBatch], size: list[int]) -> Iterator[pyarrow.RecordBatch]:
    """The same batches; their rows and columns are noted on the way."""
    for batch in batches:
        size[:] = size[0] + batch.num_rows, batch.num_columns
        yield batch
