"""Draw patches where something is annotated, with targets computed after augmentation.

1. An image is drawn, all alike. 2. A pixel is drawn among the annotated ones: foreground or drawn boundary as often as
background. 3. The patch is laid about it, shifted by up to a quarter of its size, turned and scaled. 4. Targets are
computed from the annotation of the patch and a margin around it; beyond the margin everything is unknown. So nothing
that a crop hides can make a target wrong.

For a dense loss every pixel of a patch has a target: those of the whole image as far as a wider margin shows it (an
object cut there seems to go on), and beyond the image its mirror image.

A batch is a function of (images, config, seed, step) alone: resumed training draws what uninterrupted training draws.
Images may lie in storage and be read when a patch is drawn there: what was drawn from last is kept, up to a limit.
"""

from __future__ import annotations

import pkgutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from sketchscale.annotations.targets import BEYOND, UNKNOWN, Targets, region_codes, targets_from_sketch
from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.losses import BatchTargets
from sketchscale.training.augment import AugmentConfig, draw_pose, expose, mirrored_codes, sample_patch

__all__ = ["AnnotatedImage", "PatchSource", "TrainingImage", "check_dense", "patch_targets"]

MARGIN = 16
_WIDE_MARGIN = 32
"""px, for dense losses and maps: maps are known only in objects that are visible whole."""
_DRAWN = -2
_IGNORED = -4


