"""Object storage against a server that speaks S3, and a plain web server."""

from __future__ import annotations

import functools
import http.server
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import sketchscale
from sketchscale.errors import InputError, MissingDataError, OutputError, SetupError, UnreachableError
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, read_box, write_box
from sketchscale.io.ome_zarr.groups import read_attributes, update_attributes
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_labels, create_labels
from sketchscale.io.stores.addresses import open_store
from sketchscale.io.stores.blobs import (
    blob_stats,
    change_blob,
    delete_blobs,
    get_blob,
    list_blobs,
    put_blob,
    put_blob_if_absent,
)
from sketchscale.io.stores.settings import StorageSettings, chosen_settings, storage_settings, using
from tests.faults.proxy import FAULTS, Exchange, Proxy, Rule, ignores_conditions, refuses_conditions
from tests.object_store import ENVIRONMENT, ObjectServer
from tests.pipeline import draw_nuclei, store_image

_WHOLE = Box((0, 0), (20, 30))
_VALUES = np.arange(600, dtype=np.uint16).reshape(20, 30)


def _fill(store: str, *, chunk: int = 16, values: np.ndarray = _VALUES) -> ArrayRef:
    ref = ArrayRef(store=store, path="0")
    create_array(ref, shape=values.shape, chunks=(chunk, chunk), dtype=values.dtype)
    write_box(ref, Box((0, 0), values.shape), values)
    return ref


@pytest.fixture
def proxy(s3: str, s3_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    proxy = Proxy(int(s3_server.endpoint.rpartition(":")[2]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield proxy
    proxy.close()


# ---- blobs and arrays


def test_blobs_are_written_read_listed_and_deleted(s3: str) -> None:
    put_blob(f"{s3}/a", "b/c", b"1")
    assert get_blob(f"{s3}/a", "b/c") == b"1"
    assert get_blob(f"{s3}/a", "b/d") is None
    assert [put_blob_if_absent(f"{s3}/a", "b/e", data) for data in (b"1", b"2")] == [True, False]
    assert list_blobs(f"{s3}/a", "b") == ["b/c", "b/e"]
    assert [(key, size) for key, size, _ in blob_stats(f"{s3}/a", "")] == [("b/c", 1), ("b/e", 1)]
    delete_blobs(f"{s3}/a", "b")
    assert list_blobs(f"{s3}/a", "") == []


def test_one_object_that_is_gone_leaves_no_other_of_its_batch(s3: str, proxy: Proxy) -> None:
    """GCS and Azure say of a batch that one was absent, and not which."""
    for name in "abc":
        put_blob(s3, f"r/{name}", b"1")
    proxy.rule = Rule(method="POST", pattern="delete", fault=FAULTS["404 once"][0], times=1)
    delete_blobs(s3, "r")
    assert list_blobs(s3, "r") == []


def test_an_array_is_written_and_read(s3: str) -> None:
    ref = _fill(f"{s3}/image.zarr")
    assert np.array_equal(read_box(ref, _WHOLE), _VALUES)


def test_a_shard_is_read_in_parts(s3: str) -> None:
    ref = ArrayRef(store=f"{s3}/sharded.zarr", path="0")
    create_array(ref, shape=(20, 30), chunks=(8, 8), shards=(16, 16), dtype="uint16")
    write_box(ref, _WHOLE, _VALUES)
    assert np.array_equal(read_box(ref, Box((2, 3), (7, 20))), _VALUES[2:7, 3:20])


def test_a_worker_that_lives_on_does_not_believe_the_metadata_of_an_older_array(s3: str) -> None:
    ref = _fill(f"{s3}/again.zarr")
    elsewhere = ArrayRef(store=f"{s3}/other.zarr", path="0")
    create_array(elsewhere, shape=(20, 30), chunks=(8, 8), dtype="uint8")
    write_box(elsewhere, _WHOLE, np.ones((20, 30), np.uint8))
    read_box(ref, _WHOLE)  # the metadata are kept from here on
    delete_blobs(ref.store, "0")
    copy_image(elsewhere.store, ref.store)
    again = read_box(ref, _WHOLE)
    assert again.dtype == np.uint8
    assert np.all(again == 1)


def test_the_same_array_is_read_by_fsspec_and_not_written(s3: str) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'sketchscale[s3]'")
    _fill(f"{s3}/fallback.zarr")
    ref = ArrayRef(store=f"fsspec+{s3}/fallback.zarr", path="0")
    assert np.array_equal(read_box(ref, _WHOLE), _VALUES)
    delete_blobs(f"{s3}/fallback.zarr", "0/c/1")
    with pytest.raises(MissingDataError, match=r"c/1/0 is absent"):
        read_box(ref, _WHOLE)
    with pytest.raises(OutputError, match="read only"):
        put_blob(f"fsspec+{s3}/fallback.zarr", "a", b"")


def test_an_absent_chunk_is_an_error_with_its_key_and_no_zeros(s3: str) -> None:
    ref = _fill(f"{s3}/holes.zarr")
    delete_blobs(ref.store, "0/c/1")
    with pytest.raises(MissingDataError, match=r"holes\.zarr/0/c/1/\d is absent"):
        read_box(ref, _WHOLE)
    assert np.all(read_box(ref, _WHOLE, missing="fill")[16:] == 0)


@pytest.mark.parametrize("count", [35, pytest.param(1100, marks=pytest.mark.nightly)])
def test_a_listing_of_several_pages_is_whole_and_foreign_keys_do_no_harm(count: int, s3: str, proxy: Proxy) -> None:
    keys = [f"r/{number:04d}.json" for number in range(count)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: put_blob(f"{s3}/many", key, b"{}"), keys))
    put_blob(f"{s3}/many", "r/note from a colleague.txt", b"?")
    put_blob(f"{s3}/many-more", "r/0000.json", b"?")
    if count < 1000:  # the server's pages hold a thousand
        proxy.rule = Rule(method="GET", pattern="list-type=2", fault=_ten_at_a_time)
    assert list_blobs(f"{s3}/many", "r") == [*keys, "r/note from a colleague.txt"]
    assert sum("list-type=2" in line for line in proxy.log) >= 2
    delete_blobs(f"{s3}/many", "r")
    assert list_blobs(f"{s3}/many", "r") == []
    assert get_blob(f"{s3}/many-more", "r/0000.json") == b"?"


def _ten_at_a_time(exchange: Exchange) -> None:
    exchange.path += "&max-keys=10"
    exchange.reply(exchange.forward())


def test_a_store_travels_without_credentials(s3: str) -> None:
    put_blob(s3, "a", b"1")
    data = pickle.dumps(open_store(s3))
    assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"].encode() not in data
    assert pickle.loads(data) == open_store(s3)


# ---- changes at the same time

_RACE = """
import sys
from sketchscale.io.ome_zarr.groups import update_attributes
store, who = sys.argv[1:]
for number in range(25):
    name = f"{who}-{number}"
    update_attributes(store, "labels", lambda old: {"names": sorted({*old.get("names", []), name})}, "0.5")
"""


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_of_names_that_two_processes_list_at_the_same_time_none_is_lost(where: str, s3: str, tmp_path: Path) -> None:
    store = f"{s3}/race" if where == "s3" else str(tmp_path / "race")
    racers = [subprocess.Popen([sys.executable, "-c", _RACE, store, who]) for who in "ab"]
    assert [racer.wait(timeout=400) for racer in racers] == [0, 0]
    names = (read_attributes(store, "labels") or {})["names"]
    assert sorted(names) == sorted(f"{who}-{number}" for who in "ab" for number in range(25))


@pytest.mark.parametrize("where", ["folder", "memory", "s3"])
def test_of_changes_by_threads_none_is_lost(where: str, s3: str, tmp_path: Path) -> None:
    store = {"folder": str(tmp_path / "race"), "memory": f"memory://{tmp_path}", "s3": f"{s3}/race"}[where]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda n: change_blob(store, "list", lambda old: bytes(sorted({*(old or b""), n}))), range(50)))
    assert get_blob(store, "list") == bytes(range(50))
    assert where != "folder" or [path.name for path in Path(store).iterdir()] == ["list"]


