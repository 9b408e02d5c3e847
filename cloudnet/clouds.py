"""Clouds and their light: fractal optical thickness, two-stream reflectance, where shadows fall.

Nothing here knows of the ground. A layer of cloud lives on a torus (its field wraps round), so that
a shadow may fall in from a cloud outside the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudnet.errors import SceneError

Field = NDArray[np.floating[Any]]
"""A picture (rows, cols), float32 wherever it comes out of this package."""

Size = tuple[int, int]
"""(rows, cols)."""

WATER_ASYMMETRY = 0.85
"""Of scattering by cloud droplets of some 10 um in the visible (Hu and Stamnes 1993)."""

ICE_ASYMMETRY = 0.75
"""Of scattering by rough ice crystals (Fu 2007)."""

HAZE_ASYMMETRY = 0.65
"""Of scattering by fine aerosol (Dubovik et al. 2002)."""

AIR_SCALE_M, HAZE_SCALE_M = 8400.0, 2000.0
"""Heights in which air, and aerosol and water vapour, thin out by a factor of e."""


@dataclass(frozen=True)
class Band:
    """What air and cloud do in one band of the Multi-Spectral Instrument.

    Attributes
    ----------
    wavelength_um
        Centre (Sentinel-2 User Handbook, ESA 2015).
    lag_s
        How much later than B02 the band sees the same ground (the handbook's values; Binet et al.
        2022 found them true to 2 %). With a cloud's height it gives the parallax.
    ozone
        Transmittance of ozone and oxygen, in and out; coarse.
    vapour
        Optical thickness of water vapour, in and out; coarse. B10 is blind below some 5 km.
    droplet, crystal
        Share of its light that a bright cloud of water or of ice absorbs; 0 in the visible.
    """

    wavelength_um: float
    lag_s: float
    ozone: float
    vapour: float
    droplet: float
    crystal: float


SENTINEL2: Mapping[str, Band] = {
    "B01": Band(0.443, 2.314, 0.99, 0.00, 0.00, 0.00),
    "B02": Band(0.492, 0.000, 0.98, 0.00, 0.00, 0.00),
    "B03": Band(0.560, 0.527, 0.93, 0.00, 0.00, 0.00),
    "B04": Band(0.665, 1.005, 0.95, 0.01, 0.00, 0.00),
    "B05": Band(0.704, 1.269, 0.98, 0.04, 0.00, 0.00),
    "B06": Band(0.740, 1.525, 0.99, 0.04, 0.00, 0.00),
    "B07": Band(0.783, 1.790, 1.00, 0.02, 0.00, 0.00),
    "B08": Band(0.833, 0.264, 1.00, 0.06, 0.00, 0.00),
    "B8A": Band(0.865, 2.055, 1.00, 0.01, 0.00, 0.01),
    "B09": Band(0.945, 2.586, 1.00, 1.20, 0.00, 0.02),
    "B10": Band(1.374, 0.851, 1.00, 20.0, 0.05, 0.15),
    "B11": Band(1.610, 1.468, 0.98, 0.03, 0.25, 0.75),
    "B12": Band(2.190, 2.085, 0.98, 0.06, 0.50, 0.90),
}


@dataclass(frozen=True)
class Geometry:
    """Where the sun stands and how large a pixel is; the satellite looks straight down.

    `sun_azimuth_deg` is counted clockwise from north; rows run from north to south.
    """

    sun_zenith_deg: float
    sun_azimuth_deg: float
    pixel_m: float = 20.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.sun_zenith_deg <= 80.0:
            raise SceneError(f"a sun zenith of {self.sun_zenith_deg} degrees is not within 0 to 80")
        if not 0.0 <= self.sun_azimuth_deg <= 360.0:
            raise SceneError(f"a sun azimuth of {self.sun_azimuth_deg} is not within 0 to 360")
        if not 0.0 < self.pixel_m < math.inf:
            raise SceneError(f"a pixel of {self.pixel_m} m is not of positive size")

    @property
    def cos_sun(self) -> float:
        """Cosine of the sun's zenith angle."""
        return math.cos(math.radians(self.sun_zenith_deg))

    @property
    def to_sun(self) -> tuple[float, float]:
        """Unit vector on the ground towards the sun, (rows, cols)."""
        azimuth = math.radians(self.sun_azimuth_deg)
        return -math.cos(azimuth), math.sin(azimuth)

    def shadow_px(self, height_m: float) -> tuple[float, float]:
        """Way from a cloud at `height_m` to its shadow, (rows, cols): away from the sun."""
        reach = height_m * math.tan(math.radians(self.sun_zenith_deg)) / self.pixel_m
        return -self.to_sun[0] * reach, -self.to_sun[1] * reach


