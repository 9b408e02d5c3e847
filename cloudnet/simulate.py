"""Simulated scenes: ground, air and cloud put together, with labels that are exact.

Light follows the adding of layers (Liou 2002, section 6.4). It reaches the ground through the cloud
that stands between it and the sun, so that shadows lie away from the sun; the ground is seen
through the cloud straight above it, and light goes to and fro between the two:

    R = Rc + E Td A / (1 - A Rd)

with Rc the cloud's reflectance of sunlight, E the light that reaches the ground (below an even
sheet the cloud's transmittance), Td and Rd the cloud's transmittance and reflectance of diffuse
light, and A the surface. Air above the cloud adds its own light; that of the air below is veiled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cloudnet.clouds import CLOUDS, CloudLayer, cloud_layer, shading
from cloudnet.errors import SceneError
from cloudnet.fields import Field, Size, gaussian, log_uniform, normal_values, shifted
from cloudnet.ground import GROUNDS, Site, ground_reflectance
from cloudnet.light import (
    EVEN_SKY,
    ICE_ASYMMETRY,
    SENTINEL2,
    Air,
    Band,
    Geometry,
    clear_air,
    diffuse_reflectance,
    direct_transmittance,
    light_on_sides,
    overhead_share,
    two_stream,
)
from cloudnet.spec import BANDS, CLEAR, CLOUD, NO_DATA

CLOUD_THICKNESS = 0.2
"""Optical thickness from which a pixel is cloud. Over dark ground it adds some 0.02 of reflectance,
which the eye sees in a picture: thin cloud counts as cloud."""

HAZE_DOUBT = 4.0
"""How many times as thick as cloud haze has to be to count as such; thinner, people differ."""

WHITE_UNSEEN, WHITE_THICKNESS = 2.0, 6.0
"""Optical thickness up to which nobody sees cloud over white ground, so that it counts as clear,
and from which it is seen. Were all below the second unlabelled, no clear snow would have the
colours of some real plateaus, which are those of snow under a veil."""

DARK_BLUE, WHITE_BLUE = 0.2, 0.6
"""Blue reflectance up to which ground counts as dark, and from which as white."""

DOUBT = 1.5
"""Within this factor of CLOUD_THICKNESS, both ways, pixels are unlabelled: people differ there."""

WHITE_GROUNDS = ("snow", "ice", "glacier", "plateau")
"""Kinds of ground that throw light forwards; see `overhead_share`."""

SUN_ZENITH_DEG = {
    **dict.fromkeys(("snow", "ice", "glacier", "taiga"), (35.0, 79.0)),
    "plateau": (55.0, 83.0),
}
"""Where the sun stands over ground that is found at high latitudes."""

USUAL_SUN_DEG, LOW_SUN_DEG, LOW_SUN_SHARE = (18.0, 68.0), (60.0, 82.0), 0.3
"""Where it stands elsewhere, and over a share of scenes of any ground: in winter clouds too are
seen by light that came the long way through ozone, which makes them yellow (half of the real
ones of SEN12MS-CR: red over green above 1.10)."""

SNOW_BEND = (-0.3, 0.5)
"""How much less light snow throws straight up under a low sun, see `overhead_share`: crusts and
sastrugi do otherwise than an even field. Were it never below 0.1, as it seemed from fluxes, snow
would be darker than the real plateaus of Landsat are, by a fifth where the colours are the same,
and a net would take those for cloud."""

DARKEST = 1e-4
"""Least reflectance: one step of Sentinel-2's numbers, whose 0 means no data."""

CLOUD_SOFTNESS_M = (25.0, 120.0)
"""Over how much light spreads sideways within a cloud: its relief shows no finer than that (the
Landsat scale break of Davis et al. 1997). Decks lit pixel by pixel look like snowy mountains."""

FAR_AEROSOL, AEROSOL = (0.03, 0.2), (0.03, 0.35)
"""Optical thickness of aerosol at high latitudes, far from its sources, and elsewhere, where it is
often hazy below clouds too (Levy et al. 2013)."""

NOISE_SHARES = (0.02, 1.0)
"""Noise of an image over what is allowed, in variance: real instruments have a tenth of it, and
images that were resampled less. Were it one number, a net would tell simulated tiles by it."""

PARALLAX_PER_S = 7.45 / 786.0
"""Shift of a cloud per metre of height and second of lag: orbital speed over height (km/s, km)."""

TRACK_AZIMUTH_DEG = 194.0
"""Heading of a descending Sentinel-2 at middle latitudes."""