def test_a_lock_of_a_killed_writer_holds_nobody_up(tmp_path: Path) -> None:
    program = (
        "import os, signal; from pathlib import Path; from sketchscale.io.stores.local_files import locked\n"
        f"with locked(Path({str(tmp_path / 'list')!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=400, check=False).returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == ["list.lock.partial"]
    with using(StorageSettings(wait_s=5.0)):  # a lock that is held would be waited for so long, and then be an error
        change_blob(str(tmp_path), "list", lambda old: b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["list"]


def test_labels_of_two_names_are_both_listed(s3: str, tmp_path: Path) -> None:
    local = store_image(tmp_path / "image.zarr", draw_nuclei((70, 90)))
    copy_image(local, f"{s3}/image.zarr")
    image = open_image(f"{s3}/image.zarr")
    for name in ("a", "b"):
        create_labels(image, name, chunks=(64, 64))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: commit_labels(image, name), ("a", "b")))
    assert sorted(open_image(f"{s3}/image.zarr").labels) == ["a", "b"]


def copy_image(source: str, target: str) -> None:
    for key in list_blobs(source, ""):
        put_blob(target, key, get_blob(source, key) or b"")


# ---- exactly one winner


def test_of_many_that_create_exactly_one_hears_that_it_did(s3: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        heard = list(pool.map(lambda n: put_blob_if_absent(s3, "commit", b"same"), range(16)))
    assert sum(heard) == 1


def _stored_then(status: int) -> object:
    def fault(exchange: Exchange) -> None:
        exchange.forward()
        exchange.fail(status, "SlowDown")

    return fault


def test_a_winner_whose_answer_was_lost_learns_that_it_won(s3: str, proxy: Proxy) -> None:
    put_blob_if_absent(s3, "other", b"")  # the probe of the bucket is over
    proxy.rule = Rule(method="PUT", pattern="/commit", fault=_stored_then(503), times=1)
    assert put_blob_if_absent(s3, "commit", b"mine") is True
    assert put_blob_if_absent(s3, "commit", b"mine") is False
    proxy.rule = Rule(method="PUT", pattern="/list", fault=_stored_then(503), times=1)
    change_blob(s3, "list", lambda old: (old or b"") + b"1")
    proxy.rule.hits = 0
    change_blob(s3, "list", lambda old: (old or b"") + b"2")
    assert get_blob(s3, "list") == b"12"


@pytest.mark.parametrize("fault", [ignores_conditions, refuses_conditions])
def test_a_bucket_without_put_if_absent_is_refused_and_left_clean(fault: object, s3: str, proxy: Proxy) -> None:
    proxy.rule = Rule(method="PUT", pattern="", fault=fault)
    with pytest.raises(OutputError, match="output in a bucket without put-if-absent") as refused:
        put_blob_if_absent(f"{s3}/out.zarr", ".sketchscale/run.json", b"{}")
    assert "\n" not in str(refused.value)
    assert list_blobs(s3, "") == []


# ---- what does not answer, what refuses


def test_a_server_that_is_not_there_is_an_error_in_time(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    started = time.monotonic()
    with using(chosen_settings(1.0, None)), pytest.raises(UnreachableError, match=r"s3://.*/a does not .* attempts"):
        get_blob(s3, "a")
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("act", [lambda store: get_blob(store, "a"), lambda store: list_blobs(store, "a")])
def test_a_bucket_that_is_not_there_is_named(act: object, s3: str) -> None:
    with pytest.raises(MissingDataError, match="no such bucket"):
        act("s3://no-bucket-of-ours/x.zarr")  # type: ignore[operator]
    with pytest.raises(MissingDataError, match="no such bucket"):
        put_blob("s3://no-bucket-of-ours/x.zarr", "a", b"")


@pytest.mark.parametrize(
    "address",
    ["s3://me:secret@bucket/x", "https://me:secret@host/x", "https://host/x?X-Amz-Signature=secret", "s3:///x"],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(InputError) as refused:
        open_image(address)
    assert "secret" not in str(refused.value)


def test_credentials_come_from_the_shared_file_and_the_profile(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = testing\naws_secret_access_key = testing\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    put_blob(s3, "a", b"1")
    assert get_blob(s3, "a") == b"1"
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SetupError, match="AWS profile 'nobody'"):
        get_blob(s3, "a")


def test_the_endpoint_is_checked_and_the_environments_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    assert chosen_settings(7.5, "https://store:9000") == StorageSettings(wait_s=7.5, endpoint="https://store:9000")
    for wrong in ("store:9000", "ftp://store", "http://me:secret@store"):
        with pytest.raises(InputError, match="endpoint") as refused:
            chosen_settings(60, wrong)
        assert "secret" not in str(refused.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all:1")
    assert chosen_settings(60, None).endpoint == "http://all:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:1")
    assert chosen_settings(60, None).endpoint == storage_settings().endpoint == "http://s3:1"


# ---- a web server


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def list_directory(self, path: object) -> None:
        self.send_error(403, "no listing")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of a plain web server that serves `tmp_path`: no listing, no ranges."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_image_opens_from_a_plain_web_server(web: str, tmp_path: Path) -> None:
    pixels = draw_nuclei((70, 90))
    store_image(tmp_path / "my image.zarr", pixels)
    view = sketchscale.open(f"{web}/my%20image.zarr")
    assert np.array_equal(np.squeeze(view.values), pixels)
    with pytest.raises(OutputError, match="read only"):
        put_blob(f"{web}/my%20image.zarr", "a", b"")
    with pytest.raises(MissingDataError):
        open_image(f"{web}/nothing.zarr")


def test_a_shard_is_read_from_a_web_server_without_ranges(web: str, tmp_path: Path) -> None:
    ref = ArrayRef(store=str(tmp_path / "sharded.zarr"), path="0")
    create_array(ref, shape=(20, 30), chunks=(8, 8), shards=(16, 16), dtype="uint16")
    write_box(ref, _WHOLE, _VALUES)
    remote = ArrayRef(store=f"{web}/sharded.zarr", path="0")
    assert np.array_equal(read_box(remote, Box((2, 3), (7, 20))), _VALUES[2:7, 3:20])


def test_attributes_of_a_group_change_in_both_formats(s3: str) -> None:
    for version in ("0.4", "0.5"):
        for number in range(2):
            update_attributes(f"{s3}/{version}", "g", lambda old, n=number: {**old, f"k{n}": n}, version)  # type: ignore[misc, arg-type]
        assert read_attributes(f"{s3}/{version}", "g") == {"k0": 0, "k1": 1}
