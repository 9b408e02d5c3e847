"""Surfaces seen from above, without air or cloud: fields, forest, sand, towns, water, snow and ice.

Each kind of ground mixes materials by fractal and geometric patterns of several scales and lights
its relief by the sun. Lengths are in metres, so that a pattern keeps its size whatever the pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cloudnet.errors import SceneError
from cloudnet.fields import (
    Field,
    Size,
    Spectrum,
    fractal_field,
    log_uniform,
    nearest_cells,
    smooth_size,
)
from cloudnet.light import (
    EVEN_SKY,
    SENTINEL2,
    Geometry,
    clear_air,
    light_on_sides,
    relief_light,
)
from cloudnet.materials import MATERIALS
from cloudnet.spec import CATALOGUE_BANDS

USUAL_AEROSOL = 0.1
"""Optical thickness of the aerosol that makes light of the sky."""

HILLSLOPE_M = 250.0
"""Wavelength below which relief is smooth: spectra of landscapes turn steeper at some 200 m, where
creep takes over from streams (Perron et al. 2008, doi:10.1029/2007JF000866)."""

VALLEY_M = (300.0, 1000.0)
"""How far from a river its valley's sides begin to rise."""

FLOODED_SHARE = 0.3
"""Share of farmland some of which is under water, as paddies and wet meadows in winter are."""

STEEP_LAND, STEEP_MOUNTAINS = 0.045, 0.1
"""Height of hills over their spacing, at most: median slopes of 19 to 26 degrees, and in mountains
of 45 to 55."""