@dataclass(frozen=True)
class SimulatedScene:
    """A scene and the truth about it.

    Attributes
    ----------
    reflectance
        (rows, cols, bands) float32 at the top of the atmosphere, 1.0 = 100 %.
    label
        (rows, cols) uint8: 0 clear, 1 cloud, 255 unlabelled.
    shadow
        (rows, cols) bool: clear ground that a cloud keeps from direct sunlight.
    optical_thickness
        (rows, cols) float32 of the cloud at 550 nm, where B03 sees it.
    ground, cloud
        Kinds, of `GROUNDS` ("given" for a scene of the caller's) and of `CLOUDS`.
    """

    reflectance: NDArray[np.float32]
    label: NDArray[np.uint8]
    shadow: NDArray[np.bool_]
    optical_thickness: NDArray[np.float32]
    ground: str
    cloud: str

    def __post_init__(self) -> None:
        if self.reflectance.ndim != 3 or self.reflectance.dtype != np.float32:
            raise SceneError("a simulated scene's reflectance is not (rows, cols, bands) float32")
        size = self.reflectance.shape[:2]
        wanted = {"label": np.uint8, "shadow": np.bool_, "optical_thickness": np.float32}
        for name, dtype in wanted.items():
            array = getattr(self, name)
            if array.shape != size or array.dtype != dtype:
                raise SceneError(f"a simulated scene's {name} is not {size} {np.dtype(dtype)}")

    @property
    def cloud_fraction(self) -> float:
        """Share of cloud among the labelled pixels."""
        return _cloud_fraction(self.label)


def _cloud_fraction(label: NDArray[np.uint8]) -> float:
    return int((label == CLOUD).sum()) / max(int((label != NO_DATA).sum()), 1)


@dataclass(frozen=True)
class _Weather:
    """A layer of cloud, how bright it looks from above and how dark where it turns from the sun,
    over what length its light is softened, and what share of the sky's light falls on all its
    sides; the sun, the air (see `clear_air`), and the bands of the instrument."""

    layer: CloudLayer
    brilliance: float
    contrast: float
    softness_m: float
    even_sky: float
    noise: float
    cloud_bend: float
    snow_bend: float
    geometry: Geometry
    aerosol: float
    ozone_share: float
    optics: Mapping[str, Band]

    def air(self, band: str, height_m: float) -> Air:
        """The air in a band, parted at a height."""
        cos_sun = self.geometry.cos_sun
        return clear_air(self.optics[band], cos_sun, self.aerosol, height_m, self.ozone_share)


def simulate_scene(
    seed: int,
    size: Size,
    *,
    ground: str | None = None,
    cloud: str | None = None,
    bands: Sequence[str] = BANDS,
    pixel_m: float = 20.0,
    optics: Mapping[str, Band] = SENTINEL2,
    cover: tuple[float, float] = (0.0, 1.0),
    attempts: int = 1,
) -> SimulatedScene:
    """Draw a scene of `size` (rows, cols); the same seed, the same scene.

    Kinds of `GROUNDS` and `CLOUDS` are drawn at random where they are not given; `bands` are of
    those of the instrument's `optics`. Over the one ground clouds are drawn up to `attempts` times,
    until their share of the labelled pixels is within `cover`; the nearest to it are taken.

    Raises
    ------
    SceneError
        When a kind or a band is unknown, or the size is not positive.
    """
    _check(size, bands, optics)
    rng = np.random.default_rng(seed)
    ground = _drawn(rng, ground, GROUNDS)
    geometry = _sun(rng, ground, pixel_m)
    surface = ground_reflectance(ground, Site(rng, size, geometry, tuple(bands)))
    kind = _drawn(rng, cloud, CLOUDS)
    layer = cloud_layer(kind, rng, size, geometry.pixel_m)
    weather = _draw_weather(rng, ground, layer, geometry, optics)
    clear = np.empty((*size, len(bands)), np.float32)
    for index, band in enumerate(bands):
        air = weather.air(band, 0.0)
        if ground in WHITE_GROUNDS:
            surface[index] *= overhead_share(geometry.cos_sun, air.sky_share, weather.snow_bend)
        seen = _blurred(air.clear(surface[index]))
        seen += np.sqrt(_noise_variance(seen, weather.noise)) * normal_values(rng, size)
        clear[..., index] = np.maximum(seen, DARKEST)

    def miss(layer: CloudLayer) -> float:
        share = _cloud_fraction(_label(clear, layer, bands))
        return max(cover[0] - share, share - cover[1], 0.0)

    for _ in range(attempts - 1):
        if miss(layer) == 0.0:
            break
        layer = min(layer, cloud_layer(kind, rng, size, geometry.pixel_m), key=miss)
    weather = replace(weather, layer=layer)
    return _compose(clear, ground, weather, bands, rng)


