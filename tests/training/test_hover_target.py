"""A network that is taught h/v maps: what its model says, what it starts from, and touching discs told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from sketchscale.errors import InputError
from sketchscale.evaluation import score_labels
from sketchscale.integration.watershed.config import watershed_for
from sketchscale.integration.watershed.plan import hover_labels
from sketchscale.losses import loss_config
from sketchscale.networks import NetworkConfig
from sketchscale.networks.adapt import adapt_notes, adapt_weights
from sketchscale.networks.checkpoint import Model, load_model
from sketchscale.training.loop import Hooks, TrainingConfig, train
from sketchscale.training.patches import TrainingImage
from sketchscale.training.previews import Preview
from sketchscale.training.thresholds import predict_image


def scene(seed: int, side: int = 96) -> TrainingImage:
    """Discs of 7 to 11 px radius, many of them touching, brighter in the middle; every pixel annotated."""
    rng = np.random.default_rng(seed)
    labels, image = np.zeros((side, side), np.int32), rng.normal(0, 0.05, (side, side))
    y, x = np.indices(labels.shape)
    discs: list[tuple[float, float, float]] = []
    for _ in range(200):
        cy, cx, radius = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(7, 11)
        if all(np.hypot(cy - a, cx - b) >= 0.9 * (radius + c) for a, b, c in discs):
            discs.append((cy, cx, radius))
            away = np.hypot(y - cy, x - cx) / radius
            mine = (away < 1) & (labels == 0)
            labels[mine] = len(discs)
            image[mine] += 1 - 0.4 * away[mine] ** 2
    return TrainingImage(image=image.astype(np.float32)[None], labels=labels)


def config(steps: int, **changes: object) -> TrainingConfig:
    return TrainingConfig(
        network=NetworkConfig(widths=(8, 16, 32)),
        loss=loss_config("hover"),
        steps=steps,
        batch=4,
        patch=64,
        rate=5e-3,
        threads=1,
        precision="float32",
        **changes,  # type: ignore[arg-type]
    )


def taught(steps: int, folder: Path) -> Model:
    return train([scene(i) for i in range(6)], config(steps), run_folder=folder)


def precision(model: Model, image: TrainingImage, *, parted: bool) -> float:
    fields = predict_image(model, image.image)
    rule = watershed_for(model.config.diameter, min_size=model.config.min_size)
    pieces, _ = ndimage.label(fields[2] >= model.config.threshold)
    found = hover_labels(fields, rule) if parted else pieces.astype(np.uint32)
    return score_labels(image.labels.astype(np.uint32), found, (0.5,)).matchings[0].ap


@pytest.mark.nightly
def test_a_network_of_some_hundred_steps_tells_touching_discs_apart(tmp_path: Path) -> None:
    model = taught(250, tmp_path)
    for seed in (100, 101):
        assert precision(model, scene(seed), parted=True) > 0.9
        assert precision(model, scene(seed), parted=False) < 0.7  # control: connected pieces


def test_its_model_says_so_and_pictures_show_m(tmp_path: Path) -> None:
    shown: list[Preview] = []
    model = train([scene(0)], config(2, preview_every=1), run_folder=tmp_path, hooks=Hooks(on_preview=shown.append))
    assert (model.config.target, model.config.threshold) == ("hover", 0.5)
    assert model.config.diameter > 10
    assert shown[-1].threshold == 0.5
    assert 0 <= shown[-1].distance.min() < shown[-1].distance.max() <= 1


def test_it_may_start_from_a_model_of_flow_which_keeps_all_but_the_outputs() -> None:
    start = load_model("nuclei-fluo")
    shape = start.config.network
    weights = adapt_weights(start, shape, target="hover", seed=5)
    given = start.network.state_dict()
    same = {k for k in weights if np.array_equal(weights[k], given[k])}
    assert set(weights) - same == {"head.2.weight", "head.2.bias"}
    assert adapt_notes(start, shape) == ()
    assert adapt_notes(start, shape, target="hover") == (
        "the starting model gives flow: the outputs, hover, start from random weights",
    )


def test_annotation_without_any_whole_object_is_refused(tmp_path: Path) -> None:
    labels = np.full((64, 64), -1, np.int32)
    labels[:10], labels[30:40, 20:40] = 0, 1
    labels[30:40, 19] = 0
    image = TrainingImage(image=np.zeros((1, 64, 64), np.float32), labels=labels)
    with pytest.raises(InputError, match="no object that is annotated whole"):
        train([image], config(1), run_folder=tmp_path)
