"""Every scheme that fsspec knows is read without a prefix: stores, patterns and image files. Nothing is written so."""

from __future__ import annotations

import io
import shutil
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import PIL.Image
import pytest
import tifffile
from fsspec.implementations.memory import MemoryFileSystem

import sketchscale
from sketchscale.errors import InputError, MissingDataError, OutputError, SetupError, UnknownNameError
from sketchscale.evaluation.truth import open_true_labels
from sketchscale.geometry import whole
from sketchscale.io.files.convert import plan_convert
from sketchscale.io.files.patterns import matches
from sketchscale.io.files.sources import open_source, read_source, source_identity
from sketchscale.io.ome_zarr.arrays import read_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.plate import image_addresses
from sketchscale.io.stores import local_copies as fetched
from sketchscale.io.stores.addresses import join_address, open_store
from sketchscale.io.stores.blobs import list_blobs, put_blob
from tests.converted import convert
from tests.pipeline import draw_nuclei, store_image

_PIXELS = draw_nuclei((50, 40))


class DrawerFileSystem(MemoryFileSystem):
    """A file system that another package registers with fsspec."""

    protocol = "drawer"
    store: dict = {}  # noqa: RUF012  as fsspec's own
    pseudo_dirs = [""]  # noqa: RUF012


@pytest.fixture
def drawer() -> Iterator[str]:
    fsspec.register_implementation("drawer", DrawerFileSystem, clobber=True)
    yield f"drawer://{uuid.uuid4().hex}"
    DrawerFileSystem.store.clear()


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A folder with an image a.zarr, its zip, and files of pixels."""
    store_image(tmp_path / "in" / "a.zarr", _PIXELS, chunk=16)
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "in")
    (tmp_path / "a.zip").rename(tmp_path / "in" / "a.zip")
    tifffile.imwrite(tmp_path / "in" / "one.ome.tif", _PIXELS, tile=(16, 16))
    PIL.Image.fromarray(_PIXELS[:30]).save(tmp_path / "in" / "two.png")
    np.save(tmp_path / "in" / "three.npy", _PIXELS[:20].astype(np.uint16))
    (tmp_path / "in" / "notes.txt").write_text("no image")
    return tmp_path / "in"


def put(folder: Path, address: str) -> str:
    fsspec.filesystem(address.partition("://")[0]).put(f"{folder}/", f"{address}/", recursive=True)
    return address


def test_a_store_of_any_scheme_is_read_and_says_that_it_cannot_be_written(drawer: str, stored: Path) -> None:
    put(stored, drawer)
    in_memory = put(stored, f"memory://{uuid.uuid4().hex}")
    for address in (
        f"{drawer}/a.zarr",
        f"{in_memory}/a.zarr",
        f"fsspec+{in_memory}/a.zarr",
        f"simplecache::{drawer}/a.zarr",
        f"zip://a.zarr::{drawer}/a.zip",
        f"zip://a.zarr::{stored}/a.zip",
    ):
        image = open_image(address)
        assert image.address == address
        np.testing.assert_array_equal(read_box(image.array(), whole((50, 40))), _PIXELS)
        np.testing.assert_array_equal(sketchscale.open(address).values, _PIXELS)
        with pytest.raises(OutputError, match=r"is read only: .*expected: a folder, s3://, gs:// or az://") as refused:
            put_blob(address, "a", b"")
        assert "\n" not in str(refused.value)
    assert list_blobs(f"{drawer}/a.zarr", "")[-1] == "zarr.json"
    with pytest.raises(MissingDataError, match="does not exist"):
        open_image(f"{drawer}/b.zarr")


def test_images_inside_a_chain_have_addresses_that_open_them(drawer: str, tmp_path: Path) -> None:
    put_blob(str(tmp_path / "in" / "all.zarr"), "zarr.json", _collection())
    for name in ("0", "1"):
        store_image(tmp_path / "in" / "all.zarr" / name, _PIXELS, chunk=16)
    shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "in")
    fsspec.filesystem("drawer").put(str(tmp_path / "all.zip"), f"{drawer}/all.zip")
    chain = f"zip://all.zarr::{drawer}/all.zip"
    assert image_addresses(chain) == (f"zip://all.zarr/0::{drawer}/all.zip", f"zip://all.zarr/1::{drawer}/all.zip")
    assert matches(f"zip://*.zarr/[01]::{drawer}/all.zip") == list(image_addresses(chain))
    assert [open_image(address).shapes[0] for address in image_addresses(chain)] == [(50, 40)] * 2
    assert join_address(f"zip://::{drawer}/all.zip", "a") == f"zip://a::{drawer}/all.zip"


def _collection() -> bytes:
    ome = '{"version": "0.5", "bioformats2raw.layout": 3}'
    return f'{{"zarr_format": 3, "node_type": "group", "attributes": {{"ome": {ome}}}}}'.encode()


def test_a_pattern_stands_for_what_matches_it(drawer: str, stored: Path) -> None:
    put(stored, drawer)
    assert matches(f"{drawer}/*.zarr") == [f"{drawer}/a.zarr"]
    assert matches(f"{drawer}/t*.*") == [f"{drawer}/three.npy", f"{drawer}/two.png"]
    assert matches(f"{drawer}/a.zarr") == [f"{drawer}/a.zarr"]
    with pytest.raises(MissingDataError, match="matches nothing"):
        matches(f"{drawer}/*.tiff")


@pytest.mark.parametrize("where", ["drawer", "zip"])
def test_files_folders_and_patterns_of_any_scheme_are_converted(
    where: str, drawer: str, stored: Path, tmp_path: Path
) -> None:
    shutil.rmtree(stored / "a.zarr")
    (stored / "a.zip").unlink()
    put(stored, drawer)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in stored.iterdir():
            archive.write(path, path.name)
    fsspec.filesystem("drawer").pipe(f"{drawer}/all.zip", buffer.getvalue())
    head, tail = (f"{drawer}/", "") if where == "drawer" else ("zip://", f"::{drawer}/all.zip")
    convert(f"{head}one.ome.tif{tail}", tmp_path / "one.zarr")
    np.testing.assert_array_equal(sketchscale.open(tmp_path / "one.zarr").values[0], _PIXELS)
    folder = f"{head.rstrip('/') if where == 'drawer' else head}{tail}"
    names = [Path(image.address).name for image in convert(folder, tmp_path / "all")]
    assert names == ["one.zarr", "three.zarr", "two.zarr"]
    np.testing.assert_array_equal(sketchscale.open(tmp_path / "all" / "three.zarr").values[0], _PIXELS[:20])
    assert [c.dst for c in plan_convert(f"{head}t*{tail}", tmp_path / "t")] == [
        f"{tmp_path}/t/three.zarr",
        f"{tmp_path}/t/two.zarr",
    ]


def test_local_patterns_are_converted_too(stored: Path, tmp_path: Path) -> None:
    assert [c.source.path for c in plan_convert(f"{stored}/t*", tmp_path / "t")] == [
        f"{stored}/three.npy",
        f"{stored}/two.png",
    ]


def test_a_file_is_copied_once_and_again_when_it_was_written_since(
    drawer: str, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{put(stored, drawer)}/three.npy"
    written: list[str] = []
    write = fetched._write
    monkeypatch.setattr(fetched, "_write", lambda *given: (written.append(given[1]), write(*given)))
    source = open_source(address)
    assert (source.path, source.shape) == (address, (1, 20, 40))
    box = whole(source.shape)
    first, identity = read_source(source, box), source_identity(address)
    np.testing.assert_array_equal(read_source(open_source(address), box), first)
    assert (written, source_identity(address)) == (["three.npy"], identity)
    with fsspec.open(address, "wb") as file:
        np.save(file, np.zeros((20, 40), np.uint16))
    assert read_source(open_source(address), box).max() == 0
    assert written == ["three.npy"] * 2
    assert source_identity(address) != identity
    with fsspec.open(address, "wb") as file:
        file.write(b"torn")
    with pytest.raises(InputError, match="not readable") as error:
        open_source(address)
    assert str(error.value).startswith(f"{address}: not readable")


def test_a_file_is_copied_in_pieces(drawer: str, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched, "_PART_BYTES", 100)
    source = open_source(f"{put(stored, drawer)}/one.ome.tif")
    np.testing.assert_array_equal(read_source(source, whole(source.shape))[0], _PIXELS)


def test_a_true_label_image_may_be_at_any_address(drawer: str, tmp_path: Path) -> None:
    labels = (_PIXELS // 64).astype(np.uint8)
    PIL.Image.fromarray(labels).convert("P").save(tmp_path / "truth.png")
    fsspec.filesystem("drawer").put(str(tmp_path / "truth.png"), f"{drawer}/truth.png")
    truth = open_true_labels(f"{drawer}/truth.png")
    assert truth.shape == (50, 40)
    np.testing.assert_array_equal(truth.read(whole((50, 40))), PIL.Image.open(tmp_path / "truth.png"))


def test_files_in_object_storage_are_read_too(s3: str, stored: Path) -> None:
    put_blob(f"{s3}/pixels", "one.ome.tif", (stored / "one.ome.tif").read_bytes())
    (found,) = plan_convert(f"{s3}/pixels", "out")
    assert (found.source.path, found.dst) == (f"{s3}/pixels/one.ome.tif", "out/one.zarr")
    np.testing.assert_array_equal(read_source(found.source, whole(found.source.shape))[0], _PIXELS)


@pytest.mark.parametrize(
    ("address", "kind", "says"),
    [
        ("drapbox://a/b.zarr", UnknownNameError, "unknown address scheme.*'drapbox'"),
        ("file:///a/b.zarr", UnknownNameError, "unknown address scheme.*'file'"),
        ("dropbox://a/b.zarr", SetupError, "needs a package that is not installed; to fix: .*dropbox"),
        ("ftp://me:secret@host/b.zarr", InputError, "ftp:// with a password"),
        ("zip://a::memory://nothing-here.zip", MissingDataError, "does not exist"),
    ],
)
def test_what_cannot_be_opened_is_one_line(address: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        open_store(address)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(drawer: str) -> None:
    with pytest.raises(MissingDataError, match=r"a\.tif does not exist"):
        open_source(f"{drawer}/a.tif")
    with pytest.raises(InputError, match="no image files"):
        plan_convert(drawer, "out")
