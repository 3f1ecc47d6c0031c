r"""Draw the pictures of README from what the demo wrote.

    sketchscale demo --out demo
    python benchmarks/make_pictures.py demo

Writes PNG files to benchmarks/results/pictures: the strokes on the drawn image, the outlines found on another image,
and the classes of its objects. All three show the same 260 x 348 px, twice as large.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

import sketchscale
from sketchscale.annotations.opening import open_sketch
from sketchscale.geometry import Box
from sketchscale.reports.pictures import flattened, make_picture, make_sketch_picture, to_rgb

PICTURES = Path(__file__).resolve().parent / "results" / "pictures"
CROP = Box((130, 174), (390, 522))
"""The middle of an image of 520 x 696 px."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that `sketchscale demo` wrote")
    demo = parser.parse_args().demo
    PICTURES.mkdir(parents=True, exist_ok=True)
    drawn, other = (demo / "images" / f"fluorescence-{number}.zarr" for number in (1, 2))
    raster = open_sketch(str(demo / "samples" / "sketch.jsonl"), shape=(520, 696)).rasterize(CROP)
    labels = np.asarray(sketchscale.open(str(other), labels="nuclei")).squeeze()[CROP.slices]
    pictures = {
        "strokes": make_sketch_picture(pixels(drawn), raster, width=2 * CROP.shape[1]),
        "outlines": make_picture(pixels(other), labels, width=2 * CROP.shape[1]),
        "classes": make_picture(pixels(other), labels, class_of=classes(other), width=2 * CROP.shape[1]),
    }
    for name, picture in pictures.items():
        path = PICTURES / f"{name}.png"
        path.write_bytes(flattened(picture))
        with Image.open(path) as image:
            image.quantize(128).save(path, optimize=True)
        print(path, path.stat().st_size)


def pixels(image: Path) -> np.ndarray:
    """The crop as uint8 (y, x, 3), from the darkest to the brightest 0.1 percent."""
    crop = np.asarray(sketchscale.open(str(image))).squeeze()[CROP.slices]
    low, high = np.percentile(crop, (1, 99.9))
    return to_rgb(crop[None], [(float(low), float(high))])


def classes(image: Path) -> dict[int, int]:
    """The place of each object's class among the names in order."""
    table = pq.read_table(image / "tables" / "nuclei" / "table.parquet", columns=["label", "class"])
    names = sorted(set(table["class"].to_pylist()) - {None, ""})
    return {
        label: names.index(name)
        for label, name in zip(table["label"].to_pylist(), table["class"].to_pylist(), strict=True)
        if name
    }


if __name__ == "__main__":
    main()
