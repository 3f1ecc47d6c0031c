r"""What do centre points alone reach? Segmenters trained with points, with pairs painted from them, and with strokes.

    python benchmarks/synthesis.py paint --data DATA --set dsb2018_he --runs RUNS
    python benchmarks/synthesis.py score --data DATA --set dsb2018_he --runs RUNS
    python benchmarks/synthesis.py logits --data DATA --set monuseg --runs RUNS --steps 200
    python benchmarks/synthesis.py train --data DATA --set dsb2018_he --runs RUNS --out CELLS
    python benchmarks/synthesis.py table CELLS...

`paint` trains a synthesis on the training images and the centres of their objects, on nothing else; the size of the
layouts' objects is the only number that a person has to give. `score` prints a row: distances of painted from real
crops in texture and colour (and between two halves of the real ones), what noise changes in pixels and features (and
what another layout changes), and the AJI of painted objects that are read back. `logits` prints the least logit of the
foreground at a point during the first steps: a loss that is flat below some logit differs only where it falls that low.
`train` trains the same small network from random weights with equal steps on

    dots               a disc of the layouts' size around each point, cut halfway to the next; all else is background
    synthetic          300 painted pairs
    points             the training images with what `synthesize outline` sees around the points
    points, again      what it sees with the model of `points`
    points, synthetic  both
    strokes            twenty objects as a person strokes them: inside, around, and background beside
    points + strokes   what the synthesis and the model of `strokes` see together around the points, and the strokes
    dense              every pixel

and segments every test image, with what `calibrate` found on the annotation at hand. Every finished cell is a line of
JSON in CELLS, and is not run again. `--local-noise` draws so many random numbers for each pixel as well; the rows of
such a synthesis are in their own table. `table` prints means over the test images, and over seeds with their standard
deviation. `--full` is the papers' size, for a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accuracy import add, finished, load_images, mean_and_spread, recipe
from scipy import ndimage
from scipy.spatial import KDTree

from sketchscale.annotations.simulate import simulate_strokes
from sketchscale.annotations.sketch import RasterSketch
from sketchscale.config import SegmentOptions
from sketchscale.evaluation import score_labels
from sketchscale.integration.plan import integrate
from sketchscale.networks.checkpoint import Model
from sketchscale.synthesis.gan import PAPER_SIZE, Gan, GanConfig
from sketchscale.synthesis.layouts import LayoutPrior
from sketchscale.synthesis.model import load_synthesis, save_synthesis
from sketchscale.synthesis.outlines import OutlineConfig, leave_drawn, outline_image
from sketchscale.synthesis.pairs import draw_pair
from sketchscale.synthesis.quality import consistency, diversity, fidelity
from sketchscale.synthesis.scenes import PointedImage
from sketchscale.synthesis.training import SynthesisHooks, make_scenes, train_synthesis
from sketchscale.training.loop import predict_image, train
from sketchscale.training.patches import TrainingImage
from sketchscale.workflow.segment.job import integration_config
from sketchscale.workflow.train.calibrate import calibrate

PRIORS = {"dsb2018_he": LayoutPrior(diameter=21, spread=0.7), "monuseg": LayoutPrior(diameter=24, spread=0.6)}
ROWS = ("dots", "synthetic", "points", "points, again", "points, synthetic", "strokes", "points + strokes", "dense")
PAIRS, SCENE, STROKED = 300, 256, 20
CROPS, CROP = 200, 128
NOTES = (
    "dots: discs of the layouts' diameter, cut halfway to the next point, which is much for round nuclei of one size",
    "points + strokes: two small networks are trained, that of the strokes reads along when the points are outlined;",
    "points, again: the control, two networks without strokes",
)


def centres_of(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """(n, 2): the centre of mass of each object, to the pixel; of objects that share it, one."""
    ids = np.unique(labels[labels > 0])
    middle = np.array(ndimage.center_of_mass(np.ones_like(labels), labels, ids)).reshape(-1, 2)
    return np.unique(np.round(middle), axis=0)


def pointed(images: Sequence[TrainingImage]) -> list[PointedImage]:
    found = [
        PointedImage(
            image=(np.clip(image.image, 0, 1) * 2 - 1).astype(np.float32),
            points=centres_of(image.labels),
            name=image.name,
        )
        for image in images
    ]
    return [image for image in found if len(image.points)]


def dotted(image: TrainingImage, diameter: float) -> TrainingImage:
    """Discs around the points, cut where another point is nearer."""
    points = centres_of(image.labels)
    labels = np.zeros(image.labels.shape, np.int32)
    if len(points):
        pixels = np.stack(np.mgrid[: labels.shape[0], : labels.shape[1]], -1).reshape(-1, 2)
        distance, nearest = KDTree(points).query(pixels, k=1)
        labels = np.where(distance <= diameter / 2, nearest + 1, 0).reshape(labels.shape).astype(np.int32)
    return replace(image, labels=labels)


def stroked(images: Sequence[TrainingImage], seed: int) -> list[TrainingImage]:
    """Two strokes' objects in each of the first images, until there are twenty; nothing else is known."""
    order = np.random.default_rng(seed).permutation(len(images))
    found: list[TrainingImage] = []
    left = STROKED
    for i in order:
        if left == 0:
            break
        count = min(left, 4, len(np.unique(images[i].labels)) - 1)
        if count:
            raster = simulate_strokes(images[i].labels, n_objects=count, seed=seed).rasterize()
            found.append(replace(images[i], labels=raster.labels, boundary=raster.boundary))
            left -= count
    return found


