"""How long do measuring and classifying the objects of a large plate take, from storage to a table?

    python benchmarks/objects.py            8000 x 8000 px, 3 channels, about 17,000 objects
    python benchmarks/objects.py --tiny     the same in seconds, for CI

Features: the columns that scikit-image has too (shape, hull, intensities, percentiles), by `measure_objects` on one
thread, from a store, against its `regionprops_table` on arrays that are already in memory; then all columns of ours.
Classification: `sketchscale measure`, `classify train` on 600 objects, and `classify apply` to all with two workers, as
commands, with the wall time and peak memory of each. The image is drawn here (ellipses, two textures).
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
import skimage
import torch
from skimage.measure import perimeter_crofton, regionprops_table

from sketchscale.engine import open_engine
from sketchscale.engine.base import run_plan
from sketchscale.io.ome_zarr.arrays import open_array
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_image, commit_labels, create_image, create_labels
from sketchscale.io.ome_zarr.table import read_table
from sketchscale.objects.measurement.features import FEATURES
from sketchscale.objects.measurement.plan import measure_config
from sketchscale.objects.measurement.stream import measure_objects

CELL, LABELS = 61, "cells"
FLOAT32 = ("--precision", "float32")
PERCENTS = (5, 25, 50, 75, 95)
WATCHED = """
import pathlib, re, sys
from sketchscale.cli import run
code = run(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""
"""A command that prints its own peak in kB: the value that a parent gets includes its own memory."""


def draw(side: int, seed: int = 0) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8], dict[int, str]]:
    """Labels (y, x), image (3, y, x) and the class of each object: one ellipse in each cell of a grid."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.uint32)
    image = rng.integers(0, 40, (3, side, side), dtype=np.uint8)
    classes: dict[int, str] = {}
    y, x = np.indices((CELL, CELL)) - CELL // 2
    for top in range(0, side - CELL + 1, CELL):
        for left in range(0, side - CELL + 1, CELL):
            label, kind = len(classes) + 1, int(rng.integers(2))
            a, b, turn = rng.uniform(9, 22), rng.uniform(9, 22), rng.uniform(0, np.pi)
            u, v = np.cos(turn) * y + np.sin(turn) * x, np.cos(turn) * x - np.sin(turn) * y
            mask = (u / a) ** 2 + (v / b) ** 2 < 1
            labels[top : top + CELL, left : left + CELL][mask] = label
            image[:, top : top + CELL, left : left + CELL] += (mask * (80 + 40 * np.sin(u * (2.1, 0.9)[kind]))).astype(
                np.uint8
            )
            classes[label] = ("fine", "coarse")[kind]
    return labels, image, classes


def store(address: str, labels: npt.NDArray[np.uint32], image: npt.NDArray[np.uint8]) -> None:
    """An image with its labels, as any writer leaves them."""
    chunk = min(1024, labels.shape[0])
    arrays = create_image(address, image.shape, "cyx", "uint8", (1, chunk, chunk), channels=("r", "g", "b"), levels=1)
    commit_image(address)
    opened = open_image(address)
    targets = (arrays[0], create_labels(opened, LABELS, chunks=(chunk, chunk))[0])
    for target, values in zip(targets, (image, labels), strict=True):
        open_array(target, read_only=False)[...] = values
    commit_labels(opened, LABELS)


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall time and processor time of a call in seconds, and its result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - processor, result


def peer(labels: npt.NDArray[np.uint32], image: npt.NDArray[np.uint8]) -> object:
    """The same columns by scikit-image, from memory."""
    names = ("label", "area", "centroid", "bbox", "axis_major_length", "axis_minor_length", "orientation", "extent")
    more = ("eccentricity", "equivalent_diameter_area", "euler_number", "solidity", "feret_diameter_max", "image")
    levels = ("intensity_mean", "intensity_std", "intensity_min", "intensity_max")
    table = regionprops_table(
        labels, np.moveaxis(image, 0, -1), properties=(*names, *more, *levels), extra_properties=(percentiles,)
    )
    table["perimeter"] = np.array([perimeter_crofton(crop, directions=4) for crop in table.pop("image")])
    return table


def percentiles(mask: npt.NDArray[np.bool_], crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = np.percentile(crop[mask], PERCENTS, axis=0)
    return values


def columns_of_both() -> tuple[str, ...]:
    """Ours that `peer` has, too."""
    planar = {name: feature for name, feature in FEATURES.items() if 2 in feature.axes}
    groups = [name for name, feature in planar.items() if feature.group in ("geometry", "intensity")]
    ours_alone = ("gradient_mean", "gradient_std", "touches_edge", "crosses_tile_seam")
    return tuple(name for name in groups if name not in ours_alone)


def measured(address: str, scratch: str, block: int, features: Sequence[str] | None) -> pyarrow.Table:
    """The table of a stored image, on one thread, without writing it."""
    image = open_image(address)
    source, plane, engine = image.label_image(LABELS).array(0), image.plane(), open_engine("serial")
    config = measure_config(source, plane, features=features)
    batches = measure_objects(
        source, plane, config, lambda plan: run_plan(plan, engine), store=scratch, block=(block, block)
    )
    return pyarrow.Table.from_batches(list(batches))


def command(*words: str) -> tuple[float, float]:
    """Wall seconds and peak GB of a command in a process of its own, starting it included."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", WATCHED, *words], check=True, capture_output=True, text=True)
    return time.perf_counter() - started, float(done.stdout.splitlines()[-1]) * 1024 / 1e9


