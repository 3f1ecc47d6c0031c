"""What do 12 strokes bring on a kind of image that the starting model never saw?

    python benchmarks/transfer.py --data DATA [--kind usiigaci_phase] [--seed 0 1 2]

The start is the shipped model, trained on fluorescent nuclei only. On one image of another kind 12 strokes are drawn:
four objects are filled, a thick line of background drawn around each, and four more strokes laid over background. After
at most 100 steps of training on that image alone, threshold and sizes set on the strokes themselves, the model is tried
on that image ("here": all its objects, 4 of them drawn) and on all the other images of the kind ("others"), and so is
the model that it started from. A row per image drawn on.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accuracy import average_precision, load_images
from scipy import ndimage
from skimage import measure

from sketchscale.annotations.events import Event, Point, Polygon, Stroke
from sketchscale.annotations.simulate import simulate_strokes
from sketchscale.annotations.sketch import Sketch
from sketchscale.losses import find_loss, loss_config
from sketchscale.networks.checkpoint import Model, load_model
from sketchscale.training.loop import TrainingConfig, train
from sketchscale.training.patches import TrainingImage
from sketchscale.workflow.train.calibrate import calibrate

OBJECTS, BACKGROUND, STEPS, BRUSH = 4, 4, 100, 3


def twelve_strokes(truth: npt.NDArray[np.int32], seed: int) -> Sketch:
    """Four objects filled, background around each, and the four largest background strokes of a simulated person."""
    simulated = simulate_strokes(truth, n_objects=1, seed=seed)
    ground = [s for s in simulated.marks if isinstance(s, Stroke) and s.label == "background"]
    ground.sort(key=lambda s: -s.radius_px * len(s.points))
    strokes = [*ringed_objects(truth, seed), *ground[:BACKGROUND]]
    assert len(strokes) == 2 * OBJECTS + BACKGROUND
    events = tuple(replace(stroke, id=f"stroke-{i}") for i, stroke in enumerate(strokes))
    return Sketch(events=events, shape=(truth.shape[0], truth.shape[1]))


def ringed_objects(truth: npt.NDArray[np.int32], seed: int) -> Iterator[Event]:
    """Four of the larger objects with room around them: a thick line of background about each, then its fill.

    Where the two meet is a boundary for certain, so no outline need be drawn.
    """
    room = 2 * BRUSH + 1
    regions = [r for r in measure.regionprops(truth) if stands_alone(truth, r, room)]
    large = sorted(regions, key=lambda r: -r.area)[: max(OBJECTS, len(regions) // 2)]
    for k, i in enumerate(np.random.default_rng(seed).permutation(len(large))[:OBJECTS], start=1):
        inside, origin = np.pad(large[i].image, room), np.array(large[i].bbox[:2]) - room
        away = ndimage.distance_transform_edt(~inside)
        yield Stroke(points=contour(away, BRUSH + 0.5, origin), radius_px=BRUSH, label="background")
        yield Polygon(rings=(contour(away, 0.5, origin),), label="foreground", object=k)


def stands_alone(truth: npt.NDArray[np.int32], region: Any, room: int) -> bool:
    """Whether an object is connected, with only background around it."""
    y0, x0, y1, x1 = region.bbox
    if min(y0, x0) < room or y1 > truth.shape[0] - room or x1 > truth.shape[1] - room:
        return False
    around = truth[y0 - room : y1 + room, x0 - room : x1 + room]
    near = ndimage.distance_transform_edt(around != region.label) <= room
    whole = measure.label(region.image, connectivity=1).max() == 1
    return bool(whole and set(np.unique(around[near])) == {0, region.label})


def contour(values: npt.NDArray[np.float64], level: float, origin: npt.NDArray[np.int_]) -> tuple[Point, ...]:
    line = max(measure.find_contours(values, level), key=len) + origin
    return tuple((float(y), float(x)) for y, x in line.round(2))


def drawn_on(image: TrainingImage, seed: int) -> TrainingImage:
    raster = twelve_strokes(image.labels, seed).rasterize()
    return replace(image, labels=raster.labels, boundary=raster.boundary)


def transferred(start: Model, image: TrainingImage, seed: int, options: argparse.Namespace) -> Model:
    """100 steps from the start on one image with 12 strokes."""
    config = TrainingConfig(
        network=replace(start.config.network, outputs=find_loss(options.loss).outputs),
        loss=loss_config(options.loss),
        steps=STEPS,
        rate=options.rate,
        average=0.9,
        precision="float32",
        threads=options.threads,
        seed=seed,
    )
    drawn = [drawn_on(image, seed)]
    with tempfile.TemporaryDirectory() as run:
        return calibrate(train(drawn, config, run_folder=run, init=start), drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kind", default="usiigaci_phase")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rate", type=float, default=6e-3)
    parser.add_argument("--loss", default="sketchpose")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=int, default=1000, help="images to be tried on, to save time")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = load_model("nuclei-fluo")
    images = [image for split in ("train", "test") for image in load_images(options.data / options.kind, split)]
    print(
        f"{options.kind}; {options.loss}, {platform.machine()}, {options.threads} threads, torch {torch.__version__}\n"
    )
    print("| image drawn on | steps | s | AP 0.5 here before | after | gained | others before | after | gained |")
    print("|---|---|---|---|---|---|---|---|---|")
    gains = []
    for seed in options.seed:
        pick = images[seed % len(images)]
        others = [image for image in images if image is not pick][: options.most]
        started = time.monotonic()
        model = transferred(start, pick, seed, options)
        elapsed = time.monotonic() - started
        cells, gained = [], []
        for tried in ([pick], others):
            before, after = (average_precision(m, tried)["ap50"] for m in (start, model))
            cells.append(f"{before:.3f} | {after:.3f} | {after - before:+.3f}")
            gained.append(after - before)
        gains.append(gained)
        print(f"| {pick.name[:24]} | {STEPS} | {elapsed:.0f} | {' | '.join(cells)} |", flush=True)
    here, elsewhere = np.transpose(gains)
    print(f"\ngained here: mean {here.mean():+.3f}, least {here.min():+.3f};", end=" ")
    print(f"on the others: mean {elsewhere.mean():+.3f}, least {elsewhere.min():+.3f}")


if __name__ == "__main__":
    main()