def painted(options: argparse.Namespace, seed: int) -> list[TrainingImage]:
    synthesis = load_synthesis(str(synthesis_of(options)))
    pairs = (draw_pair(synthesis, (SCENE, SCENE), seed=(seed, i)) for i in range(PAIRS))
    return [
        TrainingImage(image=pair.image, labels=pair.labels.astype(np.int32), name=f"painted {i}")
        for i, pair in enumerate(pairs)
    ]


def synthesis_of(options: argparse.Namespace) -> Path:
    size = "full" if options.full else "small"
    noise = f"-local-{options.local_noise}" if options.local_noise else ""
    return Path(options.runs) / f"synthesis-{options.set}-{size}{noise}"


def paint_config(options: argparse.Namespace, channels: int) -> GanConfig:
    base = PAPER_SIZE if options.full else GanConfig()
    return replace(
        base,
        generator=replace(base.generator, channels=channels, local_noise=options.local_noise),
        prior=PRIORS[options.set],
        given=0.7,
        steps=options.steps or base.steps,
        device="cuda" if options.full else "cpu",
        threads=options.threads,
    )


def run_paint(options: argparse.Namespace) -> None:
    images = pointed(load_images(options.data / options.set, "train"))
    config, folder = paint_config(options, images[0].channels), synthesis_of(options)

    def say(step: Any) -> None:
        if step.step % 50 == 0:
            print(step.step, round(step.elapsed_s), {k: round(v, 3) for k, v in step.terms.items()}, flush=True)

    hooks = SynthesisHooks(on_step=say)
    made = train_synthesis(images, config, run_folder=str(folder / "run"), hooks=hooks, resume=True)
    save_synthesis(str(folder), made)


def run_logits(options: argparse.Namespace) -> None:
    """Train for some steps, and print the least logit at a point of generated and of real crops, 20 steps a row."""
    images = pointed(load_images(options.data / options.set, "train"))
    config = paint_config(options, images[0].channels)
    scenes, gan = make_scenes(images, config), Gan(config, torch.device(config.device))
    seen: list[torch.Tensor] = []
    gan.nets["f"].register_forward_hook(lambda module, inputs, outputs: seen.append(outputs.detach()[:, 2]))
    least: list[list[float]] = []
    for step in range(config.steps):
        batch = scenes.batch(step, range(config.batch))
        gan.learn(batch, step)
        # the first call is on generated crops, the second on real ones
        pairs = zip(seen, (batch.map_points, batch.image_points), strict=True)
        least.append([float(logits[points].min()) if points.any() else 0.0 for logits, points in pairs])
        seen.clear()
        if (step + 1) % 20 == 0:
            painted, real = np.min(least[-20:], axis=0)
            print(f"| {step - 18} to {step + 1} | {painted:.2f} | {real:.2f} |", flush=True)


