"""Read and write the run folder: the state to resume from, the log, and the batch of a failed step.

run/state.safetensors   weights, their mean, the best, the optimiser; replaced whole
run/log.jsonl           one line a step, appended as it happens; see training.config.Step
run/bad_batch.npz       the batch whose loss was not a number, if there was one
run/stop                made by a person: ends training as if it were done, and is removed

The run folder may be an address in object storage. There the log is replaced whole, whenever the state is and when
training ends, and `stop` is looked for every few seconds only.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import IO, Any

import numpy as np
import safetensors.torch
import torch

from sketchscale.errors import InputError, MissingDataError, ResumeError
from sketchscale.io.runs.differences import differences
from sketchscale.io.stores.addresses import is_local, join_address, local_path
from sketchscale.io.stores.blobs import delete_blob, get_blob, put_blob
from sketchscale.training.config import Step

__all__ = [
    "BAD_BATCH",
    "STATE",
    "STOP",
    "Log",
    "StopFile",
    "check_same",
    "kept_setting",
    "read_state",
    "write_bad_batch",
    "write_state",
]

STATE, LOG, BAD_BATCH, STOP = "state.safetensors", "log.jsonl", "bad_batch.npz", "stop"
_START_AGAIN = "expected: the state of an interrupted training; to fix: start again with --overwrite"


def write_state(folder: str, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """Replace the stored state atomically."""
    data = safetensors.torch.save(
        {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata={"about": json.dumps(about)}
    )
    put_blob(folder, STATE, data)


def read_state(folder: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return tensors and numbers of the stored state; None where there is none.

    Raises:
        InputError: the state is damaged.
    """
    data = get_blob(folder, STATE)
    if data is None:
        return None
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = json.loads(header["__metadata__"]["about"])
        return safetensors.torch.load(data), about
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{join_address(folder, STATE)} does not read ({error}); {_START_AGAIN}") from error


def kept_setting(out: str, *setting: str, resume: bool) -> str | None:
    """Return a setting in the saved state of a training, of a model or of a synthesis; None where none is resumed.

    Args:
        out: folder of the training; its state lies in `run`.
        setting: its keys, from the outermost to the innermost.

    Raises:
        InputError: the state is damaged.
    """
    found = read_state(join_address(out, "run")) if resume else None
    value: Any = None if found is None else found[1].get("config", {})
    for key in setting:
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else str(value)


class StopFile:
    """A file that the user creates to end training; in object storage it is checked only every few seconds."""

    def __init__(self, folder: str, every_s: float) -> None:
        self.folder, self._every_s, self._looked = folder, every_s, -float("inf")

    def is_there(self) -> bool:
        """Return whether the file exists; in object storage False between two checks."""
        if is_local(self.folder):
            return (local_path(self.folder) / STOP).exists()
        if time.monotonic() - self._looked < self._every_s:
            return False
        self._looked = time.monotonic()
        return get_blob(self.folder, STOP) is not None

    def remove(self) -> None:
        """Remove the file, if it exists."""
        if is_local(self.folder):
            (local_path(self.folder) / STOP).unlink(missing_ok=True)
        else:
            delete_blob(self.folder, STOP)


