"""Who runs: one owner at a time, taken over when it is over and never while it lives, without a clock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from sketchscale.errors import OutputError, OutputExistsError
from sketchscale.io.runs import lease as module
from sketchscale.io.runs.lease import Owner, _born, _machine, current_owner, read_heartbeat, take
from sketchscale.io.runs.ledger import open_ledger
from sketchscale.io.runs.progress import run_states
from sketchscale.io.stores.blobs import list_blobs, put_blob

_FOLDER = ".sketchscale/run/owner"


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.getfixturevalue('s3')}/i.zarr" if request.param == "s3" else str(tmp_path / "i.zarr")


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four beats are two seconds instead of twelve."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.5)


def elsewhere(store: str, epoch: int = 1) -> Owner:
    """An owner on another machine took the run."""
    owner = Owner(id="faraway", epoch=epoch, host="node7", pid=4711, started="2026-05-01T10:00:00Z", machine="other")
    put_blob(store, f"{_FOLDER}/{epoch:06d}.json", json.dumps(asdict(owner)).encode())
    return owner


@pytest.fixture
def beating(store: str, quick_beats: None) -> Iterator[Owner]:
    """An owner on another machine, which says again and again that it lives."""
    owner, over = elsewhere(store), threading.Event()

    def beat() -> None:
        count = 0
        while not over.wait(0.1):
            count += 1
            put_blob(store, f"{_FOLDER}/000001.beat", json.dumps({"count": count, "stage": "a", "done": 3}).encode())

    thread = threading.Thread(target=beat)
    thread.start()
    yield owner
    over.set()
    thread.join()


def test_an_owner_elsewhere_that_beats_is_not_disturbed_and_is_named(store: str, beating: Owner) -> None:
    with pytest.raises(OutputExistsError, match=r"run id faraway \(host node7, process 4711, since 2026-05-01T10"):
        open_ledger(store, "run", {}, resume=True)
    assert current_owner(store, "run") == beating


def test_a_newcomer_whose_temporary_file_the_faster_owner_removed_is_refused_like_others(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(store: str, key: str, data: bytes) -> bool:
        elsewhere(store)
        raise OutputError(f"cannot write {key}") from FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(module, "put_blob_if_absent", lose)
    with pytest.raises(OutputExistsError, match="run id faraway"):
        take(store, "run")


def test_a_silent_owner_elsewhere_is_followed_by_the_next_epoch_and_stops_when_it_wakes(
    store: str, quick_beats: None
) -> None:
    sleeper = open_ledger(store, "run", {})
    sleeper.record("a", "0", 1)
    assert sleeper.owner is not None
    asleep = replace(sleeper.owner, machine="other")
    module.claim_of(store, "run").release(silently=True)  # type: ignore[union-attr]
    put_blob(store, f"{_FOLDER}/000001.json", json.dumps(asdict(asleep)).encode())
    with open_ledger(store, "run", {}, resume=True) as ledger:
        assert (ledger.owner and ledger.owner.epoch) == 2
        assert ledger.finished("a") == {"0": 1}
        time.sleep(2 * module.HEARTBEAT_S)  # the owner was looked for a moment ago
        for forbidden in (lambda: sleeper.record("a", "1", 2), lambda: sleeper.commit("result", 1), sleeper.check):
            with pytest.raises(OutputExistsError, match=f"taken over by run id {ledger.owner.id}"):  # type: ignore[union-attr]
                forbidden()
        assert ledger.commit("result", 3)
    assert ledger.finished("a") == {"0": 1}


def test_an_owner_that_ended_or_died_here_is_followed_at_once(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WATCHED_HEARTBEATS", 10_000)  # a watched owner keeps the test from ending
    with open_ledger(store, "run", {}):
        pass
    assert read_heartbeat(store, "run", current_owner(store, "run") or elsewhere(store))["ended"]
    script = (
        "import os, sys; from sketchscale.io.runs.ledger import open_ledger;"
        "open_ledger(sys.argv[1], 'run', {}, resume=True); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, store], check=False).returncode == -9
    dead = current_owner(store, "run")
    assert dead is not None
    assert dead.epoch == 2
    assert [run.state for run in run_states(store)] == ["stopped"]
    taken = take(store, "run")
    reborn = replace(taken.owner, born="1")  # another process with the number of this one
    taken.release(silently=True)
    put_blob(store, f"{_FOLDER}/000003.json", json.dumps(asdict(reborn)).encode())
    with open_ledger(store, "run", {}, resume=True) as ledger:
        assert (ledger.owner and ledger.owner.epoch) == 4


def test_a_living_owner_of_this_machine_is_named_at_once_and_other_runs_go_on_beside_it(store: str) -> None:
    with open_ledger(store, "run", {}):
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(
                OutputExistsError, match=rf"run id [0-9a-f]{{12}} \(host .*, process {os.getpid()}, since"
            ):
                open_ledger(store, "run", {}, **options)
        with open_ledger(store, "other", {}) as other:
            other.record("a", "0", 1)
        (state,) = (run for run in run_states(store) if run.run == "run")
        assert (state.state, state.owner and state.owner.pid) == ("running", os.getpid())
    with open_ledger(store, "run", {"model": "another"}, overwrite=True) as ledger:
        assert ledger.finished("a") == {}


def test_a_run_that_is_forgotten_leaves_nothing(store: str) -> None:
    with open_ledger(store, "run", {}) as ledger:
        ledger.begin("a", 3)
        ledger.record("a", "0", 1)
        ledger.forget()
    assert list_blobs(store, "") == []
    with pytest.raises(OutputExistsError, match="a process that removed it"):
        ledger.commit("result", 1)


def test_status_shows_how_far_a_living_owner_is_without_counting(store: str, quick_beats: None) -> None:
    with open_ledger(store, "run", {}) as ledger:
        log = ledger.begin("predict", 5)
        log.add("0", 1)
        log.add("1", 1)
        end = time.monotonic() + 60
        while read_heartbeat(store, "run", ledger.owner).get("done") != 2 and time.monotonic() < end:  # type: ignore[arg-type]
            time.sleep(0.05)
        (state,) = run_states(store)
        assert (state.state, state.stage, state.stages, state.totals) == (
            "running",
            "predict",
            {"predict": 2},
            {"predict": 5},
        )
        assert state.rate
    (state,) = run_states(store)
    assert (state.state, state.stages) == ("stopped", {"predict": 0})  # no worker recorded anything


def test_on_windows_no_process_is_asked_by_a_signal_and_owners_are_told_apart_by_their_beats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`os.kill(pid, 0)` asks whether a process is there, but on Windows it sends Ctrl-C."""
    system = SimpleNamespace(name="nt", getpid=lambda: 7)
    monkeypatch.setattr("sketchscale.io.runs.lease.os", system)
    assert _born(7) == ""
    first = _machine()
    system.getpid = lambda: 8
    assert _machine() != first
