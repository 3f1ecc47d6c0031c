"""Two processes that start the same run within a second of one another, again and again.

`python -m tests.chaos.racers` forks them, so that a hundred races take a minute. Each racer writes its name into every
object of the output, as a run with another model would, and commits it.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from dataclasses import dataclass
from typing import Any

from sketchscale.engine import open_engine
from sketchscale.engine.base import Plan, run_plan
from sketchscale.errors import SketchscaleError
from sketchscale.io.runs.ledger import open_ledger
from sketchscale.io.stores.blobs import put_blob

TASKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    number: int

    @property
    def key(self) -> str:
        return f"{self.number:02d}"


def write(task: Write, config: tuple[str, str]) -> str:
    store, who = config
    time.sleep(0.4)  # all in all longer than one racer can be behind the other
    put_blob(store, f"out/{task.key}", who.encode())
    return who


def race(store: str, who: str, options: dict[str, bool]) -> dict[str, Any]:
    """Run as one of two; the owner's id and what was committed, or the error."""
    made_of = {} if options.get("resume") else {"who": who}
    try:
        with open_ledger(store, "race", made_of, **options) as ledger:
            tasks = tuple(Write(number=i) for i in range(TASKS))
            plan = Plan(stage="write", fn=write, tasks=tasks, config=(store, who))
            run_plan(plan, open_engine("serial"), ledger=ledger)
            ledger.commit("result", who)
            return {"who": who, "id": ledger.owner.id if ledger.owner else ""}
    except SketchscaleError as error:
        return {"who": who, "kind": type(error).__name__, "error": str(error)}


def _child(store: str, who: str, options: dict[str, bool], delay: float) -> tuple[int, int]:
    read, end = os.pipe()
    child = os.fork()
    if child == 0:
        time.sleep(delay)
        os.write(end, json.dumps(race(store, who, options)).encode())
        os._exit(0)
    os.close(end)
    return child, read


def _main() -> None:
    """Arguments: {"stores": [...], "options": {...}, "seed": n}; prints what became of each pair."""
    given = json.loads(sys.argv[1])
    chance, told = random.Random(given["seed"]), []
    for start in range(0, len(given["stores"]), 5):
        pairs = [
            [_child(store, who, given["options"], chance.random()) for who in ("one", "two")]
            for store in given["stores"][start : start + 5]
        ]
        for pair in pairs:
            told.append([])
            for child, read in pair:
                with os.fdopen(read) as pipe:
                    told[-1].append(json.loads(pipe.read() or "{}"))
                os.waitpid(child, 0)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    _main()
