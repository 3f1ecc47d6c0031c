"""How good is the shipped model on real images it has never seen?

    python benchmarks/nuclei_fluo.py --data DATA/dsb2018_fluo [--model nuclei-fluo] [--split test] [--every 1]

Every image is segmented by the package's own function for arrays, with the model's own settings, and compared with its
truth. Printed: AP at IoU 0.5 and 0.75, by image (mean) and pooled over objects, for the model's way of joining parts
and for the package's default. The model's way (and its threshold) was preferred after looking at test images and at the
test plate, so the test figures lean a little to its side; `--split train --every 9` shows both ways on training images.
"""

from __future__ import annotations

import argparse
import csv
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from skimage.io import imread

from sketchscale.config import SegmentOptions
from sketchscale.evaluation import Scores, score_labels
from sketchscale.integration.plan import integrate
from sketchscale.networks.checkpoint import load_model
from sketchscale.workflow.segment.arrays import fields_of_array
from sketchscale.workflow.segment.job import integration_config


def load_rows(folder: Path, split: str, every: int) -> list[dict[str, str]]:
    """Every n-th image of a split, by file name."""
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == split]
    return sorted(rows, key=lambda row: row["file"])[::every]


def line(name: str, scores: list[Scores]) -> str:
    """A row of the table."""
    half, high = ([s.at(t) for s in scores] for t in (0.5, 0.75))
    tp, fp, fn = (sum(getattr(m, k) for m in half) for k in ("tp", "fp", "fn"))
    by_image = [np.mean([m.ap for m in matchings]) for matchings in (half, high)]
    return f"| {name} | {by_image[0]:.3f} | {by_image[1]:.3f} | {tp / (tp + fp + fn):.3f} | {fp} | {fn} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="nuclei-fluo")
    parser.add_argument("--split", default="test")
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    settings = SegmentOptions(model=options.model, precision="float32")
    model = load_model(options.model)
    own = integration_config(model, settings)
    ways = {
        f"the model's: link radius {own.link_radius}, prominence {own.prominence:g}": own,
        "link radius 2, prominence -0.25": replace(own, link_radius=2, prominence=-0.25),
    }
    scores: dict[str, list[Scores]] = {name: [] for name in ways}
    rows = load_rows(options.data, options.split, options.every)
    for row in rows:
        image = imread(options.data / row["file"])
        truth = imread(options.data / row["mask"]).astype(np.int64)
        fields = fields_of_array(image[None], model, settings)
        for name, config in ways.items():
            scores[name].append(score_labels(truth, integrate(fields, config)))
    print(
        f"{options.model} {model.sha256[:12]} on {len(rows)} {options.split} images, threshold {own.threshold:g}, "
        f"min_size {own.min_size}; {platform.machine()}, torch {torch.__version__}\n"
    )
    print("| joining | AP 0.5 | AP 0.75 | pooled AP 0.5 | false | missed |\n|---|---|---|---|---|---|")
    for name, found in scores.items():
        print(line(name, found))


if __name__ == "__main__":
    main()
