"""Options of `convert`, in a separate module so that the command line loads them without array libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sketchscale.errors import InputError
from sketchscale.settings import Options, check, option

__all__ = ["ConvertConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertConfig(Options):
    """How image files become OME-Zarr images; None takes the value of the file."""

    axes: str | None = option(
        None, "Axes of the file, in order: zyx for sections, cyx for channels, tyx for time points."
    )
    channels: tuple[str, ...] = option((), "Name of a channel; give it once per channel, in order.", flag="--channel")
    spacing: float | tuple[float, float] | None = option(
        None, "Size of a pixel, or (y, x); by default that of the file.", unit="um", above=0
    )
    depth: float | None = option(
        None, "Distance from section to section; by default that of the file.", unit="um", above=0, flag="--z-spacing"
    )
    version: Literal["0.4", "0.5"] = option("0.5", "OME-Zarr version to write.", flag="--ngff")
    chunk: int = option(
        512,
        "Side of a chunk: smaller chunks read small regions faster, larger chunks make fewer files.",
        unit="px",
        at_least=1,
    )
    shard: int | None = option(
        None, "Side of a shard, which is one stored file of whole chunks; version 0.5 only.", unit="px", at_least=1
    )
    levels: int | None = option(
        None,
        "Levels of the pyramid; by default it is halved until the smaller side is at most 256 px.",
        at_least=1,
        at_most=30,
    )
    block: int = option(
        2048, "Approximate side of what a task writes: larger needs more memory and fewer tasks.", unit="px", at_least=1
    )

    def __post_init__(self) -> None:
        check(self)
        if self.shard is not None and (self.shard % self.chunk or self.version != "0.5"):
            raise InputError.of(
                found=f"shard {self.shard}, chunk {self.chunk}, version {self.version}",
                expected="a multiple of the chunk, version 0.5",
                fix="change shard",
            )

    @property
    def pixel(self) -> tuple[float, float] | None:
        """Spacing (y, x), um."""
        return (self.spacing, self.spacing) if isinstance(self.spacing, int | float) else self.spacing
