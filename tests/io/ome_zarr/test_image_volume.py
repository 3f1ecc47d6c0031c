"""Volumes of images: what is read, label volumes beside them, and the depth of their pyramid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sketchscale.engine import open_engine
from sketchscale.engine.base import run_plan
from sketchscale.errors import InputError
from sketchscale.geometry import Box, whole
from sketchscale.intensity import channel_ranges
from sketchscale.io.ome_zarr.arrays import read_box, write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_image, commit_labels, create_image, create_labels
from sketchscale.io.ome_zarr.planes import count_absent, read_plane
from sketchscale.io.ome_zarr.pyramid import plan_level

SHAPE = (2, 3, 9, 20, 300)


@pytest.fixture
def image(tmp_path: Path) -> str:
    """Axes tczyx, two levels, 2 x 0.5 x 0.5 um; the pixel's own index as its value."""
    address = str(tmp_path / "image.zarr")
    levels = create_image(
        address,
        SHAPE,
        "tczyx",
        "uint32",
        (1, 1, 4, 16, 128),
        spacing=(0.5, 0.5),
        depth=2.0,
        unit="micrometer",
        levels=2,
    )
    values = np.arange(np.prod(SHAPE), dtype=np.uint32).reshape(SHAPE)
    write_box(levels[0], whole(SHAPE), values)
    write_box(levels[1], whole((2, 3, 9, 10, 150)), values[..., ::2, ::2])
    commit_image(address)
    return address


def test_a_box_of_a_volume_is_read_with_the_channels_asked_for(image: str) -> None:
    volume = open_image(image).volume(t=1)
    values = np.arange(np.prod(SHAPE), dtype=np.uint32).reshape(SHAPE)
    assert (volume.shape, volume.spacing, volume.unit, volume.chunks) == (
        (9, 20, 300),
        (2.0, 0.5, 0.5),
        "micrometer",
        (4, 16, 128),
    )
    box = Box((3, 2, 100), (8, 19, 260))
    assert np.array_equal(read_plane(volume, box), values[1][(slice(None), *box.slices)])
    assert np.array_equal(read_plane(volume, box, [2, 0]), values[1, [2, 0]][(slice(None), *box.slices)])
    assert open_image(image).volume(level=1, t=0).shape == (9, 10, 150)
    assert count_absent(volume) == 0
    with pytest.raises(InputError, match="leave"):
        read_plane(volume, Box((0, 0, 0), (10, 2, 2)))


def test_volumes_need_a_depth_and_a_time(tmp_path: Path, image: str) -> None:
    with pytest.raises(InputError, match="choose with --t"):
        open_image(image).volume()
    create_image(str(tmp_path / "flat.zarr"), (3, 8, 8), "cyx", "uint8", (1, 8, 8))
    flat = commit_image(str(tmp_path / "flat.zarr"))
    with pytest.raises(InputError, match="axes that end with zyx"):
        flat.volume()
    create_image(str(tmp_path / "deep.zarr"), (3, 8, 8), "zyx", "uint8", (1, 8, 8), spacing=(2, 2), unit="micrometer")
    deep = commit_image(str(tmp_path / "deep.zarr")).volume()
    assert (deep.unit, deep.spacing, count_absent(deep)) == ("pixel", (1.0, 1.0, 1.0), 3)
    with pytest.raises(InputError, match="no t axis"):
        open_image(str(tmp_path / "deep.zarr")).volume(t=1)


def test_ranges_of_a_volume_are_those_of_all_its_voxels(image: str) -> None:
    volume = open_image(image).volume(t=0)
    found = channel_ranges(lambda p: run_plan(p, open_engine("serial")), volume, (5, 16, 99), [1], low=1, high=98)
    values = read_plane(volume, whole(volume.shape), [1])
    assert found == ((np.percentile(values, 1), np.percentile(values, 98)),)


def test_label_volumes_keep_depth_and_place_on_all_levels(image: str) -> None:
    opened = open_image(image)
    levels = create_labels(opened, "cells", chunks=(4, 16, 64))
    labels = np.random.default_rng(0).integers(0, 9, (9, 20, 300)).astype(np.uint32)
    write_box(levels[0], whole(labels.shape), labels)
    plan = plan_level(levels[0], levels[1], "nearest", block=64)
    assert all(task.write.shape[0] <= 4 for task in plan.tasks)
    assert len(plan.tasks) > 2
    run_plan(plan, open_engine("serial"))
    commit_labels(opened, "cells")
    stored = open_image(image).label_image("cells")
    assert stored.metadata.order == "zyx"
    assert [level.scale for level in stored.metadata.levels] == [(2.0, 0.5, 0.5), (2.0, 1.0, 1.0)]
    assert [axis.unit for axis in stored.metadata.axes] == ["micrometer"] * 3
    assert np.array_equal(read_box(stored.array(1), whole((9, 10, 150))), labels[:, ::2, ::2])