class AnnotatedImage(Protocol):
    """What patches are drawn from; see TrainingImage. Arrays may be read again at each access."""

    @property
    def name(self) -> str:
        """The name of the image, for messages."""
        ...

    @property
    def channels(self) -> int:
        """The number of channels."""
        ...

    @property
    def image(self) -> npt.NDArray[np.float32]:
        """The normalised image (c, y, x)."""
        ...

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """The labels (y, x): k > 0 object, 0 background, -1 unknown."""
        ...

    @property
    def boundary(self) -> npt.NDArray[np.bool_] | None:
        """The drawn boundary pixels (y, x); None for none."""
        ...

    @property
    def core(self) -> Box | None:
        """The part in which patches are centred; None for all."""
        ...

    @property
    def ignored(self) -> npt.NDArray[np.bool_] | None:
        """The unknown pixels (y, x) that are left out of every term; None for none."""
        ...

    @property
    def numbered(self) -> frozenset[int] | None:
        """The ids of objects that are known to differ; None for all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingImage:
    """An image, or the part of one around its sketch; of a volume with z before y.

    Attributes:
        image: (c, y, x), float32, normalised.
        labels: (y, x), as RasterSketch.labels: k > 0 object, 0 background, -1 unknown.
        boundary: (y, x), drawn boundary pixels; None for none.
        name: for messages.
        core: of an annotation that is cut into parts, the box that only this part has: patches are centred and objects
            counted there. None for all.
        ignored: (y, x), unknown pixels that are left out of terms that hold everywhere, too; None for none.
        numbered: ids of objects that are known to differ from one another, see RasterSketch; None for all.
    """

    image: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]
    boundary: npt.NDArray[np.bool_] | None = None
    name: str = "image"
    core: Box | None = None
    ignored: npt.NDArray[np.bool_] | None = None
    numbered: frozenset[int] | None = None

    @property
    def channels(self) -> int:
        """The number of channels."""
        return len(self.image)

    def __post_init__(self) -> None:
        if self.image.ndim not in (3, 4) or self.image.dtype != np.float32 or self.image.shape[1:] != self.labels.shape:
            raise InputError.of(
                found=f"{self.name}: image of shape {self.image.shape}, {self.image.dtype}, "
                f"with labels of shape {self.labels.shape}",
                expected="a float32 image (c, y, x) and labels (y, x) of the same size, or both with z before y",
                fix="normalise with sketchscale.intensity and rasterise the sketch over the same box",
            )
        if not np.isfinite(self.image).all():
            raise InputError.of(found=f"{self.name}: NaN or Inf pixels", expected="numbers", fix="mask them out")


@dataclass(frozen=True, slots=True)
class _Spots:
    """Where patches of an image may be centred; `loose` are the ids of objects that have no number."""

    codes: npt.NDArray[np.int32]
    inside: npt.NDArray[np.intp]
    background: npt.NDArray[np.intp]
    diameter: float
    loose: npt.NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """The size in memory."""
        return self.codes.nbytes + self.inside.nbytes + self.background.nbytes


class PatchSource:
    """A source of random patches of images; see the module.

    Args:
        size: of patches along y and x, px.
        sizes: returns a size along y and x as sizes along every axis, for volumes; see NetworkConfig. None for planes.
        spacing: of the axes, see annotations.targets. outside: px, the target distance in background.
        dense: for losses that take every pixel as annotated. A drawn boundary pixel counts as background then.
        signed: whether the signed distance is wanted, which few losses read.
        maps: import path of the function that makes the maps of the target, see networks.targets; "" for none.
        keep_bytes: of images with their annotation that are kept between patches; None keeps all. No effect on batches.
        channels: of the patches: an image with fewer has 0 in the others; None takes images as they are.

    Raises:
        InputError: nothing is annotated, or, for a dense loss, not everything.
    """

    def __init__(
        self,
        images: Sequence[AnnotatedImage],
        *,
        size: int,
        sizes: Callable[[int], Sequence[int]] | None = None,
        spacing: Sequence[float] | None = None,
        augment: AugmentConfig,
        outside: float,
        dense: bool = False,
        signed: bool = True,
        maps: str = "",
        keep_bytes: int | None = None,
        channels: int | None = None,
    ) -> None:
        if dense:
            check_dense(images)
        self.images, self.size, self.augment, self.outside, self.dense = tuple(images), size, augment, outside, dense
        self.sizes, self.spacing = sizes or _same, spacing
        self.signed, self.maps, self.kept, self.channels = signed, maps, _Kept(keep_bytes), channels
        found = (_spots(image, dense) for image in self.images)
        self.useful = [i for i, spots in enumerate(found) if spots.inside.size or spots.background.size]
        if not self.useful:
            raise InputError.of(found="no annotated pixel", expected="strokes", fix="draw some, or check the labels")

    def batch(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, BatchTargets]:
        """Return `count` patches (count, c, size, size) and their targets."""
        return self.patches([rng] * count)

    def patches(self, rngs: Sequence[np.random.Generator]) -> tuple[torch.Tensor, BatchTargets]:
        """Return one patch of each generator, (n, c, size, size), and their targets."""
        images, targets = zip(*(self._patch(rng) for rng in rngs), strict=True)
        return torch.from_numpy(np.stack(images)), stack_targets(targets)

    def _drawn_from(self, position: int) -> _Drawable:
        found = self.kept.get(position)
        if found is None:
            image = self.images[position]
            found = _Drawable(image.image, _spots(image, self.dense))
            self.kept.put(position, found)
        return found

    def _patch(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], Targets]:
        position = self.useful[int(rng.integers(len(self.useful)))]
        drawable = self._drawn_from(position)
        spots = drawable.spots
        pose = draw_pose(rng, self._centre(rng, spots), spots.diameter, self.augment)
        margin, size = self.sizes(_WIDE_MARGIN if self.dense or self.maps else MARGIN), self.sizes(self.size)
        image, codes = sample_patch(drawable.image, spots.codes, pose, size, margin)
        settings: dict[str, Any] = {"margin": margin, "outside": self.outside, "signed": self.signed}
        targets_of: Any = partial(patch_targets, **settings, spacing=self.spacing)
        targets = targets_of(codes, dense=self.dense, maps=self.maps)
        if spots.loose.size:
            targets = replace(targets, objects=np.where(np.isin(targets.objects, spots.loose), 0, targets.objects))
        beyond = codes[_core(codes, margin)] == BEYOND
        if self.dense and beyond.any():
            mirrored = mirrored_codes(spots.codes, pose, size, margin)
            targets = _filled(targets, beyond, targets_of(mirrored, dense=True))
        exposed = with_channels(expose(image, rng, self.augment), self.channels)
        return exposed, replace(targets, edges=image_edges(exposed)) if self.signed else targets

    def _centre(self, rng: np.random.Generator, spots: _Spots) -> tuple[float, ...]:
        """Return a random centre; a pixel corner for even sizes, else a pixel centre, so that scale 1 copies pixels."""
        choices = [pixels for pixels in (spots.inside, spots.background) if pixels.size]
        pixels = choices[int(rng.integers(len(choices)))]
        shape = spots.codes.shape
        at = np.unravel_index(int(pixels[rng.integers(pixels.size)]), shape)
        shift = rng.integers(-(self.size // 4), self.size // 4 + 1, len(shape)).tolist()
        sizes = np.broadcast_to(self.sizes(self.size), len(shape)).tolist()
        return tuple(
            int(i) + float(step * size // self.size) + 0.5 * (1 - size % 2)
            for i, step, size in zip(at, shift, sizes, strict=True)
        )


def _same(side: int) -> Any:
    """Return the sizes of planes, which are square."""
    return side


def with_channels(image: npt.NDArray[np.float32], channels: int | None) -> npt.NDArray[np.float32]:
    """Return an image (c, y, x) with at least so many channels: those that it lacks are 0.

    >>> with_channels(np.ones((1, 2, 2), np.float32), 3).sum(axis=(1, 2)).tolist()
    [4.0, 0.0, 0.0]
    """
    missing = 0 if channels is None else max(0, channels - len(image))
    return np.pad(image, ((0, missing), *((0, 0),) * (image.ndim - 1))) if missing else image


def image_edges(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the length (1, y, x) of the gradient of all channels (c, y, x) together, at a scale of one pixel.

    >>> image_edges(np.zeros((2, 3, 4), np.float32)).shape
    (1, 3, 4)
    """
    squares = [ndimage.gaussian_gradient_magnitude(channel, 1.0) ** 2 for channel in image]
    return np.sqrt(np.sum(squares, axis=0, dtype=np.float32))[None]


