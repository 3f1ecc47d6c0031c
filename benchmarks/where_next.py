"""Are the boxes that `where-next` proposes worth more than boxes taken at random?

    python benchmarks/where_next.py --data DATA/dsb2018_fluo [--starts 3] [--boxes 6]
    python benchmarks/where_next.py --tiny

A start: a pool of training images (cut to 256 px), strokes on 8 objects of one of them, and a quarter-width network
trained on these for some hundred small steps. Then boxes of 64 px are added, everything inside labelled from the truth,
and training goes on from that network for as many steps (with `--from-scratch`: starts from random weights). The boxes
are chosen in one of these ways:

    none            the strokes alone, for as many steps more
    where-next      proposed by `sketchscale where-next` with the start's model
    random          drawn evenly from the boxes without strokes
    random, cells   drawn evenly from those of which true objects cover at least 5 %: what a person would do who passes
                    over empty places

Every way gets the same number of boxes of the same size. Printed: AP at IoU 0.5 and 0.75 on test images, mean over
images, then mean and standard deviation over starts (and over several draws for the random ways), and the objects that
had to be drawn. A single difference below the standard deviations is noise.
"""

from __future__ import annotations

import argparse
import csv
import platform
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from skimage.io import imread

from sketchscale.annotations.events import append_events
from sketchscale.annotations.simulate import simulate_strokes
from sketchscale.config import Execution, SegmentOptions
from sketchscale.evaluation import score_labels
from sketchscale.geometry import Box, tile_cover, whole
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.plan import integrate
from sketchscale.intensity import array_ranges, normalize
from sketchscale.io.ome_zarr.arrays import write_box
from sketchscale.io.ome_zarr.new_images import commit_image, create_image
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import Model, save_model
from sketchscale.training.loop import TrainingConfig, predict_image, train
from sketchscale.training.patches import TrainingImage
from sketchscale.workflow.train.where_next import NextOptions, where_next

SAMPLES = Path(__file__).resolve().parents[1] / "sketchscale" / "samples" / "fluorescence"
CUT, SIZE, UNKNOWN = 256, 64, -1


@dataclass(frozen=True)
class Real:
    """An image (c, y, x) of its own values and its true labels (y, x)."""

    name: str
    pixels: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.int32]

    def training(self, labels: npt.NDArray[np.int32], boundary: npt.NDArray[np.bool_] | None = None) -> TrainingImage:
        scaled = normalize(self.pixels, array_ranges(self.pixels, low=1.0, high=99.8))
        return TrainingImage(image=scaled, labels=labels, boundary=boundary, name=self.name)


