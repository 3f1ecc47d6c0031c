"""Run as one of several processes: `python -m tests.synthesis.several_processes FOLDER`, with torchrun's environment.

Leaves `weights_RANK.pt`: both networks of a synthesis after a few steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from sketchscale.synthesis.training import train_synthesis
from sketchscale.training.distributed import join_world
from tests.synthesis.test_scenes import pointed
from tests.synthesis.test_training import QUICK


def main(folder: Path) -> None:
    with join_world(torch.device("cpu")) as world:
        made = train_synthesis([pointed(shape=(80, 90))], QUICK, run_folder=str(folder / "run"))
        weights = {"g": made.generator.state_dict(), "f": made.masker.state_dict()}
        torch.save(weights, folder / f"weights_{world.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
