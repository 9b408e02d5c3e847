"""Simulated scenes: the same from the same seed, true to their labels, lit as physics has it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloudnet import simulate
from cloudnet.clouds import BRIGHTEST_SIDE, CLOUDS, CloudLayer, cloud_layer, shading
from cloudnet.errors import SceneError
from cloudnet.ground import GROUNDS
from cloudnet.light import (
    ICE_ASYMMETRY,
    LANDSAT8,
    SENTINEL2,
    WATER_ASYMMETRY,
    Air,
    Geometry,
    clear_air,
)
from cloudnet.simulate import (
    CLOUD_THICKNESS,
    DARK_BLUE,
    DOUBT,
    HAZE_DOUBT,
    WHITE_BLUE,
    WHITE_THICKNESS,
    WHITE_UNSEEN,
    SimulatedScene,
    compose_clouds,
    simulate_scene,
    thickness_label,
)
from cloudnet.spec import BANDS, CATALOGUE_BANDS, CLEAR, CLOUD, NO_DATA

RED, GREEN, BLUE, NIR = range(4)
VEGETATION = (0.04, 0.07, 0.09, 0.32)
SIZE = (64, 80)


def even(reflectance: tuple[float, ...], size: tuple[int, int] = SIZE) -> NDArray[np.float32]:
    """A clear scene without any pattern."""
    return np.broadcast_to(np.array(reflectance, np.float32), (*size, len(reflectance))).copy()


def one_layer(
    monkeypatch: pytest.MonkeyPatch, thickness: NDArray[np.float32], base_m: float = 1000.0
) -> None:
    """Let every cloud that is drawn be this one."""
    layer = CloudLayer("stratus", thickness, base_m, base_m)
    monkeypatch.setattr(simulate, "cloud_layer", lambda *_: layer)


def under_sheet(
    monkeypatch: pytest.MonkeyPatch, thickness: float, ground: tuple[float, ...] = VEGETATION
) -> NDArray[np.floating]:
    """Mean reflectance by band under an even sheet."""
    one_layer(monkeypatch, np.full((96, 96), thickness, np.float32))
    geometry = Geometry(40.0, 150.0)
    scene = compose_clouds(even(ground), np.random.default_rng(0), geometry=geometry)
    mean: NDArray[np.floating] = scene.reflectance.mean((0, 1), dtype=np.float64)
    return mean


# Seeds and shapes


def digest(scene: SimulatedScene) -> str:
    arrays = (scene.reflectance, scene.label, scene.shadow, scene.optical_thickness)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


@pytest.mark.parametrize("ground", GROUNDS)
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(ground: str) -> None:
    cloud = CLOUDS[GROUNDS.index(ground) % len(CLOUDS)]
    first, again, other = (simulate_scene(s, SIZE, ground=ground, cloud=cloud) for s in (7, 7, 8))
    assert digest(first) == digest(again)
    assert digest(first) != digest(other)


def test_a_scene_does_not_hang_on_numpys_global_state() -> None:
    first = simulate_scene(11, SIZE)
    np.random.seed(3)  # noqa: NPY002
    assert digest(simulate_scene(11, SIZE)) == digest(first)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    ground=st.sampled_from(GROUNDS),
    cloud=st.sampled_from(CLOUDS),
)
def test_any_scene_is_whole(seed: int, size: tuple[int, int], ground: str, cloud: str) -> None:
    scene = simulate_scene(seed, size, ground=ground, cloud=cloud)
    assert scene.reflectance.shape == (*size, 4)
    assert (scene.ground, scene.cloud) == (ground, cloud)
    assert np.isfinite(scene.reflectance).all()
    assert scene.reflectance.min() > 0.0
    assert scene.reflectance.max() < 2.5
    assert set(np.unique(scene.label)) <= {CLEAR, CLOUD, NO_DATA}
    assert not (scene.shadow & (scene.label != CLEAR)).any()


def test_kinds_that_are_not_given_are_drawn() -> None:
    scenes = [simulate_scene(seed, (8, 8)) for seed in range(40)]
    assert len({scene.ground for scene in scenes}) > 6
    assert len({scene.cloud for scene in scenes}) > 5


def test_thirteen_bands_come_in_the_catalogues_order() -> None:
    all_bands = simulate_scene(3, SIZE, ground="forest", cloud="none", bands=CATALOGUE_BANDS)
    medians = np.median(all_bands.reflectance, axis=(0, 1))
    band = dict(zip(CATALOGUE_BANDS, medians, strict=True))
    assert all_bands.reflectance.shape[2] == 13
    assert band["B01"] > band["B02"] > band["B03"] > band["B04"]
    assert band["B08"] > 2.5 * band["B04"]
    assert band["B8A"] > band["B11"] > band["B12"]
    assert band["B10"] < 0.002


def test_a_band_is_the_same_whatever_its_place() -> None:
    """But for the noise, which is drawn band by band."""
    forward = simulate_scene(5, SIZE, ground="fields", cloud="cumulus")
    backward = simulate_scene(5, SIZE, ground="fields", cloud="cumulus", bands=BANDS[::-1])
    difference = forward.reflectance - backward.reflectance[..., ::-1]
    assert np.abs(difference).max() < 0.03
    contrast = np.abs(forward.reflectance[..., RED] - forward.reflectance[..., NIR])
    assert contrast.mean() > 20 * np.abs(difference).mean()


@pytest.mark.parametrize(
    "call",
    [
        lambda: simulate_scene(0, (0, 5)),
        lambda: simulate_scene(0, (5, 5), ground="moon"),
        lambda: simulate_scene(0, (5, 5), cloud="smoke"),
        lambda: simulate_scene(0, (5, 5), bands=("B04", "B04")),
        lambda: simulate_scene(0, (5, 5), bands=("red",)),
        lambda: compose_clouds(np.zeros((4, 4)), np.random.default_rng(0)),
        lambda: compose_clouds(np.zeros((4, 4, 3)), np.random.default_rng(0)),
    ],
)
def test_wrong_use_is_one_clear_error(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SceneError):
        call()


def test_a_scene_refuses_arrays_that_do_not_fit() -> None:
    scene = simulate_scene(0, (4, 6))
    with pytest.raises(SceneError, match="label"):
        SimulatedScene(
            scene.reflectance, scene.label.T, scene.shadow, scene.optical_thickness, "water", "none"
        )


# Labels


@pytest.mark.parametrize("cloud", CLOUDS[1:])
def test_the_label_is_that_of_the_optical_thickness(cloud: str) -> None:
    scene = simulate_scene(2, (128, 128), ground="fields", cloud=cloud)
    thickness = scene.optical_thickness
    low, high = CLOUD_THICKNESS / DOUBT, CLOUD_THICKNESS * DOUBT
    high *= HAZE_DOUBT if cloud == "haze" else 1.0
    np.testing.assert_array_equal(scene.label == CLEAR, thickness < low)
    np.testing.assert_array_equal(scene.label == CLOUD, thickness >= high)
    between = (thickness >= low) & (thickness < high)
    np.testing.assert_array_equal(scene.label == NO_DATA, between)


def test_label_at_the_limits() -> None:
    low, high = CLOUD_THICKNESS / DOUBT, CLOUD_THICKNESS * DOUBT
    thickness = np.array([[0.0, low - 1e-6, low, CLOUD_THICKNESS, high - 1e-6, high, 90.0]])
    assert thickness_label(thickness).tolist() == [[0, 0, 255, 255, 255, 1, 1]]


def test_over_white_ground_cloud_counts_once_it_can_be_seen() -> None:
    thickness = np.geomspace(0.01, 100.0, 400)
    levels = (0.0, DARK_BLUE, 0.4, WHITE_BLUE, 1.0)
    labels = [thickness_label(thickness, blue) for blue in levels]
    thinnest = [float(thickness[label == CLOUD].min()) for label in labels]
    assert thinnest[0] == thinnest[1] < thinnest[2] < thinnest[3] == thinnest[4]
    assert thinnest[4] == pytest.approx(WHITE_THICKNESS, rel=0.05)
    thickest = [float(thickness[label == CLEAR].max()) for label in labels]
    assert thickest[0] == thickest[1] < thickest[2] < thickest[3] == thickest[4]
    assert thickest[4] == pytest.approx(WHITE_UNSEEN, rel=0.05)
    for label in labels:
        # Between clear and cloud is doubt alone.
        assert label.tolist() == sorted(label, key=[CLEAR, NO_DATA, CLOUD].index)
    mixed = thickness_label(np.full(2, 3.0), np.array([0.05, 0.9]))
    assert mixed.tolist() == [CLOUD, NO_DATA], "pixel by pixel"


def test_a_composed_scene_is_labelled_by_the_ground_below(monkeypatch: pytest.MonkeyPatch) -> None:
    one_layer(monkeypatch, np.full((96, 96), 3.0, np.float32))
    ground = even(VEGETATION)
    ground[:, :20] = 0.85
    ground[:, 20] = np.nan
    for bands in (BANDS, BANDS[::-1]):
        order = [BANDS.index(band) for band in bands]
        rng = np.random.default_rng(0)
        label = compose_clouds(ground[..., order], rng, bands=bands).label
        assert (label[:, :21] == NO_DATA).all() and (label[:, 21:] == CLOUD).all()


@pytest.mark.parametrize(("kind", "angstrom"), [("stratus", 0.0), ("haze", 1.3)])
def test_a_veil_that_nobody_sees_over_white_ground_is_clear(
    monkeypatch: pytest.MonkeyPatch, kind: str, angstrom: float
) -> None:
    thickness = np.full((96, 96), 1.5, np.float32)
    thickness[:48] = 3.0
    layer = CloudLayer(kind, thickness, 1000.0, 1000.0, 0.65, angstrom)
    monkeypatch.setattr(simulate, "cloud_layer", lambda *_: layer)
    ground = even(VEGETATION)
    ground[:, :20] = 0.85
    label = compose_clouds(ground, np.random.default_rng(0)).label
    assert (label[48:, :20] == CLEAR).all() and (label[:48, :20] == NO_DATA).all()
    assert (label[48:, 20:] != CLEAR).all(), "over dark ground it is seen"


@pytest.mark.parametrize("cloud", ["cumulus", "stratocumulus", "stratus"])
def test_what_is_labelled_cloud_is_brighter_than_the_ground_beside_it(cloud: str) -> None:
    compared = 0
    for seed in range(12):
        scene = simulate_scene(seed, (96, 96), ground="forest", cloud=cloud)
        blue = scene.reflectance[..., BLUE]
        clear, cloudy = (blue[scene.label == value] for value in (CLEAR, CLOUD))
        if min(len(clear), len(cloudy)) > 100:
            assert np.median(cloudy) > np.percentile(clear, 95)
            compared += 1
    assert compared >= 3


def test_no_cloud_means_no_label_and_no_shadow() -> None:
    scene = simulate_scene(9, SIZE, ground="snow", cloud="none")
    assert not scene.label.any()
    assert not scene.shadow.any()
    assert not scene.optical_thickness.any()


# Light


def test_over_dark_ground_thicker_cloud_is_brighter(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [under_sheet(monkeypatch, t) for t in (0.0, 0.3, 0.6, 1.5, 4.0, 12.0, 40.0)]
    assert (np.diff(np.array(steps)[:, :3], axis=0) > 0.005).all()


def test_thin_cloud_raises_blue_more_than_near_infrared_over_vegetation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rise = under_sheet(monkeypatch, 1.0) - under_sheet(monkeypatch, 0.0)
    assert rise[BLUE] > 1.3 * rise[NIR] > 0.0


def test_thick_cloud_is_white_whatever_lies_beneath(monkeypatch: pytest.MonkeyPatch) -> None:
    over_plants = under_sheet(monkeypatch, 80.0)
    over_sand = under_sheet(monkeypatch, 80.0, (0.4, 0.3, 0.22, 0.5))
    assert over_plants.min() > 0.7
    assert np.ptp(over_plants[:3]) < 0.08
    assert np.abs(over_plants - over_sand).max() < 0.06


def test_cloud_over_snow_changes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    snow = (0.85, 0.85, 0.85, 0.82)
    change = under_sheet(monkeypatch, 5.0, snow) - under_sheet(monkeypatch, 0.0, snow)
    assert np.abs(change).max() < 0.15


def test_an_even_sheet_follows_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """R = Rc + T Td A / (1 - A Rd) between two parts of the air, worked out anew here."""
    thickness, cos_sun, aerosol, g = 3.0, np.cos(np.deg2rad(40.0)), 0.1, 0.85
    brilliance, bend, ozone_share = 1.07, 0.2, 1.3
    scaled, g_scaled = (1 - g**2) * thickness, g / (1 + g)
    first, third = 0.75 * (1 - g_scaled), (2 - 3 * g_scaled * cos_sun) / 4
    beam = 1 - np.exp(-scaled / cos_sun)
    cloud = (first * scaled + (third - first * cos_sun) * beam) / (1 + first * scaled)
    diffuse = first * scaled / (1 + first * scaled)

    def weather(
        _: np.random.Generator, ground: str, layer: CloudLayer, geometry: Geometry, optics: object
    ) -> object:
        assert (ground, optics) == ("given", SENTINEL2)
        return simulate._Weather(
            layer,
            brilliance,
            contrast=0.5,
            softness_m=40.0,
            even_sky=0.7,
            noise=1.0,
            cloud_bend=bend,
            snow_bend=0.3,
            geometry=geometry,
            aerosol=aerosol,
            ozone_share=ozone_share,
            optics=SENTINEL2,
        )

    monkeypatch.setattr(simulate, "_draw_weather", weather)
    one_layer(monkeypatch, np.full((96, 96), thickness, np.float32))
    rng = np.random.default_rng(0)
    scene = compose_clouds(even(VEGETATION), rng, geometry=Geometry(40.0, 150.0))
    for index, name in enumerate(BANDS):
        air = clear_air(SENTINEL2[name], float(cos_sun), aerosol, 1000.0, ozone_share)
        lit = (1 - air.sky_share) * (1 - cloud) + air.sky_share * (1 - diffuse)
        surface = float(air.surface(np.array([VEGETATION[index]]))[0])
        # Between cloud and ground, and between the air below the cloud and the ground.
        ground = lit * (1 - diffuse) * air.pass_below * surface / (1 - lit * surface * diffuse)
        ground /= 1 - surface * air.albedo_below
        below = ground + (1 - diffuse) * (1 - cloud) * air.path_below
        # Seen from overhead, where only light of the sky goes up as well as ever.
        up = 1 - (1 - air.sky_share_above) * bend * (1 - cos_sun) ** 2
        bright = cloud * brilliance * up
        seen = air.gas_above * bright + air.gas * below
        seen *= air.pass_above / (1 - air.albedo_above * (bright + below))
        seen += air.gas_above * air.path_above
        assert scene.reflectance[..., index].mean() == pytest.approx(seen, abs=5e-4), name


@given(
    thickness=st.floats(0.0, 100.0), surface=st.floats(0.0, 1.0), zenith_deg=st.floats(0.0, 75.0)
)
def test_no_light_is_made(thickness: float, surface: float, zenith_deg: float) -> None:
    """An even sheet over any ground without air sends up no more than comes down."""
    geometry, size = Geometry(zenith_deg, 150.0), (4, 4)
    layer = CloudLayer("stratus", np.full((48, 48), thickness, np.float32), 1000.0, 1000.0)
    light = simulate._sunlight(layer, geometry, size)
    lit = shading(layer, geometry, 0.5, 40.0)
    veil = simulate._veil(layer, lit, SENTINEL2["B08"], geometry, size)
    vacuum = Air(0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    seen = veil.over(np.full(size, surface, np.float32), light, vacuum)
    assert seen.max() <= 1.0 + 1e-5
    assert seen.min() >= -1e-6


def test_sides_of_cloud_that_turn_from_the_sun_are_the_darker_the_more_contrast() -> None:
    height = np.zeros((48, 48), np.float32)
    height[:, 10:30] = np.linspace(0.0, 20.0, 20, dtype=np.float32)  # rises to the east
    layer = CloudLayer("cumulus", height, 1000.0, 2000.0)
    from_west = Geometry(60.0, 270.0)
    soft, hard = (shading(layer, from_west, contrast, 20.0) for contrast in (0.3, 0.8))
    assert hard.max() <= BRIGHTEST_SIDE
    assert hard.max() > soft.max() > 1.0
    assert hard.min() == pytest.approx(0.2, abs=1e-5)
    assert soft.min() == pytest.approx(0.7, abs=1e-5)


def ridge(height_m: float) -> CloudLayer:
    """A deck of cloud with a ridge from north to south in the middle."""
    thickness = np.full((64, 96), 1e-3, np.float32)
    thickness[:, 30:34] = 1.0
    return CloudLayer("cumulus", thickness, 1000.0, 1000.0 + height_m)


def test_a_tower_throws_its_shadow_on_the_cloud_behind_it() -> None:
    """Of 400 m at 60 degrees it is 690 m long: a dozen pixels and more lie in it, none beyond."""
    from_west = Geometry(60.0, 270.0)
    lit = shading(ridge(400.0), from_west, 0.9, 20.0)[32]
    assert lit[38:46].max() < 0.5
    assert lit[:26].min() > 0.95
    assert lit[-10:].min() > 0.95
    flat = shading(ridge(100.0), from_west, 0.9, 20.0)[32]
    assert flat[38:46].min() > 0.95


def test_light_spreads_within_a_cloud_so_that_its_relief_is_soft() -> None:
    from_west = Geometry(40.0, 270.0)
    sharp, soft = (shading(ridge(100.0), from_west, 0.9, m) for m in (20.0, 120.0))
    assert np.ptp(soft) < 0.5 * np.ptp(sharp)


def test_sides_of_cloud_in_the_sun_are_yellower_than_those_in_the_shade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sky, which is blue, lights both alike, as real clouds show."""
    height = np.zeros((96, 96), np.float32)
    height[:, 16:48] = np.linspace(1.0, 40.0, 32, dtype=np.float32)
    height[:, 48:80] = height[:, 16:48][:, ::-1]
    layer = CloudLayer("cumulus", height + 30.0, 1000.0, 1600.0)
    monkeypatch.setattr(simulate, "cloud_layer", lambda *_: layer)
    scene = compose_clouds(
        even(VEGETATION), np.random.default_rng(3), geometry=Geometry(75.0, 270.0)
    )
    bright = scene.reflectance[40:56, :, RED]
    lit, shaded = bright > np.quantile(bright, 0.9), bright < np.quantile(bright, 0.1)
    red_to_green, blue_to_green = (
        np.log(scene.reflectance[40:56, :, band] / scene.reflectance[40:56, :, GREEN])
        for band in (RED, BLUE)
    )
    assert red_to_green[lit].mean() > red_to_green[shaded].mean() + 0.03
    assert blue_to_green[lit].mean() < blue_to_green[shaded].mean() - 0.03


