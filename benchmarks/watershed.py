"""How fast and how small is the watershed of h/v maps next to following the flow, from stored fields to stored labels?

    python benchmarks/watershed.py [--size 4096] [--objects 4500] [--blocks 1024,2048,4096] [--noise 0.1]
    python benchmarks/watershed.py --tiny                                                              in seconds

Input: the ellipses and rods of benchmarks/integration.py, with the exact flow and distance, and the exact maps, of the
same labels, both with normal noise. Each run is serial, a process of its own; imports, compilation and the making of
the input are not timed. Seconds are those of the processor, so that a busy machine does not show. AP at 0.5 and 0.9 is
against the labels the fields were made of; labels of all block sizes are compared with one another to the bit.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from integration import describe, exact_fields, scene

WAYS = ("flow", "hover")
DIAMETER = 26.0
"""Of a disc of the median object's area, px."""


def make_input(folder: Path, size: int, count: int, noise: float) -> str:
    """Labels and the fields of both ways, stored; says what they are."""
    from sketchscale.annotations.hover_maps import maps_from_labels
    from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array

    labels = scene(size, count, seed=0)
    np.save(folder / "labels.npy", labels)
    rng = np.random.default_rng(1)
    for way, exact in (("flow", exact_fields(labels)), ("hover", maps_from_labels(labels)[[1, 0, 2]])):
        exact[:2] += rng.normal(0, noise, exact[:2].shape)
        ref = ArrayRef(store=str(folder), path=way)
        array = create_array(ref, shape=exact.shape, chunks=(3, 512, 512), dtype=np.float16, compress=False)
        array[:] = exact.astype(np.float16)
    return describe(labels)


def run_way(folder: Path, way: str, block: int) -> dict[str, Any]:
    """In a process of its own: seconds of each step, and its memory."""
    from sketchscale.engine import open_engine
    from sketchscale.engine.base import run_plan
    from sketchscale.integration.config import IntegrationConfig
    from sketchscale.integration.plan import create_scratch, plan_relabel
    from sketchscale.integration.watershed.config import watershed_for
    from sketchscale.integration.ways import way_of
    from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array

    rule = IntegrationConfig(threshold=-2.0) if way == "flow" else watershed_for(DIAMETER)
    steps, engine = way_of(rule), open_engine("serial")
    steps.whole(np.zeros((3, 64, 64), np.float16) + np.float16(0.9), rule)  # compiles
    shape = np.load(folder / "labels.npy", mmap_mode="r").shape
    refs = [ArrayRef(store=str(folder), path=f"{way}-{block}-{name}") for name in ("scratch", "target")]
    create_scratch(refs[0], shape, (block, block))
    create_array(refs[1], shape=shape, chunks=(512, 512), dtype=np.uint32)
    before, clock = resident(), [time.process_time()]
    fields, blobs = ArrayRef(store=str(folder), path=way), f"{folder}/blobs-{way}-{block}"
    outline = steps.outline(fields, refs[0], blobs, rule, block=(block, block))
    run_plan(outline, engine)
    clock.append(time.process_time())
    objects = steps.merge(outline)
    clock.append(time.process_time())
    run_plan(plan_relabel(outline, refs[1]), engine)
    clock.append(time.process_time())
    seconds = dict(zip(("outline", "merge", "relabel"), np.diff(clock).tolist(), strict=True))
    peak = resident("VmHWM")
    return {"seconds": seconds, "peak_mb": peak - before, "declared_mb": outline.task_bytes / 1e6, "n": objects.count}


def resident(name: str = "VmRSS") -> float:
    """Of this process, MB."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(name))


def report(folder: Path, blocks: list[int]) -> None:
    from sketchscale.evaluation import score_labels
    from sketchscale.io.ome_zarr.arrays import ArrayRef, open_array

    truth = np.load(folder / "labels.npy").astype(np.uint32)
    print("way    block  Mpx/s  outline s  merge s  relabel s  peak MB (declared)  objects  AP .5  AP .9  same labels")
    for way in WAYS:
        first = None
        for block in blocks:
            command = [sys.executable, __file__, "--run", str(folder), way, str(block)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = json.loads(output.splitlines()[-1])
            labels = np.asarray(open_array(ArrayRef(store=str(folder), path=f"{way}-{block}-target"))[:])
            first = labels if first is None else first
            ap = [m.ap for m in score_labels(truth, labels, (0.5, 0.9)).matchings]
            print(line_of(way, block, found, truth.size, ap), "yes" if np.array_equal(labels, first) else "NO")


def line_of(way: str, block: int, found: dict[str, Any], pixels: int, ap: list[float]) -> str:
    seconds, declared = found["seconds"], f"({found['declared_mb']:.0f})"
    times = f"{seconds['outline']:>10.2f} {seconds['merge']:>8.2f} {seconds['relabel']:>10.2f}"
    return (
        f"{way:<6} {block:>5} {pixels / 1e6 / sum(seconds.values()):>6.2f} {times} {found['peak_mb']:>8.0f} "
        f"{declared:>11} {found['n']:>8} {ap[0]:>6.3f} {ap[1]:>6.3f} "
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--objects", type=int, default=4500)
    parser.add_argument("--blocks", default="1024,2048,4096")
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--tiny", action="store_true", help="300 px, two block sizes")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run_way(Path(options.run[0]), options.run[1], int(options.run[2]))))
        return
    size, count = (300, 24) if options.tiny else (options.size, options.objects)
    blocks = [512, 1024] if options.tiny else [int(block) for block in options.blocks.split(",")]
    folder = Path(tempfile.mkdtemp())
    try:
        print(f"{size} x {size} px, {make_input(folder, size, count, options.noise)}, noise {options.noise:g}")
        print(f"one core of {platform.processor() or platform.machine()}, Python {platform.python_version()}")
        report(folder, blocks)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
