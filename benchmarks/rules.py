r"""Which rule of integration is right on exact fields, and best on those of a network, too?

    python benchmarks/rules.py train --data DATA --work WORK          networks of several kinds, kept in WORK
    python benchmarks/rules.py table --data DATA --work WORK          every rule on exact and on predicted fields
    python benchmarks/rules.py choice --work WORK                     what training images choose, and what is best
    python benchmarks/rules.py rods                                   drawn rods alone, without data

Networks (width 8, from random weights, full masks of the training split, a fixed number of steps) are small on purpose:
a rule has to work on the fields of a network that was trained for minutes. Of bacteria there are five images, so each
is left out in turn. Phase contrast is seen at half and at a third of its resolution, and scored there. The threshold is
the one that calibration chose. Prints mean AP 0.5 / 0.75, and objects found : true.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage.io import imread
from skimage.transform import resize

from sketchscale.annotations.targets import targets_from_sketch
from sketchscale.evaluation import score_labels
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.plan import integrate_each
from sketchscale.losses import LossConfig
from sketchscale.networks import NetworkConfig
from sketchscale.training.loop import TrainingConfig, predict_image, train
from sketchscale.training.patches import TrainingImage
from sketchscale.workflow.train.calibrate import calibrate


@dataclass(frozen=True, slots=True)
class Kind:
    """A set of images, how much smaller they are made, and how long a network learns."""

    name: str
    folder: str
    shrink: int
    steps: int
    left_out: int | None = None


KINDS = (
    Kind("fluorescence", "dsb2018_fluo", 1, 500),
    Kind("phase, half", "usiigaci_phase", 2, 600),
    Kind("phase, third", "usiigaci_phase", 3, 600),
    Kind("stained", "dsb2018_he", 1, 600),
    *(Kind(f"bacteria {k}", "omnipose_samples", 1, 300, k) for k in range(5)),
)


def load(data: Path, kind: Kind, split: str) -> list[TrainingImage]:
    """Images of a split, each channel scaled by its 1 and 99.8 percentiles, made smaller."""
    with (data / kind.folder / "manifest.csv").open(newline="") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: row["file"])
    if kind.left_out is not None:
        rows = [row for k, row in enumerate(rows) if (k == kind.left_out) == (split == "test")]
    else:
        rows = [row for row in rows if row["split"] == split]
    images = []
    for row in rows[:: max(1, len(rows) // 40)]:
        image = imread(data / kind.folder / row["file"]).astype(np.float32)
        labels = imread(data / kind.folder / row["mask"]).astype(np.int32)
        if kind.shrink > 1:
            shape = tuple(n // kind.shrink for n in labels.shape)
            image = resize(image, (*shape, *image.shape[2:]), anti_aliasing=True, preserve_range=True)
            labels = resize(labels, shape, order=0, preserve_range=True, anti_aliasing=False).astype(np.int32)
        channels = np.moveaxis(image if image.ndim == 3 else image[..., None], -1, 0)
        ranges = [np.percentile(channel, (1.0, 99.8)) for channel in channels]
        pairs = zip(channels, ranges, strict=True)
        scaled = np.stack([(c - low) / max(high - low, 1e-6) for c, (low, high) in pairs]).astype(np.float32)
        images.append(TrainingImage(image=scaled, labels=labels, name=Path(row["file"]).stem))
    return images


def trained(data: Path, work: Path, kind: Kind, threads: int) -> None:
    """Train one network, and keep the fields of its test images and of six of its training images."""
    out = work / f"{kind.name.replace(', ', '-').replace(' ', '-')}.npz"
    if out.exists():
        return
    images = load(data, kind, "train")
    config = TrainingConfig(
        network=NetworkConfig(channels=images[0].image.shape[0], widths=(8, 16, 32, 64)),
        loss=LossConfig(),
        steps=kind.steps,
        rate=6e-3,
        batch=4,
        patch=128,
        average=0.98,
        precision="float32",
        threads=threads,
    )
    model = train(images, config, run_folder=work / "runs" / kind.name, resume=(work / "runs" / kind.name).exists())
    model.network.eval()
    chosen = calibrate(model, images)
    kept: dict[str, Any] = {"threshold": chosen.config.threshold, "min_size": chosen.config.min_size}
    for split, some in (("test", load(data, kind, "test")), ("train", images[:6])):
        for number, image in enumerate(some):
            kept[f"{split}{number}_fields"] = predict_image(model, image.image).astype(np.float16)
            kept[f"{split}{number}_truth"] = image.labels
    np.savez_compressed(out, **kept)
    print(kind.name, "trained", flush=True)


RULES: dict[str, dict[str, Any]] = {
    "default": {},
    "prominence 0.5": {"prominence": 0.5},
    "prominence 0": {"prominence": 0.0},
    "prominence -0.5": {"prominence": -0.5},
    "prominence -1.5": {"prominence": -1.5},
    "nothing joined": {"prominence": -8.0},
    "link radius 1, nothing joined": {"link_radius": 1, "prominence": -8.0},
    "and by ends": {"join_share": 0.3},
}


def exact(data: Path) -> Iterator[tuple[str, npt.NDArray[np.float16], npt.NDArray[np.int32], dict[str, Any]]]:
    """(set, fields, truth, rule) of masks turned into fields."""
    for folder, split in (("omnipose_samples", ""), ("usiigaci_phase", ""), ("dsb2018_fluo", "test")):
        with (data / folder / "manifest.csv").open(newline="") as stream:
            rows = sorted(csv.DictReader(stream), key=lambda row: row["file"])
        for row in [row for row in rows if row["split"] == split or not split][:12]:
            truth = imread(data / folder / row["mask"]).astype(np.int32)
            targets = targets_from_sketch(truth)
            fields = np.concatenate([targets.flow, targets.distance[None]]).astype(np.float16)
            yield f"exact, {folder}", fields, truth, {"threshold": 0.0, "min_size": 20}
    yield from ((f"exact, {name}", *rest) for name, *rest in rods())


def rods() -> Iterator[tuple[str, npt.NDArray[np.float16], npt.NDArray[np.int32], dict[str, Any]]]:
    """Touching rods of aspect 4 to 12, in rows that are turned; drawn by a seed."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:400, :400]
        truth = np.zeros((400, 400), np.int32)
        angle, width = rng.uniform(0, np.pi), rng.uniform(7, 11)
        along, across = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
        row = np.floor(across / width).astype(int)
        length = width * rng.uniform(4, 12, 400)
        shifted = along + 1000 + 37.0 * row
        column = np.floor(shifted / length[row % 400]).astype(int)
        inside = (np.abs(across - (row + 0.5) * width) < width / 2) & (shifted % length[row % 400] > 1.5)
        _, numbers = np.unique(row[inside] * 10_000 + column[inside], return_inverse=True)
        truth[inside] = numbers + 1
        targets = targets_from_sketch(truth)
        fields = np.concatenate([targets.flow, targets.distance[None]]).astype(np.float16)
        yield "rods", fields, truth, {"threshold": 0.0, "min_size": 20}


