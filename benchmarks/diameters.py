"""Which diameter should objects have on the network's scale, and what does a scale of its own bring an image?

    python benchmarks/diameters.py --data DATA [--kinds ...] [--diameters 0 12 16 20 26] [--steps 400] [--seeds 0 1]

For each kind a network of the quick recipe (width 8, 4 patches of 128 px) learns from full masks of up to 8 training
images brought to a diameter (0: left as they are), and segments test images, each at the scale of its own true median
object; labels and scores are at full resolution. Printed: AP at IoU 0.5 and 0.75, mean over images and seeds with the
spread over seeds, and the pixels that the network computes for a pixel of the image.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from train_nuclei_fluo import load_split

from sketchscale.evaluation import score_labels
from sketchscale.inference.backend import Recipe, TorchBackend
from sketchscale.inference.plan import predict_array
from sketchscale.inference.views import views_of
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.plan import integrate
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import Model
from sketchscale.training.loop import TrainingConfig, train
from sketchscale.training.patches import TrainingImage
from sketchscale.training.scale import outlined_diameter, rounded_scale, scaled_image

KINDS = ["dsb2018_fluo", "dsb2018_he", "dsb2018_brightfield", "usiigaci_phase"]


def scale_to(image: TrainingImage, diameter: float) -> float:
    """Network px per image px; 1 for diameter 0."""
    own = outlined_diameter([image])
    return 1.0 if not diameter or own is None else rounded_scale(diameter / own)


def learned(images: list[TrainingImage], diameter: float, steps: int, seed: int) -> Model:
    """A model of the quick recipe from full masks of images at a diameter."""
    scaled = [scaled_image(image, scale_to(image, diameter)) for image in images]
    network = NetworkConfig(channels=images[0].channels, widths=(8, 16, 32, 64))
    config = TrainingConfig(network=network, batch=4, patch=128, steps=steps, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        return train(scaled, config, run_folder=folder)


def precisions(model: Model, image: TrainingImage, scale: float) -> tuple[float, float]:
    """AP at IoU 0.5 and 0.75 of an image that is predicted at a scale, at full resolution."""
    c = model.config
    backend = TorchBackend(model=model, recipe=Recipe(threads=torch.get_num_threads()))
    views = views_of(image.labels.shape, model, zoom=scale, short=True)
    fields = predict_array(image.image, backend, views, ((0.0, 1.0),) * image.channels)
    rule = IntegrationConfig(threshold=c.threshold / scale, min_size=round(c.min_size / scale**2))
    rule = replace(rule, link_radius=c.link_radius, prominence=c.prominence)
    scores = score_labels(image.labels.astype(np.uint32), integrate(fields, rule))
    return scores.at(0.5).ap, scores.at(0.75).ap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--diameters", type=float, nargs="+", default=[0, 12, 16, 20, 26])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--test", type=int, default=8, help="most test images of a kind")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, float32, {options.steps} steps\n")
    print("| kind | diameter | AP 0.5 | AP 0.75 | network px per image px |\n|---|---|---|---|---|")
    for kind in options.kinds:
        rng = np.random.default_rng(0)
        pool, test = (load_split(options.data / kind, split) for split in ("train", "test"))
        images = [pool[i] for i in rng.permutation(len(pool))[:8]]
        shown = [test[i] for i in rng.permutation(len(test))[: options.test]]
        for diameter in options.diameters:
            scales = [scale_to(image, diameter) for image in shown]
            means = []
            for seed in options.seeds:
                model = learned(images, diameter, options.steps, seed)
                means.append(np.mean([precisions(model, i, s) for i, s in zip(shown, scales, strict=True)], axis=0))
            half, high = np.mean(means, axis=0)
            spread = np.std(means, axis=0)
            cost = float(np.mean(np.square(scales)))
            size = f"{diameter:g}" if diameter else "own"
            print(
                f"| {kind} | {size} | {half:.3f} ± {spread[0]:.3f} | {high:.3f} ± {spread[1]:.3f} | {cost:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
