"""The plan that writes pairs: each task writes one OME-Zarr image with labels. Workers cache the synthesis.

<out>/00000.zarr     image uint8 (c, y, x), the generator's [0, 1] times 255, rounded; pyramid of means
    labels/<name>    uint32 (y, x), ids from 1 in the order of the objects' first pixels; 0 is background
<out>/00001.zarr     ...

Pair `number` depends only on (synthesis, size, seed, number, points), and the generator runs on one pair at a time, so
a task that runs twice writes the same bytes: engine, workers, order and kills change nothing.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sketchscale import __version__
from sketchscale.engine.base import Json, Needs, Plan
from sketchscale.geometry import whole
from sketchscale.inference.backend import Recipe, check_device, running
from sketchscale.io.ome_zarr.arrays import ArrayRef, write_box
from sketchscale.io.ome_zarr.new_images import commit_image, commit_labels, create_image, create_labels
from sketchscale.io.ome_zarr.pyramid import halve_mean, halve_nearest
from sketchscale.io.runs.partial_results import get_arrays
from sketchscale.io.stores.addresses import join_address
from sketchscale.synthesis.model import Synthesis, SynthesisConfig, load_synthesis
from sketchscale.synthesis.pairs import Pair, draw_pair
from sketchscale.synthesis.scenes import margin_of

__all__ = [
    "GIVEN_POINTS",
    "PairTask",
    "PairsConfig",
    "channel_names",
    "pair_bytes",
    "pair_name",
    "plan_pairs",
    "renumbered",
]

GIVEN_POINTS = "given_points.npz"
_CHUNK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTask:
    """The pair with a number."""

    number: int

    @property
    def key(self) -> str:
        """Name of the task."""
        return f"{self.number:08d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsConfig:
    """Options of all tasks.

    Attributes:
        out: address of the folder of images.
        synthesis: address of a synthesis that every worker can read. sha256: see synthesis_sha256.
        size: side of an image, px.
        labels: name of the labels.
        points: SHA-256 of the given points, stored in the folder of the synthesis; empty if points are drawn.
    """

    out: str
    synthesis: str
    sha256: str
    size: int
    seed: int
    labels: str
    recipe: Recipe
    points: str = ""


_OBJECT_BYTES = 25_000


def plan_pairs(config: PairsConfig, count: int, *, pair: int, weight_bytes: int) -> Plan[PairTask]:
    """Return the plan of `count` pairs, from number 0 on; `pair` is from `pair_bytes`."""
    return Plan(
        stage="pairs",
        fn=write_pair,
        tasks=tuple(PairTask(number=number) for number in range(count)),
        config=config,
        task_bytes=pair,
        worker_bytes=weight_bytes,
        needs=Needs(warm=True, gpu=config.recipe.device.partition(":")[0] == "cuda"),
    )


def pair_bytes(about: SynthesisConfig, size: int, per_pixel: float = 0.0) -> int:
    """Return the peak memory of one pair: the last levels of the generator, and the layout with its margin.

    Args:
        per_pixel: objects per px2 in the densest area; each one is drawn in several shapes to choose from.

    >>> pair_bytes(SynthesisConfig(), 512) // 1_000_000
    244
    """
    g = about.generator
    grown, wide = size + 2 * margin_of(about.prior), -(-size // g.stride) * g.stride
    # last block: inputs (2 w) normalised, scaled, shifted, their product and sum; hidden features of S twice
    generator = 4 * wide**2 * (2 * g.hidden + 16 * g.width + 3 * g.inputs + 2 * g.channels)
    layout = int((60 + _OBJECT_BYTES * per_pixel) * grown**2)
    return generator + layout


def pair_name(number: int) -> str:
    """Return the name of an image in its folder.

    >>> pair_name(7)
    '00007.zarr'
    """
    return f"{number:05d}.zarr"


def channel_names(count: int) -> tuple[str, ...]:
    """Return the channel names of generated images: colours if there are three.

    >>> channel_names(1), channel_names(3)
    (('channel_0',), ('red', 'green', 'blue'))
    """
    return ("red", "green", "blue") if count == 3 else tuple(f"channel_{i}" for i in range(count))


def write_pair(task: PairTask, config: PairsConfig) -> Json:
    """Draw, paint and store one pair, replacing an earlier one."""
    with _LOADING:  # once per worker, for any number of its threads
        synthesis = _loaded(config.synthesis, config.sha256, config.recipe.device)
    fields = _fields(config.synthesis, config.points) if config.points else ()
    field = fields[task.number % len(fields)] if fields else None
    shape = (config.size, config.size)
    with running(config.recipe):
        pair = draw_pair(synthesis, shape, seed=(config.seed, task.number), field=field)
    return _store(pair, join_address(config.out, pair_name(task.number)), task, config)


_LOADING = threading.Lock()


@functools.lru_cache(maxsize=2)
def _loaded(folder: str, sha256: str, device: str) -> Synthesis:
    check_device(device)
    synthesis = load_synthesis(folder)
    synthesis.generator.to(device)
    return synthesis


@functools.lru_cache(maxsize=2)
def _fields(folder: str, sha256: str) -> tuple[npt.NDArray[np.float64], ...]:
    arrays = get_arrays(folder, GIVEN_POINTS)
    return tuple(arrays[name] for name in sorted(arrays))


def _store(pair: Pair, address: str, task: PairTask, config: PairsConfig) -> Json:
    pixels = np.rint(pair.image * 255).astype(np.uint8)
    labels, count = renumbered(pair.labels)
    channels, chunk = channel_names(len(pixels)), min(config.size, _CHUNK)
    levels = create_image(
        address, pixels.shape, "cyx", "uint8", (1, chunk, chunk), channels=channels, name=pair_name(task.number)
    )
    image_sum = _write_levels(levels, pixels, halve_mean)
    image = commit_image(address)
    label_sum = _write_levels(create_labels(image, config.labels, chunks=(chunk, chunk)), labels, halve_nearest)
    provenance = {
        "stage": "synthesize generate",
        "version": __version__,
        "n": count,
        "number": task.number,
        "seed": config.seed,
        "synthesis": config.sha256,
        "precision": config.recipe.precision,
    }
    commit_labels(image, config.labels, attributes={"sketchscale": provenance})
    return {"objects": count, "image": image_sum, "labels": label_sum}


def _write_levels(
    levels: Sequence[ArrayRef],
    values: npt.NDArray[np.generic],
    halve: Callable[[npt.NDArray[np.generic]], npt.NDArray[np.generic]],
) -> str:
    """Write all levels of a pyramid and return the checksum of the finest."""
    sums = []
    for level in levels:
        sums.append(write_box(level, whole(values.shape), values))
        values = halve(values)
    return sums[0]


def renumbered(labels: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.uint32], int]:
    """Return labels with ids from 1 in the order of the objects' first pixels, and the number of objects.

    >>> renumbered(np.array([[0, 9, 9], [4, 4, 0]], np.uint32))
    (array([[0, 1, 1],
           [2, 2, 0]], dtype=uint32), 2)
    """
    ids, first, place = np.unique(labels, return_index=True, return_inverse=True)
    objects = np.flatnonzero(ids > 0)
    order = objects[np.argsort(first[objects])]
    new = np.zeros(len(ids), np.uint32)
    new[order] = np.arange(1, len(order) + 1)
    return new[place.reshape(labels.shape)], len(order)
