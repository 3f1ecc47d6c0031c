"""Does the first hour hold on an ordinary processor: the demo, and a training that keeps the time it was given?

    python benchmarks/first_hour.py demo --seeds 0 1 2
    python benchmarks/first_hour.py budget --data DATA --minutes 2 --sides 512 3000 8000

Both run the command line as a user does, each command a process of its own. `--avx2` limits torch to AVX2, which most
laptops have; instruction sets are printed.

    demo     seconds, exit code, and AP at IoU 0.5 of the four images that were not sketched on
    budget   `train` on plates of real annotated nuclei (DATA/make_plate.py) with strokes on 20 objects: seconds of the
             whole command and of calibration, the longest silence on stderr, steps
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A command that ran: exit code, seconds, stdout, and lines of stderr with the second in which each came."""

    code: int
    seconds: float
    output: str
    lines: tuple[tuple[float, str], ...]

    @property
    def silence(self) -> float:
        """The longest time without a line, s."""
        moments = [0.0, *(moment for moment, _ in self.lines), self.seconds]
        return max(b - a for a, b in itertools.pairwise(moments))


def run(arguments: list[str], folder: Path) -> Result:
    """Run `sketchscale` and record what it prints."""
    began = time.perf_counter()
    with (folder / "stdout").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sketchscale", *arguments], stdout=output, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        lines = tuple((time.perf_counter() - began, line.rstrip()) for line in process.stderr)
        code = process.wait()
        seconds = time.perf_counter() - began
        output.seek(0)
        return Result(code=code, seconds=seconds, output=output.read(), lines=lines)


def demo(options: argparse.Namespace) -> None:
    print("| seed | exit | s | AP 0.5 of the four other images | mean | longest silence, s |")
    print("|---|---|---|---|---|---|")
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["demo", "--out", f"{folder}/demo", "--seed", str(seed), "--json"]
            if options.minutes:
                arguments += ["--minutes", str(options.minutes)]
            result = run(arguments, Path(folder))
        if result.code:
            print(f"| {seed} | {result.code} | {result.seconds:.0f} | {result.lines[-1][1]} | | {result.silence:.1f} |")
            continue
        found = [row["sketch"] for row in json.loads(result.output)["accuracy"].values()]
        values = f"{', '.join(f'{ap:.3f}' for ap in found)} | {sum(found) / len(found):.3f}"
        print(f"| {seed} | 0 | {result.seconds:.0f} | {values} | {result.silence:.1f} |", flush=True)


def budget(options: argparse.Namespace) -> None:
    print(f"--minutes {options.minutes:g}")
    print("| px | whole s | of the budget | calibration s | longest silence, s | steps |")
    print("|---|---|---|---|---|---|")
    for side in options.sides:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            build = [sys.executable, str(options.data / "make_plate.py"), "--out", str(folder / "plate")]
            build += ["--size", str(side), "--seed", "5", "--data", str(options.data)]
            subprocess.run(build, check=True, capture_output=True)
            image, sketch = str(folder / "plate.ome.zarr"), str(folder / "strokes.jsonl")
            for arguments in (
                ["convert", str(folder / "plate_image.tif"), image],
                ["sketch", "simulate", str(folder / "plate_labels.tif"), "--out", sketch, "--objects", "20"],
            ):
                if (made := run(arguments, folder)).code:
                    raise SystemExit(made.lines[-1][1])
            arguments = ["train", image, "--sketch", sketch, "--out", str(folder / "model"), "--json"]
            result = run([*arguments, "--minutes", str(options.minutes)], folder)
            if result.code:
                raise SystemExit(result.lines[-1][1])
            began = next(moment for moment, line in result.lines if line.startswith("calibrating"))
            share = result.seconds / (60 * options.minutes)
            figures = f"{result.seconds:.1f} | {share:.2f} | {result.seconds - began:.1f} | {result.silence:.1f}"
            print(f"| {side} | {figures} | {json.loads(result.output)['steps']} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--avx2", action="store_true", help="limit torch to AVX2")
    ways = parser.add_subparsers(required=True)
    one = ways.add_parser("demo")
    one.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    one.add_argument("--minutes", type=float)
    one.set_defaults(work=demo)
    other = ways.add_parser("budget")
    other.add_argument("--data", type=Path, required=True)
    other.add_argument("--minutes", type=float, default=2.0)
    other.add_argument("--sides", type=int, nargs="+", default=[512, 3000, 8000])
    other.set_defaults(work=budget)
    options = parser.parse_args()
    if options.avx2 and os.environ.get("ATEN_CPU_CAPABILITY") != "avx2":
        os.environ |= {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
        os.execv(sys.executable, [sys.executable, *sys.argv])  # torch reads them when it is loaded
    cores = len(os.sched_getaffinity(0))
    sets = torch.backends.cpu.get_cpu_capability()
    print(f"{platform.machine()}, {sets}, {cores} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    options.work(options)


if __name__ == "__main__":
    main()
