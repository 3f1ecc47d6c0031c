"""From 100 labelled objects, how many of the others get the right class? On real images, by the functions of commands.

    python benchmarks/object_accuracy.py --data DATA [--set plate bccd] [--kinds light ensemble] [--seeds 3]

plate   a plate of real fluorescent nuclei by DATA/make_plate.py; the class says whether the image that a nucleus came
        from has small, medium or large nuclei. 100 objects drawn at random are labelled, all others are the test.
        The last row is a forest that gets the true median area of that image, which no program can see: an upper bound.
bccd    blood cells (red, white, platelets) known by their boxes: an object is the ellipse in its box. 100 cells of the
        first 60 training images are labelled, a third of each class as far as there are; the test is every cell of the
        32 test images. Balanced accuracy is the mean over classes.

A row per set and kind of classifier: mean and standard deviation over seeds, which draw the labelled objects.
"""

from __future__ import annotations

import argparse
import csv
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
from skimage.io import imread
from sklearn.ensemble import RandomForestClassifier

from sketchscale.config import ClassifyOptions, Execution
from sketchscale.io.ome_zarr.table import read_table
from sketchscale.objects.classifiers import CLASSIFIERS
from sketchscale.workflow.classify.apply import apply_classes
from sketchscale.workflow.classify.train import train_classes
from sketchscale.workflow.convert import convert_images
from sketchscale.workflow.labels.labels import import_labels
from sketchscale.workflow.measure.measure import measure

LABELS, EXAMPLES, TRAINING_IMAGES = "cells", 100, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An image of a study with the true class of each object, by label."""

    address: str
    classes: Mapping[int, str]


def prepared(folder: Path, name: str, pixels: Path, labels: Path, classes: Mapping[int, str]) -> Known:
    """Convert, import the labels, measure."""
    address = str(folder / f"{name}.ome.zarr")
    convert_images(str(pixels), address)
    import_labels(str(labels), address, LABELS, Execution(workers=2))
    measure(address, LABELS, Execution(workers=2))
    return Known(address=address, classes=classes)


def plate(data: Path, folder: Path, size: int) -> tuple[list[Known], list[Known]]:
    """One image: examples and test are its objects."""
    command = [sys.executable, str(data / "make_plate.py"), "--size", str(size), "--out", str(folder / "plate")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with (folder / "plate_objects.csv").open(newline="") as stream:
        classes = {int(row["label"]): f"size {row['class']}" for row in csv.DictReader(stream)}
    image = prepared(folder, "plate", folder / "plate_image.tif", folder / "plate_labels.tif", classes)
    return [image], [image]


def bccd(data: Path, folder: Path, most: int) -> tuple[list[Known], list[Known]]:
    """Training and test images."""
    boxes = defaultdict(list)
    with (data / "bccd_boxes/boxes.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            boxes[row["file"]].append(row)
    with (data / "bccd_boxes/manifest.csv").open(newline="") as stream:
        splits = {row["file"]: row["split"] for row in csv.DictReader(stream)}
    found: dict[str, list[Known]] = {"train": [], "test": []}
    for file, split in sorted(splits.items()):
        if len(found[split]) < most and file in boxes:
            found[split].append(one_smear(data / "bccd_boxes" / file, boxes[file], folder))
    return found["train"], found["test"]


def one_smear(path: Path, boxes: Sequence[Mapping[str, str]], folder: Path) -> Known:
    """Ellipses in boxes, small ones above large ones; what is covered whole is no object."""
    labels = np.zeros(imread(path).shape[:2], np.uint16)
    classes: dict[int, str] = {}
    for row in sorted(boxes, key=lambda row: -area(row)):
        x0, y0, x1, y1 = (int(row[side]) for side in ("xmin", "ymin", "xmax", "ymax"))
        y, x = np.ogrid[y0:y1, x0:x1]
        inside = ((y - (y0 + y1 - 1) / 2) / (y1 - y0)) ** 2 + ((x - (x0 + x1 - 1) / 2) / (x1 - x0)) ** 2 <= 0.25
        window = labels[y0:y1, x0:x1]
        window[inside[: window.shape[0], : window.shape[1]]] = len(classes) + 1
        classes[len(classes) + 1] = row["class"]
    tifffile.imwrite(folder / f"{path.stem}.tif", labels)
    left = set(np.unique(labels).tolist())
    classes = {label: name for label, name in classes.items() if label in left}
    return prepared(folder, path.stem, path, folder / f"{path.stem}.tif", classes)


def area(row: Mapping[str, str]) -> int:
    return (int(row["xmax"]) - int(row["xmin"])) * (int(row["ymax"]) - int(row["ymin"]))


def drawn(images: Sequence[Known], seed: int, *, even: bool) -> list[tuple[str, int, str]]:
    """Labelled objects (image, label, class): at random, or a third of each class as far as there are."""
    rng = np.random.default_rng(seed)
    every = [(k.address, label, name) for k in images for label, name in k.classes.items()]
    every = [every[i] for i in rng.permutation(len(every))]
    if not even:
        return every[:EXAMPLES]
    kinds = sorted({name for *_, name in every})
    chosen: list[tuple[str, int, str]] = []
    for position, kind in enumerate(kinds):
        share = (EXAMPLES - len(chosen)) // (len(kinds) - position)
        chosen += [entry for entry in every if entry[2] == kind][:share]
    return chosen


def write_marks(path: Path, marks: Iterable[tuple[str, int, str]]) -> str:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "label", "class"])
        writer.writerows(marks)
    return str(path)


def confusion(images: Sequence[Known], without: set[tuple[str, int]]) -> Counter[tuple[str, str]]:
    """(true, found) of every object that was not labelled."""
    pairs: Counter[tuple[str, str]] = Counter()
    for known in images:
        table = read_table(known.address, LABELS)
        for label, found in zip(table["label"].to_pylist(), table["class"].to_pylist(), strict=True):
            if (known.address, label) not in without and label in known.classes:
                pairs[known.classes[label], found] += 1
    return pairs


def scores(pairs: Counter[tuple[str, str]]) -> tuple[float, float]:
    """Accuracy, and its mean over classes."""
    total, right = Counter[str](), Counter[str]()
    for (truth, found), n in pairs.items():
        total[truth] += n
        right[truth] += n * (truth == found)
    recalls = [right[name] / total[name] for name in total]
    return sum(right.values()) / sum(total.values()), float(np.mean(recalls))


def tried(
    train: Sequence[Known], test: Sequence[Known], kind: str, seed: int, folder: Path, *, even: bool
) -> tuple[float, float, float]:
    """Accuracy, balanced accuracy, seconds of training."""
    marks = drawn(train, seed, even=even)
    file = write_marks(folder / f"{seed}.csv", marks)
    out, started = str(folder / f"{kind}-{seed}.clf"), time.perf_counter()
    images = sorted({address for address, *_ in marks})
    train_classes(images, LABELS, file, out, ClassifyOptions(kind=kind, seed=seed, precision="float32"), overwrite=True)
    seconds = time.perf_counter() - started
    for known in test:
        apply_classes(known.address, LABELS, out, Execution(workers=2, overwrite=True), precision="float32")
    accuracy, balanced = scores(confusion(test, {(address, label) for address, label, _ in marks}))
    return accuracy, balanced, seconds


def ceiling(folder: Path, seeds: int) -> str:
    """A line for a forest on the median area of the objects from the same image, by the plate's own list."""
    with (folder / "plate_objects.csv").open(newline="") as stream:
        objects = list(csv.DictReader(stream))
    areas = defaultdict(list)
    for row in objects:
        areas[row["source"]].append(int(row["area"]))
    known = np.array([[np.median(areas[row["source"]])] for row in objects])
    classes = np.array([row["class"] for row in objects])
    found = []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(classes))
        few, rest = order[:EXAMPLES], order[EXAMPLES:]
        forest = RandomForestClassifier(100, random_state=0).fit(known[few], classes[few])
        found.append(float((forest.predict(known[rest]) == classes[rest]).mean()))
    accuracy = f"{np.mean(found):.3f} ± {np.std(found):.3f}"
    return f"| plate | given the size of its source | {len(classes)} | {EXAMPLES} | {seeds} | {accuracy} | | |"


