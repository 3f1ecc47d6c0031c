"""What does every fault of object storage cause in every kind of operation, and what does verifying a write cost?

    python -m benchmarks.storage_faults [--wait 5] > benchmarks/results/storage_faults.txt

Starts a server that speaks S3 and a proxy that causes the faults, both on loopback (`tests/faults/`).
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections import Counter

import numpy as np

from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, read_box, write_box
from sketchscale.io.stores.blobs import put_blob_if_absent
from tests.faults.cells import CELLS, OPERATIONS, run_cell, run_stale_list
from tests.faults.proxy import FAULTS, Proxy
from tests.object_store import ENVIRONMENT, ObjectServer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wait", type=float, default=5.0, help="deadline of a call, s")
    wait = parser.parse_args().wait
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)  # zarr's, when a chunk fails
    server = ObjectServer()
    proxy = Proxy(int(server.endpoint.rpartition(":")[2]))
    os.environ.update({**ENVIRONMENT, "SKETCHSCALE_WAIT_S": str(wait), "AWS_ENDPOINT_URL": proxy.endpoint})
    bucket = f"s3://{server.make_bucket()}"
    put_blob_if_absent(bucket, "probe", b"")
    try:
        print_cells(bucket, proxy, wait)
        print_costs(bucket, proxy)
    finally:
        proxy.close()
        server.close()


def print_cells(bucket: str, proxy: Proxy, wait: float) -> None:
    """A row a fault: result and seconds for each kind of operation."""
    print(f"{len(CELLS)} cells, deadline {wait:g} s; result and seconds\n")
    print((f"{'':<26}" + "".join(f"{operation:<28}" for operation in OPERATIONS)).rstrip())
    results: Counter[str] = Counter()
    slowest, silent = 0.0, 0
    for fault in FAULTS:
        row = ""
        for operation in OPERATIONS:
            outcome = run_cell(fault, operation, bucket, proxy)
            named = outcome.result == "identical" or bucket in outcome.message
            silent += outcome.result == "different" or not named or not outcome.hits
            results[outcome.result] += 1
            slowest = max(slowest, outcome.seconds)
            row += f"{outcome.result:<20}{outcome.seconds:>5.2f}   "
        print(f"{fault:<26}{row}".rstrip())
    ran = run_stale_list(bucket, proxy)
    print(f"{'stale list':<26}tasks run: {', '.join(ran)}\n")
    print(", ".join(f"{count} {result}" for result, count in results.most_common()))
    print(f"silent or without the key: {silent}; slowest {slowest:.2f} s")


def print_costs(bucket: str, proxy: Proxy) -> None:
    """Requests and time of a box of 64 chunks: how much of it is looking up what was written."""
    ref, box = ArrayRef(store=f"{bucket}/cost.zarr", path="0"), Box((0, 0), (2048, 2048))
    create_array(ref, shape=box.stop, chunks=(256, 256), dtype="uint16")
    values = np.random.default_rng(0).integers(0, 4096, box.stop, dtype=np.uint16)
    for name, act in (("write", lambda: write_box(ref, box, values)), ("read", lambda: read_box(ref, box))):
        proxy.log.clear()
        started = time.perf_counter()
        act()
        seconds = time.perf_counter() - started
        kinds = Counter(line.partition(" ")[0] for line in proxy.log)
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        print(f"{name} of a box of 64 chunks, 8 MB: {listed}; {seconds:.2f} s")


if __name__ == "__main__":
    main()
