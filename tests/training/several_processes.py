"""Run as one of several processes: `python -m tests.training.several_processes FOLDER`, with torchrun's environment.

Leaves `weights_RANK.pt` of a short training, `exact_RANK.pt` of a few steps in float64, and `drawn_RANK.pt`, the
patches that the process learned from there.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import torch

from sketchscale.losses import BatchTargets
from sketchscale.networks import create_network
from sketchscale.training.config import TrainingConfig
from sketchscale.training.distributed import World, join_world
from sketchscale.training.learner import Learner
from sketchscale.training.loop import train
from sketchscale.training.prefetch import Batch, draw_batch
from sketchscale.training.validation import source_for
from tests.training.examples import TINY, example

ROOT = Path(__file__).resolve().parents[2]
SHARED = replace(TINY, batch=5, steps=4, validate_every=2, patience=9)
STEPS = 8


def learn_in_float64(config: TrainingConfig, world: World) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Weights after some steps, and the patches of each."""
    network = create_network(config.network, seed=config.seed).double()
    learner, drawn = Learner(network, config, torch.device("cpu"), world), []
    source = source_for([example()], config, config.augment)
    for step in range(STEPS):
        batch = draw_batch(source, config.seed, step, world.share(config.batch))
        drawn.append(batch[0])
        learner.learn(_doubled(batch), rate=1e-2)
    return {k: v.clone() for k, v in learner.network.state_dict().items()}, drawn


def _doubled(batch: Batch) -> Batch:
    image, targets = batch
    values = {f.name: getattr(targets, f.name) for f in fields(BatchTargets)}
    return image.double(), BatchTargets(**{k: v.double() if v.is_floating_point() else v for k, v in values.items()})


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with join_world(torch.device("cpu")) as world:
        model = train([example()], SHARED, run_folder=folder / "run", validation=[example(5)])
        exact, drawn = learn_in_float64(SHARED, world)
        found = {"weights": model.network.state_dict(), "exact": exact, "drawn": drawn}
        for name, value in found.items():
            torch.save(value, folder / f"{name}_{world.rank}.pt")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_several(folder: Path, size: int, module: str = "tests.training.several_processes") -> None:
    """So many processes that run the `main` of a module."""
    meeting = {"WORLD_SIZE": f"{size}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{free_port()}"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(folder)],
            env={**os.environ, **meeting, "OMP_NUM_THREADS": "1", "RANK": str(r), "LOCAL_RANK": str(r)},
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        for r in range(size)
    ]
    for process in running:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors.decode()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
