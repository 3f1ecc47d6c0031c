"""A synthesis that nobody trained: random weights, objects of 10 px. Quick, and as deterministic as a good one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sketchscale.synthesis.layouts import LayoutPrior
from sketchscale.synthesis.model import Synthesis, SynthesisConfig, mask_network, save_synthesis
from sketchscale.synthesis.networks import Generator, GeneratorConfig
from sketchscale.synthesis.points import fit_points


def tiny_synthesis(channels: int = 3, seed: int = 0, local_noise: int = 0) -> Synthesis:
    shape = GeneratorConfig(channels=channels, width=2, hidden=4, local_noise=local_noise)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = Generator(shape).eval().requires_grad_(False)
    masker = mask_network(channels, (4, 8), seed).eval().requires_grad_(False)
    grid = np.stack(np.mgrid[4:90:15, 5:110:16], -1).reshape(-1, 2).astype(float)
    return Synthesis(
        config=SynthesisConfig(generator=shape, mask_widths=(4, 8), prior=LayoutPrior(diameter=10), crop=64),
        generator=generator,
        masker=masker,
        points=fit_points([grid], [(90, 110)]),
        provenance={"made": "for tests"},
    )


def stored_synthesis(folder: Path, channels: int = 3, seed: int = 0) -> str:
    save_synthesis(str(folder), tiny_synthesis(channels, seed))
    return str(folder)
