"""Show what has run on an image, and verify that its results are still as they were written.

`verify` trusts only the ledger: it reads every block of the labels, of the class image and of both pyramids again and
compares checksums, recounts pixels and objects, compares the table with its digest and the input with its identity at
the time. Where only sizes or times of the input's files differ, as after copying, its pixels are read again and
compared block by block with those read then. It writes nothing.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sketchscale.config import Execution
from sketchscale.engine.base import Event, Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Tile, tile_cover
from sketchscale.intensity import plan_histogram
from sketchscale.io.ome_zarr.arrays import ArrayRef, checksum, read_box
from sketchscale.io.ome_zarr.image import Image, open_image
from sketchscale.io.ome_zarr.pyramid import plan_level
from sketchscale.io.ome_zarr.table import list_tables, read_table, table_digest
from sketchscale.io.runs.ledger import StoreLedger, reopen_ledger
from sketchscale.io.runs.progress import as_record, run_states
from sketchscale.io.stores.blobs import get_blob
from sketchscale.io.stores.documents import parse_json
from sketchscale.workflow.runner import Runner, quiet
from sketchscale.workflow.verbs import verb

__all__ = ["status", "verify"]

_ROOT = ".sketchscale"


def status(address: str) -> list[dict[str, Any]]:
    """Return the runs on an image; works from any machine while they run, and writes nothing.

    Returns:
        For each its name, state (committed, running, stopped), current stage with tasks done and in all, tasks a
        second, finished tasks and totals by stage, and its owner.
    """
    image = open_image(address)
    return [{"image": image.address, **as_record(run)} for run in run_states(image.address)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recheck:
    """The array that the tasks of a verification read."""

    array: ArrayRef


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A committed run that is verified."""

    image: Image
    kind: str
    labels: str
    ledger: StoreLedger
    runner: Runner

    @property
    def fingerprint(self) -> dict[str, str]:
        key = f"{_ROOT}/{self.ledger.run}/run.json"
        found = parse_json(get_blob(self.image.address, key) or b"{}", key).get("fingerprint", {})
        return found if isinstance(found, dict) else {}

    @property
    def result(self) -> dict[str, Any]:
        return self.ledger.committed("result") or {}

    def check(self, what: str, ok: bool, found: str) -> dict[str, Any]:
        return {"image": self.image.address, "check": what, "ok": bool(ok), "found": found}


@verb({"verify": 4, "histogram": 1})
def verify(
    address: str,
    on_event: Callable[[Event], None] = quiet,
    execution: Execution | None = None,
    *,
    cancel: threading.Event | None = None,
) -> list[dict[str, Any]]:
    """Return checks of every result on an image: records of image, check, ok, found.

    Raises:
        InputError: the address is not an image, or nothing has run on it.
    """
    image = open_image(address)
    runs = status(address)
    if not runs:
        raise InputError(
            f"{address} has no results; expected: an image that was segmented; to fix: sketchscale segment"
        )
    with Runner(execution or Execution(), on_event) as runner:
        return [check for run in runs for check in _run_checks(image, run, runner)]


def _run_checks(image: Image, run: dict[str, Any], runner: Runner) -> Iterator[dict[str, Any]]:
    """Yield whether a run is committed, and the checks of its kind; results that cannot be read are findings."""
    kind, _, labels = run["run"].partition("-")
    checked = _Run(
        image=image, kind=kind, labels=labels, ledger=reopen_ledger(image.address, run["run"]), runner=runner
    )
    yield checked.check(f"{run['run']} is committed", run["committed"], "yes" if run["committed"] else "no")
    if run["committed"] and kind in _CHECKS:
        try:
            yield from _CHECKS[kind](checked)
        except InputError as error:
            yield checked.check(f"{run['run']} is readable", False, str(error))


def _segment_checks(run: _Run) -> Iterator[dict[str, Any]]:
    name, n = run.labels, run.result["n"]
    blocks = yield from _label_checks(run, name, "relabel")
    top, pixels = max((b.get("top", 0) for b in blocks), default=0), sum(b.get("pixels", 0) for b in blocks)
    yield run.check(f"labels/{name}: objects", top == n, f"{top} ids, {n} were written")
    if name in list_tables(run.image.address):
        table = read_table(run.image.address, name)
        size = "volume" if "volume" in table.column_names else "area"
        areas = int(np.sum(table.column(size).to_numpy())) if table.num_rows else 0
        yield run.check(f"tables/{name}: a row per object", table.num_rows == n, f"{table.num_rows} rows, {n} objects")
        yield run.check(f"tables/{name}: {size}s add up", areas == pixels, f"{areas} px in rows, {pixels} px in labels")
    yield from _input_checks(run)


def _input_checks(run: _Run) -> Iterator[dict[str, Any]]:
    """Check the input by the identity of its files; where that differs, by its metadata and its pixels."""
    what = "input unchanged since"
    place = json.loads(run.fingerprint.get("plane", "[]"))
    if run.fingerprint.get("input") == run.image.identity():
        yield run.check(what, True, "yes")
        return
    if len(place) < 2 or run.result.get("metadata") != run.image.metadata_digest():
        yield run.check(what, False, "pixels or metadata were written since")
        return
    block, index = json.loads(run.fingerprint["block"]), dict(place[-2])
    t, z = index.get("t"), index.get("z")
    plane = run.image.plane(t=t, z=z) if len(block) == 2 else run.image.volume(t=t)
    plan = plan_histogram(plane, block, place[-1])
    read, found = run.ledger.finished(plan.stage), run.runner.run(plan)
    damage = [  # all blocks, where the first stage recorded no checksums
        f"{plane.array}, {task.write}: other pixels"
        for task, pixels in zip(plan.tasks, found, strict=True)
        if pixels["checksum"] != _checksum(read.get(task.key))
    ]
    yield run.check(what, not damage, damage[0] if damage else "its files were, pixels and metadata are the same")


