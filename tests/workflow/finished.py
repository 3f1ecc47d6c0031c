"""One small image through the whole chain, made once for a session of tests; each test works on a copy."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np

from sketchscale.config import Execution, SegmentOptions
from sketchscale.io.files.convert import ConvertConfig
from sketchscale.io.ome_zarr.table import read_table
from sketchscale.workflow.classify.apply import apply_classes, train_classes
from sketchscale.workflow.convert import convert_images
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.segment.segment import segment
from tests.pipeline import draw_nuclei

SERIAL = Execution(engine="serial", block=128)
SHAPE = (130, 200)


def options(model: str) -> SegmentOptions:
    """Objects small enough for small patches, so that a classifier is trained in a second or two."""
    return SegmentOptions(model=model, max_size=80)


def convert_small(folder: Path, name: str = "image") -> str:
    """An image of two levels in chunks of 64 px."""
    np.save(folder / f"{name}.npy", draw_nuclei(SHAPE))
    config = ConvertConfig(chunk=64, levels=2)
    (record,) = convert_images(str(folder / f"{name}.npy"), str(folder / f"{name}.zarr"), config, SERIAL)
    return str(record["address"])


def annotate(image: str, path: Path) -> str:
    """Eight objects with a class, by size."""
    table = read_table(image, "nuclei")
    order = np.argsort(table.column("area").to_numpy(), kind="stable")
    chosen = table.column("label").to_numpy()[order]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["label", "class"])
        rows.writerows((label, "small") for label in chosen[:4])
        rows.writerows((label, "large") for label in chosen[-4:])
    return str(path)


def finish(folder: Path, model: str) -> Path:
    """`image.zarr`, segmented, measured and classified, and `classes`, the classifier; returns the folder."""
    image = convert_small(folder)
    segment(image, options(model), SERIAL)
    measure(image, "nuclei", SERIAL)
    annotations = annotate(image, folder / "classes.csv")
    train_classes(image, "nuclei", annotations, str(folder / "classes"), execution=SERIAL)
    apply_classes(image, "nuclei", str(folder / "classes"), SERIAL)
    return folder


def copy_of(done: Path, folder: Path) -> Path:
    """A copy of the finished image; times are kept, because they identify an input."""
    target = folder / "image.zarr"
    shutil.copytree(done / "image.zarr", target, copy_function=shutil.copy2)
    return target


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
