"""Segmenting with a model that gives h/v maps: the same bytes for any blocks, engine and kill, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sketchscale.cli import run
from sketchscale.config import Execution, SegmentOptions
from sketchscale.errors import InputError
from sketchscale.inference.backend import mean_over_flips
from sketchscale.integration.watershed.config import WatershedConfig
from sketchscale.networks.checkpoint import ModelConfig, load_model, save_model
from sketchscale.networks.export import save_peer
from sketchscale.workflow.segment.arrays import fields_of_array, segment_array
from sketchscale.workflow.segment.job import integration_config
from sketchscale.workflow.segment.segment import plan_segment, segment
from sketchscale.workflow.train.calibrate import calibrate
from sketchscale.workflow.train.where_next import NextOptions, where_next
from sketchscale.workflow.verify import verify
from tests.pipeline import draw_nuclei, draw_volume, store_image, volume_options
from tests.workflow.segment.test_segment import bytes_of, segmented, stored


@pytest.fixture(scope="session")
def hover(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The random weights of the other tests as a model of h/v maps; two fifths of a drawn image foreground."""
    folder, given = str(tmp_path_factory.mktemp("hover") / "model"), load_model(model)
    with torch.no_grad():
        given.network.head[2].weight[:2] *= 6  # so that v and h reach from -1 to 1
    config = replace(given.config, target="hover", threshold=0.5, diameter=9.0, min_size=6)
    save_model(folder, given.network, config, given.provenance)
    m = fields_of_array(draw_nuclei((130, 200))[None], load_model(folder), SegmentOptions(model=folder))[2]
    threshold = round(float(np.quantile(m.astype(np.float64), 0.6)), 4)
    save_model(folder, given.network, replace(config, threshold=threshold), given.provenance)
    return folder


@pytest.mark.parametrize(
    "execution",
    [
        Execution(engine="serial", block=128),
        Execution(engine="serial", block=4096),
        Execution(engine="threads", workers=3, block=192),
        pytest.param(Execution(engine="processes", workers=2, block=128), marks=pytest.mark.slow),
    ],
    ids=lambda e: f"{e.engine}-{e.block}",
)
def test_blocks_engines_and_workers_do_not_change_a_byte(image: str, hover: str, execution: Execution) -> None:
    result = segment(image, SegmentOptions(model=hover), execution)
    expected = segment_array(draw_nuclei((200, 330)), SegmentOptions(model=hover))
    np.testing.assert_array_equal(stored(image), expected)
    assert result.n == expected.max() > 20
    assert result.audit.windows == 8
    assert all(check["ok"] for check in verify(image))


@pytest.mark.parametrize(
    "given",
    [{"rescale": 0.75, "flips": 4}, {"diameter": 7.0, "flips": 8, "fill_holes": 0.5}, {"max_size": 90, "min_size": 0}],
    ids=str,
)
def test_every_option_gives_the_labels_of_the_whole_image(tmp_path: Path, hover: str, given: dict[str, Any]) -> None:
    options, pixels = SegmentOptions(model=hover, **given), draw_nuclei((130, 200), seed=4)
    address = store_image(tmp_path / "image.zarr", pixels)
    planned = [line.stage for line in plan_segment(address, options, Execution(block=64))]
    result = segment(address, options, Execution(block=64))
    expected = segment_array(pixels, options)
    np.testing.assert_array_equal(stored(address), expected)
    assert result.n == expected.max() > 3
    assert set(planned) <= {line.stage for line in result.stages}
    assert not np.array_equal(expected, segment_array(pixels, SegmentOptions(model=hover)))


@pytest.mark.slow
def test_killed_on_the_way_and_resumed_the_bytes_are_the_same(tmp_path: Path, hover: str) -> None:
    pristine = Path(store_image(tmp_path / "image.zarr", draw_nuclei((130, 200))))
    whole_run, killed = tmp_path / "whole.zarr", tmp_path / "killed.zarr"
    for copy in (whole_run, killed):
        shutil.copytree(pristine, copy, copy_function=shutil.copy2)
    segment(str(whole_run), SegmentOptions(model=hover), Execution(engine="serial", block=128))
    result = segmented(killed, hover, 85)
    assert result.returncode == -9, result.stderr
    assert list(killed.rglob("outline*"))  # some blocks of that step are done
    result = segmented(killed, hover)
    assert result.returncode == 0, result.stderr
    assert bytes_of(killed / "labels") == bytes_of(whole_run / "labels")
    assert not list(killed.rglob("scratch"))


