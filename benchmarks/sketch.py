"""How good is a model after strokes on about 20 objects of one image and five minutes of training on a CPU?

    python benchmarks/sketch.py --data DATA/dsb2018_fluo

For each of some training images with enough objects (drawn by a seed), strokes are simulated as a person draws them:
closed outlines, paint inside, a patch of background near each object, thick strokes elsewhere. From random weights a
network is trained on that image alone, by the package's default recipe, for a few minutes. It is then tried on the
20 test images nearest in kind, none of which it has seen. Kind: the logarithm of the median object area, and the
median intensity after scaling (how dark the ground is), each in units of its spread over the test images.

Prints a row per pick: AP at IoU 0.5 and 0.75 (mean over the images) with the threshold that training chose, and for
comparison at fixed thresholds, which cannot be chosen without the truth.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from train_nuclei_fluo import load_split

from sketchscale.annotations.simulate import simulate_strokes
from sketchscale.evaluation import score_labels
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.plan import integrate
from sketchscale.networks.checkpoint import Model
from sketchscale.training.loop import TrainingConfig, predict_image, train
from sketchscale.training.patches import TrainingImage

FIXED = (-3.0, -2.0, -1.0, 0.0)


def kinds(images: list[TrainingImage]) -> np.ndarray:
    """(n, 2): log median area, median intensity."""
    rows = []
    for image in images:
        areas = np.bincount(image.labels.ravel())[1:]
        rows.append((np.log(np.median(areas[areas > 0])), np.median(image.image)))
    return np.array(rows)


def nearest(pick: TrainingImage, test: list[TrainingImage], count: int) -> list[TrainingImage]:
    """The test images most like the pick."""
    known = kinds(test)
    away = np.abs((known - kinds([pick])) / known.std(axis=0)).sum(axis=1)
    return [test[i] for i in np.argsort(away, kind="stable")[:count]]


def sketched(image: TrainingImage, objects: int, seed: int) -> TrainingImage:
    """The image with simulated strokes instead of its truth."""
    raster = simulate_strokes(image.labels, n_objects=objects, seed=seed).rasterize()
    return replace(image, labels=raster.labels, boundary=raster.boundary)


def average_precision(
    model: Model, images: list[TrainingImage], thresholds: tuple[float, ...]
) -> dict[float, tuple[float, float, int, int, int]]:
    """Per foreground threshold: AP at 0.5 and 0.75 by image; true and false positives and misses, pooled."""
    found: dict[float, list[tuple[float, float, int, int, int]]] = {t: [] for t in thresholds}
    for image in images:
        fields = predict_image(model, image.image)
        for threshold in thresholds:
            config = IntegrationConfig(threshold=threshold, min_size=model.config.min_size)
            scores = score_labels(image.labels.astype(np.uint32), integrate(fields, config), (0.5, 0.75))
            half, high = scores.matchings
            found[threshold].append((half.ap, high.ap, half.tp, half.fp, half.fn))
    out = {}
    for threshold, rows in found.items():
        columns = np.array(rows)
        out[threshold] = (*columns[:, :2].mean(axis=0), *columns[:, 2:].sum(axis=0).astype(int))
    return out


def picks(train_images: list[TrainingImage], count: int, objects: int, seed: int) -> list[TrainingImage]:
    """Training images with at least so many objects, drawn without replacement."""
    enough = [image for image in train_images if np.unique(image.labels).size - 1 >= objects]
    return [enough[i] for i in np.random.default_rng(seed).permutation(len(enough))[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--picks", type=int, default=5)
    parser.add_argument("--only", type=int, nargs="*", help="positions among the picks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=100_000, help="an earlier end, for machines that are shared")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--similar", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    test = load_split(options.data, "test")
    chosen = picks(load_split(options.data, "train"), options.picks, options.objects, options.seed)
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}, seed {options.seed}")
    print(
        "pick  image     size     drawn%  steps    s  thr  AP.5  AP.75   TP   FP   FN | AP.5 at "
        + " ".join(map(str, FIXED))
    )
    results = []
    for position, image in enumerate(chosen):
        if options.only is not None and position not in options.only:
            continue
        started = time.monotonic()
        strokes = sketched(image, options.objects, options.seed + position)
        config = TrainingConfig(
            steps=options.steps,
            minutes=options.minutes,
            precision="float32",
            threads=options.threads,
            seed=options.seed + position,
        )
        with tempfile.TemporaryDirectory() as folder:
            model = train([strokes], config, run_folder=folder)
        elapsed = time.monotonic() - started
        threshold = model.config.threshold
        scores = average_precision(model, nearest(image, test, options.similar), (threshold, *FIXED))
        results.append(scores[threshold][:2])
        annotated = ((strokes.labels >= 0) | (strokes.boundary if strokes.boundary is not None else False)).mean()
        half, high, tp, fp, fn = scores[threshold]
        print(
            f"{position:4d}  {image.name[:8]}  {'x'.join(map(str, image.labels.shape)):8s} {100 * annotated:5.1f} "
            f"{model.provenance['steps']:6d} {elapsed:4.0f} {threshold:5.2f} {half:5.3f} {high:5.3f} "
            f"{tp:5d} {fp:4d} {fn:4d} | " + " ".join(f"{scores[t][0]:.3f}" for t in FIXED),
            flush=True,
        )
    mean, spread = np.mean(results, axis=0), np.std(results, axis=0)
    print(f"mean of {len(results)}: AP.5 {mean[0]:.3f} +- {spread[0]:.3f}, AP.75 {mean[1]:.3f} +- {spread[1]:.3f}")


if __name__ == "__main__":
    main()