def classified(address: str, truth: dict[int, str], examples: int, steps: str) -> dict[str, float]:
    """The commands one after another on two workers: measure, train on some objects, apply to all."""
    marks, out, where = f"{address}.csv", f"{address}.clf", [address, "--labels", LABELS]
    with Path(marks).open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["label", "class"])
        chosen = np.random.default_rng(1).choice(len(truth), examples, replace=False) + 1
        writer.writerows((int(label), truth[int(label)]) for label in chosen)
    steps_of = {
        "measure": command("measure", *where, "--workers", "2"),
        "train": command("classify", "train", *where, "--annotations", marks, "--out", out, "--steps", steps, *FLOAT32),
        "apply": command("classify", "apply", *where, "--classifier", out, "--workers", "2", *FLOAT32),
    }
    record = {
        f"{name}_{unit}": value
        for name, pair in steps_of.items()
        for unit, value in zip(("s", "gb"), pair, strict=True)
    }
    table = read_table(address, LABELS)
    pairs = zip(table["label"].to_pylist(), table["class"].to_pylist(), strict=True)
    return record | {"accuracy": sum(truth[label] == name for label, name in pairs) / len(truth)}


def main() -> None:
    """Print one JSON record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a 600 px image: checks that the script runs")
    options = parser.parse_args()
    side, block, examples = (600, 256, 40) if options.tiny else (8000, 2048, 600)
    labels, image, truth = draw(side)
    record: dict[str, object] = {"objects": len(truth), "side": side, "machine": platform.machine()}
    record |= {"numpy": np.__version__, "skimage": skimage.__version__, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/plate.ome.zarr"
        store(address, labels, image)
        record |= features_of(address, folder, labels, image, block)
        record |= classified(address, truth, examples, "20" if options.tiny else "150")
    print(json.dumps(record, indent=1))


def features_of(
    address: str, folder: str, labels: npt.NDArray[np.uint32], image: npt.NDArray[np.uint8], block: int
) -> dict[str, object]:
    """Seconds of ours and theirs; both run once before on a corner, so that compiling is not counted."""
    corner = f"{folder}/corner.ome.zarr"
    store(corner, labels[:200, :200], image[:, :200, :200])
    measured(corner, f"{folder}/0", block, None)
    peer(labels[:200, :200], image[:, :200, :200])
    wall, processor, _ = timed(lambda: measured(address, f"{folder}/1", block, columns_of_both()))
    record: dict[str, object] = {"features_s": wall, "features_cpu_s": processor}
    _, theirs, _ = timed(lambda: peer(labels, image))
    record |= {"skimage_cpu_s": theirs, "times_faster": theirs / processor}
    wall, processor, table = timed(lambda: measured(address, f"{folder}/2", block, None))
    return record | {"all_features_s": wall, "all_features_cpu_s": processor, "columns": table.num_columns}


if __name__ == "__main__":
    main()
