r"""Which terms of a loss move the network, and does it help to balance them?

    python benchmarks/loss_terms.py norms --data DATA --weights euler=1 euler=0.02
    python benchmarks/loss_terms.py train --data DATA --weights euler=1 euler=0.02 --out CELLS --runs RUNS
    python benchmarks/loss_terms.py table CELLS...

`norms` trains a small network from random weights and prints, along the way, the norm of the gradient of each term with
its weight, and that of their sum beside the norm to which a step clips it. The gradient of a term is that of the loss
with the weights of all others at 0.

`train` trains one network for each set of weights, share of annotated pixels and seed, and tries it on some of the test
images. Networks are those of accuracy.py; by default, batches are those of five minutes of `train`: 4 patches of 128
px. Every finished cell is a line of JSON in CELLS, and is not run again. `table` prints means over the test images, and
over seeds with their standard deviation.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import add, average_precision, finished, load_images, mean_and_spread, partial, recipe

from sketchscale.losses import LossConfig, find_loss
from sketchscale.networks import create_network
from sketchscale.training.config import rate_at
from sketchscale.training.distributed import World
from sketchscale.training.learner import Learner
from sketchscale.training.loop import TrainingConfig, train
from sketchscale.training.prefetch import Batch
from sketchscale.training.synthetic import SceneWindow, drawing_of
from sketchscale.workflow.train.calibrate import calibrate


def configured(options: argparse.Namespace, weights: str, channels: int, seed: int) -> TrainingConfig:
    """Settings with other weights of the loss or another clip, such as "euler=0.1,clip=50"; "default" for its own."""
    config = replace(recipe(options, options.loss, channels, seed), batch=options.batch, patch=options.patch)
    if weights == "default":
        return config
    given = {name: float(value) for name, value in (pair.split("=") for pair in weights.split(","))}
    return replace(config, clip=given.pop("clip", config.clip), loss=replace(config.loss, **given))


def gradient_norm(network: torch.nn.Module, batch: Batch, loss: LossConfig) -> float:
    """Norm of the gradient of a loss; the network is not changed."""
    image, targets = batch
    probe = copy.deepcopy(network)
    probe.zero_grad(set_to_none=True)
    find_loss(loss.name)(probe(image), targets, loss).backward()
    return float(
        torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in probe.parameters() if p.grad is not None]))
    )


def term_norms(network: torch.nn.Module, batch: Batch, loss: LossConfig) -> dict[str, float]:
    """Norm of the gradient of each term that has a weight, and of their sum."""
    used = [name for name in loss.weights if getattr(loss, name)]
    alone = {name: replace(loss, **{other: 0.0 for other in used if other != name}) for name in used}
    return {name: gradient_norm(network, batch, only) for name, only in alone.items()} | {
        "sum": gradient_norm(network, batch, loss)
    }


def run_norms(options: argparse.Namespace) -> None:
    """Print one table for each set of weights: medians of a quarter of the steps, and how often a step was clipped."""
    images = partial(load_images(options.data / options.set, "train"), options.percent[0], options.seed[0])
    for weights in options.weights:
        config = configured(options, weights, images[0].channels, options.seed[0])
        found = list(probes(images, config, options.every))
        print(f"\n{config.loss.name}, {weights}, {config.steps} steps, {options.percent[0]:g} % annotated\n")
        names = list(found[0])
        print(f"| steps | {' | '.join(names)} | clipped at {config.clip:g} |\n|{'---|' * (len(names) + 2)}")
        for part in np.array_split(np.arange(len(found)), min(4, len(found))):
            rows = [found[i] for i in part]
            medians = " | ".join(f"{np.median([row[name] for row in rows]):.2f}" for name in names)
            clipped = sum(row["sum"] > config.clip for row in rows)
            steps = f"{part[0] * options.every + 1} to {part[-1] * options.every + 1}"
            print(f"| {steps} | {medians} | {clipped} of {len(rows)} |", flush=True)


def probes(images: Sequence[Any], config: TrainingConfig, every: int) -> Iterator[dict[str, float]]:
    """Train, and yield the norms before the steps 1, 1 + every, ..."""
    learner = Learner(create_network(config.network, seed=config.seed), config, torch.device("cpu"), World())
    drawn = drawing_of(images, SceneWindow(config), config)
    for step in range(config.steps):
        batch = drawn(step, range(config.batch))
        if step % every == 0:
            yield term_norms(learner.network, batch, config.loss)
        learner.learn(batch, rate_at(step / config.steps, config))


def run_train(options: argparse.Namespace) -> None:
    """Train and try every cell that CELLS lacks."""
    images, test = (load_images(options.data / options.set, split) for split in ("train", "test"))
    test = [test[i] for i in np.linspace(0, len(test) - 1, min(options.test, len(test))).astype(int)]
    if options.tiny:
        images, test = images[:4], test[:2]
    for seed in options.seed:
        for percent in options.percent:
            annotated = partial(images, percent, seed)
            for weights in options.weights:
                config = configured(options, weights, images[0].channels, seed)
                key = {"set": options.set, "loss": options.loss, "weights": weights, "percent": percent, "seed": seed}
                key |= {"steps": config.steps}
                if any(key.items() <= cell.items() for cell in finished(options.out)):
                    continue
                run = options.runs / "-".join(str(value) for value in key.values())
                model = calibrate(train(annotated, config, run_folder=run, resume=True), annotated)
                add(options.out, key | average_precision(model, test) | {"seconds": model.provenance["seconds"]})


def table(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A row for each set, loss, share of annotated pixels and set of weights."""
    yield "| set | loss | annotated | weights | seeds | steps | AP 0.5 | AP 0.75 | pooled AP 0.5 |"
    yield "|" + "---|" * 9
    keys = ("set", "loss", "percent", "weights", "steps")
    for row in dict.fromkeys(tuple(cell[key] for key in keys) for cell in cells):
        mine = [cell for cell in cells if tuple(cell[key] for key in keys) == row]
        columns = [mean_and_spread([cell[key] for cell in mine]) for key in ("ap50", "ap75", "pooled50")]
        name, loss, percent, weights, steps = row
        yield f"| {name} | {loss} | {percent:g} % | {weights} | {len(mine)} | {steps} | {' | '.join(columns)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("norms", "train"):
        command = commands.add_parser(name)
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--set", default="dsb2018_fluo")
        command.add_argument("--loss", default="sketchpose-1")
        command.add_argument("--weights", nargs="+", default=["default"])
        command.add_argument("--percent", type=float, nargs="+", default=[10])
        command.add_argument("--seed", type=int, nargs="+", default=[0])
        command.add_argument("--steps", type=int, default=250)
        command.add_argument("--batch", type=int, default=4)
        command.add_argument("--patch", type=int, default=128)
        command.add_argument("--threads", type=int, default=1)
        command.set_defaults(full=False)
    commands.choices["norms"].add_argument("--every", type=int, default=10, help="steps between two measurements")
    cells = commands.choices["train"]
    cells.add_argument("--out", type=Path, required=True, help="file of finished cells, appended to")
    cells.add_argument("--runs", type=Path, required=True, help="folder of training states; resumed from there")
    cells.add_argument("--test", type=int, default=30, help="test images, evenly spaced in the order of their names")
    cells.add_argument("--tiny", action="store_true", help="a few images, to see that it runs")
    commands.add_parser("table").add_argument("cells", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "table":
        print("\n".join(table([cell for path in options.cells for cell in finished(path)])))
        return
    torch.set_num_threads(options.threads)
    run_norms(options) if options.command == "norms" else run_train(options)


if __name__ == "__main__":
    main()
