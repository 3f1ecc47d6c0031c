"""What does a training step cost beyond a bare forward, backward and optimiser step of the same network?

    taskset -c 0,1 python benchmarks/training_step.py        batches drawn ahead on the other core
    taskset -c 0   python benchmarks/training_step.py        one core does it all

A training step is all that happens from one report of the loop to the next: augmentation and targets, copying, forward,
loss, backward, clip, optimiser, averaging, log, looks for a stop file. The bare step is forward, loss, backward and
optimiser (the same fused AdamW) of a twin network on batches that were drawn beforehand from the same images. Both run
in turn, in one process, on one thread of torch; the ratio is the median over the pairs. Strokes are simulated on the
packaged images. `cpu_ratio` is the same of processor time, drawing in the background included: on one core it is what
the ratio would be on an idle machine. `draw_s` is what drawing one batch takes by itself, on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from importlib.resources import files

import numpy as np
import torch
from skimage.io import imread

from sketchscale.annotations.simulate import simulate_strokes
from sketchscale.losses import find_loss, loss_config
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.training.augment import AugmentConfig
from sketchscale.training.config import Step, TrainingConfig
from sketchscale.training.loop import train
from sketchscale.training.patches import TrainingImage
from sketchscale.training.prefetch import Batch, draw_batch
from sketchscale.training.validation import source_for

WARM = 3


def load_images(count: int) -> list[TrainingImage]:
    """Packaged fluorescence images with simulated strokes."""
    folder = files("sketchscale") / "samples" / "fluorescence"
    images = []
    for n in range(1, count + 1):
        pixels = imread(str(folder / "images" / f"fluorescence-{n}.png")).astype(np.float32)
        low, high = np.percentile(pixels, (1.0, 99.8))
        labels = imread(str(folder / "masks" / f"fluorescence-{n}.png")).astype(np.int32)
        raster = simulate_strokes(labels, n_objects=20, seed=n).rasterize()
        scaled = ((pixels - low) / (high - low)).astype(np.float32)[None]
        images.append(TrainingImage(image=scaled, labels=raster.labels, boundary=raster.boundary))
    return images


class BareStep:
    """Forward, loss, backward, optimiser, and nothing else."""

    def __init__(self, config: TrainingConfig, batches: list[Batch]) -> None:
        network = create_network(config.network, seed=config.seed).train()
        self.network = network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
        self.loss, self.config = find_loss(config.loss.name), config.loss
        self.batches, self.next = batches, 0

    def __call__(self) -> tuple[float, float]:
        image, targets = self.batches[self.next % len(self.batches)]
        self.next += 1
        began, spent = time.perf_counter(), time.process_time()
        prediction = self.network(image)
        loss = self.loss(prediction, targets, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return time.perf_counter() - began, time.process_time() - spent


def measure(config: TrainingConfig, images: list[TrainingImage]) -> dict[str, float]:
    """Medians over the pairs after the first few."""
    source = source_for(images, config, config.augment)
    draw_batch(source, 1, 0, range(1))
    began = time.perf_counter()
    batches = [draw_batch(source, 1, n, range(config.batch)) for n in range(4)]
    draw_s = (time.perf_counter() - began) / len(batches)
    for image, _ in batches:
        image.data = image.to(memory_format=torch.channels_last)
    bare, full, twin = [], [], BareStep(config, batches)
    returned = time.perf_counter(), time.process_time()

    def on_step(step: Step) -> None:
        nonlocal returned
        full.append((time.perf_counter() - returned[0], time.process_time() - returned[1]))
        bare.append(twin())
        returned = time.perf_counter(), time.process_time()

    with tempfile.TemporaryDirectory() as folder:
        train(images, config, run_folder=folder, on_step=on_step)
    whole, alone = np.array(full[WARM:]), np.array(bare[WARM:])
    low, middle, high = np.percentile(whole[:, 0] / alone[:, 0], (25, 50, 75))
    cpu = np.median(whole[:, 1] / alone[:, 1])
    return {
        "pairs": len(whole),
        "ratio": round(float(middle), 3),
        "quartiles": [round(float(low), 3), round(float(high), 3)],
        "cpu_ratio": round(float(cpu), 3),
        "step_s": round(float(np.median(whole[:, 0])), 3),
        "bare_s": round(float(np.median(alone[:, 0])), 3),
        "draw_s": round(draw_s, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--patch", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16], help="of the first level")
    parser.add_argument("--loss", default="sketchpose")
    parser.add_argument("--tiny", action="store_true", help="seconds, for the tests")
    options = parser.parse_args()
    if options.tiny:
        options.pairs, options.patch, options.batch, options.widths = 3, 32, 2, [4]
    torch.set_num_threads(1)
    images = load_images(1 if options.tiny else 5)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{platform.machine()}, {cores} usable cores, torch {torch.__version__} on 1 thread, loss {options.loss}")
    for width in options.widths:
        outputs = find_loss(options.loss).outputs
        config = TrainingConfig(
            network=NetworkConfig(widths=tuple(width * 2**level for level in range(4)), outputs=outputs),
            loss=loss_config(options.loss),
            augment=AugmentConfig(),
            steps=options.pairs + WARM,
            batch=options.batch,
            patch=options.patch,
            precision="float32",
            threads=1,
            threshold=-2.0,
        )
        print(json.dumps({"width": width, **measure(config, images)}))


if __name__ == "__main__":
    main()
