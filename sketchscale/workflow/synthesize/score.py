"""Score a synthesis before a segmenter is trained on it: fidelity, diversity, consistency, order of contrast.

The figures are functions of (synthesis, images, points, options) on one kind of device. Only `out` and `picture` are
written.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.hover_maps import maps_from_labels
from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.io.stores.output_files import put_file
from sketchscale.networks.precision import autocast
from sketchscale.options import ScoreOptions
from sketchscale.reports.synthesis import SheetRow, draw_sheet, drawn_row, real_row
from sketchscale.synthesis.contrast import ChannelOrder, contrast_order, order_kept, real_order
from sketchscale.synthesis.features import NETWORK, halves
from sketchscale.synthesis.model import Synthesis, load_synthesis
from sketchscale.synthesis.pairs import Pair, draw_pair, paint_maps
from sketchscale.synthesis.quality import (
    Consistency,
    Distances,
    Diversity,
    Fidelity,
    consistency,
    diversity,
    fidelity,
    noise_of,
    read_maps,
)
from sketchscale.synthesis.scenes import PointedSource
from sketchscale.training.config import find_device
from sketchscale.workflow.precision import settle_precision
from sketchscale.workflow.runner import Runner, quiet, refuse_existing
from sketchscale.workflow.synthesize.clicked_images import hold_in_memory, read_pointed
from sketchscale.workflow.verbs import verb

__all__ = ["SynthesisScore", "score_synthesis"]

_DIVERSE, _NOISES, _READ, _SHOWN = 8, 4, 50, 3
_STRIDE, _LEAST = 32, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisScore:
    """All figures.

    Attributes:
        sha256: of the synthesis' weights.
        precision: of its networks. The network whose features are compared runs in float32.
        network: whose features are compared.
        real, made: contrast order of each channel. order_kept: see contrast.order_kept.
    """

    synthesis: str
    sha256: str
    network: str
    images: int
    fidelity: Fidelity
    diversity: Diversity
    consistency: Consistency
    real: tuple[ChannelOrder, ...]
    made: tuple[ChannelOrder, ...]
    order_kept: bool | None
    precision: str = "float32"

    def as_dict(self) -> dict[str, Any]:
        """Return a record for JSON; the order of each channel has its `sign`."""
        orders = {name: [{**asdict(o), "sign": o.sign} for o in getattr(self, name)] for name in ("real", "made")}
        return {**asdict(self), **orders}

    @property
    def text(self) -> str:
        """The figures for people, a few lines."""
        f, d, c = self.fidelity, self.diversity, self.consistency
        lines = [
            f"{f.crops} painted crops of {f.crop} px against as many of each half of {self.images} real images; "
            f"the floor is one half against the other",
            f"{'':<12}{'Frechet':>9}{'floor':>9}{'kernel':>10}{'+-':>8}{'floor':>10}{'+-':>8}",
            _line("texture", f.texture),
            _line("colour", f.colour),
            f"texture: features of {self.network}; not comparable with distances of Inception features",
            f"diversity    {d.pixels:.4f} of the range of intensities, between images of one layout; 0: noise is "
            f"ignored (features {d.features:.3f}, between layouts {d.layouts:.3f})",
            f"consistency  read back: foreground Dice {c.dice:.3f}, h off by {c.h_error:.3f}, v by {c.v_error:.3f}; "
            f"objects F1 {c.f1:.3f} of {c.f1_exact:.3f}, AJI {c.aji:.3f} of {c.aji_exact:.3f} with exact maps",
        ]
        return "\n".join([*lines, *self._order_lines()])

    def _order_lines(self) -> list[str]:
        turned = [c for c, (a, b) in enumerate(zip(self.real, self.made, strict=True)) if a.sign * b.sign < 0]
        inverted = f"is NOT kept: inverted in channel {', '.join(map(str, turned))}"
        kept = {True: "is kept", False: inverted, None: "is undecided"}[self.order_kept]
        words = {1: "brighter", -1: "darker", 0: "undecided"}
        lines = [f"order of objects and background {kept}"]
        for channel, (real, made) in enumerate(zip(self.real, self.made, strict=True)):
            parts = [
                f"{name} {order.objects:.3f} on {order.background:.3f} ({words[order.sign]})"
                for name, order in (("real", real), ("painted", made))
            ]
            lines.append(f"  channel {channel}: {', '.join(parts)}")
        return lines


def _line(name: str, d: Distances) -> str:
    return (
        f"{name:<12}{d.frechet:>9.3f}{d.frechet_floor:>9.3f}{d.kernel:>10.3f}{d.kernel_deviation:>8.3f}"
        f"{d.kernel_floor:>10.3f}{d.kernel_floor_deviation:>8.3f}"
    )


@verb({"histogram": 1, "score": 4})
def score_synthesis(
    options: ScoreOptions,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    cancel: threading.Event | None = None,
) -> SynthesisScore:
    """Compare what a synthesis paints with images that have centre points.

    Raises:
        MissingDataError: no synthesis, image or points there.
        InputError: images or points do not fit the synthesis or one another.
        OutputExistsError: `out` or `picture` is there already.
        SetupError: the device is not there.
    """
    execution = execution or Execution()
    for option, path in (("--out", options.out), ("--picture", options.picture)):
        if path is not None:
            refuse_existing(path, overwrite=execution.overwrite, option=option)
    synthesis, device = load_synthesis(options.synthesis), find_device(options.device)
    synthesis = replace(synthesis, generator=synthesis.generator.to(device), masker=synthesis.masker.to(device))
    images = _read(options, synthesis, execution, on_event)
    side = options.crop or max(_LEAST, synthesis.config.crop // _STRIDE * _STRIDE)
    halves(images, side, options.seed)  # refuses what does not fit before anything is painted
    precision = settle_precision(options.precision, options.device)
    with autocast(options.device, precision):
        pairs = [draw_pair(synthesis, (side, side), seed=(options.seed, k)) for k in range(options.crops // 2)]
        score = replace(_score(options, synthesis, images, pairs), precision=precision)
        if options.picture is not None:
            put_file(options.picture, draw_sheet(_rows(synthesis, images, pairs, side)))
    if options.out is not None:
        put_file(options.out, (json.dumps(score.as_dict(), indent=1) + "\n").encode())
    return score


def _read(
    options: ScoreOptions, synthesis: Synthesis, execution: Execution, on_event: Callable[[Event], None]
) -> list[PointedSource]:
    config = synthesis.config
    with Runner(execution, on_event) as runner:
        stored = read_pointed(
            options.images, options.points, channels=options.channels, low=config.low, high=config.high, runner=runner
        )
    for image in stored:
        if image.channels != config.generator.channels:
            raise InputError.of(
                found=f"{image.name}: {image.channels} channels",
                expected=f"{config.generator.channels}, as {options.synthesis} paints them",
                fix="choose them with --channel",
            )
    return hold_in_memory(stored)


def _score(
    options: ScoreOptions, synthesis: Synthesis, images: Sequence[PointedSource], pairs: Sequence[Pair]
) -> SynthesisScore:
    labels, made = [pair.labels for pair in pairs], [pair.image for pair in pairs]
    real_orders = real_order(images, windows=options.crops, seed=options.seed)
    made_orders = contrast_order(made, labels)
    return SynthesisScore(
        synthesis=options.synthesis,
        sha256=synthesis.sha256,
        network=NETWORK,
        images=len(images),
        fidelity=fidelity(images, made, crops=options.crops, crop=made[0].shape[1], seed=options.seed),
        diversity=diversity(synthesis, labels[:_DIVERSE], [options.seed + k for k in range(_NOISES)]),
        consistency=consistency(synthesis, labels[:_READ], seed=options.seed),
        real=real_orders,
        made=made_orders,
        order_kept=order_kept(real_orders, made_orders),
    )


def _rows(synthesis: Synthesis, images: Sequence[PointedSource], pairs: Sequence[Pair], side: int) -> list[SheetRow]:
    """Return rows of the sheet: some drawn pairs, then the middles of some real images."""
    drawn = [
        drawn_row(maps_from_labels(pair.labels), pair.image, read_maps(synthesis, pair.image), f"layout {number}")
        for number, pair in enumerate(pairs[:_SHOWN])
    ]
    real = []
    for image in images[:_SHOWN]:
        start = [(n - side) // 2 for n in image.shape]
        box = Box((start[0], start[1]), (start[0] + side, start[1] + side))
        pixels: npt.NDArray[np.float32] = (image.window(box) + np.float32(1)) / np.float32(2)
        maps = read_maps(synthesis, pixels)
        inside = image.points - start
        inside = inside[((inside > -0.5) & (inside < side - 0.5)).all(1)]
        painted = paint_maps(synthesis, maps, noise_of(synthesis, maps.shape[1:], 0))
        real.append(real_row(pixels, inside, maps, painted, image.name))
    return [*drawn, *real]
