"""Options of training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from sketchscale.options.groups import Channels, Precision, SketchReadingOptions, running
from sketchscale.settings import option

__all__ = ["TrainOptions"]

_held = partial(option, panel="Held-out annotation")
_how = partial(option, panel="How it learns")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions(SketchReadingOptions, Channels, Precision):
    """From sketches to a model; see training.loop for the effect of each option."""

    out: str = option("model", "Folder of the model.")
    images: tuple[str, ...] = option((), "OME-Zarr images.", argument="[IMAGE...]")
    sketches: tuple[str, ...] = option(
        (), "Sketch of each image, in order: any file that `sketch import` reads.", flag="--sketch"
    )
    volume: bool = option(False, "Learn whole volumes in 3-D, from strokes drawn in some of their planes.")
    anisotropy: float | None = option(
        None, "Spacing z / spacing y of the volumes, if the files do not give it.", at_least=0.05, at_most=20
    )
    synthetic: tuple[str, ...] = option(
        (), "Synthesis, or folder of pairs made by one, to train on in addition to images or instead; repeatable."
    )
    synthetic_share: float | None = option(
        None, "Share of synthetic patches; by default 0.5, or 1 without images.", at_least=0, at_most=1
    )
    minutes: float | None = option(
        5.0, "Time for everything: reading, steps, calibration, saving; the learning rate follows the clock.", above=0
    )
    steps: int | None = option(None, "Steps instead of minutes.", at_least=1)
    loss: str = option(
        "auto", "sketchpose, sketchpose-1, eikonal, dense or hover; auto: eikonal where boundaries are missing."
    )
    network: str = option("unet", "Name of a network.")
    init: str | None = option(
        "auto", "random, a model, or a file of Cellpose 1-3 or Omnipose; auto: the shipped `start` where it fits."
    )
    validate: tuple[str, ...] = _held(
        (), "Image for validation, not for training; training ends when scores stop improving; repeatable."
    )
    validate_sketches: tuple[str, ...] = _held(
        (), "Sketch of each --validate image, in order.", flag="--validate-sketch"
    )
    hold_out: float | None = _held(
        None, "Share of the annotated objects to use for validation instead, such as 0.2.", above=0, below=1
    )
    patience: int = _held(10, "Scores without improvement before training ends.", at_least=1)
    validate_every: int = _held(25, "Steps between scores.", at_least=1)
    width: int | Literal["auto"] = _how(
        "auto", "Channels of the first level: 8, 16 or 32; auto: by --minutes; not with --init.", at_least=1
    )
    rate: float | Literal["auto"] = _how(
        "auto", "Peak of the learning rate; auto: 0.003 from random weights, less with --init.", above=0
    )
    batch: int | Literal["auto"] = _how("auto", "Patches per step; auto: by --minutes.", at_least=1)
    patch: int | Literal["auto"] = _how("auto", "Side of a patch; auto: by --minutes.", unit="px", at_least=1)
    optimizer: str = _how("adamw", "adamw or radam.")
    weight_decay: float = _how(1e-4, "Weight decay of the optimiser: more keeps weights small.", at_least=0)
    schedule: Literal["cosine", "constant"] = _how(
        "cosine", "The learning rate after its rise: falls to 0 as a cosine, or stays."
    )
    augment: Literal["none", "turns", "shapes", "all"] = _how(
        "all", "How patches vary: turns are flips and quarter turns, shapes scale too, all changes intensities too."
    )
    loss_weights: tuple[str, ...] = _how(
        (), "Weight of a term of the loss, such as distance=0.2; repeatable.", flag="--loss-weight"
    )
    diameter: float | None = _how(
        None,
        "Diameter of the objects in the images, px, which sets their scale; by default that of the outlined ones.",
        above=0,
    )
    rescale: float | None = _how(
        None, "The scale itself, network px per image px; 1 leaves images as they are.", at_least=0.05, at_most=20
    )
    rehearse: float | Literal["auto"] = _how(
        "auto",
        "Share of the patches from images that the --init model learned from, so that it does not forget them.",
        at_least=0,
        below=1,
    )
    seed: int = _how(0, "Seed of weights and patches.", at_least=0)
    on_conflict: Literal["refuse", "last"] = _how(
        "refuse", "If two classes are drawn over one another: refuse, or use the last."
    )
    compile: Literal["auto", "on", "off"] = running("auto", "Compile the training step; auto: on CUDA.")
    threads: int | None = running(None, "Threads of torch on the CPU.", at_least=1)
    preview_every: int = running(100, "Steps between pictures in the run folder; 0 writes none.", at_least=0)
    save_every_s: float = running(
        180.0, "Time between saved states, from which a killed training can continue.", unit="s", at_least=0
    )
