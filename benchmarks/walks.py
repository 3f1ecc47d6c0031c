r"""How far does a reader walk from a verb to its bytes?

Runs a verb on a tiny image with the serial engine, notes every function of the package in the order of its first call,
and counts the stays: runs of functions that lie in one file. A stay in a file that was left before is a return, which
is where a reader turns back.

    python benchmarks/walks.py                      this version
    python benchmarks/walks.py --source OLD         the same verbs of another checkout
    python benchmarks/walks.py --verb measure --list    file by file

Prints: verb, functions, files, stays, returns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

VERBS = ("segment", "train", "measure")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--verb", choices=VERBS, action="append")
    parser.add_argument("--list", action="store_true", help="print the stays")
    parser.add_argument("--child", choices=VERBS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        report(arguments.child, arguments.list)
        return
    print("| verb | functions | files | stays | returns |\n|---|---|---|---|---|")
    environment = {**os.environ, "PYTHONPATH": str(arguments.source), "OMP_NUM_THREADS": "1"}
    for verb in arguments.verb or VERBS:
        command = [sys.executable, __file__, "--child", verb, *["--list"] * arguments.list]
        subprocess.run(command, check=True, env=environment, cwd=arguments.source)


def report(verb: str, listed: bool) -> None:
    """Run one verb and print its row."""
    with tempfile.TemporaryDirectory() as folder:
        job = prepared(verb, Path(folder))
        with first_calls() as calls:
            job()
    stays = [file for file, _ in groupby(file for file, _ in calls)]
    if listed:
        for file, functions in groupby(calls, lambda call: call[0]):
            print(f"    {file}: {', '.join(name for _, name in functions)}")
    files = len(set(stays))
    print(f"| {verb} | {len(calls)} | {files} | {len(stays)} | {len(stays) - files} |", flush=True)


def prepared(verb: str, folder: Path) -> Callable[[], Any]:
    """Images, strokes and labels are made before anything is counted."""
    import numpy as np
    import tifffile

    import sketchscale

    y, x = np.mgrid[:96, :96]
    spots = 90 * (np.sin(y / 7) * np.sin(x / 7)).clip(0)
    labels = sketchscale.segment(spots.astype(np.uint8), min_size=20)
    tifffile.imwrite(folder / "image.tif", spots.astype(np.uint8))
    tifffile.imwrite(folder / "labels.tif", labels.astype(np.uint16))
    image = str(folder / "image.ome.zarr")
    sketchscale.convert(str(folder / "image.tif"), image)
    if verb == "segment":
        return lambda: sketchscale.segment(image, model="nuclei-fluo", engine="serial")
    if verb == "train":
        sketch, out = str(folder / "labels.tif"), str(folder / "model")
        settings: dict[str, Any] = {"kind": "labels", "steps": 2, "width": 4, "batch": 1, "patch": 64, "init": "random"}
        return lambda: sketchscale.train(image, sketch=sketch, out=out, **settings)
    sketchscale.segment(image, model="nuclei-fluo", engine="serial")
    return lambda: sketchscale.measure(image, engine="serial")


@contextmanager
def first_calls() -> Iterator[list[tuple[str, str]]]:
    """(file, function) of the package, each once, in the order of the first call in this thread."""
    calls: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, argument: object) -> None:
        file = frame.f_code.co_filename
        name = frame.f_code.co_qualname
        if event == "call" and "/sketchscale/" in file and "<" not in name.rpartition(".")[2]:
            calls[file.rpartition("/sketchscale/")[2], name] = None

    found: list[tuple[str, str]] = []
    threading.setprofile(None)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        found.extend(calls)


if __name__ == "__main__":
    main()
