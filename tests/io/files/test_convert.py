"""Conversion: same pixels at any layout, lazily, resumable after a kill anywhere, one line for whatever is wrong."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.engine.base import Event
from sketchscale.errors import BudgetError, InputError, MissingDataError, OutputExistsError, ResumeError
from sketchscale.evaluation.truth import open_true_labels
from sketchscale.geometry import Box, whole
from sketchscale.io.files.convert import ConvertConfig, plan_convert
from sketchscale.io.files.sources import open_source, read_source
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.label_sources import read_labels, source_shape
from sketchscale.io.ome_zarr.planes import count_absent, read_plane
from tests.converted import convert
from tests.oracles.io_pyramid import halve_mean_slow

_RNG = np.random.default_rng(11)


def _pixels(*shape, dtype=np.uint8):
    return _RNG.integers(0, 250, shape).astype(dtype)


def _level(image, level=0):
    plane = image.plane(level)
    return read_plane(plane, whole(plane.shape))


_GREY = {"photometric": "minisblack"}
_LAYOUTS = {
    "contiguous": {},
    "tiles": {"tile": (32, 48), "compression": "zlib"},
    "strips": {"rowsperstrip": 7, "compression": "zlib"},
    "one strip": {"compression": "zlib", "predictor": True},
    "big endian": {"byteorder": ">", "tile": (16, 16)},
    "bigtiff": {"bigtiff": True, "rowsperstrip": 16},
}


@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize("kind", ["grey", "rgb", "planar", "channels"])
def test_every_layout_of_a_tiff_gives_the_same_pixels(tmp_path, layout, kind):
    values = _pixels(3, 75, 101, dtype=np.uint16)
    path, options = tmp_path / "a.tif", _LAYOUTS[layout]
    if kind == "grey":
        values = values[:1]
        tifffile.imwrite(path, values[0], **_GREY, **options)
    elif kind == "rgb":
        tifffile.imwrite(path, np.moveaxis(values, 0, -1).copy(), photometric="rgb", **options)
    elif kind == "planar":
        tifffile.imwrite(path, values, photometric="rgb", planarconfig="separate", **options)
    else:
        tifffile.imwrite(path, values, metadata={"axes": "CYX"}, **_GREY, **options)
    source = open_source(path)
    assert source.shape == values.shape
    np.testing.assert_array_equal(read_source(source, whole(source.shape)), values)
    box = Box((0, 30, 47), (source.shape[0], 33, 99))
    np.testing.assert_array_equal(read_source(source, box), values[box.slices])


@settings(max_examples=12, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    chunk=st.integers(1, 20),
    shards=st.sampled_from([None, 1, 2, 3]),
    block=st.integers(1, 40),
    samples=st.sampled_from([1, 3]),
    compressed=st.booleans(),
)
def test_the_image_does_not_depend_on_chunks_shards_and_blocks(
    tmp_path_factory, shape, chunk, shards, block, samples, compressed
):
    folder = tmp_path_factory.mktemp("any")
    values = _pixels(samples, *shape)
    stored = values[0] if samples == 1 else np.moveaxis(values, 0, -1)
    options = {"compression": "zlib", "rowsperstrip": 5} if compressed else {}
    tifffile.imwrite(folder / "a.tif", stored, photometric="rgb" if samples == 3 else "minisblack", **options)
    config = ConvertConfig(chunk=chunk, shard=None if shards is None else shards * chunk, block=block, levels=2)
    (image,) = convert(folder / "a.tif", folder / "a.zarr", config=config)
    np.testing.assert_array_equal(_level(image), values)
    np.testing.assert_array_equal(_level(image, 1), np.stack([halve_mean_slow(plane) for plane in values]))


def test_names_spacing_and_slices_come_from_the_file(tmp_path):
    metadata = {"axes": "ZCYX", "PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25,
                "PhysicalSizeYUnit": "µm", "Channel": {"Name": ["dna", "actin"]}}  # fmt: skip
    values = _pixels(3, 2, 40, 50)
    tifffile.imwrite(tmp_path / "a.ome.tif", values, ome=True, metadata=metadata, **_GREY)
    (image,) = convert(tmp_path / "a.ome.tif", tmp_path / "a.zarr")
    plane = image.plane(z=2)
    assert (plane.channels, plane.spacing, plane.unit) == (("dna", "actin"), (0.25, 0.5), "micrometer")
    np.testing.assert_array_equal(read_plane(plane, whole(plane.shape)), values[2])
    tifffile.imwrite(tmp_path / "b.tif", values[0, 0], imagej=True, resolution=(2, 4), metadata={"unit": "um"})
    assert open_source(tmp_path / "b.tif").spacing == (0.25, 0.5)
    tifffile.imwrite(tmp_path / "c.tif", values[0, 0], resolution=(300, 300), resolutionunit="INCH")
    assert open_source(tmp_path / "c.tif").spacing is None
    config = ConvertConfig(spacing=(2, 3), channels=("one",), version="0.4")
    (image,) = convert(tmp_path / "c.tif", tmp_path / "c.zarr", config=config)
    assert (image.metadata.version, image.plane().spacing, image.channels) == ("0.4", (2.0, 3.0), ("one",))


def test_a_pyramidal_tiff_gives_its_finest_level(tmp_path):
    values = _pixels(64, 80)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(values, subifds=1, tile=(32, 32))
        writer.write(values[::2, ::2], tile=(32, 32), subfiletype=1)
    source = open_source(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_source(source, whole(source.shape))[0], values)


def test_a_folder_of_png_jpeg_and_npy_becomes_one_image_each(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rgb = _pixels(30, 40, 3)
    PIL.Image.fromarray(rgb).save(folder / "a.png")
    PIL.Image.fromarray(rgb[..., 0].astype(np.uint16) * 200).save(folder / "b.png")
    PIL.Image.fromarray(rgb).save(folder / "c.jpg", quality=90)
    np.save(folder / "d.npy", rgb.astype(np.float32))
    (folder / "notes.txt").write_text("not an image")
    images = convert(folder, tmp_path / "out")
    assert [Path(i.store).name for i in images] == ["a.zarr", "b.zarr", "c.zarr", "d.zarr"]
    np.testing.assert_array_equal(_level(images[0]), np.moveaxis(rgb, -1, 0))
    assert images[0].channels == ("red", "green", "blue")
    np.testing.assert_array_equal(_level(images[1])[0], rgb[..., 0].astype(np.uint16) * 200)
    with PIL.Image.open(folder / "c.jpg") as jpeg:
        np.testing.assert_array_equal(_level(images[2]), np.moveaxis(np.asarray(jpeg), -1, 0))
    np.testing.assert_array_equal(_level(images[3]), np.moveaxis(rgb, -1, 0).astype(np.float32))
    np.save(folder / "a.npy", rgb)
    with pytest.raises(InputError, match=r"two files named like 'a.zarr'"):
        plan_convert(folder, tmp_path / "again")


def test_memory_is_that_of_a_block_and_not_of_the_file(tmp_path):
    size = 4096
    big = tifffile.memmap(tmp_path / "a.tif", shape=(size, size), dtype=np.uint8, photometric="minisblack")
    big[::64] = 7
    big.flush()
    del big
    config = ConvertConfig(chunk=256, block=512, levels=1)
    (plan,) = plan_convert(tmp_path / "a.tif", tmp_path / "a.zarr", config)
    assert plan.pixels.task_bytes < size * size / 8
    tracemalloc.start()
    convert(tmp_path / "a.tif", tmp_path / "a.zarr", config=config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size * size / 3
    with pytest.raises(BudgetError, match="smaller --block"):
        convert(tmp_path / "a.tif", tmp_path / "b.zarr", config=config, memory_gb=1e-6)


def _tree(folder):
    """Every file but those that say which process ran."""
    files = (p for p in sorted(Path(folder).rglob("*")) if p.is_file() and p.parent.name != "owner")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def _die_before_operation(number, folder):
    """From here on this process counts its changes of files below a folder, and dies in place of one of them."""
    import sys

    left = [number]

    def watch(event, arguments):
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if (writes or event in {"os.rename", "os.link", "os.remove", "os.mkdir"}) and folder in str(arguments[0]):
            left[0] -= 1
            if left[0] == 0:
                os._exit(137)

    sys.addaudithook(watch)


def _run_killed(number, folder, action):
    """Whether the child was killed at that operation (False: it finished first)."""
    child = os.fork()
    if child == 0:
        try:
            _die_before_operation(number, folder)
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 137)
    return code == 137


@pytest.mark.parametrize(("version", "step"), [("0.4", 5), ("0.5", 7), pytest.param("0.5", 1, marks=pytest.mark.slow)])
def test_killed_at_any_operation_and_resumed_gives_the_same_bytes(tmp_path, version, step):
    """Every operation, or every so many."""
    np.save(tmp_path / "a.npy", _pixels(2, 5))
    config = ConvertConfig(chunk=2, block=4, levels=1, version=version)
    convert(tmp_path / "a.npy", tmp_path / "whole.zarr", config=config)
    expected = _tree(tmp_path / "whole.zarr")
    number = 0
    while True:
        number += step
        target = tmp_path / f"killed-{number}.zarr"

        def action(target=target):
            convert(tmp_path / "a.npy", target, config=config)

        if not _run_killed(number, str(target), action):
            break
        if target.exists():
            _check_unfinished(target)
        convert(tmp_path / "a.npy", target, config=config, resume=True)
        assert _tree(target) == expected, f"killed at operation {number}"
    assert number > 50  # so many points at which it was killed


def _check_unfinished(target):
    """Whatever is there is not an image, or is a whole one."""
    try:
        image = open_image(target)
    except InputError:
        return
    assert [count_absent(image.plane(level)) for level in range(len(image.shapes))] == [0] * len(image.shapes)


def test_threads_write_the_same_bytes_as_one_after_the_other(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", _pixels(60, 70, 3), photometric="rgb", tile=(16, 16), compression="zlib")
    config = ConvertConfig(chunk=8, block=16, levels=3)
    convert(tmp_path / "a.tif", tmp_path / "serial.zarr", config=config)
    convert(tmp_path / "a.tif", tmp_path / "threads.zarr", config=config, engine="threads", workers=3)
    assert _tree(tmp_path / "serial.zarr") == _tree(tmp_path / "threads.zarr")


def test_resume_skips_what_is_done_and_refuses_what_changed(tmp_path):
    np.save(tmp_path / "a.npy", _pixels(40, 40))
    config = ConvertConfig(chunk=10, block=20, levels=1)
    events: list[Event] = []
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "a.npy", tmp_path / "a.zarr", config=config, on_event=_stop_after(2))
    with pytest.raises(OutputExistsError, match="--resume"):
        convert(tmp_path / "a.npy", tmp_path / "a.zarr", config=config)
    with pytest.raises(ResumeError, match="config"):
        convert(tmp_path / "a.npy", tmp_path / "a.zarr", resume=True)
    convert(tmp_path / "a.npy", tmp_path / "a.zarr", config=config, resume=True, on_event=events.append)
    assert sum(event.kind == "done" for event in events) == 2
    np.save(tmp_path / "a.npy", _pixels(40, 40))
    with pytest.raises(ResumeError, match="source"):
        convert(tmp_path / "a.npy", tmp_path / "a.zarr", config=config, resume=True)
    (image,) = convert(tmp_path / "a.npy", tmp_path / "a.zarr", config=config, overwrite=True)
    np.testing.assert_array_equal(_level(image)[0], np.load(tmp_path / "a.npy"))


def _stop_after(count):
    done = []

    def on_event(event):
        done.extend([event] * (event.kind == "done"))
        if len(done) == count:
            raise KeyboardInterrupt

    return on_event


def test_what_is_not_ours_is_never_replaced(tmp_path):
    np.save(tmp_path / "a.npy", _pixels(4, 4))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    for target in ("mine", "mine/letter.txt"):
        with pytest.raises(OutputExistsError):
            convert(tmp_path / "a.npy", tmp_path / target, overwrite=True)
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"


def _tiff_with_size(width, height, following=0):
    """A TIFF of one strip that claims to be so large; `following` is where the next page should be."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, 4)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<I", 12) + b"data" + struct.pack("<H", len(tags))
    return head + entries + struct.pack("<I", following)


