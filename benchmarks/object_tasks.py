"""Which classifier separates drawn objects, from how many labels, and how long does it train?

    python benchmarks/object_tasks.py           every kind on every task, 100 labels, 3 seeds
    python benchmarks/object_tasks.py --tiny    one seed, few steps, for CI

Two tasks are drawn here, as patches and as rows of a feature table, so nothing is downloaded:

    discs    one channel; discs of any size and brightness with stripes 3 px apart, or 7 px
    spots    two channels; cells with spots: the spots of both channels in the same places, or in different ones

Neither size nor mean brightness separates the classes. Scores are on 500 objects that no classifier was trained on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sketchscale.objects.classifiers import (
    CLASSIFIERS,
    ForestOptions,
    NetworkOptions,
    TrainingOptions,
    train_classifier,
)

SIDE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """n objects: patches (n, C + 1, s, s), rows (n, F) of a table with these columns, class names."""

    patches: npt.NDArray[np.float32]
    rows: npt.NDArray[np.float64]
    features: tuple[str, ...]
    names: list[str]


def texture_discs(n: int, seed: int, side: int = SIDE) -> Task:
    """Striped discs of radius 1/5 to 2/5 of the side."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side)) - side / 2
    patches, names = np.zeros((n, 2, side, side), np.float32), []
    for patch in patches:
        kind = int(rng.integers(2))
        turn, mask = rng.uniform(0, np.pi), y * y + x * x < (side * rng.uniform(0.2, 0.4)) ** 2
        stripes = np.sin(2 * np.pi * (np.cos(turn) * y + np.sin(turn) * x) / (3, 7)[kind] + rng.uniform(0, 6))
        patch[0] = 0.4 * rng.uniform(0.7, 1.3) + mask * 0.3 * stripes + rng.normal(0, 0.1, y.shape)
        patch[1] = mask
        names.append(("fine", "coarse")[kind])
    return _with_rows(patches, names)


def channel_spots(n: int, seed: int, side: int = SIDE) -> Task:
    """Round cells with six spots in each of two channels: together or apart."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side)) - side / 2
    patches, names = np.zeros((n, 3, side, side), np.float32), []
    for patch in patches:
        together, radius = bool(rng.integers(2)), side * rng.uniform(0.25, 0.4)
        mask = y * y + x * x < radius**2
        places = [_spread(rng, 6, 0.85 * radius) for _ in range(2)]
        for channel in range(2):
            patch[channel] = 0.2 * mask * rng.uniform(0.7, 1.3) + rng.normal(0, 0.05, y.shape)
            for spot_y, spot_x in places[0 if together else channel]:
                patch[channel] += 0.8 * np.exp(-((y - spot_y) ** 2 + (x - spot_x) ** 2) / (2 * 1.5**2))
        patch[2] = mask
        names.append(("together", "apart")[not together])
    return _with_rows(patches, names)


def _spread(rng: np.random.Generator, n: int, radius: float) -> npt.NDArray[np.float64]:
    """n points of a disc, evenly likely everywhere."""
    turn, far = rng.uniform(0, 2 * np.pi, n), radius * np.sqrt(rng.uniform(0, 1, n))
    return np.stack([far * np.sin(turn), far * np.cos(turn)], axis=1)


def _with_rows(patches: npt.NDArray[np.float32], names: list[str]) -> Task:
    """With a small table: area; mean, standard deviation, percentiles and gradients of every channel in the object."""
    columns: dict[str, list[float]] = {}
    for patch in patches:
        mask = patch[-1] > 0
        values = {"area": float(mask.sum())}
        for i, channel in enumerate(patch[:-1]):
            inside = channel[mask]
            steps = np.hypot(*np.gradient(channel))[mask]
            values |= {f"intensity_mean_c{i}": inside.mean(), f"intensity_std_c{i}": inside.std()}
            values |= {f"intensity_p{p:02}_c{i}": np.percentile(inside, p) for p in (5, 25, 50, 75, 95)}
            values |= {f"gradient_mean_c{i}": steps.mean(), f"gradient_std_c{i}": steps.std()}
        for name, value in values.items():
            columns.setdefault(name, []).append(float(value))
    return Task(patches=patches, rows=np.stack(list(columns.values()), axis=1), features=tuple(columns), names=names)


TASKS: dict[str, Callable[[int, int], Task]] = {"discs": texture_discs, "spots": channel_spots}


def score(
    kind: str,
    draw: Callable[[int, int], Task],
    labels: int,
    seed: int,
    options: TrainingOptions,
    new_objects: int = 500,
) -> dict[str, float]:
    """Accuracy on new objects, and seconds of processor time to train and score."""
    known, new = draw(labels, seed), draw(new_objects, 1000 + seed)
    channels = tuple(f"c{i}" for i in range(known.patches.shape[1] - 1))
    start = time.process_time()
    classifier = train_classifier(
        known.patches,
        known.rows,
        known.names,
        kind=kind,
        channels=channels,
        ranges=((0.0, 1.0),) * len(channels),
        features=known.features,
        options=options,
    )
    seconds = time.process_time() - start
    found = classifier.predict([new.patches], new.rows)
    right = [classifier.config.classes[i] == name for i, name in zip(found.argmax(axis=1), new.names, strict=True)]
    return {"accuracy": float(np.mean(right)), "train_cpu_s": round(seconds, 2)}


def main() -> None:
    """Print one JSON record a task and kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="one seed, few steps: checks that the script runs")
    parser.add_argument("--kinds", nargs="+", default=list(CLASSIFIERS), choices=list(CLASSIFIERS))
    parser.add_argument("--labels", type=int, default=100)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for task, draw in TASKS.items():
        for kind in chosen.kinds:
            print(json.dumps(measured(task, draw, kind, chosen.labels, chosen.tiny)), flush=True)


def measured(task: str, draw: Callable[[int, int], Task], kind: str, labels: int, tiny: bool) -> dict[str, object]:
    """One record."""
    labels = 12 if tiny else labels
    if tiny:
        options = TrainingOptions(steps=1, held_out=0, network=NetworkOptions(width=4), forest=ForestOptions(trees=4))
        runs = [score(kind, draw, labels, 0, options, 12)]
    else:
        runs = [score(kind, draw, labels, seed, TrainingOptions()) for seed in range(3)]
    return {"task": task, "kind": kind, "labels": labels, "runs": runs}


if __name__ == "__main__":
    main()
