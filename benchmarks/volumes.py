"""What do strokes in three planes of ten objects teach a network of volumes, and what does it cost?

    python benchmarks/volumes.py --work DIR              a scene, a training on one half, the score of the other half
    python benchmarks/volumes.py --real DATA --work DIR  the real stack: nuclei of 31 x 61 x 57 voxels, 51 that touch
    python benchmarks/volumes.py --costs --work DIR      processor seconds of a step, for several sizes
    python benchmarks/volumes.py --tiny --work DIR       the first on a small scene with a few steps

The scene: a stack of 60 x 512 x 512 voxels with sections 2 px apart (spacing 2 : 1 : 1), and in it about 150 ellipsoids
with half axes of 8 to 16 px, turned at random; a third of them touch another one. Objects give 39 photons a voxel and
background 7.8; the mean is blurred by a Gaussian of sigma 2 x 1 x 1 voxels, and Poisson noise is drawn from it: a
signal-to-noise ratio of 5, (39 - 7.8) / sqrt(39).

Ten objects of the half x < 256, picked at random with those that they touch, are drawn in the three planes through
their middle, each plane in a window of 24 px around the object (annotations.simulate_planes). `train --volume` learns
from them with one thread of torch. `segment --volume` outlines the other half, x >= 256, as an image of its own.

AP 0.5 of the other half must be at least .80, a training fits in 10 minutes of two cores, and memory in 4 GB. Times of
a loaded machine say little, so that the processor time of the process (all threads) is printed as well.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

import sketchscale
from sketchscale.annotations.events import append_events
from sketchscale.annotations.simulate_planes import simulate_planes
from sketchscale.evaluation import score_labels
from sketchscale.losses import loss_config
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import load_model
from sketchscale.training.config import Step, TrainingConfig
from sketchscale.training.loop import train
from sketchscale.training.patches import TrainingImage

RATIO = 2.0
PHOTONS = (7.8, 39.0)
BLUR = (2, 1, 1)
COSTS = ((8, 2, 64, 2.0), (8, 4, 64, 2.0), (16, 2, 64, 2.0), (8, 2, 48, 2.0), (8, 2, 32, 2.0), (8, 2, 64, 1.0))
"""Width, batch, patch and anisotropy."""

Labels = npt.NDArray[np.int32]
HalfAxes = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """Centre in voxels, half axes in px, and axes as columns."""

    centre: npt.NDArray[np.float64]
    half: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]

    @classmethod
    def drawn(cls, rng: np.random.Generator, half: HalfAxes, number: int) -> Ellipsoid:
        """Object of this number at a random orientation."""
        turn = Rotation.random(random_state=int(rng.integers(1 << 31))).as_matrix()
        return cls(centre=np.zeros(3), half=half(rng, number), axes=turn)

    def reach(self, way: npt.NDArray[np.float64]) -> float:
        """How far it extends along a unit vector, px."""
        return float(np.linalg.norm((way @ self.axes) * self.half))

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether all of it lies in a stack."""
        sides = np.array([self.reach(way) for way in np.eye(3)]) / (RATIO, 1, 1)
        return bool((self.centre >= sides).all() and (self.centre + sides < shape).all())

    def radii(self, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], npt.NDArray[np.float64]]:
        """A box around it with 4 px on all sides, and in it 1 on the surface, growing in proportion to the distance."""
        sides = (np.array([self.reach(way) for way in np.eye(3)]) + 4) / (RATIO, 1, 1)
        low, high = np.floor(self.centre - sides).astype(int), np.ceil(self.centre + sides).astype(int) + 1
        box = tuple(slice(max(0, a), min(n, b)) for a, b, n in zip(low.tolist(), high.tolist(), shape, strict=True))
        places = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij"), axis=-1)
        apart = (places - self.centre) * (RATIO, 1, 1)
        return box, np.linalg.norm((apart @ self.axes) / self.half, axis=-1)


def place(labels: Labels, one: Ellipsoid, touching: int = 0) -> bool:
    """Add an object 3 px away from all others but one, which it has to touch; return whether it fits."""
    box, radii = one.radii(labels.shape)
    near = np.unique(labels[box][radii < 1 + 3 / one.half.min()])
    free = (radii < 1) & (labels[box] == 0)
    if np.setdiff1d(near, [0, touching]).size or free.sum() < 0.9 * (radii < 1).sum():
        return False
    if touching and not (ndimage.binary_dilation(free) & (labels[box] == touching)).any():
        return False
    labels[box][free] = labels.max() + 1
    return True


