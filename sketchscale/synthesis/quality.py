"""Quality of a synthesis without training a segmenter on it, which is the decisive test (benchmarks/synthesis.py).

    fidelity      distances of painted crops from real ones, against those between two halves of the real ones (floor)
    diversity     how much images of one layout differ by their noise; 0 if the generator ignores it
    consistency   whether painted objects equal those that the mask network finds in the image

The order of bright and dark is in contrast.py, the features of crops in features.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from sketchscale.annotations.hover_maps import maps_from_labels
from sketchscale.errors import InputError
from sketchscale.evaluation import Overlaps, join_images, score_overlaps
from sketchscale.evaluation.distributions import frechet_distance, kernel_distance
from sketchscale.evaluation.overlaps import count_overlaps
from sketchscale.integration.watershed.config import watershed_for
from sketchscale.integration.watershed.plan import hover_labels
from sketchscale.networks import Network
from sketchscale.synthesis.features import colour_features, cut_crops, halves, texture_features
from sketchscale.synthesis.losses import maps_of
from sketchscale.synthesis.model import Synthesis
from sketchscale.synthesis.pairs import paint
from sketchscale.synthesis.scenes import PointedSource

__all__ = [
    "Consistency",
    "Distances",
    "Diversity",
    "Fidelity",
    "consistency",
    "diversity",
    "fidelity",
    "noise_of",
    "read_maps",
]

Image = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """Distances of generated from real crops, and between two halves of the real ones, which is the floor.

    Features are divided by their standard deviation over the real crops.

    Attributes:
        features: number of features.
        frechet, frechet_floor: Fréchet distance divided by the number of features: 1 for a set that is shifted by one
            standard deviation in each feature. Few crops make it too large, and the floor by the same amount.
        kernel, kernel_floor: kernel distance, mean over subsets; may be below 0.
        kernel_deviation, kernel_floor_deviation: standard deviation over subsets.
    """

    features: int
    frechet: float
    frechet_floor: float
    kernel: float
    kernel_deviation: float
    kernel_floor: float
    kernel_floor_deviation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Similarity of generated crops to real ones.

    Attributes:
        crops: on each side of each distance. crop: side, px.
        texture, colour: see features.py.
    """

    crops: int
    crop: int
    texture: Distances
    colour: Distances


def fidelity(
    real: Sequence[PointedSource], made: Sequence[Image], *, crops: int = 200, crop: int = 128, seed: int = 0
) -> Fidelity:
    """Return distances of generated images from real ones.

    The real images are split into halves that share no pixel. `crops` / 2 are cut from each half and from the generated
    images, so that all distances use the same number of crops and have the same bias. Distances of the generated crops
    are means over both halves; they can be below the floor if the halves differ and the generated crops cover both.

    Args:
        real: images in [-1, 1]. made: (c, y, x) in [0, 1].
        crops: of the real images in all, at least 8. crop: side, a multiple of 8 px.
        seed: of halves, places and subsets.

    Raises:
        InputError: an image is smaller than a crop, crops are too few, channels differ, or a single real image cannot
            be halved.
    """
    half = crops // 2
    _check(real, made, half, crop)
    sets = [cut_crops(part, half, crop, (seed, i)) for i, part in enumerate(halves(real, crop, seed))]
    rng, cut = np.random.default_rng((seed, 2)), []
    for number in range(half):
        image = made[number % len(made)]
        y, x = (int(rng.integers(0, side - crop + 1)) for side in image.shape[1:])
        cut.append(image[:, y : y + crop, x : x + crop])
    texture, colour = (
        _distances(*map(measure, (*sets, cut)), seed=seed) for measure in (texture_features, colour_features)
    )
    return Fidelity(crops=half, crop=crop, texture=texture, colour=colour)


def _check(real: Sequence[PointedSource], made: Sequence[Image], half: int, crop: int) -> None:
    if half < 4 or crop < 8 or crop % 8:
        raise InputError.of(
            found=f"{2 * half} crops of {crop} px", expected="at least 8, of a multiple of 8 px", fix="the defaults"
        )
    channels = {image.channels for image in real} | {len(image) for image in made}
    if not made or len(channels) > 1 or min(min(image.shape[1:]) for image in made) < crop:
        raise InputError.of(
            found=f"{len(made)} generated images; channels {', '.join(map(str, sorted(channels)))}",
            expected=f"at least one, of {crop} px or more, with the channels of the real images",
            fix="a smaller --crop, or --channel",
        )


