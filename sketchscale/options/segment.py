"""Options of what looks at images with a model: segment, where-next; and of what judges labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from sketchscale.errors import InputError
from sketchscale.options.groups import Channels, Components, Labels, Precision, SketchReadingOptions
from sketchscale.rule import Crowds, FlowRule, ModelRule, Refinement
from sketchscale.settings import check, option, unset

__all__ = ["EvaluateOptions", "NextOptions", "SegmentOptions"]

_network = partial(option, panel="Network")


@dataclass(frozen=True, slots=True, kw_only=True)
@unset(ModelRule, "the model's")
@unset(Crowds, "by the model's diameter")
class SegmentOptions(Labels, Channels, FlowRule[None], Refinement, Precision):
    """From image to labels. None means what the model says.

    A model that gives h/v maps follows no flow: `method`, `steps`, `link_radius`, `saddle`, `join_share`, `join_radius`
    and `flow_error` are refused with it.
    """

    model: str = option("nuclei-fluo", "A shipped model, or a model folder.")
    tile: int | None = _network(None, "Side of a network tile.", unit="px", at_least=16)
    overlap: int | None = _network(None, "What neighbouring tiles share.", unit="px", at_least=0)
    diameter: float | None = _network(
        None, "Of this image's objects: the network sees them at its own size.", unit="px", above=0
    )
    rescale: float | None = _network(
        None, "That scale itself, network px per image px; excludes --diameter.", at_least=0.05, at_most=20
    )
    flips: Literal[1, 4, 8] = _network(
        1, "Mean over 4 mirrored copies of a tile, or 8 with the transposed ones; as many times slower."
    )
    batch: int | None = _network(None, "Tiles that the network sees at once.", at_least=1)
    t: int | None = option(None, "Time point, where there are several.", at_least=0)
    z: int | None = option(None, "Section, where there are several.", at_least=0)
    volume: bool = option(False, "Outline whole volumes: every section at once, labels in 3-D, sizes in voxels.")
    anisotropy: float | None = option(None, "Spacing z / spacing y of a volume, if the file does not say.", above=0)
    shard: int | None = option(
        None,
        "Side of a shard of the labels, whole chunks: fewer, larger files; else as the image.",
        unit="px",
        at_least=16,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NextOptions(SketchReadingOptions):
    """Where to draw next."""

    segment: SegmentOptions = option(
        factory=SegmentOptions,
        help="Of the model that is being taught: best the one that the sketches trained.",
        only=("model", "channels", "t", "z", "device", "precision"),
    )
    sketches: tuple[str, ...] = option((), "Sketch of the first, second ... image; the rest has none.", flag="--sketch")
    n: int = option(10, "Boxes to propose.", at_least=1)
    size: int = option(256, "Side of a box; about what a person draws on in one go.", unit="px", at_least=32)
    sample: int = option(
        256, "Boxes to look at in an image, at most, of the annotated and of the other ones.", at_least=1
    )

    def __post_init__(self) -> None:
        check(self)
        if self.segment.flips != 1 or self.segment.diameter is not None or self.segment.rescale is not None:
            raise InputError("flips and scales are not for where-next: it compares flips itself, at the image's scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions(Labels, Components):
    """Labels against the truth."""

    truth: tuple[str, ...] = option(
        (), "True label image of each image, in order: TIFF, PNG, NPY, OME-Zarr, or a glob."
    )
    truth_labels: str | None = option(None, "Or: name of the true label image beside each image.")
    iou: tuple[float, ...] = option(
        (), "Thresholds, as in 0.5,0.75; else 0.5 to 0.95.", above=0, at_most=1, commas=True
    )
    csv: str | None = option(None, "Write every figure to this table.")