def compose_clouds(
    ground_reflectance: NDArray[np.floating],
    rng: np.random.Generator,
    *,
    cloud: str | None = None,
    bands: Sequence[str] = BANDS,
    geometry: Geometry | None = None,
) -> SimulatedScene:
    """Put a simulated layer of cloud and its shadow over a clear scene.

    Ground that no cloud touches keeps its reflectance but for the skylight that clouds take away or
    send down. Pixels that are not finite stay so and are unlabelled.

    `ground_reflectance` is (rows, cols, bands) at the top of the atmosphere, 1.0 = 100 %, with
    `bands` of `CATALOGUE_BANDS`. The kind of `cloud`, of `CLOUDS`, and the `geometry` of sun and
    pixels are drawn where they are not given, the pixels then being of 20 m.

    Raises
    ------
    SceneError
        When the kind or a band is unknown, or the shape does not fit the bands.
    """
    clear = np.asarray(ground_reflectance, np.float32)
    if clear.ndim != 3 or clear.shape[2] != len(bands):
        raise SceneError(f"reflectance of shape {clear.shape} is not (rows, cols, {len(bands)})")
    size = (clear.shape[0], clear.shape[1])
    _check(size, bands, SENTINEL2)
    geometry = _sun(rng, "given") if geometry is None else geometry
    layer = cloud_layer(_drawn(rng, cloud, CLOUDS), rng, size, geometry.pixel_m)
    weather = _draw_weather(rng, "given", layer, geometry, SENTINEL2)
    return _compose(clear, "given", weather, bands, rng)


def thickness_label(thickness: Field, ground_blue: Field | float = 0.0) -> NDArray[np.uint8]:
    """Label optical thickness (rows, cols): 1 where it is seen, 0 where it is not, 255 in between.

    Both bounds depend on the blue light that the ground below throws back (`ground_blue`, at the
    top of clear air); see `seen_thickness`.
    """
    unseen, seen = seen_thickness(ground_blue)
    label = np.where(thickness >= seen, CLOUD, NO_DATA).astype(np.uint8)
    label[thickness < unseen] = CLEAR
    return label


def seen_thickness(ground_blue: Field | float) -> tuple[Field | float, Field | float]:
    """Optical thickness up to which cloud is not seen over ground, and from which it is.

    Over dark ground they are CLOUD_THICKNESS over and times DOUBT. Over ground that is as white as
    cloud nobody sees thin cloud, and to call it cloud would teach that snow is: the whiter the
    ground, the thicker, up to WHITE_UNSEEN and WHITE_THICKNESS.
    """
    white = np.clip((ground_blue - DARK_BLUE) / (WHITE_BLUE - DARK_BLUE), 0.0, 1.0)
    unseen, seen = CLOUD_THICKNESS / DOUBT, CLOUD_THICKNESS * DOUBT
    return unseen * (WHITE_UNSEEN / unseen) ** white, seen * (WHITE_THICKNESS / seen) ** white


def _check(size: Size, bands: Sequence[str], optics: Mapping[str, Band]) -> None:
    if len(size) != 2 or min(size) < 1:
        raise SceneError(f"a scene's size is two positive numbers, rows and cols, not {size}")
    if not bands or len(set(bands)) != len(bands) or not set(bands) <= set(optics):
        raise SceneError(f"bands {list(bands)} are not different ones of {list(optics)}")


def _drawn(rng: np.random.Generator, name: str | None, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))] if name is None else name


def _draw_weather(
    rng: np.random.Generator,
    ground: str,
    layer: CloudLayer,
    geometry: Geometry,
    optics: Mapping[str, Band],
) -> _Weather:
    """Ozone from 220 DU (tropics) to 450 DU (high latitudes, spring: WMO 2018); cloud is not as
    bright from above as its flux says, here more, there less."""
    aerosol = FAR_AEROSOL if ground in SUN_ZENITH_DEG else AEROSOL
    return _Weather(
        layer,
        brilliance=math.exp(rng.normal(0.03, 0.09)),
        contrast=float(rng.uniform(0.5, 0.95)),
        softness_m=float(rng.uniform(*CLOUD_SOFTNESS_M)),
        even_sky=float(rng.uniform(*EVEN_SKY)),
        noise=log_uniform(rng, *NOISE_SHARES),
        cloud_bend=float(rng.uniform(0.0, 0.25)),
        snow_bend=float(rng.uniform(*SNOW_BEND)),
        geometry=geometry,
        aerosol=log_uniform(rng, *aerosol),
        ozone_share=float(rng.uniform(0.73, 1.5)),
        optics=optics,
    )