@dataclass(frozen=True, slots=True)
class _Drawable:
    """An image in memory, and where patches of it may be centred."""

    image: npt.NDArray[np.float32]
    spots: _Spots

    @property
    def nbytes(self) -> int:
        """The size in memory."""
        return self.image.nbytes + self.spots.nbytes


class _Kept:
    """A thread-safe cache of recently used images, of at most so many bytes but at least one entry."""

    def __init__(self, most_bytes: int | None) -> None:
        self._most, self._bytes, self._lock = most_bytes, 0, threading.Lock()
        self._entries: OrderedDict[int, _Drawable] = OrderedDict()

    def get(self, position: int) -> _Drawable | None:
        """Return the entry of an image; None if it is not cached."""
        with self._lock:
            if position in self._entries:
                self._entries.move_to_end(position)
            return self._entries.get(position)

    def put(self, position: int, entry: _Drawable) -> None:
        """Add an entry, and remove the oldest ones above the limit."""
        with self._lock:
            if position not in self._entries:
                self._entries[position] = entry
                self._bytes += entry.nbytes
            while self._most is not None and self._bytes > self._most and len(self._entries) > 1:
                self._bytes -= self._entries.popitem(last=False)[1].nbytes


def check_dense(images: Sequence[AnnotatedImage]) -> None:
    """Refuse images of which a part is not annotated, for losses that would take it for background.

    Raises:
        InputError: names the first one.
    """
    for image in images:
        missing = image.labels == UNKNOWN
        if image.boundary is not None:
            missing &= ~image.boundary
        if missing.any():
            raise InputError.of(
                found=f"{image.name}: {missing.mean():.1%} of its pixels have no label",
                expected="full masks, as a dense loss learns from every pixel",
                fix="--loss sketchpose, which learns from what is annotated",
            )


