"""The ledger: what is recorded is there, what is damaged runs again, what differs is refused by name."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from sketchscale.errors import InputError, OutputExistsError, ResumeError
from sketchscale.io.runs import stages
from sketchscale.io.runs.ledger import StoreLedger, open_ledger
from sketchscale.io.stores.blobs import get_blob, list_blobs, put_blob

_MADE_OF = {"model": "abc", "config": "def"}


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/image.zarr"
    return str(tmp_path / "s") if request.param == "folder" else f"memory://ledger-{tmp_path.name}"


def opened(store: str, run: str = "run", made_of: dict[str, str] = _MADE_OF, **options: Any) -> StoreLedger:
    """A ledger that is given up at once, as by a process that ended: still one to write with."""
    with open_ledger(store, run, made_of, **options) as ledger:
        return ledger


def test_records_come_back_in_another_process_and_only_for_their_stage(store):
    ledger = pickle.loads(pickle.dumps(opened(store)))
    ledger.record("predict", "000.001", {"count": 3, "box": [0, 1.5, None]})
    ledger.record("predict", "000.000", 7)
    ledger.record("predict", "000.000", 8)
    ledger.record("predict-more", "000.000", 9)
    again = opened(store, resume=True)
    assert again.finished("predict") == {"000.000": 8, "000.001": {"count": 3, "box": [0, 1.5, None]}}
    assert again.finished("merge") == {}


def test_a_run_that_is_there_needs_a_decision(store):
    opened(store).record("a", "0", 1)
    with pytest.raises(OutputExistsError, match="--resume to continue it, --overwrite"):
        opened(store)
    with pytest.raises(ResumeError, match=r": config: def -> xyz, device: absent -> gpu;"):
        opened(store, "run", {**_MADE_OF, "config": "xyz", "device": "gpu"}, resume=True)
    with pytest.raises(InputError, match="one of them"):
        opened(store, resume=True, overwrite=True)
    assert opened(store, "run", {"model": "other"}, overwrite=True).finished("a") == {}
    opened(store, "other-run", _MADE_OF)


def test_damaged_and_foreign_records_do_not_count(store):
    ledger = opened(store)
    for key in "abc":
        ledger.record("stage", key, {"count": 3})
    path = ".sketchscale/run/ledger/stage"
    good = get_blob(store, f"{path}/a.json")
    put_blob(store, f"{path}/a.json", good[:-5])
    put_blob(store, f"{path}/b.json", good.replace(b'"count": 3', b'"count": 4'))
    assert ledger.finished("stage") == {"c": {"count": 3}}
    other = opened(store, "second", {"model": "x"})
    put_blob(store, ".sketchscale/second/ledger/stage/a.json", good)
    assert other.finished("stage") == {}


def test_one_commit_wins_and_a_damaged_one_is_an_error(store):
    ledger = opened(store)
    assert ledger.committed("labels") is None
    assert ledger.commit("labels", {"objects": 4})
    assert not ledger.commit("labels", {"objects": 5})
    assert ledger.committed("labels") == {"objects": 4}
    put_blob(store, ".sketchscale/run/commit/labels.json", b"{}")
    with pytest.raises(InputError, match="damaged or of another run"):
        ledger.committed("labels")


def test_scratch_goes_and_results_stay(store):
    ledger = opened(store)
    put_blob(ledger.scratch, "fields/zarr.json", b"{}")
    put_blob(store, "labels/zarr.json", b"{}")
    ledger.record("stage", "a", 1)
    ledger.clear_scratch()
    assert list_blobs(ledger.scratch, "") == []
    assert list_blobs(store, "labels") == ["labels/zarr.json"]
    assert ledger.finished("stage") == {"a": 1}


def test_strays_of_a_killed_run_are_swept_where_only_it_writes(tmp_path):
    store = str(tmp_path)
    opened(store)
    for folder in (".sketchscale/run/ledger/a", "labels/mine", "labels/other"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.1.partial").touch()
    opened(store, resume=True, outputs=("labels/mine",))
    assert [p.parent.name for p in tmp_path.rglob("*.partial")] == ["other"]


def test_a_stage_that_ended_is_one_read_and_a_damaged_object_falls_back_to_the_records(store):
    ledger = opened(store)
    log = ledger.begin("predict", 3)
    for key in "abc":
        ledger.record("predict", key, {"count": 3})
        log.add(key, {"count": 3})
    log.end()
    results = {key: {"count": 3} for key in "abc"}
    end = ".sketchscale/run/stage/predict/end.gz"
    data = get_blob(store, end)
    for blob in list_blobs(store, ".sketchscale/run/ledger"):
        put_blob(store, blob, b"")
    assert ledger.begin("predict", 3).finished == ledger.finished("predict") == results
    for damaged in (data[:-9], data[:30] + bytes([data[30] ^ 1]) + data[31:], b"", b"{}"):
        put_blob(store, end, damaged)
        assert ledger.finished("predict") == {}
    ledger.record("predict", "b", {"count": 4})
    assert ledger.begin("predict", 3).finished == {"b": {"count": 4}}
    other = opened(store, "second", {"model": "x"})
    put_blob(store, ".sketchscale/second/stage/predict/end.gz", data)
    assert other.finished("predict") == {}


def test_a_long_stage_is_resumed_from_its_parts_and_the_records_after_them(store, monkeypatch):
    monkeypatch.setattr(stages, "PART", 4)
    ledger = opened(store)
    log = ledger.begin("predict", 12)
    for number in range(10):  # two parts of four, and two that only workers noted
        ledger.record("predict", f"{number:02d}", number)
        log.add(f"{number:02d}", number)
    for number in range(8):
        put_blob(store, f".sketchscale/run/ledger/predict/{number:02d}.json", b"")
    ledger = opened(store, resume=True)
    again = ledger.begin("predict", 12)
    assert again.finished == {f"{number:02d}": number for number in range(10)}
    for number in (10, 11):
        again.add(f"{number:02d}", number)
    again.end()
    assert ledger.finished("predict") == {f"{number:02d}": number for number in range(12)}
    names = [key.rpartition("/")[2] for key in list_blobs(store, ".sketchscale/run/stage/predict")]
    assert names == ["00000.gz", "00001.gz", "00002.gz", "end.gz", "plan.json"]
