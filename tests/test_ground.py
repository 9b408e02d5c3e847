"""Grounds look like what they are called: spectra, patterns, light."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cloudnet.errors import SceneError
from cloudnet.ground import BRIGHTEST_SLOPE, GROUNDS, Site, ground_reflectance
from cloudnet.light import Geometry
from cloudnet.materials import MATERIALS
from cloudnet.spec import BANDS, CATALOGUE_BANDS

RED, GREEN, BLUE, NIR = range(4)
SUN = Geometry(40.0, 150.0)


def site(seed: int, size: tuple[int, int] = (96, 96), bands: tuple[str, ...] = BANDS) -> Site:
    """A site under a usual sun."""
    return Site(np.random.default_rng(seed), size, SUN, bands)


def medians(kind: str) -> NDArray[np.floating]:
    """Median reflectance by band over a few sites."""
    surfaces = [ground_reflectance(kind, site(seed)).reshape(4, -1) for seed in range(6)]
    found: NDArray[np.floating] = np.median(np.concatenate(surfaces, axis=1), axis=1)
    return found


@pytest.mark.parametrize("kind", GROUNDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (61, 37)])
def test_reflectance_is_within_bounds_at_any_size(kind: str, size: tuple[int, int]) -> None:
    for seed in range(3):
        surface = ground_reflectance(kind, site(seed, size))
        assert surface.shape == (4, *size)
        assert surface.dtype == np.float32
        assert surface.min() >= 0.0
        assert surface.max() <= BRIGHTEST_SLOPE


@pytest.mark.parametrize("kind", GROUNDS)
def test_every_ground_varies_from_place_to_place_and_within(kind: str) -> None:
    first, second = (ground_reflectance(kind, site(seed)) for seed in (1, 2))
    assert np.abs(first - second).mean() > 1e-4
    assert first[RED].std() > 1e-4


@pytest.mark.parametrize("kind", ["fields", "forest"])
def test_vegetation_is_bright_in_the_near_infrared(kind: str) -> None:
    found = medians(kind)
    assert found[NIR] > 2 * found[RED]


def test_water_is_darkest_in_the_near_infrared() -> None:
    found = medians("water")
    assert found[NIR] < found[GREEN]
    assert found.max() < 0.15


def test_snow_is_bright_and_falls_off_in_the_near_infrared() -> None:
    fresh = site(0).spectrum("fresh snow")
    assert fresh.min() > 0.8
    assert fresh[NIR] < fresh[RED] <= fresh[BLUE]
    assert medians("snow")[:3].min() > 0.45


def test_bare_ice_is_grey_white_and_dark_in_the_near_infrared() -> None:
    """Between snow and water, as melting margins of ice sheets are."""
    found = medians("glacier")
    assert 0.2 < found[RED] < 0.7
    assert found[NIR] < 0.9 * found[RED]
    assert found[BLUE] > found[RED]


def test_slopes_in_the_sun_are_yellower_than_those_in_the_shade() -> None:
    """The sky lights both alike, and is blue; level ground keeps its colour."""
    low = Site(np.random.default_rng(0), (32, 32), Geometry(75.0, 270.0), BANDS)
    ridge = 6.0 * np.abs(np.arange(32, dtype=np.float32) - 15.5) * np.ones((32, 1), np.float32)
    light = low.light(ridge)
    lit, shaded = light[:, 16, 20], light[:, 16, 10]
    assert lit.min() > 1.0 > shaded.max()
    assert lit[RED] / lit[BLUE] > 1.03 > 0.97 > shaded[RED] / shaded[BLUE]
    np.testing.assert_allclose(low.light(np.zeros_like(ridge)), 1.0, rtol=1e-5)


def test_a_plateau_is_white_and_all_but_even() -> None:
    for seed in range(3):
        surface = ground_reflectance("plateau", site(seed, (60, 60)))
        assert surface[RED].min() > 0.8
        assert surface[RED].std() < 0.05


def test_wood_in_snow_is_grey_and_far_more_even_than_open_snow_with_trees() -> None:
    surfaces = [ground_reflectance("taiga", site(seed, (96, 96))) for seed in range(8)]
    assert 0.05 < np.median([np.median(surface[BLUE]) for surface in surfaces]) < 0.35
    steps = [np.abs(np.diff(np.log(surface[BLUE]), axis=1)).mean() for surface in surfaces]
    # In the one real scene, at 30 m, neighbours differ by 5 to 7 %.
    assert 0.02 < np.median(steps) < 0.2
    snow = max(surface[BLUE].max() for surface in surfaces)
    assert snow > 0.6, "rivers, lakes and clearings stay white"


def test_lakes_of_the_tundra_are_dark_or_bear_ice() -> None:
    surfaces = [ground_reflectance("tundra", site(seed, (96, 96))) for seed in range(8)]
    dark = [(surface[NIR] < 0.03).mean() for surface in surfaces]
    white = [(surface[BLUE] > 0.15).mean() for surface in surfaces]
    assert 0.02 < np.mean(dark) < 0.6
    assert max(white) > 0.02
    assert min(white) == 0.0


def test_sand_is_red_and_bright() -> None:
    found = medians("desert")
    assert found[BLUE] < found[GREEN] < found[RED] < found[NIR]
    assert found[RED] > 0.2


def test_bands_of_a_material_come_in_the_order_asked_for() -> None:
    names = ("B11", "B02", "B8A")
    expected = [MATERIALS["crop"][CATALOGUE_BANDS.index(name)] / 100 for name in names]
    np.testing.assert_allclose(site(0, bands=names).spectrum("crop"), expected, rtol=1e-6)


def test_every_material_has_a_reflectance_for_every_band() -> None:
    assert {len(values) for values in MATERIALS.values()} == {len(CATALOGUE_BANDS)}
    assert all(0.0 < value < 100.0 for values in MATERIALS.values() for value in values)


def test_fields_have_flat_parcels_with_edges() -> None:
    """Most neighbours in a parcel are alike and a few differ much, as no fractal has it."""
    steps = np.abs(np.diff(ground_reflectance("fields", site(3, (128, 128)))[NIR], axis=1))
    assert np.percentile(steps, 50) < 0.02
    assert np.percentile(steps, 97) > 6 * np.percentile(steps, 50)


def test_some_fields_are_under_water(monkeypatch: pytest.MonkeyPatch) -> None:
    """Water takes the near-infrared light of whole parcels; soil shows through in red."""

    def dark_share(flooded: float) -> float:
        monkeypatch.setattr("cloudnet.ground.FLOODED_SHARE", flooded)
        surfaces = [ground_reflectance("fields", site(seed, (128, 128))) for seed in range(6)]
        dark = [(surface[NIR] < 0.1) & (surface[RED] > 0.04) for surface in surfaces]
        return float(np.mean(dark))

    assert dark_share(0.0) < 0.03
    assert dark_share(1.0) > 0.1


def test_a_river_runs_in_a_valley() -> None:
    place = site(4, (160, 160))
    distance = place.line(300.0, 2000.0)
    hills = replace(place, river_m=distance).terrain(3000.0)
    assert hills[distance < 20.0].max() < 0.02
    assert hills[distance > 1000.0].mean() > 0.3


def test_a_line_crosses_the_site_at_its_width() -> None:
    place = site(4, (80, 120))
    distance = place.line(0.0, 1000.0)
    cover = place.stroke(distance, 60.0)
    assert cover.max() == pytest.approx(1.0, abs=1e-6)
    # 60 m are three pixels; the line is at least as long as it takes to leave by the nearest edge
    assert 3.0 <= cover.sum() <= 3.2 * np.hypot(80, 120)
    assert place.stroke(distance, 5.0).max() <= 0.25


def test_a_mix_weighs_materials() -> None:
    place = site(5, (2, 3))
    half = np.full((2, 3), 2.0, np.float32)
    mixed = place.mix({"sand": half, "soil": half})
    expected = (place.spectrum("sand") + place.spectrum("soil")) / 2
    np.testing.assert_allclose(mixed[:, 1, 2], expected, rtol=1e-6)


def test_patterns_keep_their_size_in_metres() -> None:
    """Half the pixel, twice as many pixels across a hill: neighbours are more alike."""

    def roughness(pixel_m: float) -> float:
        place = Site(np.random.default_rng(6), (128, 128), Geometry(40.0, 150.0, pixel_m), BANDS)
        return float(np.abs(np.diff(place.fractal(-2.5, 1000.0))).mean())

    assert roughness(10.0) < 0.8 * roughness(20.0)


@pytest.mark.parametrize("seed", range(4))
def test_hills_are_smooth_below_the_length_of_a_slope(seed: int) -> None:
    """Most of their steepness is there at 100 m already, as in real landscapes."""
    place = Site(np.random.default_rng(seed), (240, 240), Geometry(60.0, 120.0, 10.0), BANDS)
    height = place.terrain(2000.0)
    coarse = height.reshape(24, 10, 24, 10).mean(axis=(1, 3))
    fine_slope, slope = (
        np.hypot(*np.gradient(field, length)) for field, length in ((height, 10.0), (coarse, 100.0))
    )
    assert np.sqrt((fine_slope**2).mean()) < 1.8 * np.sqrt((slope**2).mean())


def test_an_unknown_kind_of_ground_is_named_with_the_known() -> None:
    with pytest.raises(SceneError, match=r"'moon'.*forest"):
        ground_reflectance("moon", site(0))
