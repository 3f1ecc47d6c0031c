"""One TOML file into the options of every use case, and back.

    [study]      which images, which name                    [segment]   model and integration
    [execution]  engine, workers, memory: no effect on results  [measure], [classify], [report]

An unknown key, a wrong type or a value out of range is an `InputError` that names file and key.
`--set segment.min_size=30` overrides one key. `schema()` is the JSON schema of the file, for editors.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.io.storage_settings import check_endpoint

__all__ = [
    "ClassifyOptions",
    "Execution",
    "ReportOptions",
    "SegmentOptions",
    "Study",
    "StudyImages",
    "TrainOptions",
    "VolumeOptions",
    "apply_overrides",
    "load_study",
    "schema",
]


_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How work is run; no field here changes a result.

    Attributes:
        engine: serial, threads, processes, dask or ray.
        workers: tasks at once; the usable cores, or what the cluster has, when None.
        address: of a Dask scheduler or a Ray cluster; None starts one on this machine.
        gpus_per_worker: of each worker that runs a network, where `device` is cuda; 0.25 puts four on one GPU.
        block: side of a block in pixels, cut to whole write units.
        memory_gb: a plan that declares more is refused before it starts.
        scratch: folder or address for the arrays between stages, seen by every worker; beside the output when None.
        attempts: how often a task may run whose worker dies or whose storage fails.
        deadline_s: of one attempt of a task; None waits for as long as its worker lives.
        wait_s: how long a store or a cluster may fail to answer before the run gives up.
        endpoint: of S3-compatible storage, http(s)://host:port; AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL when None.
        resume: go on with what an earlier run of the same plan finished.
        overwrite: remove what is there first.
    """

    __pydantic_config__ = _STRICT

    engine: str = "threads"
    workers: int | None = None
    address: str | None = None
    gpus_per_worker: float | None = None
    block: int = 2048
    memory_gb: float | None = None
    scratch: str | None = None
    attempts: int = 3
    deadline_s: float | None = None
    wait_s: float = 60.0
    endpoint: str | None = None
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise InputError("--resume and --overwrite exclude each other: keep what is there, or remove it")
        if self.block < 1 or (self.workers is not None and self.workers < 1):
            raise InputError(f"block {self.block} and workers {self.workers} must be at least 1")
        if self.attempts < 1:
            raise InputError(f"attempts {self.attempts} must be at least 1")
        for name in ("gpus_per_worker", "memory_gb", "deadline_s", "wait_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} {value:g} must be more than 0")
        if self.endpoint is not None:
            check_endpoint(self.endpoint)

    @property
    def budget_bytes(self) -> int | None:
        return None if self.memory_gb is None else int(self.memory_gb * 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOptions:
    """From image to labels. None means what the model says.

    Attributes:
        model: a shipped name or a model folder.
        labels: name of the label image.
        channels: indices or names of the channels the network reads, in its order.
        threshold: foreground is where distance > threshold, in pixels; 0 is a value. Of a model that gives h/v maps a
            probability: foreground is where it is at least that.
        min_size, max_size: objects outside are removed after merging; pixels.
        method: suppressed (default) or euler (as the papers write it).
        steps, link_radius, saddle: of the integration; the last two belong to the model. Not for h/v maps, as `method`,
            `join_share`, `join_radius` and `flow_error` are not.
        join_share, join_radius: of the integration, too; they belong to the model; a share of 1 joins nothing.
        tile, overlap: of the network's grid, pixels.
        diameter: of this image's objects, px: the network sees it scaled by the model's diameter over this one.
        rescale: that scale itself, network pixels per image pixel; excludes `diameter`.
        fill_holes: holes of at most this share of an object's area are filled; None is off, 0 fills none.
        flow_error: objects whose flow differs by more from that of their own shape are removed; None is off.
        flips: the mean over 4 mirrored copies of a tile, or 8 with the transposed ones; as many times slower.
        device, precision, batch: how the network runs; part of the provenance. Precision auto is the faster one of
            float32 and bfloat16, by measurement; a resumed run keeps its own.
        t, z: which plane, where the image has several.
        shard: side of a shard of the labels, pixels, whole chunks: fewer, larger objects; as the image when None.
    """

    __pydantic_config__ = _STRICT

    model: str = "nuclei-fluo"
    labels: str = "nuclei"
    channels: tuple[int | str, ...] | None = None
    threshold: float | None = None
    min_size: int | None = None
    max_size: int | None = None
    method: Literal["suppressed", "euler"] = "suppressed"
    steps: int = 200
    link_radius: int | None = None
    saddle: float | None = None
    join_share: float | None = None
    join_radius: int | None = None
    tile: int | None = None
    overlap: int | None = None
    diameter: float | None = None
    rescale: float | None = None
    flips: Literal[1, 4, 8] = 1
    fill_holes: float | None = None
    flow_error: float | None = None
    device: str = "cpu"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch: int | None = None
    t: int | None = None
    z: int | None = None
    shard: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeOptions(SegmentOptions):
    """From a whole volume to label volumes; what the others mean in three dimensions is in workflow.volume.

    Attributes:
        anisotropy: spacing z / spacing y; None reads it from the image, 1 where that does not say.
        crowd: how many trajectories have to end in a voxel before it is linked with others; see integration.volume.
    """

    anisotropy: float | None = None
    crowd: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """From sketches to a model; see training.loop for what each does.

    Attributes:
        images, sketches: pairs, in order; used by a study file (the command takes them as arguments).
        sketch_kind, sketch_classes: how the sketches are to be read where their contents do not show it: a kind such as
            labels, and what the classes in them mean, such as {"Tumor": "foreground"}; see annotations.opening.
        validate, validate_sketches: pairs that are not taught but scored; training ends when they stop improving.
        hold_out: share of the annotated objects that is scored instead of taught.
        synthetic: syntheses, from which scenes are made meanwhile, or folders of pairs that one made; with images or
            instead of them.
        synthetic_share: of the patches; 1 where there are no images.
        validate_every, patience: steps between scores; scores without a better one before training ends.
        init: "random", a model folder, a shipped name, or a checkpoint of Cellpose 1-3 or Omnipose.
        minutes: of the whole training: reading, steps, calibration, saving; the schedule follows the clock.
        width: channels of the first level, 8 (quarter) to 32 (full); `init` has its own.
        batch, patch: patches a step, and their side in px.
            "auto" of these three depends on `minutes` alone, see training.sizes.
        precision: of a step; auto is the faster one of float32 and bfloat16, by measurement; a resumed training keeps
            its own. float16 is for CUDA alone.
        save_every_s: seconds between saved states, which a killed training goes on from.
        preview_every: steps between pictures in the run folder; 0 for no pictures.
    """

    __pydantic_config__ = _STRICT

    images: tuple[str, ...] = ()
    sketches: tuple[str, ...] = ()
    sketch_kind: str | None = None
    sketch_classes: dict[str, str] = field(default_factory=dict)
    validate: tuple[str, ...] = ()
    validate_sketches: tuple[str, ...] = ()
    hold_out: float | None = None
    synthetic: tuple[str, ...] = ()
    synthetic_share: float = 0.5
    validate_every: int = 25
    patience: int = 10
    out: str = "model"
    channels: tuple[int | str, ...] | None = None
    loss: str = "sketchpose"
    network: str = "unet"
    width: int | Literal["auto"] = "auto"
    init: str | None = None
    minutes: float | None = 5.0
    steps: int | None = None
    rate: float = 3e-3
    batch: int | Literal["auto"] = "auto"
    patch: int | Literal["auto"] = "auto"
    optimizer: str = "adamw"
    precision: Literal["auto", "bfloat16", "float32", "float16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    threads: int | None = None
    save_every_s: float = 180.0
    preview_every: int = 100
    seed: int = 0
    device: str = "cpu"
    on_conflict: Literal["refuse", "last"] = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyOptions:
    """Annotated objects to a class for every object; see objects.classifiers for what each option does.

    Attributes:
        annotations: file of annotated objects; trains a classifier.
        classifier: folder to apply; where both are given, to train into.
        kind: name in CLASSIFIERS.
        side: pixels of a patch; estimated from the annotated objects when None.
        depth, kernel, width: size of the network.
        steps, rate, loss, weights: of the training; None means what the kind of classifier says.
        normalize: plane, min-max, max or none.
        context_radius: pixels around the object that stay visible; None keeps everything.
        mask: show the object's mask as a channel.
        hold_out: share of each class that is scored instead of learnt from.
        init: classifier folder to start from.
        colors: class to "#rrggbb", for the class image and the gallery.
        on_conflict: what two classes for one object mean.
        masks: also write one label image per class.
        device: where the network runs.
        precision: of the network, where it is trained and applied; auto is the faster one, by measurement.
    """

    __pydantic_config__ = _STRICT

    annotations: str | None = None
    classifier: str | None = None
    kind: str = "light"
    side: int | None = None
    depth: int = 2
    kernel: int = 3
    width: int | None = None
    steps: int | None = None
    rate: float | None = None
    loss: str | None = None
    weights: Literal["balanced", "none"] = "balanced"
    normalize: str = "plane"
    context_radius: float | None = None
    mask: bool = True
    hold_out: float = 0.2
    init: str | None = None
    colors: dict[str, str] = field(default_factory=dict)
    on_conflict: Literal["refuse", "last"] = "refuse"
    masks: bool = False
    seed: int = 0
    device: str = "cpu"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """The page of a run."""

    __pydantic_config__ = _STRICT

    out: str = "report.html"
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyImages:
    """Name of the study, and its images: addresses or glob patterns, relative to the file."""

    __pydantic_config__ = _STRICT

    images: tuple[str, ...]
    name: str = "study"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study file."""

    __pydantic_config__ = _STRICT

    study: StudyImages
    segment: SegmentOptions = SegmentOptions()
    train: TrainOptions | None = None
    classify: ClassifyOptions | None = None
    report: ReportOptions = ReportOptions()
    execution: Execution = Execution()


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file.

    Raises:
        InputError: names the file and the key.
    """
    try:
        document = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; expected: a study file (TOML)") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    study: Study = parse(Study, apply_overrides(document, overrides), source=str(path))
    return study


def apply_overrides(document: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy with `a.b=value` set; values are TOML, and bare words are strings.

    >>> apply_overrides({"a": {"b": 1}}, ["a.b=2", "c=word"])
    {'a': {'b': 2}, 'c': 'word'}
    """
    result: dict[str, Any] = json.loads(json.dumps(document, default=str))
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted:
            raise InputError.of(found=f"--set {override}", expected="key=value", fix="write --set segment.min_size=30")
        *parents, leaf = dotted.strip().split(".")
        place = result
        for name in parents:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise InputError.of(
                    found=f"--set {override}: {name} is a value", expected="a section there", fix="name a key of it"
                )
        place[leaf] = _toml_value(text.strip())
    return result


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def parse(kind: type[Any], document: Mapping[str, Any], *, source: str) -> Any:
    """A config dataclass from plain values.

    Raises:
        InputError: the first thing wrong, with its key.
    """
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top)"
        raise InputError(f"{source}: {key}: {_words(kind, first)}") from error


def _words(kind: type[Any], error: Any) -> str:
    """What pydantic found, with the nearest known key where a key is unknown."""
    if error["type"] != "unexpected_keyword_argument":
        return str(error["msg"])
    for name in error["loc"][:-1]:
        kind = _record(get_type_hints(kind)[name])
    return str(UnknownNameError.among("key", str(error["loc"][-1]), kind.__dataclass_fields__))


def _record(hint: Any) -> Any:
    """The dataclass of a field that may also be None."""
    return next((part for part in (*get_args(hint), hint) if is_dataclass(part)), hint)


def schema() -> dict[str, Any]:
    """The JSON schema of a study file."""
    return TypeAdapter(Study).json_schema()


def as_json(options: Any) -> str:
    """A config record as canonical JSON, for fingerprints and provenance."""
    return json.dumps(asdict(options), sort_keys=True, separators=(",", ":"))
