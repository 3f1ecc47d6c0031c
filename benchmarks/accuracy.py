r"""What do partial annotation and each loss cost? The tables of README.

    python benchmarks/accuracy.py train --data DATA --set dsb2018_fluo --loss sketchpose --percent 100 10 1 \
        --out CELLS --runs RUNS
    python benchmarks/accuracy.py table CELLS...

`train` keeps p % of the pixels of every training image (a thresholded Gaussian process of sigma 10 px, as the papers
do; the masks of a seed are nested), trains one network from random weights for each (loss, percent, seed) with equal
steps, and segments every test image with the threshold, the joining and the smallest size that `calibrate` set on the
annotated pixels. Every finished cell is a line of JSON in CELLS, and is not run again. `--full` is the papers' size,
for a GPU. The phase-contrast images are halved (truth too): their cells are larger than a patch.

`table` prints what CELLS hold: mean over the test images, and over seeds with their standard deviation.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.io import imread
from skimage.transform import downscale_local_mean

from sketchscale.annotations.simulate_mask import simulate_mask
from sketchscale.config import SegmentOptions
from sketchscale.evaluation import score_labels
from sketchscale.integration.plan import integrate
from sketchscale.losses import find_loss, loss_config
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import Model
from sketchscale.training.augment import AugmentConfig
from sketchscale.training.loop import TrainingConfig, predict_image, train
from sketchscale.training.patches import TrainingImage
from sketchscale.workflow.segment.job import integration_config
from sketchscale.workflow.train.calibrate import calibrate

HALVED = ("usiigaci_phase",)


def load_images(folder: Path, split: str) -> list[TrainingImage]:
    """Images of a split, each channel scaled by its 1 and 99.8 percentiles, with all their labels."""
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == split]
    images = []
    for row in sorted(rows, key=lambda row: row["file"]):
        pixels = imread(folder / row["file"]).astype(np.float32)
        channels = np.moveaxis(pixels[..., :3], -1, 0) if pixels.ndim == 3 else pixels[None]
        labels = imread(folder / row["mask"]).astype(np.int32)
        if folder.name in HALVED:
            channels, labels = downscale_local_mean(channels, (1, 2, 2)).astype(np.float32), labels[::2, ::2].copy()
        low, high = np.percentile(channels, (1.0, 99.8), axis=(1, 2), keepdims=True)
        scaled = ((channels - low) / np.maximum(high - low, 1e-6)).astype(np.float32)
        images.append(TrainingImage(image=scaled, labels=labels, name=Path(row["file"]).stem))
    return images


def partial(images: Sequence[TrainingImage], percent: float, seed: int) -> list[TrainingImage]:
    """The same images with p % of their pixels annotated."""
    if percent == 100:
        return list(images)
    kept = []
    for i, image in enumerate(images):
        labels = simulate_mask(image.labels, percent, seed=1000 * seed + i).rasterize().labels
        if (labels >= 0).any():
            kept.append(replace(image, labels=labels))
    return kept


def recipe(options: argparse.Namespace, loss: str, channels: int, seed: int) -> TrainingConfig:
    """CPU size: quarter width, batch 8 of 160 px. Full size: the papers' width, batch 16 of 224 px, on a GPU."""
    full = options.full
    widths = (32, 64, 128, 256) if full else (8, 16, 32, 64)
    return TrainingConfig(
        network=NetworkConfig(channels=channels, widths=widths, outputs=find_loss(loss).outputs),
        loss=loss_config(loss),
        augment=AugmentConfig(gain=(0.8, 1.25), noise=0.03, offset=0.03),
        steps=options.steps or (20_000 if full else 600),
        batch=16 if full else 8,
        patch=224 if full else 160,
        device="cuda" if full else "cpu",
        average=0.995 if full else 0.98,
        precision="bfloat16" if full else "float32",
        threads=None if full else options.threads,
        seed=seed,
    )


def average_precision(model: Model, images: Sequence[TrainingImage]) -> dict[str, float]:
    """AP at 0.5 and 0.75 by image, and pooled at 0.5."""
    rule = integration_config(model, SegmentOptions())
    matchings = [
        score_labels(
            image.labels.astype(np.uint32), integrate(predict_image(model, image.image), rule), (0.5, 0.75)
        ).matchings
        for image in images
    ]
    half, high = zip(*matchings, strict=True)
    tp, fp, fn = (sum(getattr(m, name) for m in half) for name in ("tp", "fp", "fn"))
    return {
        "ap50": float(np.mean([m.ap for m in half])),
        "ap75": float(np.mean([m.ap for m in high])),
        "pooled50": tp / max(1, tp + fp + fn),
    }


