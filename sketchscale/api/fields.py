"""Turn the keyword arguments of a public function into the option records of its use case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from sketchscale.config import Execution, parse
from sketchscale.errors import InputError, UnknownNameError
from sketchscale.settings import options_of

__all__ = ["execution_of", "options_and_execution"]

T = TypeVar("T")


def options_and_execution(
    function: str, kind: type[T], options: T | None, execution: Execution | None, given: Mapping[str, Any]
) -> tuple[T, Execution]:
    """Return the records of a call: the given ones, changed by its keyword arguments.

    Args:
        function: public name, for errors.
        kind: of the options. A field that both records have belongs to the options.
        given: keyword arguments: fields of `kind` or of Execution, or the names of their flags.

    Raises:
        UnknownNameError: an argument that neither has.
        InputError: a value of another type or out of range, or a record of another class.

    >>> from sketchscale.config import SegmentOptions
    >>> given = {"min_size": 20, "workers": 2}
    >>> options, execution = options_and_execution("segment", SegmentOptions, None, None, given)
    >>> options.min_size, execution.workers
    (20, 2)
    """
    kind = type(options) if isinstance(options, kind) else kind
    mine, others = _names(kind), _names(Execution)
    given = {_spelled(name, kind, Execution): value for name, value in given.items()}
    _refuse_unknown(function, given, (*mine, *others))
    chosen = _record(function, "options", kind, options, {name: value for name, value in given.items() if name in mine})
    rest = {name: value for name, value in given.items() if name not in mine}
    return chosen, _record(function, "execution", Execution, execution, rest)


def execution_of(
    function: str, execution: Execution | None, given: Mapping[str, Any], *, known: tuple[str, ...] = ()
) -> Execution:
    """Return the execution of a call to a function without an option record.

    Args:
        known: its other keyword arguments, for the error.
    """
    given = {_spelled(name, Execution): value for name, value in given.items()}
    _refuse_unknown(function, given, (*_names(Execution), *known), fields_of=_names(Execution))
    return _record(function, "execution", Execution, execution, given)


def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _spelled(name: str, *kinds: type[Any]) -> str:
    """Return the field that a flag of this name sets, so that `sketch=` is `sketches=`, as on the command line."""
    flag = f"--{name.replace('_', '-')}"
    declared = [item for kind in kinds for item in options_of(kind).items()]
    if name in dict(declared):
        return name
    return next((field for field, about in declared if about.metadata["option"].called(field) == flag), name)


def _refuse_unknown(
    function: str, given: Mapping[str, Any], known: tuple[str, ...], fields_of: tuple[str, ...] | None = None
) -> None:
    for name in given:
        if name not in (known if fields_of is None else fields_of):
            raise UnknownNameError.among(f"option of {function}():", name, known)


def _record(function: str, name: str, kind: type[T], record: T | None, changes: Mapping[str, Any]) -> T:
    """Return a record of `kind`: the given one, or the default one, with changes."""
    if record is not None and not isinstance(record, kind):
        raise InputError.of(
            found=f"{function}(): {name} is a {type(record).__name__}",
            expected=f"{kind.__name__}, or its fields as keyword arguments",
            fix=f"{function}(..., **{name})" if isinstance(record, Mapping) else f"sketchscale.options.{kind.__name__}",
        )
    if record is not None and not changes:
        return record
    assert is_dataclass(kind)
    hints = get_type_hints(kind)
    before = {} if record is None else {field.name: getattr(record, field.name) for field in fields(kind)}
    after = {key: _plain(value, hints[key]) for key, value in changes.items()}
    parsed: T = parse(kind, {**before, **after}, source=f"{function}()")
    return parsed


def _plain(value: Any, hint: Any) -> Any:
    """Return a path as text, and one value as a tuple where several may be given."""
    several = get_origin(hint) is tuple and isinstance(value, str | Path)
    value = str(value) if isinstance(value, Path) else value
    if isinstance(value, list | tuple):
        return tuple(str(one) if isinstance(one, Path) else one for one in value)
    return (value,) if several else value
