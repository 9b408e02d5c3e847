"""Clouds: layers of fractal optical thickness, each kind with its character.

Nothing here knows of the ground. A layer of cloud lives on a torus (its field wraps round), so that
a shadow may fall in from a cloud outside the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cloudnet.errors import SceneError
from cloudnet.fields import (
    Field,
    Size,
    Spectrum,
    fractal_field,
    gaussian,
    log_uniform,
    nearest_cells,
    shifted,
    smooth_size,
)
from cloudnet.light import (
    HAZE_ASYMMETRY,
    ICE_ASYMMETRY,
    WATER_ASYMMETRY,
    Geometry,
    relief_light,
)

BRIGHTEST_SIDE = 2.2
"""Most sunlight on a side of cloud, relative to its level top: under a low sun real towers reach a
reflectance of 1.6."""

TOWER_M = 150.0
"""Relief from which a cloud throws shadow on itself."""


@dataclass(frozen=True)
class CloudLayer:
    """One layer of cloud.

    Attributes
    ----------
    kind
        Of `CLOUDS`.
    thickness
        Optical thickness at 550 nm on a torus (rows, cols), at least as large as the picture.
    base_m, top_m
        Heights, between which lies the relief of the upper side.
    asymmetry
        Of the scattering.
    angstrom
        Exponent by which thickness falls with wavelength: 0 for droplets, above 1 for haze.
    """

    kind: str
    thickness: Field
    base_m: float
    top_m: float
    asymmetry: float = WATER_ASYMMETRY
    angstrom: float = 0.0

    @property
    def relief_m(self) -> Field:
        """Height above the base: thickness grows as depth to the 5/3 (Brenguier et al. 2000)."""
        peak = max(float(self.thickness.max()), 1e-6)
        return (self.top_m - self.base_m) * (self.thickness / peak) ** 0.6


def _torus(size: Size, cell_px: int = 1) -> Size:
    rows, cols = (cell_px * smooth_size(-(-max(n, 48) // cell_px)) for n in size)
    return rows, cols


def _above(field: Field, cover: float) -> Field:
    """How far a field is above the level that a share `cover` of it exceeds; 0 elsewhere."""
    place = (1.0 - cover) * (field.size - 1)
    below = min(int(place), field.size - 2)
    low, high = np.partition(field, (below, below + 1), axis=None)[below : below + 2]
    above: Field = np.maximum(field - (low + np.float32(place - below) * (high - low)), 0.0)
    return above


def _lognormal(field: Field, mean: float, spread: float) -> Field:
    """Positive field of a given mean; optical thickness is near lognormal (Cahalan et al. 1994)."""
    values: Field = np.exp(spread * field + (math.log(mean) - spread**2 / 2))
    return values


def _none(rng: np.random.Generator, size: Size, pixel_m: float) -> CloudLayer:
    return CloudLayer("none", np.zeros(_torus(size), np.float32), 1000.0, 1000.0)


def _cumulus(rng: np.random.Generator, size: Size, pixel_m: float) -> CloudLayer:
    torus, deep = _torus(size), rng.random() ** 2
    outer = rng.uniform(700.0, 2000.0) * (1.0 + 2.0 * deep) / pixel_m
    inner = rng.uniform(100.0, 300.0) / pixel_m
    shape = fractal_field(rng, torus, Spectrum(-2.1, outer, inner_px=inner))
    puffs = Spectrum(-2.4, rng.uniform(250.0, 700.0) / pixel_m, peaked=True, inner_px=inner)
    billow = np.abs(fractal_field(rng, torus, puffs))
    inside = _above(shape - 0.3 * billow, rng.uniform(0.06, 0.6))
    rough = fractal_field(rng, torus, Spectrum(-5 / 3, outer, inner_px=inner / 2))
    peak = rng.uniform(8.0, 24.0) * (1.0 + 3.0 * deep)
    thickness = peak * inside**1.5 * _lognormal(rough, 1.0, 0.4)
    base = rng.uniform(600.0, 1800.0)
    return CloudLayer("cumulus", thickness, base, base + rng.uniform(300, 900) + 2500 * deep)


def _stratocumulus(rng: np.random.Generator, size: Size, pixel_m: float) -> CloudLayer:
    cell = smooth_size(max(int(rng.uniform(400.0, 1800.0) / pixel_m), 4))
    torus = _torus(size, cell)
    distance, _, number = nearest_cells(rng, torus, cell)
    rough = fractal_field(rng, torus, Spectrum(-2.0, 1.5 * cell, inner_px=200 / pixel_m))
    lift = rng.standard_normal(int(number.max()) + 1, dtype=np.float32)[number]
    shape = 0.5 * rough + 0.12 * lift - 1.6 * (distance / cell) ** 2
    inside = _above(shape, rng.uniform(0.4, 0.99))
    thickness = rng.uniform(6.0, 25.0) * inside**1.2 * _lognormal(rough, 1.0, 0.2)
    base = rng.uniform(500.0, 1500.0)
    return CloudLayer("stratocumulus", thickness, base, base + rng.uniform(100.0, 300.0))


def _stratus(rng: np.random.Generator, size: Size, pixel_m: float) -> CloudLayer:
    torus, inner = _torus(size), 300.0 / pixel_m
    stretch, angle = rng.uniform(1.0, 3.0), rng.uniform(0.0, 180.0)
    spectrum = Spectrum(-5 / 3, 4000 / pixel_m, stretch, angle, inner_px=inner)
    sheet = fractal_field(rng, torus, spectrum)
    low, high, rough = (1.0, 120.0, 0.5) if rng.random() < 0.6 else (30.0, 200.0, 0.2)
    thickness = _lognormal(sheet, log_uniform(rng, low, high), rng.uniform(0.02, rough))
    if rng.random() < 0.5:
        edge = fractal_field(rng, torus, Spectrum(-2.3, 6000 / pixel_m, inner_px=inner))
        inside = _above(edge + 0.15 * sheet, rng.uniform(0.4, 0.95))
        thickness *= np.minimum(inside, 1.0) ** 1.3
    base = rng.uniform(200.0, 2500.0)
    return CloudLayer("stratus", thickness, base, base + rng.uniform(20.0, 150.0))


def _altocumulus(rng: np.random.Generator, size: Size, pixel_m: float) -> CloudLayer:
    torus, inner = _torus(size), 150.0 / pixel_m
    length, stretch, angle = rng.uniform(200, 600), rng.uniform(1, 4), rng.uniform(0, 180)
    waves = fractal_field(rng, torus, Spectrum(-3.5, length / pixel_m, stretch, angle, True))
    patch = fractal_field(rng, torus, Spectrum(-2.4, 4000 / pixel_m, inner_px=inner))
    inside = _above(patch + 0.45 * waves, rng.uniform(0.25, 0.95))
    thickness = rng.uniform(2.0, 9.0) * inside**1.2
    base = rng.uniform(2500.0, 5500.0)
    return CloudLayer("altocumulus", thickness, base, base + rng.uniform(20.0, 120.0), 0.82)


def _cirrus(rng: np.random.Generator, size: Size, pixel_m: float) -> CloudLayer:
    torus, angle, stretch = _torus(size), rng.uniform(0.0, 180.0), rng.uniform(2.5, 9.0)
    streaks = fractal_field(rng, torus, Spectrum(-2.4, 3500 / pixel_m, stretch, angle))
    turned = angle + rng.normal(0.0, 10.0)
    fibres = fractal_field(rng, torus, Spectrum(-1.5, 600 / pixel_m, 1.3 * stretch, turned))
    veil = fractal_field(rng, torus, Spectrum(-3.0, 6000 / pixel_m, 2.0, angle))
    shape, mean = veil + 0.5 * streaks, log_uniform(rng, 0.3, 2.5)
    if rng.random() < 0.4:  # cirrostratus, a veil without gaps
        inside, rough = np.exp(0.3 * shape), 0.25
    else:
        inside, rough = _above(shape, rng.uniform(0.3, 1.0)), 0.45
    thickness = inside * _lognormal(0.9 * streaks + 0.3 * fibres, mean, rough)
    base = rng.uniform(7000.0, 11000.0)
    return CloudLayer("cirrus", thickness, base, base, ICE_ASYMMETRY)


def _contrail(rng: np.random.Generator, size: Size, pixel_m: float) -> CloudLayer:
    veil = _cirrus(rng, (size[0] + 32, size[1] + 32), pixel_m)
    rows, cols = veil.thickness.shape
    # counted from -16, so that the lines break in the margin and not at the picture's edge
    row, col = ((np.arange(n, dtype=np.float32) + 16) % n - 16 for n in (rows, cols))
    angle = rng.uniform(0.0, math.pi)
    across = math.cos(angle) * row[:, None] + math.sin(angle) * col
    rough = fractal_field(rng, (rows, cols), Spectrum(-2.0, 800 / pixel_m))
    thickness = veil.thickness * rng.uniform(0.0, 0.3)
    for _ in range(int(rng.integers(1, 4))):
        width = rng.uniform(80.0, 500.0) / pixel_m
        middle = across[int(rng.integers(size[0])), int(rng.integers(size[1]))]
        line = np.exp(-(((across - middle) / width + 0.3 * rough) ** 2))
        thickness += rng.uniform(0.4, 1.8) * line * _lognormal(rough, 1.0, 0.5)
    return CloudLayer("contrail", thickness, veil.base_m, veil.top_m, ICE_ASYMMETRY)


def _haze(rng: np.random.Generator, size: Size, pixel_m: float) -> CloudLayer:
    stretch, angle = rng.uniform(1.0, 3.0), rng.uniform(0.0, 180.0)
    smooth = fractal_field(rng, _torus(size), Spectrum(-3.0, 5000 / pixel_m, stretch, angle))
    thickness = _lognormal(smooth, log_uniform(rng, 0.25, 1.5), rng.uniform(0.2, 0.7))
    return CloudLayer("haze", thickness, 1000.0, 1000.0, HAZE_ASYMMETRY, rng.uniform(0.8, 1.6))


_DRAWERS = (_none, _cumulus, _stratocumulus, _stratus, _altocumulus, _cirrus, _contrail, _haze)
_LAYERS = {draw.__name__[1:]: draw for draw in _DRAWERS}
CLOUDS = tuple(_LAYERS)
"""Kinds of cloud, "none" the first."""


def cloud_layer(kind: str, rng: np.random.Generator, size: Size, pixel_m: float) -> CloudLayer:
    """Draw a layer of one of `CLOUDS` for a picture of `size` (rows, cols).

    Raises
    ------
    SceneError
        When there is no such kind.
    """
    if kind not in _LAYERS:
        raise SceneError(f"no kind of cloud is called {kind!r}; there are {', '.join(CLOUDS)}")
    return _LAYERS[kind](rng, size, pixel_m)


def shading(layer: CloudLayer, geometry: Geometry, contrast: float, softness_m: float) -> Field:
    """Sunlight on the upper side of a cloud (rows, cols), relative to a level top.

    In real decks under a low sun the sides that lie in shadow are a fifth as bright as the lit
    ones.

    Parameters
    ----------
    layer, geometry
        The cloud; the sun and the pixels.
    contrast
        How much less light there is in the shade: 1 for none at all.
    softness_m
        Over what length light spreads within the cloud.
    """
    relief = gaussian(layer.relief_m, max(softness_m / geometry.pixel_m, 1.0))
    light = relief_light(relief, geometry)
    if layer.top_m - layer.base_m > TOWER_M:
        light *= _unshaded(relief, geometry)
    lit: Field = np.clip(1.0 + contrast * (light - 1.0), 1.0 - contrast, BRIGHTEST_SIDE)
    return lit


def _unshaded(relief_m: Field, geometry: Geometry) -> Field:
    """Share of the sunlight that higher parts of a torus let pass: what comes by farther below
    their top is cut off the more, as the edges of clouds are thin."""
    size = (relief_m.shape[0], relief_m.shape[1])
    fall = geometry.pixel_m / math.tan(math.radians(max(geometry.sun_zenith_deg, 1.0)))
    reach_px = min(float(np.ptp(relief_m)) / fall, min(size) / 2)
    # Height of the shadow: of all places within a reach, then within twice that, and so on.
    shadow, step = relief_m, 1
    while step < reach_px:
        back = (-step * geometry.to_sun[0], -step * geometry.to_sun[1])
        shadow = np.maximum(shadow, shifted(shadow, back, size) - step * fall)
        step *= 2
    share: Field = np.exp((relief_m - shadow) * (1.0 / TOWER_M))
    return share
