"""A plan that writes real chunks through a ledger, in a file that new workers import quickly."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sketchscale.engine import open_engine
from sketchscale.engine.base import Plan, run_plan
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, read_box, write_box
from sketchscale.io.runs.ledger import StoreLedger, open_ledger

SIDE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    number: int

    @property
    def key(self) -> str:
        return f"{self.number:04d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copying:
    source: ArrayRef
    target: ArrayRef
    seconds: float


def inverted(task: Block, config: Copying) -> int:
    """One chunk of the source, inverted, into the target."""
    box = Box((task.number, 0, 0), (task.number + 1, SIDE, SIDE))
    pixels = read_box(config.source, box)
    time.sleep(config.seconds)
    return write_box(config.target, box, 255 - pixels)


def copying(folder: Path, count: int, *, seconds: float = 0.0) -> tuple[Plan[Block], StoreLedger]:
    """A plan of so many chunks, and its ledger; made again it is the same."""
    source, target = ArrayRef(store=str(folder), path="source"), ArrayRef(store=str(folder), path="target")
    config = Copying(source=source, target=target, seconds=seconds)
    if not (folder / "source").exists():
        for ref in (source, target):
            create_array(ref, shape=(count, SIDE, SIDE), chunks=(1, SIDE, SIDE), dtype=np.uint8)
        noise = np.random.default_rng(0).integers(0, 255, (count, SIDE, SIDE), dtype=np.uint8)
        write_box(source, Box((0, 0, 0), noise.shape), noise)
    tasks = tuple(Block(number=number) for number in range(count))
    ledger = open_ledger(str(folder), "copy", {"of": "source"}, resume=True)
    return Plan(stage="copy", fn=inverted, tasks=tasks, config=config), ledger


def in_series(folder: Path, count: int) -> dict[str, bytes]:
    folder.mkdir()
    plan, ledger = copying(folder, count)
    run_plan(plan, open_engine("serial"), ledger=ledger)
    return written(folder)


def written(folder: Path) -> dict[str, bytes]:
    """The files of the target, by name."""
    target = folder / "target"
    return {str(path.relative_to(target)): path.read_bytes() for path in sorted(target.rglob("*")) if path.is_file()}