def _sun(rng: np.random.Generator, ground: str, pixel_m: float = 20.0) -> Geometry:
    """Sun as Sentinel-2 meets it at half past ten, mostly of the north, lower over snow."""
    usual = SUN_ZENITH_DEG.get(ground, USUAL_SUN_DEG)
    low, high = LOW_SUN_DEG if rng.random() < LOW_SUN_SHARE else usual
    azimuth = rng.normal(150.0 if rng.random() < 0.7 else 45.0, 15.0)
    return Geometry(float(rng.uniform(low, high)), float(azimuth % 360.0), pixel_m)


# Light


@dataclass(frozen=True)
class _Sunlight:
    """Light below a layer of cloud relative to a clear day, (rows, cols): from the sun, the sky."""

    sun: Field
    sky: Field
    shadow: NDArray[np.bool_]


def _sunlight(layer: CloudLayer, geometry: Geometry, size: Size) -> _Sunlight:
    """Direct light falls in shadows with a penumbra, scattered light spreads by the height."""
    total = two_stream(layer.thickness, geometry.cos_sun, layer.asymmetry)[1]
    direct = direct_transmittance(layer.thickness, geometry.cos_sun, layer.asymmetry)
    height_px = layer.base_m / geometry.pixel_m
    wide = gaussian(total - direct, 0.6 * height_px)
    sky = gaussian(1.0 - diffuse_reflectance(layer.thickness, layer.asymmetry), height_px)
    # the sun is 0.0047 rad in radius
    sharp = gaussian(direct, math.hypot(0.7, 0.0047 / geometry.cos_sun * height_px))
    fallen = shifted(sharp, geometry.shadow_px(layer.base_m), size)
    half = 0.5 * (layer.top_m - layer.base_m)
    if half > 2.0 * geometry.pixel_m:
        core = np.where(layer.relief_m > half, sharp, 1.0).astype(np.float32)
        fallen = np.minimum(fallen, shifted(core, geometry.shadow_px(layer.base_m + half), size))
    dark = math.exp(-(1.0 - layer.asymmetry**2) * CLOUD_THICKNESS / geometry.cos_sun)
    around = shifted(wide, geometry.shadow_px(layer.base_m), size)
    shadow = (fallen < dark) & (layer.angstrom == 0.0)  # haze lies near the ground and casts none
    return _Sunlight(fallen + around, sky[: size[0], : size[1]], shadow)


@dataclass(frozen=True)
class _Veil:
    """A layer as one band sees it, (rows, cols), and how far it spreads light from below."""

    reflectance: Field
    transmittance: Field
    diffuse: Field
    direct: Field
    spread_px: float

    def over(self, surface: Field, light: _Sunlight, air: Air) -> Field:
        """Reflectance at the top of the atmosphere, the cloud between two parts of the air.

        What the cloud scatters comes from a stretch of ground as wide as the cloud is high, so that
        thick cloud hides detail.
        """
        upward = 1.0 - self.diffuse
        lit = ((1.0 - air.sky_share) * light.sun + air.sky_share * light.sky) * surface
        around = _spread(lit, self.spread_px)
        ground = self.direct * lit + (upward - self.direct) * around
        ground *= air.pass_below / (1.0 - around * self.diffuse)
        ground /= 1.0 - surface * air.albedo_below
        below = upward * self.transmittance * air.path_below + ground
        seen = air.gas_above * self.reflectance + air.gas * below
        seen /= 1.0 - air.albedo_above * (self.reflectance + below)
        return air.gas_above * air.path_above + air.pass_above * seen


def _veil(layer: CloudLayer, sunlit: Field, band: Band, geometry: Geometry, size: Size) -> _Veil:
    track, lag_s = math.radians(TRACK_AZIMUTH_DEG), band.lag_s - SENTINEL2["B03"].lag_s
    # a later look comes from farther along the track, and moves the cloud back over the ground
    back = layer.base_m * PARALLAX_PER_S * lag_s / geometry.pixel_m
    shift = (math.cos(track) * back, -math.sin(track) * back)
    thickness = _blurred(shifted(layer.thickness, shift, size))
    thickness *= (band.wavelength_um / 0.55) ** -layer.angstrom
    reflectance, transmittance = two_stream(thickness, geometry.cos_sun, layer.asymmetry)
    absorbed = (band.crystal if layer.asymmetry == ICE_ASYMMETRY else band.droplet) * reflectance
    reflectance = reflectance * shifted(sunlit, shift, size) * (1.0 - absorbed)
    diffuse = diffuse_reflectance(thickness, layer.asymmetry)
    direct = direct_transmittance(thickness, 1.0, layer.asymmetry)
    return _Veil(reflectance, transmittance, diffuse, direct, 0.7 * layer.base_m / geometry.pixel_m)


