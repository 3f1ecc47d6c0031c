"""Does `segment` warn of images of a kind that the shipped model does not know, and only of those?

    python benchmarks/unknown_kinds.py measure --data DATA --out statistics.jsonl [--part 0 2]
    python benchmarks/unknown_kinds.py fit statistics.jsonl --model sketchscale/models/nuclei-fluo
    python benchmarks/unknown_kinds.py table statistics.jsonl
    python benchmarks/unknown_kinds.py strokes --data DATA
    python benchmarks/unknown_kinds.py --tiny

`measure` segments every image, cut to its first 512 px, and notes the three statistics of networks/kind.py, the objects
found, and AP at IoU 0.5 where there is a truth; images that are there are not measured again. Images of several
channels are given as a user could give them to a model that reads one: colour as grey, and as each of its channels;
fluorescence channel by channel. Large sets are thinned out (`EVERY`, and colour channels of every fourth image only).

`fit` makes the intervals of the model's record from every fourth training image (file names in order, the first, fifth,
...) and writes them into its config.json; the weights stay as they are. `table` prints the share of images that are
warned of: with that record, on images that it was not made from. The statistics, the rule of two of three and `WIDER`
(by how much the intervals are wider than what the fitted images show) were chosen with a view of all kinds.

`strokes` trains a small network from random weights for 150 steps on simulated strokes on one image of a kind, for four
kinds, and prints the share of other images of the same and of each other kind that it warns of.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import platform
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage.io import imread
from skimage.measure import label as measure_labels

from sketchscale.annotations.events import append_events
from sketchscale.annotations.simulate import simulate_strokes
from sketchscale.config import Execution, SegmentOptions, TrainOptions
from sketchscale.evaluation import score_labels
from sketchscale.integration.plan import integrate
from sketchscale.networks.checkpoint import load_model
from sketchscale.networks.kind import Kind, Statistics, kind_of, unfamiliar
from sketchscale.workflow.convert import convert_images
from sketchscale.workflow.segment.arrays import fields_of_array
from sketchscale.workflow.segment.job import integration_config
from sketchscale.workflow.segment.unknown_kinds import array_statistics, kind_record
from sketchscale.workflow.train.train import train

SAMPLES = Path(__file__).resolve().parents[1] / "sketchscale" / "samples"
WIDER, LEAST = 0.25, 0.02
CUT = 512
EVERY = {"adipose_he": 5, "monuseg": 3, "bccd_boxes": 30}
GREY = np.array([0.299, 0.587, 0.114])
FITTED = "fluorescent nuclei, fitted"
FLUORESCENCE = {"bbbc022_IXMtest_A02_s9": (0, 1, 2), "cellprofiler_human": (0, 1, 2), "maicrobe_saureus": (1, 2)}
"""Which channels of the images of misc_cells show fluorescence."""
NUCLEI = {("stardist_img2d", ""), ("stardist_test_img2d", ""), ("stardist_img3d", "")}
NUCLEI |= {("bbbc022_IXMtest_A02_s9", "channel 0"), ("cellprofiler_human", "channel 2")}
"""Of these the ones that show nuclei, which the model was made for."""


@dataclass(frozen=True, slots=True)
class Given:
    """An image of one channel, as it is given to the model.

    Attributes:
        group: row of the table. view: how it was made one channel.
    """

    group: str
    name: str
    view: str
    pixels: npt.NDArray[Any]
    truth: npt.NDArray[Any] | None = None


def given_images(data: Path) -> Iterator[Given]:
    """Every image of every set, one channel each."""
    for folder, group in (
        ("dsb2018_he", "stained nuclei (dsb2018_he)"),
        ("dsb2018_brightfield", "bright field (dsb2018_brightfield)"),
        ("usiigaci_phase", "phase contrast (usiigaci_phase)"),
        ("omnipose_samples", "phase contrast, bacteria (omnipose_samples)"),
        ("monuseg", "stained nuclei (monuseg)"),
        ("adipose_he", "stained fat (adipose_he)"),
        ("bccd_boxes", "stained blood (bccd_boxes)"),
        ("bbbc007_sparse", "fluorescent nuclei (bbbc007_sparse)"),
    ):
        for position, row in enumerate(read_rows(data / folder)[:: EVERY.get(folder, 1)]):
            yield from views_of(group, data / folder, row, channels=folder == "dsb2018_he" and position % 4 == 0)
    yield from fluorescence(data / "dsb2018_fluo")
    yield from singles(data / "misc_cells")
    yield from samples(None)


def cut_to_size(given: Given) -> Given:
    pixels = np.ascontiguousarray(given.pixels[:CUT, :CUT])
    return replace(given, pixels=pixels, truth=None if given.truth is None else given.truth[:CUT, :CUT])


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as stream:
        return sorted(csv.DictReader(stream), key=lambda row: row["file"])


def views_of(group: str, folder: Path, row: dict[str, str], *, channels: bool) -> Iterator[Given]:
    """An image of one channel as it is; of colour as grey, and its channels."""
    pixels, name = imread(folder / row["file"]), Path(row["file"]).stem
    dense = bool(row["mask"]) and row["split"] != "sparse"
    truth = imread(folder / row["mask"]).astype(np.int64) if dense else None
    if pixels.ndim == 2:
        yield Given(group, name, "", pixels, truth)
        return
    yield Given(group, name, "grey", (pixels[..., :3] @ GREY).astype(np.uint8), truth)
    if channels:
        for i, colour in enumerate(("red", "green", "blue")):
            yield Given(f"{group}, a colour channel", name, colour, pixels[..., i], truth)


def fluorescence(folder: Path) -> Iterator[Given]:
    """The images of the model's own kind: training images that the record is made from, others, and the test images."""
    rows = read_rows(folder)
    training = [row for row in rows if row["split"] == "train"]
    for rest, group in ((0, FITTED), (2, "fluorescent nuclei, training images (dsb2018_fluo)")):
        for row in training[rest::4]:
            yield from views_of(group, folder, row, channels=False)
    for row in rows:
        if row["split"] == "test":
            yield from views_of("fluorescent nuclei, test images (dsb2018_fluo)", folder, row, channels=False)


