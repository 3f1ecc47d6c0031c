"""How image files become OME-Zarr; apart from `convert`, so that the command line reads it without loading arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sketchscale.errors import InputError
from sketchscale.settings import Options, check, option

__all__ = ["ConvertConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertConfig(Options):
    """How files become images. None believes the file."""

    axes: str | None = option(None, "What the file's axes are, in order: zyx sections, cyx channels, tyx.")
    channels: tuple[str, ...] = option((), "Name of a channel, once per channel, in order.", flag="--channel")
    spacing: float | tuple[float, float] | None = option(
        None, "Of pixels, or (y, x) of them; else what the file says.", unit="um", above=0
    )
    depth: float | None = option(
        None, "From section to section; else what the file says.", unit="um", above=0, flag="--z-spacing"
    )
    version: Literal["0.4", "0.5"] = option("0.5", "OME-Zarr version to write.", flag="--ngff")
    chunk: int = option(
        512, "Side of a chunk: smaller reads small regions faster, larger makes fewer files.", unit="px", at_least=1
    )
    shard: int | None = option(
        None, "Side of a shard, whole chunks, version 0.5 only: one stored file each.", unit="px", at_least=1
    )
    levels: int | None = option(
        None, "Of the pyramid; halved until the smaller side is at most 256 px when not given.", at_least=1, at_most=30
    )
    block: int = option(
        2048, "What a task writes along y and x, about: memory against number of tasks.", unit="px", at_least=1
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
