"""Views of planes and volumes at any scale: blocks give the whole, and the whole is what plain loops give."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sketchscale.config import SegmentOptions
from sketchscale.errors import InputError
from sketchscale.geometry import Box, tile_cover, whole
from sketchscale.inference.backend import Recipe, TorchBackend, load_backend, run_tiles
from sketchscale.inference.grid import pad_tile
from sketchscale.inference.plan import predict_array
from sketchscale.inference.resample import axis_taps, resampled
from sketchscale.inference.views import View, fields_of_box, views_of
from sketchscale.intensity import array_ranges
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.checkpoint import Model, ModelConfig, load_model, save_model
from sketchscale.workflow.segment.arrays import fields_of_array
from tests.pipeline import draw_nuclei, draw_volume, volume_options


def small(*, dim: int = 2, channels: int = 1) -> Model:
    shape = NetworkConfig(widths=(4, 8), dim=dim, outputs=dim + 1, channels=channels)  # type: ignore[arg-type]
    config = ModelConfig(network=shape, threshold=0.0, min_size=8, tile=32, overlap=8)
    return Model(network=create_network(shape, seed=3).eval(), config=config, provenance={})


def stored(folder: Path, **shape: int) -> tuple[str, Model]:
    model = small(**shape)
    save_model(folder, model.network, model.config, {})
    return str(folder), load_model(folder)


PLANE, SPACE = (36, 44), (18, 36, 12)
CASES = [(2, PLANE), (2, SPACE), (3, SPACE)]


def pixels_of(shape: tuple[int, ...], channels: int = 2) -> npt.NDArray[np.uint8]:
    draw = draw_nuclei if len(shape) == 2 else draw_volume
    return np.stack([draw(shape, seed) for seed in range(channels)])  # type: ignore[arg-type]


@pytest.mark.parametrize(("dim", "shape"), CASES)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("zoom", "ratio"), [(1.0, 1.0), (1.0, 1.7), (0.7, 1.0), (1.3, 0.6)])
def test_any_block_of_the_fields_is_that_block_of_the_whole(
    dim: int, shape: tuple[int, ...], batch: int, zoom: float, ratio: float
) -> None:
    model, pixels = small(dim=dim, channels=2), pixels_of(shape)
    views = views_of(shape, model, zoom=zoom, anisotropy=ratio)
    backend, ranges = TorchBackend(model=model, recipe=Recipe(batch=batch)), ((0.0, 255.0), (0.0, 99.0))
    tiles = [np.full(view.tiles_shape, np.nan, np.float16) for view in views]
    for number, view in enumerate(views):
        for task in view.tasks(number, batch):
            found = run_tiles(backend, view.tiles(task, lambda b: pixels[(slice(None), *b.slices)]), ranges)
            place = task.box(view.tiles_shape).slices
            assert np.isnan(tiles[number][place]).all()
            tiles[number][place] = found.reshape(task.positions, task.planes, *found.shape[1:]).swapaxes(1, 2)
    assert all(np.isfinite(tile).all() for tile in tiles)

    def fields(box: Box) -> npt.NDArray[np.float32]:
        return fields_of_box(views, box, lambda view, part: tiles[view][part.slices][0])

    together = fields(whole(shape))
    for piece in tile_cover(shape, (11, 17, 7)[-len(shape) :]):
        assert np.array_equal(fields(piece.write), together[(slice(None), *piece.write.slices)])
    assert np.array_equal(predict_array(pixels, backend, views, ranges), together.astype(np.float16))


def test_tiles_that_nobody_needs_are_not_run() -> None:
    model, pixels = small(), pixels_of((90, 90), 1)
    where = np.zeros((90, 90), bool)
    where[80:, 80:] = True
    backend, views = TorchBackend(model=model, recipe=Recipe()), views_of((90, 90), model)
    everything = predict_array(pixels, backend, views, ((0.0, 255.0),))
    needed = predict_array(pixels, backend, views, ((0.0, 255.0),), where=where)
    assert np.array_equal(needed[:, where], everything[:, where])
    assert not needed[:, :40, :40].any()


# ---- volumes by planes, against plain loops


def planes_of(volume: npt.NDArray, ratio: float) -> npt.NDArray[np.float64]:
    """(c, z, y, x) stretched along z: every output is the mean of two neighbours by distance, from plain loops."""
    count = max(1, int(np.floor(volume.shape[1] * ratio + 0.5)))
    out = np.zeros((volume.shape[0], count, *volume.shape[2:]))
    for j in range(count):
        centre, half = (j + 0.5) / ratio - 0.5, max(1.0, 1 / ratio)
        weight = np.array([max(0.0, 1 - abs(i - centre) / half) for i in range(volume.shape[1])])
        out[:, j] = np.tensordot(weight / weight.sum(), volume, axes=(0, 1))
    return out


def by_plain_loops(volume: npt.NDArray, backend: TorchBackend, ranges, ratio: float) -> npt.NDArray[np.float64]:
    """Fields of every plane by itself, brought back and averaged."""
    z = volume.shape[1]
    parts: dict[str, list[npt.NDArray]] = {"z": [], "y": [], "x": [], "d": []}
    for kind in ("yx", "zx", "zy"):
        stretched = planes_of(volume, ratio) if kind[0] == "z" else volume.astype(float)
        across = ({"z", "y", "x"} - set(kind)).pop()
        axis = 1 + "zyx".index(across)
        planes = [plane_fields(np.take(stretched, i, axis=axis), backend, ranges) for i in range(volume.shape[axis])]
        fields = np.stack(planes, axis=axis)
        if kind[0] == "z" and ratio != 1:
            back = np.zeros((3, z, *fields.shape[2:]))
            for k in range(z):
                centre = (k + 0.5) * ratio - 0.5
                weight = np.array([max(0.0, 1 - abs(j - centre)) for j in range(fields.shape[1])])
                back[:, k] = np.tensordot(weight / weight.sum(), fields, axes=(0, 1))
            fields = back
            fields[0] /= ratio
        for name, channel in zip((*kind, "d"), fields, strict=True):
            parts[name].append(channel)
    return np.stack([np.mean(parts[name], axis=0) for name in "zyxd"])


def plane_fields(plane: npt.NDArray, backend: TorchBackend, ranges) -> npt.NDArray[np.float64]:
    """Tiles blended by dividing by the sum of weights."""
    (view,) = views_of(plane.shape[1:], backend.model, short=True)
    grid = view.grid
    total, weights = np.zeros((3, *plane.shape[1:])), np.zeros(plane.shape[1:])
    for position in range(len(grid)):
        box = grid.box(position)
        pixels = pad_tile(plane[(slice(None), *box.clip(grid.shape).slices)], grid.tile).astype(np.float32)
        fields = run_tiles(backend, [pixels], ranges)[0].astype(float)
        ramp = np.ones(grid.tile)
        sizes = zip(grid.index(position), grid.counts, grid.tile, grid.overlap, strict=True)
        for axis, (i, n, t, o) in enumerate(sizes):
            edge = np.ones(t)
            if i > 0:
                edge[:o] = (np.arange(o) + 0.5) / o
            if i < n - 1:
                edge[t - o :] = 1 - (np.arange(o) + 0.5) / o
            ramp = ramp * np.expand_dims(edge, 1 - axis)
        here = box.clip(grid.shape)
        size = tuple(slice(0, n) for n in here.shape)
        total[(slice(None), *here.slices)] += (fields * ramp)[(slice(None), *size)]
        weights[here.slices] += ramp[size]
    return total / weights


@pytest.mark.parametrize("ratio", [1.0, 2.5, 0.6])
def test_orthogonal_planes_are_what_plain_loops_over_planes_give(tmp_path: Path, ratio: float) -> None:
    folder, model = stored(tmp_path)
    volume = draw_volume((9, 36, 12))[None]
    fields = fields_of_array(volume, model, volume_options(model=folder, anisotropy=ratio))
    ranges = array_ranges(volume, low=1.0, high=99.8)
    expected = by_plain_loops(volume, load_backend(folder, model.sha256, Recipe()), ranges, ratio)
    assert fields.shape == (4, 9, 36, 12)
    np.testing.assert_allclose(fields.astype(float), expected, atol=4e-3, rtol=4e-3)
    assert np.abs(expected).max() > 0.1


def test_a_network_of_three_dimensions_sees_the_volume_in_3d_tiles(tmp_path: Path) -> None:
    folder, model = stored(tmp_path, dim=3)
    volume = draw_volume((20, 30, 32))[None]
    fields = fields_of_array(volume, model, volume_options(model=folder))
    ((low, high),) = array_ranges(volume, low=1.0, high=99.8)
    padded = pad_tile((volume - low) / (high - low), (20, 30, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = model.network(torch.from_numpy(padded)[None])[0].numpy()
    np.testing.assert_allclose(fields, expected, atol=4e-3, rtol=4e-3)


def test_turning_the_volume_turns_the_fields(tmp_path: Path) -> None:
    folder, model = stored(tmp_path)
    volume = draw_volume((16, 16, 16))
    options = volume_options(model=folder)
    fields = fields_of_array(volume[None], model, options).astype(float)
    turned = fields_of_array(volume.transpose(1, 0, 2)[None], model, options).astype(float)
    # zx and yx planes change places, so flow x is the same; zy planes are transposed, which a network sees differently
    back = turned[[1, 0, 2, 3]].transpose(0, 2, 1, 3)
    np.testing.assert_allclose(back[2], fields[2], atol=2e-3)
    assert not np.allclose(fields[0], fields[1], atol=0.05)


# ---- scale


class Scaled:
    """A view whose tile is the whole scaled plane: what is between it and the image is resampling alone."""

    def __init__(self, shape: tuple[int, ...], zoom: float, *, lengths: bool = True) -> None:
        model = small(dim=len(shape))
        model = replace(model, config=replace(model.config, tile=4096, overlap=0))
        (view,) = views_of(shape, model, zoom=zoom)
        self.view: View = replace(view, lengths=lengths)

    def pixels(self, values: npt.NDArray) -> npt.NDArray:
        (task,) = self.view.tasks(0, 1)
        (tile,) = self.view.tiles(task, lambda box: values[(slice(None), *box.slices)])
        return tile[(slice(None), *map(slice, self.view.grid.shape))]

    def fields(self, scaled: npt.NDArray) -> npt.NDArray[np.float32]:
        return self.view.fields(
            whole(self.view.shape), lambda box: scaled[:, None][(slice(None), slice(None), *box.slices[3:])]
        )


def by_loops(values: npt.NDArray, shape: tuple[int, ...], step: float, half_width: float) -> npt.NDArray[np.float64]:
    """Every output a weighted mean over all inputs, axis by axis."""
    for axis, m in enumerate(shape, start=1):
        n = values.shape[axis]
        matrix = np.zeros((m, n))
        for i, j in itertools.product(range(m), range(n)):
            matrix[i, j] = max(0.0, 1 - abs(j - ((i + 0.5) * step - 0.5)) / half_width)
        values = np.moveaxis(np.tensordot(matrix / matrix.sum(axis=1, keepdims=True), values, axes=(1, axis)), 0, axis)
    return values


@settings(max_examples=30, deadline=None)
@given(
    shape=st.one_of(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 9)] * 3)),
    zoom=st.one_of(st.sampled_from((0.5, 0.75, 1.3, 2.0)), st.floats(0.1, 4)),
    seed=st.integers(0, 99),
)
def test_both_ways_are_the_means_that_loops_give(shape: tuple[int, ...], zoom: float, seed: int) -> None:
    scaled, rng = Scaled(shape, zoom), np.random.default_rng(seed)
    pixels = rng.normal(size=(1, *shape)).astype(np.float32)
    inner = scaled.view.grid.shape
    expected = pixels if zoom == 1 else by_loops(pixels, inner, 1 / zoom, max(1, 1 / zoom))
    np.testing.assert_allclose(scaled.pixels(pixels), expected, atol=1e-5)
    fields = rng.normal(size=(len(shape) + 1, *inner)).astype(np.float32)
    expected = fields if zoom == 1 else by_loops(fields, shape, zoom, 1.0)
    expected[-1] /= zoom
    np.testing.assert_allclose(scaled.fields(fields), expected, atol=1e-4)


@pytest.mark.parametrize("zoom", [0.25, 0.5, 0.75, 1.5, 2.0])
def test_pixels_are_those_of_torchs_antialiased_resizing(zoom: float) -> None:
    pixels = np.random.default_rng(0).normal(size=(1, 40, 56)).astype(np.float32)
    scaled = Scaled((40, 56), zoom)
    resized = functional.interpolate(
        torch.from_numpy(pixels)[None], size=scaled.view.grid.shape, mode="bilinear", antialias=True
    )[0].numpy()
    np.testing.assert_allclose(scaled.pixels(pixels), resized, atol=1e-4)


def test_scale_one_passes_pixels_on_as_they_are() -> None:
    assert Scaled((4, 5), 1.0).pixels(np.arange(20, dtype=np.uint8).reshape(1, 4, 5)).dtype == np.uint8


def test_a_probability_is_not_a_length() -> None:
    scaled = Scaled((8, 8), 2.0, lengths=False)
    assert scaled.fields(np.ones((3, 16, 16), np.float32))[-1].max() == pytest.approx(1)


def test_a_large_offset_of_a_wide_type_does_not_eat_the_signal() -> None:
    pixels = np.array([[2**30, 2**30 + 4]], np.int64)
    found = resampled(pixels, [None, axis_taps(0, 4, 0.5, 1.0, 2)])
    np.testing.assert_array_equal(found[0] - 2**30, [0, 1, 3, 4])


@pytest.mark.parametrize("scale", [0.0, -1.0, 0.01, 21.0, float("nan"), float("inf")])
def test_scales_out_of_range_are_refused(scale: float) -> None:
    for option in ("zoom", "anisotropy"):
        with pytest.raises(InputError, match="--rescale" if option == "zoom" else "--anisotropy"):
            views_of((10, 10, 10), small(), **{option: scale})


def test_a_network_of_three_axes_does_not_see_a_plane(tmp_path: Path) -> None:
    folder, model = stored(tmp_path, dim=3)
    with pytest.raises(InputError, match="of 3 dimensions"):
        fields_of_array(pixels_of(PLANE, 1), model, SegmentOptions(model=folder))
