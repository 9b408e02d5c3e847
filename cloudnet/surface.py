"""Level-2A: what a correction for clear air makes of reflectance at the top of the atmosphere.

Processors such as Sen2Cor (Main-Knorn et al. 2017, doi:10.1117/12.2278218) reckon with clear air
over all of a scene. Over cloud, which has most of the air below it, they take away light that the
air never added: cloud loses blue, and is told from snow by other colours than at the top of the
atmosphere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloudnet.light import Band, clear_air
from cloudnet.spec import DARKEST


@dataclass(frozen=True)
class ClearAir:
    """The air that a processor reckons with: optical thickness of aerosol at 550 nm, ozone column
    over 300 DU, and the cosine of the sun's zenith angle."""

    aerosol: float
    ozone_share: float
    cos_sun: float


def surface_reflectance(
    reflectance: NDArray[np.float32],
    air: ClearAir,
    optics: Mapping[str, Band],
    bands: Sequence[str],
) -> NDArray[np.float32]:
    """Correct reflectance at the top of the atmosphere for clear air.

    Aerosol is never so thick that the darkest pixel falls below 0: processors see that, and take
    the air to be clearer.

    Parameters
    ----------
    reflectance
        (rows, cols, bands) float32, 1.0 = 100 %; 0 in all bands where there is no data.
    air
        What the processor reckons with.
    optics, bands
        Of the instrument, and which of its bands these are, in order.

    Returns
    -------
    (rows, cols, bands) float32, not below DARKEST, above 1 over bright cloud; 0 where there is no
    data.
    """
    known = (reflectance > 0.0).any(axis=2)
    surface = np.empty_like(reflectance)
    for index, band in enumerate(bands):
        clear = clear_air(optics[band], air.cos_sun, air.aerosol, 0.0, air.ozone_share)
        seen = reflectance[..., index]
        darkest = float(seen.min(where=known, initial=math.inf))
        too_dark = max(clear.gas_above * clear.path_above - darkest, 0.0)
        np.maximum(clear.corrected(seen + too_dark), DARKEST, out=surface[..., index])
    surface[~known] = 0.0
    return surface
