"""In which precision a network runs where nothing else is asked for: the one that is measured to be faster here.

bfloat16 halves the memory that a layer moves, and processors with AVX-512 bf16 or AMX, and recent GPUs, compute in it.
On every other processor it is emulated, some ten times slower than float32. Names of processors do not say how fast
they are, so a piece of a network is timed instead: two 3 x 3 convolutions as those of the U-Net, and what lies between
them; for training with their backward pass. Calls in both precisions alternate, float32 first, and the shortest of each
counts: in time of the processor, as others may be at work on it. The whole takes at most half a second, and is done
once in a process for each use.

The process that starts a piece of work chooses; workers and resumed runs follow its choice, as other precisions give
other last digits.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn

from sketchscale.errors import UnknownNameError

__all__ = ["Chosen", "Precision", "Rates", "Use", "autocast", "choose_precision", "measure_rates", "torch_threads"]

Precision = Literal["float32", "bfloat16", "float16"]
Use = Literal["inference", "training"]
KNOWN = ("auto", "float32", "bfloat16", "float16")

CLEARLY = 1.1
"""bfloat16 is chosen where it is so many times as fast as float32. Whole networks gain more by it than what is timed
here does, as their larger images do not fit into the caches."""

_BUDGET_S, _ROUNDS = 0.3, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast a layer runs here, GFLOP/s in each precision."""

    float32: float
    bfloat16: float

    @property
    def gain(self) -> float:
        """How many times as fast bfloat16 is."""
        return self.bfloat16 / self.float32

    @property
    def faster(self) -> Precision:
        """bfloat16 where it is clearly faster, else float32."""
        return "bfloat16" if self.gain >= CLEARLY else "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A precision, and why.

    Attributes:
        rates: that were measured; None where nothing was.
        warning: a line for the user, where what was asked for is the slower one; else empty.
    """

    name: Precision
    rates: Rates | None = None
    warning: str = ""


def choose_precision(wanted: str, device: str, use: Use = "inference") -> Chosen:
    """The precision to run in.

    Args:
        wanted: "auto", or a precision, which is taken as it is.
        device: cpu, cuda or mps, where the network will run. On mps, on a GPU without bfloat16, and for a GPU that this
            machine lacks, auto is float32.
        use: training has a backward pass.

    Raises:
        UnknownNameError: no such precision.
    """
    if wanted not in KNOWN:
        raise UnknownNameError.among("precision", wanted, KNOWN)
    if wanted not in ("auto", "bfloat16"):
        return Chosen(name=cast(Precision, wanted))
    kind = device.partition(":")[0]
    if kind != "cpu" and not (kind == "cuda" and _gpu_has_bfloat16()):
        return Chosen(name="float32" if wanted == "auto" else "bfloat16")
    if wanted == "auto":
        return _faster(device, use)
    rates = measure_rates(device, use)
    return Chosen(name="bfloat16", rates=rates, warning=_warning(rates, kind))


def _warning(rates: Rates, kind: str) -> str:
    """Empty where bfloat16 is not slower, or too little to speak of."""
    factor = 1 / rates.gain
    if factor < CLEARLY:
        return ""
    times = f"{factor:.0f}" if factor >= 9.5 else f"{factor:.1f}"
    return (
        f"warning: bfloat16 is {times} times slower than float32 on this {'processor' if kind == 'cpu' else 'GPU'} "
        f"(measured: {rates.bfloat16:.3g} and {rates.float32:.3g} GFLOP/s); to fix: --precision float32"
    )


def autocast(device: str, precision: str) -> torch.autocast:
    """Inside, networks run in this precision; float32 means as they are."""
    kind = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    return torch.autocast(device.partition(":")[0], dtype=kind, enabled=kind is not None)


def _faster(device: str, use: Use) -> Chosen:
    """The faster one; float32 where a layer cannot be run in both, or no memory is left on the device to try it."""
    try:
        rates = measure_rates(device, use)
    except RuntimeError:
        return Chosen(name="float32")
    return Chosen(name=rates.faster, rates=rates)


def _gpu_has_bfloat16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


@functools.cache
def measure_rates(device: str, use: Use) -> Rates:
    """Time a layer in both precisions, for at most half a second; the second call of a process has the answer.

    On the CPU it runs on one thread: several would wait for one another on a busy machine, and hide the difference.
    """
    with torch_threads(1), torch.random.fork_rng(devices=[]), torch.set_grad_enabled(use == "training"):
        flops, run = _layer(device, use)
        times: list[tuple[float, float]] = []
        began = last = time.perf_counter()
        end = began + _BUDGET_S
        while len(times) <= _ROUNDS and (now := time.perf_counter()) + (now - last) <= end:  # another round fits in
            last = now
            times.append((run("float32"), run("bfloat16")))
    counted = times[1:] or times  # the first calls compile
    slow, fast = (min(one) for one in zip(*counted, strict=True))
    return Rates(float32=flops / slow / 1e9, bfloat16=flops / fast / 1e9)


def _layer(device: str, use: Use) -> tuple[float, Callable[[str], float]]:
    """Floating-point operations of a call, and a call in a precision, which returns its seconds."""
    large = device.partition(":")[0] == "cuda"
    # emulated, a call for training takes 40 ms at this size; on a GPU a smaller one would time its start
    width, side, batch = (64, 256, 4) if large else (32, 48 if use == "training" else 64, 1)
    convolutions = [nn.Conv2d(width, width, 3, padding=1) for _ in range(2)]
    layer = nn.Sequential(convolutions[0], nn.BatchNorm2d(width), nn.ReLU(), convolutions[1])
    layer = layer.to(device).train(use == "training")
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.randn(batch, width, side, side, device=device, requires_grad=use == "training")
    pixels = pixels.contiguous(memory_format=torch.channels_last)

    # the time of this thread alone, so that a busy machine does not count
    clock = time.perf_counter if device.partition(":")[0] != "cpu" else time.thread_time

    def run(precision: str) -> float:
        began = clock()
        with autocast(device, precision):
            found = layer(pixels)
        if use == "training":
            found.float().square().mean().backward()
        if large:
            torch.cuda.synchronize(device)
        return clock() - began

    passes = 3 if use == "training" else 1
    return 2.0 * len(convolutions) * passes * batch * 9 * width**2 * side**2, run


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Inside, torch computes with so many threads on the CPU; None leaves them alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
