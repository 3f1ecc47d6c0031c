"""Every fault in every kind of operation: the same result, or a typed error that names the key, in time. No silence."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest
import zarr
from zarr.storage import ObjectStore

from tests.faults.cells import CELLS, LASTING, run_cell, run_stale_list
from tests.faults.proxy import FAULTS, Proxy, Rule
from tests.object_store import ENVIRONMENT, ObjectServer

_WAIT_S = 12.0
_SHORT_WAIT_S = 1.5
"""Where the wait is the outcome."""
_SLACK_S = 20.0
"""Of a busy machine: beside the wait, an operation also does its work."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),  # zarr's, when one fails
]


@pytest.fixture
def proxy(s3: str, s3_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    proxy = Proxy(int(s3_server.endpoint.rpartition(":")[2]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield proxy
    proxy.close()


def _check(fault: str, operation: str, bucket: str, proxy: Proxy, wait: float) -> None:
    outcome = run_cell(fault, operation, bucket, proxy)
    if fault in LASTING and operation.startswith("chunk"):
        gc.collect()
    assert outcome.hits, "the fault was never met"
    assert outcome.seconds < wait + _SLACK_S
    if fault not in LASTING:
        assert outcome.result == "identical", outcome.message
        return
    assert outcome.result in LASTING[fault], outcome
    assert f"{fault}-{operation}".replace(" ", "-") in outcome.message or bucket in outcome.message
    assert "\n" not in outcome.message
    assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in outcome.message


@pytest.mark.parametrize(("fault", "operation"), CELLS)
def test_a_fault_ends_in_the_same_result_or_in_an_error_with_the_key(
    fault: str, operation: str, s3: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = _SHORT_WAIT_S if "UnreachableError" in LASTING.get(fault, ()) else _WAIT_S
    monkeypatch.setenv("SKETCHSCALE_WAIT_S", str(wait))
    _check(fault, operation, s3, proxy, wait)


@pytest.mark.nightly
@pytest.mark.parametrize(("fault", "operation"), CELLS * 5)
def test_a_fault_ends_so_again_and_again(
    fault: str, operation: str, s3: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKETCHSCALE_WAIT_S", str(_WAIT_S))
    _check(fault, operation, s3, proxy, _WAIT_S)


def test_a_stale_list_costs_work_and_nothing_else(s3: str, proxy: Proxy) -> None:
    assert run_stale_list(s3, proxy) == ["first", "second", "second again"]


def test_without_our_store_an_absent_chunk_would_be_zeros(s3: str, proxy: Proxy) -> None:
    """The control: what the cells above would say of plain Zarr."""
    import obstore.store

    store = ObjectStore(obstore.store.from_url(f"{s3}/plain.zarr", client_options={"allow_http": True}))
    array = zarr.create_array(store, shape=(4, 4), chunks=(4, 4), dtype="uint8")
    array[:] = 7
    proxy.rule = Rule(method="GET", pattern="/c/", fault=FAULTS["404 for ever"][0])
    assert np.all(array[:] == 0)
