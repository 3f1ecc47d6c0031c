"""The metadata that we write is what the writers of ome-zarr write."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import zarr
from ome_zarr.format import format_from_version
from zarr.storage import MemoryStore

from sketchscale.errors import InputError
from sketchscale.io.ome_zarr.metadata import Axis, ImageMetadata, Level, Version, ome_attributes
from sketchscale.io.ome_zarr.new_metadata import image_document

with warnings.catch_warnings():  # of its own deprecated classes
    warnings.simplefilter("ignore")
    from ome_zarr.writer import add_metadata, get_metadata, write_multiscales_metadata

LEVELS = (
    Level(path="0", scale=(1.0, 0.5, 0.5), translation=(0.0, 0.0, 0.0)),
    Level(path="1", scale=(1.0, 1.0, 1.0), translation=(0.0, 0.25, 0.25)),
)


def metadata(version: Version, axes: str = "cyx") -> ImageMetadata:
    named = tuple(Axis(name=name, kind="", unit="micrometer" if name in "yx" else "") for name in axes)
    return ImageMetadata(version=version, axes=named, levels=LEVELS, name="a.tif", channels=("DNA", "actin"))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_is_described_as_by_the_writer_of_ome_zarr(version: Version) -> None:
    ours = ome_attributes(image_document(metadata(version), "uint8", "a.zarr"), "a.zarr")
    group = zarr.open_group(MemoryStore(), mode="w", zarr_format=format_from_version(version).zarr_format)
    write_multiscales_metadata(
        group,
        ours["multiscales"][0]["datasets"],
        axes=list("cyx"),
        axes_units={"y": "micrometer", "x": "micrometer"},
        name="a.tif",
        metadata={"omero": ours["omero"]},
    )
    add_metadata(group, {"multiscales": [{**get_metadata(group)["multiscales"][0], "type": "mean"}]})
    assert ours == get_metadata(group)


def test_axes_that_the_format_does_not_allow_are_refused() -> None:
    with pytest.raises(InputError, match=r"a\.zarr.*channel"):
        image_document(metadata("0.5", axes="ccx"), "uint8", "a.zarr")
    with pytest.raises(InputError, match=r"a\.zarr.*scale"):
        image_document(metadata("0.5", axes="yx"), "uint8", "a.zarr")


def test_who_only_reads_does_not_wait_for_ome_zarr() -> None:
    modules = "sketchscale.workflow.segment.segment, sketchscale.io.ome_zarr.new_images"
    program = f"import sys, {modules}; assert 'ome_zarr' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
