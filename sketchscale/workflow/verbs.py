"""What all verbs have in common: storage settings, cancelling, progress. A verb is a function that does a whole job.

  @verb({"histogram": 1, "predict": 20, "level": 1})
  def segment(image, options=None, execution=None, on_event=quiet, *, cancel=None): ...

* Storage settings in `execution` hold during the whole verb, and not for other jobs of the process.
* Once the event `cancel` is set, the verb ends with `Cancelled`, as it does after Ctrl-C: finished work is kept, and
  resume continues.
* Every event of `on_event` has the fraction of the verb that is done. It never falls, and the last event has 1.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ParamSpec, TypeVar

from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.engine.cancelling import cancelled_by
from sketchscale.io.stores.settings import chosen_settings, using

__all__ = ["Progress", "share_of", "verb"]

P = ParamSpec("P")
T = TypeVar("T")

_NO_STAGES: Mapping[str, float] = {}


def verb(stages: Mapping[str, float] = _NO_STAGES) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function that has some of the arguments `execution`, `on_event` and `cancel`.

    Args:
        stages: of the verb, in order, each with its usual share of the time; "level" stands for level-1, too.
    """

    def decorate(work: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(work)

        @functools.wraps(work)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            bound = signature.bind(*args, **kwargs)
            given = bound.arguments
            execution = given.get("execution") or Execution()
            progress = Progress(given.get("on_event", lambda event: None), stages)
            if "on_event" in signature.parameters:
                given["on_event"] = progress
            with using(chosen_settings(execution.wait_s, execution.endpoint)), cancelled_by(given.get("cancel")):
                result = work(*bound.args, **bound.kwargs)
            progress(Event(kind="finished", stage="", done=1, total=1, fraction=1.0))
            return result

        return run

    return decorate


def share_of(on_event: Callable[[Event], None], part: int, parts: int) -> Callable[[Event], None]:
    """Return a callback for the events of a verb that is one of several equal parts of another one."""

    def forward(event: Event) -> None:
        if event.kind != "finished":  # is reported once, for all parts
            on_event(replace(event, fraction=(part + (event.fraction or 0.0)) / parts))

    return forward


class Progress:
    """Passes events on, with the fraction of the verb in place of that of the stage.

    A stage in several parts (level-1, level-2, ...) gets three quarters of the rest for each, as levels of a pyramid
    need.
    """

    def __init__(self, on_event: Callable[[Event], None], stages: Mapping[str, float]) -> None:
        self._on_event, self._stages, self._total = on_event, stages, sum(stages.values())
        self._parts: dict[str, list[str]] = {}
        self._fraction = 0.0

    def __call__(self, event: Event) -> None:
        self._fraction = max(self._fraction, self._of(event))
        self._on_event(replace(event, fraction=self._fraction))

    def _of(self, event: Event) -> float:
        name = next((n for n in self._stages if event.stage == n or event.stage.startswith((f"{n}-", f"{n} "))), None)
        if name is None:  # an event of the verb itself, or of a verb inside
            return event.fraction or 0.0
        inside = event.fraction if event.fraction is not None else event.done / max(event.total, 1)
        if event.stage != name:
            parts = self._parts.setdefault(name, [])
            parts += [event.stage] if event.stage not in parts else []
            inside = 1 - 0.25 ** parts.index(event.stage) * (1 - 0.75 * inside)
        before = sum(list(self._stages.values())[: list(self._stages).index(name)])
        return min(1.0, (before + self._stages[name] * inside) / self._total)
