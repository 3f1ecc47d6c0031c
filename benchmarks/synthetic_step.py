"""What do synthetic scenes, made while it trains, add to a training step on a CPU?

    python benchmarks/synthetic_step.py

A training on packaged images with simulated strokes, alone and with synthetic patches among them, in turn. Printed are
means over the steps after the first few: processor time (what a step costs on one core, scenes included), time on the
clock (scenes are made ahead on another core, where there is one), their ratios to the training without scenes, and the
time of one scene. The generator has random weights, which take as long as others, and the default size of
`synthesize train`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import replace

import numpy as np
import torch
from training_step import load_images

from sketchscale.networks import NetworkConfig
from sketchscale.synthesis.layouts import LayoutPrior
from sketchscale.synthesis.model import Synthesis, SynthesisConfig, mask_network
from sketchscale.synthesis.networks import Generator, GeneratorConfig
from sketchscale.synthesis.points import fit_points
from sketchscale.training.config import Step, SyntheticConfig, TrainingConfig
from sketchscale.training.loop import Hooks, train
from sketchscale.training.patches import TrainingImage
from sketchscale.training.synthetic import REUSE
from sketchscale.workflow.synthesize.scenes import MadeScenes, scene_side

WARM = 3


def random_synthesis(channels: int) -> Synthesis:
    """Of the default size; a point for every 22 x 22 px."""
    config = SynthesisConfig(generator=GeneratorConfig(channels=channels), prior=LayoutPrior(diameter=21))
    grid = np.stack(np.mgrid[5:500:22, 5:500:22], -1).reshape(-1, 2).astype(float)
    return Synthesis(
        config=config,
        generator=Generator(config.generator).eval().requires_grad_(False),
        masker=mask_network(channels, config.mask_widths),
        points=fit_points([grid], [(500, 500)]),
    )


def step_times(config: TrainingConfig, images: list[TrainingImage], scenes: MadeScenes) -> tuple[float, float]:
    """Seconds of the processor and on the clock, per step; validation, saving and the last model are left out."""
    marks: list[tuple[float, float]] = []

    def on_step(step: Step) -> None:
        marks.append((time.process_time(), time.perf_counter()))

    with tempfile.TemporaryDirectory() as folder:
        train(images, config, run_folder=folder, on_step=on_step, hooks=Hooks(scenes=scenes))
    (cpu_0, wall_0), (cpu_1, wall_1) = marks[WARM], marks[-1]
    return (cpu_1 - cpu_0) / (len(marks) - 1 - WARM), (wall_1 - wall_0) / (len(marks) - 1 - WARM)


def seconds_of_a_scene(scenes: MadeScenes, count: int) -> float:
    scenes.scene(0)
    began = time.process_time()
    for number in range(count):
        scenes.scene(number)
    return (time.process_time() - began) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2 * REUSE + WARM + 1)
    parser.add_argument("--patch", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--width", type=int, default=16, help="of the segmenter's first level")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="seconds, for the tests")
    options = parser.parse_args()
    if options.tiny:
        options.steps, options.patch, options.batch, options.width, options.rounds = 6, 32, 2, 4, 1
    torch.set_num_threads(1)
    images = load_images(1 if options.tiny else 5)
    config = TrainingConfig(
        network=NetworkConfig(widths=tuple(options.width * 2**level for level in range(4))),
        steps=options.steps,
        batch=options.batch,
        patch=options.patch,
        precision="float32",
        threads=1,
        threshold=-2.0,
        min_size=20,
    )
    scenes = MadeScenes(synthesis=random_synthesis(1), side=scene_side(config.patch, 128), seed=0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{platform.machine()}, {cores} usable cores, torch {torch.__version__} on 1 thread")
    print(
        f"a scene of {scenes.side} px: {seconds_of_a_scene(scenes, 2 if options.tiny else 10):.3f} s of processor time"
    )
    times: dict[float, list[tuple[float, float]]] = {0.0: [], 0.5: [], 1.0: []}
    for _ in range(options.rounds):
        for share, found in times.items():
            synthetic = SyntheticConfig(sha256=("random",), share=share) if share else None
            found.append(step_times(replace(config, synthetic=synthetic), images, scenes))
    alone = np.median(times[0.0], axis=0)
    for share, found in times.items():
        cpu, wall = np.median(found, axis=0)
        ratios = {"cpu_ratio": round(cpu / alone[0], 3), "ratio": round(wall / alone[1], 3)}
        print(json.dumps({"share": share, "cpu_s": round(cpu, 3), "step_s": round(wall, 3), **ratios}))


if __name__ == "__main__":
    main()
