"""Options of sketch files."""

from __future__ import annotations

from dataclasses import dataclass

from sketchscale.options.groups import SketchReadingOptions
from sketchscale.settings import Options, option

__all__ = ["SimulateOptions", "SketchOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchOptions(SketchReadingOptions):
    """How to read a sketch file, and its image."""

    image: str | None = option(None, "The image of the sketch: brushes are cut at its edge, and pictures show it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions(Options):
    """How to make partial annotation from full masks."""

    style: str = option(
        "fill", "With outlines: fill, half, scribble. Without: interior (curves), points. Or gp, a random mask."
    )
    objects: int = option(20, "Objects to annotate by strokes.", at_least=1)
    percent: float = option(10.0, "Share of annotated pixels with style gp.", unit="%", above=0, at_most=100)
    seed: int = option(0, "Seed of the strokes.", at_least=0)
