"""Pictures of results: an image at a given contrast, and outlines as a separate layer.

A `Picture` has two layers of the same size: the image (lossy WebP) and the outlines (PNG, transparent elsewhere). The
page shows one above the other, so a reader can hide the outlines; nothing is drawn into the pixels.

Outlines lie inside their objects: pixels with a neighbour (sharing an edge) of another label. They are found after
enlarging, so a crop shows thin lines over a magnified image.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from sketchscale.annotations.sketch import RasterSketch
from sketchscale.errors import InputError
from sketchscale.geometry import Box

__all__ = [
    "PALETTE",
    "Picture",
    "choose_crops",
    "color_of",
    "flattened",
    "make_picture",
    "make_sketch_picture",
    "outline_layer",
    "outlines",
    "png_file",
    "sketch_layer",
    "to_rgb",
    "webp_file",
]

Rgb = npt.NDArray[np.uint8]

PALETTE = ("#17b890", "#f59f00", "#4c9bf5", "#f0629a", "#9775fa", "#9bc53d", "#fa5f55", "#8d99a6")
"""Class colours, in order of the classes; repeated past eight. Readable on black, on white and on purple stains."""

_CHANNEL_COLORS = ("#ffffff", "#ff4fd8", "#39e991", "#5aa9ff", "#ffd166")
_SKETCH_COLORS = {"background": "#4264d0", "foreground": "#f08c32", "boundary": "#2ee06a"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image with its outlines as files in memory.

    Attributes:
        image: WebP bytes.
        layer: PNG bytes with transparency of the same size, if any.
        width, height: px of both.
        title, caption: shown below; plain text.
    """

    image: bytes
    layer: bytes | None
    width: int
    height: int
    title: str = ""
    caption: str = ""


def color_of(index: int) -> str:
    """Return the colour of a class by its index."""
    return PALETTE[index % len(PALETTE)]


def _rgb(color: str) -> npt.NDArray[np.float32]:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


def to_rgb(image: npt.NDArray[Any], ranges: Sequence[tuple[float, float]]) -> Rgb:
    """Return intensities as a picture, uint8 (y, x, 3).

    Args:
        image: (c, y, x). One channel is grey, three are red, green and blue, others are summed in colours.
        ranges: (low, high) shown as black and full, one per channel; a channel with low == high is black.
    """
    if image.ndim != 3 or len(ranges) != image.shape[0]:
        raise InputError.of(
            found=f"an image of shape {image.shape} and {len(ranges)} ranges",
            expected="(c, y, x) and one range per channel",
            fix="pass the channels that belong to the ranges",
        )
    scaled = [_scaled(channel, low, high) for channel, (low, high) in zip(image, ranges, strict=True)]
    if len(scaled) == 3:
        return np.stack(scaled, axis=-1).astype(np.uint8)
    total = np.zeros((*image.shape[1:], 3), np.float32)
    for number, channel in enumerate(scaled):
        total += channel[..., None] * _rgb(_CHANNEL_COLORS[number % len(_CHANNEL_COLORS)]) / 255
    return np.minimum(total, 255).astype(np.uint8)


def _scaled(channel: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.float32]:
    if high <= low:
        return np.zeros(channel.shape, np.float32)
    scaled = np.clip((channel.astype(np.float32) - low) / (high - low), 0, 1)
    return np.asarray(scaled * 255, np.float32)


def outlines(labels: npt.NDArray[np.integer[Any]], line_px: int = 1) -> npt.NDArray[np.bool_]:
    """Return object pixels within `line_px` steps (4-neighbours) of another label, not of the array's border."""
    edge = np.zeros(labels.shape, np.bool_)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    if line_px > 1:
        edge = ndimage.binary_dilation(edge, iterations=line_px - 1)
    return edge & (labels > 0)


def outline_layer(
    labels: npt.NDArray[np.integer[Any]],
    class_of: Mapping[int, int] | None = None,
    line_px: int = 1,
    colors: Sequence[str] = PALETTE,
) -> Rgb:
    """Return outlines in the colour of each object's class, uint8 RGBA (y, x, 4), transparent elsewhere.

    Args:
        labels: (y, x).
        class_of: index of each object's class; None gives all the first one, and an object without a class is grey.
        line_px: see `outlines`. colors: "#rrggbb" of the classes, repeated past the last.
    """
    layer = np.zeros((*labels.shape, 4), np.uint8)
    edge = outlines(labels, line_px)
    found, inverse = np.unique(labels[edge], return_inverse=True)
    places = [0 if class_of is None else class_of.get(int(k), len(PALETTE) - 1) for k in found]
    shades = np.array([[*_rgb(colors[place % len(colors)]), 255] for place in places], np.uint8).reshape(-1, 4)
    layer[edge] = shades[inverse]
    return layer