def test_air_is_hazier_where_people_live_than_far_north() -> None:
    def most(ground: str) -> float:
        layer = cloud_layer("none", np.random.default_rng(0), (8, 8), 20.0)
        drawn = [
            simulate._draw_weather(
                np.random.default_rng(seed), ground, layer, Geometry(40.0, 150.0), SENTINEL2
            )
            for seed in range(60)
        ]
        return max(weather.aerosol for weather in drawn)

    assert most("snow") <= simulate.FAR_AEROSOL[1] < most("fields") <= simulate.AEROSOL[1]


def test_ozone_takes_more_of_landsat_s_red_than_of_sentinel_2_s() -> None:
    """Snow under a low sun is less red there, and brighter in NIR: the same scene, seen by both."""
    ratio = {}
    for name, bands, optics in (
        ("Sentinel-2", ("B04", "B03", "B02", "B8A"), SENTINEL2),
        ("Landsat", ("B04", "B03", "B02", "B8A"), LANDSAT8),
    ):
        scene = simulate_scene(
            5, (32, 32), ground="plateau", cloud="none", bands=bands, optics=optics
        )
        red, green = (np.median(scene.reflectance[..., band]) for band in (0, 1))
        ratio[name] = red / green
    assert ratio["Landsat"] < ratio["Sentinel-2"]
    with pytest.raises(SceneError, match="B08"):
        simulate_scene(5, (8, 8), bands=("B08",), optics=LANDSAT8)


