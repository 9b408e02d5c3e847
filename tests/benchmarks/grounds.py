"""False cloud of a model on simulated clear ground, kind by kind.

    python -m tests.benchmarks.grounds [-m MODEL] [--scenes N] [--seed S]

In the bands of Sentinel-2 at 10 and 20 m and in Landsat 8's at 30 m; mean over the scenes and, in
brackets, the worst of them. Real clear scenes are few; these tell where a model is likely to fail.
"""

from __future__ import annotations

import argparse

import numpy as np

from cloudnet import load_model
from cloudnet.ground import GROUNDS
from cloudnet.light import LANDSAT8, LANDSAT8_BANDS, SENTINEL2
from cloudnet.simulate import simulate_scene
from cloudnet.spec import BANDS, CLOUD

SIZE = (256, 256)

VIEWS = (
    ("Sentinel-2, 10 m", BANDS, SENTINEL2, 10.0),
    ("Sentinel-2, 20 m", BANDS, SENTINEL2, 20.0),
    ("Landsat 8, 30 m", LANDSAT8_BANDS, LANDSAT8, 30.0),
)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-m", "--model")
    parser.add_argument("--scenes", type=int, default=24, help="of each kind and view")
    parser.add_argument("--seed", type=int, default=90_000, help="of the first scene")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    print(f"| {model.spec.name} {model.spec.version} |", *(f"{view[0]} |" for view in VIEWS))
    print("|" + "---|" * (len(VIEWS) + 1))
    for ground in GROUNDS:
        cells = []
        for _, bands, optics, pixel_m in VIEWS:
            false = []
            for seed in range(arguments.seed, arguments.seed + arguments.scenes):
                scene = simulate_scene(
                    seed,
                    SIZE,
                    ground=ground,
                    cloud="none",
                    bands=bands,
                    pixel_m=pixel_m,
                    optics=optics,
                )
                mask = model.mask(model.predict(scene.reflectance))
                false.append(100.0 * float((mask == CLOUD).mean()))
            cells.append(f"{np.mean(false):.1f} % ({max(false):.0f} %) |")
        print(f"| {ground} |", *cells, flush=True)


if __name__ == "__main__":
    main()