def rows(name: str, options: argparse.Namespace) -> Iterator[str]:
    """Lines of the table of one set."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        train, test = (
            plate(options.data, folder, options.size) if name == "plate" else bccd(options.data, folder, options.most)
        )
        count = sum(len(known.classes) for known in test)
        for kind in options.kinds:
            found = np.array([tried(train, test, kind, s, folder, even=name == "bccd") for s in range(options.seeds)])
            (accuracy, balanced, seconds), spread = found.mean(axis=0), found.std(axis=0)
            cells = f"{accuracy:.3f} ± {spread[0]:.3f} | {balanced:.3f} ± {spread[1]:.3f} | {seconds:.1f}"
            yield f"| {name} | {kind} | {count} | {EXAMPLES} | {len(found)} | {cells} |"
        if name == "plate":
            yield ceiling(folder, options.seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", nargs="+", default=["plate", "bccd"], choices=["plate", "bccd"])
    parser.add_argument("--kinds", nargs="+", default=list(CLASSIFIERS), choices=list(CLASSIFIERS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=4000, help="of the plate, px")
    parser.add_argument("--most", type=int, default=TRAINING_IMAGES, help="smears of a split")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"object_accuracy.py; {platform.machine()}, torch {torch.__version__}, plate of {options.size} px\n")
    print("| set | kind | test objects | labelled | seeds | accuracy | balanced accuracy | s to train |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.set:
        for line in rows(name, options):
            print(line, flush=True)


if __name__ == "__main__":
    main()
