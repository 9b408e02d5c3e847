"""Tiled against whole on a real scene: `python -m tests.benchmarks.tiling MODEL.onnx`."""

from __future__ import annotations

import sys

import numpy as np

from cloudnet.runtime import load_model
from cloudnet.scene import open_scene
from tests.benchmarks import LARGE_SCENE, require_scenes


def main(path: str) -> None:
    """Print the largest difference and the flipped pixels for random tile sizes."""
    require_scenes()
    model = load_model(path)
    with open_scene(LARGE_SCENE) as scene:
        reflectance, valid = scene.read()
    whole = model.predict(reflectance, valid, tile_px=max(valid.shape) + model.spec.stride)
    rng = np.random.default_rng(1)
    for exact in (True, False):
        worst, flips = 0.0, 0
        for tile_px in rng.integers(200, 1200, size=8):
            tiled = model.predict(reflectance, valid, tile_px=int(tile_px), exact=exact)
            worst = max(worst, float(np.nanmax(np.abs(tiled - whole))))
            flips = max(flips, int((model.mask(tiled) != model.mask(whole)).sum()))
        halo = model.spec.exact_halo_px if exact else model.spec.halo_px
        kind = "exact" if exact else "default"
        print(
            f"{kind} halo of {halo} px, 8 tile sizes from 200 to 1200 px: largest difference "
            f"{worst:.1e}, at most {flips} of {valid.size} mask pixels flipped"
        )


if __name__ == "__main__":
    main(sys.argv[1])
