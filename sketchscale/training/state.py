"""The run folder: the state that training goes on from, the log, the batch that broke it.

run/state.safetensors   weights, their mean, the best, the optimiser; replaced whole
run/log.jsonl           one line a step, appended as it happens; see training.config.Step
run/bad_batch.npz       the batch whose loss was not a number, if there was one
run/stop                made by a person: ends training as if it were done, and is removed
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from sketchscale.errors import InputError, MissingDataError, ResumeError
from sketchscale.losses import BatchTargets
from sketchscale.networks.checkpoint import replace_file
from sketchscale.training.config import Step, TrainingConfig
from sketchscale.training.prefetch import Batch

__all__ = ["Log", "check_identity", "identity", "read_state", "write_bad_batch", "write_state"]

STATE, LOG, BAD_BATCH, STOP = "state.safetensors", "log.jsonl", "bad_batch.npz", "stop"
_START_AGAIN = "expected: the state of an interrupted training; to fix: start again with --overwrite"
_FREE = ("minutes", "save_every_s", "device", "threads", "workers", "compile", "refresh_every_s", "preview_every")
"""What may differ when training goes on: it changes no result, or only the last digits."""
_FREE_AFTER_FAILURE = ("rate", "clip", "precision")


def write_state(folder: Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """Replace the state by this one, whole or not at all."""
    data = safetensors.torch.save(
        {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata={"about": json.dumps(about)}
    )
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / STATE, data)


def read_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Tensors and numbers of the state; None where there is none.

    Raises:
        InputError: it does not read.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as stored:
            about = json.loads(stored.metadata()["about"])
            return {k: stored.get_tensor(k) for k in stored.keys()}, about  # noqa: SIM118
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} does not read ({error}); {_START_AGAIN}") from error


class Log:
    """The lines of the log, in memory and on disk."""

    def __init__(self, folder: Path) -> None:
        self.path, self.lines = folder / LOG, list[Step]()
        self._file: IO[str] | None = None

    def start(self, count: int = 0) -> None:
        """Keep the first `count` lines of the file, and append from there.

        Raises:
            MissingDataError, InputError: it has fewer, or does not read.
        """
        kept = self._read(count) if count else []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.path, "".join(line + "\n" for line in kept).encode())
        self._file = self.path.open("a", encoding="utf-8")

    def _read(self, count: int) -> list[str]:
        try:
            kept = self.path.read_text("utf-8").splitlines()[:count]
            self.lines = [Step(**json.loads(line)) for line in kept]
        except FileNotFoundError as error:
            raise MissingDataError(f"{self.path.parent} lacks {self.path.name}; {_START_AGAIN}") from error
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.path} does not read ({error}); {_START_AGAIN}") from error
        if len(kept) < count:
            raise InputError(f"{self.path} has {len(kept)} lines for a state after {count} steps; {_START_AGAIN}")
        return kept

    @property
    def annotation(self) -> str | None:
        """What was annotated in the last step, see Step."""
        return next((line.annotation for line in reversed(self.lines) if line.annotation), None)

    def curve(self, most: int = 200) -> dict[str, list[list[float]]]:
        """Loss and score by step, [step, value], thinned to the means of at most `most` runs of neighbours."""
        scored = [(line.step, line.score) for line in self.lines if line.score is not None]
        return {
            "loss": _thinned([(line.step, line.loss) for line in self.lines], most),
            "score": _thinned(scored, most),
        }

    def add(self, line: Step) -> None:
        """A line, at once readable by others."""
        self.lines.append(line)
        if self._file is not None:
            self._file.write(json.dumps(asdict(line)) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """On return the lines are on the disk; called before the state that counts on them is written."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _thinned(points: Sequence[tuple[float, float]], most: int) -> list[list[float]]:
    if not points:
        return []
    groups = np.array_split(np.asarray(points, np.float64), min(most, len(points)))
    return [[round(float(g[:, 0].mean()), 1), float(f"{g[:, 1].mean():.5g}")] for g in groups]


def write_bad_batch(folder: Path, batch: Batch, **about: float) -> Path:
    """The batch as arrays (`image`, the targets by name, and what `about` says); returns its path."""
    image, targets = batch
    values = {f.name: getattr(targets, f.name) for f in fields(BatchTargets)}
    arrays: dict[str, Any] = {k: v.detach().cpu().numpy() for k, v in values.items() if isinstance(v, torch.Tensor)}
    folder.mkdir(parents=True, exist_ok=True)
    path, partial = folder / BAD_BATCH, folder / f"partial-{BAD_BATCH}"
    arrays |= {k: np.asarray(v) for k, v in about.items()}
    np.savez_compressed(partial, image=image.detach().float().cpu().numpy(), **arrays)
    partial.replace(path)
    return path


def identity(config: TrainingConfig) -> dict[str, Any]:
    """What resumed training must have in common; how long it may take and how often it saves is free."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return {k: v for k, v in values.items() if k not in _FREE}


def check_identity(stored: Mapping[str, Any], wanted: Mapping[str, Any], *, failed: bool) -> None:
    """Refuse to go on with another configuration.

    Args:
        failed: the loss was not a number there; then rate, clip and precision may change.

    Raises:
        ResumeError: names what differs.
    """
    free = (*_FREE, *(_FREE_AFTER_FAILURE if failed else ()))
    differing = sorted(k for k in {*stored, *wanted} if k not in free and stored.get(k) != wanted.get(k))
    if differing:
        raise ResumeError(
            f"the training to resume differs in {', '.join(differing)}; expected: the same configuration; "
            f"to fix: set it back, or start again with --overwrite"
        )
