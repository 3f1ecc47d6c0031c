"""How many objects of a volume get the right class, of five by shape and intensity, in two channels?

    python benchmarks/volume_classes.py --work DIR [--kinds light random-forest ensemble] [--seeds 3]
    python benchmarks/volume_classes.py --tiny --work DIR

The scene is that of volumes.py (60 x 512 x 512 voxels, spacing 2 : 1 : 1, a third of the objects touching, the same
blur and noise) with 200 ellipsoids of five classes, drawn at random:

    class          half axes, px        photons in channel 2 (all have 39 in channel 1, background 7.8 in both)
    ball           10 11 12             12
    marked ball    10 11 12             39
    rod            7 7 16               12
    marked rod     7 7 16               39
    disc           6 14 14              25

Half axes vary by a tenth. The true label image is measured. Objects of the half x < 256 are labelled, those of the
other half are the test. A classifier is trained and applied as `classify train` and `classify apply` do.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from volumes import PHOTONS, photographed, scene, stored

from sketchscale.config import ClassifyOptions, Execution
from sketchscale.io.ome_zarr.table import read_table
from sketchscale.objects.classifiers import CLASSIFIERS
from sketchscale.workflow.classify.apply import apply_classes
from sketchscale.workflow.classify.train import train_classes
from sketchscale.workflow.labels.labels import import_labels
from sketchscale.workflow.measure.measure import measure

CLASSES = {
    "ball": ((10, 11, 12), 12.0),
    "marked ball": ((10, 11, 12), 39.0),
    "rod": ((7, 7, 16), 12.0),
    "marked rod": ((7, 7, 16), 39.0),
    "disc": ((6, 14, 14), 25.0),
}
NAMES = tuple(CLASSES)


def prepared(work: Path, shape: tuple[int, int, int], count: int, seed: int) -> tuple[str, dict[int, str]]:
    """Return a measured image, and the class of each object."""
    kinds: dict[int, str] = {}

    def half(rng: np.random.Generator, number: int) -> npt.NDArray[np.float64]:
        kinds[number] = NAMES[int(rng.integers(len(NAMES)))]
        return np.array(CLASSES[kinds[number]][0]) * rng.uniform(0.9, 1.1, 3)

    labels, _ = scene(shape, count, seed, half)
    marker = np.array([PHOTONS[0], *(CLASSES[kinds[k]][1] for k in range(1, count + 1))])
    channels = np.where(labels > 0, PHOTONS[1], PHOTONS[0]), marker[labels]
    image = stored(work, f"classes{seed}", np.stack([photographed(c, 10 * seed + i) for i, c in enumerate(channels)]))
    np.save(work / "labels.npy", labels.astype(np.uint16))
    import_labels(str(work / "labels.npy"), image, "cells", Execution(overwrite=True), components="never")
    measure(image, "cells", Execution(overwrite=True))
    return image, {k: kinds[k] for k in range(1, count + 1)}


def tried(work: Path, image: str, kinds: dict[int, str], half: float, kind: str, seed: int) -> tuple[float, int, float]:
    """Return accuracy on the objects of the other half, their number, and the seconds of training."""
    table = read_table(image, "cells")
    centres = dict(zip(table["label"].to_pylist(), table["x"].to_pylist(), strict=True))
    marks = [(k, name) for k, name in kinds.items() if centres[k] < half]
    with (work / "marks.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("label", "class"), *marks])
    began = time.perf_counter()
    options = ClassifyOptions(kind=kind, seed=seed, precision="float32")
    train_classes([image], "cells", str(work / "marks.csv"), str(work / kind), options, overwrite=True)
    seconds = time.perf_counter() - began
    apply_classes(image, "cells", str(work / kind), Execution(overwrite=True), precision="float32")
    table = read_table(image, "cells")
    found = dict(zip(table["label"].to_pylist(), table["class"].to_pylist(), strict=True))
    test = [k for k in kinds if centres[k] >= half]
    return float(np.mean([found[k] == kinds[k] for k in test])), len(test), seconds


def main() -> None:
    """Print a row per kind of classifier."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=["light", "random-forest", "ensemble"], choices=list(CLASSIFIERS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    shape, count = ((60, 512, 512), 200) if not options.tiny else ((30, 96, 256), 30)
    seeds, chosen = (1, ["random-forest"]) if options.tiny else (options.seeds, options.kinds)
    images = [prepared(options.work, shape, count, seed) for seed in range(seeds)]
    print("| kind | objects in the test | accuracy, mean and spread over scenes | s to train |")
    print("|---|---|---|---|")
    for kind in chosen:
        rows = [tried(options.work, *image, shape[2] / 2, kind, seed) for seed, image in enumerate(images)]
        accuracy, tests, seconds = (np.array(column) for column in zip(*rows, strict=True))
        print(
            f"| {kind} | {tests.sum()} | {accuracy.mean():.3f} ± {accuracy.std():.3f} | {seconds.mean():.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
