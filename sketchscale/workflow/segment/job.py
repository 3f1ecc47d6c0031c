"""Decide what a segmentation does before the first pixel is read, from options, model and image.

Options left at None are the model's. Each decision is one function, so that arrays in memory (`workflow.arrays`) and
stored images (`workflow.segment`) cannot decide differently.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sketchscale import __version__
from sketchscale.config import Execution, SegmentOptions, as_json
from sketchscale.errors import InputError, UnknownNameError
from sketchscale.inference.backend import Recipe, check_device
from sketchscale.inference.views import View, views_of
from sketchscale.integration.config import IntegrationConfig, crowd_for
from sketchscale.integration.refine import RefineConfig
from sketchscale.integration.watershed.config import watershed_for
from sketchscale.integration.ways import Rule
from sketchscale.io.ome_zarr.image import Image, open_image
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane
from sketchscale.io.runs.ledger import StoreLedger
from sketchscale.io.stores.addresses import join_address
from sketchscale.networks.checkpoint import Model, ModelConfig, copy_model, is_shipped, load_model
from sketchscale.settings import first, resolve
from sketchscale.workflow.precision import kept_by_run, settle_precision
from sketchscale.workflow.segment.found_scale import kept_scale, with_scale
from sketchscale.workflow.segment.label_layout import label_block, label_chunks, label_shards
from sketchscale.workflow.segment.unknown_kinds import is_tested

__all__ = [
    "SegmentJob",
    "check_placement",
    "choose_channels",
    "flow_rule",
    "integration_config",
    "model_channels",
    "prepare",
    "recipe_of",
    "refine_config",
    "refuse_options_of_volumes",
    "run_name",
    "scale_of",
    "shared_model",
    "views_for",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentJob:
    """Everything that is decided before the first pixel is read.

    Attributes:
        pixels: the plane or volume of the image that is segmented.
        ratio: spacing z / spacing y; 1 of a plane.
    """

    image: Image
    pixels: PixelsRef
    channels: tuple[int, ...]
    model: Model
    model_folder: str
    options: SegmentOptions
    ratio: float
    recipe: Recipe
    views: tuple[View, ...]
    integration: Rule
    refine: RefineConfig
    block: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None

    @property
    def run(self) -> str:
        """Name of the run."""
        return run_name(self.options)

    @property
    def axes(self) -> int:
        """2 for a plane, 3 for a volume."""
        return len(self.pixels.shape)

    def fingerprint(self) -> dict[str, str]:
        """Return what the labels depend on; two runs with the same fingerprint write the same bytes.

        Its texts are those of version 0.1, so that finished runs of that version are recognised.
        """
        plane = [self.pixels.index, self.channels]
        found = {
            "code": __version__,
            "input": self.image.identity(),
            "model": self.model.sha256,
            "plane": json.dumps(plane if self.axes == 2 else ["volume", *plane]),
            "recipe": json.dumps(asdict(self.recipe), sort_keys=True),
            "grid": self._grid_text(),
            "integration": json.dumps(self.rule_record(), sort_keys=True, separators=(",", ":")),
            # has no effect on the result, but blocks of another size are other tasks
            "block": json.dumps(self.block),
        }
        if self.shards is not None:
            found["shards"] = json.dumps(self.shards)
        if self.is_tested:
            found["kind"] = as_json(self.model.config.kind)
        if self.axes == 2 or self.refine.active:
            found["refine"] = as_json(self.refine)
        return found

    @property
    def is_tested(self) -> bool:
        """Whether the image is compared with what the model knows; only planes are."""
        return self.axes == 2 and is_tested(self.model.config)

    def rule_record(self) -> dict[str, Any]:
        """Return the rule from fields to labels, for fingerprint and provenance; crowds only where there are some."""
        rule = asdict(self.integration)
        if rule.get("crowd") == 1 and self.axes == 2:
            del rule["crowd"], rule["climb"]
        return rule

    def grid_record(self) -> Any:
        """Return how the network reads the image, for provenance."""
        if self.axes == 3:
            return json.loads(self._grid_text())
        grid, zoom = self.views[0].grid, self.views[0].zoom
        return {"tile": grid.tile[0], "overlap": grid.overlap[0], "scale": zoom}

    def _grid_text(self) -> str:
        if self.axes == 2:
            grid, zoom = self.views[0].grid, self.views[0].zoom
            square = {"shape": grid.shape, "tile": grid.tile[0], "overlap": grid.overlap[0]}
            return json.dumps([square, zoom], sort_keys=True)
        grids: list[dict[str, Any]] = [asdict(view.grid) for view in self.views]
        if len(grids) > 1:
            grids = [
                {"kind": view.name, "shape": view.shape, "ratio": self.ratio, "grid": grid}
                for view, grid in zip(self.views, grids, strict=True)
            ]
        zoom = self.views[0].zoom
        return json.dumps(grids if zoom == 1 else [grids, zoom], sort_keys=True)


def check_placement(device: str, execution: Execution) -> None:
    """Refuse a device that is not there, and shares of GPUs for a network that runs on none.

    Raises:
        SetupError: this machine lacks the device; workers of a cluster check their own.
        InputError: `gpus_per_worker` without cuda.
    """
    if execution.gpus_per_worker is not None and device != "cuda":
        raise InputError.of(
            found=f"--gpus-per-worker {execution.gpus_per_worker:g} with --device {device}",
            expected="a network that runs on GPUs",
            fix="--device cuda, or no --gpus-per-worker",
        )
    if execution.address is None:
        check_device(device)


def prepare(address: str, options: SegmentOptions, execution: Execution) -> SegmentJob:
    """Read the metadata of image and model, and refuse what does not fit.

    Args:
        address: of an OME-Zarr image.

    Raises:
        InputError: image, model or options do not fit one another.
    """
    check_placement(options.device, execution)
    refuse_options_of_volumes(options)
    image = open_image(address)
    pixels = image.volume(t=options.t) if options.volume else image.plane(t=options.t, z=options.z)
    model = load_model(options.model)
    channels = model_channels(pixels, options, model.config)
    options = with_scale(
        options,
        model,
        pixels.shape,
        lambda box: read_plane(pixels, box, channels),
        pixel_um=None if pixels.spacing_um is None else pixels.spacing_um[-1],
        kept=lambda: kept_scale(image.address, run_name(options), resume=execution.resume),
    )
    ratio = 1.0
    if options.volume:
        ratio = pixels.spacing[0] / pixels.spacing[1] if options.anisotropy is None else options.anisotropy
    chunks = label_chunks(pixels)
    shards = label_shards(image, pixels, chunks, options.shard)
    views = views_for(pixels.shape, model, options, ratio)
    return SegmentJob(
        image=image,
        pixels=pixels,
        channels=channels,
        model=model,
        model_folder=options.model,
        options=options,
        ratio=ratio,
        recipe=recipe_of(options, kept_by_run(image.address, run_name(options), resume=execution.resume)),
        views=views,
        integration=integration_config(model, options, ratio),
        refine=refine_config(options),
        block=label_block(pixels.shape, chunks, shards, execution),
        chunks=chunks,
        shards=shards,
    )


def refuse_options_of_volumes(options: SegmentOptions) -> None:
    """Refuse options of volumes for a plane, and the other way round, rather than ignore them.

    Raises:
        InputError: names the option.
    """
    if options.volume and options.z is not None:
        raise InputError.of(found=f"--z {options.z} with --volume", expected="the whole depth", fix="leave out --z")
    for name in ("anisotropy", "crowd"):
        if getattr(options, name) is not None and not options.volume:
            raise InputError.of(found=f"--{name} without --volume", expected="a volume", fix="add --volume")


def shared_model(address: str, ledger: StoreLedger) -> str:
    """Return an address of the model for all workers: a shipped name, else a copy in the scratch."""
    return address if is_shipped(address) else copy_model(address, join_address(ledger.scratch, "model"))


def run_name(options: SegmentOptions) -> str:
    """Return the name of the run and of its ledger."""
    return f"segment-{options.labels}"


def recipe_of(options: SegmentOptions, kept: Callable[[], str | None] = lambda: None) -> Recipe:
    """Return how the network runs; on a GPU eight tiles at once.

    Args:
        kept: returns the precision of the run to resume, see `settle_precision`.
    """
    batch = options.batch or (1 if options.device == "cpu" else 8)
    precision = settle_precision(options.precision, options.device, kept=kept)
    return Recipe(device=options.device, precision=precision, batch=batch, flips=options.flips)


def scale_of(model: Model, options: SegmentOptions) -> float:
    """Return network pixels per image pixel: `rescale`, or the model's diameter over the given one; else 1.

    Raises:
        InputError: both were given, a diameter that is not above 0, or a model that does not know its own.
    """
    if options.diameter is None:
        return 1.0 if options.rescale is None else options.rescale
    if options.rescale is not None:
        raise InputError("--diameter and --rescale exclude each other: give the objects' size, or the scale itself")
    if not (0 < options.diameter < float("inf") and model.config.diameter > 0):
        raise InputError.of(
            found=f"diameter {options.diameter:g} px, and {model.config.diameter:g} px of model {options.model}",
            expected="both above 0",
            fix="--rescale, if the model does not know its diameter",
        )
    return model.config.diameter / options.diameter


def views_for(shape: Sequence[int], model: Model, options: SegmentOptions, ratio: float = 1.0) -> tuple[View, ...]:
    """Return how the network reads an image of this shape: in the model's tiles unless the options give others."""
    return views_of(
        shape, model, tile=options.tile, overlap=options.overlap, zoom=scale_of(model, options), anisotropy=ratio
    )


