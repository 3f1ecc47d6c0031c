"""Messages on stderr: what the package logs below `sketchscale`, at the level that --quiet and --verbose choose."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import typer

__all__ = ["LOGGER", "chosen_level", "flags_first", "is_quiet", "logged_to_stderr", "say"]

LOGGER = logging.getLogger("sketchscale")
_FLAGS = ("--quiet", "-q", "--verbose", "-v")


class _Stderr(logging.Handler):
    """Write a line on stderr for each record."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(self.format(record), err=True)


@contextmanager
def logged_to_stderr() -> Iterator[None]:
    """Show records from level INFO on while a command runs."""
    handler, before, passed_on = _Stderr(), LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)
        LOGGER.propagate = passed_on


def chosen_level(quiet: bool, verbose: bool) -> int:
    """Return the level of messages to show: warnings with --quiet, all with --verbose, else progress, too.

    >>> chosen_level(True, False) == logging.WARNING
    True
    """
    return logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO


def flags_first(arguments: list[str]) -> list[str]:
    """Move --quiet and --verbose before the command, so that they may stand anywhere.

    >>> flags_first(["segment", "image.zarr", "--quiet"])
    ['--quiet', 'segment', 'image.zarr']
    """
    return sorted(arguments, key=lambda argument: argument not in _FLAGS)


def is_quiet() -> bool:
    """Return whether progress is hidden."""
    return LOGGER.getEffectiveLevel() > logging.INFO


def say(text: str, level: int = logging.INFO) -> None:
    """Log a line."""
    LOGGER.log(level, "%s", text)
