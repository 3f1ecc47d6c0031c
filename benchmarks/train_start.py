"""How the shipped model `start` was trained: four kinds of cells, on images whose licence allows it.

    python benchmarks/train_start.py --data DATA --run RUN --out sketchscale/models/start --minutes 120

The training splits of the kinds in KINDS, none of them non-commercial. Every image is brought to a median object of 20
px; patches vary in scale, angle, stretch, colour and contrast, and some are inverted or grey. An image of fewer than
three channels has 0 in the others. Kinds are drawn by their share, whatever the number of their images. `--init` goes
on from an earlier model, `--without KIND` leaves one out, to see how a start does on a kind that it never saw.
RUN keeps the state (`--resume` goes on from it). The log is written to OUT/train.log, windows of the training images to
OUT/rehearsal.npz.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from skimage.segmentation import relabel_sequential
from skimage.transform import resize
from train_nuclei_fluo import load_split

from sketchscale.losses import LossConfig
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import Model, load_model, save_model
from sketchscale.training.augment import AugmentConfig
from sketchscale.training.loop import Step, TrainingConfig, train
from sketchscale.training.patches import TrainingImage
from sketchscale.training.thresholds import object_diameter
from sketchscale.workflow.train.calibrate import calibrate
from sketchscale.workflow.train.rehearsal import rehearsal_bytes

KINDS = {
    "dsb2018_fluo": (0.4, "fluorescence, Kaggle Data Science Bowl 2018, BBBC038, CC0"),
    "dsb2018_he": (0.25, "stained tissue, Kaggle Data Science Bowl 2018, BBBC038, CC0"),
    "usiigaci_phase": (0.2, "phase contrast, Usiigaci, MIT"),
    "dsb2018_brightfield": (0.15, "bright field, Kaggle Data Science Bowl 2018, BBBC038, CC0"),
}
"""Share of the patches, and what the card says."""

DIAMETER = 20.0
"""px, of the median object of every image."""

SIDE = 144
WINDOWS = {"dsb2018_fluo": 24, "dsb2018_he": 14, "usiigaci_phase": 8, "dsb2018_brightfield": 8}
"""Windows to rehearse, and their side in px."""

STEPS = {"dsb2018_fluo": 9, "dsb2018_he": 3, "usiigaci_phase": 1, "dsb2018_brightfield": 1}
"""Every so manyth image is looked at for windows and calibration."""

CARD = {
    "for": "a start for strokes on cells of any kind: it knows nuclei in fluorescence and stained tissue, nuclei in "
    "bright field, and whole cells in phase contrast",
    "licence": "MIT and CC0-1.0: trained from nothing on images with these licences alone, see provenance.json",
}


def scaled(image: TrainingImage, diameter: float = DIAMETER) -> TrainingImage:
    """The image with its median object brought to a diameter, by at most a factor of 4."""
    areas = np.bincount(image.labels[image.labels > 0])
    own = np.sqrt(4 / np.pi * np.median(areas[areas > 0])) if (areas > 0).any() else diameter
    factor = float(np.clip(diameter / own, 0.25, 4))
    shape = tuple(max(64, round(n * factor)) for n in image.labels.shape)
    pixels = resize(image.image, (image.channels, *shape), order=1, anti_aliasing=factor < 1).astype(np.float32)
    labels = resize(image.labels, shape, order=0, preserve_range=True, anti_aliasing=False).astype(np.int32)
    return replace(image, image=pixels, labels=labels)


def balanced(data: Path, kinds: list[str], split: str = "train") -> list[TrainingImage]:
    """Images of all kinds, repeated so that a draw among them has each kind's share."""
    images = {kind: [scaled(image) for image in load_split(data / kind, split)] for kind in kinds}
    most = max(len(found) / KINDS[kind][0] for kind, found in images.items())
    found = []
    for kind, mine in images.items():
        found += [mine[i % len(mine)] for i in range(round(KINDS[kind][0] * most))]
    return found


