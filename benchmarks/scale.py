"""What would a screen cost? Measured: blocks, the scheduler, the ledger, the merge. Projected: hours and dollars.

    python benchmarks/scale.py [--largest 1000000] [--engines processes dask ray]
    python benchmarks/scale.py --tiny

    blocks      segment and measure a drawn plate with the shipped model, serial: seconds per tile and per megapixel
    scheduler   a plan of trivial tasks on each engine with two workers, seconds per task
    ledger      tasks that do nothing, recorded on a local disk by the loop; then read back, as --resume does
    merge       union-find, joining and numbering, as the driver does them, on made-up blocks of eight objects, one of
                them over each face; small objects are not read here: their requests are priced instead
    plan        a loop over so many tasks with results as the outlines give them, without a ledger
    projection  on plates, wells and a slide: the network, or the scheduler (Ray, batches of 8 tiles) where that is
                slower, then all other stages; no GPU was measured, its rate is an assumption

The driver's memory is the peak of a process of its own (VmHWM). Asked: at most 1 GB and 200 B for each object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
from scipy import ndimage

from sketchscale.config import Execution, SegmentOptions
from sketchscale.engine import open_engine
from sketchscale.engine.base import Plan, run_plan
from sketchscale.geometry import Box, TileTasks, tile_cover
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.merge import BlockObjects, Unifier, join_components, number_objects
from sketchscale.integration.plan import BlockTask, block_task
from sketchscale.io.ome_zarr.arrays import write_box
from sketchscale.io.ome_zarr.new_images import commit_image, create_image
from sketchscale.io.runs.ledger import open_ledger
from sketchscale.networks.checkpoint import load_model
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.segment.segment import segment

BLOCK = 2048
OBJECTS = 8

ASSUMED = {
    "tiles of 512 px per second on one GPU (not measured)": 60.0,
    "$ per hour of one GPU with 4 cores, on demand": 1.00,
    "$ per hour of the same, spot": 0.40,
    "$ per hour of one core": 0.04,
    "cores beside each GPU": 4.0,
    "$ per 1000 PUT": 0.005,
    "$ per 1000 GET": 0.0004,
}
"""Prices as large clouds list them, rounded; change them here."""

JOBS = {
    "60 plates of 8000 px": (60, 8000, 8000),
    "1,536 wells of 4 fields of 2048 px": (1536 * 4, 2048, 2048),
    "a slide of 100,000 px": (1, 100_000, 100_000),
}


def draw(side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Touching blobs, uint8."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(side, side)), 6)
    drawn: np.ndarray[Any, np.dtype[np.uint8]] = (255 * ((noise - noise.min()) / np.ptp(noise)) ** 2).astype(np.uint8)
    return drawn


def blocks(folder: Path, side: int) -> dict[str, float]:
    """Seconds per tile (predict) and per megapixel (all other stages) on one worker, and objects per megapixel."""
    address = str(folder / "plate.zarr")
    pixels = draw(side)
    level = create_image(address, pixels.shape, "yx", "uint8", (512, 512), levels=1)[0]
    write_box(level, Box((0, 0), pixels.shape), pixels)
    commit_image(address)
    how = Execution(engine="serial")
    segment(address, SegmentOptions(labels="warm", precision="float32"), how)  # compiles
    result = segment(address, SegmentOptions(precision="float32"), how)
    megapixels = side**2 / 1e6
    costs = {line.stage: line.seconds / megapixels for line in result.stages if line.stage != "audit"}
    predict = next(line for line in result.stages if line.stage == "predict")
    started = time.perf_counter()
    measure(address, "nuclei", how)
    costs["measure"] = (time.perf_counter() - started) / megapixels
    costs["predict"] = predict.seconds / predict.tasks
    return {"objects": result.n / megapixels, **costs}


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    number: int

    @property
    def key(self) -> str:
        return f"{self.number:08d}"


def nothing(task: Any, config: None) -> dict[str, Any]:
    """Gives what an outline gives."""
    return {"checksum": "00000000", "objects": 100, "pixels": 100_000, "farthest": 5.5}


def scheduler(name: str, tasks: int) -> float:
    """Seconds per trivial task."""
    engine = open_engine(name, 2)
    try:
        run_plan(Plan(stage="warm", fn=nothing, tasks=[Count(number=i) for i in range(20)]), engine)
        started = time.perf_counter()
        run_plan(Plan(stage="nothing", fn=nothing, tasks=[Count(number=i) for i in range(tasks)]), engine)
        return (time.perf_counter() - started) / tasks
    finally:
        engine.close()


def grid(count: int) -> tuple[int, int]:
    rows = math.isqrt(count)
    return rows, -(-count // rows)


def plan(count: int) -> Plan[BlockTask]:
    rows, columns = grid(count)
    tasks = TileTasks(tile_cover((rows * BLOCK, columns * BLOCK), (BLOCK, BLOCK)), block_task)
    return Plan(stage="outline", fn=nothing, tasks=tasks)


def child_plan(count: int) -> dict[str, float]:
    started = time.perf_counter()
    results = run_plan(plan(count), open_engine("serial"))
    return {"seconds": time.perf_counter() - started, "tasks": len(results)}


def child_ledger(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with open_ledger(folder, "run", {"a": "b"}) as ledger:
            run_plan(plan(count), open_engine("serial"), ledger=ledger)
        written = time.perf_counter() - started
        started = time.perf_counter()
        with open_ledger(folder, "run", {"a": "b"}, resume=True) as ledger:
            run_plan(plan(count), open_engine("serial"), ledger=ledger)
        return {"seconds": written, "resume": time.perf_counter() - started}


_NONE = np.empty(0)


def made_up(row: int, column: int, rows: int, columns: int) -> BlockObjects:
    """A block of OBJECTS objects: the first four lie on its faces and are shared with the neighbour, where one is."""
    width, y, x = columns * BLOCK, row * BLOCK, column * BLOCK
    half = BLOCK // 2
    faces = (
        ((y - 1) * width + x + half, row > 0),
        ((y + half) * width + x - 1, column > 0),
        ((y + half) * width + x + BLOCK - 1, column < columns - 1),
        ((y + BLOCK - 1) * width + x + half, row < rows - 1),
    )
    shared = [(pixel, local) for local, (pixel, there) in enumerate(faces, 1) if there]
    ids = np.arange(OBJECTS, dtype=np.int64)
    first = (y + ids) * width + x + ids
    box = np.stack([y + ids, x + ids, y + ids + 10, x + ids + 10], axis=1)
    return BlockObjects(
        area=np.full(OBJECTS, 100, np.int64),
        first=first,
        box=box,
        shared=np.array([pixel for pixel, _ in shared], np.int64),
        shared_id=np.array([local for _, local in shared], np.int32),
        peak=np.full(OBJECTS, 5, np.float32),
        pair=np.empty((0, 2), np.int32),
        pairs=_NONE,
        saddle=_NONE.astype(np.float32),
        vote=_NONE.astype(np.int64),
        near=_NONE.astype(np.int64),
    )


def child_merge(count: int) -> dict[str, float]:
    """Steps 2 to 4 of the merge; each face joins two objects into one."""
    rows, columns = grid(count)
    config = IntegrationConfig(threshold=0.0)

    def every() -> Iterator[BlockObjects]:
        return (made_up(row, column, rows, columns) for row in range(rows) for column in range(columns))

    if count > 4:
        child_merge(4)  # compiles
    started = time.perf_counter()
    for _ in every():
        pass
    making = time.perf_counter() - started
    started, unifier = time.perf_counter(), Unifier()
    for row in range(rows):
        objects = [made_up(row, column, rows, columns) for column in range(columns)]
        unifier.add_row(objects, ((row + 1) * BLOCK - 8) * columns * BLOCK)
    roots = join_components(every(), unifier.roots())
    merged, _ = number_objects(every(), roots, rows * columns * BLOCK**2, config)
    assert merged.count == rows * columns * OBJECTS - rows * (columns - 1) - columns * (rows - 1)
    return {"seconds": time.perf_counter() - started - 3 * making, "objects": merged.count}


CHILDREN = {"plan": child_plan, "ledger": child_ledger, "merge": child_merge}


def in_child(what: str, count: int) -> dict[str, float]:
    """A measurement in a process of its own, with its peak memory in MB."""
    command = [sys.executable, __file__, "--child", what, str(count)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def growth(largest: int, most_recorded: int) -> tuple[list[str], float]:
    """Plan, ledger and merge from 100 blocks on, and the merge of one object in seconds, from the largest.

    The ledger, which writes files, is measured until `most_recorded`.
    """
    per_object = 0.0
    lines = [f"{'blocks':>9}{'plan us':>9}{'ledger us':>11}{'resume s':>10}{'merge us':>10}{'objects':>10}"]
    lines[0] += f"{'driver MB':>11}{'asked MB':>10}"
    for exponent in range(2, round(math.log10(largest)) + 1):
        n = 10**exponent
        planned, merged = in_child("plan", n), in_child("merge", n)
        ledger = in_child("ledger", n) if n <= most_recorded else None
        per_object = merged["seconds"] / merged["objects"]
        driver = max(part["mb"] for part in (planned, merged, ledger) if part is not None)
        recorded = f"{1e6 * ledger['seconds'] / n:>11.0f}{ledger['resume']:>10.1f}" if ledger else f"{'-':>11}{'-':>10}"
        lines.append(
            f"{n:>9}{1e6 * planned['seconds'] / n:>9.0f}{recorded}{1e6 * merged['seconds'] / n:>10.0f}"
            f"{merged['objects']:>10.0f}{driver:>11.0f}{1000 + 200 * merged['objects'] / 1e6:>10.0f}"
        )
    return lines, per_object


def projection(costs: dict[str, float], merge_s: float, task_s: float) -> list[str]:
    """Hours and prices on 1, 8 and 64 GPUs; the other stages run on the cores beside them, after the network.

    Args:
        merge_s: of one object, on the driver.
        task_s: of one task, to submit and to collect it: no number of GPUs is faster than that.
    """
    rate, on_demand, spot, core, cores, put, get = ASSUMED.values()
    other = sum(seconds for stage, seconds in costs.items() if stage not in ("predict", "objects", "merge"))
    shipped = load_model("nuclei-fluo").config
    step = shipped.tile - shipped.overlap
    lines = [
        f"{'job':<36}{'tiles':>9}{'1 GPU h':>9}{'8 h':>7}{'64 h':>7}{'$':>9}{'$ spot':>9}{'CPU core h':>12}{'$':>9}"
    ]
    for name, (images, height, width) in JOBS.items():
        tiles = images * math.ceil(height / step) * math.ceil(width / step)
        megapixels, units = images * height * width / 1e6, images * math.ceil(height / 512) * math.ceil(width / 512)
        count = images * math.ceil(height / BLOCK) * math.ceil(width / BLOCK)
        # tiles, fields, provisional, labels and pyramid; a record and three notes a block
        puts, gets = tiles + 2.3 * units + 10 * count, 4 * tiles + 4 * units + 12 * count
        requests = puts * put / 1000 + gets * get / 1000
        merging = merge_s * costs["objects"] * megapixels  # on the driver, alone
        hours = [
            (
                max(tiles / rate / g, tiles / 8 * task_s)
                + max(other * megapixels / (cores * g), 7 * count * task_s)
                + merging
            )
            / 3600
            for g in (1, 8, 64)
        ]
        cpu = (tiles * costs["predict"] + other * megapixels + merging) / 3600
        lines.append(
            f"{name:<36}{tiles:>9}{hours[0]:>9.2f}{hours[1]:>7.2f}{hours[2]:>7.2f}"
            f"{8 * hours[1] * on_demand + requests:>9.2f}{8 * hours[1] * spot + requests:>9.2f}"
            f"{cpu:>12.1f}{cpu * core + requests:>9.2f}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=10**6)
    parser.add_argument("--most-recorded", type=int, default=10**5)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--engines", nargs="+", default=["serial", "processes", "dask", "ray"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--child", nargs=2)
    chosen = parser.parse_args()
    if chosen.child:
        what, count = chosen.child
        print(json.dumps({**CHILDREN[what](int(count)), "mb": peak_mb()}))
        return
    if chosen.tiny:
        chosen.largest, chosen.side, chosen.tasks, chosen.engines = 100, 160, 20, ["serial"]
    with tempfile.TemporaryDirectory() as folder:
        costs = blocks(Path(folder), chosen.side)
    print(f"one core, {chosen.side} px, {costs['objects']:.0f} objects per megapixel: {costs['predict']:.3f} s a tile")
    print("s per megapixel: " + ", ".join(f"{k} {v:.3f}" for k, v in costs.items() if k not in ("objects", "predict")))
    overhead = {name: scheduler(name, chosen.tasks) for name in chosen.engines}
    print("\nms per trivial task, two workers: ", end="")
    print(", ".join(f"{name} {1e3 * seconds:.2f}" for name, seconds in overhead.items()))
    lines, merge_s = growth(chosen.largest, chosen.most_recorded)
    print("\n" + "\n".join(lines))
    print("plan, ledger and merge: microseconds per block; merge without the reading of what blocks noted\n")
    print("\n".join(projection(costs, merge_s, overhead.get("ray", max(overhead.values())))))
    print("$ of 8 GPUs, and of one-core workers; with requests. Assumed: ", end="")
    print("; ".join(f"{what}: {value:g}" for what, value in ASSUMED.items()))
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