def test_a_tiff_whose_pages_run_in_a_circle_ends(tmp_path):
    (tmp_path / "loop.tif").write_bytes(_tiff_with_size(2, 2, following=12))
    source = open_source(tmp_path / "loop.tif")
    assert read_source(source, whole(source.shape)).tobytes() == b"data"


def _damaged_files(folder):
    values = _pixels(90, 90)
    tifffile.imwrite(folder / "good.tif", values, tile=(32, 32), compression="zlib")
    tifffile.imwrite(folder / "ome.tif", values, ome=True)
    PIL.Image.fromarray(values).save(folder / "good.png")
    np.save(folder / "good.npy", values)
    good = {name: (folder / name).read_bytes() for name in ("good.tif", "ome.tif", "good.png", "good.npy")}
    for name in good:
        (folder / name).unlink()
    ome = good["ome.tif"]
    yield "empty.tif", b""
    yield "noise.tif", bytes(range(256)) * 4
    yield "huge.tif", _tiff_with_size(2**31, 2**31)
    yield "wide.tif", _tiff_with_size(2**20, 2**20)
    yield "cut.tif", good["good.tif"][: len(good["good.tif"]) // 2]
    yield "xml.tif", ome.replace(b"</Pixels>", b"</Pixelz>")
    yield (
        "bomb.tif",
        ome.replace(b'<?xml version="1.0" encoding="UTF-8"?>', b'<!DOCTYPE a [<!ENTITY b "ccccc">]>'.ljust(38)),
    )
    yield "empty.png", b""
    yield "cut.png", good["good.png"][:-200]
    yield "cut.npy", good["good.npy"][:-10]
    yield (
        "pickle.npy",
        b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (1,)}".ljust(128) + b"cos\n.",
    )
    yield "claim.npy", good["good.npy"].replace(b"(90, 90)", b"(9**9,9)")
    yield (
        "large.npy",
        good["good.npy"].replace(b"(90, 90), ", b"(1000000000, 1000000000), "[:26]).replace(b"    ", b"", 4),
    )
    yield "text.csv", b"1,2"