def integration_config(model: Model, options: SegmentOptions, ratio: float = 1.0) -> Rule:
    """Return the rule from fields to labels: the model's threshold and sizes unless the options give others.

    Thresholds are on the network's distances, whichever the scale, or on its probabilities; the model's own minimum
    size and diameter are pixels of the network, sizes in the options are pixels of the image.

    Where a network of two axes segments a volume: its minimum area becomes that of the ball with this cross-section,
    0.75 A^1.5, divided by the anisotropy; the link radius is 2, and no component is joined by its ends; crowds
    (integration/links.py) follow the model's diameter.

    Args:
        ratio: of a volume, spacing z / spacing y.

    Raises:
        InputError: an option out of range, or without a meaning for this kind of model.
    """
    config, scale = model.config, scale_of(model, options)
    axes = 3 if options.volume else 2
    smallest = _smallest(model, options, ratio)
    if model.target.rule != "flow":
        _refuse_options_of_flow(options, model.target.gives)
        rule = watershed_for(
            config.diameter / scale,
            threshold=first("threshold", options, config),
            min_size=smallest,
            max_size=options.max_size,
        )
        rule.check_axes(axes)
        return rule
    given = {"threshold": first("threshold", options, config) / scale, "min_size": smallest}
    if axes == 3 and options.crowd is None:
        given["crowd"] = crowd_for(config.diameter / scale)
    known = config if config.network.dim == axes else replace(config, link_radius=2, join_share=None)
    walk = resolve(IntegrationConfig, options, known, **given)
    walk.check_axes(axes)
    return walk