def test_haze_is_bluer_than_cloud_over_dark_ground(monkeypatch: pytest.MonkeyPatch) -> None:
    def colour(angstrom: float) -> float:
        sheet = np.full((96, 96), 0.8, np.float32)
        layer = CloudLayer("haze", sheet, 1000.0, 1000.0, 0.65, angstrom)
        monkeypatch.setattr(simulate, "cloud_layer", lambda *_: layer)
        dark = even((0.02, 0.04, 0.07, 0.01))
        added = compose_clouds(dark, np.random.default_rng(0)).reflectance - dark
        return float(added[..., BLUE].mean() / added[..., NIR].mean())

    assert colour(1.3) > 1.5 * colour(0.0)


def test_ice_absorbs_more_in_the_short_wave_infrared_than_droplets() -> None:
    geometry, sheet = Geometry(40.0, 150.0), np.full((48, 48), 20.0, np.float32)

    def dimming(asymmetry: float, name: str) -> float:
        layer = CloudLayer("cirrus", sheet, 9000.0, 9000.0, asymmetry)
        bands = (SENTINEL2[name], SENTINEL2["B04"])
        seen, red = (simulate._veil(layer, 0 * sheet + 1, b, geometry, (4, 4)) for b in bands)
        return float(seen.reflectance.mean() / red.reflectance.mean())

    assert dimming(ICE_ASYMMETRY, "B11") < 0.7 < dimming(WATER_ASYMMETRY, "B11") < 0.95
    assert dimming(ICE_ASYMMETRY, "B02") == dimming(WATER_ASYMMETRY, "B02") == 1.0


