"""The loop: it learns, it follows its schedule, it can be cut anywhere, and it says what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sketchscale.errors import InputError, ResumeError, SetupError, TaskError, UnknownNameError
from sketchscale.inference.backend import Recipe, TorchBackend
from sketchscale.inference.plan import predict_array
from sketchscale.inference.views import views_of
from sketchscale.losses import BatchTargets, LossConfig
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.checkpoint import Model, ModelConfig
from sketchscale.training import learner, loop, thresholds
from sketchscale.training.augment import AugmentConfig
from sketchscale.training.loop import Hooks, Step, choose_threshold, rate_at, train
from sketchscale.training.patches import PatchSource, TrainingImage
from tests.training.examples import TINY, discs, example, picture, same, weights


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_training_lowers_the_loss_and_finds_the_discs(tmp_path: Path) -> None:
    config = replace(TINY, steps=60, rate=1e-2, average=0.9, network=NetworkConfig(widths=(8, 16)))
    losses: list[float] = []
    model = train([example(1)], config, run_folder=tmp_path, on_step=lambda s: losses.append(s.loss))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    fresh = example(2)
    found = loop.predict_image(model, fresh.image)[2] > model.config.threshold
    assert (found == (fresh.labels > 0)).mean() > 0.9
    assert not model.network.training
    assert model.config.diameter == pytest.approx(10, abs=3)
    areas = np.bincount(example(1).labels.ravel())[1:]
    assert model.config.min_size == int(np.percentile(areas, 5) / 2)


def test_every_step_sees_other_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    draw = PatchSource.patches

    def noted(self: PatchSource, rngs: Sequence[np.random.Generator]) -> tuple[torch.Tensor, BatchTargets]:
        image, targets = draw(self, rngs)
        seen.extend(image.sum(dim=(1, 2, 3)).tolist())
        return image, targets

    monkeypatch.setattr(PatchSource, "patches", noted)
    train([example()], TINY, run_folder=tmp_path)
    assert len(set(seen)) == len(seen) == TINY.steps * TINY.batch


@pytest.mark.parametrize("optimizer", sorted(loop.OPTIMIZERS))
@pytest.mark.parametrize("at", [1, 4])
def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(tmp_path: Path, optimizer: str, at: int) -> None:
    config = replace(TINY, optimizer=optimizer)
    whole = train([example()], config, run_folder=tmp_path / "whole")
    seen: list[Step] = []

    def cut(step: Step) -> None:
        seen.append(step)
        if step.step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([example()], config, run_folder=tmp_path / "cut", on_step=cut)
    resumed = train([example()], config, run_folder=tmp_path / "cut", on_step=seen.append, resume=True)
    assert [s.step for s in seen] == [1, 2, 3, 4, 5, 6]
    assert same(whole, resumed)
    assert whole.config == resumed.config
    a, b = ([json.loads(x) for x in (tmp_path / n / "log.jsonl").read_text().splitlines()] for n in ("whole", "cut"))
    assert [(x["loss"], x["rate"]) for x in a] == [(x["loss"], x["rate"]) for x in b]


def test_control_without_resume_it_starts_again(tmp_path: Path) -> None:
    config = replace(TINY, steps=2)
    train([example()], config, run_folder=tmp_path)
    steps: list[int] = []
    train([example()], config, run_folder=tmp_path, on_step=lambda s: steps.append(s.step))
    assert steps == [1, 2]


def test_resuming_something_else_is_refused_by_name(tmp_path: Path) -> None:
    train([example()], replace(TINY, steps=1), run_folder=tmp_path)
    with pytest.raises(ResumeError, match=r"differs in batch: \d+ -> 1, rate: 0\.\d+ -> 1\.0;"):
        train([example()], replace(TINY, steps=1, rate=1.0, batch=1), run_folder=tmp_path, resume=True)
    (tmp_path / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="does not read"):
        train([example()], replace(TINY, steps=1), run_folder=tmp_path, resume=True)


def test_the_schedule_is_applied_to_the_optimiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[float] = []

    class Noted(torch.optim.AdamW):
        def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
            applied.append(self.param_groups[0]["lr"])
            super().step()

    monkeypatch.setitem(loop.OPTIMIZERS, "adamw", Noted)
    said: list[float] = []
    config = replace(TINY, steps=8, warmup=0.25, rate=0.01)
    train([example()], config, run_folder=tmp_path, on_step=lambda s: said.append(s.rate))
    assert applied == said == [rate_at(i / 8, config) for i in range(8)]
    assert max(applied) == 0.01
    assert applied[0] < applied[2] > applied[5] > applied[7]


def test_a_constant_schedule_stays_at_the_peak_after_the_rise() -> None:
    config = replace(TINY, warmup=0.25, rate=0.01, schedule="constant")
    assert [rate_at(progress, config) for progress in (0.125, 0.25, 0.6, 1.0)] == [0.005, 0.01, 0.01, 0.01]


def test_a_time_limit_ends_training_and_the_schedule_with_it(tmp_path: Path) -> None:
    steps: list[Step] = []
    config = replace(TINY, steps=100_000, minutes=0.02)
    model = train([example()], config, run_folder=tmp_path, on_step=steps.append)
    assert model.provenance["ended_by"] == "minutes"
    assert steps[-1].rate < 0.5 * config.rate
    assert steps[-1].elapsed_s < 10


def test_a_stop_file_ends_training_with_a_model(tmp_path: Path) -> None:
    def stop(step: Step) -> None:
        if step.step == 2:
            (tmp_path / "stop").touch()

    model = train([example()], TINY, run_folder=tmp_path, on_step=stop)
    assert (model.provenance["steps"], model.provenance["ended_by"]) == (2, "stop file")
    assert (tmp_path / "state.safetensors").exists()


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    scores = iter([0.3, 0.9, 0.5, 0.4, 0.99])
    kept: list[dict[str, torch.Tensor]] = []

    def validate(model: Model) -> float:
        kept.append({k: v.clone() for k, v in weights(model).items()})
        return next(scores)

    steps: list[Step] = []
    config = replace(TINY, steps=50, validate_every=2, patience=2)
    model = train([example()], config, run_folder=tmp_path, hooks=Hooks(validate=validate), on_step=steps.append)
    assert model.provenance["ended_by"] == "no better validation"
    assert [s.score for s in steps] == [None, 0.3, None, 0.9, None, 0.5, None, 0.4]
    assert all(torch.equal(weights(model)[k], kept[1][k]) for k in kept[1])


def test_a_loss_that_is_no_number_keeps_the_last_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = learner.find_loss("sketchpose")
    calls: list[int] = []

    def failing(*args: object) -> torch.Tensor:
        calls.append(1)
        value = good(*args)  # type: ignore[arg-type]
        return value * math.nan if len(calls) == 4 else value

    monkeypatch.setattr(learner, "find_loss", lambda name: failing)
    with pytest.raises(TaskError, match=r"step 4: the loss is nan; .* --resume and a smaller --rate"):
        train([example()], TINY, run_folder=tmp_path)
    monkeypatch.setattr(learner, "find_loss", lambda name: good)
    steps: list[int] = []
    model = train([example()], TINY, run_folder=tmp_path, resume=True, on_step=lambda s: steps.append(s.step))
    assert steps == [4, 5, 6]
    assert all(torch.isfinite(v.float()).all() for v in weights(model).values())


def test_training_can_start_from_a_model(tmp_path: Path) -> None:
    network = create_network(TINY.network, seed=9).eval()
    init = Model(network=network, config=ModelConfig(network=TINY.network), provenance={})
    model = train([example()], replace(TINY, steps=1, rate=1e-12, average=0), run_folder=tmp_path, init=init)
    for name, value in network.named_parameters():
        torch.testing.assert_close(weights(model)[name], value.detach(), atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="widths"):
        train([example()], replace(TINY, network=NetworkConfig(widths=(4, 6))), run_folder=tmp_path, init=init)


def sketch(change: Callable[[npt.NDArray[np.int32]], npt.NDArray[np.int32]]) -> TrainingImage:
    labels = discs()
    return TrainingImage(image=picture(labels), labels=change(labels).astype(np.int32))


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda a: np.where(a > 0, a, -1), "no background"),
        (lambda a: np.where(a > 0, -1, 0), "no foreground stroke"),
        (lambda a: np.full_like(a, -1), "no foreground stroke"),
        (
            lambda a: np.where(np.indices(a.shape)[0] < 8, 0, np.where(np.indices(a.shape)[0] > 40, 1, -1)),
            "draw the outlines",
        ),
    ],
    ids=["no background", "no foreground", "nothing", "no boundary"],
)
def test_a_sketch_that_lacks_something_is_refused_before_training(
    tmp_path: Path, change: Callable[[npt.NDArray[np.int32]], npt.NDArray[np.int32]], missing: str
) -> None:
    with pytest.raises(InputError, match=missing) as caught:
        train([sketch(change)], TINY, run_folder=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_one_image_lacks_another_may_have(tmp_path: Path) -> None:
    images = [sketch(lambda a: np.where(a > 0, -1, 0)), example(1)]
    assert train(images, replace(TINY, steps=1), run_folder=tmp_path).provenance["images"] == 2


def test_no_image_wrong_channels_and_absent_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image"):
        train([], TINY, run_folder=tmp_path)
    with pytest.raises(InputError, match="has 1 channels"):
        train([example()], replace(TINY, network=NetworkConfig(channels=2, widths=(4, 8))), run_folder=tmp_path)
    with pytest.raises(UnknownNameError, match="abacus"):
        train([example()], replace(TINY, device="abacus"), run_folder=tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(SetupError, match="not there"):
            train([example()], replace(TINY, device="cuda"), run_folder=tmp_path)


@pytest.mark.gpu
def test_training_runs_on_a_gpu(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = train([example()], replace(TINY, device="cuda"), run_folder=tmp_path)
    assert all(v.device.type == "cpu" for v in weights(model).values())


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"patch": 33}, {"rate": -1.0}, {"minutes": 0.0}, {"average": 1.0}, {"optimizer": "sgdd"},
     {"precision": "float8"}, {"loss": LossConfig(name="none")}],
    ids=str,
)  # fmt: skip
def test_a_senseless_configuration_is_refused_on_creation(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        replace(TINY, **change)  # type: ignore[arg-type]


def test_the_threshold_is_set_on_annotated_pixels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.full((4, 100), -1, np.int32)
    labels[0, :50], labels[1, :50] = 1, 0
    image = TrainingImage(image=np.zeros((1, 4, 100), np.float32), labels=labels)
    distance = np.full((4, 100), 99.0, np.float32)
    distance[0, :50] = np.linspace(-0.4, 5, 50)
    distance[1, :50] = np.linspace(-5, -1.1, 50)
    seen: list[int] = []

    def predicted(model: Model, pixels: Any, where: Any) -> Any:
        seen.append(1)
        return np.stack([distance] * 3)

    monkeypatch.setattr(thresholds, "predict_image", predicted)
    network = create_network(TINY.network)
    model = Model(network=network, config=ModelConfig(network=TINY.network), provenance={})
    assert -1.1 <= choose_threshold(model, [image]) <= -0.4
    labels[1, :50], labels[1, :5] = -1, 0
    assert choose_threshold(model, [replace(image, labels=labels)]) < -2
    boundary = np.zeros(labels.shape, bool)
    boundary[1, 40:50] = True
    drawn = replace(image, labels=labels, boundary=boundary)
    assert -1.1 <= choose_threshold(model, [drawn]) <= -0.4
    seen.clear()
    assert -1.1 <= choose_threshold(model, [drawn] * 3, until=0.0) <= -0.4
    assert len(seen) == 1, "the time is over after the first image"


def test_thresholds_are_set_on_the_fields_that_segment_finds() -> None:
    network = create_network(NetworkConfig(widths=(4, 6, 8)), seed=2).eval()
    model = Model(network=network, config=ModelConfig(network=NetworkConfig(widths=(4, 6, 8))), provenance={})
    image = np.random.default_rng(0).random((1, 601, 1030), np.float32)
    got = loop.predict_image(model, image)
    backend = TorchBackend(model=model, recipe=Recipe(threads=torch.get_num_threads()))
    found = predict_array(image, backend, views_of(image.shape[1:], model), ((0.0, 1.0),))
    np.testing.assert_array_equal(got, found)
    where = np.zeros((601, 1030), bool)
    where[600, 1029] = True
    partial = loop.predict_image(model, image, where)
    np.testing.assert_array_equal(partial[:, 512:, 960:], got[:, 512:, 960:])
    assert (partial[:, :448] == 0).all()


def test_bfloat16_trains_too(tmp_path: Path) -> None:
    config = replace(TINY, steps=2, precision="bfloat16", augment=AugmentConfig(plain=1.0))
    model = train([example()], config, run_folder=tmp_path)
    assert all(v.dtype in (torch.float32, torch.int64) for v in weights(model).values())