def _label(clear: Field, layer: CloudLayer, bands: Sequence[str]) -> NDArray[np.uint8]:
    """Label a layer of cloud over clear ground (rows, cols, bands)."""
    thickness = layer.thickness[: clear.shape[0], : clear.shape[1]].astype(np.float32)
    thickness_seen = thickness / (HAZE_DOUBT if layer.angstrom > 0.0 else 1.0)
    blue = clear[..., bands.index("B02")] if "B02" in bands else 0.0
    label = thickness_label(thickness_seen, blue)
    if layer.angstrom > 0.0:
        label[(label == CLEAR) & (thickness >= seen_thickness(blue)[0])] = NO_DATA
    label[~np.isfinite(clear).all(axis=2)] = NO_DATA
    return label


def _compose(
    clear: Field, ground: str, weather: _Weather, bands: Sequence[str], rng: np.random.Generator
) -> SimulatedScene:
    size, layer, geometry = (clear.shape[0], clear.shape[1]), weather.layer, weather.geometry
    thickness = layer.thickness[: size[0], : size[1]].astype(np.float32)
    label = _label(clear, layer, bands)
    cloudy = clear.astype(np.float32)
    if layer.kind == "none":
        shadow = np.zeros(size, np.bool_)
        return SimulatedScene(cloudy, label, shadow, thickness, ground, layer.kind)
    light = _sunlight(layer, geometry, size)
    sunlit = shading(layer, geometry, weather.contrast, weather.softness_m)
    for index, name in enumerate(bands):
        known = np.isfinite(clear[..., index])
        before = np.where(known, clear[..., index], np.float32(0.0))
        air = weather.air(name, layer.base_m)
        surface = air.surface(before)
        lit = light_on_sides(sunlit, weather.even_sky * air.sky_share_above)
        lit *= weather.brilliance * overhead_share(
            geometry.cos_sun, air.sky_share_above, weather.cloud_bend
        )
        veil = _veil(layer, lit, weather.optics[name], geometry, size)
        after = before + veil.over(surface, light, air) - air.clear(surface)
        noise = [_noise_variance(level, weather.noise) for level in (before, after)]
        more = np.maximum(noise[1] - noise[0], 0.0)
        after += np.sqrt(more) * normal_values(rng, size)
        np.maximum(after, np.minimum(before, DARKEST), out=after)
        np.copyto(cloudy[..., index], after, where=known, casting="same_kind")
    shadow = light.shadow & (label == CLEAR)
    return SimulatedScene(cloudy, label, shadow, thickness, ground, layer.kind)


# Optics


def _spread(image: Field, sigma_px: float) -> Field:
    """Image blurred twice by a box, near a Gaussian and quick at any width; no wrapping round."""
    half, mean = round(1.22 * sigma_px), float(image.mean())
    image = image - mean
    for _ in "rows", "cols":
        steps = np.arange(len(image))
        first, last = np.maximum(steps - half, 0), np.minimum(steps + half + 1, len(steps))
        share = (1.0 / (last - first)).astype(np.float32)[:, None]
        total = np.zeros((len(image) + 1, image.shape[1]), np.float32)
        for _ in "ab":
            np.cumsum(image, 0, out=total[1:])
            image = total.take(last, 0)
            image -= total.take(first, 0)
            image *= share
        image = np.ascontiguousarray(image.T)
    return image + mean


def _blurred(image: Field) -> Field:
    """Image through a lens that throws 0.12 of a pixel's light on the next, along rows and cols."""
    down = 0.12 * (image[1:] - image[:-1])
    image = image.copy()
    image[:-1] += down
    image[1:] -= down
    across = 0.12 * (image[:, 1:] - image[:, :-1])
    image[:, :-1] += across
    image[:, 1:] -= across
    return image


def _noise_variance(reflectance: Field, share: float) -> Field:
    """Variance of noise: a share of what MSI's required signal-to-noise ratio allows, some 150 at
    0.1, then shot noise."""
    return share * (1e-7 + 4e-6 * np.maximum(reflectance, 0.0))


# Files