@dataclass(frozen=True)
class Site:
    """A piece of ground to be covered: its chance, size (rows, cols), light and bands.

    A field is (rows, cols), a surface (bands, rows, cols). Where a river crosses the site,
    `river_m` is the distance to it in metres.
    """

    rng: np.random.Generator
    size: Size
    geometry: Geometry
    bands: tuple[str, ...]
    river_m: Field | None = None

    def pick(self, *names: str) -> str:
        """One of some names."""
        return names[int(self.rng.integers(len(names)))]

    def draw(self, low: float, high: float) -> float:
        """A number between two."""
        return float(self.rng.uniform(low, high))

    def anywhere(self) -> tuple[int, int]:
        """Row and column of some pixel."""
        return int(self.rng.integers(self.size[0])), int(self.rng.integers(self.size[1]))

    def fractal(
        self,
        slope: float,
        outer_m: float,
        stretch: float = 1.0,
        angle_deg: float = 0.0,
        peaked: bool = False,
        inner_m: float = 0.0,
    ) -> Field:
        """Fractal field; see `Spectrum`."""
        rows, cols = (smooth_size(max(n, 16)) for n in self.size)
        outer, inner = outer_m / self.geometry.pixel_m, inner_m / self.geometry.pixel_m
        spectrum = Spectrum(slope, outer, stretch, angle_deg, peaked, inner)
        return fractal_field(self.rng, (rows, cols), spectrum)[: self.size[0], : self.size[1]]

    def cells(self, cell_m: float) -> tuple[Field, NDArray[np.int32]]:
        """Voronoi cells: how far the second nearest point is behind in pixels, and the number."""
        cell_px = max(int(cell_m / self.geometry.pixel_m), 4)
        return nearest_cells(self.rng, self.size, cell_px)[1:]

    def turned(self, angle_deg: float) -> tuple[Field, Field]:
        """Two coordinates in metres, turned by an angle."""
        cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
        row = np.arange(self.size[0], dtype=np.float32)[:, None] * self.geometry.pixel_m
        col = np.arange(self.size[1], dtype=np.float32) * self.geometry.pixel_m
        return cos * col + sin * row, cos * row - sin * col

    def spectrum(self, name: str) -> Field:
        """Reflectance (bands,) of a material."""
        values = dict(zip(CATALOGUE_BANDS, MATERIALS[name], strict=True))
        return np.array([values[band] for band in self.bands], np.float32) / 100

    def mix(self, weights: Mapping[str, Field]) -> Field:
        """Surface of materials by weight; the weights are brought to a sum of 1."""
        total = sum(weights.values(), np.zeros(self.size, np.float32))
        surface: Field = np.zeros((len(self.bands), *self.size), np.float32)
        for name, weight in weights.items():
            surface += self.spectrum(name)[:, None, None] * (weight / total)
        return surface

    def paint(self, surface: Field, name: str, weight: Field) -> None:
        """Lay a material over a surface, in place."""
        surface += weight * (self.spectrum(name)[:, None, None] - surface)

    def palette(self, names: tuple[str, ...], count: int, spread: float) -> Field:
        """Reflectance (bands, count) of materials in random shares, some lighter, some darker."""
        odds = self.rng.dirichlet(np.full(len(names), 0.9))
        spectra = np.stack([self.spectrum(name) for name in names], axis=1)
        first, second = (spectra[:, self.rng.choice(len(names), count, p=odds)] for _ in "ab")
        share = self.rng.uniform(0.0, 0.4, count).astype(np.float32)
        tint = np.exp(self.rng.normal(0.0, spread, count)).astype(np.float32)
        return (first + share * (second - first)) * tint

    def terrain(self, outer_m: float) -> Field:
        """Hills of height near 1, cut by valleys of two sizes: the folds of a smooth field.

        Soil creeps, which rounds slopes and valley floors shorter than `HILLSLOPE_M`. A river has
        a valley, of a floor as flat as it is.
        """
        large = np.hypot(self.fractal(-3.6, outer_m, inner_m=HILLSLOPE_M), 0.1)
        small = np.hypot(self.fractal(-3.2, outer_m / 4, inner_m=HILLSLOPE_M), 0.15)
        hills: Field = large + 0.2 * small * (0.4 + large)
        if self.river_m is not None:
            hills *= 1.0 - np.exp(-((self.river_m / self.draw(*VALLEY_M)) ** 2))
        return hills

    def hills(self, low_m: float, high_m: float) -> float:
        """Height of hills; most are low."""
        return log_uniform(self.rng, low_m, high_m)

    def light(self, height_m: Field) -> Field:
        """Light (bands, rows, cols) on a relief, from the sun and the sky."""
        sky = [
            clear_air(SENTINEL2[band], self.geometry.cos_sun, USUAL_AEROSOL, 0.0).sky_share
            for band in self.bands
        ]
        share = self.draw(*EVEN_SKY) * np.array(sky, np.float32)[:, None, None]
        return light_on_sides(relief_light(height_m, self.geometry), share)

    def line(self, bend_m: float, scale_m: float) -> Field:
        """Distance in metres to a line across the site that wanders by `bend_m` over `scale_m`."""
        _, across = self.turned(self.draw(0.0, 180.0))
        path: Field = across - across[self.anywhere()] + bend_m * self.fractal(-3.5, scale_m)
        if min(self.size) < 2:
            return np.abs(path)
        down, right = np.gradient(path, self.geometry.pixel_m)
        distance: Field = np.abs(path) / np.maximum(np.hypot(down, right), 0.3)
        return distance

    def stroke(self, distance_m: Field, width_m: float) -> Field:
        """Share of each pixel that a line of some width covers, by the distance to its middle."""
        pixel = self.geometry.pixel_m
        return _step(width_m / 2 - distance_m, pixel) * min(1.0, width_m / pixel)


def _step(field: Field, width: float) -> Field:
    """0 where a field is well below 0, 1 well above, straight over `width` in between."""
    ramp: Field = np.clip(field * (1.0 / width) + 0.5, 0.0, 1.0)
    return ramp


def _river(site: Site, surface: Field, distance_m: Field) -> None:
    width = site.draw(25.0, 160.0)
    bank = site.pick("bog", "broadleaf", "broadleaf", "soil", "beach")
    site.paint(surface, bank, 0.7 * site.stroke(distance_m, width * 1.8 + 20.0))
    water = site.pick("green water", "muddy water", "deep water")
    site.paint(surface, water, site.stroke(distance_m, width))


def _road(site: Site, surface: Field) -> None:
    stroke = site.stroke(site.line(site.draw(0.0, 80.0), 2500.0), site.draw(8.0, 30.0))
    site.paint(surface, site.pick("asphalt", "concrete", "soil"), stroke)


