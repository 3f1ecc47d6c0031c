"""How fast, how small and how sturdy is the way from fields to labels, next to the post-processing of Cellpose 4?

    python benchmarks/integration.py [--size 8000] [--objects 17000] [--peer PEER/bin/python]      time and memory
    python benchmarks/integration.py --noise [--seeds 10]                                          AP under noisy flow
    python benchmarks/integration.py --tiny                                                        both, in seconds

Input: ellipses and rods of 20 to 60 px with exact flow, about half of them touching another. Ours goes from float16
fields in storage to final labels in storage; the peer, which takes arrays, from arrays in memory to an array in memory
(flow of its own kind, `compute_masks` without its flow filter, which alone takes ten times as long). Each contender is
a process of its own; imports, compilation and the making of the input are not timed. The peer needs an environment of
its own with cellpose 4 (`--peer`); without one it is skipped, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PEER = """
import json, sys, time, types
sys.modules["torchvision._meta_registrations"] = types.ModuleType("skipped")  # its wheel may not match the CPU torch
import numpy as np, torch
from cellpose import dynamics
folder, repeats = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(int(sys.argv[3]))
def memory(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith(name))
labels, times = np.load(folder + "/tile.npy"), int(sys.argv[4])
flow = dynamics.labels_to_flows([labels.astype(np.int32)], device=torch.device("cpu"))[0][2:4]
np.save(folder + "/peer_flow.npy", np.asarray(flow, np.float32))
"""
PEER_RUN = """
flow = np.tile(5 * np.load(folder + "/peer_flow.npy"), (1, times, times))
inside = np.tile(np.where(labels > 0, 5, -5).astype(np.float32), (times, times))
dynamics.compute_masks(flow[:, :512, :512], inside[:512, :512], niter=200, flow_threshold=0.0)  # warm-up
before, seconds = memory("VmRSS"), []
for _ in range(repeats):
    start = time.perf_counter()
    masks = dynamics.compute_masks(flow, inside, niter=200, flow_threshold=0.0, min_size=15)
    seconds.append(time.perf_counter() - start)
np.save(folder + "/peer.npy", masks)
print(json.dumps({"seconds": seconds, "peak_gb": memory("VmHWM"), "before_gb": before, "objects": int(masks.max())}))
"""


def scene(side: int, count: int, seed: int) -> npt.NDArray[np.int32]:
    """Labels of `count` ellipses and rods; each keeps 85 % of its area free of earlier ones and is connected."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    done = 0
    while done < count:
        shape = drawn_object(rng)
        radius = shape.shape[0] // 2
        y, x = rng.integers(radius + 2, side - radius - 2, 2)
        window = labels[y - radius : y + radius + 1, x - radius : x + radius + 1]
        free = shape & (window == 0)
        if free.sum() >= 0.85 * shape.sum() and ndimage.label(free)[1] == 1:
            done += 1
            window[free] = done
    return labels


