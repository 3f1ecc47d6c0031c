"""What does a minute of strokes make of a start, on images like the drawn one and on others?

    python benchmarks/start.py --data DATA --start start --steps 250 --rows start.jsonl [--rates 5e-4 --rehearse 0 0.5]
    python benchmarks/start.py --data DATA --start start --untouched

For each kind and pick (an image with enough objects), strokes on 20 objects are simulated as a person draws them. The
start learns from them for `--steps` steps at the scale that `train` would choose, once for each rate and share of
rehearsed patches, is calibrated as by `train`, and segments six other images of the kind, each at the scale that it
finds by itself: `near`, the test images most like the drawn one, and `drawn`, six by the seed. Beside it the untouched
start on the same images, and on test images of other kinds before and after. AP at IoU 0.5 at full resolution; rows
that are in `--rows` already are not computed again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diameters import precisions, scale_to
from sketch import nearest, picks, sketched
from train_nuclei_fluo import load_split

from sketchscale.geometry import Box
from sketchscale.networks.checkpoint import Model, load_model
from sketchscale.training.config import SyntheticConfig
from sketchscale.training.loop import Hooks, TrainingConfig, train
from sketchscale.training.patches import TrainingImage
from sketchscale.training.scale import scaled_image
from sketchscale.workflow.segment.found_scale import find_scale
from sketchscale.workflow.train.calibrate import calibrate
from sketchscale.workflow.train.rehearsal import open_rehearsal

KINDS = ["dsb2018_fluo", "dsb2018_he", "dsb2018_brightfield", "usiigaci_phase"]
OBJECTS, OTHERS = 20, 6


def found_scale(model: Model, image: TrainingImage) -> float:
    """The scale that the model finds; 1 for a model that looks for none."""

    def read(box: Box) -> Any:
        return image.image[(slice(None), *box.slices)]

    return find_scale(model, image.labels.shape, read) if model.config.finds_scale else 1.0


def precision(model: Model, image: TrainingImage) -> float:
    """AP at IoU 0.5 of an image at the scale that the model finds."""
    return precisions(model, image, found_scale(model, image))[0]


def untouched(options: argparse.Namespace) -> None:
    """Print the table of a start that no stroke has changed."""
    model = load_model(options.start)
    head = "scale found: AP 0.5 | AP 0.75 | scale of the truth: AP 0.5 | AP 0.75 | scales more than 1.5 times off"
    print(f"| kind | images | {head} |\n|---|---|---|---|---|---|---|")
    for kind in options.kinds:
        rows, off = [], 0
        test = load_split(options.data / kind, "test")
        for image in test:
            found, true = found_scale(model, image), scale_to(image, model.config.diameter)
            rows.append((*precisions(model, image, found), *precisions(model, image, true)))
            off += abs(np.log(found / true)) > np.log(1.5)
        cells = " | ".join(f"{value:.3f}" for value in np.mean(rows, axis=0))
        print(f"| {kind} | {len(test)} | {cells} | {off} |", flush=True)


def learned(start: Model, address: str, image: TrainingImage, options: argparse.Namespace, **chosen: float) -> Model:
    """The start after strokes on one image."""
    strokes = sketched(image, OBJECTS, options.seed)
    diameter = start.config.diameter if start.config.finds_scale else 0.0
    scale = scale_to(strokes, diameter)
    strokes = scaled_image(strokes, scale)
    assert isinstance(strokes, TrainingImage)
    again = open_rehearsal(address, image.channels) if chosen["rehearse"] else None
    config = TrainingConfig(
        network=replace(start.config.network, channels=image.channels),
        batch=options.batch,
        patch=options.patch,
        steps=options.steps,
        rate=chosen["rate"],
        seed=options.seed,
        scales=(scale,) if diameter else (),
        synthetic=None if again is None else SyntheticConfig(sha256=(again.sha256,), share=chosen["rehearse"]),
    )
    hooks = Hooks(scenes=None if again is None else again.stream(config))
    with tempfile.TemporaryDirectory() as folder:
        model = train([strokes], config, run_folder=folder, init=start, hooks=hooks)
    return calibrate(model, [strokes])


def tries(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for every kind, pick, rate and share that is not in the file of rows."""
    known = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.exists() else []
    yield from known
    done = {(r["start"], r["kind"], r["pick"], r["rate"], r["rehearse"], r["steps"]) for r in known}
    start = load_model(options.start)
    for kind in options.kinds:
        pool, test = (load_split(options.data / kind, split) for split in ("train", "test"))
        chosen = picks(pool, max(options.picks) + 1, OBJECTS, options.seed)
        for pick in options.picks:
            drawn = np.random.default_rng((options.seed, pick)).permutation(len(test))[:OTHERS]
            others = {"near": nearest(chosen[pick], test, OTHERS), "drawn": [test[i] for i in drawn]}
            for rate, rehearse in [(0.0, 0.0), *((a, b) for a in options.rates for b in options.rehearse)]:
                if (options.start, kind, pick, rate, rehearse, options.steps) in done:
                    continue
                began, model = time.perf_counter(), start
                if rate:
                    model = learned(start, options.start, chosen[pick], options, rate=rate, rehearse=rehearse)
                row = {"start": options.start, "kind": kind, "pick": pick, "rate": rate, "rehearse": rehearse}
                row |= {"steps": options.steps, "seconds": round(time.perf_counter() - began, 1)}
                yield row | {name: [round(precision(model, i), 4) for i in images] for name, images in others.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """Mean over picks with their spread, for each start, kind and choice."""
    lines = ["| start | kind | steps | rate | rehearsed | near | drawn | picks |", "|" + "---|" * 8]
    keys = sorted({(r["start"], r["kind"], r["steps"], r["rate"], r["rehearse"]) for r in rows})
    for key in keys:
        mine = [r for r in rows if (r["start"], r["kind"], r["steps"], r["rate"], r["rehearse"]) == key]
        means = {name: [float(np.mean(r[name])) for r in mine] for name in ("near", "drawn")}
        cells = [f"{np.mean(m):.3f} ± {np.std(m):.3f}" for m in means.values()]
        name, kind, steps, rate, rehearse = key
        chosen = f"{rate:g} | {rehearse:g}" if rate else "untouched | "
        lines.append(f"| {Path(name).name} | {kind} | {steps} | {chosen} | {' | '.join(cells)} | {len(mine)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--start", default="start")
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--picks", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4])
    parser.add_argument("--rehearse", type=float, nargs="+", default=[0.5])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, default=Path("start.jsonl"))
    parser.add_argument("--untouched", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.untouched:
        untouched(options)
        return
    rows: list[dict[str, Any]] = []
    for row in tries(options):
        rows += [row] if row not in rows else []
        options.rows.write_text("".join(json.dumps(r) + "\n" for r in rows))
    print(f"{torch.backends.cpu.get_cpu_capability()}, {options.threads} threads, torch {torch.__version__}, float32")
    print(table(rows))


if __name__ == "__main__":
    main()