def sketch_layer(raster: RasterSketch) -> Rgb:
    """Return a sketch as a translucent layer, uint8 RGBA (y, x, 4)."""
    layer = np.zeros((*raster.labels.shape, 4), np.uint8)
    for name, mask, alpha in (
        ("background", raster.labels == 0, 130),
        ("foreground", raster.labels > 0, 130),
        ("boundary", raster.boundary, 255),
    ):
        layer[mask] = [*_rgb(_SKETCH_COLORS[name]), alpha]
    return layer


def make_picture(
    rgb: Rgb,
    labels: npt.NDArray[np.integer[Any]] | None = None,
    *,
    class_of: Mapping[int, int] | None = None,
    width: int = 1400,
    title: str = "",
    caption: str = "",
    colors: Sequence[str] = PALETTE,
) -> Picture:
    """Return a picture of about `width` px: enlarged by integer factors up to 4, or shrunk.

    Args:
        rgb: uint8 (y, x, 3), see `to_rgb`.
        labels: (y, x) of the same size, or None for an image alone.
        class_of, colors: see `outline_layer`.
    """
    size, scale = _shown_size(rgb, width)
    layer = None
    if labels is not None:
        shown = labels[_enlarged(labels.shape, size)]
        layer = _png(outline_layer(shown, class_of, 3 if scale >= 2 else 1 + (scale == 1), colors))
    image = webp_file(_resized(rgb, size, scale))
    return Picture(image=image, layer=layer, width=size[0], height=size[1], title=title, caption=caption)


def make_sketch_picture(
    rgb: Rgb, raster: RasterSketch, *, width: int = 1400, title: str = "", caption: str = ""
) -> Picture:
    """Return a picture as `make_picture`, with a sketch of the same size above the image."""
    size, scale = _shown_size(rgb, width)
    at = _enlarged(raster.labels.shape, size)
    layer = _png(sketch_layer(RasterSketch(labels=raster.labels[at], boundary=raster.boundary[at])))
    image = webp_file(_resized(rgb, size, scale))
    return Picture(image=image, layer=layer, width=size[0], height=size[1], title=title, caption=caption)


def flattened(picture: Picture) -> bytes:
    """Return both layers as one PNG file, for `--out picture.png`."""
    with Image.open(io.BytesIO(picture.image)) as image:
        whole_picture = image.convert("RGBA")
    if picture.layer is not None:
        with Image.open(io.BytesIO(picture.layer)) as layer:
            whole_picture.alpha_composite(layer.convert("RGBA"))
    return png_file(whole_picture.convert("RGB"))


def _shown_size(rgb: Rgb, width: int) -> tuple[tuple[int, int], float]:
    """Return (width, height) of the picture, and its scale, an integer if above 1."""
    scale = min(4.0, width / max(1, rgb.shape[1]))
    scale = float(int(scale)) if scale > 1 else scale
    return (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))), scale


def _resized(rgb: Rgb, size: tuple[int, int], scale: float) -> Image.Image:
    return Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX)


def _enlarged(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[npt.NDArray[np.intp], ...]:
    """Return the index that scales an array of `shape` to a picture of `size` (width, height) by the nearest pixel."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(size[::-1], shape, strict=True))
    return np.ix_(rows, columns)


def webp_file(image: Image.Image, quality: int = 82) -> bytes:
    """Return the bytes of a WebP file."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def png_file(image: Image.Image) -> bytes:
    """Return the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _png(layer: Rgb) -> bytes:
    """Return a PNG with a palette: outlines have few colours, so it has a tenth of the size of RGBA."""
    colors, index = np.unique(layer.reshape(-1, 4), axis=0, return_inverse=True)
    image = Image.fromarray(index.reshape(layer.shape[:2]).astype(np.uint8))
    image.putpalette(colors.astype(np.uint8).tobytes(), "RGBA")
    return png_file(image)


def choose_crops(
    centroids: npt.NDArray[np.floating[Any]], shape: tuple[int, int], *, size: int = 160, n: int = 6, seed: int = 0
) -> tuple[Box, ...]:
    """Return up to n square boxes around random objects, without overlap; they depend on the seed alone.

    Args:
        centroids: (n, 2), y and x; may be empty.
        shape: (y, x) of the image; boxes are moved inside, and cut if the image is smaller.
        size: of the boxes, px.
    """
    boxes: list[Box] = []
    for i in np.random.default_rng(seed).permutation(len(centroids)):
        start = [int(min(max(0, c - size / 2), max(0, m - size))) for c, m in zip(centroids[i], shape, strict=True)]
        box = Box((start[0], start[1]), (start[0] + size, start[1] + size)).clip(shape)
        if len(boxes) < n and not any(box.intersect(other).size for other in boxes):
            boxes.append(box)
    return tuple(boxes)
