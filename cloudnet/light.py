"""Light: bands, the sun, two-stream reflectance of cloud, and the air above and below it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cloudnet.errors import SceneError
from cloudnet.fields import Field

WATER_ASYMMETRY = 0.85
"""Of scattering by cloud droplets of some 10 um in the visible (Hu and Stamnes 1993)."""

ICE_ASYMMETRY = 0.75
"""Of scattering by rough ice crystals (Fu 2007)."""

HAZE_ASYMMETRY = 0.65
"""Of scattering by fine aerosol (Dubovik et al. 2002)."""

AIR_SCALE_M, HAZE_SCALE_M = 8400.0, 2000.0
"""Heights in which air, and aerosol and water vapour, thin out by a factor of e."""


EVEN_SKY = (0.3, 1.0)
"""What share of the light that air scatters falls on all slopes alike; the rest comes from about
the sun, or is lost upwards. By one number a net told snow from cloud by the colour of its shades,
and took real hills of snow, whose shades are greyer, for cloud."""


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
        Optical thickness, straight down, of ozone (300 DU, of which nine tenths lie above any
        cloud) and of oxygen; coarse, after the Chappuis bands of Serdyuchenko et al. 2014. Under a
        low sun it takes a tenth of the green light and leaves the blue: what tells such a scene,
        whose snow has clouds' ratio of NIR to red.
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
    "B01": Band(0.443, 2.314, 0.001, 0.00, 0.00, 0.00),
    "B02": Band(0.492, 0.000, 0.008, 0.00, 0.00, 0.00),
    "B03": Band(0.560, 0.527, 0.031, 0.00, 0.00, 0.00),
    "B04": Band(0.665, 1.005, 0.015, 0.01, 0.00, 0.00),
    "B05": Band(0.704, 1.269, 0.006, 0.04, 0.00, 0.00),
    "B06": Band(0.740, 1.525, 0.003, 0.04, 0.00, 0.00),
    "B07": Band(0.783, 1.790, 0.001, 0.02, 0.00, 0.00),
    "B08": Band(0.833, 0.264, 0.000, 0.06, 0.00, 0.00),
    "B8A": Band(0.865, 2.055, 0.000, 0.01, 0.00, 0.01),
    "B09": Band(0.945, 2.586, 0.000, 1.20, 0.00, 0.02),
    "B10": Band(1.374, 0.851, 0.000, 20.0, 0.05, 0.15),
    "B11": Band(1.610, 1.468, 0.010, 0.03, 0.25, 0.75),
    "B12": Band(2.190, 2.085, 0.010, 0.06, 0.50, 0.90),
}

LANDSAT8: Mapping[str, Band] = {
    "B02": Band(0.482, 0.227, 0.006, 0.00, 0.00, 0.00),
    "B03": Band(0.561, 0.527, 0.031, 0.00, 0.00, 0.00),
    "B04": Band(0.655, 0.827, 0.018, 0.01, 0.00, 0.00),
    "B8A": Band(0.865, 1.127, 0.000, 0.01, 0.00, 0.01),
}
"""The Operational Land Imager's blue, green, red and NIR by the names of Sentinel-2's nearest.
Ozone takes more of its red, which shows on snow under a low sun; the lags are coarse."""

LANDSAT8_BANDS = ("B04", "B03", "B02", "B8A")
"""Its red, green, blue and NIR."""


@dataclass(frozen=True)
class Geometry:
    """Where the sun stands and how large a pixel is; the satellite looks straight down.

    `sun_azimuth_deg` is counted clockwise from north; rows run from north to south.
    """

    sun_zenith_deg: float
    sun_azimuth_deg: float
    pixel_m: float = 20.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.sun_zenith_deg <= 84.0:
            raise SceneError(f"a sun zenith of {self.sun_zenith_deg} degrees is not within 0 to 84")
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


def light_on_sides(sunlight: Field, sky_share: Field | float) -> Field:
    """Light on a relief relative to level ground, where the sun's alone is `sunlight`.

    The sky lights all sides alike, and is blue: those in the sun are yellower than level ground,
    those in the shade bluer, the more the lower the sun stands.
    """
    return sky_share + (1.0 - sky_share) * sunlight


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


def overhead_share(cos_sun: float, sky_share: float, bend: float) -> float:
    """How bright snow or thick cloud looks from straight above, relative to its flux.

    Under a low sun both throw light forwards, so that less goes up: a fifth less at 80 degrees
    (snow: Hudson et al. 2006; cloud: Loeb and Davies 1996). Light from the sky, which is blue, goes
    up as well as ever: what looks white there under a high sun turns bluer.

    Parameters
    ----------
    cos_sun
        Cosine of the sun's zenith angle.
    sky_share
        Share of light that comes from the sky.
    bend
        How much less goes up with the sun at the horizon; below 0: more.
    """
    return 1.0 - (1.0 - sky_share) * bend * (1.0 - cos_sun) ** 2


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
    sky_share_above: float
    albedo_above: float
    albedo_below: float

    def clear(self, surface: Field) -> Field:
        """Reflectance at the top of clear air over a surface.

        What the surface throws up comes back in part, the more the bluer: between air of spherical
        albedo S and a surface A, A / (1 - A S) goes up (Chandrasekhar 1960), which over snow adds a
        sixth of the blue light and a fiftieth of the NIR.
        """
        seen = self.path_below + self.pass_below * surface / (1.0 - self.albedo_below * surface)
        light = self.pass_above * self.gas * seen / (1.0 - self.albedo_above * seen)
        return self.gas_above * self.path_above + light

    def surface(self, clear: Field) -> Field:
        """Inverse of `clear`, within 0 to 1."""
        above = (clear - self.gas_above * self.path_above) / (self.pass_above * self.gas)
        below = (above / (1.0 + self.albedo_above * above) - self.path_below) / self.pass_below
        surface: Field = np.clip(below / (1.0 + self.albedo_below * below), 0.0, 1.0)
        return surface


def clear_air(
    band: Band, cos_sun: float, aerosol: float, height_m: float, ozone_share: float = 1.0
) -> Air:
    """Air with an optical thickness of aerosol at 550 nm, parted at a height.

    What passes follows the two-stream equations; path light is single scattering, attenuated, with
    Rayleigh's phase function for a view straight down (Hansen and Travis 1974, equation 2.18) and
    0.25 for aerosol seen backwards, its Angstrom exponent 1.3, and a tenth more for light that is
    scattered again. `ozone_share` is the ozone column over 300 DU.
    """
    fine = aerosol * (band.wavelength_um / 0.55) ** -1.3
    molecules = rayleigh_thickness(band.wavelength_um)
    high = _Layer(
        molecules * math.exp(-height_m / AIR_SCALE_M), fine * math.exp(-height_m / HAZE_SCALE_M)
    )
    low = _Layer(molecules - high.molecules, fine - high.fine)
    whole = _Layer(molecules, fine)
    pass_above, path_above = high.passed(cos_sun), high.path_light(cos_sun)
    ozone = math.exp(-band.ozone * ozone_share * (1.0 + 1.0 / cos_sun))
    return Air(
        path_above=path_above,
        path_below=(whole.path_light(cos_sun) - path_above) / pass_above,
        pass_above=pass_above,
        pass_below=whole.passed(cos_sun) / pass_above,
        gas_above=ozone * math.exp(-band.vapour * math.exp(-height_m / HAZE_SCALE_M)),
        gas=ozone * math.exp(-band.vapour),
        sky_share=whole.sky_share(cos_sun),
        sky_share_above=high.sky_share(cos_sun),
        albedo_above=high.albedo,
        albedo_below=low.albedo,
    )


@dataclass(frozen=True)
class _Layer:
    """Optical thickness of molecules and of fine aerosol in a layer of air."""

    molecules: float
    fine: float

    @property
    def thickness(self) -> float:
        return max(self.molecules + self.fine, 1e-9)

    @property
    def asymmetry(self) -> float:
        return HAZE_ASYMMETRY * self.fine / self.thickness

    @property
    def albedo(self) -> float:
        """Share of light from all directions that is thrown back."""
        return float(diffuse_reflectance(np.array(self.thickness), self.asymmetry))

    def sky_share(self, cos_sun: float) -> float:
        """Share of the light below that comes from the sky; half of what aerosol scatters goes on
        as if it came from the sun."""
        return 1.0 - math.exp(-(self.molecules + self.fine / 2) / cos_sun)

    def passed(self, cos_sun: float) -> float:
        """Share of sunlight that comes down, and up again."""
        down, up = (
            float(two_stream(np.array(self.thickness), cosine, self.asymmetry)[1])
            for cosine in (cos_sun, 1.0)
        )
        return down * up

    def path_light(self, cos_sun: float) -> float:
        """Reflectance of the layer, seen straight down."""
        phase = self.molecules * 0.75 * (1.0 + cos_sun**2) + self.fine * 0.25
        slant = 1.0 + 1.0 / cos_sun
        reached = -math.expm1(-self.thickness * slant) / (4.0 * (1.0 + cos_sun))
        return 1.1 * phase / self.thickness * reached
