"""How long does the main job take on a whole plate, how much memory, and how good is the count?

    python benchmarks/plate.py --data DATA --work WORK [--size 8000] [--seed 5]

Builds a plate of real annotated nuclei (DATA/make_plate.py, test split), then runs the very commands of README as
processes of their own: convert, segment, measure, count, evaluate, verify. Printed: seconds and peak memory of each
process (children included), seconds of each stage of `segment`, scores. `--tiny` is a 512 px plate of drawn discs for a
quick check without DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One command: how long it took, the most memory any one process held, what it printed."""

    seconds: float
    peak_gb: float
    output: Any


def run_command(arguments: list[str]) -> Run:
    """Run a sketchscale command and watch its processes.

    Raises:
        SystemExit: the command failed; its messages are printed.
    """
    command = [sys.executable, "-m", "sketchscale", *arguments]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = [0]
    watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    out, err = process.communicate()
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed with {process.returncode}:\n{err}")
    output = json.loads(out) if "--json" in arguments else out
    return Run(seconds=seconds, peak_gb=peak[0] / 1e9, output=output)


def _watch(pid: int, peak: list[int]) -> None:
    """The high-water mark of resident memory of the process and of each child, as the kernel keeps it."""
    root = psutil.Process(pid)
    while True:
        try:
            for process in [root, *root.children(recursive=True)]:
                peak[0] = max(peak[0], _high_water(process.pid))
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.05)


def _high_water(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def build_plate(options: argparse.Namespace) -> tuple[Path, Path]:
    """Image and true labels of the plate; kept between runs."""
    stem = options.work / f"plate_{'tiny' if options.tiny else options.size}_{options.seed}"
    image, labels = Path(f"{stem}_image.tif"), Path(f"{stem}_labels.tif")
    if not image.exists():
        if options.tiny:
            _draw_discs(image, labels)
        else:
            script = [sys.executable, str(options.data / "make_plate.py"), "--size", str(options.size)]
            subprocess.run([*script, "--split", "test", "--seed", str(options.seed), "--out", str(stem)], check=True)
    return image, labels


def _draw_discs(image: Path, labels: Path) -> None:
    """A plate of 64 blurred discs of radius 12."""
    y, x = np.mgrid[:512, :512]
    truth = np.zeros((512, 512), np.uint16)
    for i in range(64):
        cy, cx = 32 + 64 * (i // 8), 32 + 64 * (i % 8)
        truth[(y - cy) ** 2 + (x - cx) ** 2 <= 144] = i + 1
    noise = np.random.default_rng(0).normal(0, 4, truth.shape)
    tifffile.imwrite(image, np.clip(20 + 120 * (truth > 0) + noise, 0, 255).astype(np.uint8), tile=(256, 256))
    tifffile.imwrite(labels, truth, tile=(256, 256))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--size", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--model", default="nuclei-fluo")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    source, truth = build_plate(options)
    target = str(source).replace("_image.tif", ".ome.zarr")
    shutil.rmtree(target, ignore_errors=True)
    workers = ["--workers", str(options.workers)]
    model = ["--model", options.model, "--precision", options.precision]
    commands = {
        "convert": ["convert", str(source), target, *workers, "--json"],
        "segment": ["segment", target, *model, "--labels", "nuclei", *workers, "--json"],
        "measure": ["measure", target, "--labels", "nuclei", *workers, "--json"],
        "count": ["count", target, "--labels", "nuclei", "--json"],
        "evaluate": ["evaluate", target, "--labels", "nuclei", "--truth", str(truth), *workers, "--json"],
        "verify": ["verify", target, "--json"],
    }
    runs = {name: run_command(arguments) for name, arguments in commands.items()}
    report(options, runs)


def report(options: argparse.Namespace, runs: dict[str, Run]) -> None:
    """Two tables and a line of scores, as README shows them."""
    size = 512 if options.tiny else options.size
    machine = f"{options.workers} workers, {platform.machine()}, {options.precision}"
    print(f"plate {size} x {size}, seed {options.seed}, {machine}")
    print("\n| command | seconds | peak GB of any process |\n|---|---|---|")
    for name, run in runs.items():
        print(f"| {name} | {run.seconds:.1f} | {run.peak_gb:.2f} |")
    stages = {stage["stage"]: stage["seconds"] for stage in runs["segment"].output[0]["stages"]}
    print("\n| stage of segment | seconds |\n|---|---|")
    for name, seconds in stages.items():
        print(f"| {name} | {seconds:.1f} |")
    after = sum(s for name, s in stages.items() if name not in ("histogram", "predict", "blend"))
    after += runs["measure"].seconds
    print(f"\nnetwork {stages['predict']:.1f} s; integration, merging, pyramid, audit and measuring {after:.1f} s")
    scores = runs["evaluate"].output
    print(
        f"AP 0.5 {scores['ap']['0.5']:.4f}, AP 0.75 {scores['ap']['0.75']:.4f}, F1 0.5 {scores['f1']['0.5']:.4f}, "
        f"{scores['n_pred']} found, {scores['n_true']} true; verify: {sum(c['ok'] for c in runs['verify'].output)} of "
        f"{len(runs['verify'].output)} checks hold"
    )


if __name__ == "__main__":
    main()
