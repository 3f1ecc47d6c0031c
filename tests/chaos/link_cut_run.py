"""What the head's side runs in test_link_cut.py: a plan on the cluster at an address, and how it went, as JSON."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from sketchscale.engine import open_engine
from sketchscale.engine.base import Event, Needs, RetryPolicy, run_plan
from sketchscale.errors import SketchscaleError
from tests.chaos.copying import copying


def main(folder: str, address: str, count: str, warm: str) -> str:
    """Runs `copying`; a file `started` appears in the folder when a few tasks are done."""
    plan, ledger = copying(Path(folder), int(count), seconds=0.3)
    engine = open_engine("ray", 2, address=address, wait_s=60)

    def say(event: Event) -> None:
        if event.done == 8:
            (Path(folder) / "started").touch()

    began, error = time.monotonic(), ""
    try:
        needs = Needs(warm=warm == "warm")
        run_plan(replace(plan, needs=needs), engine, ledger=ledger, on_event=say, retry=RetryPolicy(deadline_s=30))
    except SketchscaleError as failure:
        error = str(failure)
    finally:
        engine.close()
    return json.dumps({"seconds": time.monotonic() - began, "error": error})


if __name__ == "__main__":
    sys.stdout.write(main(*sys.argv[1:]) + "\n")
