"""Do two versions of this package write the same bytes?

    python benchmarks/same_bytes.py OLD NEW [--old-python P] [--new-python P] [--only NAME ...] [--work FOLDER]

OLD and NEW are checkouts. The old one converts small seeded images once; then each version runs every entry of RUNS on
its own copy, one thread, float32, steps instead of minutes, so that nothing depends on the clock. Compared are

    images, labels   every level, decoded, with its chunks and the attributes of OME-Zarr
    tables           column by column, types and values; a column that NEW adds is a note
    weights          tensor by tensor; arrays of forests
    files            sketches and coordinates, byte by byte
    notes            provenance and configurations: a difference is shown, but may be meant, and counts for nothing

Exit code 1 where anything but notes differs, or where a command fails in either version. A command that versions spell
differently is written `new spelling | old spelling`: the next is tried where one is refused as bad usage.
Two cores need about ten minutes, most of which is starting processes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import zarr

ROOT = Path(__file__).resolve().parents[1]
MODEL_3D = ROOT / "tests" / "fixtures" / "0.1" / "model-3d"

SERIAL = "--engine serial --block 128"
NETWORK = f"--precision float32 {SERIAL}"
STEPS = "--steps 6 --width 8 --batch 2 --patch 64 --threads 1 --precision float32 --compile off --preview-every 0"
PAINTED = "--sketch plane_labels.npy --kind labels"
CLASSES = "--annotations clicks.csv --labels truth --precision float32"
APPLY = f"classify apply measured.zarr --labels truth --classifier classes {NETWORK}"

INPUTS = [
    "convert plane.npy plane.zarr --chunk 64 --spacing 0.5",
    "convert pair.npy pair.zarr --axes cyx --chunk 64 --ngff 0.4",
    "convert volume.npy volume.zarr --axes zyx --chunk 32 --spacing 0.5 --z-spacing 1.25",
    "convert pair.npy measured.zarr --axes cyx --chunk 64",
    f"labels import pair_labels.npy measured.zarr --labels truth {SERIAL}",
    f"measure measured.zarr --labels truth {SERIAL}",
    "convert volume.npy measured-volume.zarr --axes zyx --chunk 32 --spacing 0.5 --z-spacing 1.25",
    f"labels import volume_labels.npy measured-volume.zarr --labels truth {SERIAL}",
    f"measure measured-volume.zarr --labels truth {SERIAL}",
    "sketch simulate plane_labels.npy --out strokes.jsonl --style fill --objects 30",
]
"""Made once, by the old version."""

RUNS: dict[str, list[str]] = {
    "convert": [
        "convert plane.npy made.zarr --chunk 64 --spacing 0.5",
        "convert volume.npy made-volume.zarr --axes zyx --chunk 32 --shard 64 --spacing 0.5 --z-spacing 1.25",
    ],
    "sketch": ["sketch simulate plane_labels.npy --out made.jsonl --style fill --objects 10"],
    "segment": [f"segment plane.zarr {NETWORK}"],
    "segment-options": [
        f"segment plane.zarr --labels refined --diameter 30 --fill-holes 0.1 --flow-error 0.6 {NETWORK}",
        f"segment plane.zarr --labels joined --join-share 0.3 --flips 4 --tile 128 --overlap 32 {NETWORK}",
        f"segment pair.zarr --channel 1 --min-size 30 --max-size 400 --threshold -1.5 {NETWORK}",
    ],
    "segment-shard": [f"segment plane.zarr --shard 128 {NETWORK}"],
    "segment-hover": [
        f"train plane.zarr {PAINTED} --loss hover --out model {STEPS} --seed 3",
        f"segment plane.zarr --model model --threshold 0.5 --min-size 5 {NETWORK}",
    ],
    "volume-planes": [
        f"segment volume.zarr {NETWORK} | segment volume.zarr --volume {NETWORK}",
        f"segment volume.zarr --labels even --anisotropy 1 --crowd 4 {NETWORK}"
        f" | segment volume.zarr --labels even --volume --anisotropy 1 --crowd 4 {NETWORK}",
    ],
    "volume-3d": [
        f"segment volume.zarr --model {MODEL_3D} {NETWORK} | segment volume.zarr --volume --model {MODEL_3D} {NETWORK}"
    ],
    "measure": [
        f"labels import plane_labels.npy plane.zarr --labels truth {SERIAL}",
        f"measure plane.zarr --labels truth {SERIAL}",
        f"labels import pair_labels.npy pair.zarr --labels truth {SERIAL}",
        "measure pair.zarr --labels truth --profile pycytominer --engine serial --block 64",
    ],
    "measure-volume": [
        f"labels import volume_labels.npy volume.zarr --labels truth {SERIAL}",
        "measure volume.zarr --labels truth --engine serial --block 32",
    ],
    "train-sketchpose": [f"train plane.zarr --sketch strokes.jsonl --loss sketchpose --out model {STEPS}"],
    "train-sketchpose-1": [f"train plane.zarr --sketch strokes.jsonl --loss sketchpose-1 --out model {STEPS}"],
    "train-eikonal": [f"train plane.zarr --sketch strokes.jsonl --loss eikonal --out model {STEPS}"],
    "train-dense": [f"train plane.zarr {PAINTED} --loss dense --out model {STEPS}"],
    "train-hover": [f"train plane.zarr {PAINTED} --loss hover --out model {STEPS}"],
    "train-on": [
        f"train plane.zarr --sketch strokes.jsonl --hold-out 0.3 --validate-every 2 --init nuclei-fluo --out model"
        f" {STEPS.replace('--width 8', '')}"
    ],
    "classify-light": [f"classify train measured.zarr --kind light --steps 20 --out classes {CLASSES}", APPLY],
    "classify-resnet18": [
        f"classify train measured.zarr --kind resnet18 --width 8 --steps 6 --out classes {CLASSES}",
        APPLY,
    ],
    "classify-random-forest": [f"classify train measured.zarr --kind random-forest --out classes {CLASSES}", APPLY],
    "classify-gradient-boosting": [
        f"classify train measured.zarr --kind gradient-boosting --out classes {CLASSES}",
        APPLY,
    ],
    "classify-ensemble": [f"classify train measured.zarr --kind ensemble --steps 20 --out classes {CLASSES}", APPLY],
    "classify-volume": [
        f"classify train measured-volume.zarr --kind light --steps 6 --out classes {CLASSES}",
        APPLY.replace("measured", "measured-volume"),
    ],
    **{
        f"engine-{engine}": [f"segment plane.zarr --precision float32 --block 128 --engine {engine} --workers 2"]
        for engine in ("threads", "processes", "dask", "ray")
    },
    "synthesize": [
        "synthesize train plane.zarr --points centres.csv --diameter 20 --out painter --steps 4 --batch 2 --crop 64"
        " --width 4 --threads 1 --precision float32 --sheet-every 0",
        "synthesize generate painter --out pairs --images 2 --size 96 --precision float32 --engine serial",
        f"train --synthetic painter --loss hover --out model {STEPS}",
    ],
}


@dataclass(frozen=True)
class Version:
    """A checkout, the interpreter it runs in, and the folder it works in."""

    name: str
    checkout: Path
    python: str
    folder: Path

    def run(self, command: str, folder: Path) -> str:
        """Run the first spelling that is not refused; returns what went wrong, or nothing."""
        environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
            "PYTHONPATH": str(self.checkout),
        }
        failure = ""
        for spelling in command.split(" | "):
            result = subprocess.run(
                [self.python, "-m", "sketchscale", *shlex.split(spelling)],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if result.returncode == 0:
                return ""
            failure = f"{spelling}: exit {result.returncode}: {(result.stderr.strip().splitlines() or ['silent'])[-1]}"
            if result.returncode != 2:
                break
        return failure


def discs(shape: tuple[int, ...], count: int, radius: tuple[float, float], seed: int) -> npt.NDArray[np.uint16]:
    """Labels of discs or balls; later ones lie below, so that many touch."""
    rng = np.random.default_rng(seed)
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    labels = np.zeros(shape, np.uint16)
    for number in range(1, count + 1):
        half, centre = rng.uniform(*radius, len(shape)), rng.uniform(0, shape)
        ball = sum(((a - c) / h) ** 2 for a, c, h in zip(axes, centre, half, strict=True)) < 1
        labels[ball & (labels == 0)] = number
    return labels


def seen(labels: npt.NDArray[np.uint16], seed: int) -> npt.NDArray[np.uint8]:
    """Objects of unlike brightness on a dark ground, with shot noise."""
    rng = np.random.default_rng(seed)
    bright = np.concatenate([[12], rng.uniform(60, 180, int(labels.max()))])
    return np.clip(rng.poisson(bright[labels]), 0, 255).astype(np.uint8)


def draw(folder: Path) -> None:
    """Images, labels, clicks and centres as plain files."""
    plane, pair = discs((300, 372), 110, (8, 14), 0), discs((190, 210), 45, (8, 14), 1)
    volume = discs((20, 72, 80), 30, (5, 9), 2)
    for name, labels in (("plane", plane), ("pair", pair), ("volume", volume)):
        np.save(folder / f"{name}_labels.npy", labels)
        pixels = seen(labels, 3)
        np.save(folder / f"{name}.npy", np.stack([pixels, seen(labels, 4)]) if name == "pair" else pixels)
    with (folder / "clicks.csv").open("w", newline="") as file:
        present = set(np.unique(pair)) & set(np.unique(volume))
        rows = [(label, "ab"[label % 2]) for label in range(1, 21) if label in present]
        csv.writer(file).writerows([("label", "class"), *rows])
    with (folder / "centres.csv").open("w", newline="") as file:
        rows = [tuple(np.argwhere(plane == n).mean(0).round(1)) for n in np.unique(plane)[1:]]
        csv.writer(file).writerows([("y", "x"), *rows])


Content = dict[tuple[str, str], Any]
"""What a folder holds: (kind, name) to something that compares."""


def contents(folder: Path) -> Content:
    """Everything below a folder that is compared; runs, ledgers and pictures are not."""
    found: Content = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if ".sketchscale" in path.parts or not path.is_file() or "/run/" in name:
            continue
        if path.name in ("zarr.json", ".zarray", ".zattrs"):
            found.update(_node(path.parent, str(Path(name).parent)))
        elif path.suffix == ".parquet":
            table = pq.read_table(path)
            kinds = dict(zip(table.schema.names, map(str, table.schema.types), strict=True))
            found.update({("tables", f"{name}[{n}]"): (kinds[n], table[n].to_pylist()) for n in kinds})
        elif path.suffix == ".safetensors":
            found.update({("weights", f"{name}[{n}]"): tensor for n, tensor in tensors(path.read_bytes())})
        elif path.suffix == ".npz":
            found.update({("weights", f"{name}[{n}]"): array for n, array in np.load(path).items()})
        elif path.suffix in (".csv", ".jsonl", ".geojson"):
            found["files", name] = path.read_bytes()
        elif path.suffix == ".json":
            found["notes", name] = without_times(json.loads(path.read_text()))
    return found


def _node(folder: Path, name: str) -> Content:
    """An array, decoded, or the attributes of a group."""
    node = zarr.open(str(folder), mode="r")
    kind = "labels" if "labels" in Path(name).parts else "tables" if "tables" in Path(name).parts else "images"
    attributes = dict(node.attrs)
    notes = {("notes", name): without_times(attributes.pop("sketchscale"))} if "sketchscale" in attributes else {}
    found: Content = {**notes, (kind, f"{name} (attributes)"): attributes}
    if isinstance(node, zarr.Array):
        found[kind, f"{name} (layout)"] = [node.shape, str(node.dtype), node.chunks, node.shards]
        found[kind, name] = node[...]
    return found


def tensors(data: bytes) -> Iterable[tuple[str, Any]]:
    """Name, and type, shape and bytes, of every tensor of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            first, last = (8 + length + offset for offset in entry["data_offsets"])
            yield name, (entry["dtype"], entry["shape"], data[first:last])