@pytest.mark.parametrize("flips", [4, 8])
def test_mirrored_copies_agree_where_the_network_is_even_handed(hover: str, flips: int) -> None:
    """A network that answers v and h of a mirrored image mirrored: the mean is its own answer."""

    def ideal(batch: torch.Tensor) -> torch.Tensor:
        seen = batch[:, :1]
        across = torch.cat([seen[..., 1:], seen[..., -1:]], 3) - torch.cat([seen[..., :1], seen[..., :-1]], 3)
        down = torch.cat([seen[:, :, 1:], seen[:, :, -1:]], 2) - torch.cat([seen[:, :, :1], seen[:, :, :-1]], 2)
        return load_model(hover).fields(torch.cat([down, across, seen], 1))

    batch = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean_over_flips(ideal, batch, flips), ideal(batch), rtol=1e-5, atol=1e-6)


def test_fields_are_maps_and_a_probability_at_any_scale(hover: str) -> None:
    pixels, model = draw_nuclei((70, 90))[None], load_model(hover)
    for given in ({}, {"rescale": 0.5}, {"rescale": 2.0}):
        fields = fields_of_array(pixels, model, SegmentOptions(model=hover, **given))
        assert np.abs(fields[:2]).max() <= 1
        assert 0 <= fields[2].min() < fields[2].max() <= 1
        assert integration_config(model, SegmentOptions(model=hover, **given)).threshold == model.config.threshold


def test_the_window_follows_the_diameter_in_pixels_of_the_image(hover: str) -> None:
    model = load_model(hover)
    model = replace(model, config=replace(model.config, diameter=25.0))
    for scale, window in ((1.0, 17), (2.0, 9), (0.6, 29)):
        rule = integration_config(model, SegmentOptions(model=hover, rescale=scale))
        assert isinstance(rule, WatershedConfig)
        assert rule.window == window


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"flow_error": 0.4}, "--flow-error 0.4 with model .* gives h/v maps"),
        ({"method": "euler"}, "--method euler"),
        ({"steps": 100}, "--steps 100"),
        ({"prominence": 0.5}, "--prominence"),
        ({"threshold": -2.0}, "threshold is -2.0; expected: a probability"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"min_size": 9, "max_size": 8}, "max_size"),
    ],
)
def test_options_without_meaning_are_refused_before_anything_is_written(
    image: str, hover: str, given: dict[str, Any], expected: str
) -> None:
    before = bytes_of(Path(image))
    with pytest.raises(InputError, match=expected):
        segment(image, SegmentOptions(model=hover, **given))
    assert bytes_of(Path(image)) == before


def test_what_reads_flow_refuses_such_a_model_in_one_line(image: str, hover: str, tmp_path: Path) -> None:
    model = load_model(hover)
    with pytest.raises(InputError, match="gives h/v maps; expected: flow, for where-next"):
        where_next([image], NextOptions(segment=SegmentOptions(model=hover)))
    with pytest.raises(InputError, match="h/v maps, for 3 axes; expected: flow"):
        segment_array(draw_volume((3, 40, 40)), volume_options(model=hover))
    with pytest.raises(InputError, match="target hover; expected: flow and distance"):
        save_peer(model, tmp_path / "peer", kind="omnipose")
    assert calibrate(model, []) is model


def test_models_of_before_give_flow_and_senseless_ones_are_refused(model: str, hover: str) -> None:
    assert load_model("nuclei-fluo").config.target == "flow"
    assert load_model(model).config.target == "flow"
    assert load_model(hover).config.target == "hover"
    for wrong in ({}, {"threshold": 0.0}, {"threshold": 1.5}):
        with pytest.raises(InputError, match="h/v maps with threshold"):
            ModelConfig(target="hover", **wrong)


def test_the_command_simply_works_and_the_report_too(image: str, hover: str, tmp_path: Path) -> None:
    assert run(["segment", image, "--model", hover, "--threshold", "0.5", "--block", "128", "--engine", "serial"]) == 0
    assert run(["measure", image]) == 0
    assert run(["report", image, "--out", str(tmp_path / "report.html")]) == 0
    assert run(["verify", image]) == 0
    assert run(["segment", image, "--model", hover, "--flow-error", "1", "--overwrite"]) == 2
