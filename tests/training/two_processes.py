"""Run as one of two processes: `python -m tests.training.two_processes FOLDER`, with torchrun's environment.

Leaves `weights_RANK.pt` of a short training, and `gradient_RANK.pt` of one step with batch norm in evaluation mode.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from sketchscale.networks import create_network
from sketchscale.training.config import TrainingConfig
from sketchscale.training.distributed import World, join_world
from sketchscale.training.learner import Learner
from sketchscale.training.loop import train
from sketchscale.training.prefetch import draw_batch
from sketchscale.training.validation import source_for
from tests.training.examples import TINY, example

SHARED = replace(TINY, batch=4, steps=4, validate_every=2, patience=9)


def gradient(config: TrainingConfig, world: World) -> dict[str, torch.Tensor]:
    """Of the first step, clipped, with the running statistics instead of those of the batch."""
    learner = Learner(create_network(config.network, seed=config.seed), config, torch.device("cpu"), world)
    learner.network.eval()
    source = source_for([example()], config, config.augment)
    learner.learn(draw_batch(source, config.seed, 0, world.share(config.batch)), rate=1e-3)
    return {k: p.grad.clone() for k, p in learner.network.named_parameters() if p.grad is not None}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with join_world(torch.device("cpu")) as world:
        model = train([example()], SHARED, run_folder=folder / "run", validation=[example(5)])
        torch.save(model.network.state_dict(), folder / f"weights_{world.rank}.pt")
        torch.save(gradient(SHARED, world), folder / f"gradient_{world.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
