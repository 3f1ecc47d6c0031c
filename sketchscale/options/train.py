"""Options of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sketchscale.options.groups import RUNNING, Channels, Precision, SketchReadingOptions
from sketchscale.settings import option

__all__ = ["TrainOptions"]

_HELD, _HOW = "Held-out annotation", "How it learns"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions(SketchReadingOptions, Channels, Precision):
    """From sketches to a model; see training.loop for what each does."""

    out: str = option("model", "Folder of the model.")
    images: tuple[str, ...] = option((), "OME-Zarr images.", argument="[IMAGE...]")
    sketches: tuple[str, ...] = option(
        (), "Sketch of each image, in order: any file that `sketch import` reads.", flag="--sketch"
    )
    synthetic: tuple[str, ...] = option(
        (), "Synthesis, or folder of pairs that one made, to learn from beside images or instead; repeatable."
    )
    synthetic_share: float | None = option(
        None, "Of the patches, 0.5; all of them without images.", at_least=0, at_most=1
    )
    minutes: float | None = option(
        5.0, "Of the whole: reading, steps, calibration, saving; the learning rate follows the clock.", above=0
    )
    steps: int | None = option(None, "Steps instead of minutes.", at_least=1)
    loss: str = option("sketchpose", "sketchpose, sketchpose-1, eikonal, dense or hover.")
    network: str = option("unet", "Name of a network.")
    init: str | None = option("random", "random, a model, or a file of Cellpose 1-3 or Omnipose.")
    validate: tuple[str, ...] = option(
        (), "Image to score, not to learn from; training ends when scores stop improving; repeatable.", panel=_HELD
    )
    validate_sketches: tuple[str, ...] = option(
        (), "Sketch of each --validate image, in order.", flag="--validate-sketch", panel=_HELD
    )
    hold_out: float | None = option(
        None, "Share of the annotated objects to score instead, as 0.2.", above=0, below=1, panel=_HELD
    )
    patience: int = option(10, "Scores without a better one before it ends.", at_least=1, panel=_HELD)
    validate_every: int = option(25, "Steps between scores.", at_least=1, panel=_HELD)
    width: int | Literal["auto"] = option(
        "auto",
        "Channels of the first level: 8, 16 or 32; auto: by --minutes; --init has its own.",
        at_least=1,
        panel=_HOW,
    )
    rate: float = option(3e-3, "Peak of the learning rate.", above=0, panel=_HOW)
    batch: int | Literal["auto"] = option("auto", "Patches a step; auto: by --minutes.", at_least=1, panel=_HOW)
    patch: int | Literal["auto"] = option(
        "auto", "Side of a patch; auto: by --minutes.", unit="px", at_least=1, panel=_HOW
    )
    optimizer: str = option("adamw", "adamw or radam.", panel=_HOW)
    seed: int = option(0, "Of weights and patches.", at_least=0, panel=_HOW)
    on_conflict: Literal["refuse", "last"] = option(
        "refuse", "Two classes drawn over one another: refuse, or the later wins.", panel=_HOW
    )
    compile: Literal["auto", "on", "off"] = option("auto", "Compile the step; auto: on CUDA.", panel=RUNNING)
    threads: int | None = option(None, "Of torch on the CPU.", at_least=1, panel=RUNNING)
    preview_every: int = option(100, "Steps between pictures in the run folder, 0: none.", at_least=0, panel=RUNNING)
    save_every_s: float = option(
        180.0,
        "Between saved states, which a killed training goes on from.",
        unit="s",
        at_least=0,
        flag="--save-every",
        panel=RUNNING,
    )
