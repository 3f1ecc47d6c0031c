"""How fast and how small is the integration of volumes, and how much noise in the flow does it stand?

    python benchmarks/space.py [--sizes 128 256 384]     voxels per second and peak memory, stored fields to labels
    python benchmarks/space.py --noise [--seeds 3]       AP under white noise, for several crowds
    python benchmarks/space.py --planes                  AP of the shipped 2-D network by orthogonal planes
    python benchmarks/space.py --tiny                    all three, in seconds

Input: touching ellipsoids with half axes of 6 to 11 voxels, tiled from one scene of 64 voxels a side, with the gradient
of their exact distances as flow. Each size is a process of its own, serial, and runs twice: the first run compiles and
is not timed. Peak memory is that of the process, less what it held before reading the first voxel.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sketchscale.config import SegmentOptions
from sketchscale.engine import open_engine
from sketchscale.evaluation import score_labels
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.plan import integrate, integrate_stored
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array
from sketchscale.workflow.segment.arrays import segment_array

Fields = npt.NDArray[np.float16]


def scene(side: int, count: int, seed: int, radius: tuple[float, float] = (6, 11)) -> npt.NDArray[np.int32]:
    """Labels of ellipsoids; each keeps at least 70 % of its voxels free of earlier ones and is connected."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side,) * 3, np.int32)
    for _ in range(40 * count):
        half = np.minimum(rng.uniform(*radius, size=3), side / 2 - 1)
        centre = rng.uniform(half, side - 1 - half)
        box = tuple(slice(int(c - h), int(c + h) + 2) for c, h in zip(centre, half, strict=True))
        axes = np.ogrid[box]
        ball = sum(((a - c) / h) ** 2 for a, c, h in zip(axes, centre, half, strict=True)) < 1
        free = ball & (labels[box] == 0)
        if labels.max() < count and free.sum() > 0.7 * ball.sum() and ndimage.label(free)[1] == 1:
            labels[box][free] = labels.max() + 1
    return labels


def exact_fields(labels: npt.NDArray[np.int32]) -> Fields:
    """Gradient of each object's own exact distance, lightly smoothed, and the distance; -5 outside."""
    fields = np.zeros((4, *labels.shape), np.float32)
    fields[3] = -5
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        mask = np.pad(labels[box] == number, 3)
        distance = ndimage.distance_transform_edt(mask) - 0.5 * mask
        gradient = np.stack(np.gradient(ndimage.gaussian_filter(np.where(mask, distance, -0.5), 1)))
        here = (slice(None), *box)
        fields[here][:, mask[3:-3, 3:-3, 3:-3]] = np.concatenate([gradient[:, mask], distance[None, mask]])
    return fields.astype(np.float16)


def ap(truth: npt.NDArray[np.int32], labels: npt.NDArray[np.uint32]) -> float:
    """Average precision at IoU 0.5."""
    return float(score_labels(truth, labels).as_dict()["ap"]["0.5"])


