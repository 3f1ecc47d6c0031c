"""What happens to a training from outside: interrupts, the stop file, new strokes, batches that break it, onlookers."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sketchscale.errors import InputError, ResumeError, TaskError
from sketchscale.losses import EikonalConfig, LossConfig, loss_config
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.checkpoint import Model, ModelConfig
from sketchscale.training import learner
from sketchscale.training.config import Step, TrainingConfig
from sketchscale.training.interrupts import SecondInterrupt, noted_interrupts
from sketchscale.training.loop import Hooks, train
from sketchscale.training.patches import TrainingImage
from sketchscale.training.previews import Preview, choose_window
from sketchscale.training.state import read_state, write_state
from tests.training.examples import TINY, example, same, weights, without


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# ---- interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_its_step_and_it_goes_on_to_the_bit(tmp_path: Path, number: int) -> None:
    whole = train([example()], TINY, run_folder=tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)

    def cut(step: Step) -> None:
        if step.step == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        train([example()], replace(TINY, workers=1), run_folder=tmp_path / "cut", on_step=cut)
    assert len(log_of(tmp_path / "cut")) == 3
    assert signal.getsignal(signal.SIGTERM) is before
    resumed = train([example()], TINY, run_folder=tmp_path / "cut", resume=True)
    assert same(whole, resumed)
    assert [line["step"] for line in log_of(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6]


def test_the_first_signal_is_noted_and_the_second_acted_on() -> None:
    with noted_interrupts() as seen:
        assert not seen()
        os.kill(os.getpid(), signal.SIGINT)
        assert seen()
        with pytest.raises(SecondInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_stop_file_is_used_up_so_that_training_can_go_on(tmp_path: Path) -> None:
    def stop(step: Step) -> None:
        if step.step == 2:
            (tmp_path / "stop").touch()

    assert train([example()], TINY, run_folder=tmp_path, on_step=stop).provenance["steps"] == 2
    assert not (tmp_path / "stop").exists()
    assert train([example()], TINY, run_folder=tmp_path, resume=True).provenance["steps"] == 6


def test_a_killed_writer_leaves_a_torn_line_that_does_not_matter(tmp_path: Path) -> None:
    whole = train([example()], TINY, run_folder=tmp_path / "whole")

    def cut(step: Step) -> None:
        if step.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([example()], TINY, run_folder=tmp_path / "cut", on_step=cut)
    with (tmp_path / "cut" / "log.jsonl").open("a") as stream:
        stream.write('{"step": 4, "lo')
    assert same(whole, train([example()], TINY, run_folder=tmp_path / "cut", resume=True))
    (tmp_path / "cut" / "log.jsonl").write_text("")
    with pytest.raises(InputError, match=r"0 lines for a state after 6 steps"):
        train([example()], TINY, run_folder=tmp_path / "cut", resume=True)


# ---- new strokes


def strokes_after(step: int, more: Sequence[TrainingImage]) -> tuple[Hooks, Callable[[Step], None]]:
    """Hooks that hand out new images once, right after a step."""
    seen: list[int] = []
    given: list[int] = []

    def refresh() -> Sequence[TrainingImage] | None:
        if len(seen) < step or given:
            return None
        given.append(1)
        return more

    return Hooks(refresh=refresh), lambda line: seen.append(line.step)


@pytest.mark.parametrize("workers", [0, 1])
def test_new_strokes_are_learned_from_the_next_step_on_and_the_log_says_so(tmp_path: Path, workers: int) -> None:
    config = replace(TINY, refresh_every_s=0.0, workers=workers)
    hooks, on_step = strokes_after(3, [example(1), example(2)])
    train([example(1)], config, run_folder=tmp_path / "a", hooks=hooks, on_step=on_step)
    train([example(1)], config, run_folder=tmp_path / "without")
    plain, lines = log_of(tmp_path / "without"), log_of(tmp_path / "a")
    assert [line["annotation"] is not None for line in lines] == [True, False, False, True, False, False]
    assert lines[0]["annotation"] == plain[0]["annotation"] != lines[3]["annotation"]
    assert [a["loss"] == b["loss"] for a, b in zip(lines, plain, strict=True)][:3] == [True] * 3
    assert [a["loss"] for a in lines[3:]] != [b["loss"] for b in plain[3:]]


def test_resumed_after_new_strokes_it_is_the_training_that_met_them_at_that_step(tmp_path: Path) -> None:
    config, more = replace(TINY, refresh_every_s=0.0), [example(1), example(2)]
    hooks, on_step = strokes_after(3, more)
    whole = train([example(1)], config, run_folder=tmp_path / "whole", hooks=hooks, on_step=on_step)
    hooks, on_step = strokes_after(3, more)

    def cut(line: Step) -> None:
        on_step(line)
        if line.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([example(1)], config, run_folder=tmp_path / "cut", hooks=hooks, on_step=cut)
    assert same(whole, train(more, config, run_folder=tmp_path / "cut", resume=True))
    said = [[line["annotation"] for line in log_of(tmp_path / name)] for name in ("whole", "cut")]
    assert said[0] == said[1]


# ---- what breaks it


def failing_at(call: int) -> Callable[[str], Callable[..., torch.Tensor]]:
    good, calls = learner.find_loss("sketchpose"), list[int]()

    def fail(*args: Any) -> torch.Tensor:
        calls.append(1)
        value = good(*args)
        return value * math.nan if len(calls) == call else value

    return lambda name: fail


def test_a_loss_that_is_no_number_leaves_the_batch_and_the_weights_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(learner, "find_loss", failing_at(4))
        with pytest.raises(
            TaskError, match=r"step 4: the loss is nan; .*bad_batch\.npz.*--resume and a smaller --rate"
        ) as e:
            train([example()], TINY, run_folder=tmp_path / "bad")
    assert "\n" not in str(e.value)
    with np.load(tmp_path / "bad" / "bad_batch.npz") as batch:
        assert batch["image"].shape == (2, 1, 32, 32)
        assert batch["distance"].shape == (2, 32, 32)
        assert int(batch["step"]) == 4
    resumed = train([example()], TINY, run_folder=tmp_path / "bad", resume=True)
    whole = train([example()], TINY, run_folder=tmp_path / "whole")
    assert same(whole, resumed)


def test_after_such_a_failure_alone_the_rate_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(learner, "find_loss", failing_at(2))
        with pytest.raises(TaskError):
            train([example()], TINY, run_folder=tmp_path)
    slower = replace(TINY, rate=TINY.rate / 10)
    assert train([example()], slower, run_folder=tmp_path, resume=True).provenance["steps"] == 6
    with pytest.raises(ResumeError, match="differs in rate"):
        train([example()], TINY, run_folder=tmp_path, resume=True)


# ---- what is looked at


def test_previews_show_a_fixed_window_where_most_was_drawn(tmp_path: Path) -> None:
    shown: list[Preview] = []
    config = replace(TINY, steps=5, preview_every=2)
    train([example()], config, run_folder=tmp_path, hooks=Hooks(on_preview=shown.append))
    assert [p.step for p in shown] == [2, 4, 5]
    assert {p.box for p in shown} == {shown[0].box}
    assert shown[0].distance.shape == shown[0].labels.shape == shown[0].image.shape[1:] == (64, 64)
    assert not np.array_equal(shown[0].distance, shown[1].distance)


def test_the_window_is_where_most_was_drawn() -> None:
    rows, columns = np.indices((64, 64))
    little = without(example(), columns > 5)
    corner = without(example(), (rows < 34) | (columns < 20) | (columns > 51))
    position, box = choose_window([little, corner], side=30)
    assert position == 1
    assert box.shape == (30, 30)
    assert (corner.labels[box.slices] >= 0).sum() == 30 * 30
    assert choose_window([little], side=100)[1].shape == (64, 64)


def test_the_curve_travels_with_the_model(tmp_path: Path) -> None:
    config = replace(TINY, steps=9, validate_every=3)
    curve = train([example()], config, run_folder=tmp_path, validation=[example(1)]).provenance["curve"]
    assert [step for step, _ in curve["loss"]] == list(range(1, 10))
    assert [step for step, _ in curve["score"]] == [3, 6, 9]
    assert all(score < 0 for _, score in curve["score"])


# ---- shapes and settings


def test_an_image_smaller_than_a_patch_simply_works(tmp_path: Path) -> None:
    model = train([example()], replace(TINY, steps=2, patch=160), run_folder=tmp_path)
    assert model.provenance["steps"] == 2


def test_other_channels_and_outputs_start_from_what_fits(tmp_path: Path) -> None:
    network = create_network(TINY.network, seed=9).eval()
    init = Model(network=network, config=ModelConfig(network=TINY.network), provenance={})
    wanted = replace(TINY.network, channels=2)
    one = example()
    image = replace(one, image=np.concatenate([one.image, one.image]))
    config = replace(TINY, network=wanted, steps=1, rate=1e-12, average=0)
    model = train([image], config, run_folder=tmp_path, init=init)
    deep = "down.1.units.0.2.weight"
    torch.testing.assert_close(weights(model)[deep], network.state_dict()[deep], atol=1e-6, rtol=0)


def test_a_dense_loss_refuses_unknown_pixels_by_name(tmp_path: Path) -> None:
    config = replace(TINY, loss=LossConfig(name="dense"))
    assert train([example()], config, run_folder=tmp_path / "full").provenance["steps"] == 6
    with pytest.raises(InputError, match="discs 0") as caught:
        train([without(example(), np.indices((64, 64))[0] == 5)], config, run_folder=tmp_path / "part")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize(
    "change",
    [{"precision": "float16"}, {"compile": "maybe"}, {"workers": -1}, {"held_out_patches": 0}, {"preview_every": -1},
     {"network": NetworkConfig(widths=(4, 8), outputs=2)}, {"loss": loss_config("sketchpose-1")}],
    ids=str,
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_in_one_line(change: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        replace(TINY, **change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("compile", "compiled"), [("on", True), ("auto", False), ("off", False)])
def test_compilation_is_asked_for_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compile: str, compiled: bool
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda network: asked.append(network) or network)
    config: TrainingConfig = replace(TINY, steps=1, compile=compile)  # type: ignore[arg-type]
    train([example()], config, run_folder=tmp_path)
    assert bool(asked) == compiled


@pytest.mark.parametrize(("changed", "differs"), [({}, ""), ({"slope": 9.0}, r"differs in loss.slope: 9.0 -> 0.0")])
def test_a_state_of_the_first_version_whose_loss_had_the_settings_of_all_goes_on(
    tmp_path: Path, changed: dict[str, float], differs: str
) -> None:
    config = replace(TINY, steps=2, loss=EikonalConfig())
    whole = train([example()], config, run_folder=tmp_path)
    tensors, about = read_state(str(tmp_path))
    own = {name: about["config"]["loss"].pop(name) for name in ("length", "slope", "coupling", "boundary", "sides")}
    own |= {name: about["config"]["loss"].pop(name) for name in ("exponent", "near", "band")}
    about["config"]["loss"] |= {"omnipose": {"boundary": 2.0}, "eikonal": own | changed, "hover": {"dice": 1.0}}
    write_state(str(tmp_path), tensors, about)
    if differs:
        with pytest.raises(ResumeError, match=differs):
            train([example()], config, run_folder=tmp_path, resume=True)
    else:
        assert same(train([example()], config, run_folder=tmp_path, resume=True), whole)