VARIES = ("version", "host", "time", "date", "seconds", "minutes", "started", "finished", "_s", "command", "python")


def without_times(value: Any) -> Any:
    """A JSON value without versions, times and places, which differ between any two runs."""
    if isinstance(value, list):
        return [without_times(part) for part in value]
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if not key.endswith(VARIES)}
    return value


def difference(old: Any, new: Any) -> str:
    """Where two values differ first; nothing where they are the same to the bit."""
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            return f"{old.shape} {old.dtype} -> {new.shape} {new.dtype}"
        if old.tobytes() == new.tobytes():
            return ""
        places = np.argwhere(old != new)
        first = tuple(int(i) for i in places[0]) if len(places) else None
        return f"{len(places)} of {old.size}, first at {first}: {old[first]} -> {new[first]}" if first else "NaN bits"
    if isinstance(old, dict) and isinstance(new, dict):
        return _first((f".{key}", old.get(key), new.get(key)) for key in sorted({*old, *new}))
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        return _first((f"[{i}]", a, b) for i, (a, b) in enumerate(zip(old, new, strict=True)))
    if isinstance(old, bytes) and isinstance(new, bytes) and old != new:
        place = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        return f"{len(old)} -> {len(new)} bytes, first at {place}"
    same = repr(old) == repr(new)  # of a float, every bit but those of NaN
    return "" if same else f"{_short(old)} -> {_short(new)}"


