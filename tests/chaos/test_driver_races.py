"""Two runs on one output, started within a second of one another: one winner, and one error that names it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sketchscale.io.runs.ledger import reopen_ledger
from sketchscale.io.stores.blobs import get_blob, list_blobs
from tests.chaos.racers import TASKS

pytestmark = pytest.mark.slow

NAMED = re.compile(r"run id ([0-9a-f]{12}) \(host \S+, process \d+, since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\)")


@pytest.mark.parametrize("place", ["folder", "s3"])
@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}], ids=str)
@pytest.mark.parametrize("races", [4, pytest.param(34, marks=pytest.mark.nightly)])
def test_one_wins_and_the_other_is_told_who(
    tmp_path: Path, request: pytest.FixtureRequest, place: str, options: dict[str, bool], races: int
) -> None:
    root = request.getfixturevalue("s3") if place == "s3" else str(tmp_path)
    stores = [f"{root}/{number}.zarr" for number in range(races)]
    given = json.dumps({"stores": stores, "options": options, "seed": races})
    script = [sys.executable, "-W", "ignore", "-m", "tests.chaos.racers", given]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=240 + 20 * races)
    assert done.returncode == 0, done.stderr
    for store, told in zip(stores, json.loads(done.stdout.splitlines()[-1]), strict=True):
        winners, losers = [t for t in told if "id" in t], [t for t in told if "error" in t]
        assert (len(winners), len(losers)) == (1, 1), told
        assert losers[0]["kind"] == "OutputExistsError", told
        named = NAMED.search(losers[0]["error"])
        assert named is not None, told
        assert named[1] == winners[0]["id"], told
        winner = winners[0]["who"]
        assert reopen_ledger(store, "race").committed("result") == winner
        assert {get_blob(store, key) for key in list_blobs(store, "out")} == {winner.encode()}
        assert len(list_blobs(store, "out")) == TASKS
