"""The error tree, and the form of error messages.

Every error that a user can meet states in one line what was found, what was expected, and what to do. The command
line prints that line and exits with `exit_code`; the Python API raises the same object.

    SketchscaleError                       1  the run failed
    ├── InputError (ValueError)            2  a file, array or argument is not what it has to be
    │   ├── UnknownNameError (KeyError)    2  a name that is not in a table; lists the known ones
    │   ├── MissingDataError (OSError)     2  a chunk, file or key that must exist does not
    │   ├── OutputExistsError              2  an output is there already; --overwrite or --resume decides
    │   ├── ResumeError                    2  what is there was made by something else; names the difference
    │   ├── BudgetError (MemoryError)      2  the plan declares more memory than it may use
    │   └── OutputError (OSError)          2  the output can't be written (read-only, disk full)
    ├── TaskError (RuntimeError)           1  a task failed; names stage, image and box
    │   └── TaskTimeoutError               1  a task passed its deadline
    ├── QualityError (RuntimeError)        4  a gate failed: seam audit, verification
    └── SetupError (RuntimeError)          5  something is missing in the environment; names the fix
        └── UnreachableError (ConnectionError) 5  a store or a cluster does not answer; names key or address

    Cancelled (KeyboardInterrupt)            130  the job was cancelled; no SketchscaleError, so that nothing catches it

UnknownKindWarning is a Python warning, because the work is done all the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self

__all__ = [
    "BudgetError",
    "Cancelled",
    "InputError",
    "MissingDataError",
    "OutputError",
    "OutputExistsError",
    "QualityError",
    "ResumeError",
    "SetupError",
    "SketchscaleError",
    "TaskError",
    "TaskTimeoutError",
    "UnknownKindWarning",
    "UnknownNameError",
    "UnreachableError",
]


class SketchscaleError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        # KeyError would print the repr of its argument, quotes and all.
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        # Dask's workers rebuild an error with the `__new__` of its first builtin alone, which fails where it has two.
        return type(self), self.args


class InputError(SketchscaleError, ValueError):
    """A file, an array or an argument is not what it has to be."""

    exit_code = 2

    @classmethod
    def of(cls, *, found: str, expected: str, fix: str) -> InputError:
        """Return an error in the usual form: found, expected, what to do.

        >>> str(InputError.of(found="image has 3 channels", expected="the model reads 1", fix="use --channel"))
        'image has 3 channels; expected: the model reads 1; to fix: use --channel'
        """
        return cls(f"{found}; expected: {expected}; to fix: {fix}")


RENAMED = {"saddle": "prominence (saddle 1, which joined nothing, is prominence -8)"}
"""Options of earlier versions to what takes their place."""


class UnknownNameError(InputError, KeyError):
    """A name that is not in a table of known names."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """Return an error that lists the known names, and suggests the nearest one if it is near.

        >>> str(UnknownNameError.among("loss", "sketchpoze", ["sketchpose"]))
        "unknown loss 'sketchpoze'; did you mean 'sketchpose'? known: sketchpose"
        """
        if name in RENAMED:
            return cls(f"unknown {kind} {name!r}; it was replaced by {RENAMED[name]}")
        names = sorted(known)
        return cls(f"unknown {kind} {name!r};{nearest(name, names)} known: {', '.join(names) or 'none'}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question after the known name that is nearest, with a space before it; "" where none is near.

    >>> nearest("nuclei-flou", ["nuclei-fluo", "start"])
    " did you mean 'nuclei-fluo'?"
    """
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f" did you mean {near[0]!r}?" if near else ""


class MissingDataError(InputError, OSError):
    """A chunk, file or key that must exist does not."""


class OutputExistsError(InputError):
    """An output is there already and neither overwrite nor resume was asked for."""


class ResumeError(InputError):
    """The existing output was made from another input, model, configuration or version."""


class BudgetError(InputError, MemoryError):
    """A plan declares more memory than it may use; refused before it starts."""


class OutputError(InputError, OSError):
    """The output cannot be written."""


class TaskError(SketchscaleError, RuntimeError):
    """A task failed for good; the message names stage, task and cause."""


class TaskTimeoutError(TaskError):
    """A task passed its deadline."""


class QualityError(SketchscaleError, RuntimeError):
    """A gate failed: the seam audit, or a verification."""

    exit_code = 4


class SetupError(SketchscaleError, RuntimeError):
    """Something is missing in the environment."""

    exit_code = 5


class UnreachableError(SetupError, ConnectionError):
    """A store or a cluster does not answer; raised after a deadline, never retried further up."""

    @classmethod
    def after(cls, what: str, cause: object, *, attempts: int, seconds: float) -> UnreachableError:
        """Return an error for a service that did not answer within the deadline.

        Args:
            what: the key or the address.
            attempts, seconds: number of attempts, and how long they took.

        >>> str(UnreachableError.after("s3://a/b", "refused", attempts=9, seconds=60)).partition(";")[0]
        's3://a/b does not answer: refused (9 attempts in 60 s)'
        """
        words = " ".join(str(cause).split())[:200]
        return cls(
            f"{what} does not answer: {words} ({attempts} attempt{'s' * (attempts != 1)} in {seconds:.0f} s); "
            f"to fix: see that it runs and can be reached, then give the same command again with --resume"
        )


class Cancelled(KeyboardInterrupt):
    """A job was cancelled by its event `cancel`; as after Ctrl-C, finished work is kept, and resume continues."""

    exit_code = 130

    def __str__(self) -> str:
        return "cancelled; what finished is kept: run again with --resume"


class UnknownKindWarning(UserWarning):
    """An image in memory is of a kind that the model does not know, so that its labels cannot be trusted."""
