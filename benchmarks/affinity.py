"""Would joining pixels by affinity, or end points by density, find objects better than the end points' own linking?

    python benchmarks/affinity.py --data DATA [--model nuclei-fluo] [--every 1] [--seeds 2]
    python benchmarks/affinity.py --data DATA --joinings [--split train --sample 60 --seeds 0]

On the same fields, with the same foreground, steps and minimum size:

  linked        what `segment` does: end points of the suppressed walk linked within a radius, parts joined at saddles
  joined r, q   linked, and parts that touch are one when the end points of more than a share q of the pixel pairs on
                their border are at most r px apart: `join_radius` and `join_share` of IntegrationConfig
  divergence c  4-neighbours stay linked unless their flows part along the step by more than c; components of the links
  ends r        4-neighbours stay linked when their end points are at most r px apart
  affinity r    a link is cut where the flows differ by more than a right angle and the end points by more than r px
                (Omnipose's two cuts); with spurs: pixels with at most one link left are peeled off and given back to
                the nearest object, as its spur removal does
  dbscan        end points clustered by density (eps sqrt 2, 5 points), outliers to the nearest cluster: Omnipose's way

With --joinings only linked and joined, on two kinds of links each, and more values of r and q.

`nuclei` are images of dsb2018_fluo under the model. `bacteria` are the reference masks of omnipose_samples
(long, curved, touching cells): their own targets, distance blurred by 1 px and noise on the flow, white or smooth over
3 px, because no model for them is at hand. Printed: AP at IoU 0.5 and 0.75 by image, pooled AP 0.5. The values of c, r
and q are those that were tried, so the best row of a method is a flattering one.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from skimage.io import imread
from sklearn.cluster import DBSCAN

from sketchscale.annotations.targets import targets_from_sketch
from sketchscale.config import SegmentOptions
from sketchscale.evaluation import Scores, score_labels
from sketchscale.geometry import whole
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.follow import follow_flow
from sketchscale.integration.plan import integrate
from sketchscale.integration.region import region_of
from sketchscale.networks.checkpoint import load_model
from sketchscale.workflow.segment.arrays import fields_of_array
from sketchscale.workflow.segment.job import integration_config

Fields = npt.NDArray[np.float16]
Labels = npt.NDArray[np.int64]


class Walked:
    """Fields of an image with what every method needs: foreground, unit flow, end points, pairs of 4-neighbours."""

    def __init__(self, fields: Fields, config: IntegrationConfig) -> None:
        self.fields, self.config = fields, config
        shape = (fields.shape[1], fields.shape[2])
        region = region_of(whole(shape), shape, config)
        ends = follow_flow(fields, region, config).ends
        self.inside = ends >= 0
        self.end = np.stack(np.divmod(np.maximum(ends, 0), shape[1])).astype(np.float64)
        flow = fields[:2].astype(np.float64)
        self.flow = flow / np.maximum(np.hypot(*flow), 1e-6)
        number = np.arange(self.inside.size).reshape(shape)
        pairs, steps = [], []
        for axis, step in ((0, (1, 0)), (1, (0, 1))):
            first = number[:-1] if axis == 0 else number[:, :-1]
            second = number[1:] if axis == 0 else number[:, 1:]
            both = self.inside.ravel()[first] & self.inside.ravel()[second]
            pairs.append(np.stack([first[both], second[both]]))
            steps.append(np.repeat(np.array(step)[:, None], int(both.sum()), axis=1))
        self.pair, self.step = np.concatenate(pairs, axis=1), np.concatenate(steps, axis=1)

    def at(self, values: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
        """A vector field at the first or second pixel of every pair, (2, n)."""
        return values.reshape(2, -1)[:, self.pair[side]]

    def parting(self) -> npt.NDArray[np.float64]:
        return ((self.at(self.flow, 1) - self.at(self.flow, 0)) * self.step).sum(axis=0)

    def apart(self) -> npt.NDArray[np.float64]:
        return np.hypot(*(self.at(self.end, 1) - self.at(self.end, 0)))

    def turning(self) -> npt.NDArray[np.float64]:
        return (self.at(self.flow, 1) * self.at(self.flow, 0)).sum(axis=0)


Method = Callable[[Walked], Labels]


def sized(labels: Labels, config: IntegrationConfig) -> Labels:
    """Small objects removed, numbers without gaps."""
    area = np.bincount(labels.ravel())
    keep = area >= config.min_size
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0)[labels]


def components(walked: Walked, kept: npt.NDArray[np.bool_]) -> Labels:
    """Foreground pixels joined by the links that are kept."""
    a, b = walked.pair[:, kept]
    size = walked.inside.size
    _, found = connected_components(coo_matrix((np.ones(a.size, np.int8), (a, b)), shape=(size, size)), directed=False)
    return np.where(walked.inside, found.reshape(walked.inside.shape) + 1, 0).astype(np.int64)


def without_spurs(walked: Walked, kept: npt.NDArray[np.bool_]) -> Labels:
    """Peel off pixels with at most one link, take components, and give the pixels back."""
    kept = kept.copy()
    alive = walked.inside.ravel().copy()
    for _ in range(100):
        links = np.bincount(walked.pair[:, kept].ravel(), minlength=alive.size)
        spur = alive & (links <= 1)
        if not spur.any():
            break
        alive[spur] = False
        kept &= alive[walked.pair].all(axis=0)
    labels = sized(np.where(alive.reshape(walked.inside.shape), components(walked, kept), 0), walked.config)
    y, x = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    return np.where(walked.inside, labels[y, x], 0)


def by_density(walked: Walked) -> Labels:
    """DBSCAN of the end points of all foreground pixels."""
    points = walked.end[:, walked.inside].T
    labels = np.zeros(walked.inside.shape, np.int64)
    if len(points):
        cluster = DBSCAN(eps=2**0.5, min_samples=5).fit_predict(points)
        known = cluster >= 0
        if known.any():
            nearest = cKDTree(points[known]).query(points[~known])[1]
            cluster[~known] = cluster[known][nearest]
            labels[walked.inside] = cluster + 1
    return labels


def joinings(radii: Sequence[int], shares: Sequence[float]) -> dict[str, Method]:
    """Linked in two ways, each without and with joining by ends."""
    found: dict[str, Method] = {}
    for radius, prominence in ((1, -8.0), (2, -0.25)):
        links = {"link_radius": radius, "prominence": prominence}
        found[f"linked, radius {radius}, prominence {prominence:g}"] = ruled(links)
        for r, q in itertools.product(radii, shares):
            found[f"radius {radius}, joined {r}, {q:g}"] = ruled({**links, "join_radius": r, "join_share": q})
    return found


def ruled(rule: dict[str, Any]) -> Method:
    """The package's own integration with other values."""
    return lambda walked: integrate(walked.fields, replace(walked.config, **rule)).astype(np.int64)


