"""Options of syntheses: train one, generate pairs, score it, outline clicked objects with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from sketchscale.errors import InputError
from sketchscale.options.groups import Channels, Labels, NetworkPrecision, Pointed, SketchReadingOptions, running
from sketchscale.settings import Options, check, option

__all__ = ["GenerateOptions", "OutlineOptions", "ScoreOptions", "SynthesisOptions"]

_objects = partial(option, panel="What objects look like")
_how = partial(option, panel="How it learns")


@dataclass(frozen=True, kw_only=True)
class _Synthesis(Options):
    __slots__ = ()

    synthesis: str = option(help="Folder that `synthesize train` wrote.", argument="SYNTHESIS")


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisOptions(Pointed, Channels, NetworkPrecision):
    """From images with centre points to a synthesis; see synthesis.gan for what each does."""

    out: str = option(help="Folder of the synthesis.")
    diameter: float = _objects(help="Of an object that stands alone.", unit="px", at_least=2)
    spread: float = _objects(0.45, "Of areas: standard deviation over mean.")
    crowding: float = _objects(1.0, "How much smaller crowded objects are.")
    size: Literal["small", "paper"] = _how("small", "small (laptop), or paper: as published (GPU).")
    steps: int | None = _how(None, "3000, or 300000 with --size paper.", at_least=1)
    batch: int | None = _how(None, "Crops a step: 4, or 8.", at_least=1)
    crop: int | None = _how(None, "Side of a crop: 128, or 256.", unit="px", at_least=64)
    width: int | None = _how(None, "Of the generator: 8, or 32.", at_least=1)
    noise: int = _how(1, "Numbers drawn for each image.", at_least=1)
    given: float = _how(0.5, "Share of layouts on given points; others on drawn.")
    rate: float = _how(2e-4, "Learning rate.", above=0)
    seed: int = _how(0, "Of weights, crops and layouts.", at_least=0)
    threads: int | None = running(None, "Of torch on the CPU.", at_least=1)
    sheet_every: int = running(250, "Steps between sample sheets, 0: none.", at_least=0)
    save_every_s: float = running(60.0, "Between saved states.", unit="s", at_least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions(_Synthesis, Labels, NetworkPrecision):
    """Pairs of image and labels."""

    out: str = option(help="New folder for the pairs.")
    images: int = option(100, "How many pairs.", at_least=1, at_most=100_000)
    size: int = option(512, "Side of an image.", unit="px", at_least=64, at_most=8192)
    seed: int = option(0, "Of layouts and noise.", at_least=0)
    points: tuple[str, ...] = option(
        (), "Centres to stand on instead of drawn ones, in turn: CSV, GeoJSON, sketch; repeatable."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions(_Synthesis, Pointed, Channels, NetworkPrecision):
    """Painted crops against real ones."""

    crops: int = option(200, "Of the real images; half as many are painted.", at_least=8)
    crop: int | None = option(
        None, "Their side, a multiple of 32; that of training when not given.", unit="px", at_least=64
    )
    seed: int = option(0, "Of crops, layouts and noise.", at_least=0)
    out: str | None = option(None, "Write every figure to this JSON file.")
    picture: str | None = option(None, "PNG of some, painted and read.")

    def __post_init__(self) -> None:
        check(self)
        if self.crop is not None and self.crop % 32:
            raise InputError.of(found=f"crop {self.crop}", expected="a multiple of 32 px", fix="change --crop")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineOptions(_Synthesis, Pointed, Channels, SketchReadingOptions, NetworkPrecision):
    """Sketches from clicks."""

    out: str = option(help="Folder for the sketches, one for each image.")
    sketches: tuple[str, ...] = option(
        (), "Strokes on each image, in order; they overrule what is seen.", flag="--sketch"
    )
    model: str | None = option(None, "Segmentation model that reads along, as one trained with strokes.")
    foreground: float = option(0.2, "Least probability of an object's pixel.", at_least=0, at_most=1)
    background: float = option(0.2, "Largest probability of background.", at_least=0, at_most=1)
    all_clicked: bool = option(False, "No object is without a point: all the rest is background.")
