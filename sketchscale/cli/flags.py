"""Make commands from the fields of option records: a parameter that is a record becomes a flag for each of its fields.

    @command(app)
    def measure(images: Images, options: MeasureOptions, execution: Execution, json: Json = False) -> None: ...

The function receives the checked records; its other parameters are unchanged. The declaration of a field, see
`settings.option`, gives help, range, unit, panel and flag. `Annotated[Execution, Without("block")]` leaves out fields
without a meaning for a command; `Only` names those that have one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, dataclass, is_dataclass, replace
from functools import cache, cached_property
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer

from sketchscale.errors import InputError
from sketchscale.options import Execution
from sketchscale.options.groups import RUNNING
from sketchscale.settings import Option, options_of, parts_of

__all__ = ["Flag", "Only", "Required", "Without", "command", "flags_of"]


class Only(tuple[str, ...]):
    """Names of the fields of a record that a command has."""

    __slots__ = ()

    def __new__(cls, *names: str) -> Only:
        return super().__new__(cls, names)


class Without(Only):
    """Names of the fields of a record that a command does not have."""

    __slots__ = ()


class Required(Only):
    """Names of the fields of a record that must be given."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Flag:
    """How one field of a record is given on the command line. No slots, because of the cached property.

    Attributes:
        path: names that lead to the field: its own, after that of the record around it, if any.
        parts: alternatives of its type, see `settings.parts_of`.
    """

    path: tuple[str, ...]
    about: Option
    parts: tuple[Any, ...]
    default: Any
    owner: str

    @property
    def name(self) -> str:
        """The flag, such as "--min-size"."""
        return self.about.called(self.path[-1])

    @property
    def help(self) -> str:
        """The declared sentence, then the choices, or unit and range."""
        choices = [str(one) for part in self.parts if get_origin(part) is Literal for one in get_args(part)]
        notes = [*choices, *filter(None, [self.about.range or self.about.unit])]
        words = " or ".join(filter(None, [", ".join(notes[:-1]), *notes[-1:]]))
        return f"{self.about.help} ({words})" if words else self.about.help

    @property
    def kind(self) -> Any:
        """The type that a word is parsed as: a number, a text, or a list where the field is a tuple or a table."""
        parts = [part for part in self.parts if part is not NoneType and not isinstance(part, TypeVar)]
        if self.many:
            return list[str] if self.about.commas else list[_word(get_args(parts[0])[:1])]  # type: ignore[misc]
        return _word(parts)

    @property
    def many(self) -> bool:
        """Whether the flag may be repeated; without it, there are no values."""
        return get_origin(self.parts[0]) in (tuple, dict)

    @cached_property
    def parameter(self) -> inspect.Parameter:
        """The parameter for the parser."""
        if self.about.argument:
            given = typer.Argument(help=self.about.help, metavar=self.about.argument, show_default=False)
        else:
            shown = self.owner or self.default is not None
            panel = self.about.panel or None
            given = typer.Option(self.name, help=self.help, rich_help_panel=panel, show_default=shown)
        return inspect.Parameter(
            self.path[-1],
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[self.kind if self.default is MISSING else self.kind | None, given],
            default=inspect.Parameter.empty if self.default is MISSING else None if self.many else self.default,
        )

    def value(self, given: Any) -> Any:
        """Return the given words as the value of the field.

        Raises:
            InputError: not NAME=VALUE where it has to be.
        """
        if not self.many:
            return given
        if get_origin(self.parts[0]) is dict:
            return dict(_named(self.name, word) for word in given)
        words = [part.strip() for word in given for part in word.split(",")] if self.about.commas else given
        return tuple(word for word in words if word != "")


def _word(parts: Any) -> Any:
    """Return the type of one word: that of the only alternative; a text where there are several."""
    kinds = {type(get_args(part)[0]) if get_origin(part) is Literal else part for part in parts}
    kinds = {kind for kind in kinds if get_origin(kind) is None}
    return kinds.pop() if len(kinds) == 1 and kinds <= {bool, int, float} else str


