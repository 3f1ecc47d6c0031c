"""Strokes inside objects alone: they lower the loss, choose theirs, and give sizes that no outline says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sketchscale.annotations.simulate import InteriorStyle, simulate_interior, simulate_strokes
from sketchscale.errors import InputError
from sketchscale.losses import loss_config
from sketchscale.training.checks import check_images, choose_loss
from sketchscale.training.loop import choose_threshold, train
from sketchscale.training.patches import PatchSource, TrainingImage
from sketchscale.training.thresholds import labels_with_lines
from sketchscale.training.validation import PLAIN
from tests.training.examples import TINY, example

EIKONAL = replace(TINY, loss=loss_config("eikonal"))


def drawn(style: InteriorStyle | None, seed: int = 1) -> TrainingImage:
    """An example with strokes inside, or with outlines."""
    image = example(seed)
    simulated = simulate_strokes(image.labels) if style is None else simulate_interior(image.labels, style=style)
    raster = simulated.rasterize()
    return replace(image, labels=raster.labels, boundary=raster.boundary, numbered=raster.numbered)


def fragments() -> TrainingImage:
    """Strokes inside, and the outlines that lie in the left half."""
    image, outlined = drawn("interior"), drawn(None).boundary
    assert outlined is not None
    boundary = outlined & (np.arange(64) < 32)
    return replace(image, labels=np.where(boundary, -1, image.labels).astype(np.int32), boundary=boundary)


@pytest.mark.parametrize(
    "image", [drawn("interior"), drawn("points"), fragments()], ids=["curves", "points", "curves and fragments"]
)
def test_a_few_steps_lower_the_loss_and_sizes_are_those_that_the_network_sees(
    tmp_path: Path, image: TrainingImage
) -> None:
    losses: list[float] = []
    config = replace(EIKONAL, steps=60, rate=1e-2, batch=4)
    model = train([image], config, run_folder=tmp_path, on_step=lambda step: losses.append(step.loss))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    assert model.config.diameter > 6
    assert model.config.min_size > 5
    assert abs(model.config.threshold) <= 1


def test_the_loss_is_chosen_by_what_boundaries_say() -> None:
    assert choose_loss([drawn(None)])[0] == "sketchpose"
    assert choose_loss([example()])[0] == "sketchpose"
    name, why = choose_loss([drawn("points")])
    assert (name, why) == (
        "eikonal",
        "loss eikonal: boundaries give distances in 0 of 8 annotated objects, fewer than half",
    )
    assert choose_loss([drawn("interior"), drawn(None)])[0] == "sketchpose"
    assert choose_loss([drawn("interior"), drawn("points"), drawn(None)])[0] == "eikonal"
    background = replace(example(), labels=np.zeros((64, 64), np.int32))
    assert choose_loss([background])[0] == "eikonal"


def test_without_background_only_a_model_to_start_from_can_learn(tmp_path: Path) -> None:
    image = drawn("points")
    image = replace(image, labels=np.where(image.labels > 0, image.labels, -1).astype(np.int32))
    with pytest.raises(InputError, match=r"no background: .*--init.*draw thick background strokes"):
        check_images([image], EIKONAL)
    with pytest.raises(InputError, match="no background"):
        train([image], EIKONAL, run_folder=tmp_path / "refused")
    start = train([example()], TINY, run_folder=tmp_path / "start")
    learned = train([image], EIKONAL, run_folder=tmp_path / "run", init=start)
    assert -4 <= learned.config.threshold <= 0


def test_boundaries_are_still_asked_for_by_the_loss_that_needs_them() -> None:
    with pytest.raises(InputError, match="no pixel whose distance to a boundary is known"):
        check_images([drawn("interior")], TINY)


def test_of_equally_good_thresholds_the_one_nearest_to_the_preferred_is_taken(tmp_path: Path) -> None:
    model = train([drawn("points")], replace(EIKONAL, steps=1), run_folder=tmp_path)
    unknown = replace(example(), labels=np.full((64, 64), -1, np.int32))
    assert choose_threshold(model, [unknown], prefer=0.0) == 0
    assert choose_threshold(model, [unknown]) == -2


def test_patches_say_which_objects_are_numbered_and_what_is_ignored() -> None:
    image = drawn("interior")
    ignored = np.zeros((64, 64), np.bool_)
    ignored[:, 20:30] = True
    kinds = {"numbered": frozenset({2, 3}), "ignored": ignored}
    source = PatchSource([replace(image, **kinds)], size=32, augment=PLAIN, outside=-5.0)  # type: ignore[arg-type]
    _, targets = source.batch(np.random.default_rng(0), 6)
    assert set(targets.objects.unique().tolist()) == {0, 2, 3}
    assert targets.ignored.any()
    assert not (targets.ignored & (targets.inside | targets.background)).any()
    plain, known = (PatchSource([i], size=32, augment=PLAIN, outside=-5.0) for i in (image, replace(image, **kinds)))  # type: ignore[arg-type]
    (pixels, before), (same, after) = (s.batch(np.random.default_rng(0), 6) for s in (plain, known))
    assert pixels.equal(same)
    assert before.signed.equal(after.signed)
    assert before.edges.shape == (6, 1, 32, 32)


def test_what_a_wide_brush_covers_is_unknown_to_a_calibration_but_for_its_middle() -> None:
    for width in (1, 2, 9):
        labels = np.ones((40, 40), np.int32)
        labels[:, 20:] = 0
        boundary = np.zeros(labels.shape, bool)
        boundary[:, 16 : 16 + width] = True
        found = labels_with_lines(
            TrainingImage(image=np.zeros((1, 40, 40), np.float32), labels=labels, boundary=boundary)
        )
        middle = slice(16, 16 + width) if width < 3 else slice(20, 21)
        assert (found[10:30, middle] == 0).all()
        assert (found[10:30, 16 : 16 + width] == 0).sum() == 20 * len(range(40)[middle])
        assert (found[~boundary] == labels[~boundary]).all()
        assert width < 3 or (found[10:30, 16:20] == -1).all()