def drawn_object(rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """An ellipse or a rod, 20 to 60 px long, at a random angle, in the middle of a square."""
    length, angle, rod = rng.uniform(20, 60), rng.uniform(0, np.pi), rng.random() < 0.5
    width = rng.uniform(9, 18) if rod else length * rng.uniform(0.45, 1)
    radius = int(length / 2) + 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if rod:
        return np.hypot(np.maximum(np.abs(along) - (length - width) / 2, 0), across) <= width / 2
    return np.hypot(along / (length / 2), across / (width / 2)) <= 1


def exact_fields(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """What a perfect network would predict for these labels."""
    from sketchscale.annotations.targets import targets_from_sketch

    targets = targets_from_sketch(labels)
    return np.stack([*targets.flow, targets.distance]).astype(np.float32)


def describe(labels: npt.NDArray[np.int32]) -> str:
    """Objects, foreground, median area, and how many touch another."""
    sizes = np.bincount(labels.ravel())[1:]
    touching: set[int] = set()
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        edge = (a != b) & (a > 0) & (b > 0)
        touching |= set(a[edge].tolist()) | set(b[edge].tolist())
    return (
        f"{sizes.size} objects, {100 * np.mean(labels > 0):.1f} % foreground, median {np.median(sizes):.0f} px, "
        f"{100 * len(touching) / sizes.size:.0f} % touch another"
    )


def store_input(folder: Path, labels: npt.NDArray[np.int32], times: int, chunk: int) -> None:
    """The tile as it is for checks, and `times` x `times` of it as stored fields."""
    from sketchscale.geometry import tile_cover
    from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, write_box

    fields = exact_fields(labels).astype(np.float16)
    np.save(folder / "tile.npy", labels)
    shape = (3, *(n * times for n in labels.shape))
    ref = ArrayRef(store=str(folder), path="fields")
    create_array(ref, shape=shape, chunks=(3, chunk, chunk), dtype=np.float16, compress=False)
    for tile in tile_cover(shape, (3, chunk, shape[2])):
        rows = np.arange(tile.write.start[1], tile.write.stop[1]) % labels.shape[0]
        write_box(ref, tile.write, np.tile(fields[:, rows], (1, 1, times)))


def memory_gb(name: str) -> float:
    """VmHWM (peak) or VmRSS (now) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith(name))


def run_ours(folder: Path, block: int, workers: int, repeats: int, method: str) -> dict[str, Any]:
    """Fields in storage to labels in storage, `repeats` times after a warm-up on one corner."""
    from sketchscale.engine import open_engine
    from sketchscale.geometry import Box
    from sketchscale.integration.config import IntegrationConfig
    from sketchscale.integration.plan import integrate, integrate_stored, read_fields
    from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, open_array

    config = IntegrationConfig(threshold=-2.0, method=method)  # type: ignore[arg-type]
    fields, target = ArrayRef(store=str(folder), path="fields"), ArrayRef(store=str(folder), path="labels")
    shape = open_array(fields).shape[1:]
    integrate(read_fields(fields, Box((0, 0), (64, 64))), config)
    before, seconds, objects = memory_gb("VmRSS"), [], None
    for _ in range(repeats):
        create_array(target, shape=shape, chunks=(min(512, block),) * 2, dtype=np.uint32)
        engine = open_engine("threads", workers)
        start = time.perf_counter()
        objects = integrate_stored(
            fields, target, config, engine, block=(block, block), scratch=str(folder / "scratch")
        )
        seconds.append(time.perf_counter() - start)
        engine.close()
    count = objects.count if objects else 0
    crossing = objects.crossing if objects else 0
    return {
        "seconds": seconds,
        "peak_gb": memory_gb("VmHWM"),
        "before_gb": before,
        "objects": count,
        "crossing": crossing,
    }


def spawn(arguments: list[str], workers: int) -> dict[str, Any]:
    """Run a contender in a process of its own; its last line is its result."""
    environment = os.environ | {"OMP_NUM_THREADS": str(workers)}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments[:3])} failed:\n{done.stderr[-2000:]}")
    lines = done.stdout.strip().splitlines()
    return dict(json.loads(lines[-1])) if lines else {}


def average_precision(folder: Path, times: int, found: npt.NDArray[np.integer]) -> float:
    """AP at IoU 0.5 of a whole result against the repeated tile."""
    from sketchscale.evaluation import count_overlaps, score_overlaps

    tile = np.load(folder / "tile.npy")
    rows, columns = np.indices((times, times))
    shift = np.kron(rows * times + columns, np.ones(tile.shape, np.int32)).astype(np.int32) * tile.max()
    whole = np.tile(tile, (times, times))
    truth = np.where(whole > 0, whole + shift, 0)
    return float(score_overlaps(count_overlaps(truth, found.astype(np.int64)), [0.5]).matchings[0].ap)


def compare(options: argparse.Namespace) -> None:
    """The table of time and memory."""
    from sketchscale.io.ome_zarr.arrays import ArrayRef, open_array

    folder = Path(options.work)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    labels = scene(options.size // options.tiles, options.objects // options.tiles**2, seed=0)
    print(f"{options.size} x {options.size}: {options.tiles**2} times a tile of {describe(labels)}")
    store_input(folder, labels, options.tiles, options.chunk)
    rows = []
    for method in options.methods:
        arguments = [sys.executable, __file__, "--ours", method, "--work", str(folder)]
        for name in ("block", "workers", "repeats"):
            arguments += [f"--{name}", str(getattr(options, name))]
        result = spawn(arguments, workers=1)
        found = open_array(ArrayRef(store=str(folder), path="labels"))[:]
        rows.append((f"ours, {method}, block {options.block}", result, average_precision(folder, options.tiles, found)))
        every = " ".join(f"{seconds:.2f}" for seconds in result["seconds"])
        print(f"  {method}: {every} s; {result['crossing']} objects cross block faces", flush=True)
    rows += run_peer(options, folder)
    print_table(rows, options.size)
    shutil.rmtree(folder, ignore_errors=True)


def run_peer(options: argparse.Namespace, folder: Path) -> list[tuple[str, dict[str, Any], float]]:
    """The peer's row; none without its environment."""
    if options.peer is None or not Path(options.peer).exists():
        print("  cellpose 4: skipped, give --peer the python of an environment with cellpose 4")
        return []
    tail = [str(folder), str(options.repeats), str(options.workers), str(options.tiles)]
    spawn([options.peer, "-c", PEER, *tail], options.workers)
    # the second process finds the flow made, so that making it does not count as memory of the post-processing
    ready = "\n".join(line for line in PEER.splitlines() if "labels_to_flows" not in line and "peer_flow" not in line)
    result = spawn([options.peer, "-c", ready + PEER_RUN, *tail], options.workers)
    found = np.load(folder / "peer.npy")
    return [("cellpose 4 compute_masks, no flow filter", result, average_precision(folder, options.tiles, found))]


def print_table(rows: list[tuple[str, dict[str, Any], float]], size: int) -> None:
    """Medians; the last row is the one the others are compared with."""
    reference = rows[-1][1]
    print("\n| way | s (median; all) | Mpx/s | peak GB (of it before) | objects | AP.5 | faster | of its memory |")
    print("|---|---|---|---|---|---|---|---|")
    for name, result, score in rows:
        seconds = statistics.median(result["seconds"])
        every = " ".join(f"{s:.2f}" for s in result["seconds"])
        faster = statistics.median(reference["seconds"]) / seconds
        share = result["peak_gb"] / reference["peak_gb"]
        print(
            f"| {name} | {seconds:.2f} ({every}) | {size**2 / 1e6 / seconds:.1f} | {result['peak_gb']:.2f} "
            f"({result['before_gb']:.2f}) | {result['objects']} | {score:.4f} | {faster:.1f} x | {share:.2f} |"
        )


def noisy(fields: npt.NDArray[np.float32], kind: str, rng: np.random.Generator) -> npt.NDArray[np.float16]:
    """Noise of 0.5 on each flow component: white, or smooth (sigma 3 px) with the same standard deviation."""
    from scipy import ndimage

    noise = rng.normal(size=fields[:2].shape)
    if kind == "smooth":
        noise = ndimage.gaussian_filter(noise, (0, 3, 3))
        noise /= noise.std()
    result = fields.copy()
    result[:2] += 0.5 * noise * (kind != "none")
    return result.astype(np.float16)


def measure_noise(objects: int, seeds: int) -> None:
    """The table of AP under noise: scene and noise differ from seed to seed."""
    from sketchscale.evaluation import count_overlaps, score_overlaps
    from sketchscale.integration.config import IntegrationConfig
    from sketchscale.integration.plan import integrate

    rules: dict[str, dict[str, Any]] = {
        "default": {},
        "joined more": {"prominence": 2.0},
        "not joined": {"prominence": -8.0},
        "not joined, radius 3": {"prominence": -8.0, "link_radius": 3},
        "joined, and by ends": {"join_share": 0.3},
        "by ends alone, radius 1": {"prominence": -8.0, "link_radius": 1, "join_share": 0.3},
    }
    scores: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for seed in range(seeds):
        labels = scene(int((objects / 266e-6) ** 0.5), objects, seed)
        fields, rng = exact_fields(labels), np.random.default_rng(seed + 1000)
        for kind in ("none", "white", "smooth"):
            disturbed = noisy(fields, kind, rng)
            for rule, values in rules.items():
                found = integrate(disturbed, IntegrationConfig(threshold=-2.0, **values))
                matchings = score_overlaps(count_overlaps(labels, found), [0.5, 0.9]).matchings
                scores.setdefault((kind, rule), []).append((matchings[0].ap, matchings[1].ap))
    print(f"\n{seeds} scenes of {describe(labels)} (the last one)")
    print("\n| noise 0.5 per component | rule | AP.5 mean (min, max) | AP.9 mean |\n|---|---|---|---|")
    for (kind, rule), values in scores.items():
        half, high = np.array(values).T
        print(f"| {kind} | {rule} | {half.mean():.4f} ({half.min():.4f}, {half.max():.4f}) | {high.mean():.4f} |")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8000, help="side of the image, px")
    parser.add_argument("--objects", type=int, default=17000)
    parser.add_argument("--tiles", type=int, default=4, help="the image repeats a tile this often along each axis")
    parser.add_argument("--block", type=int, default=2048, help="side of a task's block, px")
    parser.add_argument("--chunk", type=int, default=512, help="side of a chunk of the stored fields, px")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=["suppressed"], help="suppressed, euler")
    parser.add_argument("--peer", help="python of an environment with cellpose 4")
    parser.add_argument("--work", default="integration-benchmark", help="folder for temporary files")
    parser.add_argument("--noise", action="store_true", help="AP under noise instead of time")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tiny", action="store_true", help="small sizes, for CI")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.ours:
        result = run_ours(Path(options.work), options.block, options.workers, options.repeats, options.ours)
        print(json.dumps(result))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if options.tiny:
        options.size, options.objects, options.block, options.repeats, options.seeds = 512, 64, 256, 1, 1
        options.tiles, options.methods = 1, ["suppressed", "euler"]
    if options.tiny or not options.noise:
        compare(options)
    if options.tiny or options.noise:
        measure_noise(64 if options.tiny else 1000, options.seeds)


if __name__ == "__main__":
    main()
