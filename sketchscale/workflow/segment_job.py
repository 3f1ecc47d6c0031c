"""What a segmentation will do, decided before the first pixel is read: options and model resolved against the image.

Options left at None are the model's. One function per decision, so that arrays in memory (`workflow.arrays`) and stored
images (`workflow.segment`) cannot decide differently.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from sketchscale import __version__
from sketchscale.config import Execution, SegmentOptions, as_json
from sketchscale.errors import InputError, UnknownNameError
from sketchscale.geometry import block_shape
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.refine import RefineConfig
from sketchscale.integration.watershed.config import watershed_for
from sketchscale.integration.ways import Rule
from sketchscale.io.arrays import open_array
from sketchscale.io.image import Image, open_image
from sketchscale.io.ledger import StoreLedger
from sketchscale.io.planes import PlaneRef, VolumeRef
from sketchscale.io.store import join_address
from sketchscale.networks.checkpoint import Model, ModelConfig, copy_model, is_shipped, load_model
from sketchscale.prediction.blend import TileGrid
from sketchscale.prediction.predictor import Recipe, check_device
from sketchscale.prediction.rescale import Zoom
from sketchscale.workflow.precision import kept_by_run, settle_precision

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
    "refuse_volume_network",
    "run_name",
    "scale_of",
    "shared_model",
    "tile_grid",
    "zoom_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentJob:
    """Everything that is known before the first pixel is read."""

    image: Image
    plane: PlaneRef
    channels: tuple[int, ...]
    model: Model
    model_folder: str
    options: SegmentOptions
    recipe: Recipe
    zoom: Zoom
    grid: TileGrid
    integration: Rule
    refine: RefineConfig
    block: tuple[int, int]
    chunks: tuple[int, int]
    shards: tuple[int, int] | None

    @property
    def run(self) -> str:
        return run_name(self.options)

    def fingerprint(self) -> dict[str, str]:
        """What the labels depend on; two runs with the same fingerprint write the same bytes."""
        layout = {} if self.shards is None else {"shards": json.dumps(self.shards)}
        known = {} if self.model.config.kind is None else {"kind": as_json(self.model.config.kind)}
        return (
            layout
            | known
            | {
                "code": __version__,
                "input": self.image.identity(),
                "model": self.model.sha256,
                "plane": json.dumps([self.plane.index, self.channels]),
                "recipe": json.dumps(asdict(self.recipe), sort_keys=True),
                "grid": json.dumps([asdict(self.grid), self.zoom.scale], sort_keys=True),
                "integration": as_json(self.integration),
                "refine": as_json(self.refine),
                # not a matter of the result: blocks of another size are other tasks
                "block": json.dumps(self.block),
            }
        )


def check_placement(device: str, execution: Execution) -> None:
    """Refuse a device that is not there, and shares of GPUs for a network that runs on none.

    Raises:
        SetupError: this machine lacks the device; workers of a cluster look for their own.
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
    image = open_image(address)
    plane = image.plane(t=options.t, z=options.z)
    model = load_model(options.model)
    channels = model_channels(plane, options, model.config)
    chunks = _label_chunks(plane)
    shards = _label_shards(image, plane, chunks, options.shard)
    zoom = zoom_of(plane.shape, model, options)
    return SegmentJob(
        image=image,
        plane=plane,
        channels=channels,
        model=model,
        model_folder=options.model,
        options=options,
        recipe=recipe_of(options, kept_by_run(image.address, run_name(options), resume=execution.resume)),
        zoom=zoom,
        grid=tile_grid(zoom.scaled_shape, model, options),
        integration=integration_config(model, options),
        refine=refine_config(options),
        block=_block(plane.shape, chunks, shards, execution),
        chunks=chunks,
        shards=shards,
    )


def shared_model(address: str, ledger: StoreLedger) -> str:
    """A model where every worker finds it: a shipped one is installed with them, any other is copied to the scratch."""
    return address if is_shipped(address) else copy_model(address, join_address(ledger.scratch, "model"))


def run_name(options: SegmentOptions) -> str:
    """Of the ledger, beside the image."""
    return f"segment-{options.labels}"


def recipe_of(options: SegmentOptions, kept: Callable[[], str | None] = lambda: None) -> Recipe:
    """How the network runs; on a GPU eight tiles at once.

    Args:
        kept: the precision of the run that goes on, see `settle_precision`.
    """
    batch = options.batch or (1 if options.device == "cpu" else 8)
    precision = settle_precision(options.precision, options.device, kept=kept)
    return Recipe(device=options.device, precision=precision, batch=batch, flips=options.flips)