def _measure_checks(run: _Run) -> Iterator[dict[str, Any]]:
    """Check that the table's bytes are those of the measurement, or of the classification that added its columns."""
    written = {run.result.get("sha256")}
    classify = f"classify-{run.labels}"
    if get_blob(run.image.address, f"{_ROOT}/{classify}/run.json") is not None:
        written.add((reopen_ledger(run.image.address, classify).committed("result") or {}).get("sha256"))
    same = table_digest(run.image.address, run.labels) in written
    yield run.check(f"tables/{run.labels}: bytes as written", same, "yes" if same else "other bytes")
    yield _same_labels(run)


def _same_labels(run: _Run) -> dict[str, Any]:
    """Check that the labels are those that were measured: by their files; where these differ, by ids and areas."""
    what = f"labels/{run.labels}: unchanged since {run.kind}"
    labels, table = run.image.label_image(run.labels), read_table(run.image.address, run.labels)
    if run.fingerprint.get("labels") == labels.identity():
        return run.check(what, True, "yes")
    block = json.loads(run.fingerprint["block"])
    shape = labels.shapes[0][-len(block) :]
    if labels.shapes[0] != shape:
        return run.check(what, False, "written since")
    blocks = run.runner.run(_recheck_plan("verify labels", labels.array(0), tile_cover(shape, block)))
    size = table.column("volume" if "volume" in table.column_names else "area").to_numpy()
    found = (max((b.get("top", 0) for b in blocks), default=0), sum(b.get("pixels", 0) for b in blocks))
    expected = (int(table.column("label").to_numpy().max(initial=0)), int(np.sum(size)))
    figures = f"ids up to {found[0]} on {found[1]} px, the table has {expected[0]} on {expected[1]} px"
    return run.check(what, found == expected, figures)


def _classify_checks(run: _Run) -> Iterator[dict[str, Any]]:
    yield _same_labels(run)
    yield from _label_checks(run, f"{run.labels}_class", "class-image")
    counted = list(run.result["counts"])
    for known, mask in run.result.get("masks", {}).items():
        yield from _label_checks(run, mask, f"class-mask-{counted.index(known) + 1}")


_CHECKS: dict[str, Callable[[_Run], Iterator[dict[str, Any]]]] = {
    "segment": _segment_checks,
    "measure": _measure_checks,
    "classify": _classify_checks,
}
"""Checks by kind of run, the part of its name before the dash."""


def _label_checks(run: _Run, name: str, stage: str) -> Generator[dict[str, Any], None, list[Json]]:
    """Check every block of a label image and of its pyramid against the ledger; return records of level 0."""
    image = run.image.label_image(name)
    levels = [image.array(level) for level in range(len(image.shapes))]
    tiles = tile_cover(image.shapes[0], json.loads(run.fingerprint["block"]))
    finest, damage = _recheck_level(run, stage, levels[0], tiles)
    yield run.check(f"labels/{name}: blocks as written", not damage, damage[0] if damage else f"{len(tiles)} blocks")
    damage = []
    for finer, coarser in itertools.pairwise(levels):
        plan = plan_level(finer, coarser, "nearest")
        damage += _recheck_level(run, plan.stage, coarser, plan.tasks)[1]
    yield run.check(f"labels/{name}: pyramid as written", not damage, damage[0] if damage else f"{len(levels)} levels")
    return finest


def _recheck_level(run: _Run, stage: str, array: ArrayRef, tasks: Sequence[Tile]) -> tuple[list[Json], list[str]]:
    """Return a record of each block as it is now, and a line for each that differs from the ledger."""
    found, written = run.runner.run(_recheck_plan(f"verify {stage}", array, tasks)), run.ledger.finished(stage)
    damage = [
        f"{array}, {task.write}: {block.get('error', 'other pixels')}"
        for task, block in zip(tasks, found, strict=True)
        if block.get("checksum") != _checksum(written.get(task.key))
    ]
    return found, damage


def _recheck_plan(stage: str, array: ArrayRef, tasks: Sequence[Tile]) -> Plan[Tile]:
    largest = max((task.write.size for task in tasks), default=0)
    return Plan(stage=stage, fn=recheck, tasks=tasks, config=_Recheck(array=array), task_bytes=24 * largest)


def _checksum(record: Json) -> Json:
    """Return the checksum in a stage's record, which may hold other things too; "none" for a task without a record."""
    return record.get("checksum", "none") if isinstance(record, dict) else record or "none"


def recheck(tile: Tile, config: _Recheck) -> Json:
    """Read one block again; damage is a finding, not a failure."""
    try:
        values = read_box(config.array, tile.write)
    except InputError as error:
        return {"error": str(error)}
    return {"checksum": checksum(values), "pixels": int(np.count_nonzero(values)), "top": int(values.max(initial=0))}