def memory_mb(name: str) -> float:
    """VmHWM or VmRSS of this process."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(name))


def run_one(side: int, tile: int) -> dict[str, Any]:
    """Store the fields of one size, integrate them in blocks, measure."""
    config = IntegrationConfig(threshold=-2.0, crowd=8)
    with tempfile.TemporaryDirectory() as folder:
        source, target = (ArrayRef(store=folder, path=name) for name in ("fields", "labels"))
        chunk, block = min(64, side), min(128, side)
        stored = create_array(
            source, shape=(4, side, side, side), chunks=(4, chunk, chunk, chunk), dtype=np.float16, compress=False
        )
        small = exact_fields(scene(tile, 24, 0))
        for z in range(0, side, tile):
            stored[:, z : z + tile] = np.tile(small, (1, 1, side // tile, side // tile))
        create_array(target, shape=(side,) * 3, chunks=(chunk,) * 3, dtype=np.uint32)
        serial, seconds, before = open_engine("serial"), [], 0.0
        for attempt in range(2):
            before, started = memory_mb("VmRSS") if attempt == 0 else before, time.perf_counter()
            objects = integrate_stored(
                source, target, config, serial, block=(block,) * 3, scratch=f"{folder}/scratch-{attempt}"
            )
            seconds.append(time.perf_counter() - started)
    return {
        "side": side,
        "objects": objects.count,
        "cut": objects.crossing,
        "seconds": round(seconds[-1], 2),
        "mvoxels_per_s": round(side**3 / 1e6 / seconds[-1], 2),
        "added_mb": round(memory_mb("VmHWM") - before),
    }


def speed(sizes: list[int], tile: int) -> None:
    """A line per size, each from a process of its own."""
    print("| side | objects | cut by a block | s | Mvoxels/s | memory added, MB |\n|---|---|---|---|---|---|")
    for side in sizes:
        command = [sys.executable, str(Path(__file__).resolve()), "--one", str(side), "--tile", str(tile)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print("| " + " | ".join(str(value) for value in found.values()) + " |", flush=True)


def noise(seeds: int, side: int, count: int) -> None:
    """AP at 0.5 for crowds and noise; mean over the seeds."""
    crowds = (1, 4, 8, 20)
    print("| radius | noise | " + " | ".join(f"crowd {k}" for k in crowds) + " |\n|---|---|" + "---|" * len(crowds))
    for radius, number in (((6.0, 11.0), count), ((12.0, 18.0), max(2, count // 4))):
        for sigma in (0.0, 0.25, 0.5):
            scores: list[list[float]] = [[] for _ in crowds]
            for seed in range(seeds):
                truth = scene(side, number, seed, radius)
                fields = exact_fields(truth)
                fields[:3] += (np.random.default_rng(seed).normal(size=fields[:3].shape) * sigma).astype(np.float16)
                for entry, crowd in zip(scores, crowds, strict=True):
                    labels = integrate(fields, IntegrationConfig(threshold=-2.0, crowd=crowd, min_size=67))
                    entry.append(ap(truth, labels))
            row = " | ".join(f"{np.mean(entry):.3f}" for entry in scores)
            print(f"| {radius[0]:g} to {radius[1]:g} | {sigma} | {row} |", flush=True)


def planes(shape: tuple[int, int, int], count: int, seeds: int) -> None:
    """AP at 0.5 of the shipped network on blurred nuclei, with sections as far apart as pixels, and twice as far."""
    print("| volume | sections | seed | nuclei | found | AP 0.5 | AP 0.75 |\n|---|---|---|---|---|---|---|")
    for seed in range(seeds):
        truth = scene(max(shape), 40 * count, seed)[: shape[0], : shape[1], : shape[2]]
        rng = np.random.default_rng(seed)
        bright = np.concatenate([[0.05], rng.uniform(0.5, 1, truth.max())])[truth]
        seen = rng.poisson(ndimage.gaussian_filter(bright, (1.5, 0.7, 0.7)) * 120).clip(0, 255).astype(np.uint8)
        for step in (1, 2):
            labels = segment_array(
                seen[::step], SegmentOptions(volume=True, anisotropy=float(step), precision="float32")
            )
            scores = score_labels(truth[::step], labels).as_dict()
            number = len(np.unique(truth[::step])) - 1
            figures = f"{number} | {labels.max()} | {scores['ap']['0.5']:.3f} | {scores['ap']['0.75']:.3f}"
            print(f"| {' x '.join(map(str, seen[::step].shape))} | {step} | {seed} | {figures} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 384])
    parser.add_argument("--tile", type=int, default=64, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--planes", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run_one(arguments.one, arguments.tile)))
        return
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, serial engine\n")
    if arguments.tiny:
        speed([64], 32)
        noise(1, 32, 4)
        planes((8, 40, 40), 1, 1)
    elif arguments.noise:
        noise(arguments.seeds, 64, 24)
    elif arguments.planes:
        planes((48, 128, 128), 1, arguments.seeds)
    else:
        speed(arguments.sizes, arguments.tile)


if __name__ == "__main__":
    main()