def scale_of(model: Model, options: SegmentOptions) -> float:
    """Network pixels per image pixel: `rescale`, or the model's diameter over the given one; else 1.

    Raises:
        InputError: both were given, a diameter that is no length, or a model that does not know its own.
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


def zoom_of(shape: tuple[int, int], model: Model, options: SegmentOptions) -> Zoom:
    """The scaled plane that the network sees."""
    return Zoom(shape=shape, scale=scale_of(model, options), lengths=model.target.lengths)


def tile_grid(shape: tuple[int, int], model: Model, options: SegmentOptions) -> TileGrid:
    """The network's tiles over a (scaled) plane: the model's size unless the options say another."""
    config = model.config
    return TileGrid(
        shape=shape,
        tile=config.tile if options.tile is None else options.tile,
        overlap=config.overlap if options.overlap is None else options.overlap,
    )


def integration_config(model: Model, options: SegmentOptions) -> Rule:
    """The rule from fields to labels: the model's threshold and sizes unless the options say others.

    Thresholds are on the network's distances, whatever the scale, or on its probabilities; the model's own minimum size
    and diameter are pixels of the network, sizes that the options give are pixels of the image.

    Raises:
        InputError: an option out of range, or without a meaning for this kind of model.
    """
    if model.target.rule == "flow":
        return flow_rule(model, options, "segment")
    _refuse_options_of_flow(options, model.target.gives)
    scale = scale_of(model, options)
    return watershed_for(
        model.config.diameter / scale,
        threshold=model.config.threshold if options.threshold is None else options.threshold,
        min_size=_smallest(model, options),
        max_size=options.max_size,
    )


_OF_FLOW = ("flow_error", "method", "steps", "link_radius", "saddle", "join_share", "join_radius")


def _refuse_options_of_flow(options: SegmentOptions, gives: str) -> None:
    """Refuse what says how flow is followed, rather than ignore it.

    Raises:
        InputError: names the option.
    """
    for name in _OF_FLOW:
        value = getattr(options, name)
        if value != SegmentOptions.__dataclass_fields__[name].default:
            option = f"--{name.replace('_', '-')}"
            raise InputError.of(
                found=f"{option} {value} with model {options.model}, which gives {gives}",
                expected="a model that gives flow",
                fix=f"leave out {option}",
            )


def _smallest(model: Model, options: SegmentOptions) -> int:
    """Smallest object, px of the image."""
    if options.min_size is not None:
        return options.min_size
    return round(model.config.min_size / scale_of(model, options) ** 2)


def flow_rule(model: Model, options: SegmentOptions, use: str) -> IntegrationConfig:
    """`integration_config` of a model that gives flow.

    Args:
        use: what it is needed for, for the message.

    Raises:
        InputError: the model gives h/v maps; or an option is out of range.
    """
    config, scale = model.config, scale_of(model, options)
    if model.target.rule != "flow":
        raise InputError.of(
            found=f"model {options.model} gives {model.target.gives}",
            expected=f"flow, for {use}",
            fix="another --model",
        )
    return IntegrationConfig(
        threshold=(config.threshold if options.threshold is None else options.threshold) / scale,
        min_size=_smallest(model, options),
        max_size=options.max_size,
        method=options.method,
        steps=options.steps,
        link_radius=config.link_radius if options.link_radius is None else options.link_radius,
        saddle=config.saddle if options.saddle is None else options.saddle,
        join_share=config.join_share if options.join_share is None else options.join_share,
        join_radius=config.join_radius if options.join_radius is None else options.join_radius,
    )


def refine_config(options: SegmentOptions) -> RefineConfig:
    """What is done to objects after merging."""
    return RefineConfig(fill_holes=options.fill_holes, flow_error=options.flow_error)


def _label_chunks(plane: PlaneRef) -> tuple[int, int]:
    """Chunks of labels follow the image's where these are of a sensible size; else 512 px."""
    y, x = (c if 64 <= c <= 1024 else 512 for c in plane.chunks)
    return min(y, plane.shape[0]), min(x, plane.shape[1])


def _label_shards(image: Image, plane: PlaneRef, chunks: tuple[int, int], wanted: int | None) -> tuple[int, int] | None:
    """Shards of labels: as asked, else the image's where the labels have its chunks; no more than cover the plane.

    Raises:
        InputError: shards that are no whole chunks, or in OME-Zarr 0.4.
    """
    if wanted is None:
        given = open_array(plane.array).shards
        if given is None or chunks != plane.chunks:
            return None
        y, x = given[-2:]
    else:
        y = x = wanted
    version = image.metadata.version
    if version == "0.4" or y % chunks[0] or x % chunks[1]:
        raise InputError.of(
            found=f"shards of {y} x {x} px for chunks of {chunks[0]} x {chunks[1]} px in OME-Zarr {version}",
            expected="whole chunks, OME-Zarr 0.5",
            fix="another --shard, or none",
        )
    ny, nx = (-(-n // c) * c for n, c in zip(plane.shape, chunks, strict=True))
    return min(y, ny), min(x, nx)


def _block(
    shape: tuple[int, int], chunks: tuple[int, int], shards: tuple[int, int] | None, execution: Execution
) -> tuple[int, int]:
    """Whole write units: at least two chunks along each axis, or one shard."""
    y, x = block_shape(shape, shards or chunks, execution.block, least=2 if shards is None else 1)
    return y, x


def model_channels(plane: PlaneRef | VolumeRef, options: SegmentOptions, config: ModelConfig) -> tuple[int, ...]:
    """Indices of the channels the network reads.

    Raises:
        InputError: the image has another number than the model reads and none were chosen.
    """
    if isinstance(plane, PlaneRef):
        refuse_volume_network(config, options.model)
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


def refuse_volume_network(config: ModelConfig, model: str) -> None:
    """A network of three dimensions cannot look at a plane.

    Raises:
        InputError: it is one.
    """
    if config.network.dim != 2:
        raise InputError.of(
            found=f"model {model} is of 3 dimensions", expected="2, for planes", fix="segment volumes with it"
        )


def choose_channels(plane: PlaneRef | VolumeRef, wanted: Sequence[int | str]) -> tuple[int, ...]:
    """Indices of channels by name or index.

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
