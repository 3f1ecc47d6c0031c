"""Sketches of clicked images: each object as a synthesis sees it around its point; what it is unsure of, left open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.events import append_events
from sketchscale.annotations.readers import Stamp, events_from_labels
from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.errors import InputError, OutputError
from sketchscale.io.user_files import require_local
from sketchscale.synthesis.model import load_synthesis
from sketchscale.synthesis.outlines import OutlineConfig, check_channels, outline_image
from sketchscale.training.config import find_device
from sketchscale.workflow.pointed_images import StoredImage, read_pointed
from sketchscale.workflow.runner import Runner, quiet, refuse_existing

__all__ = ["OutlineOptions", "Outlined", "synthesize_outline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineOptions:
    """What to outline.

    Attributes:
        synthesis: folder or address. images, points: pairs, in order.
        out: folder for the sketches, `<name of the image>.jsonl` each.
        channels: of each image, as many as the generator paints; all when None.
        foreground, background: see OutlineConfig.
    """

    synthesis: str
    images: tuple[str, ...]
    points: tuple[str, ...]
    out: str
    channels: tuple[int | str, ...] | None = None
    foreground: float = 0.2
    background: float = 0.2
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlined:
    """A sketch that was written.

    Attributes:
        objects: points that got one. unknown: share of the pixels about which nothing is said.
    """

    image: str
    sketch: str
    objects: int
    unknown: float

    @property
    def line(self) -> str:
        return f"{self.sketch}: {self.objects} objects, {self.unknown:.1%} of the pixels unknown"


def synthesize_outline(
    options: OutlineOptions, execution: Execution | None = None, on_event: Callable[[Event], None] = quiet
) -> list[Outlined]:
    """Write a sketch for each image.

    Raises:
        MissingDataError, InputError: no synthesis, other channels, points that do not fit, images of one name; nothing
            was written. Or pixels that are no numbers, found when their turn comes: sketches before it are kept.
        OutputExistsError: a sketch is there.
        OutputError: the folder cannot be written.
    """
    execution = execution or Execution()
    require_local(options.out)
    targets = _targets(options)
    for target in targets:
        refuse_existing(str(target), overwrite=execution.overwrite)
    config = OutlineConfig(foreground=options.foreground, background=options.background)
    synthesis = load_synthesis(options.synthesis)
    device = find_device(options.device)
    synthesis.masker.to(device)
    low, high = synthesis.config.low, synthesis.config.high
    with Runner(execution, on_event) as runner:
        images = read_pointed(
            options.images, options.points, channels=options.channels, low=low, high=high, runner=runner
        )
    for image in images:
        check_channels(synthesis, image)
    _make_folder(options.out)
    return [
        _write(image, outline_image(synthesis, image, config), target)
        for image, target in zip(images, targets, strict=True)
    ]


def _make_folder(out: str) -> None:
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror}; expected: a place to write; to fix: another --out") from error


def _targets(options: OutlineOptions) -> list[Path]:
    names = [PurePosixPath(address.rstrip("/")).name.split(".")[0] for address in options.images]
    for name in names:
        if names.count(name) > 1:
            raise InputError.of(
                found=f"{names.count(name)} images are called {name}", expected="names of their own", fix="two runs"
            )
    return [Path(options.out) / f"{name}.jsonl" for name in names]


def _write(image: StoredImage, labels: npt.NDArray[np.int32], target: Path) -> Outlined:
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    append_events(partial, events_from_labels(labels, Stamp.now(image=target.stem)))
    partial.replace(target)
    objects = len(np.unique(labels[labels > 0]))
    return Outlined(image=image.name, sketch=str(target), objects=objects, unknown=float((labels < 0).mean()))