def _named(flag: str, word: str) -> tuple[str, str]:
    name, equals, value = word.rpartition("=")
    if not (name.strip() and equals):
        raise InputError.of(found=f"{flag} {word}", expected="NAME=VALUE", fix=f"write {flag} NAME=VALUE")
    return name.strip(), value.strip()


def flags_of(record: Any, *notes: Only) -> list[Flag]:
    """Return the flags of a record, in the order of its fields; those of a record in it take its place.

    Args:
        notes: which of its fields are wanted, not wanted, or required.
    """
    needed = {name for note in notes if isinstance(note, Required) for name in note}
    chosen = [note for note in notes if not isinstance(note, Required)]
    wanted = [f for f in _flags_of(record) if all((f.path[0] in n) != isinstance(n, Without) for n in chosen)]
    return [replace(flag, default=MISSING) if flag.path[0] in needed else flag for flag in wanted]


@cache
def _flags_of(record: Any) -> tuple[Flag, ...]:
    found: list[Flag] = []
    for name, field in options_of(record).items():
        about, parts = field.metadata["option"], parts_of(record)[name]
        part = parts[0]
        if is_dataclass(part):
            inner = (flag for flag in _flags_of(parts[0]) if about.only is None or flag.path[0] in about.only)
            found += [replace(flag, path=(name, *flag.path)) for flag in inner]
        elif about.flag is not None:
            default = None if field.default_factory is not MISSING else field.default
            owner = field.metadata.get("owner", "")
            found.append(Flag(path=(name,), about=about, parts=parts, default=default, owner=owner))
    return tuple(found)


def command(app: typer.Typer, name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds a function to `app` as a command; see above."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        parameters: list[inspect.Parameter] = []
        records: dict[str, tuple[type[Any], list[Flag]]] = {}
        for own in inspect.signature(function).parameters.values():
            kind, *notes = get_args(hints[own.name]) if get_origin(hints[own.name]) is Annotated else [hints[own.name]]
            if is_dataclass(kind):
                flags = flags_of(kind, *notes)
                records[own.name] = kind, flags  # type: ignore[assignment]
                parameters += [flag.parameter for flag in flags]
            else:
                parameters.append(own.replace(annotation=hints[own.name], kind=inspect.Parameter.KEYWORD_ONLY))

        parameters.sort(key=_place)

        def run(**given: Any) -> None:
            made = {parameter: _make(kind, flags, given) for parameter, (kind, flags) in records.items()}
            with _stores(records, made):
                function(**made, **given)

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        # the parser reads the options from this signature
        setattr(run, "__signature__", inspect.Signature(parameters))  # noqa: B010
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        app.command(name)(run)
        return function

    return add


def _place(parameter: inspect.Parameter) -> int:
    """Return the sort key in `--help`: options on how work is run come last."""
    return int(get_args(parameter.annotation)[1].rich_help_panel == RUNNING)


def _make(record: type[Any], flags: list[Flag], given: dict[str, Any]) -> Any:
    """Return the record of the given values, which are removed from `given`; other fields have their defaults."""
    from sketchscale.config import parse

    document: dict[str, Any] = {}
    for flag in flags:
        value = given.pop(flag.path[-1])
        if value is None or (flag.many and not value) or value == flag.default:
            continue
        place = document
        for step in flag.path[:-1]:
            place = place.setdefault(step, {})
        place[flag.path[-1]] = flag.value(value)
    return parse(record, document, source="options")


def _stores(
    records: Mapping[str, tuple[type[Any], list[Flag]]], made: Mapping[str, Any]
) -> AbstractContextManager[Any]:
    """Return the context of the store settings, where a command has options for them."""
    from sketchscale.io.stores.settings import chosen_settings, using

    for name, (kind, flags) in records.items():
        if kind is Execution and any(flag.path == ("wait_s",) for flag in flags):
            return using(chosen_settings(made[name].wait_s, made[name].endpoint))
    return nullcontext()
