"""What has run on an image, and whether its results are still what was written.

`verify` trusts the ledger and nothing else: it reads every block of the labels, of the class image and of both pyramids
again and compares checksums, recounts pixels and objects, compares the table with its digest and the input with its
identity at the time. Where only sizes or times of the input's files differ, as after copying, its pixels are read again
and compared with what was read then, block by block. It writes nothing.
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
    """Runs on an image, from any machine while they go on; writes nothing.

    Returns:
        For each its name, state (committed, running, stopped), current stage with tasks done and in all, tasks a
        second, finished tasks and totals by stage, and who owns it.
    """
    image = open_image(address)
    return [{"image": image.address, **as_record(run)} for run in run_states(image.address)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recheck:
    """What every task of a verification needs."""

    array: ArrayRef


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A committed run under verification."""

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
    """Checks of every result on an image, each with what was found.

    Returns:
        Records of image, check, ok, found.

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
    """Whether a run is committed, and what its kind has to show; results that cannot be read are findings."""
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
    """The input by the identity of its files; where that differs, by its metadata and its pixels."""
    what = "input unchanged since"
    place = json.loads(run.fingerprint.get("plane", "[]"))
    if run.fingerprint.get("input") == run.image.identity():
        yield run.check(what, True, "yes")
    elif len(place) < 2 or run.result.get("metadata") != run.image.metadata_digest():
        yield run.check(what, False, "pixels or metadata were written since")
    else:
        damage = _changed_input(run, dict(place[-2]), place[-1])
        yield run.check(what, not damage, damage[0] if damage else "its files were, pixels and metadata are the same")


def _changed_input(run: _Run, index: dict[str, int], channels: Sequence[int]) -> list[str]:
    """Blocks whose pixels are not those that the first stage read; all, where it did not note them."""
    block = json.loads(run.fingerprint["block"])
    plane = (
        run.image.plane(t=index.get("t"), z=index.get("z")) if len(block) == 2 else run.image.volume(t=index.get("t"))
    )
    plan = plan_histogram(plane, block, channels)
    read, found = run.ledger.finished(plan.stage), run.runner.run(plan)
    return [
        f"{plane.array}, {task.write}: other pixels"
        for task, block in zip(plan.tasks, found, strict=True)
        if block["checksum"] != _checksum(read.get(task.key))
    ]


def _measure_checks(run: _Run) -> Iterator[dict[str, Any]]:
    """The table's bytes are those of the measurement, or of the classification that added its columns."""
    written = {run.result.get("sha256")}
    classify = f"classify-{run.labels}"
    if get_blob(run.image.address, f"{_ROOT}/{classify}/run.json") is not None:
        written.add((reopen_ledger(run.image.address, classify).committed("result") or {}).get("sha256"))
    same = table_digest(run.image.address, run.labels) in written
    yield run.check(f"tables/{run.labels}: bytes as written", same, "yes" if same else "other bytes")
    yield _same_labels(run)


def _same_labels(run: _Run) -> dict[str, Any]:
    """Whether the labels are still those that were measured: by their files; where these differ, by ids and areas."""
    what = f"labels/{run.labels}: unchanged since {run.kind}"
    labels, table = run.image.label_image(run.labels), read_table(run.image.address, run.labels)
    if run.fingerprint.get("labels") == labels.identity():
        return run.check(what, True, "yes")
    block = json.loads(run.fingerprint["block"])
    shape = labels.shapes[0][-len(block) :]
    if labels.shapes[0] != shape:
        return run.check(what, False, "written since")
    tiles = tile_cover(shape, block)
    config, largest = _Recheck(array=labels.array(0)), max((tile.write.size for tile in tiles), default=0)
    blocks = run.runner.run(
        Plan(stage="verify labels", fn=recheck, tasks=tiles, config=config, task_bytes=24 * largest)
    )
    size = table.column("volume" if "volume" in table.column_names else "area").to_numpy()
    found = (max((b.get("top", 0) for b in blocks), default=0), sum(b.get("pixels", 0) for b in blocks))
    expected = (int(table.column("label").to_numpy().max(initial=0)), int(np.sum(size)))
    said = f"ids up to {found[0]} on {found[1]} px, the table has {expected[0]} on {expected[1]} px"
    return run.check(what, found == expected, said)


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
"""Kind of a run (the part of its name before the dash) to its checks."""


def _label_checks(run: _Run, name: str, stage: str) -> Generator[dict[str, Any], None, list[Json]]:
    """Every block of a label image and of its pyramid against the ledger; returns what the finest level holds."""
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
    """What each block holds now, and the blocks that are not what the ledger says."""
    largest = max((task.write.size for task in tasks), default=0)
    config = _Recheck(array=array)
    plan: Plan[Any] = Plan(stage=f"verify {stage}", fn=recheck, tasks=tasks, config=config, task_bytes=24 * largest)
    found, written = run.runner.run(plan), run.ledger.finished(stage)
    damage = [
        f"{array}, {task.write}: {block.get('error', 'other pixels')}"
        for task, block in zip(tasks, found, strict=True)
        if block.get("checksum") != _checksum(written.get(task.key))
    ]
    return found, damage


def _checksum(record: Json) -> Json:
    """Stages record the checksum alone or among other things; a task without a record has none."""
    return record.get("checksum", "none") if isinstance(record, dict) else record or "none"


def recheck(tile: Tile, config: _Recheck) -> Json:
    """Read one block again; damage is a finding, not a failure."""
    try:
        values = read_box(config.array, tile.write)
    except InputError as error:
        return {"error": str(error)}
    return {"checksum": checksum(values), "pixels": int(np.count_nonzero(values)), "top": int(values.max(initial=0))}
