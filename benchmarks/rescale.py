"""Do the options of inference pay: mirrored copies, objects enlarged for the network, holes filled, flow errors?

    python benchmarks/rescale.py --data DATA/dsb2018_fluo [--parts flips,scale,refine] [--model nuclei-fluo] [--every 1]

Every image is segmented by the package's own functions for arrays. A scale is given to all images, or only to those
where the plain run's median diameter is below a limit; "to the model's diameter" scales each image so that its plain
median becomes the model's. Labels stay on the image's grid. Printed: AP at IoU 0.5 and 0.75, by image (mean) and pooled
over objects, how many images another setting than the plain one was used for, and the seconds of all images.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage.io import imread

from sketchscale.config import SegmentOptions
from sketchscale.evaluation import Scores, score_labels
from sketchscale.integration.plan import integrate
from sketchscale.integration.refine import refine_labels
from sketchscale.networks.checkpoint import Model, load_model
from sketchscale.workflow.segment.arrays import fields_of_array
from sketchscale.workflow.segment.job import integration_config, refine_config

LIMITS = (12, 16, 20)
"""px; images whose median diameter is below are enlarged."""


@dataclass
class Way:
    """Scores of one setting over all images, and what it cost."""

    scores: list[Scores] = field(default_factory=list)
    seconds: float = 0.0
    changed: int = 0


class Case:
    """One image with its truth; fields of a scale and a number of flips are predicted once."""

    def __init__(self, image: npt.NDArray[Any], truth: npt.NDArray[Any], model: Model) -> None:
        self.image, self.truth, self.model = image[None], truth, model
        self._fields: dict[tuple[Any, ...], tuple[npt.NDArray[np.float16], float]] = {}
        self._scores: dict[SegmentOptions, tuple[Scores, float]] = {}

    def labels(self, options: SegmentOptions) -> tuple[npt.NDArray[np.uint32], float]:
        """As `segment_array` has them, and the seconds they took."""
        key = (options.rescale, options.flips)
        if key not in self._fields:
            started = time.perf_counter()
            fields = fields_of_array(self.image, self.model, options)
            self._fields[key] = fields, time.perf_counter() - started
        fields, seconds = self._fields[key]
        started = time.perf_counter()
        labels = integrate(fields, integration_config(self.model, options))
        labels = refine_labels(labels, fields, refine_config(options))
        return labels, seconds + time.perf_counter() - started

    def scores(self, options: SegmentOptions) -> tuple[Scores, float]:
        if options not in self._scores:
            labels, seconds = self.labels(options)
            self._scores[options] = score_labels(self.truth, labels), seconds
        return self._scores[options]


def median_diameter(labels: npt.NDArray[np.unsignedinteger]) -> float:
    """Of a disc of the objects' areas, px; 0 without objects."""
    areas = np.bincount(labels.ravel())[1:]
    return float(np.median(np.sqrt(4 * areas[areas > 0] / np.pi))) if areas.any() else 0.0


def settings(
    plain: SegmentOptions, size: float, wanted: float, parts: list[str]
) -> Iterator[tuple[str, SegmentOptions]]:
    """Name and options of every way, for an image of this median diameter under a model of the wanted one."""
    yield "plain", plain
    for flips in (4, 8) if "flips" in parts else ():
        yield f"--flips {flips}", replace(plain, flips=flips)
    if "scale" in parts:
        for scale in (0.75, 1.25, 1.5, 2.0):
            other = replace(plain, rescale=scale)
            yield f"--rescale {scale:g}", other
            for limit in LIMITS if scale > 1 else ():
                yield f"--rescale {scale:g} below {limit} px", other if size < limit else plain
        fitted = min(2.0, max(0.5, wanted / size)) if size else 1.0
        yield "to the model's diameter, 0.5 to 2", replace(plain, rescale=fitted)
        yield "to the model's diameter, 1 to 2", replace(plain, rescale=fitted) if fitted > 1 else plain
    if "refine" in parts:
        for share in (0.03, 0.3):
            yield f"--fill-holes {share:g}", replace(plain, fill_holes=share)
        for error in (0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5):
            yield f"--flow-error {error:g}", replace(plain, flow_error=error)


def line(name: str, way: Way) -> str:
    """A row of the table."""
    half, high = ([s.at(t) for s in way.scores] for t in (0.5, 0.75))
    by_image = [np.mean([m.ap for m in matchings]) for matchings in (half, high)]
    pooled = [
        sum(m.tp for m in matchings) / max(1, sum(m.tp + m.fp + m.fn for m in matchings)) for matchings in (half, high)
    ]
    false, missed = sum(m.fp for m in half), sum(m.fn for m in half)
    return (
        f"| {name} | {by_image[0]:.3f} | {by_image[1]:.3f} | {pooled[0]:.3f} | {pooled[1]:.3f} | {false} | {missed} "
        f"| {way.changed} | {way.seconds:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", default="flips,scale,refine")
    parser.add_argument("--model", default="nuclei-fluo")
    parser.add_argument("--split", default="test")
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    model, plain = load_model(options.model), SegmentOptions(model=options.model, precision="float32")
    with (options.data / "manifest.csv").open(newline="") as stream:
        rows = sorted((r for r in csv.DictReader(stream) if r["split"] == options.split), key=lambda r: r["file"])
    ways: dict[str, Way] = {}
    rows = rows[:: options.every]
    for row in rows:
        case = Case(imread(options.data / row["file"]), imread(options.data / row["mask"]).astype(np.int64), model)
        size = median_diameter(case.labels(plain)[0])
        for name, chosen in settings(plain, size, model.config.diameter, options.parts.split(",")):
            way, (scores, seconds) = ways.setdefault(name, Way()), case.scores(chosen)
            way.scores.append(scores)
            way.seconds += seconds
            way.changed += chosen != plain
    print(
        f"{options.model} {model.sha256[:12]} on {len(rows)} {options.split} images; {platform.machine()}, torch "
        f"{torch.__version__}, {torch.get_num_threads()} thread\n"
    )
    print("| setting | AP 0.5 | AP 0.75 | pooled AP 0.5 | pooled AP 0.75 | false | missed | images changed | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, way in ways.items():
        print(line(name, way))


if __name__ == "__main__":
    main()
