"""Cloud fields have the structure asked for, and their light keeps the laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudnet.clouds import CLOUDS, cloud_layer
from cloudnet.errors import SceneError
from cloudnet.fields import Spectrum, fractal_field, nearest_cells, smooth_size
from cloudnet.light import (
    SENTINEL2,
    Air,
    Geometry,
    clear_air,
    diffuse_reflectance,
    direct_transmittance,
    overhead_share,
    rayleigh_thickness,
    relief_light,
    two_stream,
)
from cloudnet.spec import CATALOGUE_BANDS

THICKNESS = np.concatenate([[0.0], np.geomspace(1e-3, 300.0, 200)])
cosines = st.floats(0.17, 1.0)
asymmetries = st.floats(0.0, 0.9)


@given(cos_sun=cosines, asymmetry=asymmetries)
def test_a_layer_that_absorbs_nothing_keeps_all_light(cos_sun: float, asymmetry: float) -> None:
    reflectance, transmittance = two_stream(THICKNESS, cos_sun, asymmetry)
    np.testing.assert_allclose(reflectance + transmittance, 1.0, rtol=0, atol=1e-12)
    assert reflectance.min() >= 0.0
    assert reflectance.max() < 1.0
    assert reflectance[0] == 0.0


@given(cos_sun=cosines, asymmetry=asymmetries)
def test_thicker_cloud_is_brighter(cos_sun: float, asymmetry: float) -> None:
    assert (np.diff(two_stream(THICKNESS, cos_sun, asymmetry)[0]) > 0).all()
    assert (np.diff(diffuse_reflectance(THICKNESS, asymmetry)) > 0).all()
    assert (np.diff(direct_transmittance(THICKNESS, cos_sun, asymmetry)) <= 0).all()


@given(cos_sun=cosines, asymmetry=asymmetries)
def test_direct_light_is_a_part_of_the_light_that_passes(cos_sun: float, asymmetry: float) -> None:
    passed = two_stream(THICKNESS, cos_sun, asymmetry)[1]
    assert (direct_transmittance(THICKNESS, cos_sun, asymmetry) <= passed + 1e-12).all()


def test_thin_cloud_is_brighter_under_a_low_sun() -> None:
    thin = np.array([0.5])
    assert two_stream(thin, 0.3, 0.85)[0] > 2 * two_stream(thin, 0.9, 0.85)[0]


@pytest.mark.parametrize(
    ("thickness", "cos_sun", "asymmetry", "expected"),
    [
        # worked by hand from Meador and Weaver's equation 24 with delta-scaled values
        (10.0, 0.7, 0.85, (1.125 + (0.258783784 - 0.283783784) * 0.981032) / 2.125),
        (1.0, 1.0, 0.0, (0.75 + (0.5 - 0.75) * (1 - math.exp(-1.0))) / 1.75),
    ],
)
def test_two_stream_golden_values(
    thickness: float, cos_sun: float, asymmetry: float, expected: float
) -> None:
    found = two_stream(np.array([thickness]), cos_sun, asymmetry)[0][0]
    assert found == pytest.approx(expected, abs=1e-5)


def test_rayleigh_thickness_of_blue_and_near_infrared() -> None:
    """Bodhaine et al. 1999 list 0.3618 at 400 nm and 0.0937 at 555 nm within a percent or so."""
    assert rayleigh_thickness(0.400) == pytest.approx(0.362, rel=0.01)
    assert rayleigh_thickness(0.555) == pytest.approx(0.0937, rel=0.01)


def test_air_is_brighter_in_blue_and_a_high_cloud_hides_most_of_it() -> None:
    blue, nir = (clear_air(SENTINEL2[name], 0.7, 0.1, 9000.0) for name in ("B02", "B08"))
    dark = np.zeros((1, 1), np.float32)
    assert blue.clear(dark)[0, 0] > 4 * nir.clear(dark)[0, 0]
    assert blue.path_above < 0.5 * (blue.path_above + blue.path_below)
    low = clear_air(SENTINEL2["B02"], 0.7, 0.1, 500.0)
    assert low.path_above > 2 * blue.path_above


zeniths_deg = st.floats(0.0, 79.0)
heights_m = st.floats(0.0, 12000.0)
aerosols = st.floats(0.0, 0.3)
LIT_BANDS = [name for name in CATALOGUE_BANDS if name != "B10"]
"""All but the one that vapour keeps from the ground."""


def air_of(
    name: str,
    zenith_deg: float,
    aerosol: float = 0.1,
    height_m: float = 0.0,
    ozone_share: float = 1.0,
) -> Air:
    cos_sun = math.cos(math.radians(zenith_deg))
    return clear_air(SENTINEL2[name], cos_sun, aerosol, height_m, ozone_share)


@pytest.mark.parametrize("name", LIT_BANDS)
@given(zeniths_deg, aerosols, heights_m, st.floats(0.5, 2.0))
def test_air_can_be_taken_away_again(
    name: str, zenith_deg: float, aerosol: float, height_m: float, ozone_share: float
) -> None:
    air = air_of(name, zenith_deg, aerosol, height_m, ozone_share)
    surface = np.linspace(0.0, 1.0, 11)[None]
    seen = air.clear(surface)
    np.testing.assert_allclose(air.surface(seen), surface, atol=1e-9)
    # What no surface can be is taken for the nearest that can.
    beyond = np.array([seen[0, 0] - 0.05, seen[0, -1] + 0.05])
    np.testing.assert_allclose(air.surface(beyond), [0.0, 1.0], atol=1e-9)


@pytest.mark.parametrize("name", CATALOGUE_BANDS)
@given(zeniths_deg, aerosols, heights_m, st.floats(0.5, 2.0))
def test_air_makes_hardly_any_light_and_shows_brighter_ground_brighter(
    name: str, zenith_deg: float, aerosol: float, height_m: float, ozone_share: float
) -> None:
    seen = air_of(name, zenith_deg, aerosol, height_m, ozone_share).clear(np.linspace(0, 1, 41))
    assert seen.min() >= 0.0 and seen.max() < 1.1
    assert (np.diff(seen) > 0).all()
    # Light goes to and fro between air and ground: bright ground gains more by the same step.
    assert (np.diff(seen, 2) >= -1e-12).all()


@pytest.mark.parametrize("name", ["B02", "B03", "B04", "B08"])
@given(zeniths_deg, aerosols)
def test_where_air_is_parted_does_hardly_matter_without_a_cloud(
    name: str, zenith_deg: float, aerosol: float
) -> None:
    surface = np.linspace(0.0, 1.0, 5)
    whole, parted = (
        air_of(name, zenith_deg, aerosol, height_m).clear(surface) for height_m in (0.0, 4000.0)
    )
    np.testing.assert_allclose(parted, whole, atol=0.03)


@given(st.floats(0.0, 75.0), st.floats(0.03, 0.2))
def test_bright_ground_is_lit_again_by_blue_air_more_than_by_red(
    zenith_deg: float, aerosol: float
) -> None:
    def gain(name: str) -> float:
        """How much more a white surface shows than ten times a tenth of it would."""
        air = air_of(name, zenith_deg, aerosol)
        black, dim, white = (float(air.clear(np.array(level))) for level in (0.0, 0.1, 1.0))
        return (white - black) / (10 * (dim - black))

    gains = [gain(name) for name in ("B02", "B03", "B04", "B08")]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 1.05 > 1.0 < gains[-1] < 1.1


@pytest.mark.parametrize("zenith_deg", [20.0, 60.0, 78.0])
def test_ozone_darkens_green_most_and_near_infrared_not_at_all(zenith_deg: float) -> None:
    def left(name: str, zenith_deg: float = zenith_deg) -> float:
        thin, thick = (air_of(name, zenith_deg, ozone_share=share) for share in (0.7, 1.5))
        return float(thick.clear(np.array(0.9)) / thin.clear(np.array(0.9)))

    green, blue, red, nir = (left(name) for name in ("B03", "B02", "B04", "B08"))
    assert green < red < blue < 1.0
    assert nir == pytest.approx(1.0)
    assert green < left("B03", zenith_deg - 15.0), "the lower the sun, the longer the way"


@given(st.floats(0.0, 1.0), st.floats(0.0, 0.5))
def test_from_overhead_snow_is_as_bright_as_its_flux_under_an_overhead_sun(
    sky_share: float, bend: float
) -> None:
    assert overhead_share(1.0, sky_share, bend) == 1.0
    shares = [overhead_share(cos_sun, sky_share, bend) for cos_sun in np.linspace(1.0, 0.0, 21)]
    assert (np.diff(shares) <= 0).all()
    assert 1.0 - bend - 1e-12 <= min(shares) <= max(shares) <= 1.0
    assert overhead_share(0.2, 1.0, bend) == 1.0, "light of the sky goes up as well as ever"
    assert overhead_share(0.2, sky_share, 0.0) == 1.0
    low, high = (overhead_share(0.2, share, bend) for share in (sky_share / 2, sky_share))
    assert low <= high
    less, more = (overhead_share(0.2, sky_share, either) for either in (bend, -bend))
    assert more - 1.0 == pytest.approx(1.0 - less), "below 0 more goes up"


def test_a_low_sun_turns_snow_bluer_from_overhead() -> None:
    def blueness(zenith_deg: float) -> float:
        cos_sun = math.cos(math.radians(zenith_deg))
        blue, nir = (
            overhead_share(cos_sun, air_of(name, zenith_deg).sky_share, 0.3)
            for name in ("B02", "B08")
        )
        return blue / nir

    assert blueness(75.0) > blueness(50.0) > blueness(0.0) == 1.0


def test_only_high_cloud_is_seen_in_the_cirrus_band() -> None:
    band = SENTINEL2["B10"]
    assert clear_air(band, 0.7, 0.1, 1500.0).gas_above < 1e-3
    assert clear_air(band, 0.7, 0.1, 9000.0).gas_above > 0.5


def test_bands_are_the_catalogues_in_order() -> None:
    assert tuple(SENTINEL2) == CATALOGUE_BANDS


@pytest.mark.parametrize(
    ("azimuth_deg", "expected"),
    [(0.0, (1, 0)), (90.0, (0, -1)), (180.0, (-1, 0)), (270.0, (0, 1))],
)
def test_a_shadow_lies_away_from_the_sun(azimuth_deg: float, expected: tuple[int, int]) -> None:
    """Rows grow to the south: under a sun in the south the shadow lies north, at lower rows."""
    shadow = Geometry(45.0, azimuth_deg, 10.0).shadow_px(1000.0)
    np.testing.assert_allclose(shadow, np.array(expected) * 100.0, atol=1e-9)


def test_slopes_that_face_the_sun_are_lighter() -> None:
    row, col = np.mgrid[0:9, 0:9].astype(np.float32)
    rises_to_the_east = 5.0 * col
    assert relief_light(rises_to_the_east, Geometry(45.0, 270.0, 20.0)).min() > 1.1
    assert relief_light(rises_to_the_east, Geometry(45.0, 90.0, 20.0)).max() < 0.9
    assert relief_light(5.0 * row, Geometry(45.0, 0.0, 20.0)).min() > 1.1
    np.testing.assert_allclose(relief_light(0 * row, Geometry(45.0, 10.0)), 1.0)


@pytest.mark.parametrize("values", [(85.0, 90.0, 20.0), (30.0, -1.0, 20.0), (30.0, 90.0, 0.0)])
def test_geometry_refuses_what_cannot_be(values: tuple[float, float, float]) -> None:
    with pytest.raises(SceneError):
        Geometry(*values)


def _line_slope(field: np.ndarray) -> float:
    """Slope of the mean power spectrum along rows, over the middle wavenumbers."""
    power = (np.abs(np.fft.rfft(field, axis=1)) ** 2).mean(0)
    wave = np.arange(len(power))
    chosen = slice(8, 80)
    return float(np.polyfit(np.log(wave[chosen]), np.log(power[chosen]), 1)[0])


@pytest.mark.parametrize("slope", [-5 / 3, -2.0, -3.0])
def test_a_fractal_field_has_the_slope_asked_for(slope: float) -> None:
    field = fractal_field(np.random.default_rng(1), (256, 256), Spectrum(slope, 512.0))
    assert field.dtype == np.float32
    assert field.mean() == pytest.approx(0.0, abs=1e-5)
    assert field.std() == pytest.approx(1.0, abs=1e-4)
    assert _line_slope(field) == pytest.approx(slope, abs=0.3)


def test_an_inner_scale_steepens_the_slope() -> None:
    rng = np.random.default_rng(2)
    field = fractal_field(rng, (256, 256), Spectrum(-5 / 3, 512.0, inner_px=200.0))
    assert _line_slope(field) < -3.0


def test_stretched_structures_are_longer_along_their_direction() -> None:
    def roughness(angle_deg: float) -> tuple[float, float]:
        spectrum = Spectrum(-2.5, 64.0, 6.0, angle_deg)
        field = fractal_field(np.random.default_rng(3), (128, 192), spectrum)
        return float(np.abs(np.diff(field, axis=0)).mean()), float(np.abs(np.diff(field)).mean())

    down, across = roughness(0.0)
    assert down > 1.5 * across
    down, across = roughness(90.0)
    assert across > 1.5 * down


@given(st.integers(1, 3000))
def test_smooth_size_is_the_next_number_of_twos_threes_and_fives(least: int) -> None:
    found = smooth_size(least)
    fine = {2**a * 3**b * 5**c for a in range(13) for b in range(9) for c in range(7)}
    assert found == min(n for n in fine if n >= least)


def test_nearest_cells_agree_with_a_search_through_all_points() -> None:
    size, cell = (24, 36), 12
    first, gap, number = nearest_cells(np.random.default_rng(4), size, cell)
    places = np.random.default_rng(4).random((2, 2, 3), dtype=np.float32)
    points = ((np.mgrid[0:2, 0:3] + places) * cell).reshape(2, -1)
    shifts = [np.array([[down], [across]]) for down in (-24, 0, 24) for across in (-36, 0, 36)]
    copies = [points + shift for shift in shifts]
    everywhere = np.concatenate(copies, axis=1)
    row, col = np.mgrid[0 : size[0], 0 : size[1]]
    distance = np.hypot(row[..., None] - everywhere[0], col[..., None] - everywhere[1])
    near = np.sort(distance, axis=2)
    np.testing.assert_allclose(first, near[..., 0], atol=1e-3)
    np.testing.assert_array_equal(number, distance.argmin(axis=2) % 6)
    exact = near[..., 1] < cell  # a second point more than a cell away may be missed
    assert exact.mean() > 0.5
    np.testing.assert_allclose(gap[exact], (near[..., 1] - near[..., 0])[exact], atol=1e-3)


@pytest.mark.parametrize("kind", CLOUDS)
@pytest.mark.parametrize("size", [(1, 1), (37, 90)])
def test_layers_cover_the_picture_and_are_finite(kind: str, size: tuple[int, int]) -> None:
    for seed in range(3):
        layer = cloud_layer(kind, np.random.default_rng(seed), size, 20.0)
        assert layer.kind == kind
        assert layer.thickness.dtype == np.float32
        assert layer.thickness.shape[0] >= size[0]
        assert layer.thickness.shape[1] >= size[1]
        assert np.isfinite(layer.thickness).all()
        assert layer.thickness.min() >= 0.0
        assert 0.0 < layer.base_m <= layer.top_m
        assert layer.relief_m.max() <= layer.top_m - layer.base_m + 1e-2


def test_layers_stand_in_their_storeys() -> None:
    def base(kind: str) -> float:
        return cloud_layer(kind, np.random.default_rng(5), (64, 64), 20.0).base_m

    assert base("stratus") < base("altocumulus") < base("cirrus")
    assert base("cumulus") < 2000.0


def test_cirrus_is_thin_and_cumulus_thick() -> None:
    def median(kind: str) -> float:
        layers = [cloud_layer(kind, np.random.default_rng(s), (96, 96), 20.0) for s in range(8)]
        thickness = np.concatenate([layer.thickness.ravel() for layer in layers])
        return float(np.percentile(thickness[thickness > 0], 90))

    assert median("cirrus") < 8.0 < median("cumulus") < 120.0


def test_some_cirrus_is_a_whole_veil_and_some_has_gaps() -> None:
    least = [
        float(cloud_layer("cirrus", np.random.default_rng(seed), (64, 64), 20.0).thickness.min())
        for seed in range(40)
    ]
    whole = np.mean([thickness > 0.02 for thickness in least])
    assert 0.2 < whole < 0.6
    assert min(least) == 0.0


def test_an_unknown_kind_of_cloud_is_named_with_the_known() -> None:
    with pytest.raises(SceneError, match=r"'fog'.*cumulus"):
        cloud_layer("fog", np.random.default_rng(0), (8, 8), 20.0)
