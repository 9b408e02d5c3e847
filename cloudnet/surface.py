"""Level-2A: surface reflectance brought back to the top of the atmosphere.

There a net that was trained there knows white cloud from snow, which a few per cent of the bands'
ratios tell. Processors take away clear air over all of a scene, also where it is cloud that keeps
most of the air below it, and by a line in each band: the light on the ground is reckoned for a
surroundings of reflectance 0.15 (ATCOR, from which Sen2Cor comes: Richter and Schläpfer's manual).
So cloud comes out bluer than it was, as much as snow is, and a line brings it back.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudnet.light import SENTINEL2, clear_air
from cloudnet.spec import BANDS

SURROUNDINGS = 0.15
"""Reflectance for which processors reckon the light on the ground."""

USUAL_AEROSOL = 0.2
"""Optical thickness of aerosol at 550 nm that processors are taken to have reckoned with where a
scene does not tell: of a visibility of some 40 km, where Sen2Cor begins."""

USUAL_SUN_DEG = 50.0
"""Zenith angle of the sun where a scene does not tell."""

LOWEST_SUN_DEG = 80.0
"""Zenith angle past which processors reckon no lower sun."""


def clear_sky(
    sun_zenith_deg: float | None = None, aerosol: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return gain and path light of clear air as a processor reckons with it.

    Parameters
    ----------
    sun_zenith_deg
        0 to 90; None: `USUAL_SUN_DEG`.
    aerosol
        Optical thickness at 550 nm; None: `USUAL_AEROSOL`.

    Returns
    -------
    gain, path : (4,) float64
        Of red, green, blue, NIR: reflectance at the top of the atmosphere = path + gain x surface
        reflectance.
    """
    sun = USUAL_SUN_DEG if sun_zenith_deg is None else min(sun_zenith_deg, LOWEST_SUN_DEG)
    haze = USUAL_AEROSOL if aerosol is None else aerosol
    airs = [clear_air(SENTINEL2[band], math.cos(math.radians(sun)), haze, 0.0) for band in BANDS]
    ends = np.array([0.0, SURROUNDINGS])
    path, over_ground = np.array([air.clear(ends) for air in airs]).T
    return (over_ground - path) / SURROUNDINGS, path


def at_top(
    reflectance: Any, sun_zenith_deg: float | None = None, aerosol: float | None = None
) -> Any:
    """Bring surface reflectance to the top of the atmosphere.

    Parameters
    ----------
    reflectance
        (rows, cols, 4), of numpy or dask: red, green, blue, NIR; 1.0 = 100 %. Pixels that are 0 in
        all bands, or not a number, are no data, and stay so.
    sun_zenith_deg, aerosol
        As in `clear_sky`.

    Returns
    -------
    (rows, cols, 4) of the same kind and type.
    """
    gain, path = (part.astype(reflectance.dtype) for part in clear_sky(sun_zenith_deg, aerosol))
    known = (reflectance != 0.0).any(axis=-1, keepdims=True)
    return np.where(known, path + gain * reflectance, reflectance)