def test_damaged_files_are_one_line_and_leave_nothing_that_reads_as_an_image(tmp_path):
    (tmp_path / "in").mkdir()
    for name, data in list(_damaged_files(tmp_path / "in")):
        (tmp_path / "in" / name).write_bytes(data)
        target = tmp_path / f"{name}.zarr"
        with pytest.raises(InputError) as caught:
            convert(tmp_path / "in" / name, target)
        assert "\n" not in str(caught.value), name
        assert name in str(caught.value)
        assert not (target / "zarr.json").exists() or b"multiscales" not in (target / "zarr.json").read_bytes()
    with pytest.raises(MissingDataError, match="does not exist"):
        convert(tmp_path / "nothing.tif", tmp_path / "x.zarr")


def test_any_byte_of_a_tiff_may_change_and_still_there_is_one_kind_of_error(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", _pixels(40, 40), tile=(16, 16), compression="zlib", ome=True)
    good = (tmp_path / "a.tif").read_bytes()
    rng = np.random.default_rng(5)
    messages = []
    for _ in range(150):
        bad = bytearray(good)
        for position in rng.integers(0, len(good), int(rng.integers(1, 4))):
            bad[position] = int(rng.integers(256))
        (tmp_path / "a.tif").write_bytes(bytes(bad))
        try:
            source = open_source(tmp_path / "a.tif")
            if np.prod(source.shape) < 10**6:
                read_source(source, whole(source.shape))
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert not [message for message in messages if "\n" in message]


def test_true_labels_are_read_box_by_box_from_any_source(tmp_path):
    ids = _pixels(70, 50, dtype=np.uint16)
    box = Box((10, 20), (61, 33))
    tifffile.imwrite(tmp_path / "a.tif", ids, tile=(16, 16), compression="zlib")
    PIL.Image.fromarray(ids).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", ids.astype(np.int32))
    convert(tmp_path / "a.npy", tmp_path / "a.zarr")
    for name in ("a.tif", "a.png", "a.npy", "a.zarr"):
        truth = open_true_labels(tmp_path / name)
        assert source_shape(truth) == (70, 50)
        np.testing.assert_array_equal(read_labels(truth, box), ids[box.slices])
    palette = PIL.Image.fromarray(ids.astype(np.uint8)).convert("P")
    palette.save(tmp_path / "p.png")
    truth = open_true_labels(tmp_path / "p.png")
    np.testing.assert_array_equal(read_labels(truth, box), np.asarray(palette)[box.slices])
    np.save(tmp_path / "f.npy", ids.astype(np.float32))
    with pytest.raises(InputError, match="whole numbers"):
        open_true_labels(tmp_path / "f.npy")
    np.save(tmp_path / "n.npy", -ids.astype(np.int32))
    with pytest.raises(InputError, match="0 and above"):
        read_labels(open_true_labels(tmp_path / "n.npy"), box)
    with pytest.raises(MissingDataError):
        open_true_labels(tmp_path / "none.zarr/labels/x")