def relief_light(height_m: Field, geometry: Geometry) -> Field:
    """Sunlight on a relief (rows, cols) relative to level ground, not below 0.

    The cosine of incidence over the cosine of the sun's zenith (Teillet et al. 1982).
    """
    if min(height_m.shape) < 2:
        return np.ones_like(height_m)
    south, east = np.gradient(height_m, geometry.pixel_m)
    to_row, to_col = geometry.to_sun
    rise = math.tan(math.radians(geometry.sun_zenith_deg)) * (to_row * south + to_col * east)
    light: Field = np.maximum((1.0 - rise) / np.sqrt(1.0 + south**2 + east**2), 0.0)
    return light


# Fields


@dataclass(frozen=True)
class Spectrum:
    """Power spectrum of a random field.

    Attributes
    ----------
    slope
        Of the power along a line against wavenumber: -5/3 for turbulence, -3 for smooth fields.
    outer_px
        Wavelength above which the power stays level.
    stretch, angle_deg
        Structures are `stretch` times longer along this direction, counted from the column axis
        towards lower rows.
    peaked
        Power falls off above `outer_px` too, so that structures of that size repeat.
    inner_px
        Wavelength below which the slope is steeper by 2: light leaks sideways in a cloud, which
        smooths it below some 200 m (the Landsat scale break of Davis et al. 1997).
    """

    slope: float
    outer_px: float
    stretch: float = 1.0
    angle_deg: float = 0.0
    peaked: bool = False
    inner_px: float = 0.0

    def amplitude(self, size: Size) -> Field:
        """Amplitude (rows, cols // 2 + 1) of the waves of a real transform of `size`."""
        down, across = _wavenumbers(size)
        cos, sin = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        squared = (self.stretch * (cos * across - sin * down)) ** 2 + (
            sin * across + cos * down
        ) ** 2
        outer = 1.0 / self.outer_px**2
        amplitude: Field = np.exp(np.log(squared + outer) * ((self.slope - 1.0) / 4.0))
        if self.peaked:
            amplitude *= (squared / (squared + outer)) ** 2
        if self.inner_px > 0.0:
            amplitude /= np.sqrt(1.0 + self.inner_px**2 * squared)
        amplitude[0, 0] = 0.0
        return amplitude


@lru_cache(maxsize=8)
def _wavenumbers(size: Size) -> tuple[Field, Field]:
    down = np.fft.fftfreq(size[0]).astype(np.float32)[:, None]
    return down, np.fft.rfftfreq(size[1]).astype(np.float32)[None, :]


def smooth_size(least: int) -> int:
    """Smallest length of at least `least` with no prime factor above 5: a quick transform."""
    size = max(least, 1)
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 1


