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
    """From images with centre points to a synthesis; see synthesis.gan for the effect of each option."""

    out: str = option(help="Folder of the synthesis.")
    diameter: float = _objects(help="Diameter of an isolated object.", unit="px", at_least=2)
    spread: float = _objects(0.45, "Spread of areas: standard deviation over mean.")
    crowding: float = _objects(1.0, "How much smaller crowded objects are.")
    size: Literal["small", "paper"] = _how("small", "small (for a laptop), or paper (as published, for a GPU).")
    steps: int | None = _how(None, "Training steps; by default 3000, or 300000 with --size paper.", at_least=1)
    batch: int | None = _how(None, "Crops per step; by default 4, or 8 with --size paper.", at_least=1)
    crop: int | None = _how(None, "Side of a crop; by default 128, or 256 with --size paper.", unit="px", at_least=64)
    width: int | None = _how(None, "Width of the generator; by default 8, or 32 with --size paper.", at_least=1)
    noise: int = _how(1, "Random numbers drawn for each image.", at_least=1)
    local_noise: int = _how(0, "Random numbers drawn for each pixel.", at_least=0)
    given: float = _how(0.5, "Share of layouts on given points; the others are on drawn points.")
    rate: float = _how(2e-4, "Learning rate.", above=0)
    seed: int = _how(0, "Seed of weights, crops and layouts.", at_least=0)
    threads: int | None = running(None, "Threads of torch on the CPU.", at_least=1)
    sheet_every: int = running(250, "Steps between sample sheets; 0 writes none.", at_least=0)
    save_every_s: float = running(60.0, "Time between saved states.", unit="s", at_least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions(_Synthesis, Labels, NetworkPrecision):
    """Pairs of image and labels."""

    out: str = option(help="New folder for the pairs.")
    images: int = option(100, "Number of pairs.", at_least=1, at_most=100_000)
    size: int = option(512, "Side of an image.", unit="px", at_least=64, at_most=8192)
    seed: int = option(0, "Seed of layouts and noise.", at_least=0)
    points: tuple[str, ...] = option(
        (), "Centres to use in turn instead of drawn ones: CSV, GeoJSON, sketch; repeatable."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions(_Synthesis, Pointed, Channels, NetworkPrecision):
    """How to compare painted crops with real ones."""

    crops: int = option(200, "Crops of the real images; half as many are painted.", at_least=8)
    crop: int | None = option(
        None, "Side of a crop, a multiple of 32; by default that of training.", unit="px", at_least=64
    )
    seed: int = option(0, "Seed of crops, layouts and noise.", at_least=0)
    out: str | None = option(None, "Write every figure to this JSON file.")
    picture: str | None = option(None, "Write a PNG of some crops, painted and read back.")

    def __post_init__(self) -> None:
        check(self)
        if self.crop is not None and self.crop % 32:
            raise InputError.of(found=f"crop {self.crop}", expected="a multiple of 32 px", fix="change --crop")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineOptions(_Synthesis, Pointed, Channels, SketchReadingOptions, NetworkPrecision):
    """How to make sketches from clicks."""

    out: str = option(help="Folder for the sketches, one for each image.")
    sketches: tuple[str, ...] = option(
        (), "Strokes on each image, in order; they overrule the synthesis.", flag="--sketch"
    )
    model: str | None = option(None, "Segmentation model to use as well, such as one trained on strokes.")
    foreground: float = option(0.2, "Least probability of an object's pixel.", at_least=0, at_most=1)
    background: float = option(0.2, "Largest probability of background.", at_least=0, at_most=1)
    all_clicked: bool = option(False, "Every object has a point, so everything else is background.")