def random_half(rng: np.random.Generator, number: int) -> npt.NDArray[np.float64]:
    """Half axes of 8 to 16 px."""
    return rng.uniform(8, 16, 3)


def scene(shape: tuple[int, int, int], count: int, seed: int, half: HalfAxes = random_half) -> tuple[Labels, int]:
    """Labels of ellipsoids, and how many of them touch another one: a third. `half`: half axes of object number k."""
    rng, labels, pairs = np.random.default_rng(seed), np.zeros(shape, np.int32), count // 6
    wanted = pairs
    while labels.max() < count:
        centre = rng.uniform((0, 0, 0), shape)
        first = replace(Ellipsoid.drawn(rng, half, int(labels.max()) + 1), centre=centre)
        if not first.fits(shape) or not place(labels, first):
            continue
        number = int(labels.max())
        for _ in range(100 if pairs else 0):
            way = rng.normal(size=3)
            way /= np.linalg.norm(way)
            second = Ellipsoid.drawn(rng, half, int(labels.max()) + 1)
            apart = first.reach(way) + second.reach(way) - 2
            second = replace(second, centre=first.centre + apart * way / (RATIO, 1, 1))
            if second.fits(shape) and place(labels, second, number):
                pairs -= 1
                break
    return labels, 2 * (wanted - pairs)


def photographed(photons: npt.NDArray[np.floating], seed: int) -> npt.NDArray[np.uint16]:
    """Blurred, with Poisson noise."""
    mean = ndimage.gaussian_filter(photons.astype(np.float32), BLUR)
    return np.random.default_rng((seed, 1)).poisson(mean).astype(np.uint16)


def stored(folder: Path, name: str, stack: npt.NDArray[np.uint16], ratio: float = RATIO) -> str:
    """Write a stack (z, y, x) or (c, z, y, x) as an OME-Zarr image; return its address."""
    source, target = folder / f"{name}.tif", folder / f"{name}.zarr"
    tifffile.imwrite(source, stack, photometric="minisblack")
    sketchscale.convert(
        str(source), str(target), axes="czyx"[4 - stack.ndim :], spacing=1.0, depth=ratio, chunk=64, overwrite=True
    )
    return str(target)


def score(truth: Labels, labels: npt.NDArray[np.uint32]) -> dict[str, float]:
    """AP at 0.5 and 0.75, and the numbers of objects."""
    found = score_labels(truth, labels, (0.5, 0.75)).as_dict()
    return {
        "AP 0.5": found["ap"]["0.5"],
        "AP 0.75": found["ap"]["0.75"],
        "true": truth_count(truth),
        "found": int(labels.max()),
    }


def truth_count(truth: Labels) -> int:
    """Number of true objects."""
    return int(np.unique(truth[truth > 0]).size)


def learn(work: Path, image: str, truth: Labels, options: argparse.Namespace) -> dict[str, Any]:
    """Draw strokes, train; return what it cost."""
    sketch = simulate_planes(truth, n_objects=options.objects, seed=options.seed)
    log, began, cpu = work / "sketch.jsonl", time.perf_counter(), time.process_time()
    log.unlink(missing_ok=True)
    append_events(log, sketch.events)
    sizes = {name: getattr(options, name) for name in ("width", "batch", "patch", "loss") if getattr(options, name)}
    sketchscale.train(
        image,
        sketch=str(log),
        out=str(work / "model"),
        volume=True,
        steps=options.steps,
        threads=1,
        seed=options.seed,
        overwrite=not options.resume,
        resume=options.resume,
        **sizes,
    )
    summary, took = sketch.summary(), time.perf_counter() - began
    in_steps = float(load_model(work / "model").provenance["seconds"])
    return {
        "objects drawn": options.objects,
        "annotated": f"{sum(summary.pixels.values()) / truth.size:.1%}",
        "steps": options.steps,
        "s a step": f"{in_steps / options.steps:.2f}",
        "training s": round(took),
        "training cpu s": round(time.process_time() - cpu),
        "training GB": f"{peak_gb():.1f}",
    }


