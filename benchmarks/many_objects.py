"""Time per object and memory, from ten thousand objects to a million, by the functions of the commands.

    python benchmarks/many_objects.py                       10,000, 100,000 and 1,000,000 objects
    python benchmarks/many_objects.py --objects 2000        another number

Striped and plain discs of 18 px lie on a grid of 24 px, 2,304 px chunks, one channel; drawn here chunk by chunk, so the
largest image (24,000 px) is never in memory. Every number of objects is measured (all features), 100 objects are
labelled, a network is trained, and all are classified, with class image, in a process of its own, whose peak memory is
given with the libraries in it. Times are of the processor, one worker; ten objects are measured before, so compiling is
not counted.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sketchscale.config import ClassifyOptions, Execution
from sketchscale.geometry import Box, tile_cover
from sketchscale.io.ome_zarr.arrays import write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_image, commit_labels, create_image, create_labels
from sketchscale.io.ome_zarr.table import read_batches
from sketchscale.workflow.classify.apply import apply_classes
from sketchscale.workflow.classify.train import train_classes
from sketchscale.workflow.measure.measure import measure

PITCH, RADIUS, CHUNK, LABELS = 24, 9, 2304, "discs"
SERIAL = Execution(engine="serial", block=2304)


def draw(address: str, objects: int) -> None:
    """An image with its labels; object i has the class of `is_striped(i)`."""
    columns = int(np.ceil(np.sqrt(objects)))
    side = columns * PITCH
    image = create_image(address, (1, side, side), "cyx", "uint8", (1, CHUNK, CHUNK), channels=("stain",), levels=1)
    commit_image(address)
    labels = create_labels(open_image(address), LABELS, chunks=(CHUNK, CHUNK))
    for tile in tile_cover((side, side), (CHUNK, CHUNK)):
        ids = ids_of(tile.write, columns, objects)
        write_box(labels[0], tile.write, ids)
        box = Box((0, *tile.write.start), (1, *tile.write.stop))
        write_box(image[0], box, pixels_of(ids, tile.write)[None])
    commit_labels(open_image(address), LABELS)


def ids_of(box: Box, columns: int, objects: int) -> npt.NDArray[np.uint32]:
    """Discs numbered in rows of the grid."""
    y, x = np.ogrid[box.slices]
    number = (y // PITCH) * columns + x // PITCH + 1
    inside = (y % PITCH - PITCH // 2) ** 2 + (x % PITCH - PITCH // 2) ** 2 <= RADIUS**2
    return np.where(inside & (number <= objects), number, 0).astype(np.uint32)


def pixels_of(ids: npt.NDArray[np.uint32], box: Box) -> npt.NDArray[np.uint8]:
    """Noise; bright discs, every other one on average with stripes."""
    y, _ = np.ogrid[box.slices]
    noise = np.random.default_rng(box.start).integers(0, 40, ids.shape, dtype=np.uint8)
    stripes = np.where(is_striped(ids), 60 * (y // 2 % 2), 30)
    return (noise + (ids > 0) * (90 + stripes)).astype(np.uint8)


def is_striped(ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """By the bits of a multiplicative hash, so that neighbours differ."""
    return (ids * np.uint32(2654435761) >> np.uint32(16)) % np.uint32(2) == 1


def mark(path: Path, objects: int) -> str:
    chosen = np.random.default_rng(0).choice(objects, min(100, objects), replace=False).astype(np.uint32) + 1
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["label", "class"])
        writer.writerows((int(i), "striped" if s else "plain") for i, s in zip(chosen, is_striped(chosen), strict=True))
    return str(path)


def right(address: str) -> Iterator[npt.NDArray[np.bool_]]:
    for batch in read_batches(address, LABELS, columns=["label", "class"]):
        ids = batch.column("label").to_numpy().astype(np.uint32)
        yield is_striped(ids) == (np.array(batch.column("class").to_pylist()) == "striped")


def one(folder: Path, objects: int) -> dict[str, float]:
    """Measure and classify; microseconds of the processor per object, peak GB."""
    torch.set_num_threads(1)
    draw(str(folder / f"warm-{objects}.ome.zarr"), 10)
    measure(str(folder / f"warm-{objects}.ome.zarr"), LABELS, SERIAL)
    address = str(folder / f"{objects}.ome.zarr")
    started = time.process_time()
    measure(address, LABELS, SERIAL)
    measured = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    classifier = str(folder / f"{objects}.clf")
    train_classes(
        address, LABELS, mark(folder / "marks.csv", objects), classifier, ClassifyOptions(side=24, precision="float32")
    )
    started = time.process_time()
    apply_classes(address, LABELS, classifier, SERIAL, precision="float32")
    classified = time.process_time() - started
    return {
        "objects": objects,
        "measure_us": measured / objects * 1e6,
        "classify_us": classified / objects * 1e6,
        "measure_gb": peak * 1024 / 1e9,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "accuracy": float(np.mean(np.concatenate(list(right(address))))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        print(json.dumps(one(options.folder, options.objects[0])))
        return
    print(f"many_objects.py; {platform.machine()}, torch {torch.__version__}, one worker\n")
    print("| objects | us an object to measure | to classify | both, relative | GB to measure | GB in all | accuracy |")
    print("|---|---|---|---|---|---|---|")
    first = 0.0
    with tempfile.TemporaryDirectory() as place:
        for objects in options.objects:
            draw(f"{place}/{objects}.ome.zarr", objects)
            command = [sys.executable, __file__, "--folder", place, "--objects", str(objects)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            both = found["measure_us"] + found["classify_us"]
            first = first or both
            cells = f"{found['measure_us']:.0f} | {found['classify_us']:.0f} | {both / first:.2f}"
            memory = f"{found['measure_gb']:.2f} | {found['peak_gb']:.2f}"
            print(f"| {objects:,} | {cells} | {memory} | {found['accuracy']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
