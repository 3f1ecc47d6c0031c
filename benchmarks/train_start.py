"""How the shipped model `start` was trained: four kinds of cells, on images whose licence allows it.

    python benchmarks/train_start.py --data DATA --run RUN --out sketchscale/models/start --minutes 120

The training splits of the kinds in KINDS, none of them non-commercial. Every image is brought to a median object of 20
px; patches vary in scale, angle, stretch, colour and contrast, and some are inverted or grey. An image of fewer than
three channels has 0 in the others. Kinds are drawn by their share, whatever the number of their images. `--init` goes
on from an earlier model, `--without KIND` leaves one out, to see how a start does on a kind that it never saw.
RUN keeps the state (`--resume` goes on from it). The log is written to OUT/train.log.
"""

from __future__ import annotations

import argparse
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from skimage.transform import resize
from train_nuclei_fluo import load_split

from sketchscale.losses import LossConfig
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import load_model, save_model
from sketchscale.training.augment import AugmentConfig
from sketchscale.training.loop import Step, TrainingConfig, train
from sketchscale.training.patches import TrainingImage
from sketchscale.training.thresholds import choose_threshold

KINDS = {
    "dsb2018_fluo": (0.4, "fluorescence, Kaggle Data Science Bowl 2018, BBBC038, CC0"),
    "dsb2018_he": (0.25, "stained tissue, Kaggle Data Science Bowl 2018, BBBC038, CC0"),
    "usiigaci_phase": (0.2, "phase contrast, Usiigaci, MIT"),
    "dsb2018_brightfield": (0.15, "bright field, Kaggle Data Science Bowl 2018, BBBC038, CC0"),
}
"""Share of the patches, and what the card says."""

DIAMETER = 20.0
"""px, of the median object of every image."""


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
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if kind not in options.without]
    images = balanced(options.data, kinds)
    options.run.mkdir(parents=True, exist_ok=True)
    log = (options.run / "train.log").open("a" if options.resume else "w")

    def on_step(step: Step) -> None:
        if step.step % 10 == 0:
            line = f"step {step.step} loss {step.loss:.4f} rate {step.rate:.2e} {step.elapsed_s:.0f} s"
            print(line, file=log, flush=True)

    init = load_model(options.init) if options.init else None
    model = train(images, recipe(options), run_folder=options.run, init=init, on_step=on_step, resume=options.resume)
    config = replace(model.config, absent_channels=2, diameter=DIAMETER)
    few = [image for kind in kinds for image in images if image.name in _first(options.data, kind)]
    config = replace(config, threshold=choose_threshold(replace(model, config=config), few))
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
    save_model(options.out, model.network, config, provenance, dtype=torch.float16)
    log.close()
    shutil.copyfile(options.run / "train.log", options.out / "train.log")


def _first(data: Path, kind: str) -> set[str]:
    """The names of a few training images of a kind."""
    return {image.name for image in load_split(data / kind, "train")[:6]}


if __name__ == "__main__":
    main()
