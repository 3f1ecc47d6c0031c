"""Options of what is done with sketches as files."""

from __future__ import annotations

from dataclasses import dataclass

from sketchscale.options.groups import SketchReadingOptions
from sketchscale.settings import Options, option

__all__ = ["SimulateOptions", "SketchOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchOptions(SketchReadingOptions):
    """A sketch of a file, and its image."""

    image: str | None = option(None, "The image it belongs to: cut brushes at its edge, draw over it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions(Options):
    """Partial annotation from full masks."""

    style: str = option(
        "fill", "With outlines: fill, half, scribble. Without: interior (curves), points. Or gp, a random mask."
    )
    objects: int = option(20, "Objects to annotate by strokes.", at_least=1)
    percent: float = option(10.0, "Annotated pixels with style gp.", unit="%", above=0, at_most=100)
    seed: int = option(0, "Another one draws other strokes.", at_least=0)
