"""Synthetic patches among real ones: how many, whose, and the same whatever draws them, resumes, or shares the work."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sketchscale.errors import InputError, ResumeError
from sketchscale.losses import BatchTargets, LossConfig, loss_config
from sketchscale.networks import NetworkConfig
from sketchscale.training.config import SyntheticConfig, TrainingConfig
from sketchscale.training.distributed import World
from sketchscale.training.loop import Hooks, train
from sketchscale.training.patches import TrainingImage
from sketchscale.training.prefetch import Batch, draw_batch
from sketchscale.training.scale import typical_diameter
from sketchscale.training.synthetic import REUSE, SceneWindow, drawing_of, fixed_scenes
from sketchscale.training.validation import PLAIN, source_for
from tests.training.examples import TINY, discs, example, picture, same

SYNTHETIC = replace(TINY, synthetic=SyntheticConfig(sha256=("drawn",), share=0.5))
ALONE = replace(TINY, synthetic=SyntheticConfig(sha256=("drawn",), share=1.0))


@dataclass
class Drawn:
    """Scenes of drawn discs; notes which were asked for."""

    asked: list[int] = field(default_factory=list)
    channels: int = 1

    def scene(self, number: int) -> TrainingImage:
        self.asked.append(number)
        labels = discs(number % 1000 + 50)
        return TrainingImage(image=picture(labels, number % 1000) + 2, labels=labels, name=f"scene {number}")


def equal(a: Batch, b: Batch) -> bool:
    targets = all(torch.equal(getattr(a[1], f.name), getattr(b[1], f.name)) for f in fields(BatchTargets))
    return targets and torch.equal(a[0], b[0])


def drawing(config: TrainingConfig, stream: Drawn, *images: TrainingImage) -> Callable[..., Batch]:
    return drawing_of(images, SceneWindow(config, stream), config)


def test_the_share_of_patches_is_synthetic_and_the_others_are_real() -> None:
    """Scenes are brighter by 2 than images, so a patch tells where it is from."""
    config = replace(SYNTHETIC, batch=8, augment=PLAIN, synthetic=SyntheticConfig(sha256=("drawn",), share=0.3))
    draw = drawing(config, Drawn(), example(1))
    means = torch.cat([draw(step, range(8))[0].mean((1, 2, 3)) for step in range(40)])
    assert ((means < 1) | (means > 1.5)).all(), "nothing between"
    assert float((means > 1.5).float().mean()) == pytest.approx(0.3, abs=0.07)


def test_a_batch_is_what_each_patch_would_be_by_itself() -> None:
    """The slow way: decide, then draw from the one image or the one scene."""
    stream, images = Drawn(), (example(1), example(2))
    draw = drawing(SYNTHETIC, stream, *images)
    for step in (0, 3, 21):
        drawn = draw(step, range(2))
        for k in range(2):
            rng = np.random.default_rng((SYNTHETIC.seed, step, k))
            number = (step + k) // REUSE * 2 + k
            shown = images if rng.random() >= 0.5 else (Drawn().scene(number),)
            expected = source_for(shown, SYNTHETIC, SYNTHETIC.augment).patches([rng])
            assert torch.equal(drawn[0][k : k + 1], expected[0])
            assert torch.equal(drawn[1].distance[k : k + 1], expected[1].distance)


@given(st.integers(1, 9), st.integers(0, 300))
def test_places_have_scenes_of_their_own_and_change_them_in_turn(batch: int, step: int) -> None:
    config, stream = replace(ALONE, batch=batch), Drawn()
    window = SceneWindow(config, stream)
    for k in range(batch):
        window.at(step, k)
    assert len(set(stream.asked)) == batch
    assert [number % batch for number in stream.asked] == list(range(batch))
    before = len(stream.asked)
    for k in range(batch):
        window.at(step + 1, k)
    assert len(stream.asked) - before == sum((step + 1 + k) % REUSE == 0 for k in range(batch))


def test_scenes_are_made_once_and_only_a_few_are_kept() -> None:
    stream = Drawn()
    window = SceneWindow(ALONE, stream)
    for step in range(10 * REUSE):
        for k in range(2):
            window.at(step, k)
    assert max(Counter(stream.asked).values()) == 1
    assert len(window._made) <= 2 * ALONE.batch + 16


def test_threads_that_want_a_scene_at_once_get_one_that_was_made_once() -> None:
    stream, found = Drawn(), list[object]()
    window, together = SceneWindow(ALONE, stream), threading.Barrier(6)

    def ask() -> None:
        together.wait()
        found.append(window.at(5, 1))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert len(stream.asked) == 1


def test_what_goes_wrong_in_a_scene_is_heard() -> None:
    class Broken(Drawn):
        def scene(self, number: int) -> TrainingImage:
            if number < 1 << 40:
                raise InputError("no such pair")
            return super().scene(number)

    with pytest.raises(InputError, match="no such pair"):
        SceneWindow(ALONE, Broken()).at(0, 0)


def test_shares_of_a_batch_are_parts_of_it_and_each_scene_is_made_by_one_process() -> None:
    config = replace(SYNTHETIC, batch=5)
    whole = drawing(config, Drawn(), example(1))(7, range(5))
    asked = []
    for rank in range(2):
        stream, share = Drawn(), World(rank=rank, size=2).share(5)
        draw = drawing(config, stream, example(1))
        found = draw(7, share)
        assert torch.equal(found[0], whole[0][share.start : share.stop])
        for step in range(3 * REUSE):
            draw(step, share)
        asked.append(set(stream.asked))
    assert not asked[0] & asked[1]


def test_without_synthetic_scenes_batches_are_what_they_were() -> None:
    draw = drawing_of([example(1)], SceneWindow(TINY), TINY)
    assert equal(draw(4, range(2)), draw_batch(source_for([example(1)], TINY, TINY.augment), TINY.seed, 4, range(2)))


# ---- whole trainings


def taught(folder: Path, config: TrainingConfig, *images: TrainingImage, **more: object) -> object:
    return train(images, config, run_folder=folder, hooks=Hooks(scenes=Drawn()), **more)


@pytest.mark.parametrize("images", [(), (example(1),)], ids=["scenes", "both"])
def test_resumed_training_ends_with_the_same_weights_however_it_draws_ahead(
    tmp_path: Path, images: tuple[TrainingImage, ...]
) -> None:
    config = replace(SYNTHETIC if images else ALONE, steps=REUSE + 4, workers=0)
    expected = taught(tmp_path / "whole", config, *images)

    def stop(step: object) -> None:
        if step.step == 3:
            raise KeyboardInterrupt

    ahead = replace(config, workers=3)
    with pytest.raises(KeyboardInterrupt):
        taught(tmp_path / "run", ahead, *images, on_step=stop)
    other = replace(config, synthetic=replace(config.synthetic, sha256=("other",)))
    with pytest.raises(ResumeError, match="differs in synthetic"):
        taught(tmp_path / "run", other, *images, resume=True)
    found = taught(tmp_path / "run", replace(config, workers=1), *images, resume=True)
    assert same(found, expected)
    assert found.config == expected.config
    plain = train([example(1)], replace(TINY, steps=REUSE + 4), run_folder=tmp_path / "plain")
    assert not same(found, plain)


@pytest.mark.parametrize("loss", ["sketchpose", "dense", "hover"])
def test_every_loss_learns_from_scenes_alone(tmp_path: Path, loss: str) -> None:
    network = NetworkConfig(widths=(4, 8), outputs=3)
    config = replace(ALONE, loss=loss_config(loss), network=network, steps=40, average=0.9)
    losses: list[float] = []
    model = taught(tmp_path, config, on_step=lambda step: losses.append(step.loss))
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    shown = fixed_scenes(Drawn())
    areas = np.concatenate([np.bincount(s.labels.ravel())[1:] for s in shown])
    assert model.config.diameter == pytest.approx(typical_diameter(areas[areas > 0]), abs=0.01)
    assert 0 < model.config.min_size < np.median(areas)


def test_scenes_alone_are_shown_in_previews(tmp_path: Path) -> None:
    seen: list[object] = []
    hooks = Hooks(scenes=Drawn(), on_preview=seen.append)
    train([], replace(ALONE, preview_every=3), run_folder=tmp_path, hooks=hooks)
    assert len(seen) == 2
    assert all(preview.name.startswith("scene ") for preview in seen)


def test_held_out_annotation_is_scored_beside_scenes(tmp_path: Path) -> None:
    """On held-out patches that are real: about the score of a training without scenes that has learned as little."""
    config = replace(ALONE, validate_every=2, patience=9, steps=2, rate=1e-12, average=0.0)
    scores: list[float | None] = []
    taught(tmp_path / "a", config, validation=[example(5)], on_step=lambda s: scores.append(s.score))
    plain = replace(config, synthetic=None)
    train(
        [example(1)],
        plain,
        run_folder=tmp_path / "b",
        validation=[example(5)],
        on_step=lambda s: scores.append(s.score),
    )
    scores = [score for score in scores if score is not None]
    assert scores[0] == pytest.approx(scores[1], rel=0.05)


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="a share of 0 synthetic patches"):
        SyntheticConfig(sha256=("x",), share=0)
    with pytest.raises(InputError, match="no image"):
        train([], TINY, run_folder="memory://never")


def test_partial_annotation_beside_scenes_is_still_refused_by_a_dense_loss(tmp_path: Path) -> None:
    partial = replace(example(1), labels=np.where(np.arange(64) < 32, example(1).labels, -1).astype(np.int32))
    with pytest.raises(InputError, match="have no label"):
        taught(tmp_path, replace(SYNTHETIC, loss=LossConfig(name="dense")), partial)
