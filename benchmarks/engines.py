"""What does an engine cost over the serial loop, per tile of the network and per trivial task?

    python benchmarks/engines.py [--tiles 24] [--tasks 300] [--rounds 5] [--engines processes dask ray]
    python benchmarks/engines.py --tiny

One worker everywhere, so that nothing is gained by working at once: what is left is overhead. A task of the network is
one tile of the shipped model, read from a stored image and written to a stored array, as `segment` has it. A trivial
task adds one. Engines are started, and networks loaded, before the clock; rounds of all engines are interleaved, and
medians are printed. A worker that runs in parallel to the driver may use a second core, so overhead can be below zero.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np

from sketchscale.config import Execution, SegmentOptions
from sketchscale.engine import open_engine
from sketchscale.engine.base import Engine, Plan, run_plan
from sketchscale.geometry import Box
from sketchscale.inference.plan import PredictConfig, plan_predict
from sketchscale.inference.views import TileTask
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, write_box
from sketchscale.io.ome_zarr.new_images import commit_image, create_image
from sketchscale.workflow.segment.job import prepare

ENGINES = ("serial", "processes", "dask", "ray")


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    number: int

    @property
    def key(self) -> str:
        return f"{self.number:06d}"


def add_one(task: Count, config: None) -> int:
    return task.number + 1


def network_plan(folder: Path, tiles: int) -> Plan[TileTask]:
    """So many tiles of an image of noise, one a task."""
    address = str(folder / "image.zarr")
    side = 448 * int(np.ceil(tiles**0.5)) + 64
    pixels = np.random.default_rng(0).poisson(40, (side, side)).astype(np.uint8)
    level = create_image(address, pixels.shape, "yx", "uint8", (512, 512), levels=1)[0]
    write_box(level, Box((0, 0), pixels.shape), pixels)
    commit_image(address)
    job = prepare(address, SegmentOptions(precision="float32"), Execution())
    (view,) = job.views
    target = ArrayRef(store=str(folder / "scratch"), path="tiles")
    create_array(target, shape=view.tiles_shape, chunks=view.tiles_chunks(1), dtype="float16")
    plan = plan_predict(
        PredictConfig(
            image=job.pixels,
            channels=job.channels,
            ranges=((0.0, 255.0),),
            model=job.model_folder,
            model_sha256=job.model.sha256,
            recipe=job.recipe,
            views=job.views,
            tiles=(target,),
        )
    )
    return replace(plan, tasks=plan.tasks[:tiles])


def seconds_per_task(plan: Plan[Any], engine: Engine) -> float:
    started = time.perf_counter()
    run_plan(plan, engine)
    return (time.perf_counter() - started) / len(plan.tasks)


def measure(
    names: Sequence[str], network: Plan[TileTask], trivial: Plan[Count], rounds: int
) -> tuple[Mapping[str, list[float]], Mapping[str, list[float]]]:
    """Seconds per task of each engine, round by round: of the network, and of nothing."""
    engines = {name: open_engine(name, 1) for name in names}
    of_tile: dict[str, list[float]] = {name: [] for name in names}
    of_nothing: dict[str, list[float]] = {name: [] for name in names}
    try:
        for engine in engines.values():  # starts workers, loads and compiles
            run_plan(replace(network, tasks=network.tasks[:2]), engine)
            run_plan(replace(trivial, tasks=trivial.tasks[:10]), engine)
        for number in range(rounds):
            order = list(engines.items())
            for name, engine in order[number % len(order) :] + order[: number % len(order)]:
                of_tile[name].append(seconds_per_task(network, engine))
                of_nothing[name].append(seconds_per_task(trivial, engine))
    finally:
        for engine in engines.values():
            engine.close()
    return of_tile, of_nothing


def table(of_tile: Mapping[str, list[float]], of_nothing: Mapping[str, list[float]]) -> str:
    lines = [f"{'engine':<10}{'ms / tile':>11}{'over serial':>13}{'ms / trivial task':>19}"]
    for name in of_tile:
        ratios = [mine / serial for mine, serial in zip(of_tile[name], of_tile["serial"], strict=True)]
        over = "" if name == "serial" else f"{100 * (statistics.median(ratios) - 1):+.1f} %"
        tile, nothing = statistics.median(of_tile[name]), statistics.median(of_nothing[name])
        lines.append(f"{name:<10}{1e3 * tile:>11.1f}{over:>13}{1e3 * nothing:>19.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=24)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES[1:]), choices=ENGINES[1:])
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_args()
    if chosen.tiny:
        chosen.tiles, chosen.tasks, chosen.rounds, chosen.engines = 2, 10, 1, ["processes"]
    with tempfile.TemporaryDirectory() as folder:
        network = network_plan(Path(folder), chosen.tiles)
        trivial = Plan(stage="nothing", fn=add_one, tasks=[Count(number=i) for i in range(chosen.tasks)])
        found = measure(["serial", *chosen.engines], network, trivial, chosen.rounds)
    print(table(*found))
    print(
        f"one worker, {chosen.tiles} tiles and {chosen.tasks} trivial tasks a round, medians of {chosen.rounds} "
        f"interleaved rounds; {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