def load(folder: Path, split: str, count: int) -> list[Real]:
    """So many images of a split, evenly spread over their file names, with at least 8 objects after the cut."""
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = sorted((r for r in csv.DictReader(stream) if r["split"] == split), key=lambda row: row["file"])
    wanted = [rows[i * len(rows) // count] for i in range(min(count, len(rows)))]
    return [cut(Path(r["file"]).stem[:8], imread(folder / r["file"]), imread(folder / r["mask"])) for r in wanted]


def load_samples() -> list[Real]:
    files = sorted((SAMPLES / "images").glob("*.png"))
    return [cut(f.stem, imread(f), imread(SAMPLES / "masks" / f.name)) for f in files]


def cut(name: str, pixels: npt.NDArray[np.uint8], truth: npt.NDArray[np.integer]) -> Real:
    """The middle of an image."""
    start = [max(0, (n - CUT) // 2) for n in truth.shape]
    inside = tuple(slice(a, a + CUT) for a in start)
    pixels = pixels[inside][None] if pixels.ndim == 2 else np.moveaxis(pixels[inside][..., :3], -1, 0)
    return Real(name, np.ascontiguousarray(pixels), truth[inside].astype(np.int32))


class Study:
    """A pool of images in storage, the first of them with strokes."""

    def __init__(self, folder: Path, pool: list[Real], options: argparse.Namespace, seed: int) -> None:
        self.folder, self.options, self.seed = folder, options, seed
        order = np.random.default_rng(seed).permutation(len(pool))
        self.pool = sorted((pool[i] for i in order), key=lambda real: len(np.unique(real.truth)) <= 8)
        self.strokes = simulate_strokes(self.pool[0].truth, n_objects=8, seed=seed)
        self.sketch = str(folder / "strokes.jsonl")
        append_events(self.sketch, self.strokes.events)
        self.addresses = [self._store(i, real) for i, real in enumerate(self.pool)]

    def _store(self, number: int, real: Real) -> str:
        address = str(self.folder / f"{number:02d}-{real.name}.zarr")
        chunks = (1, 128, 128)
        (level,) = create_image(address, real.pixels.shape, "cyx", real.pixels.dtype, chunks, levels=1)
        write_box(level, whole(real.pixels.shape), real.pixels)
        commit_image(address)
        return address

    def boxes(self) -> list[tuple[int, Box]]:
        """Boxes without strokes, as (image, box)."""
        raster = self.strokes.rasterize()
        known = (raster.labels != UNKNOWN) | raster.boundary
        return [
            (i, tile.write)
            for i, real in enumerate(self.pool)
            for tile in tile_cover(real.truth.shape, (SIZE, SIZE))
            if tile.write.shape == (SIZE, SIZE) and not (i == 0 and known[tile.write.slices].any())
        ]

    def train(self, boxes: list[tuple[int, Box]], init: Model | None) -> Model:
        """On the strokes and the boxes."""
        raster = self.strokes.rasterize()
        images = [self.pool[0].training(raster.labels, raster.boundary)]
        for i in sorted({i for i, _ in boxes}):
            labels = np.full(self.pool[i].truth.shape, UNKNOWN, np.int32)
            for _, box in [b for b in boxes if b[0] == i]:
                labels[box.slices] = self.pool[i].truth[box.slices]
            images.append(self.pool[i].training(labels))
        config = TrainingConfig(
            network=NetworkConfig(channels=len(self.pool[0].pixels), widths=self.options.widths),
            steps=self.options.steps,
            batch=4,
            patch=96,
            precision="float32",
            threads=1,
            workers=0,
            seed=self.seed,
        )
        with tempfile.TemporaryDirectory() as run:
            return train(images, config, run_folder=run, init=init)

    def propose(self, model: Model, count: int) -> list[tuple[int, Box]]:
        folder = self.folder / "model"
        save_model(folder, model.network, replace(model.config, tile=128, overlap=32), model.provenance)
        options = NextOptions(
            segment=SegmentOptions(model=str(folder)), sketches=(self.sketch,), n=count, size=SIZE, sample=1000
        )
        places = where_next(self.addresses, options, Execution(engine="serial")).places
        return [(self.addresses.index(place.image), place.box) for place in places]

    def objects(self, boxes: list[tuple[int, Box]]) -> int:
        return sum(len(np.unique(t[t > 0])) for t in (self.pool[i].truth[box.slices] for i, box in boxes))


def accuracy(model: Model, test: list[Real]) -> tuple[float, float]:
    """AP at IoU 0.5 and 0.75, mean over images."""
    config = IntegrationConfig(threshold=model.config.threshold, min_size=model.config.min_size)
    found = []
    for real in test:
        fields = predict_image(model, real.training(real.truth).image)
        found.append([m.ap for m in score_labels(real.truth, integrate(fields, config), (0.5, 0.75)).matchings])
    half, high = np.mean(found, axis=0)
    return float(half), float(high)


Row = tuple[str, float, float, int]


def run_start(pool: list[Real], test: list[Real], options: argparse.Namespace, seed: int) -> list[Row]:
    """Run one start with every way of choosing boxes."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), pool, options, seed)

        def note(way: str, boxes: list[tuple[int, Box]], model: Model) -> None:
            rows.append((way, *accuracy(model, test), study.objects(boxes)))
            print(f"start {seed}: {way:<14} AP.5 {rows[-1][1]:.3f}  AP.75 {rows[-1][2]:.3f}", flush=True)

        first = study.train([], None)
        init = None if options.from_scratch else first
        note("strokes only", [], first)
        if init is not None:
            note("none", [], study.train([], init))
        proposed = study.propose(first, options.boxes)
        note("where-next", proposed, study.train(proposed, init))
        every = study.boxes()
        cells = [(i, b) for i, b in every if (study.pool[i].truth[b.slices] > 0).mean() >= 0.05]
        for draw in range(options.draws):
            rng = np.random.default_rng((seed, draw))
            for way, candidates in (("random", every), ("random, cells", cells)):
                drawn = [candidates[k] for k in rng.permutation(len(candidates))[: options.boxes]]
                note(way, drawn, study.train(drawn, init))
    return rows


def table(rows: list[Row]) -> str:
    lines = ["| boxes | AP 0.5 | AP 0.75 | objects drawn | runs |", "|---|---|---|---|---|"]
    for way in dict.fromkeys(row[0] for row in rows):
        values = np.array([row[1:] for row in rows if row[0] == way])
        mean, spread = values.mean(0), values.std(0)
        figures = " | ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean[:2], spread[:2], strict=True))
        lines.append(f"| {way} | {figures} | {mean[2]:.0f} | {len(values)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with manifest.csv; --tiny takes the shipped samples")
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--pool", type=int, default=16)
    parser.add_argument("--test", type=int, default=25)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed of the first start")
    parser.add_argument("--draws", type=int, default=2, help="of each random way, per start")
    parser.add_argument("--boxes", type=int, default=6)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--from-scratch", action="store_true", help="train on strokes and boxes from random weights")
    options = parser.parse_args()
    options.widths = (8, 16, 32, 64)
    if options.tiny:
        options.steps, options.starts, options.draws, options.boxes, options.widths = 2, 1, 1, 2, (2, 4)
        pool, test = load_samples()[:3], load_samples()[3:]
    elif options.data is None:
        parser.error("--data DATA/dsb2018_fluo, or --tiny")
    else:
        pool, test = load(options.data, "train", options.pool), load(options.data, "test", options.test)
    torch.set_num_threads(1)
    started = time.monotonic()
    seeds = range(options.first, options.first + options.starts)
    rows = [row for seed in seeds for row in run_start(pool, test, options, seed)]
    source = options.data.name if options.data else "samples"
    print(
        f"\n{source}: pool of {len(pool)} images, {len(test)} test images, {options.boxes} boxes of {SIZE} px, "
        f"{options.steps} steps {'from scratch' if options.from_scratch else 'more'}, seeds {seeds[0]} to {seeds[-1]}; "
        f"{platform.machine()}, torch {torch.__version__}, 1 thread, "
        f"{time.monotonic() - started:.0f} s\n\n{table(rows)}"
    )


if __name__ == "__main__":
    main()
