"""Decide the precision of a job once, in the process that starts it.

    asked for a precision ─────────────────────────────▶ that one; a warning where bfloat16 is the slower one here
    auto ─┬─ a run is resumed, and its record has one ─▶ the recorded one, whichever this machine would choose
          └─ else ─────────────────────────────────────▶ measured here, see networks.precision

Configurations, ledgers and provenance hold the decision, never "auto"; so workers, other processes of a training and
resumed runs compute the same digits.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from typing import Any, cast

from sketchscale.io.runs.ledger import stored_fingerprint
from sketchscale.networks.precision import Precision, Use, choose_precision

__all__ = ["kept_by_run", "settle_precision"]


@functools.cache
def _warn(line: str) -> None:
    """Log a line once; it goes to stderr where the calling program configures no log."""
    logging.getLogger("sketchscale").warning("%s", line)


def settle_precision(
    wanted: str,
    device: str,
    use: Use = "inference",
    *,
    kept: Callable[[], str | None] = lambda: None,
    say: Callable[[str], None] = _warn,
) -> Precision:
    """Return the precision to run in.

    Args:
        wanted: auto or a precision.
        kept: returns the precision of the run to resume, or None; called for auto alone.
        say: called with the warning, if there is one.
    """
    known = kept() if wanted == "auto" else None
    if known is not None:
        return cast(Precision, known)
    chosen = choose_precision(wanted, device, use)
    if chosen.warning:
        say(chosen.warning)
    return chosen.name


def kept_by_run(store: str, run: str, *, resume: bool) -> Callable[[], str | None]:
    """Return a function that reads the precision of a run from its ledger; None where no run is resumed."""

    def kept() -> str | None:
        fingerprint: Any = stored_fingerprint(store, run) if resume else None
        try:
            return str(json.loads(fingerprint["recipe"])["precision"])
        except (KeyError, TypeError, ValueError):
            return None  # no run, or one of another version, which is refused when it is opened

    return kept
