"""The folder that a training writes: checked before anything is trained.

OUT/run/driver    while workers of a cluster train: a token of the process that started them. A worker that can read it
                  writes to the same folder as that process.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from sketchscale.config import Execution
from sketchscale.errors import OutputExistsError, SetupError, SketchscaleError
from sketchscale.io.stores.addresses import join_address
from sketchscale.io.stores.blobs import delete_blob, get_blob, list_blobs, put_blob
from sketchscale.io.stores.output_files import writing_place
from sketchscale.training.state import BAD_BATCH, STATE, STOP

__all__ = ["begin_output", "check_output", "showing_token", "writing_output"]

_TOKEN = "driver"


def check_output(out: str, execution: Execution, token: bytes | None = None) -> None:
    """Refuse a folder that is not empty, unless overwrite or resume was asked for; the driver's token does not count.

    Args:
        token: the content that `showing_token` wrote; None where this process gave the command itself.

    Raises:
        OutputExistsError: it is not empty; overwrite or resume.
        SetupError: the token is not there, because this machine sees another folder of that name.

    >>> check_output("memory://doc-new", Execution())
    """
    if token is not None and get_blob(join_address(out, "run"), _TOKEN) != token:
        raise SetupError(
            f"the worker on {platform.node()} does not see the folder {out} of the machine that gave the command; "
            f"expected: a place that all share; to fix: --out in object storage (s3://...), or in a folder of the "
            f"network"
        )
    found = any(key != f"run/{_TOKEN}" for key in list_blobs(out, ""))
    if found and not (execution.overwrite or execution.resume):
        raise OutputExistsError(
            f"{out} is not empty; expected: a new model folder; to fix: another --out, --overwrite or --resume"
        )


@contextlib.contextmanager
def showing_token(out: str, token: bytes) -> Iterator[None]:
    """Keep a token in the run folder while workers train; see `check_output`.

    >>> with showing_token("memory://doc-shown", b"a token"):
    ...     check_output("memory://doc-shown", Execution(), b"a token")
    """
    run = join_address(out, "run")
    put_blob(run, _TOKEN, token)
    try:
        yield
    finally:
        with contextlib.suppress(SketchscaleError):
            delete_blob(run, _TOKEN)
        with contextlib.suppress(OSError):  # remove the folder if it is empty; object storage has none
            os.rmdir(out)


def begin_output(out: str, say: Callable[[str], None], *, fresh: bool, pictures: str, made: str) -> None:
    """Check that a folder can be written before training starts, and report how to end training early.

    Args:
        fresh: remove what an earlier training left in the run folder. pictures: how the names of its pictures begin.
        made: what the training makes, for the message.

    Raises:
        OutputError: it cannot be written.
    """
    put_blob(out, "probe", b"?")
    delete_blob(out, "probe")
    run = join_address(out, "run")
    for key in list_blobs(run, "") if fresh else ():
        if key.startswith(pictures) or key in (BAD_BATCH, STOP, STATE):
            delete_blob(run, key)
    say(f"to end early with a {made}: make the file {join_address(run, STOP)}; Ctrl-C saves the state for --resume")


def writing_output(folder: str) -> AbstractContextManager[None]:
    """Turn errors of the system while training saves its state into OutputError."""
    return writing_place(folder, fix="free space, then run again with --resume, or another --out")
