"""Draw a plausible label image from points: one object around each point, shaped like a nucleus.

    1. density    of points around each point: a Gaussian sum over all points
    2. shape      area from a Beta distribution with mean and maximum decreasing with the density; an ellipse of random
                  eccentricity and orientation, or an irregular outline around it
    3. kernels    a disc around each point, with a third of the distance to the next point as radius, is reserved
    4. placing    in the order of the points; a shape that is covered by others by more than 5 % is drawn again, and
                  smaller; after 20 shapes the point keeps its kernel
    5. painting   the free pixels of the shape that are connected to the point's pixel

Guarantees: every point's pixel belongs to its object, the id of which is the point's number from 1; every object is
4-connected; the same points, shape, prior and seed give the same array. The borders of the image cut objects.

Source: sampling of masks from points in "Points to synthetic microscopy" (constants as released, made independent of
the resolution by `LayoutPrior.diameter`); reserved kernels and connected painting are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.spatial import KDTree

from sketchscale.errors import InputError

__all__ = ["LayoutPrior", "crowding", "draw_layout", "pixels_of_points"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.uint32]

_KNOTS = 24
"""Radii of an outline, evenly spaced in angle."""
_ATTEMPTS = 20
_OVERLAP = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutPrior:
    """Prior of the shape of objects.

    Attributes:
        diameter: of an isolated object, px: of the circle of its mean area.
        spread: standard deviation of the area of such an object, as a share of its mean.
        crowding: decrease of the area with density: by a factor of e ** -crowding for each further object within a
            Gaussian window of area `diameter` squared; 0 for no decrease.
        eccentricity: smallest and largest of the ellipses.
        irregular: share of outlines that are not ellipses.
        roughness: standard deviation of an irregular outline's radius, as a share of it.
    """

    diameter: float = 31.0
    spread: float = 0.45
    crowding: float = 1.0
    eccentricity: tuple[float, float] = (0.4, 0.9)
    irregular: float = 0.5
    roughness: float = 0.06

    def __post_init__(self) -> None:
        low, high = self.eccentricity
        for name, value, fits, expected in (
            ("diameter", self.diameter, 2 <= self.diameter <= 10_000, "2 to 10,000 px"),
            ("spread", self.spread, 0 <= self.spread < 1, "a share, 0 to below 1"),
            ("crowding", self.crowding, 0 <= self.crowding < 100, "0 to below 100"),
            ("eccentricity", self.eccentricity, 0 <= low <= high < 1, "two numbers in order, 0 to below 1"),
            ("irregular", self.irregular, 0 <= self.irregular <= 1, "a share, 0 to 1"),
            ("roughness", self.roughness, 0 <= self.roughness <= 0.3, "a share, 0 to 0.3"),
        ):
            if not fits:
                raise InputError.of(found=f"{name} of the layouts is {value}", expected=expected, fix=f"set {name}")


def pixels_of_points(points: Floats, shape: tuple[int, int]) -> Ints:
    """Return the pixel of each point, (n, 2) int64.

    Args:
        points: (n, 2) of (y, x), px; pixel centres are integers.
        shape: (y, x) of the image.

    Raises:
        InputError: a point is not finite, outside the image, or in the same pixel as another; the message names the
            first.

    >>> pixels_of_points(np.array([[0.4, 2.6]]), (4, 4))
    array([[0, 3]])
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)
    lost = np.flatnonzero(~np.isfinite(points).all(1))
    if lost.size:
        raise InputError.of(found=f"point {lost[0] + 1} is no number", expected="y and x", fix="correct the file")
    pixels = np.floor(points + 0.5).astype(np.int64)
    outside = np.flatnonzero(((pixels < 0) | (pixels >= shape)).any(1))
    if outside.size:
        y, x = points[outside[0]]
        raise InputError.of(
            found=f"{outside.size} of {len(points)} points lie outside the image, the first at y {y:g}, x {x:g}",
            expected=f"y below {shape[0]} and x below {shape[1]}",
            fix="check the order of the columns and the image",
        )
    _, first = np.unique(pixels[:, 0] * shape[1] + pixels[:, 1], return_index=True)
    if first.size < len(pixels):
        again = np.setdiff1d(np.arange(len(pixels)), first)
        y, x = points[again[0]]
        raise InputError.of(
            found=f"{again.size} of {len(points)} points share a pixel with another, the first at y {y:g}, x {x:g}",
            expected="one point for each object",
            fix="remove the duplicates",
        )
    return pixels