def peak_gb() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def outline(work: Path, image: str, truth: Labels) -> dict[str, Any]:
    """Segment an image with the trained model; return the scores, and what it cost."""
    began = time.perf_counter()
    found = np.asarray(sketchscale.segment(image, model=str(work / "model"), volume=True, overwrite=True))
    scores = score(truth, found)
    return {**scores, "segment s": round(time.perf_counter() - began), "peak GB": f"{peak_gb():.1f}"}


def half_scene(options: argparse.Namespace) -> dict[str, Any]:
    """Train on one half of a scene, and outline the other."""
    shape, count = ((60, 512, 512), 150) if not options.tiny else ((24, 96, 192), 8)
    labels, touching = scene(shape, count, options.seed)
    stack, half = photographed(np.where(labels > 0, PHOTONS[1], PHOTONS[0]), options.seed), shape[2] // 2
    print(f"scene: {count} objects, {touching} of them touch another one, {shape} voxels, seed {options.seed}\n")
    left, right = (stored(options.work, n, p) for n, p in (("left", stack[..., :half]), ("right", stack[..., half:])))
    cost = learn(options.work, left, labels[..., :half], options)
    return cost | outline(options.work, right, labels[..., half:])


def real_stack(options: argparse.Namespace) -> dict[str, Any]:
    """Train on some nuclei of the real stack, and outline all of it: there is no other one."""
    folder = options.real / "misc_cells"
    stack, labels = (tifffile.imread(folder / kind / "stardist_img3d.tif") for kind in ("images", "masks"))
    image = stored(options.work, "real", stack)
    return learn(options.work, image, labels.astype(np.int32), options) | outline(options.work, image, labels)


def costs(options: argparse.Namespace) -> None:
    """Print processor seconds of a step for several sizes: the median of eight, patches drawn in the same thread."""
    labels, _ = scene((60, 160, 160), 12, options.seed)
    raster = simulate_planes(labels, n_objects=5, seed=options.seed).rasterize()
    image = np.where(labels > 0, 0.9, 0.1).astype(np.float32)[None]
    drawn = TrainingImage(image=image, labels=raster.labels, boundary=raster.boundary)
    print("| width | patches | anisotropy | voxels a step | cpu s a step |\n|---|---|---|---|---|")
    for width, batch, patch, ratio in COSTS:
        widths = tuple(width * 2**level for level in range(4))
        network = NetworkConfig(dim=3, outputs=4, widths=widths, anisotropy=ratio)
        sizes: dict[str, Any] = {"batch": batch, "patch": patch, "threads": 1, "workers": 0}
        took = step_s(drawn, TrainingConfig(network=network, loss=loss_config("eikonal"), steps=6, **sizes))
        size, voxels = " x ".join(map(str, network.sizes(patch))), batch * np.prod(network.sizes(patch))
        print(f"| {width} | {batch} of {size} | {ratio:g} | {voxels:,} | {took:.2f} |", flush=True)


def step_s(image: TrainingImage, config: TrainingConfig) -> float:
    """Median processor seconds of the steps of a training, which is ended at the last one."""
    marks: list[float] = []

    def mark(step: Step) -> None:
        marks.append(time.process_time())
        if step.step == config.steps - 1:
            raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        train([image], config, run_folder=folder, on_step=mark)
    return float(np.median(np.diff(marks)))


def main() -> None:
    """Print a row of the table, or the costs of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    for name in ("width", "batch", "patch"):
        parser.add_argument(f"--{name}", type=int, help="as of `train`")
    parser.add_argument("--loss", help="as of `train`")
    parser.add_argument("--real", type=Path, metavar="DATA", help="take the real stack in DATA/misc_cells")
    parser.add_argument("--resume", action="store_true", help="go on with the training in --work")
    parser.add_argument("--costs", action="store_true", help="only the time of a step, for several sizes")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.tiny:
        options.steps, options.objects, options.patch = 2, 3, 32
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if options.costs:
        costs(options)
        return
    row = half_scene(options) if options.real is None else real_stack(options)
    print("| " + " | ".join(row) + " |")
    print("|---" * len(row) + "|")
    print("| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()) + " |")


if __name__ == "__main__":
    main()