def methods() -> dict[str, Method]:
    """Name to rule."""
    found = joinings((5, 6), (0.3, 0.5))
    for c in (0.25, 0.5, 1.0, 1.5):
        found[f"divergence {c:g}"] = lambda w, c=c: components(w, w.parting() <= c)
    for r in (1.5, 3.0, 5.0):
        found[f"ends {r:g}"] = lambda w, r=r: components(w, w.apart() <= r)
    for r in (1.5, 3.0, 5.0):
        found[f"affinity {r:g}"] = lambda w, r=r: components(w, (w.turning() > 0) | (w.apart() <= r))
        found[f"affinity {r:g}, spurs"] = lambda w, r=r: without_spurs(w, (w.turning() > 0) | (w.apart() <= r))
    found["dbscan"] = by_density
    return found


def nuclei(
    data: Path, model_name: str, split: str, sample: int | None, every: int
) -> Iterator[tuple[Fields, Labels, IntegrationConfig]]:
    """Images of dsb2018_fluo under the model; a sample is drawn with seed 0."""
    model, settings = load_model(model_name), SegmentOptions(model=model_name, precision="float32")
    with (data / "manifest.csv").open(newline="") as stream:
        rows = sorted((r for r in csv.DictReader(stream) if r["split"] == split), key=lambda r: r["file"])
    if sample is not None:
        rows = [rows[i] for i in sorted(np.random.default_rng(0).choice(len(rows), sample, replace=False))]
    for row in rows[::every]:
        fields = fields_of_array(imread(data / row["file"])[None], model, settings)
        yield fields, imread(data / row["mask"]).astype(np.int64), integration_config(model, settings)