class Log:
    """The lines of the log, in memory and in the run folder."""

    def __init__(self, folder: str) -> None:
        self.folder, self.lines = folder, list[Step]()
        self._file: IO[str] | None = None
        self._started = False

    def start(self, count: int = 0) -> None:
        """Keep the first `count` lines, and append from there.

        Raises:
            MissingDataError, InputError: the log is missing, is damaged or has fewer lines.
        """
        if count:
            self._read(count)
        put_blob(self.folder, LOG, self._bytes())
        self._started = True
        if is_local(self.folder):
            self._file = (local_path(self.folder) / LOG).open("a", encoding="utf-8")

    def _bytes(self) -> bytes:
        return "".join(_line(step) for step in self.lines).encode()

    def _read(self, count: int) -> None:
        path, data = join_address(self.folder, LOG), get_blob(self.folder, LOG)
        if data is None:
            raise MissingDataError(f"{self.folder} lacks {LOG}; {_START_AGAIN}")
        try:
            self.lines = [Step(**json.loads(line)) for line in data.decode().splitlines()[:count]]
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} does not read ({error}); {_START_AGAIN}") from error
        if len(self.lines) < count:
            raise InputError(f"{path} has {len(self.lines)} lines for a state after {count} steps; {_START_AGAIN}")

    @property
    def annotation(self) -> str | None:
        """The digest of the annotation in the last step, see Step."""
        return next((line.annotation for line in reversed(self.lines) if line.annotation), None)

    def curve(self, most: int = 200) -> dict[str, list[list[float]]]:
        """Return loss and score as lists of [step, value], thinned to the means of at most `most` groups of steps."""
        scored = [(line.step, line.score) for line in self.lines if line.score is not None]
        return {
            "loss": _thinned([(line.step, line.loss) for line in self.lines], most),
            "score": _thinned(scored, most),
        }

    def add(self, line: Step) -> None:
        """Add a line; in a local folder others can read it at once."""
        self.lines.append(line)
        if self._file is not None:
            self._file.write(_line(line))
            self._file.flush()

    def sync(self) -> None:
        """Store all lines safely; called before the state that relies on them is written."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        elif self._started:
            put_blob(self.folder, LOG, self._bytes())

    def close(self) -> None:
        """Close the file of the log."""
        if self._file is not None:
            self._file.close()


def _line(step: Step) -> str:
    values = asdict(step)
    if step.terms is None:
        del values["terms"]
    return json.dumps(values) + "\n"


def _thinned(points: Sequence[tuple[float, float]], most: int) -> list[list[float]]:
    if not points:
        return []
    groups = np.array_split(np.asarray(points, np.float64), min(most, len(points)))
    return [[round(float(g[:, 0].mean()), 1), float(f"{g[:, 1].mean():.5g}")] for g in groups]


def write_bad_batch(folder: str, tensors: Mapping[str, torch.Tensor], **about: float) -> str:
    """Write the batch as arrays together with the numbers of `about`, and return its address."""
    arrays: dict[str, Any] = {**about, **{k: v.detach().cpu().numpy() for k, v in tensors.items()}}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    put_blob(folder, BAD_BATCH, buffer.getvalue())
    return join_address(folder, BAD_BATCH)


def check_same(
    stored: Mapping[str, Any],
    wanted: Mapping[str, Any],
    free: Sequence[str],
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Refuse settings that differ in more than the free ones.

    Args:
        defaults: of the settings, and of those in each record; a state of an earlier version lacks the newer ones.

    Raises:
        ResumeError: other settings differ; the error names them.
    """
    stored = _flat(stored)
    for name, value in (defaults or {}).items():
        if not isinstance(value, dict):
            stored.setdefault(name, value)
        elif isinstance(stored.get(name), dict):
            stored[name] = {**value, **stored[name]}
    # A stored state of an earlier version lacks the newer settings, which then count as None.
    differing = sorted(k for k in {*stored, *wanted} if k not in free and stored.get(k) != wanted.get(k))
    if differing:
        found = differences(*({k: one.get(k) for k in differing} for one in (stored, wanted)))
        raise ResumeError(
            f"the training to resume differs in {found}; expected: the same configuration; "
            f"to fix: set it back, or start again with --overwrite"
        )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those of the used loss only: states of 0.1 hold three losses, each under a name."""
    loss = settings.get("loss")
    if not isinstance(loss, dict):
        return dict(settings)
    others = {key: value for key, value in loss.items() if isinstance(value, dict)}
    own = others.get({"sketchpose-1": "omnipose"}.get(loss["name"], loss["name"]), {})
    return {**settings, "loss": {k: v for k, v in loss.items() if k not in others} | own}