def _first(pairs: Iterable[tuple[str, Any, Any]]) -> str:
    return next((f"{key}: {found}" for key, a, b in pairs if (found := difference(a, b))), "")


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def compare(old: Content, new: Content) -> dict[str, list[str]]:
    """Each kind of content to what differs in it."""
    found: dict[str, list[str]] = {}
    for kind, name in sorted({*old, *new}):
        if kind == "tables" and name.endswith("]") and (kind, name) not in old:
            found.setdefault("notes", []).append(f"{name}: a new column")
            continue
        differing = found.setdefault(kind, [])
        if (kind, name) not in old or (kind, name) not in new:
            differing.append(f"{name}: absent in {'old' if (kind, name) in new else 'new'}")
        elif change := difference(old[kind, name], new[kind, name]):
            differing.append(f"{name} {change}")
    return found


def words_of(names: Iterable[str]) -> set[str]:
    """Every word of the commands of some runs, the files that they read among them."""
    return {word for name in names for command in RUNS[name] for word in command.split()}


def prepare(version: Version, inputs: Path, names: Iterable[str]) -> None:
    """Images, sketches and annotated objects, which both versions begin with: those that these runs read."""
    inputs.mkdir()
    draw(inputs)
    needed = {word for word in words_of(names) if word.endswith((".zarr", ".jsonl"))}
    for command in INPUTS:
        if needed & set(command.split()) and (failure := version.run(command, inputs)):
            raise SystemExit(f"{version.checkout}: {failure}")