def singles(folder: Path) -> Iterator[Given]:
    """The single images of misc_cells; of the volume its middle plane."""
    for row in read_rows(folder):
        name, path = Path(row["file"]).stem, folder / row["file"]
        pixels = imread(path)
        truth = imread(folder / row["mask"]).astype(np.int64) if row["mask"] else None
        if name == "stardist_img3d":
            pixels, truth = pixels[len(pixels) // 2], None if truth is None else truth[len(truth) // 2]
        if pixels.ndim == 2:
            yield Given(_single(name, ""), name, "", pixels, truth)
            continue
        planes = pixels if pixels.shape[0] == 3 else np.moveaxis(pixels, -1, 0)
        for i, plane in enumerate(planes):
            view = f"channel {i}"
            group = _single(name, view) if i in FLUORESCENCE[name] else "phase contrast, bacteria (misc_cells)"
            yield Given(group, name, view, np.ascontiguousarray(plane))


def _single(name: str, view: str) -> str:
    nuclei = (name, view) in NUCLEI
    return "fluorescent nuclei (misc_cells)" if nuclei else "fluorescence of other things (misc_cells)"


def samples(cut: int | None) -> Iterator[Given]:
    """The images in the package, cut to so many pixels."""
    for kind, group in (("fluorescence", "fluorescent nuclei (shipped samples)"), ("histology", "stained (samples)")):
        for path in sorted((SAMPLES / kind / "images").glob("*.png")):
            pixels = imread(path)
            pixels = pixels if pixels.ndim == 2 else (pixels[..., :3] @ GREY).astype(np.uint8)
            yield Given(group, path.stem, "", pixels[:cut, :cut])


def measured(given: Given, settings: SegmentOptions) -> dict[str, Any]:
    """A line of the file: statistics, objects, AP."""
    model = load_model(settings.model)
    fields = fields_of_array(given.pixels[None], model, settings)
    labels = integrate(fields, integration_config(model, settings))
    statistics = asdict(array_statistics(given.pixels[None], fields, model.config))
    ap = None if given.truth is None else round(score_labels(given.truth, labels).at(0.5).ap, 4)
    where = {"group": given.group, "name": given.name, "view": given.view}
    return {**where, "statistics": statistics, "objects": int(labels.max()), "ap": ap}


def measure(data: Path, out: Path, part: Sequence[int]) -> None:
    """Add lines for the images of a part that are not there yet."""
    there = {key_of(line) for line in read_lines(out)} if out.exists() else set()
    for position, given in enumerate(map(cut_to_size, given_images(data))):
        if position % part[1] == part[0] and (given.group, given.name, given.view) not in there:
            with out.open("a") as stream:
                print(json.dumps(measured(given, settings_for(given))), file=stream)


def settings_for(given: Given) -> SegmentOptions:
    """The model's own; but one tile just large enough for a small image, which takes less time."""
    return SegmentOptions(tile=min(CUT, max(128, -(-max(given.pixels.shape) // 64) * 64)))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def key_of(line: dict[str, Any]) -> tuple[str, str, str]:
    return line["group"], line["name"], line["view"]


def statistics_in(line: dict[str, Any]) -> Statistics:
    found = line["statistics"]
    return Statistics(**{**found, "brightness": tuple(found["brightness"])})


def fitted(lines: list[dict[str, Any]]) -> Kind:
    return kind_of([statistics_in(line) for line in lines if line["group"] == FITTED], wider=WIDER, least=LEAST)


def write_record(folder: Path, kind: Kind) -> None:
    """Into the model's configuration; the weights and their SHA-256 stay."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text("utf-8")), "kind": asdict(kind)}
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", "utf-8")
    load_model(folder)


def print_table(lines: list[dict[str, Any]], kind: Kind) -> None:
    """A row per group, then the worst that was asked for."""
    print(
        f"known: brightness up to {kind.brightness[0][1]:.3f}, undecided {kind.undecided[1]:.3f}, "
        f"short flow {kind.short_flow[1]:.3f}, from {kind.images} training images; "
        f"{platform.machine()}, torch {torch.__version__}\n"
    )
    print("| kind | given | warned of | objects, median | AP 0.5, mean |\n|---|---|---|---|---|")
    groups = sorted({line["group"] for line in lines} - {FITTED}, key=lambda group: (not is_other(group), group))
    for group in groups:
        print(row_of(group, [line for line in lines if line["group"] == group], kind))
    for title, wanted in (("stained, bright field, phase contrast", is_other), ("fluorescent nuclei", is_own)):
        chosen = [line for line in lines if wanted(line["group"])]
        print(row_of(f"all {title}", chosen, kind))


def is_other(group: str) -> bool:
    return group.startswith(("stained", "bright", "phase"))


def is_own(group: str) -> bool:
    return group.startswith("fluorescent nuclei") and group != FITTED


def row_of(group: str, lines: list[dict[str, Any]], kind: Kind) -> str:
    warned = sum(bool(line["objects"] and unfamiliar(statistics_in(line), kind)) for line in lines)
    scores = [line["ap"] for line in lines if line["ap"] is not None]
    ap = f"{np.mean(scores):.3f}" if scores else "-"
    objects = np.median([line["objects"] for line in lines]) if lines else 0
    return f"| {group} | {len(lines)} | {warned} ({warned / max(1, len(lines)):.1%}) | {objects:.0f} | {ap} |"


SOURCES = {
    "fluorescence": ("dsb2018_fluo", "test"),
    "stained": ("dsb2018_he", "test"),
    "bright field": ("dsb2018_brightfield", "train"),
    "phase contrast": ("usiigaci_phase", "train"),
}
"""Kinds that small networks are trained on, with the set and the split."""


def training_images(data: Path, kind: str, count: int) -> list[Given]:
    """The first so many with at least 4 objects, as grey and cut to 256 px."""
    folder, split = data / SOURCES[kind][0], SOURCES[kind][1]
    rows = [row for row in read_rows(folder) if row["split"] == split]
    views = (given for row in rows for given in views_of(kind, folder, row, channels=False))
    cut = (replace(g, pixels=g.pixels[:256, :256], truth=g.truth[:256, :256]) for g in views if g.truth is not None)
    return list(itertools.islice((given for given in cut if len(np.unique(given.truth)) > 4), count))


def trained(given: Given, folder: Path, steps: int, seed: int) -> str:
    """The model folder of a small network trained on simulated strokes on an image."""
    truth = measure_labels(given.truth).astype(np.int32)
    append_events(folder / "sketch.jsonl", simulate_strokes(truth, n_objects=10, seed=seed).events)
    np.save(folder / "image.npy", given.pixels)
    (image,) = convert_images(str(folder / "image.npy"), str(folder / "image.zarr"))
    options = TrainOptions(
        images=(str(image["address"]),),
        sketches=(str(folder / "sketch.jsonl"),),
        out=str(folder / "model"),
        width=8,
        batch=4,
        patch=128,
        steps=steps,
        precision="float32",
        threads=1,
        seed=seed,
    )
    return train(options, Execution(engine="serial")).model


def print_strokes(data: Path, steps: int) -> None:
    """A row per kind that a model was trained on."""
    images = {kind: training_images(data, kind, 9) for kind in SOURCES}
    print(
        "| trained on one image of | warns of it | " + " | ".join(SOURCES) + " |\n" + "|---" * (2 + len(SOURCES)) + "|"
    )
    for seed, kind in enumerate(SOURCES):
        with tempfile.TemporaryDirectory() as folder:
            model = trained(images[kind][0], Path(folder), steps, seed)
            shares = [warned_of(model, images[other][1:]) for other in SOURCES]
            print(f"| {kind} | {warned_of(model, images[kind][:1])} | " + " | ".join(shares) + " |", flush=True)


def warned_of(folder: str, images: Sequence[Given]) -> str:
    """How many of how many."""
    model, settings = load_model(folder), SegmentOptions(model=folder, tile=256)
    count = 0
    for given in images:
        fields = fields_of_array(given.pixels[None], model, settings)
        found = array_statistics(given.pixels[None], fields, model.config)
        count += bool(kind_record(found, model.config)["unknown"])
    return f"{count} of {len(images)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("measure", "fit", "table", "strokes"), nargs="?", default="table")
    parser.add_argument("lines", type=Path, nargs="?", help="the file of `measure`, for fit and table")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("statistics.jsonl"))
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), help="this one of so many parts")
    parser.add_argument("--model", type=Path, help="the model folder that gets the record")
    parser.add_argument("--steps", type=int, default=150, help="of the trainings of `strokes`")
    parser.add_argument("--tiny", action="store_true", help="the shipped samples, cut to 128 px, for CI")
    options = parser.parse_args()
    if options.action == "measure":
        measure(options.data, options.out, options.part)
    elif options.action == "fit":
        write_record(options.model, fitted(read_lines(options.lines)))
    elif options.action == "strokes":
        print_strokes(options.data, options.steps)
    else:
        settings, known = SegmentOptions(tile=128, overlap=32), load_model("nuclei-fluo").config.kind
        assert known is not None
        lines = [measured(given, settings) for given in samples(128)] if options.tiny else read_lines(options.lines)
        print_table(lines, known)


if __name__ == "__main__":
    main()