def test_the_side_of_a_cloud_that_faces_the_sun_is_brighter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    col = np.arange(96)
    ridge = np.broadcast_to(np.maximum(30.0 - np.abs(col - 48), 0), (96, 96)).astype(np.float32)
    layer = CloudLayer("cumulus", ridge, 1000.0, 1600.0)
    monkeypatch.setattr(simulate, "cloud_layer", lambda *_: layer)
    dark, geometry = even((0.02, 0.04, 0.07, 0.01), (96, 96)), Geometry(55.0, 90.0)
    scene = compose_clouds(dark, np.random.default_rng(0), geometry=geometry)
    west, east = scene.reflectance[:, [36, 60], GREEN].mean(0)
    assert east > 1.2 * west


def test_noise_is_that_of_the_instrument(monkeypatch: pytest.MonkeyPatch) -> None:
    one_layer(monkeypatch, np.full((96, 96), 30.0, np.float32))
    monkeypatch.setattr(simulate, "NOISE_SHARES", (1.0, 1.0))
    scene = compose_clouds(even((0.0, 0.0, 0.0, 0.0)), np.random.default_rng(0))
    red = scene.reflectance[..., RED].astype(np.float64)
    assert red.std() == pytest.approx(np.sqrt(4e-6 * red.mean()), rel=0.1)


