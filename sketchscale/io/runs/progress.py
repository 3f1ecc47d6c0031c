"""Report the progress of the runs of a store, from any machine and while they work; nothing is changed.

A living owner writes its progress every 3 s, so a run of a million tasks is not listed. Without a living owner the
records are counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sketchscale.io.runs.lease import Owner, current_owner, lives, read_heartbeat
from sketchscale.io.runs.ledger import FINAL, MARKS
from sketchscale.io.stores.blobs import get_blob, list_blobs
from sketchscale.io.stores.concurrent import ahead
from sketchscale.io.stores.output_files import list_names

__all__ = ["RunState", "as_record", "run_states"]

_ROOT = ".sketchscale"
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """One run.

    Attributes:
        state: "committed", "running", or "stopped" (killed, failed, or ended without a result).
        stages: number of finished tasks by stage, sorted by name.
        totals: number of all tasks by stage, if known.
        stage: the current or last stage; empty before the first.
        rate: tasks per second of that stage while it runs.
        owner: the process that writes to it, or wrote last.
    """

    run: str
    state: str
    stages: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    stage: str = ""
    rate: float | None = None
    owner: Owner | None = None


def run_states(store: str) -> list[RunState]:
    """Return the runs of a store, sorted by name; takes up to 12 s if an owner on another machine is silent.

    >>> from sketchscale.io.runs.ledger import open_ledger
    >>> with open_ledger("memory://doc-progress", "demo", {}) as ledger:
    ...     log = ledger.begin("predict", 2)
    ...     ledger.record("predict", "0", 7)
    >>> [(run.state, run.stages, run.totals) for run in run_states("memory://doc-progress")]
    [('stopped', {'predict': 1}, {'predict': 2})]
    """
    runs = [name for name in list_names(store, _ROOT) if name not in {*MARKS, "image.json"}]
    return list(ahead(lambda run: _state(store, run), runs, at_once=_AT_ONCE))


def _state(store: str, run: str) -> RunState:
    root = f"{_ROOT}/{run}"
    commits = {key.rpartition("/")[2].removesuffix(".json") for key in list_blobs(store, f"{root}/commit")}
    committed = bool(commits & set(FINAL))
    owner = current_owner(store, run)
    running = not committed and owner is not None and lives(store, run, owner)
    latest = read_heartbeat(store, run, owner) if running and owner is not None else {}
    notes = list_blobs(store, f"{root}/stage")
    totals = {_stage(key): _total(store, key) for key in notes if key.endswith("/plan.json")}
    ended = {_stage(key) for key in notes if key.endswith("/end.gz")}
    done = {stage: totals[stage] for stage in totals if stage in ended}
    if latest.get("stage") in totals:
        done.setdefault(latest["stage"], latest["done"])
    for stage in sorted({*totals, *list_names(store, f"{root}/ledger")} - {*done}):
        done[stage] = len(list_blobs(store, f"{root}/ledger/{stage}"))
    return RunState(
        run=run,
        state="committed" if committed else "running" if running else "stopped",
        stages=dict(sorted(done.items())),
        totals=totals,
        stage=latest.get("stage") or next((stage for stage in totals if stage not in ended), ""),
        rate=latest.get("rate"),
        owner=owner,
    )


def _stage(key: str) -> str:
    return key.split("/")[-2]


def _total(store: str, key: str) -> int:
    try:
        return int(json.loads(get_blob(store, key) or b"{}")["total"])
    except (ValueError, TypeError, KeyError):
        return 0


def as_record(run: RunState) -> dict[str, Any]:
    """Return a run as JSON, with `done` and `total` of the current stage."""
    owner = run.owner
    return {
        "run": run.run,
        "state": run.state,
        "committed": run.state == "committed",
        "stage": run.stage,
        "done": run.stages.get(run.stage),
        "total": run.totals.get(run.stage),
        "tasks_per_s": run.rate,
        "stages": run.stages,
        "totals": run.totals,
        "owner": None
        if owner is None
        else {"id": owner.id, "epoch": owner.epoch, "host": owner.host, "pid": owner.pid, "started": owner.started},
    }
