"""How long do measuring and classifying the objects of a large plate take, from storage to a table?

    python benchmarks/objects.py            8000 x 8000 px, 3 channels, about 17,000 objects
    python benchmarks/objects.py --tiny     the same in seconds, for CI

Features: `plan_measure` and `collect_features` on one thread, against scikit-image's `regionprops_table` with the same
columns on arrays that are already in memory. Classification: 600 objects to train on, then all of them. The image is
drawn here (ellipses, two textures), so nothing is downloaded; its chunks are 1024 px, blocks 2048 px.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import skimage
import torch
from skimage.measure import perimeter_crofton, regionprops_table

from sketchscale.engine import open_engine
from sketchscale.engine.base import run_plan
from sketchscale.io.arrays import ArrayRef, create_array, open_array
from sketchscale.io.image import PlaneRef
from sketchscale.objects.classes import collect_classes, deal_objects, plan_classify
from sketchscale.objects.classifiers import TrainingOptions, train_classifier
from sketchscale.objects.patches import estimate_side, object_windows, read_patches
from sketchscale.objects.plan import measure_config, plan_measure
from sketchscale.objects.stream import collect_features

CELL = 61
RANGES = ((0.0, 255.0),) * 3


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


def store_arrays(
    folder: str, labels: npt.NDArray[np.uint32], image: npt.NDArray[np.uint8]
) -> tuple[ArrayRef, PlaneRef]:
    """Labels and image as Zarr arrays."""
    refs = []
    for name, values, chunks in (("labels", labels, (1024, 1024)), ("image", image, (1, 1024, 1024))):
        refs.append(ArrayRef(store=folder, path=name))
        create_array(refs[-1], shape=values.shape, chunks=chunks, dtype=values.dtype)
        open_array(refs[-1], read_only=False)[...] = values
    plane = PlaneRef(
        array=refs[1],
        axes="cyx",
        index=(),
        shape=(labels.shape[0], labels.shape[1]),
        channels=("r", "g", "b"),
        dtype="uint8",
        spacing=(0.5, 0.5),
        unit="micrometer",
        chunks=(1024, 1024),
    )
    return refs[0], plane


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall time and processor time of a call in seconds, and its result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - processor, result


def peer(labels: npt.NDArray[np.uint32], image: npt.NDArray[np.uint8]) -> object:
    """The same columns by scikit-image, from memory."""
    names = ("label", "area", "centroid", "bbox", "axis_major_length", "axis_minor_length", "orientation", "extent")
    more = ("eccentricity", "equivalent_diameter_area", "euler_number", "image")
    levels = ("intensity_mean", "intensity_std", "intensity_min", "intensity_max")
    table = regionprops_table(labels, np.moveaxis(image, 0, -1), properties=(*names, *more, *levels))
    table["perimeter"] = np.array([perimeter_crofton(crop, directions=4) for crop in table.pop("image")])
    return table


def main() -> None:
    """Print one JSON record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a 600 px image: checks that the script runs")
    tiny = parser.parse_args().tiny
    side, block, examples = (600, 256, 40) if tiny else (8000, 2048, 600)
    torch.set_num_threads(1)
    labels, image, truth = draw(side)
    record: dict[str, object] = {"objects": len(truth), "side": side, "machine": platform.processor()}
    record |= {"numpy": np.__version__, "skimage": skimage.__version__, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        record |= measure_and_classify(folder, labels, image, truth, (block, block), examples, tiny)
    wall, processor, _ = timed(lambda: peer(labels, image))
    record |= {"skimage_features_s": wall, "skimage_features_cpu_s": processor}
    print(json.dumps(record, indent=1))


def measure_and_classify(
    folder: str,
    labels: npt.NDArray[np.uint32],
    image: npt.NDArray[np.uint8],
    truth: dict[int, str],
    block: tuple[int, int],
    examples: int,
    tiny: bool,
) -> dict[str, object]:
    """Seconds of each step; the first block is measured once before, so that compiling is not counted."""
    source, plane = store_arrays(folder, labels, image)
    engine = open_engine("serial")
    plan = plan_measure(source, plane, measure_config(source, plane), store=folder, block=block)
    plan.fn(plan.tasks[0], plan.config)
    wall, processor, table = timed(lambda: (run_plan(plan, engine), collect_features(plan))[1])
    record: dict[str, object] = {"features_s": wall, "features_cpu_s": processor}

    chosen = np.random.default_rng(1).choice(len(truth), examples, replace=False)
    windows = object_windows(table, estimate_side(table, (chosen + 1).tolist()))
    patches_s, _, patches = timed(lambda: read_patches(source, plane, windows.take(chosen), RANGES))
    names = [truth[int(label)] for label in windows.label[chosen]]
    options = TrainingOptions(steps=20) if tiny else TrainingOptions()
    wall, processor, classifier = timed(
        lambda: train_classifier(patches, None, names, channels=plane.channels, ranges=RANGES, options=options)
    )
    record |= {"patch_side": windows.side, "read_examples_s": patches_s, "train_s": wall, "train_cpu_s": processor}

    classify = plan_classify(source, plane, classifier, store=folder, block=block)
    deal_objects(classify, table)
    wall, processor, classes = timed(lambda: (run_plan(classify, engine), collect_classes(classify, table))[1])
    pairs = zip(classes.column("label").to_pylist(), classes.column("class").to_pylist(), strict=True)
    right = sum(truth[label] == name for label, name in pairs)
    record |= {"classify_s": wall, "classify_cpu_s": processor, "accuracy": right / len(truth)}
    return record | {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


if __name__ == "__main__":
    main()
