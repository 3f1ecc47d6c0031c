"""What has run on an image, and whether its results are still what was written.

`verify` trusts the ledger and nothing else: it reads every block of the labels again and compares checksums, recounts
pixels and objects, looks at every level of the pyramid and at the table, and compares the input with its identity at
the time. It writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sketchscale.config import Execution
from sketchscale.engine.base import Event, Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Tile, tile_cover
from sketchscale.io.arrays import ArrayRef, absent_chunks, checksum, read_box
from sketchscale.io.blobs import get_blob, list_blobs
from sketchscale.io.image import Image, open_image
from sketchscale.io.ledger import reopen_ledger
from sketchscale.io.metadata import parse_json
from sketchscale.io.table import list_tables, read_table
from sketchscale.workflow.runner import Runner, quiet

__all__ = ["status", "verify"]

_ROOT = ".sketchscale"


def status(address: str) -> list[dict[str, Any]]:
    """Runs on an image: for each its name, finished tasks by stage, and whether its result is committed."""
    image = open_image(address)
    runs: dict[str, dict[str, Any]] = {}
    for key in list_blobs(image.address, _ROOT):
        run, _, rest = key.removeprefix(f"{_ROOT}/").partition("/")
        if not rest:
            continue
        entry = runs.setdefault(run, {"image": image.address, "run": run, "committed": False, "stages": {}})
        part, _, name = rest.partition("/")
        if part == "ledger":
            stage = name.partition("/")[0]
            entry["stages"][stage] = entry["stages"].get(stage, 0) + 1
        if rest in ("commit/result.json", "commit/image.json"):
            entry["committed"] = True
    return [runs[run] for run in sorted(runs)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recheck:
    """What every task of a verification needs."""

    labels: ArrayRef


def verify(address: str, on_event: Callable[[Event], None] = quiet) -> list[dict[str, Any]]:
    """Checks of every result on an image, each with what was found.

    Returns:
        Records of image, check, ok, found. No record for an image without results.

    Raises:
        InputError: the address is not an image, or nothing has run on it.
    """
    image = open_image(address)
    runs = status(address)
    if not runs:
        raise InputError(
            f"{address} has no results; expected: an image that was segmented; to fix: sketchscale segment"
        )
    checks = []
    for run in runs:
        name = run["run"].partition("-")[2]
        checks.append(
            _check(image, f"{run['run']} is committed", run["committed"], "yes" if run["committed"] else "no")
        )
        if run["committed"] and run["run"].startswith("segment-"):
            checks += _labels_checks(image, run["run"], name, on_event)
    return checks


def _check(image: Image, check: str, ok: bool, found: str) -> dict[str, Any]:
    return {"image": image.address, "check": check, "ok": bool(ok), "found": found}


def _labels_checks(image: Image, run: str, name: str, on_event: Callable[[Event], None]) -> list[dict[str, Any]]:
    ledger = reopen_ledger(image.address, run)
    written = ledger.finished("relabel")
    result = ledger.committed("result") or {}
    label_image = image.label_image(name)
    tasks = tile_cover(label_image.shapes[0], result["block"])
    largest = max((task.write.size for task in tasks), default=0)
    config = _Recheck(labels=label_image.array(0))
    with Runner(Execution(), on_event) as runner:
        found = runner.run(Plan(stage="verify", fn=recheck, tasks=tasks, config=config, task_bytes=24 * largest))
    damage = [
        f"{task.write}: {block.get('error', 'other pixels')}"
        for task, block in zip(tasks, found, strict=True)
        if block.get("checksum") != written.get(task.key, {}).get("checksum")
    ]
    labelled = sum(block.get("pixels", 0) for block in found)
    top = max((block.get("top", 0) for block in found), default=0)
    return [
        _check(image, f"labels/{name}: blocks as written", not damage, damage[0] if damage else f"{len(tasks)} blocks"),
        _check(image, f"labels/{name}: objects", top == result["n"], f"{top} ids"),
        *_pyramid_checks(image, name),
        *_table_checks(image, name, top, labelled),
        _input_check(image, run),
    ]


def recheck(task: Tile, config: _Recheck) -> Json:
    """Read one block again; damage is a finding, not a failure."""
    try:
        values = read_box(config.labels, task.write)
    except InputError as error:
        return {"error": str(error)}
    return {"checksum": checksum(values), "pixels": int(np.count_nonzero(values)), "top": int(values.max(initial=0))}


def _pyramid_checks(image: Image, name: str) -> list[dict[str, Any]]:
    levels = image.label_image(name).metadata.levels
    missing = [key for level in range(len(levels)) for key in absent_chunks(image.label_ref(name, level))]
    found = f"{len(levels)} levels" if not missing else f"{len(missing)} chunks absent, first {missing[0]}"
    return [_check(image, f"labels/{name}: pyramid complete", not missing, found)]


def _table_checks(image: Image, name: str, n: int, pixels: int) -> list[dict[str, Any]]:
    if name not in list_tables(image.address):
        return []
    try:
        table = read_table(image.address, name)
    except InputError as error:
        return [_check(image, f"tables/{name}: readable", False, str(error))]
    areas = int(np.sum(table.column("area").to_numpy())) if table.num_rows else 0
    return [
        _check(image, f"tables/{name}: a row per object", table.num_rows == n, f"{table.num_rows} rows, {n} objects"),
        _check(image, f"tables/{name}: areas add up", areas == pixels, f"{areas} px in rows, {pixels} px in labels"),
    ]


def _input_check(image: Image, run: str) -> dict[str, Any]:
    record = parse_json(get_blob(image.address, f"{_ROOT}/{run}/run.json") or b"{}", run)
    then = record.get("fingerprint", {}).get("input", "")
    same = then == image.identity()
    return _check(image, "input unchanged since", same, "yes" if same else "pixels or metadata were written since")
