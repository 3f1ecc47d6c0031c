"""Options of work with a model: segment, where-next; and of evaluate."""

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
    """From image to labels. None means the model's value.

    A model that gives h/v maps follows no flow: `method`, `steps`, `link_radius`, `prominence`, `join_share`,
    `join_radius` and `flow_error` are refused with it.
    """

    model: str = option("nuclei-fluo", "A shipped model, or a model folder.")
    tile: int | None = _network(None, "Side of a network tile.", unit="px", at_least=16)
    overlap: int | None = _network(None, "Overlap of neighbouring tiles.", unit="px", at_least=0)
    diameter: float | None = _network(
        None,
        "Diameter of this image's objects; they are scaled to the size that the network knows.",
        unit="px",
        above=0,
    )
    rescale: float | None = _network(
        None, "The scale itself, network px per image px; excludes --diameter.", at_least=0.05, at_most=20
    )
    flips: Literal[1, 4, 8] = _network(
        1, "Average over 4 mirrored copies of a tile, or 8 with transposed ones; as many times slower."
    )
    batch: int | None = _network(None, "Tiles that the network processes at once.", at_least=1)
    t: int | None = option(None, "Time point, where there are several.", at_least=0)
    z: int | None = option(None, "Section, where there are several.", at_least=0)
    volume: bool = option(False, "Outline whole volumes: every section at once, labels in 3-D, sizes in voxels.")
    anisotropy: float | None = option(None, "Spacing z / spacing y of a volume, if the file does not give it.", above=0)
    shard: int | None = option(
        None,
        "Side of a shard of the labels, whole chunks, for fewer, larger files; by default as in the image.",
        unit="px",
        at_least=16,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NextOptions(SketchReadingOptions):
    """Where to draw next."""

    segment: SegmentOptions = option(
        factory=SegmentOptions,
        help="Options of the model that is being trained: best the one trained on the sketches.",
        only=("model", "channels", "t", "z", "device", "precision"),
    )
    sketches: tuple[str, ...] = option(
        (), "Sketch of the first, second ... image; the others have none.", flag="--sketch"
    )
    n: int = option(10, "Number of boxes to propose.", at_least=1)
    size: int = option(256, "Side of a box; about the area that a person annotates at once.", unit="px", at_least=32)
    sample: int = option(256, "Most boxes to examine in an image, of the annotated and of the other ones.", at_least=1)

    def __post_init__(self) -> None:
        check(self)
        if self.segment.flips != 1 or self.segment.diameter is not None or self.segment.rescale is not None:
            raise InputError(
                "flips and scales do not apply to where-next: it compares flips itself, at the image's scale"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions(Labels, Components):
    """Which truth labels are compared with, and how."""

    truth: tuple[str, ...] = option(
        (), "True label image of each image, in order: TIFF, PNG, NPY, OME-Zarr, or a glob."
    )
    truth_labels: str | None = option(None, "Instead of --truth: name of the true label image inside each image.")
    iou: tuple[float, ...] = option(
        (), "Thresholds, as in 0.5,0.75; by default 0.5 to 0.95.", above=0, at_most=1, commas=True
    )
    csv: str | None = option(None, "Write every figure to this table.")