def fractal_field(rng: np.random.Generator, size: Size, spectrum: Spectrum) -> Field:
    """Random periodic field (rows, cols) with a power spectrum; mean 0, standard deviation 1.

    Spectral synthesis (Saupe 1988; for clouds Barker and Davies 1992): Gaussian noise for each
    wave, weighted by the root of the spectrum.
    """
    waves = rng.standard_normal((size[0], size[1] // 2 + 1, 2), dtype=np.float32)
    noise = waves.view(np.complex64)[..., 0] * spectrum.amplitude(size)
    field: Field = np.fft.irfft2(noise, s=size).astype(np.float32, copy=False)
    field -= field.mean()
    spread = float(field.std())
    return field / spread if spread > 0.0 else field


def nearest_cells(
    rng: np.random.Generator, size: Size, cell_px: int
) -> tuple[Field, Field, NDArray[np.int32]]:
    """Voronoi cells of one random point in every square of `cell_px`.

    They wrap round where `cell_px` divides `size`. Returns, each (rows, cols), the distance to the
    nearest point and how much farther the second nearest is, in pixels, and the nearest's number.
    Only the next squares are searched, which seldom matters.
    """
    count = tuple(-(-n // cell_px) for n in size)
    places = rng.random((2, *count), dtype=np.float32)
    steps = np.arange(cell_px, dtype=np.float32)
    shape = (count[0], cell_px, count[1], cell_px)
    nearest = np.full(shape, np.inf, np.float32)
    second = nearest.copy()
    number = np.zeros(shape, np.int32)
    numbers = np.arange(count[0] * count[1], dtype=np.int32).reshape(count)
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            there = np.roll(places, (-down, -across), (1, 2))
            rows = steps[None, :, None] - cell_px * (there[0] + down)[:, None, :]
            cols = steps - cell_px * (there[1] + across)[:, :, None]
            squared = rows[..., None] ** 2 + cols[:, None] ** 2
            closer = squared < nearest
            second = np.minimum(second, np.maximum(squared, nearest))
            np.minimum(nearest, squared, out=nearest)
            label = np.roll(numbers, (-down, -across), (0, 1))
            np.copyto(number, label[:, None, :, None], where=closer)
    whole = (count[0] * cell_px, count[1] * cell_px)
    first = np.sqrt(nearest).reshape(whole)[: size[0], : size[1]]
    gap = np.sqrt(second).reshape(whole)[: size[0], : size[1]] - first
    return first, gap, number.reshape(whole)[: size[0], : size[1]]


# Layers


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
    return np.maximum(field - np.quantile(field, 1.0 - cover).astype(field.dtype), 0.0)


def _lognormal(field: Field, mean: float, spread: float) -> Field:
    """Positive field of a given mean; optical thickness is near lognormal (Cahalan et al. 1994)."""
    values: Field = np.exp(spread * field + (math.log(mean) - spread**2 / 2))
    return values


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


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
    thickness = _lognormal(sheet, _log_uniform(rng, 4.0, 50.0), rng.uniform(0.08, 0.5))
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
    inside = _above(veil + 0.5 * streaks, rng.uniform(0.3, 1.0))
    mean = _log_uniform(rng, 0.3, 2.5)
    thickness = inside * _lognormal(0.9 * streaks + 0.3 * fibres, mean, 0.45)
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
    thickness = _lognormal(smooth, _log_uniform(rng, 0.25, 1.5), rng.uniform(0.2, 0.7))
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


# Light


def two_stream(thickness: Field, cos_sun: float, asymmetry: float) -> tuple[Field, Field]:
    """Reflectance and transmittance of sunlight by a layer that absorbs nothing; their sum is 1.

    Eddington's solution for conservative scattering (Meador and Weaver 1980, equation 24 and table
    1) after delta scaling (Joseph, Wiscombe and Weinman 1976). Thick layers near the well-known
    (1 - g) t / (4/3 + (1 - g) t).
    """
    scaled = (1.0 - asymmetry**2) * thickness
    g = asymmetry / (1.0 + asymmetry)
    first, third = 0.75 * (1.0 - g), 0.25 * (2.0 - 3.0 * g * cos_sun)
    beam = -np.expm1(scaled * (-1.0 / cos_sun))
    slow = first * scaled
    reflectance = (slow + (third - first * cos_sun) * beam) / (1.0 + slow)
    return reflectance, 1.0 - reflectance


def diffuse_reflectance(thickness: Field, asymmetry: float) -> Field:
    """Reflectance of light from all directions: Eddington's, as in `two_stream`."""
    slow = (0.75 * (1.0 - asymmetry)) * thickness
    return slow / (1.0 + slow)


def direct_transmittance(thickness: Field, cosine: float, asymmetry: float) -> Field:
    """Light that passes straight on or nearly so: Beer's law after delta scaling."""
    direct: Field = np.exp((-(1.0 - asymmetry**2) / cosine) * thickness)
    return direct


def rayleigh_thickness(wavelength_um: float) -> float:
    """Optical thickness of a whole atmosphere's molecules (Hansen and Travis 1974)."""
    square = wavelength_um**-2
    return 0.008569 * square**2 * (1.0 + 0.0113 * square + 0.00013 * square**2)


@dataclass(frozen=True)
class Air:
    """Clear air in one band: what it adds and lets pass, above the height of a cloud and below."""

    path_above: float
    path_below: float
    pass_above: float
    pass_below: float
    gas_above: float
    gas: float
    sky_share: float

    def clear(self, surface: Field) -> Field:
        """Reflectance at the top of clear air over a surface."""
        seen = self.path_below + self.pass_below * surface
        return self.gas_above * self.path_above + self.pass_above * self.gas * seen

    def surface(self, clear: Field) -> Field:
        """Inverse of `clear`, within 0 to 1."""
        seen = (clear - self.gas_above * self.path_above) / (self.pass_above * self.gas)
        surface: Field = np.clip((seen - self.path_below) / self.pass_below, 0.0, 1.0)
        return surface


def clear_air(band: Band, cos_sun: float, aerosol: float, height_m: float) -> Air:
    """Air with an optical thickness of aerosol at 550 nm, parted at a height.

    Path light by single scattering, with Rayleigh's phase function for a view straight down (Hansen
    and Travis 1974) and 0.25 for aerosol seen backwards, its Angstrom exponent 1.3; half of the
    Rayleigh and a sixth of the aerosol thickness is lost on each way.
    """
    fine = aerosol * (band.wavelength_um / 0.55) ** -1.3
    molecules = rayleigh_thickness(band.wavelength_um)
    high_fine = fine * math.exp(-height_m / HAZE_SCALE_M)
    high_molecules = molecules * math.exp(-height_m / AIR_SCALE_M)
    path = (molecules * 0.75 * (1.0 + cos_sun**2) + fine * 0.25) / (4.0 * cos_sun)
    share = (high_molecules + high_fine) / (molecules + fine)
    lost, lost_above = molecules / 2 + fine / 6, high_molecules / 2 + high_fine / 6
    slant = 1.0 + 1.0 / cos_sun
    pass_above = math.exp(-lost_above * slant)
    return Air(
        path_above=path * share,
        path_below=path * (1.0 - share) / pass_above,
        pass_above=pass_above,
        pass_below=math.exp((lost_above - lost) * slant),
        gas_above=band.ozone * math.exp(-band.vapour * math.exp(-height_m / HAZE_SCALE_M)),
        gas=band.ozone * math.exp(-band.vapour),
        sky_share=1.0 - math.exp(-(molecules + fine - lost) / cos_sun),
    )
