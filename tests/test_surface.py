"""Level-2A: clear ground comes out as it is, cloud as no air made it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from cloudnet.light import LANDSAT8, SENTINEL2, clear_air
from cloudnet.simulate import simulate_scene
from cloudnet.spec import BANDS, CATALOGUE_BANDS, DARKEST
from cloudnet.surface import ClearAir, surface_reflectance

RED, GREEN, BLUE, NIR = range(4)
SIZE = (40, 50)


def air(aerosol: float = 0.1, ozone_share: float = 1.0, sun_zenith_deg: float = 50.0) -> ClearAir:
    """Air that a processor may reckon with."""
    return ClearAir(aerosol, ozone_share, math.cos(math.radians(sun_zenith_deg)))


def corrected(reflectance: NDArray[np.float32], judged: ClearAir) -> NDArray[np.float32]:
    """What becomes of Sentinel-2's four bands."""
    return surface_reflectance(reflectance, judged, SENTINEL2, BANDS)


@pytest.mark.parametrize(
    ("optics", "bands"),
    [(SENTINEL2, CATALOGUE_BANDS[:9]), (LANDSAT8, ("B04", "B03", "B02", "B8A"))],
)
def test_clear_ground_seen_through_the_air_that_was_judged_comes_out_as_it_is(
    optics: dict[str, object], bands: tuple[str, ...]
) -> None:
    ground = np.random.default_rng(3).uniform(0.01, 0.9, (*SIZE, len(bands))).astype(np.float32)
    judged = air(aerosol=0.17, ozone_share=1.2, sun_zenith_deg=61.0)
    seen = np.empty_like(ground)
    for index, band in enumerate(bands):
        clear = clear_air(optics[band], judged.cos_sun, 0.17, 0.0, 1.2)  # type: ignore[arg-type]
        seen[..., index] = clear.clear(ground[..., index])
    found = surface_reflectance(seen, judged, optics, bands)  # type: ignore[arg-type]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ground, atol=2e-5)


def test_what_has_no_data_has_none_afterwards() -> None:
    reflectance = np.full((*SIZE, 4), 0.2, np.float32)
    reflectance[:5] = 0.0
    reflectance[7, 7] = (0.3, 0.0, 0.3, 0.3)  # a band at zero is a value
    found = corrected(reflectance, air())
    assert not found[:5].any()
    assert (found[5:] >= np.float32(DARKEST)).all()
    assert not corrected(np.zeros((3, 4, 4), np.float32), air()).any()


def test_air_that_was_judged_too_hazy_makes_nothing_negative_nor_flat() -> None:
    dark = np.linspace(0.03, 0.2, 40 * 50 * 4, dtype=np.float32).reshape(*SIZE, 4)
    found = corrected(dark, air(aerosol=0.6))
    assert found.min() == np.float32(DARKEST)
    for band in range(4):
        values = found[..., band].ravel()
        assert (np.diff(values) > 0.0).all(), "dark ground keeps its detail"


def test_cloud_loses_blue_that_the_air_below_it_never_added() -> None:
    scenes = {
        level: simulate_scene(4, SIZE, ground="forest", cloud="stratus", cover=(0.95, 1.0),
                              attempts=10, level=level)
        for level in ("L1C", "L2A")
    }  # fmt: skip
    np.testing.assert_array_equal(scenes["L1C"].label, scenes["L2A"].label)
    cloud = scenes["L1C"].label == 1
    assert cloud.mean() > 0.5
    top, surface = (np.median(scenes[level].reflectance[cloud], axis=0) for level in scenes)
    assert surface[BLUE] / surface[RED] < 0.97 * top[BLUE] / top[RED]


def test_a_clear_scene_of_level_2a_shows_its_ground() -> None:
    top, surface = (
        simulate_scene(8, SIZE, ground="forest", cloud="none", level=level).reflectance
        for level in ("L1C", "L2A")
    )
    blue = [float(np.median(image[..., BLUE])) for image in (top, surface)]
    assert blue[0] > 0.05 and blue[1] < 0.04, "leaves throw back some 2 % of blue light"
    assert surface.min() >= np.float32(DARKEST)