def flow_rule(model: Model, options: SegmentOptions, use: str) -> IntegrationConfig:
    """Return `integration_config` of a model that gives flow.

    Args:
        use: what it is needed for, for the message.

    Raises:
        InputError: the model gives h/v maps.
    """
    rule = integration_config(model, options)
    if not isinstance(rule, IntegrationConfig):
        raise InputError.of(
            found=f"model {options.model} gives h/v maps", expected=f"flow, for {use}", fix="another --model"
        )
    return rule


def _smallest(model: Model, options: SegmentOptions, ratio: float) -> int:
    """Return the size of the smallest object, px of the image."""
    if options.min_size is not None:
        return options.min_size
    config, scale = model.config, scale_of(model, options)
    if not options.volume:
        return round(config.min_size / scale**2)
    if config.network.dim == 3:
        return round(config.min_size / scale**3)
    ball: float = 0.75 * config.min_size**1.5
    return round(ball / ratio / scale**3)


_OF_FLOW = ("flow_error", "method", "steps", "link_radius", "prominence", "join_share", "join_radius")


def _refuse_options_of_flow(options: SegmentOptions, gives: str) -> None:
    """Refuse options of following flow, rather than ignore them."""
    for name in _OF_FLOW:
        value = getattr(options, name)
        if value != SegmentOptions.__dataclass_fields__[name].default:
            option = f"--{name.replace('_', '-')}"
            raise InputError.of(
                found=f"{option} {value} with model {options.model}, which gives {gives}",
                expected="a model that gives flow",
                fix=f"leave out {option}",
            )


def refine_config(options: SegmentOptions) -> RefineConfig:
    """Return what is done to objects after merging."""
    return resolve(RefineConfig, options)


def model_channels(plane: PixelsRef, options: SegmentOptions, config: ModelConfig) -> tuple[int, ...]:
    """Return indices of the channels that the network reads.

    Raises:
        InputError: the image has another number than the model reads and none were chosen.
    """
    least, most = config.network.channels - config.absent_channels, config.network.channels
    wanted = str(most) if least == most else f"{least} to {most}"
    if options.channels is None and not least <= len(plane.channels) <= most:
        raise InputError.of(
            found=f"{plane.array} has {len(plane.channels)} channels ({', '.join(plane.channels)})",
            expected=f"{wanted}, which model {options.model} reads",
            fix="name them with --channel, or use a model for this kind of image",
        )
    chosen = choose_channels(plane, options.channels if options.channels is not None else range(len(plane.channels)))
    if not least <= len(chosen) <= most:
        raise InputError(f"{len(chosen)} channels were chosen; expected: {wanted}, which model {options.model} reads")
    return chosen


def choose_channels(plane: PixelsRef, wanted: Sequence[int | str]) -> tuple[int, ...]:
    """Return indices of channels, by name or index.

    Raises:
        UnknownNameError: lists the image's channels.
    """
    found = []
    for name in map(str, wanted):
        if name in plane.channels:
            found.append(plane.channels.index(name))
        elif name.isdigit() and int(name) < len(plane.channels):
            found.append(int(name))
        else:
            raise UnknownNameError.among("channel", name, plane.channels)
    return tuple(found)
