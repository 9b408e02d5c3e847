"""Darkness: whether a scene is darker than the air above it can be, and so no Level-1C."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from cloudnet.scene import Reflectance, Scene
from cloudnet.spec import BANDS

BLUE = BANDS.index("B02")

DARKEST_AIR = 0.03
"""Blue reflectance of black ground at the top of the atmosphere: 0.05 at the sea, and this on a
plateau of 4,500 m, where the air is little more than half."""

DARK_SHARE = 0.01
"""Share of pixels darker than that from which a scene looks corrected for the air."""

LOOKED_AT = 8
"""One in so many rows and columns is looked at."""


class Darkness:
    """How much of a scene is darker in the blue than clear air, counted part by part."""

    def __init__(self) -> None:
        self._seen = self._dark = 0

    def add(self, reflectance: Reflectance, valid: NDArray[np.bool_]) -> None:
        """Look at a part: reflectance (rows, cols, 4), and where there is data (rows, cols)."""
        looked_at = np.s_[::LOOKED_AT, ::LOOKED_AT]
        blue = reflectance[(*looked_at, BLUE)][valid[looked_at]]
        self._seen += blue.size
        self._dark += int((blue < DARKEST_AIR).sum())

    def shows_untold_l2a(self, scene: Scene, levels: Collection[str]) -> bool:
        """Tell whether a scene looks like Level-2A but does not say so, so that it was given as it
        is to a net for other levels."""
        told = scene.level is not None or "L2A" in levels
        return not told and self._dark > DARK_SHARE * self._seen