def crowding(points: Floats, diameter: float) -> Floats:
    """Return the number of other points in a Gaussian window of area `diameter` squared around each point.

    Args:
        points: (n, 2), px.

    Returns:
        (n,) float64, 0 for an isolated point.

    >>> crowding(np.array([[0.0, 0.0], [0.0, 30.0], [500.0, 0.0]]), 30.0).round(3).tolist()
    [0.043, 0.043, 0.0]
    """
    sigma = diameter / np.sqrt(2 * np.pi)
    pairs = KDTree(points).query_pairs(5 * sigma, output_type="ndarray") if len(points) > 1 else np.empty((0, 2), int)
    weight = np.exp(-((points[pairs[:, 0]] - points[pairs[:, 1]]) ** 2).sum(1) / (2 * sigma**2))
    total = np.zeros(len(points))
    for end in (0, 1):
        total += np.bincount(pairs[:, end], weight, len(points))
    return total


def draw_layout(points: Floats, shape: tuple[int, int], prior: LayoutPrior | None = None, *, seed: int = 0) -> Labels:
    """Draw a label image with one object around each point.

    Args:
        points: (n, 2) of (y, x), px, in different pixels; may be empty.
        shape: (y, x).
        prior: of areas and outlines.

    Returns:
        uint32 (y, x); object i + 1 contains point i; 0 is background.

    Raises:
        InputError: see `pixels_of_points`.

    >>> labels = draw_layout(np.array([[20.0, 20.0], [20.0, 60.0]]), (40, 80))
    >>> int(labels[20, 20]), int(labels[20, 60]), int(labels[0, 40])
    (1, 2, 0)
    """
    prior = prior or LayoutPrior()
    points = np.asarray(points, np.float64).reshape(-1, 2)
    pixels = pixels_of_points(points, shape)
    labels = np.zeros(shape, np.uint32)
    if len(pixels):
        # radius of the reserved discs; no two of them touch
        kernels = np.full(1, prior.diameter / 6)
        if len(pixels) > 1:
            kernels = np.minimum(KDTree(pixels).query(pixels, k=2)[0][:, 1] / 3, prior.diameter / 6)
        _reserve(pixels, kernels, labels)
        radii = _outlines(points, prior, np.random.default_rng(seed))
        stack = np.empty((4 * (2 * int(np.ceil(radii.max())) + 2) ** 2, 2), np.int64)
        _place(pixels, radii, _OVERLAP, labels, stack)
    return labels


def _outlines(points: Floats, prior: LayoutPrior, rng: np.random.Generator) -> Floats:
    """Return radii (n, attempts, knots) of the outlines that are tried for each point, px."""
    many = (len(points), _ATTEMPTS)
    area = _areas(crowding(points, prior.diameter), prior, rng)
    eccentricity = rng.uniform(*prior.eccentricity, many)
    minor = np.sqrt(area * np.sqrt(1 - eccentricity**2) / np.pi)
    angle = np.arange(_KNOTS) * (2 * np.pi / _KNOTS) - rng.uniform(0, np.pi, many)[..., None]
    radii = minor[..., None] / np.sqrt(1 - (eccentricity[..., None] * np.cos(angle)) ** 2)
    noise = rng.normal(0, 1, (*many, _KNOTS))
    smooth = (np.roll(noise, 1, -1) + 2 * noise + np.roll(noise, -1, -1)) / np.sqrt(6)
    rough = prior.roughness * (rng.random(many) < prior.irregular)[..., None]
    # a shape that does not fit is too large more often than at the wrong angle
    shrink = np.sqrt(np.maximum(1 - 0.08 * np.arange(_ATTEMPTS), 0.05))
    return np.asarray(np.maximum(radii * (1 + rough * smooth) * shrink[:, None], 0.5), np.float64)