def _distances(first: Floats, second: Floats, made: Floats, *, seed: int) -> Distances:
    real = np.concatenate([first, second])
    deviation = real.std(0)
    # features that do not vary in real crops get a scale, too, so that they cannot dominate the rest
    scale = np.maximum(deviation, max(0.01 * float(deviation.mean()), 1e-9))
    first, second, made = ((f - real.mean(0)) / scale for f in (first, second, made))
    features = first.shape[1]
    floor = kernel_distance(first, second, seed=seed)
    kernels = [kernel_distance(part, made, seed=seed) for part in (first, second)]
    return Distances(
        features=features,
        frechet=float(np.mean([frechet_distance(part, made) for part in (first, second)])) / features,
        frechet_floor=frechet_distance(first, second) / features,
        kernel=float(np.mean([k.mean for k in kernels])),
        kernel_deviation=float(np.mean([k.deviation for k in kernels])),
        kernel_floor=floor.mean,
        kernel_floor_deviation=floor.deviation,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """Differences of images of the same layout with different noise: means over layouts and pairs of images.

    Attributes:
        pixels: mean absolute difference of intensities in [0, 1]; 0 if noise is ignored.
        features: root mean square difference of the texture features.
        layouts: the same between images of different layouts with the same noise, for comparison with `features`.
    """

    pixels: float
    features: float
    layouts: float


def diversity(synthesis: Synthesis, layouts: Sequence[npt.NDArray[np.integer]], seeds: Sequence[int]) -> Diversity:
    """Return the effect of noise.

    Args:
        layouts: label images (y, x), sides multiples of 8; at least 2.
        seeds: of the noise, at least 2; each noise depends on its seed alone.

    Raises:
        InputError: there are fewer than two of either.
    """
    if min(len(layouts), len(seeds)) < 2:
        raise InputError.of(
            found=f"{len(layouts)} layouts, {len(seeds)} seeds", expected="at least 2 of each", fix="more of them"
        )
    images = [
        [paint(synthesis, labels, noise_of(synthesis, labels.shape, seed)) for seed in seeds] for labels in layouts
    ]
    seen = np.stack([texture_features(row) for row in images])
    pixels = [float(np.abs(a - b).mean()) for row in images for a, b in itertools.combinations(row, 2)]
    return Diversity(pixels=float(np.mean(pixels)), features=_spread(seen), layouts=_spread(seen.transpose(1, 0, 2)))


def _spread(seen: Floats) -> float:
    """Return the mean over pairs within groups of the root mean square difference; `seen`: (group, member, feature)."""
    pairs = [a - b for group in seen for a, b in itertools.combinations(group, 2)]
    return float(np.mean([np.sqrt((d**2).mean()) for d in pairs]))


def noise_of(synthesis: Synthesis, shape: tuple[int, ...], seed: int) -> npt.NDArray[np.float32]:
    """Return the noise of an image (y, x), see GeneratorConfig.draw_noise."""
    y, x = shape
    return synthesis.config.generator.draw_noise((y, x), np.random.default_rng(seed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """Painted objects compared with those found in the image.

    Attributes:
        dice, iou: of the foreground: m above one half.
        h_error, v_error: mean absolute errors of h and v inside the painted objects; h and v are in [-1, 1].
        f1, aji: of the objects, IoU at least 0.5; all layouts together. Objects are separated by the watershed of a
            segmentation by maps.
        f1_exact, aji_exact: of the same watershed on the exact maps: the best possible values.
        painted, read: numbers of objects.
    """

    dice: float
    iou: float
    h_error: float
    v_error: float
    f1: float
    aji: float
    f1_exact: float
    aji_exact: float
    painted: int
    read: int


def consistency(synthesis: Synthesis, layouts: Sequence[npt.NDArray[np.integer]], *, seed: int = 0) -> Consistency:
    """Paint known objects and find them again with the mask network.

    A cycle can be consistent and wrong, because networks may hide information in images of any colour. Check the order
    of bright and dark, too.

    Args:
        layouts: label images (y, x), 0 is background; at least one object in all.
        seed: of the noise, one for each layout.

    Raises:
        InputError: there is no object.
    """
    if not any(labels.any() for labels in layouts):
        raise InputError.of(found="layouts without an object", expected="at least one", fix="draw more layouts")
    exact = [maps_from_labels(labels) for labels in layouts]
    found = [
        read_maps(synthesis, paint(synthesis, labels, noise_of(synthesis, labels.shape, seed + number)))
        for number, labels in enumerate(layouts)
    ]
    rule = watershed_for(synthesis.config.prior.diameter)
    # the watershed's maps begin with v
    read, best = (
        [count_overlaps(labels, hover_labels(m[[1, 0, 2]], rule)) for labels, m in zip(layouts, maps, strict=True)]
        for maps in (found, exact)
    )
    return _compared(exact, found, read, best)


def _compared(
    exact: Sequence[Image], found: Sequence[Image], read: Sequence[Overlaps], best: Sequence[Overlaps]
) -> Consistency:
    true, seen = (np.concatenate([m.reshape(3, -1) for m in maps], 1) for maps in (exact, found))
    inside, above = true[2] > 0.5, seen[2] > 0.5
    both, either = int((inside & above).sum()), int((inside | above).sum())
    error = np.abs(true[:2] - seen[:2])[:, inside].mean(1)
    scores, limit = (score_overlaps(join_images(o), (0.5,)) for o in (read, best))
    return Consistency(
        dice=2 * both / (both + either),
        iou=both / either,
        h_error=float(error[0]),
        v_error=float(error[1]),
        f1=scores.at(0.5).f1,
        aji=scores.aji,
        f1_exact=limit.at(0.5).f1,
        aji_exact=limit.aji,
        painted=scores.n_true,
        read=scores.n_pred,
    )


def read_maps(synthesis: Synthesis, image: Image) -> Image:
    """Return the maps that the mask network predicts, float32 (3, y, x): h and v in [-1, 1], m in [0, 1].

    Args:
        image: (c, y, x) in [0, 1]; of any size, as it is mirrored up to a multiple of the stride.
    """
    stride = cast(Network, synthesis.masker).stride
    rest = [(0, 0), *((0, -n % stride) for n in image.shape[1:])]
    device = next(synthesis.masker.parameters()).device
    pixels = torch.from_numpy(np.pad(image, rest, mode="symmetric") * np.float32(2) - np.float32(1))
    with torch.inference_mode():
        maps = maps_of(synthesis.masker(pixels[None].to(device)).float())[0].cpu().numpy()
    read: Image = maps[:, : image.shape[1], : image.shape[2]]
    return read