def recipe(options: argparse.Namespace) -> TrainingConfig:
    """Half width, three channels, and more variety than a model of one kind gets."""
    augment = AugmentConfig(
        scale=(0.6, 1.6),
        small_scale=1.6,
        plain=0.2,
        rotate=True,
        stretch=1.5,
        gain=(0.6, 1.3),
        noise=0.06,
        blur=1.5,
        invert=0.2,
        tint=(0.75, 1.3),
        shuffle=0.3,
        grey=0.25,
    )
    return TrainingConfig(
        network=NetworkConfig(channels=3, widths=(16, 32, 64, 128)),
        loss=LossConfig(rim=4),
        augment=augment,
        steps=options.steps,
        minutes=options.minutes,
        rate=options.rate,
        batch=8,
        patch=160,
        average=0.998,
        precision=options.precision,
        threads=options.threads,
        save_every_s=300,
        threshold=-2.0,
        min_size=20,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--init", help="start from this model")
    parser.add_argument("--without", action="append", default=[], choices=KINDS, help="leave a kind out")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak of the learning rate")
    parser.add_argument("--precision", default="bfloat16", help="float32 where bfloat16 is not native")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--finish", action="store_true", help="write only what goes with the weights of --out")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if kind not in options.without]
    images = balanced(options.data, kinds)
    options.run.mkdir(parents=True, exist_ok=True)
    log = (options.run / "train.log").open("a" if options.resume else "w")

    def on_step(step: Step) -> None:
        if step.step % 10 == 0:
            line = f"step {step.step} loss {step.loss:.4f} rate {step.rate:.2e} {step.elapsed_s:.0f} s"
            print(line, file=log, flush=True)

    if options.finish:
        finish(options.out, load_model(options.out), options.data, kinds)
        return
    init = load_model(options.init) if options.init else None
    model = train(images, recipe(options), run_folder=options.run, init=init, on_step=on_step, resume=options.resume)
    provenance = {
        **model.provenance,
        "data": [f"{kind}, training split ({KINDS[kind][1]})" for kind in kinds],
        "command": f"python benchmarks/train_start.py --minutes {options.minutes:g} --rate {options.rate:g} "
        f"--threads {options.threads} --precision {options.precision}"
        + "".join(f" --without {kind}" for kind in options.without)
        + (f" --init {options.init}" if init else ""),
        "init": dict(init.provenance) if init else None,
        "machine": f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}",
    }
    finish(options.out, replace(model, provenance=provenance), options.data, kinds)
    log.close()
    shutil.copyfile(options.run / "train.log", options.out / "train.log")


def finish(out: Path, model: Model, data: Path, kinds: list[str]) -> None:
    """Write the model with its threshold, diameter, card, and windows to rehearse.

    Threshold and joining are calibrated on 6 training images of each kind, on which the diameter is measured, too.
    """
    images = {kind: [scaled(image) for image in load_split(data / kind, "train")[:: STEPS[kind]]] for kind in kinds}
    few = [image for found in images.values() for image in found[:6]]
    config = replace(model.config, absent_channels=2, finds_scale=True, diameter=round(object_diameter(few), 2))
    model = calibrate(replace(model, config=config), few, most=64)
    save_model(out, model.network, model.config, model.provenance, dtype=torch.float16)
    windows = [window for kind in kinds for window in cut(images[kind], WINDOWS[kind])]
    (out / "rehearsal.npz").write_bytes(rehearsal_bytes(windows, 3))
    (out / "card.json").write_text(json.dumps(CARD, indent=1) + "\n")
    print(f"{out}: threshold {model.config.threshold:g}, {model.config.diameter:g} px, {len(windows)} windows")


def cut(images: list[TrainingImage], count: int) -> list[TrainingImage]:
    """One window with many objects of each of the first images, of the same size for all."""
    found = []
    for image in images:
        if min(image.labels.shape) < SIDE:
            continue
        starts = [range(0, n - SIDE + 1, SIDE // 4) for n in image.labels.shape]
        boxes = [np.s_[y : y + SIDE, x : x + SIDE] for y in starts[0] for x in starts[1]]
        best = max(boxes, key=lambda box: np.unique(image.labels[box]).size)
        labels = relabel_sequential(image.labels[best])[0].astype(np.int32)
        found.append(replace(image, image=image.image[(slice(None), *best)], labels=labels))
    return found[:count]


if __name__ == "__main__":
    main()
