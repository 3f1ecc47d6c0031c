"""Is `--precision auto` at most 1.05 times as slow as the better of float32 and bfloat16, for training and inference?

    python benchmarks/precision.py                                                       as the processor is
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/precision.py      as most laptops are

Inference is a tile of the shipped model; training is a step (forward, loss, backward, optimiser) of the default network
on simulated strokes. Both precisions run in turn, in one process, on one thread of torch; all but `settle_s` is time of
the processor. `ratio` is the median over
the rounds of the time of what auto chose over that of the faster one, whose median is the smaller: 1 where auto chose
that one. `float32_s` and `bfloat16_s` are medians, `gain` is their ratio by round, `gain_of_layer` what was measured to
choose, in `settle_s`.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable

import numpy as np
import torch
from training_step import load_images

from sketchscale.inference.backend import Recipe, TorchBackend, run_tiles
from sketchscale.losses import find_loss
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.checkpoint import load_model
from sketchscale.networks.precision import Use, choose_precision, measure_rates
from sketchscale.training.config import TrainingConfig
from sketchscale.training.distributed import World
from sketchscale.training.learner import Learner
from sketchscale.training.prefetch import draw_batch
from sketchscale.training.validation import source_for
from sketchscale.workflow.doctor import examine

Work = Callable[[], None]
NAMES = ("float32", "bfloat16")
ASKED = 1.05


def inference(side: int) -> dict[str, Work]:
    """A tile through the shipped model."""
    model = load_model("nuclei-fluo")
    model.network.to(memory_format=torch.channels_last)
    tile = np.random.default_rng(0).integers(0, 255, (1, side, side), dtype=np.uint8)

    def run(name: str) -> None:
        run_tiles(TorchBackend(model=model, recipe=Recipe(precision=name)), [tile], ((0.0, 255.0),))

    return {name: lambda name=name: run(name) for name in NAMES}  # type: ignore[misc]


def training(batch: int, patch: int, width: int) -> dict[str, Work]:
    """A step of the default network."""
    works: dict[str, Work] = {}
    for name in NAMES:
        config = TrainingConfig(
            network=NetworkConfig(
                widths=tuple(width * 2**level for level in range(4)), outputs=find_loss("sketchpose").outputs
            ),
            batch=batch,
            patch=patch,
            precision=name,  # type: ignore[arg-type]
            threads=1,
        )
        learner = Learner(create_network(config.network), config, torch.device("cpu"), World())
        drawn = draw_batch(source_for(load_images(1), config, config.augment), 1, 0, range(batch))
        works[name] = lambda learner=learner, drawn=drawn: learner.learn(drawn, 1e-4)  # type: ignore[misc]
    return works


def compare(works: dict[str, Work], rounds: int, use: Use) -> dict[str, object]:
    """Both in turn; the first round is not counted."""
    began = time.perf_counter()
    chosen = choose_precision("auto", "cpu", use)
    settle = time.perf_counter() - began
    times = np.array([[seconds(works[name]) for name in NAMES] for _ in range(rounds + 1)])[1:]
    medians = dict(zip(NAMES, np.median(times, axis=0), strict=True))
    better = min(medians, key=lambda name: medians[name])
    ratio = float(np.median(times[:, NAMES.index(chosen.name)] / times[:, NAMES.index(better)]))
    return {
        "use": use,
        "auto": chosen.name,
        "ratio": round(ratio, 3),
        "asked": ASKED,
        "float32_s": round(float(medians["float32"]), 4),
        "bfloat16_s": round(float(medians["bfloat16"]), 4),
        "settle_s": round(settle, 2),
        "gain_of_layer": round(chosen.rates.gain, 2) if chosen.rates else None,
        "gain": round(float(np.median(times[:, 0] / times[:, 1])), 2),
        "rounds": rounds,
    }


def seconds(work: Work) -> float:
    """Of processor time, so that whatever else runs there does not count."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--batch", type=int, default=TrainingConfig().batch)
    parser.add_argument("--patch", type=int, default=TrainingConfig().patch)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--tiny", action="store_true", help="seconds, for the tests")
    options = parser.parse_args()
    if options.tiny:
        options.rounds, options.tile, options.batch, options.patch, options.width = 1, 64, 2, 32, 4
    torch.set_num_threads(1)
    processor = next(check["found"] for check in examine() if check["name"] == "processor")
    measure_rates.cache_clear()  # it was asked for the processor's line
    print(f"{platform.machine()}: {processor}; torch {torch.__version__} on 1 thread")
    for use, works in (
        ("inference", inference(options.tile)),
        ("training", training(options.batch, options.patch, options.width)),
    ):
        print(json.dumps(compare(works, options.rounds, use)))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