def test_images_differ_in_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it always the same, a net would tell simulated tiles by it."""
    one_layer(monkeypatch, np.full((96, 96), 30.0, np.float32))
    spread = [
        compose_clouds(even((0.0, 0.0, 0.0, 0.0)), np.random.default_rng(seed)).reflectance.std()
        for seed in range(8)
    ]
    assert max(spread) > 2 * min(spread)


def test_the_lens_spreads_a_point_evenly_and_keeps_its_light() -> None:
    point = np.zeros((7, 9), np.float32)
    point[3, 4] = 1.0
    seen = simulate._blurred(point)
    assert seen.sum() == pytest.approx(1.0, abs=1e-6)
    assert seen[2, 4] == pytest.approx(0.12 * 0.76, abs=1e-6)
    assert seen[2, 4] == seen[4, 4] == pytest.approx(seen[3, 3], abs=1e-6)
    np.testing.assert_allclose(simulate._blurred(np.ones((1, 5))), 1.0)


# Shadows and parallax


def one_disc(monkeypatch: pytest.MonkeyPatch, base_m: float) -> None:
    row, col = np.mgrid[0:240, 0:240]
    disc = np.clip(13.0 - np.hypot(row - 120, col - 120), 0, 1).astype(np.float32) * 40
    one_layer(monkeypatch, disc, base_m)


def one_puff(monkeypatch: pytest.MonkeyPatch, base_m: float) -> None:
    row, col = np.mgrid[0:240, 0:240]
    puff = 3 * np.exp(-((row - 120) ** 2 + (col - 120) ** 2) / 128.0)
    one_layer(monkeypatch, puff.astype(np.float32), base_m)


def centre(weight: NDArray[np.floating]) -> list[float]:
    row, col = np.mgrid[0 : weight.shape[0], 0 : weight.shape[1]]
    return [float((weight * axis).sum() / weight.sum()) for axis in (row, col)]


@pytest.mark.parametrize(
    ("azimuth_deg", "way"),
    [(0.0, (1, 0)), (90.0, (0, -1)), (150.0, (-0.866, -0.5)), (315.0, (0.707, 0.707))],
)
def test_the_shadow_falls_away_from_the_sun_by_the_height(
    monkeypatch: pytest.MonkeyPatch, azimuth_deg: float, way: tuple[float, float]
) -> None:
    one_disc(monkeypatch, 1000.0)
    geometry = Geometry(45.0, azimuth_deg, 20.0)
    clear = even(VEGETATION, (240, 240))
    scene = compose_clouds(clear, np.random.default_rng(1), geometry=geometry)
    expected = 120 + 50 * np.array(way)
    np.testing.assert_allclose(centre(scene.shadow.astype(float)), expected, atol=1.0)
    darkening = np.maximum(clear - scene.reflectance, 0)[..., NIR]
    darkening[darkening < 0.05] = 0
    np.testing.assert_allclose(centre(darkening), expected, atol=2.0)


def test_shadow_takes_more_from_the_near_infrared_than_from_blue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one_disc(monkeypatch, 1000.0)
    clear = even((0.2, 0.2, 0.2, 0.2), (240, 240))
    geometry = Geometry(45.0, 0.0)
    scene = compose_clouds(clear, np.random.default_rng(1), geometry=geometry)
    left = scene.reflectance[scene.shadow].mean(0) / 0.2
    assert left[NIR] < left[RED] < left[BLUE] < 0.8
    assert left[NIR] < 0.6


def test_haze_casts_no_shadow() -> None:
    scenes = [simulate_scene(s, SIZE, ground="fields", cloud="haze") for s in range(6)]
    assert not any(scene.shadow.any() for scene in scenes)


@pytest.mark.parametrize("base_m", [1000.0, 10000.0])
def test_red_and_blue_see_a_high_cloud_apart(
    monkeypatch: pytest.MonkeyPatch, base_m: float
) -> None:
    """B04 looks 1.005 s after B02, from farther south: the cloud seems farther north."""
    one_puff(monkeypatch, base_m)
    clear = even((0.02, 0.04, 0.07, 0.01), (240, 240))
    scene = compose_clouds(clear, np.random.default_rng(1), geometry=Geometry(30.0, 150.0, 20.0))
    added = scene.reflectance - clear
    red, green, blue = (centre(np.where(added > 0.1, added, 0)[..., band]) for band in range(3))
    apart = base_m * 1.005 * 7.45 / 786 / 20
    assert blue[0] - red[0] == pytest.approx(apart * np.cos(np.deg2rad(14)), abs=0.1)
    assert red[1] - blue[1] == pytest.approx(apart * np.sin(np.deg2rad(14)), abs=0.1)
    np.testing.assert_allclose(green, (120, 120), atol=0.1)


def medians(
    ground: str, cloud: str, zenith_deg: float, monkeypatch: pytest.MonkeyPatch, seeds: int = 16
) -> NDArray[np.float64]:
    """NIR over red of scenes under one sun: the median of each, of all pixels, (seeds,)."""
    sun = Geometry(zenith_deg, 150.0)
    monkeypatch.setattr(simulate, "_sun", lambda *_: sun)
    found = []
    for seed in range(seeds):
        scene = simulate_scene(seed, (48, 48), ground=ground, cloud=cloud)
        bright = scene.reflectance[..., BLUE] > 0.3
        if cloud != "none":
            bright &= scene.optical_thickness > 15.0
        if bright.sum() > 100:
            ratio = scene.reflectance[..., NIR] / scene.reflectance[..., RED]
            found.append(float(np.median(ratio[bright])))
    assert len(found) > seeds // 3
    return np.array(found)


@pytest.mark.parametrize("zenith_deg", [40.0, 60.0, 74.0])
def test_snow_is_darker_in_the_near_infrared_than_overcast_under_the_same_sun(
    monkeypatch: pytest.MonkeyPatch, zenith_deg: float
) -> None:
    """In four bands little else tells them apart."""
    snow = medians("snow", "none", zenith_deg, monkeypatch)
    overcast = medians("fields", "stratus", zenith_deg, monkeypatch)
    assert np.median(snow) < np.median(overcast) - 0.01


def test_pixels_may_be_of_another_size() -> None:
    coarse, fine, usual = (
        simulate_scene(3, SIZE, ground="fields", cloud="cumulus", pixel_m=pixel_m).reflectance
        for pixel_m in (40.0, 10.0, 20.0)
    )
    same = simulate_scene(3, SIZE, ground="fields", cloud="cumulus").reflectance
    np.testing.assert_array_equal(usual, same)
    assert (coarse != fine).mean() > 0.9
    with pytest.raises(SceneError, match="pixel"):
        simulate_scene(3, SIZE, pixel_m=0.0)


# Clouds over a given scene


def test_without_cloud_a_given_scene_stays_as_it_is() -> None:
    clear = simulate_scene(4, SIZE, ground="urban", cloud="none").reflectance
    scene = compose_clouds(clear, np.random.default_rng(2), cloud="none")
    np.testing.assert_array_equal(scene.reflectance, clear)
    assert scene.ground == "given"


def test_far_from_any_cloud_ground_keeps_its_reflectance(monkeypatch: pytest.MonkeyPatch) -> None:
    corner = np.zeros((400, 400), np.float32)
    corner[:20, :20] = 30.0
    clear = simulate_scene(4, (200, 200), ground="forest", cloud="none").reflectance
    one_layer(monkeypatch, corner, 500.0)
    before = clear.copy()
    scene = compose_clouds(clear, np.random.default_rng(2), geometry=Geometry(30.0, 90.0))
    np.testing.assert_array_equal(clear, before)
    np.testing.assert_allclose(scene.reflectance[150:, 150:], clear[150:, 150:], atol=1e-5)
    assert np.abs(scene.reflectance - clear)[3:17, 3:17].min() > 0.1


@pytest.mark.parametrize("level", [0.02, 0.3, 0.75, 0.95])
@pytest.mark.parametrize("zenith_deg", [20.0, 60.0, 75.0])
def test_ground_that_no_cloud_touches_keeps_its_reflectance(
    monkeypatch: pytest.MonkeyPatch, level: float, zenith_deg: float
) -> None:
    """Dark or bright, whatever the air: what is taken away for the cloud's sake comes back."""
    corner = np.zeros((400, 400), np.float32)
    corner[:20, :20] = 30.0
    one_layer(monkeypatch, corner, 500.0)
    monkeypatch.setattr(simulate, "_noise_variance", lambda seen, _: 0.0 * seen)
    clear, geometry = even((level,) * 4, (200, 200)), Geometry(zenith_deg, 90.0)
    for seed in range(4):
        found = compose_clouds(clear, np.random.default_rng(seed), geometry=geometry).reflectance
        # Far from the cloud and its shadow, which falls to the west and so out of the scene.
        np.testing.assert_allclose(found[150:, :120], level, atol=1e-4)
        assert found.max() < 2.5 and found.min() > 0


def test_pixels_without_value_stay_so_and_spoil_no_others() -> None:
    clear = even(VEGETATION)
    holed = clear.copy()
    holed[10:14, 20, NIR] = np.nan
    holed[30, 40, RED] = np.inf
    whole, holes = (
        compose_clouds(image, np.random.default_rng(6), cloud="stratus") for image in (clear, holed)
    )
    bad = ~np.isfinite(holed)
    np.testing.assert_array_equal(np.isfinite(holes.reflectance), ~bad)
    assert (holes.label[bad.any(axis=2)] == NO_DATA).all()
    good = ~bad.any(axis=2)
    np.testing.assert_array_equal(holes.label[good], whole.label[good])


def test_an_unlit_wide_cloud_hides_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    stripes = even((0.05, 0.05, 0.05, 0.05))
    stripes[:, ::2] = 0.4
    one_layer(monkeypatch, np.full((96, 96), 15.0, np.float32), 1500.0)
    scene = compose_clouds(stripes, np.random.default_rng(0), geometry=Geometry(40.0, 150.0))
    contrast = np.abs(np.diff(scene.reflectance.mean(0)[..., RED], axis=0)).mean()
    assert contrast < 0.01
