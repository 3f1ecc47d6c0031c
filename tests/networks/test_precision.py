"""What `auto` means: the faster precision, measured in half a second, and what is said of the slower one."""

from __future__ import annotations

import itertools
import time

import pytest
import torch

from sketchscale.errors import UnknownNameError
from sketchscale.networks import precision
from sketchscale.networks.precision import Rates, autocast, choose_precision

# the session's fixture puts another function in its place
MEASURE = precision.__dict__["measure_rates"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Rates]:
    """What the measurement finds, by use."""
    rates = {"inference": Rates(float32=80.0, bfloat16=6.0), "training": Rates(float32=70.0, bfloat16=120.0)}
    monkeypatch.setattr(precision, "measure_rates", lambda device, use: rates[use])
    return rates


def test_auto_is_the_faster_one_of_each_use(measured: dict[str, Rates]) -> None:
    assert choose_precision("auto", "cpu", "inference").name == "float32"
    assert choose_precision("auto", "cpu", "training").name == "bfloat16"
    assert choose_precision("auto", "cpu", "training").rates == measured["training"]


@pytest.mark.parametrize(("bfloat16", "name"), [(100.0, "float32"), (109.0, "float32"), (111.0, "bfloat16")])
def test_a_small_gain_is_not_enough(measured: dict[str, Rates], bfloat16: float, name: str) -> None:
    measured["inference"] = Rates(float32=100.0, bfloat16=bfloat16)
    assert choose_precision("auto", "cpu").name == name


def test_a_slow_precision_is_taken_when_it_was_asked_for_and_one_line_says_how_slow(measured: dict[str, Rates]) -> None:
    chosen = choose_precision("bfloat16", "cpu")
    assert chosen.name == "bfloat16"
    assert "bfloat16 is 13 times slower than float32 on this processor" in chosen.warning
    assert "--precision float32" in chosen.warning
    assert "\n" not in chosen.warning
    assert choose_precision("bfloat16", "cpu", "training").warning == ""


def test_nothing_is_measured_for_float32_and_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "measure_rates", lambda device, use: pytest.fail("measured"))
    assert [choose_precision(name, "cpu").name for name in ("float32", "float16")] == ["float32", "float16"]


def test_a_device_that_is_not_here_or_cannot_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "measure_rates", lambda device, use: pytest.fail("measured"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [choose_precision("auto", device).name for device in ("cuda", "mps")] == ["float32", "float32"]
    assert choose_precision("bfloat16", "cuda").name == "bfloat16"


def test_where_the_layer_does_not_run_auto_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: str, use: str) -> Rates:
        raise RuntimeError("not implemented for BFloat16")

    monkeypatch.setattr(precision, "measure_rates", fail)
    assert choose_precision("auto", "cpu").name == "float32"


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="known: auto, bfloat16, float16, float32"):
        choose_precision("half", "cpu")


@pytest.mark.parametrize("slow_s", [0.01, 0.15, 5.0])
def test_the_measurement_stops_before_it_takes_too_long(monkeypatch: pytest.MonkeyPatch, slow_s: float) -> None:
    """On a clock of its own: float32 takes 1 ms, bfloat16 as long as emulation may."""
    clock = [0.0]

    def run(name: str) -> float:
        spent = 0.001 if name == "float32" else slow_s
        clock[0] += spent
        return spent

    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(precision, "_layer", lambda device, use: (1e6, run))
    rates = MEASURE.__wrapped__("cpu", "inference")
    assert clock[0] < max(0.5, slow_s + 0.01), "one call at least has to be made"
    assert rates.gain == pytest.approx(0.001 / slow_s)


def test_calls_alternate_and_the_shortest_of_each_counts_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    seconds = {"float32": itertools.chain([9e-6, 4e-6], itertools.repeat(5e-6)),
               "bfloat16": itertools.chain([1e-6, 3e-6, 2e-6], itertools.repeat(3e-6))}  # fmt: skip

    def run(name: str) -> float:
        calls.append(name)
        return next(seconds[name])

    monkeypatch.setattr(precision, "_layer", lambda device, use: (8e3, run))
    rates = MEASURE.__wrapped__("cpu", "inference")
    assert calls[:4] == ["float32", "bfloat16", "float32", "bfloat16"]
    assert (rates.float32, rates.bfloat16) == (pytest.approx(2.0), pytest.approx(4.0))


@pytest.mark.parametrize("use", ["inference", "training"])
def test_a_real_measurement_leaves_torch_as_it_was(use: precision.Use) -> None:
    state, threads, grad = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    began = time.perf_counter()
    rates = MEASURE("cpu", use)
    first = time.perf_counter() - began
    assert min(rates.float32, rates.bfloat16) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, grad)
    began = time.perf_counter()
    assert MEASURE("cpu", use) == rates
    assert time.perf_counter() - began < first / 10


def test_autocast_computes_in_the_precision_and_float32_means_as_it_is() -> None:
    layer, pixels = torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)
    kinds = []
    for name in ("float32", "bfloat16"):
        with torch.inference_mode(), autocast("cpu", "bfloat16"), autocast("cpu", name):
            kinds.append(layer(pixels).dtype)
    assert kinds == [torch.float32, torch.bfloat16]
