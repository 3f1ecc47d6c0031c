"""One training step of every network, loss and classifier, to be run under an allocator that checks what is freed.

    LD_PRELOAD=libc_malloc_debug.so.0 MALLOC_CHECK_=3 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 \\
        python -m tests.heap_check [PART ...]

A kernel that writes beyond its buffer changes bytes that belong to something else. Without this allocator that kills
the process later, elsewhere, or not at all; with it the process ends with "free(): invalid pointer" at the next free.
Each part prints its name first, so that the last line names the guilty one. Limited to AVX2 because kernels differ
between processors, and most have no more. Widths are small and uneven: the kernels for few channels are the rare ones.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from sketchscale.losses import LOSSES, loss_config
from sketchscale.networks import NETWORKS, NetworkConfig, create_network
from sketchscale.objects.classifiers import (
    CLASSIFIERS,
    ForestOptions,
    NetworkOptions,
    TrainingOptions,
    find_classifier,
    train_classifier,
)
from sketchscale.synthesis.gan import Gan, GanConfig
from sketchscale.synthesis.layouts import LayoutPrior
from sketchscale.synthesis.networks import GeneratorConfig
from sketchscale.synthesis.scenes import Scenes
from sketchscale.training.config import TrainingConfig
from sketchscale.training.distributed import World
from sketchscale.training.learner import Learner
from sketchscale.training.prefetch import move_batch
from tests.losses.batches import batch, full_mask
from tests.objects.classifiers.drawn import FEATURES, discs, table_rows
from tests.synthesis.test_scenes import pointed

CPU = torch.device("cpu")
WIDTHS = (1, 3, 4, 16)
"""Filters of the first level: 16 and more are shipped, fewer are what small data and tests take."""


def parts() -> Iterator[tuple[str, Callable[[], None]]]:
    """Name and work of each check."""
    for name, style, dim, width in itertools.product(NETWORKS, (False, True), (2, 3), WIDTHS):
        shape = NetworkConfig(name=name, widths=(width, 2 * width), outputs=dim + 1, style=style, dim=dim)
        for padding in ("zeros", "reflect"):
            yield (
                f"{name} {width} {dim}-D style={style} {padding}",
                partial(step_network, replace(shape, padding=padding)),
            )
    for loss, width in itertools.product(LOSSES, WIDTHS):
        yield f"loss {loss} {width}", partial(step_loss, loss, width)
    for kind, width, stem in itertools.product(CLASSIFIERS, WIDTHS, ("large", "small")):
        if stem == "large" or kind == "resnet18":
            yield (
                f"classifier {kind} {width} {stem}",
                partial(step_classifier, kind, NetworkOptions(width=width, stem=stem)),
            )
    for width in WIDTHS:
        yield f"light 3-D {width}", partial(step_solid_classifier, width)
    for width, channels in itertools.product((1, 2, 4), (1, 3)):
        yield f"synthesis {width}, {channels} channels", partial(step_synthesis, width, channels)


def step_network(shape: NetworkConfig) -> None:
    """Forward and backward, contiguous and channels-last, as learner.py and gan.py call it."""
    network = create_network(shape).train()
    image = torch.rand(4, shape.channels, *(16,) * shape.dim)
    layouts = (torch.contiguous_format, torch.channels_last if shape.dim == 2 else torch.channels_last_3d)
    for layout in layouts:
        network.to(memory_format=layout)  # type: ignore[call-overload]
        network(image.contiguous(memory_format=layout)).square().mean().backward()


def step_loss(name: str, width: int) -> None:
    """A step of training with a loss; the loss sees unknown pixels unless it needs every pixel annotated."""
    shape = NetworkConfig(widths=(width, 2 * width), outputs=LOSSES[name].outputs)
    config = TrainingConfig(network=shape, loss=loss_config(name), precision="float32", patch=32)
    learner = Learner(create_network(shape), config, CPU, World())
    codes = [full_mask(seed, (32, 32)) for seed in range(2)]
    if not LOSSES[name].dense:
        for code in codes:
            code[:, 20:] = -1
    drawn = torch.rand(2, 1, 32, 32)
    learner.learn(move_batch((drawn, batch(*codes)), CPU), 1e-3)


def step_classifier(kind: str, network: NetworkOptions) -> None:
    """Patches of an odd and an even size."""
    options = TrainingOptions(steps=2, batch=8, held_out=0, network=network, forest=ForestOptions(trees=2, rounds=2))
    for side in (24, 25):
        patches, names = discs(12, 0, side)
        found = train_classifier(
            patches if find_classifier(kind).network is not None else None,
            table_rows(patches),
            names,
            kind=kind,
            channels=("grey",),
            ranges=((0.0, 1.0),),
            features=FEATURES,
            options=options,
        )
        found.predict([patches], table_rows(patches))


def step_solid_classifier(width: int) -> None:
    """Volumes, which only the light network takes."""
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(8, 2, 12, 12, 12)).astype(np.float32)
    options = TrainingOptions(steps=2, batch=8, held_out=0, network=NetworkOptions(width=width))
    train_classifier(patches, None, ["a", "b"] * 4, channels=("grey",), ranges=((0.0, 1.0),), options=options)


def step_synthesis(width: int, channels: int) -> None:
    """A step of all four networks: generator, mask network and both critics."""
    prior = LayoutPrior(diameter=10)
    config = GanConfig(
        generator=GeneratorConfig(channels=channels, width=width, hidden=4),
        critic_width=4 * width,
        mask_widths=(4 * width, 8 * width),
        prior=prior,
        steps=2,
        batch=2,
        crop=64,
    )
    scenes = Scenes([pointed(shape=(80, 90), channels=channels)], crop=64, prior=prior)
    gan = Gan(config, CPU)
    for step in range(2):
        gan.learn(scenes.batch(step, range(2)), step)


def main(wanted: list[str]) -> None:
    """Run every part whose name begins with one of those wanted; all without any."""
    torch.set_num_threads(1)
    for name, work in parts():
        if not wanted or name.startswith(tuple(wanted)):
            print(name, flush=True)
            work()
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