def _spots(image: AnnotatedImage, dense: bool) -> _Spots:
    codes = region_codes(image.labels, image.boundary)
    if dense:
        codes[codes == _DRAWN] = 0
    own = codes
    if image.core is not None:
        own = np.full_like(codes, UNKNOWN)
        own[image.core.slices] = codes[image.core.slices]
    if image.ignored is not None:
        codes[image.ignored & (codes == UNKNOWN)] = _IGNORED
    areas = np.bincount(codes[codes > 0])
    ids, areas = np.flatnonzero(areas), areas[areas > 0]
    return _Spots(
        codes=codes,
        inside=np.flatnonzero((own > 0) | (own == _DRAWN)),
        background=np.flatnonzero(own == 0),
        diameter=float(np.sqrt(4 / np.pi * np.median(areas))) if areas.size else 0.0,
        loose=ids[:0] if image.numbered is None else np.setdiff1d(ids, list(image.numbered)),
    )


def patch_targets(
    codes: npt.NDArray[np.int32],
    margin: int | Sequence[int],
    outside: float,
    *,
    dense: bool = False,
    signed: bool = True,
    maps: str = "",
    spacing: Sequence[float] | None = None,
) -> Targets:
    """Return the targets of the inner part of a crop; pixels beyond the crop count as unknown.

    Args:
        codes: (y + 2 margin, x + 2 margin), see annotations.targets.region_codes; of volumes with z before y.
        margin: px, at least 1; of volumes along each axis.
        dense: take the crop for the whole image instead. Where it shows no boundary at all, the object's distance is
            that to the crop's border, and its flow 0.
        signed, spacing: see annotations.targets. maps: see PatchSource.
    """
    core = _core(codes, margin)
    ignored, codes = codes == _IGNORED, np.where(codes == _IGNORED, UNKNOWN, codes)
    ring = np.ones(codes.shape, np.bool_)
    ring[(slice(1, -1),) * codes.ndim] = False
    hidden = np.where(ring & (codes != BEYOND), UNKNOWN, codes)
    if not dense:
        targets = replace(_cut(hidden, core, outside, signed, spacing), ignored=ignored[core])
        return replace(targets, maps=pkgutil.resolve_name(maps)(hidden)[core]) if maps else targets
    whole = _cut(codes, core, outside, signed, spacing)
    endless = whole.inside & ~whole.known
    if not endless.any():
        return whole
    return replace(whole, distance=np.where(endless, _cut(hidden, core, outside, False, spacing).lower, whole.distance))


def _core(codes: npt.NDArray[np.int32], margin: int | Sequence[int]) -> tuple[Any, ...]:
    """Return the slices of a crop within its margin, after any leading axes."""
    return (..., *(slice(m, -m) for m in np.broadcast_to(margin, codes.ndim).tolist()))


def _cut(
    codes: npt.NDArray[np.int32],
    core: tuple[Any, ...],
    outside: float,
    signed: bool,
    spacing: Sequence[float] | None,
) -> Targets:
    drawn = codes == _DRAWN
    labels = np.where(drawn, UNKNOWN, codes)
    t = targets_from_sketch(labels, drawn, outside=outside, signed=signed, spacing=spacing)
    return Targets(**{name: getattr(t, name)[core] for name in Targets.__slots__})


def _filled(targets: Targets, where: npt.NDArray[np.bool_], others: Targets) -> Targets:
    """Return targets, with the values of `others` under a mask (y, x)."""
    pairs = {name: (getattr(others, name), getattr(targets, name)) for name in Targets.__slots__}
    return Targets(**{name: np.where(where, other, own) for name, (other, own) in pairs.items()})


def stack_targets(targets: Sequence[Targets]) -> BatchTargets:
    """Return the targets of several patches as one batch."""
    return BatchTargets(
        **{name: torch.from_numpy(np.stack([getattr(t, name) for t in targets])) for name in BatchTargets.__slots__}
    )