def _parcels(site: Site) -> tuple[NDArray[np.int32], Field]:
    """Strips within Voronoi blocks: a number for each, and metres to the nearest border."""
    rng = site.rng
    gap, block = site.cells(site.draw(500.0, 1600.0))
    count = int(block.max()) + 1
    turn = rng.integers(0, 2, count) * (np.pi / 2) + rng.normal(site.draw(0.0, np.pi), 0.15, count)
    width = site.draw(70.0, 260.0) * np.exp(rng.normal(0.0, 0.45, count))
    length = width * rng.uniform(1.0, 6.0, count)
    here = np.stack([np.cos(turn), np.sin(turn), width, length]).astype(np.float32)[:, block]
    along, across = site.turned(0.0)
    strip = (here[0] * along + here[1] * across) / here[2]
    piece = (here[0] * across - here[1] * along) / here[3]
    strips, pieces = np.floor(strip), np.floor(piece)
    side = (0.5 - np.abs(strip - strips - 0.5)) * here[2]
    end = (0.5 - np.abs(piece - pieces - 0.5)) * here[3]
    border = np.minimum(np.minimum(side, end), gap * (site.geometry.pixel_m / 2))
    return block * 1009 + strips.astype(np.int32) * 37 + pieces.astype(np.int32) * 101, border


def _flood(site: Site, surface: Field, number: NDArray[np.int32]) -> None:
    """Put parcels of a plain's low part under shallow water, as rice is grown; soil and stubble
    show through. `number` (rows, cols) tells the parcels."""
    low = _step(site.fractal(-2.4, 3000.0) + site.draw(-1.0, 1.0), site.draw(0.2, 2.0))
    chance = site.rng.random(509, dtype=np.float32)[number % 509]
    water = site.rng.uniform(0.2, 1.0, 509).astype(np.float32)[number % 509]
    water *= 1.0 + 0.1 * site.fractal(-1.4, 300.0)
    kind = site.pick("muddy water", "muddy water", "green water")
    site.paint(surface, kind, np.clip(water, 0.0, 1.0) * _step(low - chance, 0.05))


def _fields(site: Site) -> Field:
    number, border = _parcels(site)
    crops = ("crop", "young crop", "stubble", "grass", "soil", "dark soil", "red soil", "dry grass")
    bare = ("grey soil", "pale soil")
    surface = site.palette((*crops, *bare, "flowers"), 509, 0.16)[:, number % 509]
    surface *= 1.0 + 0.07 * site.fractal(-1.8, 900.0)
    if site.rng.random() < FLOODED_SHARE:
        _flood(site, surface, number)
    hedge = 0.6 * site.stroke(border, site.draw(6.0, 20.0))
    site.paint(surface, site.pick("broadleaf", "dry grass", "soil"), hedge)
    wood = _step(site.fractal(-2.2, 1500.0) - site.draw(0.9, 2.2), 0.15)
    site.paint(surface, "broadleaf", wood)
    surface *= 1.0 + wood * (0.12 * site.fractal(-0.8, 200.0) - 0.15)
    return surface


def _forest(site: Site) -> Field:
    broad = _step(site.fractal(-1.7, 1500.0) + site.draw(-1.2, 1.2), 2.5)
    surface = site.mix({"broadleaf": broad, "conifer": 1 - broad})
    surface *= 0.95 + 0.1 * site.fractal(-0.5, 120.0)
    clearing = _step(site.fractal(-2.0, 900.0) - site.draw(1.4, 2.6), 0.5)
    site.paint(surface, site.pick("grass", "dry grass", "soil", "bog"), clearing)
    surface *= site.light(site.terrain(3000.0) * site.hills(5.0, STEEP_LAND * 3000.0))
    return surface


def _shrub(site: Site) -> Field:
    cover = _step(site.fractal(-1.4, 1200.0) + site.draw(-0.8, 1.0), 3.0)
    soil = site.pick("soil", "red soil", "dry grass", "dark soil", "grey soil", "pale soil")
    surface = site.mix({"shrub": cover, soil: 1 - cover})
    spacing = site.draw(1200.0, 3500.0)
    height = site.terrain(spacing)
    low = np.exp(-18.0 * (height - height.min()))
    site.paint(surface, site.pick("grass", "broadleaf", "shrub"), 0.7 * low)
    surface *= 1.0 + 0.08 * site.fractal(-0.9, 300.0)
    surface *= site.light(height * site.hills(5.0, STEEP_LAND * spacing))
    return surface


def _soil(site: Site) -> Field:
    odds = {"soil": 0.22, "red soil": 0.2, "dark soil": 0.15, "rock": 0.11, "clay": 0.08}
    odds |= {"grey soil": 0.12, "pale soil": 0.12}
    chosen = site.rng.choice(list(odds), 3, replace=False, p=list(odds.values()))
    surface = site.mix({str(name): np.exp(1.5 * site.fractal(-1.9, 2500.0)) for name in chosen})
    spacing = site.draw(1000.0, 3000.0)
    surface *= site.light(site.terrain(spacing) * site.hills(5.0, STEEP_LAND * spacing))
    surface *= 1.0 + 0.06 * site.fractal(-0.8, 300.0)
    return surface


