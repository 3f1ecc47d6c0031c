"""Which network and which batch learn most from strokes in a few minutes on a CPU?

    python benchmarks/minutes.py --data DATA --minutes 1.25 --sizes 8,4,128 16,4,128 16,8,160 --rows minutes.jsonl

For each kind of image and each of some picks (training images with enough objects, drawn by a seed), strokes on 20
objects of one image are simulated as a person draws them, and a network learns from them alone from random weights,
once for each of `--sizes` (channels of the first level, patches of a step, side of a patch in px) and each budget of
`--minutes`. Threshold and joining are calibrated as `train` does it. The model is then tried on six other images:

    near    the six test images nearest in kind (see benchmarks/sketch.py)
    drawn   six test images drawn by the seed, whatever they look like

A row goes to `--rows` as soon as it is there; rows that are there already are not computed again. `--step-seconds`
gives, in the order of `--sizes`, what a step takes on an idle machine: then a training makes the steps that fit into
nine tenths of the budget, and other work on the machine changes nothing. Prints AP at IoU 0.5: the mean over picks with
their spread (standard deviation), that of the worst pick, and the worst single image.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sketch import nearest, picks, sketched
from train_nuclei_fluo import load_split

from sketchscale.evaluation import score_labels
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.plan import integrate
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import Model
from sketchscale.training.loop import TrainingConfig, predict_image, train
from sketchscale.training.patches import TrainingImage
from sketchscale.workflow.train.calibrate import calibrate

OBJECTS, OTHERS = 20, 6


def precisions(model: Model, images: list[TrainingImage]) -> list[float]:
    """AP at IoU 0.5 of each image, with all that the model says about joining and sizes."""
    c = model.config
    rule = IntegrationConfig(
        threshold=c.threshold,
        min_size=c.min_size,
        link_radius=c.link_radius,
        prominence=c.prominence,
        join_share=c.join_share,
        join_radius=c.join_radius,
    )
    found = (integrate(predict_image(model, image.image), rule) for image in images)
    pairs = zip(images, found, strict=True)
    return [score_labels(image.labels.astype(np.uint32), labels, (0.5,)).matchings[0].ap for image, labels in pairs]


def learn(image: TrainingImage, size: tuple[int, int, int], limit: dict[str, Any], seed: int) -> Model:
    """A calibrated model from strokes on one image."""
    width, batch, patch = size
    strokes = sketched(image, OBJECTS, seed)
    config = TrainingConfig(
        network=NetworkConfig(channels=image.channels, widths=tuple(width << level for level in range(4))),
        batch=batch,
        patch=patch,
        precision="float32",
        seed=seed,
        **limit,
    )
    with tempfile.TemporaryDirectory() as folder:
        return calibrate(train([strokes], config, run_folder=folder), [strokes])


def tries(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for every kind, pick, size and budget that is not in the file of rows."""
    known = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.exists() else []
    done = {(row["kind"], row["pick"], tuple(row["size"]), row["minutes"]) for row in known}
    yield from known
    for kind in options.kinds:
        pool, test = (load_split(options.data / kind, split) for split in ("train", "test"))
        chosen = picks(pool, max(options.picks) + 1, OBJECTS, options.seed)
        for pick in options.picks:
            drawn = np.random.default_rng((options.seed, pick)).permutation(len(test))[:OTHERS]
            others = {"near": nearest(chosen[pick], test, OTHERS), "drawn": [test[i] for i in drawn]}
            for position, size in enumerate(options.sizes):
                for minutes in options.minutes:
                    if (kind, pick, size, minutes) in done:
                        continue
                    limit: dict[str, Any] = {"steps": 100_000, "minutes": 0.9 * minutes}
                    if options.step_seconds:
                        limit = {"steps": max(1, round(54 * minutes / options.step_seconds[position]))}
                    began = time.perf_counter()
                    model = learn(chosen[pick], size, limit, options.seed + pick)
                    yield {
                        "kind": kind,
                        "pick": pick,
                        "image": chosen[pick].name,
                        "size": size,
                        "minutes": minutes,
                        "steps": model.provenance["steps"],
                        "seconds": round(time.perf_counter() - began, 1),
                        "threshold": model.config.threshold,
                        **{name: [round(ap, 4) for ap in precisions(model, images)] for name, images in others.items()},
                    }


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and spread over picks, worst pick and worst image, for each kind, budget and size."""
    columns = "near: AP 0.5 | worst pick | image | drawn: AP 0.5 | worst pick | image"
    lines = [f"| kind | minutes | width, batch, patch | picks | steps | {columns} |", "|" + "---|" * 11]
    for kind, minutes, size in sorted({(r["kind"], r["minutes"], tuple(r["size"])) for r in rows}):
        mine = [r for r in rows if (r["kind"], r["minutes"], tuple(r["size"])) == (kind, minutes, size)]
        cells = []
        for name in ("near", "drawn"):
            means = [float(np.mean(r[name])) for r in mine]
            worst = f"{min(means):.3f}", f"{min(min(r[name]) for r in mine):.3f}"
            cells += [f"{np.mean(means):.3f} ± {np.std(means):.3f}", *worst]
        steps = int(np.median([r["steps"] for r in mine]))
        name = ", ".join(map(str, size))
        lines.append(f"| {kind} | {minutes:g} | {name} | {len(mine)} | {steps} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _size(text: str) -> tuple[int, int, int]:
    width, batch, patch = map(int, text.split(","))
    return width, batch, patch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=["dsb2018_fluo", "dsb2018_he", "usiigaci_phase"])
    parser.add_argument("--picks", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sizes", type=_size, nargs="+", default=[(8, 4, 128), (16, 4, 128), (16, 8, 160)])
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.25])
    parser.add_argument("--step-seconds", type=float, nargs="*")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for row in tries(options):
        if row not in rows:
            rows.append(row)
        options.rows.write_text("".join(json.dumps(r) + "\n" for r in rows))
    print(f"{torch.backends.cpu.get_cpu_capability()}, {options.threads} threads, torch {torch.__version__}, float32")
    print(table(rows))


if __name__ == "__main__":
    main()