def work(version: Version, name: str, inputs: Path) -> tuple[str, Content]:
    """Do one run on a copy of what it reads; returns what went wrong and what it wrote."""
    folder = version.folder / name
    folder.mkdir(parents=True)
    words = words_of([name])
    for path in inputs.iterdir():
        if path.name in words:
            copy: Callable[..., Any] = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, folder / path.name)
    for command in RUNS[name]:
        if failure := version.run(command, folder):
            return f"{version.name}: {failure}", {}
    return "", contents(folder)


def report(name: str, failures: list[str], both: list[Content]) -> bool:
    """Print the lines of one run; returns whether it is the same."""
    for failure in failures:
        print(f"| {name} | failed | {failure} |", flush=True)
    if failures:
        return False
    found = compare(*both)
    for kind, differing in found.items():
        count = sum(k == kind for k, _ in both[0])
        verdict = f"{len(differing)} differ: {differing[0]}" if differing else f"same ({count})"
        print(f"| {name} | {kind} | {verdict} |", flush=True)
    return not any(differing for kind, differing in found.items() if kind != "notes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--old-python", default=sys.executable)
    parser.add_argument("--new-python", default=sys.executable)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"runs whose names begin so: {', '.join(RUNS)}")
    parser.add_argument("--work", type=Path, help="new folder to keep what both wrote; else it is removed")
    options = parser.parse_args()
    names = [name for name in RUNS if not options.only or name.startswith(tuple(options.only))]
    if not names:
        parser.error(f"--only {' '.join(options.only)}: expected beginnings of {', '.join(RUNS)}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        root = Path(scratch) if options.work is None else options.work.resolve()
        root.mkdir(parents=True, exist_ok=True)
        old = Version("old", options.old.resolve(), options.old_python, root / "old")
        new = Version("new", options.new.resolve(), options.new_python, root / "new")
        prepare(old, root / "inputs", names)
        print("| run | what | old and new |\n|---|---|---|")
        same = []
        for name in names:
            results = list(pool.map(lambda version, name=name: work(version, name, root / "inputs"), (old, new)))
            same.append(report(name, [text for text, _ in results if text], [content for _, content in results]))
    print(f"\n{sum(same)} of {len(same)} runs are the same; {time.monotonic() - started:.0f} s")
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
