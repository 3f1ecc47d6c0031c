"""Fields of volumes: any blocks give the whole, and the whole is what plain loops over planes give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.config import VolumeOptions
from sketchscale.errors import InputError
from sketchscale.geometry import tile_cover, whole
from sketchscale.intensity import array_ranges
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.checkpoint import Model, ModelConfig, load_model, save_model
from sketchscale.prediction.predictor import Recipe, load_network, run_tiles
from sketchscale.prediction.volume import blend_volume, plan_tasks, run_part, tiles_shape, volume_grids, write_box_of
from sketchscale.prediction.voxels import VoxelGrid, blend_voxels, fit_grid, pad_voxels
from sketchscale.workflow.volume import predict_volume_array
from tests.pipeline import draw_volume


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    tile=st.sampled_from([16, 24, 32]),
    overlap=st.integers(0, 8),
    block=st.integers(3, 40),
)
def test_blended_tiles_of_one_image_are_that_image_at_any_block(shape, tile, overlap, block):
    """Tiles cut from an image, blended: weights sum to one; and blocks are equal to the bit."""
    grid = fit_grid(shape, tile, overlap, 8)
    image = np.random.default_rng(0).random(tuple(n + 64 for n in shape)).astype(np.float32)

    def read(position, part):
        box = part.relative_to(tuple(-a for a in grid.box(position).start))
        return image[box.slices][None] * np.float32(1 + position)

    whole_box = blend_voxels(grid, whole(shape), read)
    for piece in tile_cover(shape, (block,) * len(shape)):
        assert np.array_equal(blend_voxels(grid, piece.write, read), whole_box[(slice(None), *piece.write.slices)])
    alone = blend_voxels(grid, whole(shape), lambda p, part: read(p, part) / (1 + p))
    np.testing.assert_allclose(alone[0], image[tuple(slice(0, n) for n in shape)], rtol=1e-5)


def test_every_voxel_is_covered_and_tiles_fit_the_network():
    grid = fit_grid((5, 100, 40), 32, 8, 8)
    assert grid.tile == (16, 32, 32)
    covered = np.zeros((5, 100, 40), int)
    for position in range(len(grid)):
        covered[grid.box(position).clip(grid.shape).slices] += 1
    assert covered.min() == 1
    assert all(set(grid.covering(t.write)) for t in tile_cover(grid.shape, (4, 7, 9)))
    with pytest.raises(InputError, match="multiple of 8"):
        fit_grid((5, 5), 30, 8, 8)
    with pytest.raises(InputError, match="half a tile"):
        VoxelGrid(shape=(5,), tile=(16,), overlap=(9,))
    assert pad_voxels(np.arange(3)[None], (7,)).tolist() == [[0, 1, 2, 2, 1, 0, 0]]


def small(folder: Path, *, dim: int = 2, channels: int = 1) -> tuple[str, Model]:
    shape = NetworkConfig(widths=(4, 8), dim=dim, outputs=dim + 1, channels=channels)  # type: ignore[arg-type]
    config = ModelConfig(network=shape, threshold=0.0, min_size=8, tile=32, overlap=8)
    save_model(folder, create_network(shape, seed=3).eval(), config, {})
    return str(folder), load_model(folder)


def planes_of(volume: npt.NDArray, ratio: float) -> npt.NDArray[np.float64]:
    """(c, z, y, x) stretched along z: every output is the mean of two neighbours by distance, from plain loops."""
    count = max(1, int(np.floor(volume.shape[1] * ratio + 0.5)))
    out = np.zeros((volume.shape[0], count, *volume.shape[2:]))
    for j in range(count):
        centre, half = (j + 0.5) / ratio - 0.5, max(1.0, 1 / ratio)
        weight = np.array([max(0.0, 1 - abs(i - centre) / half) for i in range(volume.shape[1])])
        out[:, j] = np.tensordot(weight / weight.sum(), volume, axes=(0, 1))
    return out


def by_plain_loops(volume: npt.NDArray, model: Model, ranges, ratio: float) -> npt.NDArray[np.float64]:
    """Fields of every plane by itself, brought back and averaged; tiles blended by dividing by the sum of weights."""
    z = volume.shape[1]
    parts: dict[str, list[npt.NDArray]] = {"z": [], "y": [], "x": [], "d": []}
    for kind in ("yx", "zx", "zy"):
        stretched = planes_of(volume, ratio) if kind[0] == "z" else volume.astype(float)
        across = ({"z", "y", "x"} - set(kind)).pop()
        axis = 1 + "zyx".index(across)
        planes = [plane_fields(np.take(stretched, i, axis=axis), model, ranges) for i in range(volume.shape[axis])]
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


def plane_fields(plane: npt.NDArray, model: Model, ranges) -> npt.NDArray[np.float64]:
    grid = fit_grid(plane.shape[1:], model.config.tile, model.config.overlap, 2)
    total, weights = np.zeros((3, *plane.shape[1:])), np.zeros(plane.shape[1:])
    for position in range(len(grid)):
        box = grid.box(position)
        pixels = pad_voxels(plane[(slice(None), *box.clip(grid.shape).slices)], grid.tile).astype(np.float32)
        fields = run_tiles(model, Recipe(), [pixels], ranges)[0].astype(float)
        ramp = np.ones(grid.tile)
        for axis, (i, n, t, o) in enumerate(zip(grid.index(position), grid.counts, grid.tile, grid.overlap)):  # noqa: B905
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
def test_orthogonal_planes_are_what_plain_loops_over_planes_give(tmp_path: Path, ratio: float):
    folder, model = small(tmp_path)
    volume = draw_volume((9, 36, 12))[None]
    fields = predict_volume_array(volume, model, VolumeOptions(model=folder, anisotropy=ratio))
    ranges = array_ranges(volume, low=1.0, high=99.8)
    expected = by_plain_loops(volume, load_network(folder, model.sha256, Recipe()), ranges, ratio)
    assert fields.shape == (4, 9, 36, 12)
    np.testing.assert_allclose(fields.astype(float), expected, atol=4e-3, rtol=4e-3)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_any_block_of_the_fields_is_that_block_of_the_whole(tmp_path: Path, dim: int, batch: int):
    folder, model = small(tmp_path, dim=dim, channels=2)
    volume = np.stack([draw_volume((18, 36, 12), seed) for seed in (0, 1)])
    recipe, shape = Recipe(batch=batch), volume.shape[1:]
    network = load_network(folder, model.sha256, recipe)
    grids = volume_grids(shape, network, tile=32, overlap=8, ratio=1.7)
    tiles = [np.full(size, np.nan, np.float16) for size, _ in tiles_shape(grids)]
    for task in plan_tasks(grids, batch):
        part = run_part(task, grids, network, recipe, ((0, 255), (0, 99)), lambda b: volume[(slice(None), *b.slices)])
        array, box = write_box_of(task, part.shape)
        assert np.isnan(tiles[array][box.slices]).all()
        tiles[array][box.slices] = part.reshape(box.shape)
    assert all(np.isfinite(tile).all() for tile in tiles)
    together = blend_volume(grids, whole(shape), lambda array, box: tiles[array][box.slices][0])
    for piece in tile_cover(shape, (11, 17, 7)):
        alone = blend_volume(grids, piece.write, lambda array, box: tiles[array][box.slices][0])
        assert np.array_equal(alone, together[(slice(None), *piece.write.slices)])


def test_a_network_of_three_dimensions_sees_the_volume_in_3d_tiles(tmp_path: Path):
    folder, model = small(tmp_path, dim=3)
    volume = draw_volume((20, 30, 32))[None]
    fields = predict_volume_array(volume, model, VolumeOptions(model=folder))
    ((low, high),) = array_ranges(volume, low=1.0, high=99.8)
    padded = pad_voxels((volume - low) / (high - low), (20, 30, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = model.network(torch.from_numpy(padded)[None])[0].numpy()
    np.testing.assert_allclose(fields, expected, atol=4e-3, rtol=4e-3)
    with pytest.raises(InputError, match="flips"):
        predict_volume_array(volume, model, VolumeOptions(model=folder, flips=4))


def test_turning_the_volume_turns_the_fields(tmp_path: Path):
    folder, model = small(tmp_path)
    volume = draw_volume((16, 16, 16))
    options = VolumeOptions(model=folder)
    fields = predict_volume_array(volume[None], model, options).astype(float)
    turned = predict_volume_array(volume.transpose(1, 0, 2)[None], model, options).astype(float)
    # zx and yx planes change places, so flow x is the same; zy planes are transposed, which a network sees differently
    back = turned[[1, 0, 2, 3]].transpose(0, 2, 1, 3)
    np.testing.assert_allclose(back[2], fields[2], atol=2e-3)
    assert not np.allclose(fields[0], fields[1], atol=0.05)


def test_ratios_out_of_range_are_refused(tmp_path: Path):
    folder, model = small(tmp_path)
    for ratio in (0.01, 30.0, float("nan")):
        with pytest.raises(InputError, match="anisotropy"):
            volume_grids((8, 8, 8), model, tile=32, overlap=8, ratio=ratio)
    wrong = replace(VolumeOptions(model=folder), rescale=2.0)
    with pytest.raises(InputError, match="leave out --rescale"):
        predict_volume_array(np.zeros((1, 8, 8, 8), np.uint8), model, wrong)
