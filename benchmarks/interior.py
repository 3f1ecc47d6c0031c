"""How good is a model of strokes inside objects, beside one of full outlines of the same objects in the same time?

    python benchmarks/interior.py --data DATA/dsb2018_fluo --minutes 5 --rows interior.jsonl

For each seed, 20 objects of one training image are annotated: by closed outlines, paint inside and background near and
far (outlines), by one curve inside each and far background strokes (interior), or by a dot in each and 20 dots of
background (points); see annotations.simulate. A network of the size that `train` chooses for so many minutes learns
from them alone, with the loss that `--loss auto` chooses, from random weights or from the shipped model (`+ model`);
threshold and joining are set as `train` sets them. It is tried on the six test images nearest in kind (see sketch.py),
AP at IoU 0.5. `model` is the shipped one as it is.

With `--steps` a training makes as many steps instead, so that other work on the machine changes nothing; a step of
eikonal takes about 1.3 times as long as one of sketchpose, and the times are in the table. A row goes to `--rows` as
soon as it is there; rows that are there already are not computed again.

The last lines say what has to hold: interior strokes reach .85 of full outlines, points .65, and a model that training
starts from loses at most .02.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from minutes import precisions
from sketch import nearest, picks
from train_nuclei_fluo import load_split

from sketchscale.annotations.simulate import simulate_interior, simulate_strokes
from sketchscale.losses import find_loss, loss_config
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import Model, load_model
from sketchscale.training.checks import choose_loss
from sketchscale.training.loop import TrainingConfig, train
from sketchscale.training.patches import TrainingImage
from sketchscale.training.sizes import choose_sizes
from sketchscale.workflow.train.calibrate import calibrate

OTHERS = 6
ROWS = ("outlines", "interior", "points", "model", "outlines + model", "interior + model", "points + model")


def annotated(image: TrainingImage, style: str, objects: int, seed: int) -> TrainingImage:
    """The image with simulated strokes in the place of its truth."""
    if style == "outlines":
        raster = simulate_strokes(image.labels, n_objects=objects, seed=seed).rasterize()
    else:
        raster = simulate_interior(image.labels, n_objects=objects, seed=seed, style=style).rasterize()  # type: ignore[arg-type]
    return replace(image, labels=raster.labels, boundary=raster.boundary, numbered=raster.numbered)


def learn(image: TrainingImage, start: Model | None, options: argparse.Namespace, seed: int) -> Model:
    """A calibrated model, as `train` makes it."""
    name, _ = choose_loss([image])
    sizes = choose_sizes(options.minutes)
    network = NetworkConfig(channels=image.channels, widths=tuple(sizes.width << level for level in range(4)))
    limit: dict[str, Any] = {"steps": options.steps or 100_000}
    if not options.steps:
        limit["minutes"] = 0.9 * options.minutes
    config = TrainingConfig(
        network=network if start is None else start.config.network,
        loss=loss_config(name),
        batch=sizes.batch,
        patch=sizes.patch,
        threads=options.threads,
        seed=seed,
        **limit,
    )
    interior = find_loss(name).interior
    rule: dict[str, Any] = {"prefer": 0.0, "telling": 1, "start": start and start.config} if interior else {}
    with tempfile.TemporaryDirectory() as folder:
        return calibrate(train([image], config, run_folder=folder, init=start), [image], **rule)


def row(name: str, image: TrainingImage, test: list[TrainingImage], options: argparse.Namespace, seed: int) -> Any:
    style, _, start = name.partition(" + ")
    began = time.perf_counter()
    shipped = load_model("nuclei-fluo")
    if style == "model":
        model = shipped
    else:
        drawn = annotated(image, style, options.objects, seed)
        model = learn(drawn, shipped if start else None, options, seed)
    return {
        "row": name,
        "seed": seed,
        "steps": model.provenance["steps"] if style != "model" else 0,
        "seconds": round(time.perf_counter() - began, 1),
        "threshold": model.config.threshold,
        "min_size": model.config.min_size,
        "ap": [round(ap, 4) for ap in precisions(model, nearest(image, test, options.others))],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Mean over seeds, worst seed, and the share of what full outlines give."""
    means = {
        name: [float(np.mean(r["ap"])) for r in rows if r["row"] == name]
        for name in ROWS
        if any(r["row"] == name for r in rows)
    }
    lines = ["| annotation | seeds | steps | s | AP 0.5 | worst seed | of outlines |", "|" + "---|" * 7]
    for name, values in means.items():
        mine = [r for r in rows if r["row"] == name]
        steps, seconds = (int(np.median([r[key] for r in mine])) for key in ("steps", "seconds"))
        share = f"{np.mean(values) / max(np.mean(means['outlines']), 1e-9):.2f}" if "outlines" in means else ""
        lines.append(
            f"| {name} | {len(values)} | {steps} | {seconds} | {np.mean(values):.3f} | {min(values):.3f} | {share} |"
        )
    return "\n".join([*lines, "", *promises(rows)])


def promises(rows: list[dict[str, Any]]) -> list[str]:
    """What has to hold, and whether it does, over the seeds that both rows have."""
    ap = {(r["row"], r["seed"]): float(np.mean(r["ap"])) for r in rows}
    lines = []
    for name, least in (("interior", 0.85), ("points", 0.65)):
        pairs = [(ap[name, s], ap["outlines", s]) for r, s in ap if r == name and ("outlines", s) in ap]
        if pairs:
            share = sum(a for a, _ in pairs) / max(sum(b for _, b in pairs), 1e-9)
            lines.append(f"{name}: {share:.2f} of full outlines, at least {least}: {'yes' if share >= least else 'NO'}")
    for name in ("interior + model", "points + model"):
        lost = [ap["model", s] - ap[name, s] for r, s in ap if r == name and ("model", s) in ap]
        if lost:
            lines.append(f"{name}: loses at most {max(lost):.3f}, at most .02: {'yes' if max(lost) <= 0.02 else 'NO'}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--names", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--others", type=int, default=OTHERS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.exists() else []
    done = {(r["row"], r["seed"]) for r in rows}
    test = load_split(options.data, "test")
    chosen = picks(load_split(options.data, "train"), max(options.seeds) + 1, options.objects, 0)
    for seed in options.seeds:
        for name in options.names:
            if (name, seed) not in done:
                rows.append(row(name, chosen[seed], test, options, seed))
                options.rows.write_text("".join(json.dumps(r) + "\n" for r in rows))
    print(f"{torch.backends.cpu.get_cpu_capability()}, {options.threads} threads, torch {torch.__version__}, float32")
    print(table(rows))


if __name__ == "__main__":
    main()
