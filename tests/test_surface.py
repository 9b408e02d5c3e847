"""Level-2A: surface reflectance reaches a net of Level-1C as at the top of the atmosphere."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from numpy.typing import NDArray

from cloudnet.commands import main
from cloudnet.dataset import open_dataset
from cloudnet.errors import DatasetError, SceneError
from cloudnet.light import SENTINEL2, clear_air
from cloudnet.runtime import CloudModel, load_model
from cloudnet.scene import Reading, Scene, open_scene
from cloudnet.spec import BANDS
from cloudnet.surface import LOWEST_SUN_DEG, USUAL_SUN_DEG, at_top, clear_sky
from tests.helpers import lopsided_scene, write_labelled_scene, write_scene_npy, write_scene_tif
from tests.products import (
    L1C_AFTER,
    L2A_AFTER,
    lopsided_numbers,
    stac_item,
    write_jp2,
    write_loose,
    write_safe,
    write_stac,
    zip_product,
)

RED, GREEN, BLUE, NIR = range(4)
SIDES = (20, 24)

GRANULE_XML = """<?xml version="1.0"?>
<n1:Level-2A_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI.xsd">
<n1:Geometric_Info><Tile_Angles>
<Sun_Angles_Grid><Zenith><VALUES>31 32</VALUES></Zenith></Sun_Angles_Grid>
<Mean_Sun_Angle><ZENITH_ANGLE unit="deg">{}</ZENITH_ANGLE></Mean_Sun_Angle>
<Mean_Viewing_Incidence_Angle><ZENITH_ANGLE>7</ZENITH_ANGLE></Mean_Viewing_Incidence_Angle>
</Tile_Angles></n1:Geometric_Info></n1:Level-2A_Tile_ID>
"""


@pytest.fixture(scope="module")
def model() -> CloudModel:
    """A shipped net that takes Level-1C alone."""
    shipped = load_model("s2-rgbn")
    spec = replace(shipped.spec, levels=("L1C",))
    return CloudModel(shipped.path, spec, shipped._session, shipped.sha256)


def brought(reflectance: NDArray[np.float32], zenith_deg: float | None) -> NDArray[np.float32]:
    gain, path = clear_sky(zenith_deg)
    return np.asarray(path + gain * reflectance, np.float32)


# Air


def test_air_adds_light_in_the_blue_and_takes_some_away_the_more_the_lower_the_sun() -> None:
    gain, path = clear_sky(30.0)
    assert path[BLUE] > path[GREEN] > path[RED] > path[NIR] > 0.005
    assert gain[BLUE] < gain[RED] < gain[NIR] < 1.0
    assert 0.04 < path[BLUE] < 0.08, "what dark ground shows at the top of a clear atmosphere"
    lower_gain, lower_path = clear_sky(70.0)
    assert (lower_gain < gain).all() and (lower_path > path).all()
    for told, same in ((None, USUAL_SUN_DEG), (89.0, LOWEST_SUN_DEG)):
        for found, wanted in zip(clear_sky(told), clear_sky(same), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_ground_as_bright_as_its_surroundings_is_brought_back_exactly() -> None:
    gain, path = clear_sky(40.0, 0.3)
    for index, band in enumerate(BANDS):
        air = clear_air(SENTINEL2[band], np.cos(np.radians(40.0)), 0.3, 0.0)
        assert path[index] + gain[index] * 0.15 == pytest.approx(air.clear(np.array([0.15]))[0])


def test_an_array_keeps_its_type_and_what_has_no_data() -> None:
    surface = lopsided_scene(*SIDES)
    surface[:3] = 0.0
    surface[5, 6, 1] = np.nan
    surface[7, 7] = (0.0, 0.0, 0.0, 0.2)
    found = at_top(surface, 35.0)
    assert found.dtype == np.float32
    assert not found[:3].any()
    assert np.isnan(found[5, 6, 1])
    np.testing.assert_allclose(found[7, 7], brought(surface[7, 7], 35.0), rtol=1e-6)
    np.testing.assert_allclose(found[8:], brought(surface[8:], 35.0), rtol=1e-6)


def test_a_lazy_array_stays_lazy() -> None:
    dask_array = pytest.importorskip("dask.array", reason="the xarray extra is not installed")
    surface = lopsided_scene(*SIDES)
    lazy = at_top(dask_array.from_array(surface, chunks=(8, 8, 4)), 35.0)
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy.compute(), at_top(surface, 35.0))


# Scenes


def test_a_scene_darker_than_the_air_is_told_of(tmp_path: Path) -> None:
    scene = np.full((64, 64, 4), (0.05, 0.06, 0.07, 0.3), np.float32)
    scene[:8, :, 2] = 0.02
    path = write_scene_tif(tmp_path / "a.tif", np.rint(scene * 1e4).astype(np.uint16))
    command = ["predict", str(path), "-o", str(tmp_path / "out")]
    note = "Note: " + str(path) + " looks like Level-2A"
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0 and note in result.stderr, result.output
    write_scene_tif(tmp_path / "b_L1C.tif", np.rint(scene * 1e4).astype(np.uint16))
    many = ["predict", str(tmp_path / "*.tif"), "-o", str(tmp_path / "archive")]
    result = CliRunner().invoke(main, many)
    assert result.exit_code == 0 and result.stderr.count("Note:") == 1, result.output
    assert note in result.stderr
    records = (tmp_path / "archive" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["note"] is not None for line in records] == [True, False]
    for level in ("L1C", "L2A", "l2a"):
        result = CliRunner().invoke(main, [*command, "--overwrite", "--level", level])
        assert result.exit_code == 0 and "Note:" not in result.stderr, result.output
    scene[:8, :, 2] = 0.06
    write_scene_tif(path, np.rint(scene * 1e4).astype(np.uint16))
    result = CliRunner().invoke(main, [*command, "--overwrite"])
    assert result.exit_code == 0 and "Note:" not in result.stderr, result.output


def test_scenes_darker_than_the_air_are_told_of_where_they_are_scored(tmp_path: Path) -> None:
    scene = np.full((64, 64, 4), (0.05, 0.06, 0.07, 0.3), np.float32)
    labels = np.zeros((64, 64), np.uint8)
    write_labelled_scene(tmp_path, "bright", scene, labels)
    scene[:8, :, 2] = 0.02
    for name in ("dark", "darker", "dark_L1C", "dark_L2A"):
        write_labelled_scene(tmp_path, name, scene, labels)

    def said(*options: str) -> str:
        result = CliRunner().invoke(main, ["evaluate", str(tmp_path), *options])
        assert result.exit_code == 0, result.output
        return result.stderr

    assert "Note: dark and 1 more look like Level-2A" in said()
    (tmp_path / "scenes.csv").write_text("scene,level\ndarker,L2A\n", encoding="utf-8")
    assert "Note: dark looks like Level-2A" in said()
    assert "Note:" not in said("--level", "L1C")
    assert "Note:" not in said("--level", "L2A")


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("S2A_MSIL2A_20230607T100601_N0509_R022_T33UUP", "L2A"),
        ("S2B_MSIL1C_20230607T100601_N0509_R022_T33UUP", "L1C"),
        ("alberta_20190522_l2a", "L2A"),
        ("l2a-crop", "L2A"),
        ("T33UUP.L1C", "L1C"),
        ("T33UUP", None),
        ("XL2A", None),
        ("L2AB", None),
        ("both_L1C_L2A", None),
    ],
)
def test_a_file_s_name_tells_its_level(tmp_path: Path, name: str, level: str | None) -> None:
    with open_scene(write_scene_npy(tmp_path / f"{name}.npy", lopsided_scene(*SIDES))) as scene:
        assert scene.level == level
    with open_scene(tmp_path / f"{name}.npy", Reading(level="L2A")) as scene:
        assert scene.level == "L2A", "who reads it knows better"


@pytest.mark.parametrize(
    ("told", "level"), [("Level-2A", "L2A"), ("Level-1C", "L1C"), ("L2A", "L2A"), ("high", None)]
)
def test_a_file_made_of_a_product_tells_its_level(
    tmp_path: Path, told: str, level: str | None
) -> None:
    path = write_scene_tif(tmp_path / "a.tif", lopsided_numbers(*SIDES))
    with rasterio.open(path, "r+") as file:
        file.update_tags(PROCESSING_LEVEL=told)
    with open_scene(path) as scene:
        assert scene.level == level


def test_a_data_set_s_table_tells_the_level_of_its_scenes(tmp_path: Path) -> None:
    for name in ("a", "b", "c_L2A"):
        write_labelled_scene(tmp_path, name, lopsided_scene(*SIDES), np.zeros(SIDES, np.uint8))
    table = tmp_path / "scenes.csv"
    table.write_text("scene,level\na,L2A\nb,\nc_L2A,L1C\n", encoding="utf-8")

    def levels(reading: Reading | None = None) -> list[str | None]:
        scenes = open_dataset([tmp_path], reading).scenes
        return [labelled.open().level for labelled in scenes]

    assert levels() == ["L2A", None, "L1C"]
    assert levels(Reading(level="L1C")) == ["L1C"] * 3
    table.write_text("scene,level\na,L3\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"scenes\.csv says level L3 of a; it is L1C or L2A"):
        levels()


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(SceneError, match="--level is L1C or L2A, not L3"):
        Reading(level="L3")


def seen(model: CloudModel, scene: Scene) -> NDArray[np.float32]:
    """The reflectance that a net is given of a scene of one tile."""
    with closing(model.stream(scene, (scene.rows, scene.cols))) as tiles:
        ((_, _, reflectance),) = list(tiles)
    return reflectance


def test_a_net_of_level_1c_sees_level_2a_from_the_top(tmp_path: Path, model: CloudModel) -> None:
    surface = lopsided_scene(64, 80)
    path = write_scene_tif(tmp_path / "a_l2a.tif", np.rint(surface * 1e4).astype(np.uint16))
    both = CloudModel(model.path, replace(model.spec, levels=("L1C", "L2A")), model._session, "")
    with open_scene(path) as scene:
        plain, _ = scene.read()
        np.testing.assert_allclose(seen(model, scene), brought(plain, None), atol=2e-6)
        np.testing.assert_array_equal(seen(both, scene), plain)
        np.testing.assert_array_equal(scene.read()[0], plain, "the scene itself stays as it is")
        assert scene.for_levels(("L1C",)).level == "L1C"
        with closing(model.stream(scene, (64, 80))) as tiles:
            ((_, probability, _),) = list(tiles)
        np.testing.assert_allclose(probability, model.predict(at_top(plain)), atol=1e-5)
    other = path.rename(tmp_path / "a.tif")
    with open_scene(other) as scene:
        np.testing.assert_array_equal(seen(model, scene), plain)
    with open_scene(other, Reading(level="L2A")) as scene:
        np.testing.assert_allclose(seen(model, scene), brought(plain, None), atol=2e-6)


def test_pixels_without_data_have_none_from_the_top_either(
    tmp_path: Path, model: CloudModel
) -> None:
    numbers = np.rint(lopsided_scene(64, 80) * 1e4).astype(np.uint16)
    numbers[:10] = 0
    with open_scene(write_scene_tif(tmp_path / "a_L2A.tif", numbers)) as scene:
        assert not seen(model, scene)[:10].any()
        with closing(model.stream(scene, (64, 80))) as tiles:
            ((_, probability, _),) = list(tiles)
    assert np.isnan(probability[:10]).all() and np.isfinite(probability[10:]).all()


@pytest.mark.parametrize("zipped", [False, True])
def test_a_product_tells_where_the_sun_stood(
    tmp_path: Path, model: CloudModel, zipped: bool
) -> None:
    product = write_safe(tmp_path, lopsided_numbers(*SIDES))
    image = next(product.glob("GRANULE/*/IMG_DATA"))
    (image.parent / "MTD_TL.xml").write_text(GRANULE_XML.format(32.5), encoding="utf-8")
    path = zip_product(product, tmp_path / "a.zip") if zipped else product
    with open_scene(path) as scene:
        assert (scene.level, scene.sun_zenith_deg, scene.aerosol) == ("L2A", 32.5, None)
        plain, _ = scene.read()
        np.testing.assert_allclose(seen(model, scene), brought(plain, 32.5), atol=2e-6)


@pytest.mark.parametrize(("told", "aerosol"), [("0.31", 0.31), ("-1", None), ("much", None)])
def test_a_product_tells_the_aerosol_it_was_corrected_for(
    tmp_path: Path, model: CloudModel, told: str, aerosol: float | None
) -> None:
    product = write_safe(tmp_path, lopsided_numbers(*SIDES))
    metadata = product / "MTD_MSIL2A.xml"
    quality = f"<Image_Content_QI><GRANULE_MEAN_AOT>{told}</GRANULE_MEAN_AOT></Image_Content_QI>"
    text = metadata.read_text(encoding="utf-8")
    end = "</n1:Level-2A_User_Product>"
    metadata.write_text(text.replace(end, quality + end), encoding="utf-8")
    with open_scene(product) as scene:
        assert scene.aerosol == aerosol
        plain, _ = scene.read()
        gain, path = clear_sky(None, aerosol)
        np.testing.assert_allclose(seen(model, scene), path + gain * plain, atol=2e-6)


@pytest.mark.parametrize(
    "content", [None, "<n1:cut", "<a/>", GRANULE_XML.format("nan"), GRANULE_XML.format(123)]
)
def test_a_product_that_does_not_tell_is_seen_under_a_usual_sun(
    tmp_path: Path, model: CloudModel, content: str | None
) -> None:
    product = write_safe(tmp_path, lopsided_numbers(*SIDES), L2A_AFTER)
    if content is not None:
        granule = next(product.glob("GRANULE/*/IMG_DATA")).parent
        (granule / "MTD_TL.xml").write_text(content, encoding="utf-8")
    with open_scene(product) as scene:
        assert scene.sun_zenith_deg is None
        plain, _ = scene.read()
        np.testing.assert_allclose(seen(model, scene), brought(plain, None), atol=2e-6)


def test_level_1c_is_seen_as_it_is(tmp_path: Path, model: CloudModel) -> None:
    with open_scene(write_safe(tmp_path, lopsided_numbers(*SIDES), L1C_AFTER)) as scene:
        plain, _ = scene.read()
        np.testing.assert_array_equal(seen(model, scene), plain)
        assert scene.for_levels(("L2A",)) is scene, "nothing is made a surface"


@pytest.mark.parametrize(
    ("told", "zenith_deg"), [(57.5, 32.5), (None, None), ("high", None), (-3.0, None)]
)
def test_an_item_tells_where_the_sun_stood(
    tmp_path: Path, told: object, zenith_deg: float | None
) -> None:
    hrefs = {}
    for index, name in enumerate(("red", "green", "blue", "nir")):
        write_jp2(tmp_path / f"{name}.jp2", lopsided_numbers(*SIDES)[..., index])
        hrefs[name] = f"{name}.jp2"
    item = stac_item(hrefs, {"scale": 1e-4, "offset": 0.0, "nodata": 0})
    item["properties"] |= {} if told is None else {"view:sun_elevation": told}
    with open_scene(write_stac(tmp_path / "item.json", item)) as scene:
        assert (scene.level, scene.sun_zenith_deg) == ("L2A", zenith_deg)


def test_loose_bands_named_by_their_resolution_are_level_2a(tmp_path: Path) -> None:
    numbers = lopsided_numbers(*SIDES)
    for folder, pattern, level in (
        ("fine", "T33UUP_2023_{}_10m.jp2", "L2A"),
        ("plain", "T33UUP_2023_{}.jp2", None),
    ):
        write_loose(tmp_path / folder, numbers, pattern)
        with open_scene(tmp_path / folder, Reading(scale=1e-4)) as scene:
            assert scene.level == level


def test_a_data_array_of_level_2a_is_predicted_from_the_top(
    tmp_path: Path, model: CloudModel
) -> None:
    pytest.importorskip("xarray", reason="the xarray extra is not installed")
    pytest.importorskip("dask.array", reason="the xarray extra is not installed")
    from cloudnet.dataarray import open_dataarray, predict_dataarray

    numbers = np.rint(lopsided_scene(64, 80) * 1e4).astype(np.uint16)
    numbers[:10] = 0
    array = open_dataarray(write_scene_tif(tmp_path / "a_L2A.tif", numbers))
    wanted = model.predict(at_top(array.values))
    np.testing.assert_allclose(predict_dataarray(array, model).values, wanted, atol=1e-6)
    held = array.compute()
    np.testing.assert_allclose(predict_dataarray(held, model).values, wanted, atol=1e-6)
    del held.attrs["level"]
    assert np.nanmax(np.abs(predict_dataarray(held, model).values - wanted)) > 1e-3


def test_a_net_of_level_1c_learns_from_level_2a_as_it_will_see_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the train extra is not installed")
    from cloudnet.pipeline import BlockReader
    from cloudnet.tiles import Window

    surface = lopsided_scene(*SIDES)
    scene = write_labelled_scene(tmp_path, "a_L2A", surface, np.zeros(SIDES, np.uint8))
    whole = Window(0, 0, *SIDES)
    for cache_mb in (0.0, 1.0):
        image, _ = BlockReader([scene], cache_mb, ("L1C",)).read(0, whole, whole)
        np.testing.assert_allclose(image, brought(surface, None), atol=2e-6)
    np.testing.assert_array_equal(BlockReader([scene]).read(0, whole, whole)[0], surface)