def predicted(work: Path) -> Iterator[tuple[str, npt.NDArray[np.float16], npt.NDArray[np.int32], dict[str, Any]]]:
    """The same of the networks' test images."""
    for path in sorted(work.glob("*.npz")):
        kept = np.load(path)
        rule = {"threshold": float(kept["threshold"]), "min_size": int(kept["min_size"])}
        name = "network, bacteria" if path.stem.startswith("bacteria") else f"network, {path.stem}"
        for number in range(sum(key.startswith("test") and key.endswith("fields") for key in kept)):
            yield name, kept[f"test{number}_fields"], kept[f"test{number}_truth"], rule


def table(cases: Iterable[tuple[str, npt.NDArray[np.float16], npt.NDArray[np.int32], dict[str, Any]]]) -> None:
    """Score every rule on every set, and print."""
    found: dict[str, dict[str, list[tuple[float, float, int, int]]]] = {}
    for name, fields, truth, rule in cases:
        rules = [IntegrationConfig(**{**rule, **changes}) for changes in RULES.values()]
        for chosen, labels in zip(RULES, integrate_each(fields, rules), strict=True):
            scores = score_labels(truth.astype(np.int64), labels.astype(np.int64), (0.5, 0.75))
            row = (scores.at(0.5).ap, scores.at(0.75).ap, int(labels.max()), len(np.unique(truth[truth > 0])))
            found.setdefault(name, {}).setdefault(chosen, []).append(row)
    print(f"| fields (images) | {' | '.join(RULES)} |\n|---|{'---|' * len(RULES)}")
    for name, by_rule in found.items():
        cells = []
        for rows in by_rule.values():
            half, high, ours, true = np.array(rows).T
            cells.append(f"{half.mean():.3f} / {high.mean():.3f}, {ours.sum() / true.sum():.2f}")
        print(f"| {name} ({len(rows)}) | {' | '.join(cells)} |", flush=True)


def choice(work: Path) -> None:
    """For each network: the rule that is best on six training images, and its AP 0.5 on other images."""
    print("| network | best on training images: gain over the default | there, AP 0.5 | default | best of all |")
    print("|---|---|---|---|---|")
    for path in sorted(work.glob("*.npz")):
        kept = np.load(path)
        rules = [
            IntegrationConfig(threshold=float(kept["threshold"]), min_size=int(kept["min_size"]), **changes)
            for changes in RULES.values()
        ]
        scores: dict[str, list[list[float]]] = {}
        for split in ("train", "test"):
            for number in range(sum(key.startswith(split) and key.endswith("fields") for key in kept)):
                fields, truth = kept[f"{split}{number}_fields"], kept[f"{split}{number}_truth"].astype(np.int64)
                row = []
                for labels in integrate_each(fields, rules):
                    found = score_labels(truth, labels.astype(np.int64), (0.5, 0.75))
                    half, high = found.at(0.5).ap, found.at(0.75).ap
                    row.append((half + high) / 2 if split == "train" else half)
                scores.setdefault(split, []).append(row)
        train, test = (np.mean(scores[split], axis=0) for split in ("train", "test"))
        best, names = int(train.argmax()), list(RULES)
        print(
            f"| {path.stem} | {names[best]}: {train[best] - train[0]:.3f} | {test[best]:.3f} | {test[0]:.3f} "
            f"| {test.max():.3f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "table", "choice", "rods"))
    parser.add_argument("--data", type=Path, help="folder of the annotated images")
    parser.add_argument("--work", type=Path, help="folder of the trained networks' fields")
    parser.add_argument("--tiny", action="store_true", help="one drawing of rods")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "rods":
        table(itertools.islice(rods(), 1 if options.tiny else None))
    elif options.what == "choice":
        choice(options.work)
    elif options.what == "train":
        options.work.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            trained(options.data, options.work, kind, options.threads)
    else:
        table(itertools.chain(exact(options.data), predicted(options.work)))


if __name__ == "__main__":
    main()
