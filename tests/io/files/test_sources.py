"""What a file says about its axes and sizes is kept; what it does not say, and what is left out, is noted."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import tifffile

from sketchscale.errors import InputError
from sketchscale.evaluation.truth import open_true_labels
from sketchscale.geometry import whole
from sketchscale.io.files.convert import ConvertConfig, conversion_notes, plan_convert
from sketchscale.io.files.sources import open_source, read_source
from tests.converted import convert

_GREY = {"photometric": "minisblack"}


def _pixels(*shape):
    return np.random.default_rng(3).integers(0, 250, shape).astype(np.uint8)


def test_pages_of_an_unknown_kind_are_sections_and_that_is_noted(tmp_path):
    values = _pixels(3, 20, 30)
    tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, **_GREY)
    source = open_source(tmp_path / "a.tif")
    assert source.axes == "czyx"
    (note,) = source.notes
    assert "3 pages are taken as sections" in note
    assert "--axes cyx makes them channels, tyx time points" in note
    for axes, wanted in (("cyx", "cyx"), ("tyx", "tcyx")):
        source = open_source(tmp_path / "a.tif", axes=axes)
        assert (source.axes, source.notes) == (wanted, ())
    tifffile.imwrite(tmp_path / "b.tif", values, imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "c.tif", values[0], **_GREY)
    assert open_source(tmp_path / "b.tif").notes == open_source(tmp_path / "c.tif").notes == ()


@pytest.mark.parametrize("unit", ["um", "\\u00b5m", "micron"])
def test_imagej_says_how_far_apart_sections_are(tmp_path, unit):
    metadata = {"axes": "ZYX", "spacing": 1.5, "unit": unit}
    tifffile.imwrite(tmp_path / "a.tif", _pixels(3, 20, 30), imagej=True, resolution=(4, 2), metadata=metadata)
    source = open_source(tmp_path / "a.tif")
    assert (source.spacing, source.depth, source.notes) == ((0.5, 0.25), 1.5, ())
    (image,) = convert(tmp_path / "a.tif", tmp_path / "a.zarr")
    assert image.volume().spacing == (1.5, 0.5, 0.25)
    assert image.metadata.levels[0].scale == (1.0, 1.5, 0.5, 0.25)
    assert {axis.name: axis.unit for axis in image.metadata.axes}["z"] == "micrometer"


def test_ome_says_it_too_in_any_unit(tmp_path):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5,
                "PhysicalSizeZ": 0.002, "PhysicalSizeZUnit": "mm"}  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", _pixels(3, 20, 30), ome=True, metadata=metadata, **_GREY)
    source = open_source(tmp_path / "a.ome.tif")
    assert source.spacing == (0.5, 0.5)
    assert source.depth == pytest.approx(2.0)


def test_a_resolution_is_a_pixel_size_where_it_can_be_one(tmp_path):
    values = _pixels(20, 30)
    tifffile.imwrite(tmp_path / "a.tif", values, resolution=(40000, 40000), resolutionunit="CENTIMETER")
    tifffile.imwrite(tmp_path / "b.tif", values, resolution=(300, 300), resolutionunit="INCH")
    tifffile.imwrite(tmp_path / "c.tif", values, resolution=(2**31, 2**31), resolutionunit="CENTIMETER")
    tifffile.imwrite(tmp_path / "d.tif", values, imagej=True, resolution=(72, 72), metadata={"unit": "pixel"})
    found = [open_source(tmp_path / f"{name}.tif") for name in "abcd"]
    assert [source.spacing for source in found] == [(0.25, 0.25), None, None, None]
    assert "0.25 um, is taken from the TIFF's resolution; --spacing corrects it" in found[0].notes[0]
    assert "is a printer's or a screen's" in found[1].notes[0]
    assert len(found[2].notes) == 1


def test_alpha_is_left_out_and_kept_when_its_axis_is_named(tmp_path):
    values = _pixels(20, 30, 4)
    PIL.Image.fromarray(values).save(tmp_path / "a.png")
    PIL.Image.fromarray(values[..., :2].copy(), mode="LA").save(tmp_path / "b.png")
    tifffile.imwrite(tmp_path / "c.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(
        tmp_path / "d.tif", values, photometric="rgb", extrasamples=["unassalpha"], tile=(16, 16), compression="zlib"
    )
    for name, count in (("a.png", 3), ("b.png", 1), ("c.tif", 3), ("d.tif", 3)):
        source = open_source(tmp_path / name)
        assert "its alpha channel is left out; --axes yxc keeps it" in source.notes, name
        np.testing.assert_array_equal(
            read_source(source, whole(source.shape)), np.moveaxis(values[..., :count], -1, 0), err_msg=name
        )
        kept = open_source(tmp_path / name, axes="yxc")
        assert (kept.notes, kept.shape[0]) == ((), 2 if name == "b.png" else 4)
        np.testing.assert_array_equal(
            read_source(kept, whole(kept.shape)), np.moveaxis(values[..., : kept.shape[0]], -1, 0), err_msg=name
        )
    with pytest.raises(InputError, match="2 planes"):
        open_true_labels(tmp_path / "b.png")


def test_what_options_say_is_not_asked_again(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", _pixels(3, 20, 30), metadata={"axes": "ZYX"}, **_GREY)

    def notes(**options):
        return conversion_notes(plan_convert(tmp_path / "a.tif", tmp_path / "a.zarr", ConvertConfig(**options)))

    assert [line.partition(": ")[0] for line in notes()] == ["a.tif"]
    assert "it gives no pixel size" in notes()[0]
    assert "--z-spacing" in notes(spacing=(0.5, 0.5))[0]
    assert notes(spacing=(0.5, 0.5), depth=2.0) == []
    (plan,) = plan_convert(tmp_path / "a.tif", tmp_path / "a.zarr", ConvertConfig(spacing=(0.5, 0.5), depth=2.0))
    assert (plan.source.spacing, plan.source.depth) == ((0.5, 0.5), 2.0)
    with pytest.raises(InputError, match="give --spacing as well"):
        notes(depth=2.0)
    with pytest.raises(InputError, match="no sections"):
        notes(spacing=(0.5, 0.5), depth=2.0, axes="cyx")
    with pytest.raises(InputError, match="more than 0"):
        ConvertConfig(depth=0.0)


def test_further_images_of_a_file_and_guessed_axes_are_noted(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(_pixels(20, 30), **_GREY)
        writer.write(_pixels(10, 10), **_GREY)
    assert "it holds 2 images; the first is converted" in open_source(tmp_path / "a.tif").notes
    np.save(tmp_path / "b.npy", _pixels(2, 20, 30))
    assert "taken as channels; --axes zyx makes it sections" in open_source(tmp_path / "b.npy").notes[0]
    assert open_source(tmp_path / "b.npy", axes="zyx").notes == ()


def test_a_plate_of_single_planes_is_named_once(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("A01_s1_w1", "A01_s1_w2", "A02_s1_w1", "notes"):
        PIL.Image.fromarray(_pixels(8, 8)).save(folder / f"{name}.png")
    size, plate = conversion_notes(plan_convert(folder, tmp_path / "out"))
    assert size.startswith("4 files (A01_s1_w1.png, A01_s1_w2.png ...): it gives no pixel size")
    assert plate.startswith("3 files (A01_s1_w1.png, A01_s1_w2.png ...): named like wells, sites and channels")
    assert "each becomes an image of its own" in plate