def bacteria(data: Path, seeds: int, noise: float, smooth: bool) -> Iterator[tuple[Fields, Labels, IntegrationConfig]]:
    """Targets of the reference masks, blurred and noisy."""
    with (data / "manifest.csv").open(newline="") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda r: r["file"])
    for row in rows:
        truth = imread(data / row["mask"]).astype(np.int64)
        targets = targets_from_sketch(truth)
        distance = ndimage.gaussian_filter(targets.distance, 1)
        for seed in range(seeds):
            error = np.random.default_rng(seed).normal(size=targets.flow.shape)
            if smooth:
                error = ndimage.gaussian_filter(error, (0, 3, 3))
                error /= error.std()
            fields = np.concatenate([targets.flow + noise * error, distance[None]]).astype(np.float16)
            yield fields, truth, IntegrationConfig(threshold=-2.0, min_size=20)


def table(title: str, cases: Iterator[tuple[Fields, Labels, IntegrationConfig]], compared: dict[str, Method]) -> None:
    """Score every method on every case, and print."""
    scores: dict[str, list[Scores]] = {name: [] for name in compared}
    for fields, truth, config in cases:
        walked = Walked(fields, config)
        for name, method in compared.items():
            scores[name].append(score_labels(truth, sized(method(walked), config)))
    print(f"\n| {title} | AP 0.5 | AP 0.75 | pooled AP 0.5 | false | missed |\n|---|---|---|---|---|---|", flush=True)
    for name, found in scores.items():
        half, high = [s.at(0.5) for s in found], [s.at(0.75) for s in found]
        tp, fp, fn = (sum(getattr(m, k) for m in half) for k in ("tp", "fp", "fn"))
        means = [np.mean([m.ap for m in matchings]) for matchings in (half, high)]
        print(
            f"| {name} | {means[0]:.3f} | {means[1]:.3f} | {tp / max(1, tp + fp + fn):.3f} | {fp} | {fn} |", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds dsb2018_fluo and omnipose_samples")
    parser.add_argument("--model", default="nuclei-fluo")
    parser.add_argument("--every", type=int, default=1, help="take every n-th of the nuclei images")
    parser.add_argument("--split", default="test", help="of the nuclei: test, train")
    parser.add_argument("--sample", type=int, help="so many of the nuclei images, drawn at random")
    parser.add_argument("--seeds", type=int, default=2, help="of the noise on the bacteria; 0 leaves them out")
    parser.add_argument("--joinings", action="store_true", help="only linked and joined")
    options = parser.parse_args()
    compared = joinings((3, 5), (0.2, 0.3, 0.4, 0.5)) if options.joinings else methods()
    print(f"{options.model}; {platform.machine()}; every {options.every}. nuclei image, {options.seeds} seeds of noise")
    for noise, smooth in ((0.3, False), (0.6, False), (0.3, True), (0.6, True)) if options.seeds else ():
        cases = bacteria(options.data / "omnipose_samples", options.seeds, noise, smooth)
        table(f"bacteria, {'smooth' if smooth else 'white'} noise {noise:g}", cases, compared)
    images = nuclei(options.data / "dsb2018_fluo", options.model, options.split, options.sample, options.every)
    table(f"nuclei, {options.split}", images, compared)


if __name__ == "__main__":
    main()
