"""The command line: parse, call one workflow function, report.

Results go to stdout (text, or JSON with `--json`), progress and messages to stderr. Exit codes:

    0 done · 1 failed · 2 bad usage or input · 3 finished, but some images failed · 4 a quality gate failed ·
    5 environment · 130 interrupted, 143 terminated: running tasks end, no more are started, `--resume` continues

Nothing heavy is imported before a command runs, so `--help` is fast.
"""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import Any

import typer

from sketchscale.cli import (
    annotate,
    evaluation,
    images,
    labels,
    models,
    objects,
    studies,
    svetlana,
    synthesis,
    tables,
    weights,
)
from sketchscale.cli.messages import LOGGER, chosen_level, flags_first, logged_to_stderr, say
from sketchscale.cli.options import SomeFailedError
from sketchscale.errors import RENAMED, SketchscaleError

__all__ = ["app", "main", "run"]

UsageError: Any = typer.BadParameter.__mro__[1]
"""The parser's error; found through a public class, because recent versions of typer contain their own click."""

app = typer.Typer(
    name="sketchscale",
    help="From a few strokes on a huge microscope image to every object outlined, measured, classified and counted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (studies, images, annotate, labels, svetlana, objects, tables, evaluation, models, synthesis, weights):
    group.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from sketchscale import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and leave.", is_eager=True, callback=_print_version
    ),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Show warnings and errors only, no progress."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Show what every stage did, and how long it took."),
) -> None:
    """Options of the program itself; --quiet and --verbose may also stand after the command."""
    LOGGER.setLevel(chosen_level(quiet, verbose))


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    terminated: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        terminated.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    code = run(sys.argv[1:] if arguments is None else arguments)
    sys.exit(143 if code == 130 and terminated else code)


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code; every error that a user can cause is one line on stderr."""
    with logged_to_stderr():
        return _run(flags_first(arguments))


def _run(arguments: list[str]) -> int:
    try:
        code = app(arguments, standalone_mode=False)
    except SomeFailedError as error:
        say(str(error), logging.ERROR)
        return error.exit_code
    except SketchscaleError as error:
        say(f"error: {error}", logging.ERROR)
        return error.exit_code
    except UsageError as error:
        renamed = RENAMED.get(str(getattr(error, "option_name", "")).lstrip("-").replace("-", "_"))
        if renamed:
            say(f"error: {error.message} It was replaced by --{renamed}", logging.ERROR)
        else:
            error.show()
        return 2
    except typer.Exit as error:
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = 130  # some versions of the parser return this themselves
    except BrokenPipeError:
        return 0
    if code == 130:
        say("interrupted; what finished is kept: run again with --resume", logging.WARNING)
    return code if isinstance(code, int) else 0
