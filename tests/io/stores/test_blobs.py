"""Blobs are whole or absent, exactly one writer commits, and no key leaves its store."""

from __future__ import annotations

import os
import resource
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError, OutputError
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, open_array
from sketchscale.io.runs.partial_results import get_arrays, put_arrays
from sketchscale.io.stores.blobs import (
    blob_stats,
    check_key,
    delete_blobs,
    get_blob,
    list_blobs,
    put_blob,
    put_blob_if_absent,
    sweep_dead,
    sweep_partials,
)


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    return str(tmp_path / "s") if request.param == "folder" else f"memory://{tmp_path.name}"


def test_put_get_list_delete(store):
    assert get_blob(store, "a") is None
    assert list_blobs(store, "") == []
    for key in ("b/2", "b/1", "bc"):
        put_blob(store, key, key.encode())
    put_blob(store, "b/1", b"new")
    assert (get_blob(store, "b/1"), get_blob(store, "b")) == (b"new", None)
    assert list_blobs(store, "b") == ["b/1", "b/2"]
    assert [(key, size) for key, size, _ in blob_stats(store, "b")] == [("b/1", 3), ("b/2", 3)]
    delete_blobs(store, "b")
    delete_blobs(store, "b")
    assert list_blobs(store, "") == ["bc"]


def test_of_many_writers_exactly_one_creates(store):
    for turn in range(20):
        start, won = threading.Barrier(4), []

        def write(who, turn=turn, start=start, won=won):
            start.wait()
            if put_blob_if_absent(store, f"commit/{turn}", b"%d" % who):
                won.append(who)

        threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert get_blob(store, f"commit/{turn}") == b"%d" % won[0]
    assert not [key for key in list_blobs(store, "") if "partial" in key]


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\\b", "a\0b", "..%2fb", "C:x", "a" * 2000, None, 3, "a\nb"],
)
def test_keys_that_leave_the_store_are_refused(key):
    with pytest.raises(InputError) as caught:
        check_key(key)
    assert "\n" not in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(arrays=st.dictionaries(st.sampled_from("abc"), st.integers(0, 5), max_size=3))
def test_arrays_come_back_and_their_bytes_do_not_depend_on_order(arrays):
    values = {name: np.arange(n, dtype=np.uint64) for name, n in arrays.items()}
    put_arrays("memory://arrays", "a", values)
    put_arrays("memory://arrays", "b", dict(reversed(values.items())))
    assert get_blob("memory://arrays", "a") == get_blob("memory://arrays", "b")
    got = get_arrays("memory://arrays", "a")
    assert got.keys() == values.keys()
    assert all(np.array_equal(got[name], values[name]) for name in values)


def test_every_flipped_bit_of_arrays_is_noticed_or_harmless():
    values = {"ids": np.arange(40, dtype=np.uint32)}
    put_arrays("memory://flips", "a", values)
    good = get_blob("memory://flips", "a")
    rng = np.random.default_rng(1)
    for position in rng.integers(0, len(good), 200):
        bad = bytearray(good)
        bad[position] ^= 1 << int(rng.integers(8))
        put_blob("memory://flips", "b", bytes(bad))
        try:
            got = get_arrays("memory://flips", "b")
        except InputError:
            continue
        assert all(np.array_equal(array, values["ids"]) for array in got.values()), position


def test_strays_of_killed_writers_are_swept_and_never_listed(tmp_path):
    put_blob(str(tmp_path), "a/b", b"")
    (tmp_path / "a/b.0123.partial").write_bytes(b"half")
    assert list_blobs(str(tmp_path), "") == ["a/b"]
    assert sweep_partials(str(tmp_path)) == 1
    assert not (tmp_path / "a/b.0123.partial").exists()


def test_in_shared_folders_only_files_of_dead_processes_are_swept(tmp_path):
    child = os.fork()
    if child == 0:
        os.link = lambda *_: os._exit(9)  # a writer that dies before its file gets its name
        put_blob_if_absent(str(tmp_path), "labels/zarr.json", b"half")
        os._exit(0)
    assert os.waitpid(child, 0)[1] >> 8 == 9
    (stray,) = (tmp_path / "labels").glob("*.partial")
    living = stray.with_name(stray.name.replace(f"-{child}-", f"-{os.getpid()}-"))
    foreign = stray.with_name("zarr.0123456789abcdef0123456789abcdef.partial")
    for other in (living, foreign):
        other.touch()
    assert sweep_dead(str(tmp_path), "labels") == 1
    assert sorted((tmp_path / "labels").iterdir()) == sorted([living, foreign])


def test_making_an_array_writes_nothing_above_its_own_group(tmp_path):
    create_array(ArrayRef(store=str(tmp_path), path="labels/cells/0"), shape=(4,), chunks=(4,), dtype="uint8")
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["cells"]
    assert open_array(ArrayRef(store=str(tmp_path), path="labels/cells/0")).shape == (4,)


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path):
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            put_blob(str(tmp_path), "big", b"x" * 5000)
        except OutputError as error:
            os._exit(0 if "\n" not in str(error) and "cannot write" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_one_line(tmp_path):
    if os.geteuid() == 0:
        child = os.fork()
        if child == 0:
            os.chmod(tmp_path, 0o555)
            os.setuid(65534)
            try:
                put_blob(str(tmp_path), "a", b"")
            except OutputError:
                os._exit(0)
            except BaseException:
                os._exit(2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        return
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="cannot write"):
        put_blob(str(tmp_path), "a", b"")
