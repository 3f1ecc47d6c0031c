"""Puts the kept output of the benchmarks into README, between its two figure marks.

    python benchmarks/write_figures.py

The output of each benchmark is kept in benchmarks/results; a file that was condensed by hand says so in its first line.
Headings and what was asked for are here.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

HEADINGS = {
    "first_hour.txt": "The demo, and a training that keeps its minutes, limited to AVX2 (asked: mean AP 0.5 of 0.88, "
    "150 s; 2.3 minutes for --minutes 2, calibration 12 s, no silence over 10 s) | first_hour.py",
    "minutes.txt": "A minute and a quarter of training on strokes, limited to AVX2 (asked: mean AP 0.5 of 0.62 on six "
    "other images, 0.45 for the worst pick) | minutes.py",
    "nuclei_fluo.txt": "The shipped model on 50 test images it never saw (asked: AP 0.5 of 0.85) | nuclei_fluo.py",
    "unknown_kinds.txt": "Does `segment` warn of kinds of images that the model does not know (asked: of 90 % of "
    "them, of at most 2 % of its own kind) | unknown_kinds.py",
    "plate_8000.txt": "The whole job on a plate (asked: 2 GB, AP 0.5 of 0.85) | plate.py",
    "plate_16000.txt": "The same on four times the pixels (asked: at most 10 % more memory) | plate.py --size 16000",
    "sketch.txt": "Strokes on about 20 objects, random weights, 5 minutes (asked: mean AP 0.5 of 0.75) | sketch.py",
    "accuracy.txt": "Losses and partial annotation, small networks on real images (asked: AP 0.5 of 0.90 with all "
    "pixels, at most 0.02 less with 10 % of them, 0.06 less with 1 %) | accuracy.py",
    "transfer.txt": "Twelve strokes on a kind of image the model never saw (asked: +0.15) | transfer.py",
    "training_step.txt": "A training step beside its bare network (asked: at most 1.15 times) | training_step.py",
    "precision.txt": "The precision that auto chooses beside the better of both (asked: at most 1.05 times) "
    "| precision.py",
    "noise.txt": "Integration of exact flows with noise 0.5, 10 seeds (asked: AP 0.5 of 0.97) | integration.py --noise",
    "integration.txt": "Fields to labels, and a peer (asked: 5 times, half memory) | integration.py --peer",
    "objects.txt": "Measuring and classifying 17,000 objects on 8000 x 8000 px (asked: 5 times as fast as "
    "scikit-image, 60 s, 1.5 GB) | objects.py",
    "many_objects.txt": "Up to a million objects (asked: 2 GB, time flat within 20 %) | many_objects.py",
    "object_tasks.txt": "Drawn textures and spots, 100 labels (asked: discs 0.98, spots 0.95) | object_tasks.py",
    "object_accuracy.txt": "Classes from 100 labelled objects (asked: 0.95) | object_accuracy.py",
    "synthesis.txt": "Segmenters trained with one point in each object (asked: AJI 0.10 above dots, 85 % of dense "
    "labels; with 20 strokes better than either) | synthesis.py",
    "layouts.txt": "Layouts drawn around points (asked: 50,000 objects a minute) | layouts.py",
    "synthetic_step.txt": "What scenes painted while it trains add to a training step | synthetic_step.py",
    "watershed.txt": "h/v maps to labels, beside the flow | watershed.py",
    "engines.txt": "What an engine costs over the serial loop, one worker (asked: 10 % per tile, 15 ms per task) "
    "| engines.py",
    "scale.txt": "From a hundred to a million blocks, and what a screen would cost (asked: driver of at most 1 GB and "
    "200 B for each object) | scale.py",
    "storage_faults.txt": "Nineteen faults of object storage in four kinds of operation (asked: identical or a typed "
    "error, none silent) | storage_faults.py",
}
"""File in results to heading and command; a file that is missing is a figure that is missing."""


def figures() -> str:
    """The section's text."""
    parts = []
    for name, heading in HEADINGS.items():
        title, command = heading.split(" | ")
        text = (ROOT / "benchmarks" / "results" / name).read_text("utf-8").strip()
        parts.append(f"**{title}**: `python benchmarks/{command} ...`\n\n```\n{text}\n```\n")
    return "\n".join(parts)


def with_figures(readme: str) -> str:
    """README with the section replaced."""
    replacement = f"<!-- figures -->\n\n{figures()}\n<!-- end of figures -->"
    return re.sub(r"<!-- figures -->.*?<!-- end of figures -->", lambda match: replacement, readme, flags=re.DOTALL)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_figures(path.read_text("utf-8")), "utf-8")
