"""Choose the precision in which a network runs: by default the one that is measured to be faster on this machine.

bfloat16 halves the memory that a layer moves, and processors with AVX-512 bf16 or AMX, and recent GPUs, compute in it.
Other processors emulate it, about ten times slower than float32. The name of a processor does not determine its speed,
so part of a network is timed: two 3 x 3 convolutions as in the U-Net, with batch norm and ReLU between them; for
training with the backward pass. Calls in both precisions alternate, float32 first, and the shortest of each counts, in
processor time, because other programs may be running. Timing takes at most half a second, once per process and use.

The process that starts a run chooses; workers and resumed runs use its choice, because other precisions give other last
digits.
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
"""bfloat16 is chosen where it is this many times as fast as float32. Whole networks gain more than the timed layers,
because their larger images do not fit into the caches."""

_BUDGET_S, _ROUNDS = 0.3, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Measured speed of a layer, GFLOP/s in each precision."""

    float32: float
    bfloat16: float

    @property
    def gain(self) -> float:
        """Speed of bfloat16, in speeds of float32."""
        return self.bfloat16 / self.float32

    @property
    def faster(self) -> Precision:
        """bfloat16 where it is clearly faster, else float32."""
        return "bfloat16" if self.gain >= CLEARLY else "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A precision, and the reason for it.

    Attributes:
        rates: the measured ones; None without a measurement.
        warning: a line for the user, where the requested precision is the slower one; else empty.
    """

    name: Precision
    rates: Rates | None = None
    warning: str = ""


def choose_precision(wanted: str, device: str, use: Use = "inference") -> Chosen:
    """Return the precision to run in.

    Args:
        wanted: "auto", or a precision, which is used as given.
        device: cpu, cuda or mps, where the network will run. On mps, on a GPU without bfloat16, and for a GPU that this
            machine lacks, auto is float32; also where a layer cannot run in both precisions, or memory is short.
        use: training has a backward pass.

    Raises:
        UnknownNameError: no such precision.
    """
    if wanted not in KNOWN:
        raise UnknownNameError.among("precision", wanted, KNOWN)
    if wanted not in ("auto", "bfloat16"):
        return Chosen(name=cast(Precision, wanted))
    kind = device.partition(":")[0]
    gpu = kind == "cuda" and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" and not gpu:
        return Chosen(name="float32" if wanted == "auto" else "bfloat16")
    try:
        rates = measure_rates(device, use)
    except RuntimeError:
        if wanted != "auto":
            raise
        return Chosen(name="float32")
    factor = 1 / rates.gain
    if wanted == "auto" or factor < CLEARLY:
        return Chosen(name=rates.faster if wanted == "auto" else "bfloat16", rates=rates)
    times = f"{factor:.0f}" if factor >= 9.5 else f"{factor:.1f}"
    warning = (
        f"warning: bfloat16 is {times} times slower than float32 on this {'processor' if kind == 'cpu' else 'GPU'} "
        f"(measured: {rates.bfloat16:.3g} and {rates.float32:.3g} GFLOP/s); to fix: --precision float32"
    )
    return Chosen(name="bfloat16", rates=rates, warning=warning)


def autocast(device: str, precision: str) -> torch.autocast:
    """Return a context in which networks run in this precision; float32 changes nothing."""
    kind = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    return torch.autocast(device.partition(":")[0], dtype=kind, enabled=kind is not None)


@functools.cache
def measure_rates(device: str, use: Use) -> Rates:
    """Time a layer in both precisions, for at most half a second; cached for the process.

    On the CPU it runs on one thread, because several would wait for one another on a busy machine.
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
    """Return the floating-point operations of a call, and the call itself: from a precision to seconds."""
    large = device.partition(":")[0] == "cuda"
    # an emulated call for training takes 40 ms at this size; on a GPU a smaller size would time the launch
    width, side, batch = (64, 256, 4) if large else (32, 48 if use == "training" else 64, 1)
    convolutions = [nn.Conv2d(width, width, 3, padding=1) for _ in range(2)]
    layer = nn.Sequential(convolutions[0], nn.BatchNorm2d(width), nn.ReLU(), convolutions[1])
    layer = layer.to(device).train(use == "training")
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.randn(batch, width, side, side, device=device, requires_grad=use == "training")
    pixels = pixels.contiguous(memory_format=torch.channels_last)

    # the time of this thread only, so that a busy machine does not count
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
    """Run torch with this many threads on the CPU inside the context; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
