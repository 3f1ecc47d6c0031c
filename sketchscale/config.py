"""Read one TOML file into the options of every use case.

    [study]      which images, which name                    [segment]   model and integration
    [execution]  engine, workers, memory: no effect on results  [measure], [classify], [report]

An unknown key, a wrong type or a value out of range is an `InputError` that names file and key.
`--set segment.min_size=30` overrides one key. `schema()` is the JSON schema of the file, for editors.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.options import ClassifyOptions, Execution, PageOptions, SegmentOptions, TrainOptions
from sketchscale.settings import Options, option

__all__ = [
    "ClassifyOptions",
    "Execution",
    "SegmentOptions",
    "Study",
    "StudyImages",
    "TrainOptions",
    "apply_overrides",
    "load_study",
    "schema",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyImages(Options):
    """Name of the study, and its images: addresses or glob patterns, relative to the file."""

    images: tuple[str, ...] = option(help="Addresses or glob patterns, relative to the file.")
    name: str = option("study", "Name of the study.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study(Options):
    """The content of a study file."""

    study: StudyImages
    segment: SegmentOptions = SegmentOptions()
    train: TrainOptions | None = None
    classify: ClassifyOptions | None = None
    report: PageOptions = PageOptions()
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
    """Return a copy with `a.b=value` set; values are TOML, and bare words are strings.

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
    """Return a config dataclass from plain values.

    Raises:
        InputError: the first problem, with its key.
    """
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error") or _cause(kind, first)
        key = ".".join(str(part) for part in first["loc"])
        raise type(cause)(f"{source}: {key}{': ' if key else ''}{cause}") from error


def _cause(kind: type[Any], error: Any) -> InputError:
    """Return pydantic's finding as our error, with the nearest known name where one is unknown."""
    key = str(error["loc"][-1])
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        return UnknownNameError.among(key, error["input"], re.findall("'(.*?)'", error["ctx"]["expected"]))
    if error["type"] != "unexpected_keyword_argument":
        return InputError(str(error["msg"]))
    for name in error["loc"][:-1]:
        kind = _record(get_type_hints(kind)[name])
    return UnknownNameError.among("key", key, kind.__dataclass_fields__)


def _record(hint: Any) -> Any:
    """Return the dataclass of a field that may also be None."""
    return next((part for part in (*get_args(hint), hint) if is_dataclass(part)), hint)


def schema() -> dict[str, Any]:
    """Return the JSON schema of a study file."""
    return TypeAdapter(Study).json_schema()


def as_json(options: Any) -> str:
    """Return a config record as canonical JSON, for fingerprints and provenance."""
    return json.dumps(asdict(options), sort_keys=True, separators=(",", ":"))
