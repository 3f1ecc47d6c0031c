"""How the shipped model `nuclei-fluo` was trained: dense masks of the CC0 fluorescence set, its training split only.

    python benchmarks/train_nuclei_fluo.py --data DATA/dsb2018_fluo --run RUN --out sketchscale/models/nuclei-fluo

RUN keeps the state (`--resume` goes on from it). The log is written to OUT/train.log.
"""

from __future__ import annotations

import argparse
import csv
import platform
import shutil
from pathlib import Path

import numpy as np
import torch
from skimage.io import imread

from sketchscale.losses import LossConfig
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import load_model, save_model
from sketchscale.training.augment import AugmentConfig
from sketchscale.training.loop import Step, TrainingConfig, train
from sketchscale.training.patches import TrainingImage


def load_split(folder: Path, split: str) -> list[TrainingImage]:
    """Images of a split, each channel scaled by its 1 and 99.8 percentiles, with dense labels."""
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == split]
    images = []
    for row in sorted(rows, key=lambda row: row["file"]):
        image = imread(folder / row["file"]).astype(np.float32)
        channels = np.moveaxis(image if image.ndim == 3 else image[..., None], -1, 0)
        ranges = [np.percentile(channel, (1.0, 99.8)) for channel in channels]
        pairs = zip(channels, ranges, strict=True)
        scaled = np.stack([(c - low) / max(high - low, 1e-6) for c, (low, high) in pairs]).astype(np.float32)
        labels = imread(folder / row["mask"]).astype(np.int32)
        images.append(TrainingImage(image=scaled, labels=labels, name=Path(row["file"]).stem))
    return images


def recipe(options: argparse.Namespace) -> TrainingConfig:
    """Half width. Contrast is varied little: brightness within an image separates nuclei from their halos."""
    return TrainingConfig(
        network=NetworkConfig(channels=1, widths=(16, 32, 64, 128)),
        loss=LossConfig(far=options.far, rim=4),
        augment=AugmentConfig(gain=(options.gain, 1.25), noise=0.03, offset=0.03),
        steps=options.steps,
        minutes=options.minutes,
        rate=options.rate,
        batch=8,
        patch=224,
        warmup=0.05,
        average=0.995,
        precision="bfloat16",  # as the shipped model was made
        threads=options.threads,
        threshold=-2.0,
        min_size=20,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=50.0)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--init", type=Path, help="start from this model folder")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak of the learning rate")
    parser.add_argument("--gain", type=float, default=0.8, help="darkest factor of contrast")
    parser.add_argument("--far", type=float, default=1.0, help="weight of background far from objects")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    images = load_split(options.data, "train")
    options.run.mkdir(parents=True, exist_ok=True)
    log = (options.run / "train.log").open("a" if options.resume else "w")

    def on_step(step: Step) -> None:
        if step.step % 10 == 0:
            line = f"step {step.step} loss {step.loss:.4f} rate {step.rate:.2e} {step.elapsed_s:.0f} s"
            print(line, file=log, flush=True)

    init = load_model(options.init) if options.init else None
    model = train(images, recipe(options), run_folder=options.run, init=init, on_step=on_step, resume=options.resume)
    provenance = {
        **model.provenance,
        "data": "dsb2018_fluo, training split (Kaggle Data Science Bowl 2018, BBBC038, CC0)",
        "command": f"python benchmarks/train_nuclei_fluo.py --minutes {options.minutes:g} --rate {options.rate:g} "
        f"--gain {options.gain:g} --far {options.far:g} --threads {options.threads}"
        + (" --init FIRST" if init else ""),
        "init": dict(init.provenance) if init else None,
        "machine": f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}",
    }
    save_model(options.out, model.network, model.config, provenance, dtype=torch.float16)
    log.close()
    shutil.copyfile(options.run / "train.log", options.out / "train.log")


if __name__ == "__main__":
    main()