def _desert(site: Site) -> Field:
    length = site.draw(250.0, 900.0)
    dunes = site.fractal(-4.0, length, site.draw(2.0, 6.0), site.draw(0.0, 180.0), True)
    pale = _step(site.fractal(-2.0, 4000.0) + site.draw(-1.5, 1.5), 3.0)
    surface = site.mix({"sand": pale, "red sand": 1 - pale})
    gap = _step(site.fractal(-2.0, 2500.0) - site.draw(0.5, 3.0), 0.5)
    site.paint(surface, site.pick("clay", "rock", "soil"), gap * _step(-dunes, 1.0))
    height = np.abs(dunes + 0.2) * (1 - 0.7 * gap)
    surface *= site.light(height * (length * site.draw(0.01, 0.05)))
    surface *= 1.0 + 0.03 * site.fractal(-1.2, 800.0)
    return surface


def _salt(site: Site) -> Field:
    shore = site.fractal(-3.0, 5000.0) + site.draw(-0.4, 1.6)
    salt = _step(shore + 0.15 * site.fractal(-1.4, 900.0) - 0.4, 1.2) + 0.02
    clay = _step(shore + 0.3, 0.6) * (1.02 - salt)
    surface = site.mix({"salt": salt, "clay": clay, "soil": 1.02 - salt - clay})
    wet = _step(site.fractal(-2.2, 2000.0) - site.draw(0.6, 2.5), 0.8)
    site.paint(surface, "shallow water", 0.5 * wet * salt)
    surface *= site.draw(0.7, 1.1) * (1.0 + 0.03 * site.fractal(-1.0, 400.0))
    return surface


def _waves(site: Site) -> Field:
    """Light thrown back by the water's skin, alike in all bands: more under a high sun, and less
    where slicks still the waves (after Cox and Munk 1954, much simplified)."""
    glint = max(0.0, 1.0 - site.geometry.sun_zenith_deg / 45.0) * site.draw(0.0, 0.12)
    swell = site.fractal(-1.5, 250.0, site.draw(1.0, 3.0), site.draw(0.0, 180.0))
    slick = site.fractal(-2.2, 3000.0, 2.0, site.draw(0.0, 180.0))
    level: Field = (0.004 + glint) * np.exp(0.25 * slick + 0.12 * swell)
    return level


def _water(site: Site) -> Field:
    stream = site.fractal(-2.3, 6000.0, 2.0, site.draw(0.0, 180.0))
    plume = _step(stream + site.draw(-2.0, 1.5), 3.0)
    kinds = site.rng.permutation(["deep water", "green water", "muddy water"])
    surface = site.mix({str(kinds[0]): 1 - plume, str(kinds[1]): plume})
    surface += _waves(site)
    for _ in range(int(site.rng.poisson(1.5))):
        row, col = site.anywhere()
        boat = site.spectrum(site.pick("white roof", "tile roof", "foam"))
        surface[:, row, col] = 0.7 * boat
    return surface