def run_score(options: argparse.Namespace) -> None:
    """Print the figures of quality.py for a finished synthesis."""
    synthesis = load_synthesis(str(synthesis_of(options)))
    images = pointed(load_images(options.data / options.set, "test"))
    pairs = [draw_pair(synthesis, (CROP, CROP), seed=(0, k)) for k in range(CROPS // 2)]
    layouts = [pair.labels for pair in pairs if pair.labels.any()]
    near = fidelity([i for i in images if min(i.shape) >= CROP], [p.image for p in pairs], crops=CROPS, crop=CROP)
    varied = diversity(synthesis, layouts[:10], range(4))
    found = consistency(synthesis, layouts)
    print(
        f"| {synthesis.config.generator.local_noise} | {synthesis.provenance['steps']} | {near.texture.frechet:.2f} "
        f"({near.texture.frechet_floor:.2f}) | {near.colour.frechet:.2f} ({near.colour.frechet_floor:.2f}) | "
        f"{varied.pixels:.4f} | {varied.features:.2f} ({varied.layouts:.2f}) | {found.aji:.3f} |"
    )


def outlined(
    options: argparse.Namespace, images: Sequence[TrainingImage], model: Model | None = None
) -> list[TrainingImage]:
    """What the synthesis sees around the points, and the model with it; every object has its point."""
    synthesis, every = load_synthesis(str(synthesis_of(options))), OutlineConfig(all_clicked=True)
    labels = {image.name: outline_image(synthesis, image, every, model) for image in pointed(images)}
    empty = np.zeros((1, 1), np.int32)
    return [
        replace(image, labels=labels.get(image.name, np.broadcast_to(empty, image.labels.shape))) for image in images
    ]


def with_strokes(seen: TrainingImage, strokes: TrainingImage) -> TrainingImage:
    """Strokes, and outlines beside them."""
    boundary = np.zeros(seen.labels.shape, bool) if strokes.boundary is None else strokes.boundary
    rest = leave_drawn(seen.labels, RasterSketch(labels=strokes.labels, boundary=boundary))
    shifted = np.where(strokes.labels > 0, strokes.labels + seen.labels.max() + 1, strokes.labels)
    return replace(strokes, labels=np.where(strokes.labels >= 0, shifted, rest).astype(np.int32))


def annotation(options: argparse.Namespace, row: str, seed: int, images: list[TrainingImage]) -> list[TrainingImage]:
    """What a row knows. Patches are drawn from all images alike, so these are repeated where pairs would drown them."""
    if row == "dense":
        return images
    if row == "dots":
        return [dotted(image, PRIORS[options.set].diameter) for image in images]
    strokes = stroked(images, seed) if "strokes" in row else []
    if row == "points + strokes":
        drawn = {image.name: image for image in strokes}
        seen = outlined(options, images, fitted(options, "strokes", seed, strokes))
        return [with_strokes(image, drawn[image.name]) if image.name in drawn else image for image in seen]
    seen = outlined(options, images) if "points" in row else []
    if row == "points, again":
        return outlined(options, images, fitted(options, "points", seed, seen))
    pairs = painted(options, seed) if "synthetic" in row else []
    return [*seen * max(1, len(pairs) // max(1, len(seen))), *pairs, *strokes]


def aji(model: Model, images: Sequence[TrainingImage]) -> dict[str, float]:
    """By image, and AP at 0.5."""
    rule = integration_config(model, SegmentOptions())
    scores = [
        score_labels(i.labels.astype(np.uint32), integrate(predict_image(model, i.image), rule), (0.5,)) for i in images
    ]
    return {
        "aji": float(np.mean([s.aji for s in scores])),
        "dice": float(np.mean([s.dice for s in scores])),
        "ap50": float(np.mean([s.matchings[0].ap for s in scores])),
    }


def fitted(options: argparse.Namespace, row: str, seed: int, annotated: Sequence[TrainingImage]) -> Model:
    """A small network trained from random weights, and calibrated, on what a row knows."""
    config = recipe(options, "sketchpose", annotated[0].image.shape[0], seed)
    name = "-".join(row.replace(",", " ").replace("+", " ").split())
    noise = f"-local-{options.local_noise}" if options.local_noise else ""
    run = options.runs / f"{options.set}-{name}-{seed}-{config.steps}{noise}"
    return calibrate(train(annotated, config, run_folder=run, resume=True), annotated)


def run_train(options: argparse.Namespace) -> None:
    """Train and try every cell that CELLS lacks."""
    images, test = (load_images(options.data / options.set, split) for split in ("train", "test"))
    if options.tiny:
        images, test = images[:4], test[:2]
    for seed in options.seed:
        for row in options.rows:
            steps = recipe(options, "sketchpose", 1, seed).steps
            key = {"set": options.set, "row": row, "seed": seed, "full": options.full, "steps": steps}
            key |= {"local_noise": options.local_noise}
            if any(key.items() <= ({"local_noise": 0} | cell).items() for cell in finished(options.out)):
                continue
            model = fitted(options, row, seed, annotation(options, row, seed, images))
            found = aji(model, test) | {"threshold": model.config.threshold, "min_size": model.config.min_size}
            add(options.out, key | found | {"seconds": model.provenance["seconds"]})


def table(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One table per set: a row per annotation, and its share of what dense labels give."""
    for name, noise in sorted({(cell["set"], cell.get("local_noise", 0)) for cell in cells}):
        rows = [cell for cell in cells if (cell["set"], cell.get("local_noise", 0)) == (name, noise)]
        by_row = {row: {cell["seed"]: cell["aji"] for cell in rows if cell["row"] == row} for row in ROWS}
        dense, dots = by_row["dense"], by_row["dots"]
        local = f"local noise {noise}, " if noise else ""
        yield f"{name}: {local}random weights, steps {sorted({cell['steps'] for cell in rows})}\n"
        yield "| annotation | seeds | AJI | above dots | of dense | Dice | AP 0.5 |"
        yield "|---|---|---|---|---|---|---|"
        for row in ROWS:
            found = [cell for cell in rows if cell["row"] == row]
            if not found:
                continue
            above = [c["aji"] - dots[c["seed"]] for c in found if c["seed"] in dots and row != "dots"]
            share = [c["aji"] / dense[c["seed"]] for c in found if c["seed"] in dense and row != "dense"]
            yield (
                f"| {row} | {len(found)} | {mean_and_spread([c['aji'] for c in found])} | "
                f"{mean_and_spread(above) if above else ''} | {mean_and_spread(share) if share else ''} | "
                f"{mean_and_spread([c['dice'] for c in found])} | {mean_and_spread([c['ap50'] for c in found])} |"
            )
        yield ""
        yield from _both(by_row)
    yield from NOTES


def _both(by_row: dict[str, dict[int, float]]) -> Iterator[str]:
    """Are points and strokes together better than the better of the two, seed by seed?"""
    points, strokes = by_row["points"], by_row["strokes"]
    gains = [
        aji - max(points[seed], strokes[seed])
        for seed, aji in by_row["points + strokes"].items()
        if seed in points and seed in strokes
    ]
    if gains:
        won = sum(gain > 0 for gain in gains)
        yield f"points + strokes above the better of either: {mean_and_spread(gains)}, in {won} of {len(gains)} seeds\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("paint", "score", "logits", "train"):
        command = commands.add_parser(name)
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--set", choices=sorted(PRIORS), default="dsb2018_he")
        command.add_argument("--runs", type=Path, required=True, help="folder of syntheses and training states")
        command.add_argument("--steps", type=int)
        command.add_argument("--threads", type=int, default=2)
        command.add_argument("--full", action="store_true", help="the papers' size, on a GPU")
        command.add_argument("--local-noise", type=int, default=0, help="random numbers drawn for each pixel")
    cells = commands.choices["train"]
    cells.add_argument("--out", type=Path, required=True, help="file of finished cells, appended to")
    cells.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    cells.add_argument("--seed", type=int, nargs="+", default=[0])
    cells.add_argument("--tiny", action="store_true", help="a few images, to see that it runs")
    commands.add_parser("table").add_argument("cells", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "table":
        print("\n".join(table([cell for path in options.cells for cell in finished(path)])))
        return
    torch.set_num_threads(options.threads)
    run = {"paint": run_paint, "score": run_score, "logits": run_logits, "train": run_train}
    run[options.command](options)


if __name__ == "__main__":
    main()
