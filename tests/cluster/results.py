"""The stored objects of a result, byte by byte: what has to be the same whatever ran it."""

from __future__ import annotations

from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.stores.blobs import get_blob, list_blobs


def results_of(image: str) -> dict[str, bytes]:
    """Labels, their pyramid, tables and all metadata below an image, by key; the image's own pixels are left out.

    Records of runs are no part of a result: they name blocks and scratch, which may differ. The identity
    of the input, which is made of the times or tags that its store gives, is masked where provenance tells it.
    """
    keys = [key for group in ("labels", "tables") for key in list_blobs(image, group)]
    identity = open_image(image).identity().encode()
    return {key: (get_blob(image, key) or b"").replace(identity, b"(input)") for key in keys}