def _areas(crowded: Floats, prior: LayoutPrior, rng: np.random.Generator) -> Floats:
    """Return areas (n, attempts), px2: Beta distributed from 0 to five times the mean, which falls with crowding."""
    mean = np.pi / 4 * prior.diameter**2 * np.exp(-prior.crowding * crowded)[:, None]
    if prior.spread < 1e-6:
        return np.broadcast_to(mean, (len(crowded), _ATTEMPTS)).copy()
    share = 1 / 5
    size = share * (1 - share) / (share * prior.spread) ** 2 - 1
    return np.asarray(5 * mean * rng.beta(share * size, (1 - share) * size, (len(crowded), _ATTEMPTS)))


@njit(cache=True, nogil=True)
def _place(pixels: Ints, radii: Floats, overlap: float, labels: Labels, stack: Ints) -> None:
    """Paint, point by point, the first outline of which at most `overlap` belongs to others; else keep the kernel."""
    for i in range(pixels.shape[0]):
        y, x = pixels[i]
        for k in range(radii.shape[1]):
            taken, all_of_it = _count_taken(y, x, radii[i, k], np.uint32(i + 1), labels)
            if taken <= overlap * all_of_it:
                _paint(y, x, radii[i, k], np.uint32(i + 1), labels, stack)
                break


@njit(cache=True, nogil=True)
def _reserve(pixels: Ints, radius: Floats, labels: Labels) -> None:
    """Paint a disc around each point."""
    for i in range(pixels.shape[0]):
        y, x = pixels[i]
        far = int(radius[i])
        for v in range(max(y - far, 0), min(y + far + 1, labels.shape[0])):
            for u in range(max(x - far, 0), min(x + far + 1, labels.shape[1])):
                if (v - y) ** 2 + (u - x) ** 2 <= radius[i] ** 2:
                    labels[v, u] = i + 1


@njit(cache=True, nogil=True)
def _within(dy: int, dx: int, radii: Floats) -> bool:
    """Return whether a pixel lies inside the outline: its distance against the radius at its angle, interpolated."""
    place = np.arctan2(float(dy), float(dx)) / (2 * np.pi) * radii.size
    place += radii.size * (place < 0)
    knot = int(place)
    share = place - knot
    knot %= radii.size
    radius = (1 - share) * radii[knot] + share * radii[(knot + 1) % radii.size]
    return bool(dy * dy + dx * dx <= radius * radius)


@njit(cache=True, nogil=True)
def _count_taken(y: int, x: int, radii: Floats, own: np.uint32, labels: Labels) -> tuple[int, int]:
    """Return the number of pixels of the outline in the image that belong to other objects, and of all its pixels."""
    far = int(np.ceil(radii.max()))
    taken, total = 0, 0
    for v in range(max(y - far, 0), min(y + far + 1, labels.shape[0])):
        for u in range(max(x - far, 0), min(x + far + 1, labels.shape[1])):
            if _within(v - y, u - x, radii):
                total += 1
                taken += labels[v, u] != 0 and labels[v, u] != own
    return taken, total


@njit(cache=True, nogil=True)
def _paint(y: int, x: int, radii: Floats, own: np.uint32, labels: Labels, stack: Ints) -> None:
    """Flood-fill the free pixels of the outline from the point's kernel."""
    n = 0
    far = int(np.ceil(radii.max()))
    for v in range(max(y - far, 0), min(y + far + 1, labels.shape[0])):
        for u in range(max(x - far, 0), min(x + far + 1, labels.shape[1])):
            if labels[v, u] == own:
                stack[n, 0], stack[n, 1] = v, u
                n += 1
    while n > 0:
        n -= 1
        v, u = stack[n]
        for step in range(4):
            b = v + (step == 0) - (step == 1)
            a = u + (step == 2) - (step == 3)
            if not (0 <= b < labels.shape[0] and 0 <= a < labels.shape[1]) or labels[b, a] != 0:
                continue
            if _within(b - y, a - x, radii):
                labels[b, a] = own
                stack[n, 0], stack[n, 1] = b, a
                n += 1
