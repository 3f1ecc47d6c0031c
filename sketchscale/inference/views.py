"""The views of a network over an image: a network of d axes, an image of as many axes or one more.

    plane, network of two axes      yx                   one view
    volume, network of three        zyx                  one view
    volume, network of two          yx  zx  zy           three views, each plane by plane across the third axis; each
                                                         component is averaged over the views that contain it

    yx  (one plane per z)   flow y, flow x, distance ─┐    flow z = (zx + zy) / 2      distance = (yx + zx + zy) / 3
    zx  (one plane per y)   flow z, flow x, distance ─┼─▶  flow y = (yx + zy) / 2
    zy  (one plane per x)   flow z, flow y, distance ─┘    flow x = (yx + zx) / 2

**Scale.** A view may have another scale than the image (`zoom`: network pixels per image pixel), and where sections are
`anisotropy` times as far apart as pixels, zx and zy planes are stretched along z by that ratio. Tiles and their grid
belong to the scaled view; resample.py brings the fields back to the image's grid. Distance is divided by the zoom, and
stays in px of y and x; flow along z is divided by the ratio, because integration steps in voxels. A network of three
axes is used as trained, without stretching.

Everything depends on the image, the model, the recipe and the ratio only, not on blocks or tasks.

Source: averaging over orthogonal planes as in Cellpose (Stringer et al. 2021); fixed grids and taps: ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.geometry import Box, tile_cover
from sketchscale.inference.grid import TileGrid, blend_box, pad_tile, shortened, tile_grid
from sketchscale.inference.resample import Taps, axis_taps, resampled, scaled_length
from sketchscale.networks.checkpoint import Model

__all__ = ["SLAB", "ReadPixels", "ReadTile", "TileTask", "View", "fields_of_box", "views_of"]

Float32 = npt.NDArray[np.float32]
ReadPixels = Callable[[Box], npt.NDArray[Any]]
"""Pixels (c, ...) of a box of the image."""
ReadTile = Callable[[int, Box], npt.NDArray[np.floating]]
"""(view, box): raw fields of one place, from an array of `View.tiles_shape`, without the first axis."""

SLAB = 16
"""Planes of a task, so that a chunk of the image that is 16 deep is decoded once for all of them."""
_PART = 1024
"""Side of the part that is interpolated at once, px of the scaled view; bounds the memory of a block."""
_NAMES = {2: "yx", 3: "zyx"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TileTask:
    """Consecutive tiles of a view, run in one task: places of the grid, or one place in consecutive planes."""

    view: int
    name: str
    position: int
    positions: int
    plane: int
    planes: int

    @property
    def key(self) -> str:
        """Name in the ledger."""
        return f"{self.name}-{self.position:08d}-{self.plane:06d}"

    def box(self, shape: Sequence[int]) -> Box:
        """Return the box of the view's tiles that its fields (place, channel, plane, *tile) fill."""
        start = (self.position, 0, self.plane, *(0,) * (len(shape) - 3))
        return Box(start, (self.position + self.positions, shape[1], self.plane + self.planes, *shape[3:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One view.

    Attributes:
        shape: of the image, (y, x) or (z, y, x).
        axes: of a tile, as axes of the image.
        zoom: network pixels per image pixel.
        stretch: further factor along each of `axes`.
        lengths: whether the last field is a distance, which has to be scaled back, or a probability.
        grid: of tiles over the scaled axes.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    zoom: float
    stretch: tuple[float, ...]
    lengths: bool
    grid: TileGrid

    @property
    def name(self) -> str:
        """Names of the axes, such as zx."""
        return "".join(_NAMES[len(self.shape)][axis] for axis in self.axes)

    @property
    def across(self) -> int | None:
        """The axis along which planes follow one another; None for a view of all axes."""
        return next((axis for axis in range(len(self.shape)) if axis not in self.axes), None)

    @property
    def scales(self) -> tuple[float, ...]:
        """Network pixels per image pixel along each of `axes`."""
        return tuple(self.zoom * factor for factor in self.stretch)

    @property
    def planes(self) -> int:
        """Number of planes; 1 for a view of all axes."""
        return 1 if self.across is None else self.shape[self.across]

    def tasks(self, number: int, batch: int) -> list[TileTask]:
        """Return the tasks for all tiles of the view in order; `number` is its place among the views."""
        positions, planes = (batch, 1) if self.across is None else (1, SLAB)
        return [
            TileTask(
                view=number,
                name=self.name,
                position=position,
                positions=min(positions, len(self.grid) - position),
                plane=plane,
                planes=min(planes, self.planes - plane),
            )
            for position in range(0, len(self.grid), positions)
            for plane in range(0, self.planes, planes)
        ]

    @property
    def tiles_shape(self) -> tuple[int, ...]:
        """Shape of the array of raw tiles: (place, channel, plane, *tile)."""
        return (len(self.grid), len(self.axes) + 1, self.planes, *self.grid.tile)

    def tiles_chunks(self, batch: int) -> tuple[int, ...]:
        """Return the chunks of that array: a task's tiles, cut so that blocks of volumes decode little in excess."""
        side = _PART if len(self.shape) == 2 else {2: 128, 3: 64}[len(self.axes)]
        places, planes = (batch, 1) if self.across is None else (1, min(SLAB, self.planes))
        return (places, len(self.axes) + 1, planes, *(min(side, t) for t in self.grid.tile))

    def tiles(self, task: TileTask, read: ReadPixels) -> list[npt.NDArray[Any]]:
        """Return every tile (c, *tile) of a task: values of the image, or floats where they are resampled."""
        found: list[npt.NDArray[Any]] = []
        for position in range(task.position, task.position + task.positions):
            box = self.grid.box(position).clip(self.grid.shape)
            taps = [
                None if scale == 1 else axis_taps(a, b, 1 / scale, max(1.0, 1 / scale), self.shape[axis])
                for a, b, scale, axis in zip(box.start, box.stop, self.scales, self.axes, strict=True)
            ]
            planes = (task.plane, task.plane + task.planes)
            pixels = self._seen(read(self._box(box, taps, planes)))
            found += list(pad_tile(resampled(pixels, taps), self.grid.tile))
        return found

    def fields(self, box: Box, read: Callable[[Box], npt.NDArray[np.floating]]) -> Float32:
        """Return the fields of a box of the image, not empty: flow along each of `axes`, then the last field."""
        if all(scale == 1 for scale in self.scales):
            return self._fields_of_part(box, read)
        side = max(1, int(_PART / max(1.0, *self.scales)))
        result = np.empty((len(self.axes) + 1, *box.shape), np.float32)
        for part in tile_cover(box.shape, (side,) * len(box.shape)):
            here = part.write.relative_to(tuple(-a for a in box.start))
            result[(slice(None), *part.write.slices)] = self._fields_of_part(here, read)
        return result

    def _fields_of_part(self, box: Box, read: Callable[[Box], npt.NDArray[np.floating]]) -> Float32:
        sides = [(box.start[axis], box.stop[axis]) for axis in self.axes]
        taps = [
            None if scale == 1 else axis_taps(a, b, scale, 1.0, n)
            for (a, b), scale, n in zip(sides, self.scales, self.grid.shape, strict=True)
        ]
        needed = [side if tap is None else tap.span for side, tap in zip(sides, taps, strict=True)]
        planes = (0, 1) if self.across is None else (box.start[self.across], box.stop[self.across])

        def tile(position: int, part: Box) -> npt.NDArray[np.floating]:
            start, stop = (position, 0, planes[0], *part.start), (position + 1, self.tiles_shape[1], planes[1])
            return read(Box(start, (*stop, *part.stop)))

        fields: Float32 = resampled(blend_box(self.grid, Box(*zip(*needed, strict=True)), tile), taps)
        for channel, factor in enumerate(self.stretch):
            if factor != 1:
                fields[channel] /= np.float32(factor)
        if self.lengths and self.zoom != 1:
            fields[-1] /= np.float32(self.zoom)
        if self.across is None:
            return fields[:, 0]
        order = (self.across, *self.axes)
        return fields.transpose(0, *(1 + order.index(axis) for axis in range(len(order))))

    def _box(self, box: Box, taps: Sequence[Taps | None], planes: tuple[int, int]) -> Box:
        """Return the image's box that is read for a box of one tile place in some planes."""
        spans = [(a, b) if tap is None else tap.span for a, b, tap in zip(box.start, box.stop, taps, strict=True)]
        ranges = dict(zip(self.axes, spans, strict=True))
        if self.across is not None:
            ranges[self.across] = planes
        starts, stops = zip(*(ranges[axis] for axis in range(len(self.shape))), strict=True)
        return Box(starts, stops)

    def _seen(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Transpose (c, ...) of the image to (plane, c, *axes)."""
        if self.across is None:
            return pixels[None]
        return pixels.transpose(1 + self.across, 0, *(1 + axis for axis in self.axes))


def views_of(
    shape: Sequence[int],
    model: Model,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    zoom: float = 1.0,
    anisotropy: float = 1.0,
    short: bool | None = None,
) -> tuple[View, ...]:
    """Return the views of a model over an image.

    Args:
        shape: (y, x) or (z, y, x).
        tile, overlap: along each axis; those of the model when None.
        zoom: network pixels per image pixel.
        anisotropy: spacing z / spacing y.
        short: whether tiles are shortened where the image is shorter; None shortens them in volumes only.

    Raises:
        InputError: a scale outside 1/20 .. 20, a tile that does not fit the network, or a network of more axes.
    """
    dim, n = model.config.network.dim, len(shape)
    if dim > n:
        raise InputError.of(
            found="a model of 3 dimensions, for volumes, and a plane",
            expected="a model of planes, or a volume",
            fix="--volume, with an image of several sections, or another --model",
        )
    for value, option in ((zoom, "--rescale"), (anisotropy, "--anisotropy")):
        if not 1 / 20 <= value <= 20:
            raise InputError.of(found=f"scale {value:g}", expected="1/20 to 20", fix=f"change {option}")
    network, stride = model.config.network, model.declares.stride
    sizes = network.sizes if dim == 3 else None
    seen: tuple[tuple[int, ...], ...] = (tuple(range(n)),) if dim == n else ((1, 2), (0, 2), (0, 1))
    views = []
    for axes in seen:
        stretch = tuple(anisotropy if axis == 0 and dim < n else 1.0 for axis in axes)
        scaled = tuple(scaled_length(shape[axis], zoom * factor) for axis, factor in zip(axes, stretch, strict=True))
        grid = tile_grid(
            scaled,
            model.config.tile if tile is None else tile,
            model.config.overlap if overlap is None else overlap,
            stride,
            sizes,
        )
        if short is True or (short is None and n == 3):
            grid = shortened(grid, network.sizes(stride))
        lengths = model.target.lengths
        views.append(View(shape=tuple(shape), axes=axes, zoom=zoom, stretch=stretch, lengths=lengths, grid=grid))
    return tuple(views)


def fields_of_box(views: Sequence[View], box: Box, read: ReadTile) -> Float32:
    """Return the fields of a box: flow along each axis of the image, then distance (or v, h, m); float32."""
    found = [
        view.fields(box, lambda part, number=number: read(number, part))  # type: ignore[misc]
        for number, view in enumerate(views)
    ]
    if len(found) == 1:
        return found[0]
    axes = len(box.shape)
    total = np.zeros((axes + 1, *box.shape), np.float32)
    seen = np.zeros(axes + 1, np.float32)
    for view, fields in zip(views, found, strict=True):
        for channel, target in enumerate((*view.axes, axes)):
            total[target] += fields[channel]
            seen[target] += 1
    for channel, count in zip(total, seen, strict=True):
        channel /= count
    return total
