"""Are the bounds of distances right beside boundary strokes of any width, and how near are they to the truth?

    python benchmarks/widths.py bounds [--data DATA]
    python benchmarks/widths.py learn --data DATA --steps 250 --rows widths.jsonl
    python benchmarks/widths.py table widths.jsonl

`bounds` outlines 20 objects of each image (drawn shapes, and real masks if DATA is given) as a person does: `exact` on
the pixels just outside, all others with a brush along the interface that misses it by up to 1 px, the widest and one
thin one with a fifth of the outline left out. For each kind and radius:

    two-sided   share of annotated interior whose nearest possible boundary is certain or drawn
    violated    share of all pixels with a bound (interior, background and strokes) on the wrong side of the truth
    slack       px from the bounds of two-sided interior to the truth: mean, and the largest of all but 1 %
    within      share of annotated interior with both bounds within radius + 1/2 px (half the width) + 1 px
    as equal    with strokes as exact interfaces, as they were once: share of "exact" distances that are wrong, mean px
    flow        degrees from the true flow, where it is known: mean

`learn` trains on the outlines of one image of DATA/dsb2018_fluo for each seed, as interior.py does, and tries the model
on the 20 test images nearest in kind. Rows of another version of the code are kept if they have another `--name`.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from interior import learn
from minutes import precisions
from sketch import nearest, picks
from skimage.io import imread
from train_nuclei_fluo import load_split

from sketchscale.annotations.simulate import simulate_strokes
from sketchscale.annotations.simulate_outlines import Brush
from sketchscale.annotations.targets import Targets, targets_from_sketch

KINDS = ("dsb2018_fluo", "dsb2018_he", "usiigaci_phase", "omnipose_samples")
BRUSHES: dict[str, Brush | None] = {
    "exact": None,
    "0.5": Brush(jitter_px=1.0),
    "0.5, gaps": Brush(jitter_px=1.0, gaps=0.2),
    "1": Brush(radius_px=1.0, jitter_px=1.0),
    "2": Brush(radius_px=2.0, jitter_px=1.0),
    "3": Brush(radius_px=3.0, jitter_px=1.0),
    "5": Brush(radius_px=5.0, jitter_px=1.0),
    "5, gaps": Brush(radius_px=5.0, jitter_px=1.0, gaps=0.2),
}
HEAD = (
    "| kind | radius | two-sided | violated | slack below | slack above | within | as equal: wrong | by px | flow |",
    "|" + "---|" * 10,
)
OTHERS = 20


def shapes(seed: int, size: int = 320) -> npt.NDArray[np.int32]:
    """Ellipses of radius 6 to 24 px, a part of them touching; later ones lie behind."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size))
    labels = np.zeros((size, size), np.int32)
    for k in range(1, 31):
        turn, (a, b), (cy, cx) = rng.uniform(0, np.pi), rng.uniform(6, 24, 2), rng.uniform(10, size - 10, 2)
        u, v = (y - cy) * np.cos(turn) + (x - cx) * np.sin(turn), (x - cx) * np.cos(turn) - (y - cy) * np.sin(turn)
        labels[((u / a) ** 2 + (v / b) ** 2 < 1) & (labels == 0)] = k
    return labels


def masks(data: Path | None, kind: str, count: int) -> Iterator[npt.NDArray[np.int32]]:
    """True labels, of at most 512 x 512 px."""
    if kind == "shapes":
        yield from (shapes(seed) for seed in range(count))
    elif data is not None:
        with (data / kind / "manifest.csv").open(newline="") as stream:
            found = [row["mask"] for row in csv.DictReader(stream) if row["mask"]]
        for name in found[:count]:
            labels = imread(data / kind / name).astype(np.int32)[:512, :512].copy()
            if labels.ndim == 2 and labels.any():
                yield labels


@dataclass(frozen=True, slots=True)
class Found:
    """What the bounds of one sketch are worth; arrays over pixels."""

    interior: int
    two_sided: int
    within: int
    bounded: int
    violated: int
    below: npt.NDArray[np.float64]
    above: npt.NDArray[np.float64]
    equal: npt.NDArray[np.float64]
    degrees: npt.NDArray[np.float64]


def measure(truth: npt.NDArray[np.int32], sketched: Targets, half: float) -> Found:
    """Compare the bounds of a sketch with the truth; an exact distance is both bounds."""
    true = targets_from_sketch(truth)
    lower, upper = (np.where(sketched.bounded, b, sketched.signed) for b in (sketched.lower, sketched.upper))
    below, above = true.signed.astype(np.float64) - lower, upper - true.signed.astype(np.float64)
    known = sketched.bounded | sketched.signed_known
    wrong = known & ((below < -1e-4) | (above < -1e-4))
    near = (below <= half + 1 + 1e-4) & (above <= half + 1 + 1e-4) & known
    two = sketched.two_sided
    flows = sketched.flow_known & sketched.inside & true.flow_known & (np.abs(true.flow).sum(axis=0) > 0)
    cosine = np.clip((sketched.flow * true.flow).sum(axis=0)[flows], -1, 1)
    return Found(
        interior=int(sketched.inside.sum()),
        two_sided=int(two.sum()),
        within=int((near & sketched.inside).sum()),
        bounded=int(known.sum()),
        violated=int(wrong.sum()),
        below=below[two],
        above=above[two],
        equal=below[two],
        degrees=np.degrees(np.arccos(cosine)),
    )