def _coast(site: Site) -> Field:
    surface = _DRAWERS[site.pick(*INLAND)](site)
    _, across = site.turned(site.draw(0.0, 360.0))
    height = across - across[site.size[0] // 2, site.size[1] // 2] + site.draw(-800.0, 800.0)
    height = height + site.draw(250.0, 900.0) * site.fractal(-2.2, 4000.0)
    beach = _step(height, 80.0) * _step(site.draw(0.0, 220.0) - height, 60.0)
    site.paint(surface, "beach", beach)
    depths = {
        "deep water": _step(-height - 700.0, 900.0),
        "green water": _step(-height - 250.0, 500.0) + 0.05,
        site.pick("shallow water", "muddy water"): _step(height + 300.0, 500.0),
    }
    sea = site.mix(depths) + _waves(site)
    surf = np.exp(-(((height + 30.0) / 25.0) ** 2)) * _step(site.fractal(-1.0, 400.0), 1.5)
    site.paint(sea, "foam", site.draw(0.0, 0.7) * surf)
    surface += _step(-height, 40.0) * (sea - surface)
    return surface


def _lattice(along: Field, across: Field, cell_m: float, count: int) -> NDArray[np.int32]:
    """A number below `count` for each square of a lattice, as good as random."""
    column = np.floor(along * (1.0 / cell_m)).astype(np.int32) * 73856093
    mixed = column ^ (np.floor(across * (1.0 / cell_m)).astype(np.int32) * 19349663)
    return np.asarray((mixed ^ (mixed >> 13)) % count, np.int32)


def _urban(site: Site) -> Field:
    along, across = site.turned(site.draw(0.0, 90.0))
    house, zone = site.draw(22.0, 40.0), site.fractal(-2.0, 1500.0)
    homes = ("tile roof", "concrete", "broadleaf", "grass", "asphalt", "concrete")
    halls = ("white roof", "blue roof", "concrete", "asphalt", "soil", "tile roof")
    surface = site.palette(homes, 1021, 0.25)[:, _lattice(along, across, house, 1021)]
    large = site.palette(halls, 1021, 0.3)[:, _lattice(along, 1.7 * across, 3.1 * house, 1021)]
    surface += _step(zone - site.draw(-0.2, 1.5), 0.05) * (large - surface)
    park = _step(-zone - site.draw(0.6, 2.0), 0.3)
    site.paint(surface, site.pick("grass", "broadleaf"), park)
    for way in (along, across):
        blocks = way * (1.0 / site.draw(90.0, 220.0))
        street = site.stroke(np.abs(blocks - np.round(blocks)) * 150.0, 16.0)
        site.paint(surface, "asphalt", 0.8 * (1 - park) * street)
    suburb = _step(site.fractal(-2.2, 4000.0) - site.draw(-0.5, 2.0), 0.4)
    surface += suburb * (_fields(site) - surface)
    for _ in range(2):
        site.paint(surface, "asphalt", site.stroke(site.line(40.0, 2500.0), site.draw(20, 45)))
    return surface


def _mountain(site: Site) -> Field:
    spacing = site.draw(2500.0, 6000.0)
    height = site.terrain(spacing)
    level = height + 0.15 * site.fractal(-1.4, 600.0)
    wood = _step(site.draw(-0.2, 1.2) - level, 0.3)
    snow = _step(level - site.draw(0.9, 2.4), 0.3) * (1 - wood)
    trees, bare = site.pick("conifer", "broadleaf", "shrub"), site.pick("rock", "dry grass", "soil")
    surface = site.mix({trees: wood, bare: (1 - wood) * (1 - snow), "old snow": snow})
    surface *= 1.0 + 0.07 * site.fractal(-0.8, 200.0)
    surface *= site.light(height * (spacing * site.draw(0.04, STEEP_MOUNTAINS)))
    return surface


def _snowy_wood(site: Site, surface: Field) -> None:
    """Trees over snow, dense or sparse, cut by rivers, tracks and clearings that stay white."""
    trees = _step(site.fractal(-1.5, 1500.0) + site.draw(-1.2, 1.2), site.draw(1.0, 4.0))
    trees *= site.draw(0.35, 0.85) * (1.0 + 0.15 * site.fractal(-0.6, 200.0))
    site.paint(surface, site.pick("conifer", "conifer", "bog", "shrub"), np.clip(trees, 0.0, 1.0))
    for _ in range(int(site.rng.integers(0, 4))):
        distance = site.line(site.draw(0.0, 400.0), site.draw(1200.0, 3000.0))
        site.paint(surface, "fresh snow", 0.8 * site.stroke(distance, site.draw(15.0, 140.0)))
    if site.rng.random() < 0.6:
        lakes = _lakes(site, site.draw(0.3, 1.5), site.draw(800.0, 3000.0))
        site.paint(surface, site.pick("fresh snow", "old snow"), 0.95 * lakes)


def _lakes(site: Site, level: float, length_m: float) -> Field:
    """Cover (rows, cols), 0 to 1, of lakes with sharp shores; the higher the level, the fewer."""
    shore = site.fractal(-3.2, length_m, site.draw(1.0, 3.0), site.draw(0.0, 180.0))
    return _step(shore + 0.1 * site.fractal(-1.5, 300.0) - level, site.geometry.pixel_m / 400.0)


def _tundra(site: Site) -> Field:
    """Bog and shrub with lakes, which in spring still bear ice while the land is bare."""
    plants = _step(site.fractal(-1.6, 1500.0) + site.draw(-1.0, 1.0), 3.0)
    surface = site.mix({"shrub": plants, site.pick("bog", "grass", "dry grass"): 1.01 - plants})
    surface *= 1.0 + 0.08 * site.fractal(-0.9, 300.0)
    for length in (2500.0, 700.0):
        lakes = _lakes(site, site.draw(0.5, 2.0), length)
        site.paint(surface, "deep water", lakes)
        if site.rng.random() < 0.5:
            ice = _step(site.fractal(-2.0, 3000.0) + site.draw(-1.0, 1.5), 1.0)
            kinds = {"grey ice": ice, site.pick("old snow", "blue ice", "grey ice"): 1.01 - ice}
            frozen = site.mix(kinds) * (1.0 + 0.06 * site.fractal(-1.4, 600.0))
            kept = _lakes(site, site.draw(-1.0, 0.5), 4000.0) * lakes**3
            surface += kept * (frozen - surface)
    return surface


def _snow(site: Site) -> Field:
    fresh = _step(site.fractal(-2.2, 3000.0) + site.draw(-1.0, 2.0), 3.0)
    surface = site.mix({site.pick("fresh snow", "polar snow"): fresh, "old snow": 1 - fresh})
    height = site.terrain(site.draw(2000.0, 6000.0)) * (500.0 * site.draw(0.03, 1.0) ** 3)
    drift = site.fractal(-1.4, 300.0, site.draw(2.0, 6.0), site.draw(0.0, 180.0))
    lee = Geometry(45.0, site.draw(0.0, 360.0), site.geometry.pixel_m)
    bare = relief_light(height, lee) - 1.0 + 0.08 * drift - site.draw(0.25, 0.8)
    site.paint(surface, "rock", _step(bare, 0.2))
    if site.rng.random() < 0.5:
        _snowy_wood(site, surface)
    surface *= site.light(height + site.draw(0.05, 0.3) * drift)
    return surface


def _taiga(site: Site) -> Field:
    """Wood in snow, as often leafless as not: grey from above, its snow seen between the trees."""
    old = site.draw(0.0, 1.0)
    snow = {"fresh snow": np.full(site.size, 1.0 - old, np.float32)}
    surface = site.mix(snow | {"old snow": np.full(site.size, old + 0.01, np.float32)})
    kinds = ("conifer", "shrub", "bog", "bark", "bark", "broadleaf")
    stands = _step(site.fractal(-1.5, 1500.0) + site.draw(-1.2, 1.2), site.draw(1.0, 4.0))
    trees = site.mix({site.pick(*kinds): stands, site.pick(*kinds): 1.01 - stands})
    # From above a wood is far more even than snow in the open.
    dense = site.draw(0.6, 0.95) + site.draw(0.02, 0.12) * site.fractal(-2.2, 2500.0)
    dense = dense + site.draw(0.0, 0.03) * site.fractal(-0.6, 200.0)
    open_land = _step(site.fractal(-2.2, 1500.0) - site.draw(1.0, 3.5), site.draw(0.05, 0.6))
    cover = np.clip(dense, 0.0, 1.0) * (1.0 - open_land)
    for _ in range(int(site.rng.integers(0, 4))):
        distance = site.line(site.draw(0.0, 400.0), site.draw(1200.0, 3000.0))
        cover *= 1.0 - 0.8 * site.stroke(distance, site.draw(15.0, 140.0))
    if site.rng.random() < 0.5:
        cover *= 1.0 - _lakes(site, site.draw(0.3, 1.5), site.draw(800.0, 3000.0))
    surface += cover * (trees - surface)
    surface *= site.light(
        site.terrain(site.draw(2000.0, 5000.0)) * (150.0 * site.draw(0.0, 1.0) ** 3)
    )
    return surface


def _ice(site: Site) -> Field:
    gap, number = site.cells(site.draw(500.0, 3000.0))
    rough, bend = site.fractal(-1.8, 1200.0), site.fractal(-2.6, 1500.0)
    rows, cols = np.indices(site.size)
    reach = (bend * (300.0 / site.geometry.pixel_m)).astype(np.int64)
    bent = (rows + reach) % site.size[0], (cols - reach) % site.size[1]
    kinds = ("old snow", "fresh snow", "old snow", "grey ice", "blue ice")
    surface = site.palette(kinds, 509, 0.05)[:, number[bent] % 509]
    surface *= 1.0 + 0.05 * rough
    surface *= site.light(rough * site.draw(0.1, 1.5))
    wide = site.draw(0.1, 3.0) * np.exp(0.9 * site.fractal(-1.8, 2500.0))
    lead = _step(wide - gap[bent] + 0.8 * rough - 0.8, 1.5)
    site.paint(surface, site.pick("deep water", "deep water", "grey ice"), lead)
    return surface


def _glacier(site: Site) -> Field:
    """Bare ice in summer: grey-white, its layers folded, dirty here and there, with blue ponds."""
    turn = site.draw(0.0, 180.0)
    snowy = _step(site.fractal(-2.0, 2500.0) + site.draw(-1.0, 1.0), 3.0)
    surface = site.mix({"old snow": 0.3 + 0.5 * snowy, "grey ice": 0.7 - 0.5 * snowy})
    layers = site.fractal(-1.5, 800.0, site.draw(2.0, 6.0), turn)
    surface *= site.draw(0.8, 1.0) * (1.0 + site.draw(0.02, 0.1) * layers)
    dirt = _step(site.fractal(-1.8, 1500.0, 3.0, turn) - site.draw(0.5, 2.5), 1.5)
    site.paint(surface, site.pick("rock", "soil", "grey ice"), site.draw(0.1, 0.5) * dirt)
    if site.rng.random() < 0.5:
        ponds = _lakes(site, site.draw(1.5, 2.8), site.draw(500.0, 2000.0))
        site.paint(surface, "blue ice", ponds)
        site.paint(surface, "shallow water", site.draw(0.3, 1.0) * ponds)
    rough = site.draw(0.1, 1.5) * site.fractal(-1.4, 300.0)
    surface *= site.light(rough + site.terrain(5000.0) * site.hills(1.0, 60.0))
    return surface


def _plateau(site: Site) -> Field:
    """Snow as flat as on a polar plateau: wind-cut ridges all but invisible, and a grain that all
    bands share, where a deck of cloud is smooth from pixel to pixel."""
    grain = site.fractal(-2.4, 8000.0)
    fresh = _step(grain + site.draw(-2.0, 3.0), 4.0)
    surface = site.mix({site.pick("polar snow", "fresh snow"): fresh, "fresh snow": 1.01 - fresh})
    site.paint(surface, "old snow", np.full(site.size, site.draw(0.0, 0.5), np.float32))
    ridges = site.fractal(-1.5, 400.0, site.draw(2.0, 6.0), site.draw(0.0, 180.0))
    surface *= 1.0 + site.draw(0.0, 0.01) * grain + site.draw(0.0, 0.004) * site.fractal(-0.3, 60.0)
    surface *= site.light(site.draw(0.0, 0.1) * ridges)
    return surface


BRIGHTEST_SLOPE = 1.25
"""Most that a slope throws back, of what falls on level ground: snow that faces a low sun passes
1."""

INLAND = ("fields", "forest", "shrub", "soil", "urban")
"""Kinds that rivers and roads may cross, and that may lie behind a beach."""

_LAND = (_fields, _forest, _shrub, _soil, _desert, _salt, _urban, _mountain)
_OTHERS = (_water, _coast, _tundra, _snow, _ice, _glacier, _plateau, _taiga)
_DRAWERS = {draw.__name__[1:]: draw for draw in (*_LAND, *_OTHERS)}
GROUNDS = tuple(_DRAWERS)
"""Kinds of ground."""


def ground_reflectance(kind: str, site: Site) -> Field:
    """Draw a surface (bands, rows, cols) of one of `GROUNDS`, its reflectance within 0 to
    `BRIGHTEST_SLOPE`.

    Raises
    ------
    SceneError
        When there is no such kind.
    """
    if kind not in _DRAWERS:
        raise SceneError(f"no kind of ground is called {kind!r}; there are {', '.join(GROUNDS)}")
    if kind in INLAND and site.rng.random() < 0.35:
        course = site.line(site.draw(150.0, 500.0), site.draw(1200.0, 3000.0))
        site = replace(site, river_m=course)
    surface = _DRAWERS[kind](site)
    if site.river_m is not None:
        _river(site, surface, site.river_m)
    if kind in INLAND:
        for _ in range(int(site.rng.integers(0, 3))):
            _road(site, surface)
    return np.clip(surface, 0.0, BRIGHTEST_SLOPE, out=surface)
