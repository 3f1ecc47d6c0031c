"""Label pairs and what StarDist says about them: the golden numbers of tests/evaluation/test_scores.py.

    pip install stardist==0.9.1 --no-deps tqdm
    python tests/data/make_stardist_matching.py SITE_PACKAGES/stardist/matching.py

Writes stardist_matching.npz (the pairs) and stardist_matching.json (the figures) beside itself. Only the module
`stardist.matching` is run (BSD 3-Clause, version 0.9.1); its one import from csbdeep, a function that raises, is stood
in for. StarDist keeps IoU in float32, so its sums carry 24 bits; `sum_iou` is therefore added up again in float64 over
the very pairs that StarDist reports as matched.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parents[1] / "sketchscale" / "samples"
THRESHOLDS = (0.1, 0.3, *(round(0.5 + 0.05 * i, 2) for i in range(10)))
COUNTS = ("tp", "fp", "fn", "n_true", "n_pred")
SHARES = ("precision", "recall", "accuracy", "f1", "mean_matched_score", "panoptic_quality")


def blobs(shape: tuple[int, int], seed: int, sigma: float = 3.0) -> np.ndarray:
    """Separate random blobs, uint16."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return ndimage.label(smooth > 0.6 * smooth.std())[0].astype(np.uint16)


def touching(shape: tuple[int, int], seed: int, n: int) -> np.ndarray:
    """A Voronoi map: every pixel in an object, all of them touching."""
    points = np.random.default_rng(seed).uniform(0, shape, (n, 2))
    grid = np.indices(shape).reshape(2, -1).T[:, None]
    return (((grid - points) ** 2).sum(-1).argmin(1) + 1).reshape(shape).astype(np.uint16)


def shifted(labels: np.ndarray, y: int, x: int) -> np.ndarray:
    """Moved with zeros coming in, a quarter of the objects lost, a second one merged with its neighbour in number."""
    moved = np.roll(labels, (y, x), (0, 1))
    moved[:y], moved[:, :x] = 0, 0
    moved[moved % 4 == 1] = 0
    moved[moved % 7 == 2] += 1
    return moved


def sample(name: str) -> np.ndarray:
    return np.asarray(Image.open(SAMPLES / name)).astype(np.uint16)


def make_pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name to (truth, predicted)."""
    empty, full = np.zeros((20, 30), np.uint8), np.ones((20, 30), np.uint8)
    one, voronoi = blobs((60, 80), 1), touching((60, 70), 2, 40)
    noise = np.random.default_rng(3).integers(0, 9, (2, 25, 31)).astype(np.uint8)
    halves = np.repeat(np.arange(1, 11), 4)[None].repeat(4, 0)
    real = [sample(f"{kind}/masks/{kind}-1.png") for kind in ("fluorescence", "histology")]
    return {
        "itself": (one, one),
        "moved": (one, shifted(one, 1, 1)),
        "moved far": (one, shifted(one, 4, 3)),
        "touching": (voronoi, touching((60, 70), 5, 35)),
        "touching, moved": (voronoi, shifted(voronoi, 1, 2)),
        "ids with gaps": (one.astype(np.uint32) * 7 + (one > 0) * 65_536, shifted(one, 1, 0).astype(np.int64) * 1000),
        "every pixel at random": (noise[0], noise[1]),
        "halves at exactly one half": (halves, (np.arange(40) // 2 + 1)[None].repeat(4, 0)),
        "both empty": (empty, empty),
        "truth empty": (empty, blobs((20, 30), 4)),
        "nothing predicted": (blobs((20, 30), 4), empty),
        "one object that fills the image": (full, full),
        "real fluorescence": (real[0], shifted(real[0], 1, 1)),
        "real histology": (real[1], shifted(real[1], 2, 1)),
    }


def load_stardist(path: str) -> Any:
    def _raise(error: BaseException) -> None:
        raise error

    csbdeep, utils = types.ModuleType("csbdeep"), types.ModuleType("csbdeep.utils")
    utils._raise = _raise
    sys.modules |= {"csbdeep": csbdeep, "csbdeep.utils": utils}
    spec = importlib.util.spec_from_file_location("stardist_matching", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden(stardist: Any, pair: tuple[np.ndarray, np.ndarray], threshold: float) -> dict[str, Any]:
    truth, predicted = pair
    found = stardist.matching(truth, predicted, thresh=threshold, report_matches=True)
    matched = [found.matched_pairs[i] for i in getattr(found, "matched_tps", ())]
    ious = [((truth == a) & (predicted == b)).sum() / ((truth == a) | (predicted == b)).sum() for a, b in matched]
    exact = {name: int(getattr(found, name)) for name in COUNTS}
    exact["threshold"] = threshold
    return exact | {name: float(getattr(found, name)) for name in SHARES} | {"sum_iou": float(np.sort(ious).sum())}


def main() -> None:
    stardist, pairs = load_stardist(sys.argv[1]), make_pairs()
    arrays = {f"{name}/{side}": labels for name, pair in pairs.items() for side, labels in zip("tp", pair, strict=True)}
    np.savez_compressed(HERE / "stardist_matching.npz", **arrays)
    scores = {name: [golden(stardist, pair, t) for t in THRESHOLDS] for name, pair in pairs.items()}
    truths, predictions = ([pair[side] for pair in pairs.values()] for side in (0, 1))
    by_image = {}
    for t in THRESHOLDS:
        found = stardist.matching_dataset(truths, predictions, thresh=t, by_image=True, show_progress=False)
        by_image[str(t)] = {name: float(getattr(found, name)) for name in SHARES}
    everything = {"made by": "stardist 0.9.1, stardist/matching.py", "pairs": scores, "by_image": by_image}
    (HERE / "stardist_matching.json").write_text(json.dumps(everything) + "\n")


if __name__ == "__main__":
    main()
