"""One declaration for each option: a field of its record, with help, unit, range and flag.

    min_size: int = option(20, "Remove smaller objects.", unit="px", at_least=0, panel="Objects")

The field gives: the flag and its `--help` (cli), the key and its description in the schema of a study file (config),
and the check of its value (`check`) with its error text. Names to choose from are a Literal in the type.

A record is a frozen dataclass that inherits `Options`. Fields that several records share are declared in a group: a
frozen dataclass with `__slots__ = ()`, from which the records inherit, too.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sketchscale.errors import InputError, UnknownNameError

__all__ = ["Option", "Options", "check", "first", "option", "options_of", "parts_of", "resolve", "unset"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """Declarations about a field, in addition to its type and default.

    Attributes:
        help: one sentence on the effect of the value; ends with a full stop.
        at_least, above, at_most, below: range of a number, or of each number of several.
        panel: heading in `--help`.
        flag: such as "--min-size"; "" makes it from the field's name, without _s or _gb; None: only for Python and
            study files.
        argument: the metavar of a positional argument; "" for a flag.
        commas: several values may be given at once, separated by commas.
        only: for a field that is a record: the names of its fields that have a meaning here.
    """

    help: str = ""
    unit: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    panel: str = ""
    flag: str | None = ""
    argument: str = ""
    commas: bool = False
    only: tuple[str, ...] | None = None

    @property
    def limits(self) -> dict[str, float]:
        """The range in terms of JSON schema."""
        names = {"minimum": self.at_least, "exclusiveMinimum": self.above}
        names |= {"maximum": self.at_most, "exclusiveMaximum": self.below}
        return {name: value for name, value in names.items() if value is not None}

    @property
    def range(self) -> str:
        """The range in words, with the unit; "" where every number is allowed.

        >>> Option(at_least=0, at_most=1).range, Option(above=0, unit="s").range
        ('0 to 1', 'more than 0 s')
        """
        low = "" if self.at_least is None else f"at least {self.at_least:g}"
        low = low if self.above is None else f"more than {self.above:g}"
        high = "" if self.at_most is None else f"at most {self.at_most:g}"
        high = high if self.below is None else f"less than {self.below:g}"
        words = " and ".join(part for part in (low, high) if part)
        if self.at_least is not None and self.at_most is not None:
            words = f"{self.at_least:g} to {self.at_most:g}"
        return f"{words} {self.unit}".strip() if words else ""

    def called(self, field: str) -> str:
        """Return the flag of a field of this name; the name itself where it has none."""
        bare = field.removesuffix("_s").removesuffix("_gb").replace("_", "-")
        return self.flag or (field if self.flag is None or self.argument else f"--{bare}")

    def holds(self, value: float) -> bool:
        """Return whether a number lies in the range; NaN and infinity never do."""
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


def option(default: Any = MISSING, help: str = "", *, factory: Callable[[], Any] | None = None, **declared: Any) -> Any:
    """Declare a field of a record of options; see `Option` for the arguments.

    >>> option(3, "Tries of a task.", at_least=1).metadata["description"]
    'Tries of a task.'
    """
    about = Option(help=help, **declared)
    # pydantic writes these two keys into the schema
    metadata = {"option": about, "description": help, "json_schema_extra": about.limits}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


class Options:
    """Base of all option records: values are checked on creation, and unknown keys of a file refused."""

    __slots__ = ()
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check(self)


def options_of(record: type[Any]) -> dict[str, Field[Any]]:
    """Return the fields of a record that are declared as options: its own first, then those of its groups in order."""
    named = {f.name: f for f in fields(record) if "option" in f.metadata}
    order = (name for base in record.__mro__ for name in vars(base).get("__annotations__", ()))
    return {name: named[name] for name in order if name in named}


def parts_of(record: Any) -> Mapping[str, tuple[Any, ...]]:
    """Return the alternatives in the type of every field of a class: (int, NoneType) for `int | None`."""
    return _parts_of(record)


@functools.cache
def _parts_of(record: Hashable) -> dict[str, tuple[Any, ...]]:
    return {name: _alternatives(hint) for name, hint in get_type_hints(record).items()}


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def check(record: Any) -> None:
    """Refuse values out of range, and names that are not among the choices.

    Raises:
        InputError, UnknownNameError: names field, value, and what is expected.
    """
    parts = parts_of(type(record))
    for name, declared in options_of(type(record)).items():
        value = getattr(record, name)
        for one in value if isinstance(value, tuple) else (value,):
            _check_value(name, one, declared.metadata["option"], parts[name])


def _check_value(name: str, value: Any, about: Option, parts: tuple[Any, ...]) -> None:
    choices = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]
    kinds = [_KINDS[part] for part in parts if part in _KINDS]
    expected = ""
    if value is None and types.NoneType in parts:
        return
    if choices and value not in choices and not isinstance(value, tuple(kinds)):
        if isinstance(value, str):
            raise UnknownNameError.among(name, value, map(str, choices))
        expected = " or ".join(map(str, choices))
    elif kinds and value not in choices and (isinstance(value, bool) or not isinstance(value, tuple(kinds))):
        expected = about.range or " or ".join(_WORDS[part] for part in parts if part in _KINDS)
    elif isinstance(value, Real) and not about.holds(float(value)):
        expected = about.range or "a finite number"
    if expected:
        raise InputError.of(found=f"{name} {value}", expected=expected, fix=f"change {about.called(name)}")


_KINDS: dict[Any, type[Any]] = {int: Integral, float: Real, str: str}
_WORDS: dict[Any, str] = {int: "an integer", float: "a number", str: "a text"}


def first(name: str, *records: Any) -> Any:
    """Return the value of a field in the first record where it is not None."""
    return next((value for record in records if (value := getattr(record, name, None)) is not None), None)


def resolve(kind: type[T], *records: Any, **values: Any) -> T:
    """Return a record of `kind`: each field as in `values`, else as in the first record that sets it, else its default.

    >>> @dataclass
    ... class Size:
    ...     side: int = 3
    >>> resolve(Size, Size(side=4)), resolve(Size)
    (Size(side=4), Size(side=3))
    """
    names = (f.name for f in fields(kind) if f.name not in values)  # type: ignore[arg-type]
    found = {name: first(name, *records) for name in names}
    return kind(**values, **{name: value for name, value in found.items() if value is not None})


def unset(group: type[Any], owner: str) -> Callable[[type[T]], type[T]]:
    """Return a class decorator, for use before `dataclass`, that makes the fields of a group None unless given.

    Args:
        owner: whose values are used instead, for `--help`.
    """

    def change(record: type[T]) -> type[T]:
        for name, f in options_of(group).items():
            parts = [part for part in parts_of(group)[name] if not isinstance(part, TypeVar)]
            record.__annotations__[name] = Union[(*parts, None)]
            setattr(record, name, field(default=None, metadata={**f.metadata, "owner": owner}))
        return record

    return change