def finished(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add(path: Path, cell: dict[str, Any]) -> None:
    with path.open("a") as stream:
        stream.write(json.dumps({**cell, "machine": platform.machine(), "torch": str(torch.__version__)}) + "\n")
    print(json.dumps(cell), flush=True)


def run_cells(options: argparse.Namespace) -> None:
    """Train and try every cell that CELLS lacks."""
    folder = options.data / options.set
    images, test = load_images(folder, "train"), load_images(folder, "test")
    if options.tiny:
        images, test = images[:4], test[:2]
    for seed in options.seed:
        for percent in options.percent:
            for loss in options.loss:
                key = {
                    "set": options.set,
                    "loss": loss,
                    "percent": percent,
                    "seed": seed,
                    "full": options.full,
                    "steps": recipe(options, loss, 1, seed).steps,
                }
                if not any(key.items() <= cell.items() for cell in finished(options.out)):
                    add(options.out, key | run_cell(options, loss, percent, seed, images, test))


def run_cell(
    options: argparse.Namespace,
    loss: str,
    percent: float,
    seed: int,
    images: Sequence[TrainingImage],
    test: Sequence[TrainingImage],
) -> dict[str, Any]:
    config = recipe(options, loss, images[0].image.shape[0], seed)
    run = options.runs / f"{options.set}-{loss}-{percent:g}-{seed}-{config.steps}"
    annotated = partial(images, percent, seed)
    model = calibrate(train(annotated, config, run_folder=run, resume=True), annotated)
    return {
        **average_precision(model, test),
        "threshold": model.config.threshold,
        "min_size": model.config.min_size,
        "seconds": model.provenance["seconds"],
    }


def mean_and_spread(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def table(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One table per set: a row per loss and percent, and what is lost against 100 %."""
    trained = [cell for cell in cells if "set" in cell]
    for name in sorted({cell["set"] for cell in trained}):
        rows = [cell for cell in trained if cell["set"] == name]
        yield f"{name}: random weights, steps {sorted({r['steps'] for r in rows})}\n"
        yield "| loss | annotated | seeds | AP 0.5 | AP 0.75 | pooled AP 0.5 | AP 0.5 lost | s |"
        yield "|---|---|---|---|---|---|---|---|"
        for loss in sorted({row["loss"] for row in rows}):
            yield from loss_rows([row for row in rows if row["loss"] == loss], loss)
        yield ""


def loss_rows(rows: Sequence[dict[str, Any]], loss: str) -> Iterator[str]:
    whole = {row["seed"]: row["ap50"] for row in rows if row["percent"] == 100}
    for percent in sorted({row["percent"] for row in rows}, reverse=True):
        found = [row for row in rows if row["percent"] == percent]
        lost = [whole[row["seed"]] - row["ap50"] for row in found if row["seed"] in whole and percent < 100]
        columns = [mean_and_spread([row[key] for row in found]) for key in ("ap50", "ap75", "pooled50")]
        seconds = np.mean([row["seconds"] for row in found])
        yield (
            f"| {loss} | {percent:g} % | {len(found)} | {' | '.join(columns)} | "
            f"{mean_and_spread(lost) if lost else ''} | {seconds:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cells = commands.add_parser("train")
    cells.add_argument("--data", type=Path, required=True)
    cells.add_argument("--out", type=Path, required=True, help="file of finished cells, appended to")
    cells.add_argument("--runs", type=Path, required=True, help="folder of training states; resumed from there")
    cells.add_argument("--set", default="dsb2018_fluo")
    cells.add_argument("--loss", nargs="+", default=["sketchpose"])
    cells.add_argument("--percent", type=float, nargs="+", default=[100, 25, 10, 5, 1])
    cells.add_argument("--seed", type=int, nargs="+", default=[0])
    cells.add_argument("--steps", type=int)
    cells.add_argument("--threads", type=int, default=2)
    cells.add_argument("--tiny", action="store_true", help="a few images, to see that it runs")
    cells.add_argument("--full", action="store_true", help="the papers' size, on a GPU")
    commands.add_parser("table").add_argument("cells", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "table":
        print("\n".join(table([cell for path in options.cells for cell in finished(path)])))
    else:
        torch.set_num_threads(options.threads)
        run_cells(options)


if __name__ == "__main__":
    main()
