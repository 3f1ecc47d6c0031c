"""How fast are layouts drawn around points, from lone to crowded ones?

    python benchmarks/layouts.py [--objects 50000]

Points are uniform, at least about a fifth of a diameter apart; the density is their number on a square of one
diameter. One thread; compilation is not timed; seconds are those of the processor, so that a busy machine does not
show. Of three seeds, the slowest.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import numpy.typing as npt

from sketchscale.synthesis.layouts import LayoutPrior, draw_layout

PRIOR = LayoutPrior(diameter=26.0)
DENSITIES = (0.1, 0.5, 1.0, 2.0)


def scattered(count: int, side: int, seed: int) -> npt.NDArray[np.float64]:
    """Up to `count` points, one in each chosen cell of a grid of a fifth of a diameter, jittered within a pixel."""
    step = PRIOR.diameter / 5
    cells = int(side / step) - 1
    rng = np.random.default_rng(seed)
    chosen = rng.choice(cells * cells, min(count, cells * cells), replace=False)
    return np.stack(np.divmod(chosen, cells), -1) * step + rng.uniform(1, 2, (len(chosen), 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=50_000)
    options = parser.parse_args()
    draw_layout(scattered(50, 400, 0), (400, 400), PRIOR)
    print("objects per diameter squared   objects   s      objects a minute   covered")
    for density in DENSITIES:
        side = int(PRIOR.diameter * np.sqrt(options.objects / density))
        found = []
        for seed in range(3):
            points = scattered(options.objects, side, seed)
            before = time.process_time()
            labels = draw_layout(points, (side, side), PRIOR, seed=seed)
            found.append((time.process_time() - before, len(points), float((labels > 0).mean())))
        seconds, count, covered = max(found)
        print(f"{density:<30} {count:<9} {seconds:<6.2f} {60 * count / seconds:<18,.0f} {covered:.0%}", flush=True)


if __name__ == "__main__":
    main()