def bounds(data: Path | None, count: int, brushes: list[str]) -> Iterator[str]:
    """A row of the table for each kind and brush."""
    yield from HEAD
    everything: list[Found] = []
    for kind in ("shapes", *KINDS):
        for name in brushes:
            brush, found = BRUSHES[name], []
            for seed, truth in enumerate(masks(data, kind, count)):
                raster = simulate_strokes(truth, n_objects=20, seed=seed, brush=brush).rasterize()
                half = 0.5 + (0.5 if brush is None else brush.radius_px)
                found.append(measure(truth, targets_from_sketch(raster.labels, raster.boundary), half))
            if found:
                yield f"| {kind} | {name} | {line(found)} |"
            everything += found
    least = min(f.two_sided / f.interior for f in everything if f.interior)
    violated, bounded = (sum(getattr(f, k) for f in everything) for k in ("violated", "bounded"))
    yield f"\n{violated} of {bounded} bounds violated; the least two-sided share of any sketch {least:.2f}"


def line(found: list[Found]) -> str:
    """The columns of one row."""
    below, above, equal, degrees = (
        np.concatenate([getattr(f, k) for f in found]) for k in ("below", "above", "equal", "degrees")
    )
    interior, bounded = (max(1, sum(getattr(f, k) for f in found)) for k in ("interior", "bounded"))
    violated = sum(f.violated for f in found)
    wrong = np.abs(equal) > 1e-4
    columns = [
        f"{sum(f.two_sided for f in found) / interior:.3f}",
        f"{violated / bounded:.5f} ({violated})",
        *(f"{part.mean():.2f}, {np.quantile(part, 0.99):.2f}" for part in (below, above)),
        f"{sum(f.within for f in found) / interior:.3f}",
        f"{wrong.mean():.1%}",
        f"{equal[wrong].mean() if wrong.any() else 0:.2f}",
        f"{degrees.mean():.1f}",
    ]
    return " | ".join(columns)


def train_rows(options: argparse.Namespace) -> None:
    """Add a row to `--rows` for each seed and brush that is not there."""
    torch.set_num_threads(options.threads)
    rows = [json.loads(text) for text in options.rows.read_text().splitlines()] if options.rows.exists() else []
    done = {(r["name"], r["radius"], r["seed"]) for r in rows}
    test = load_split(options.data / "dsb2018_fluo", "test")
    chosen = picks(load_split(options.data / "dsb2018_fluo", "train"), max(options.seeds) + 1, 20, 0)
    for seed in options.seeds:
        for radius in options.radii:
            if (options.name, radius, seed) not in done:
                rows.append(trained(chosen[seed], test, radius, options, seed))
                options.rows.write_text("".join(json.dumps(r) + "\n" for r in rows))


def trained(image: Any, test: list[Any], radius: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train on the outlines of one image, and try the model on others."""
    raster = simulate_strokes(image.labels, n_objects=20, seed=seed, brush=BRUSHES[radius]).rasterize()
    drawn = replace(image, labels=raster.labels, boundary=raster.boundary)
    model = learn(drawn, None, argparse.Namespace(minutes=5.0, steps=options.steps, threads=options.threads), seed)
    return {
        "name": options.name,
        "radius": radius,
        "seed": seed,
        "steps": options.steps,
        "threshold": model.config.threshold,
        "ap": round(float(np.mean(precisions(model, nearest(image, test, options.others)))), 4),
    }


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Mean AP at 0.5 of each seed, over the test images, by brush and version."""
    yield "| radius | strokes are | seeds | AP 0.5 | of each seed |"
    yield "|---|---|---|---|---|"
    for radius in BRUSHES:
        for name in dict.fromkeys(row["name"] for row in rows):
            means = [r["ap"] for r in rows if r["radius"] == radius and r["name"] == name]
            if means:
                each = ", ".join(f"{mean:.3f}" for mean in means)
                yield f"| {radius} | {name} | {len(means)} | {np.mean(means):.3f} | {each} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("bounds")
    one.add_argument("--data", type=Path)
    one.add_argument("--images", type=int, default=5, help="of each kind")
    one.add_argument("--radii", nargs="+", choices=BRUSHES, default=list(BRUSHES))
    two = commands.add_parser("learn")
    two.add_argument("--data", type=Path, required=True)
    two.add_argument("--steps", type=int, default=250)
    two.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    two.add_argument("--radii", nargs="+", choices=BRUSHES, default=["exact", "3"])
    two.add_argument("--others", type=int, default=OTHERS)
    two.add_argument("--threads", type=int, default=1)
    two.add_argument("--name", default="regions")
    two.add_argument("--rows", type=Path, required=True)
    commands.add_parser("table").add_argument("rows", type=Path)
    options = parser.parse_args()
    if options.command == "bounds":
        for text in bounds(options.data, options.images, options.radii):
            print(text, flush=True)
    elif options.command == "learn":
        train_rows(options)
    else:
        print("\n".join(table([json.loads(text) for text in options.rows.read_text().splitlines()])))


if __name__ == "__main__":
    main()
