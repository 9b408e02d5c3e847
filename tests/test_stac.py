"""STAC items: assets by name or common name, units in either form, contradictions told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.shutil import copy

from cloudnet.errors import SceneError
from cloudnet.scene import Reading, open_scene, scene_name
from cloudnet.tiles import Window
from tests.helpers import UTM_10M, lopsided_scene, write_scene_tif, write_vrt
from tests.products import lopsided_numbers, stac_item, write_jp2, write_stac
from tests.server import serving

SIDES = (12, 15)
NAMES = ("red", "green", "blue", "nir")
TOLD = {"scale": 1e-4, "offset": -0.1, "nodata": 0}
Json = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, name in enumerate(NAMES):
        write_jp2(tmp_path / "bands" / f"{name}.jp2", lopsided_numbers(*SIDES, -1000)[..., index])
    return tmp_path


def hrefs(names: tuple[str, ...] = NAMES) -> dict[str, str]:
    return {name: f"./bands/{file}.jp2" for name, file in zip(names, NAMES)}


def item(band: Mapping[str, Any] | None = TOLD, **properties: Any) -> Json:
    made = stac_item(hrefs(), band)
    made["properties"] |= properties
    return made


def read(path: Any, reading: Reading | None = None) -> Any:
    with open_scene(path, reading) as scene:
        assert scene.transform == UTM_10M
        return scene.read()[0]


def refused(path: Any, *words: str, reading: Reading | None = None) -> None:
    with pytest.raises(SceneError) as caught:
        read(path, reading)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


EXPECTED = lopsided_numbers(*SIDES) * 1e-4


@pytest.mark.parametrize(
    "names",
    [
        NAMES,
        ("B04", "B03", "B02", "B08"),
        ("b4", "b3", "b2", "B8"),
        ("B04_10m", "B03_10m", "B02_10m", "B08_10m"),
    ],
)
def test_assets_are_found_by_name(folder: Path, names: tuple[str, ...]) -> None:
    made = stac_item(hrefs(names), TOLD)
    made["assets"]["visual"] = made["assets"]["B04_20m"] = {"href": "no.jp2"}
    np.testing.assert_allclose(read(write_stac(folder / "a.json", made)), EXPECTED, rtol=1e-6)


@pytest.mark.parametrize("form", ["eo:bands", "bands", "1.1 common"])
def test_assets_are_found_by_common_name_the_finest_first(folder: Path, form: str) -> None:
    made = stac_item(dict(zip("wxyz", hrefs().values())), TOLD)
    for asset, name in zip(list(made["assets"].values()), NAMES):
        key = "eo:common_name" if form == "1.1 common" else "common_name"
        asset["eo:bands" if form == "eo:bands" else "bands"] = [{key: name}]
        asset["gsd"] = 10
    coarse = {**made["assets"]["w"], "gsd": 20, "href": "no.jp2"}
    visual = {"href": "no.jp2", "eo:bands": [{"common_name": name} for name in NAMES[:3]]}
    made["assets"] |= {"coarse": coarse, "visual": visual}
    np.testing.assert_allclose(read(write_stac(folder / "a.json", made)), EXPECTED, rtol=1e-6)


@pytest.mark.parametrize(
    "told",
    [
        {"bands": [{"raster:scale": 1e-4, "raster:offset": -0.1, "nodata": 0}]},
        {"raster:scale": 1e-4, "raster:offset": -0.1, "nodata": 0},
        {"raster:bands": [{"scale": 1e-4, "offset": -0.1}], "bands": [{"name": "x"}]},
    ],
)
def test_units_of_either_form(folder: Path, told: Json) -> None:
    made = item(None)
    for asset in made["assets"].values():
        asset |= told
    np.testing.assert_allclose(read(write_stac(folder / "a.json", made)), EXPECTED, rtol=1e-6)


def test_units_by_band(folder: Path) -> None:
    made = item()
    made["assets"]["nir"]["raster:bands"] = [{"scale": 2e-4, "offset": 0.05}]
    reflectance = read(write_stac(folder / "a.json", made))
    np.testing.assert_allclose(reflectance[..., :3], EXPECTED[..., :3], rtol=1e-6)
    nir = lopsided_numbers(*SIDES, -1000)[..., 3] * 2e-4 + 0.05
    np.testing.assert_allclose(reflectance[..., 3], nir, rtol=1e-6)


def test_what_an_item_tells_of_a_product(folder: Path) -> None:
    told = {"s2:product_type": "S2MSI2A", "s2:processing_baseline": "05.09"}
    path = write_stac(folder / "a.json", item(**told))
    with open_scene(path) as scene:
        assert (scene.level, scene.baseline) == ("L2A", "05.09")
        assert scene.name == scene_name(path) == "S2A_33UUP_20230607_L2A"


def test_no_data_of_sentinel_2_is_0_where_the_item_does_not_say(folder: Path) -> None:
    numbers = lopsided_numbers(*SIDES)
    numbers[2, 3, 0] = 0
    write_jp2(folder / "bands" / "red.jp2", numbers[..., 0])
    told = {"scale": 1e-4, "offset": 0}
    path = write_stac(folder / "a.json", item(told, constellation="sentinel-2"))
    with open_scene(path) as scene:
        np.testing.assert_array_equal(np.argwhere(~scene.read()[1]), [(2, 3)])
    with open_scene(write_stac(folder / "b.json", item(told))) as scene:
        assert scene.read()[1].all()


def test_an_item_without_scale(folder: Path) -> None:
    path = write_stac(folder / "a.json", item(None))
    refused(path, str(path), "uint16", "--scale")
    given = Reading(scale=1e-4, offset=-0.1)
    np.testing.assert_allclose(read(path, given), EXPECTED, rtol=1e-6)


def test_an_item_without_scale_whose_numbers_fit_no_reflectance(folder: Path) -> None:
    made = stac_item({name: f"{name}.tif" for name in NAMES})
    for factor, words in ((1.0, ()), (100.0, ("fit no reflectance", "--scale"))):
        values = (lopsided_scene(*SIDES) * factor).astype(np.float32)
        for index, name in enumerate(NAMES):
            part = values[..., index : index + 1]
            write_scene_tif(folder / f"{name}.tif", part, scale=None, descriptions=None)
        path = write_stac(folder / "a.json", made)
        if words:
            refused(path, str(path), *words)
        else:
            np.testing.assert_array_equal(read(path), values)


@pytest.mark.parametrize(
    ("band", "properties", "words"),
    [
        (TOLD, {"earthsearch:boa_offset_applied": True}, ("boa_offset_applied", "-0.1")),
        ({"scale": 1e-4}, {"s2:processing_baseline": "05.09"}, ("no offset", "05.09")),
        ({"scale": "large"}, {}, ("'large'", "no number")),
    ],
)
def test_contradictions_and_gaps(
    folder: Path, band: Json, properties: Json, words: tuple[str, ...]
) -> None:
    made = item(band, constellation="sentinel-2", **properties)
    path = write_stac(folder / "a.json", made)
    refused(path, str(path), "asset red", *words)


def test_offsets_that_are_told_not_to_be(folder: Path) -> None:
    properties = {"constellation": "sentinel-2", "s2:processing_baseline": "05.09"}
    applied = {"earthsearch:boa_offset_applied": True}
    for band, more in (({"scale": 1e-4, "offset": 0}, {}), ({"scale": 1e-4}, applied)):
        path = write_stac(folder / "a.json", item(band, **properties, **more))
        np.testing.assert_allclose(read(path), EXPECTED + 0.1, rtol=1e-6)
    path = write_stac(folder / "a.json", item(TOLD, **properties, **applied))
    given = Reading(scale=1e-4, offset=0.0)
    np.testing.assert_allclose(read(path, given), EXPECTED + 0.1, rtol=1e-6)


def test_assets_that_the_user_names(folder: Path) -> None:
    made = stac_item(hrefs(("a", "b", "c", "nir08")), TOLD)
    path = write_stac(folder / "a.json", made)
    refused(path, "no assets for B04 (red)", "--bands")
    given = Reading(bands=("a", "b", "c", "nir08"))
    np.testing.assert_allclose(read(path, given), EXPECTED, rtol=1e-6)
    refused(path, "no asset x", reading=Reading(bands=("a", "b", "c", "x")))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "no JSON"),
        ("[]", "no STAC item"),
        ('{"type": "Feature"}', "no STAC item"),
        ('{"assets": {}, "properties": 5}', "no assets for B04"),
        ("[" * 100_000, "no JSON"),
        ('{"assets": {"x": 6}}', "no STAC item in order"),
    ],
)
def test_files_that_are_no_items(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    refused(path, str(path), word)
    assert scene_name(path) == "a"


@pytest.mark.parametrize("told", [5, [5], {"0": 5}, [{"scale": []}]])
def test_bands_out_of_order(folder: Path, told: Any) -> None:
    made = item()
    made["assets"]["red"]["raster:bands"] = told
    refused(write_stac(folder / "a.json", made), "a.json")
    made["properties"] = [1]
    refused(write_stac(folder / "a.json", made), "a.json")


@pytest.mark.parametrize(
    ("href", "word"),
    [("no.jp2", "no.jp2 does not exist"), ("s3://b/k.jp2", "is not read"), (None, "no href")],
)
def test_assets_that_cannot_be_reached(folder: Path, href: str | None, word: str) -> None:
    made = item()
    made["assets"]["green"]["href"] = href
    refused(write_stac(folder / "a.json", made), word)


def test_a_name_from_elsewhere_stays_in_the_folder(tmp_path: Path) -> None:
    path = write_stac(tmp_path / "a.json", {**item(), "id": "../../etc/x y"})
    assert scene_name(path) == "_.._etc_x_y"
    assert scene_name("http://host/a/..%2F..%2Fx.tif?y=1") == "_.._x"
    assert scene_name("https://host/items/S2A.33UUP/") == "S2A.33UUP"
    assert scene_name("https://host/") == "scene"


def test_an_item_object(folder: Path) -> None:
    class Item:
        """What is used of `pystac.Item`."""

        id = "S2/X"

        def to_dict(self, include_self_link: bool, transform_hrefs: bool) -> Json:
            assert not transform_hrefs
            return item()

        def get_self_href(self) -> str:
            return str(folder / "item.json")

    np.testing.assert_allclose(read(Item()), EXPECTED, rtol=1e-6)
    with open_scene(Item()) as scene:
        assert scene.name == "S2_X"


def test_an_item_of_pystac(folder: Path) -> None:
    pystac = pytest.importorskip("pystac")
    path = write_stac(folder / "a.json", {**item(), "bbox": [0, 0, 1, 1], "geometry": POINT})
    np.testing.assert_allclose(read(pystac.Item.from_file(str(path))), EXPECTED, rtol=1e-6)


POINT = {"type": "Point", "coordinates": [0, 0]}


def test_an_item_and_its_assets_at_addresses(folder: Path) -> None:
    write_stac(folder / "a.json", item())
    with serving(folder) as server:
        np.testing.assert_allclose(read(server.address("a.json")), EXPECTED, rtol=1e-6)
        assert scene_name(server.address("a.json")) == "a"
        made = item()
        for name, href in hrefs().items():
            made["assets"][name]["href"] = server.address(href.removeprefix("./"))
        np.testing.assert_allclose(read(write_stac(folder / "b.json", made)), EXPECTED, rtol=1e-6)
        made["assets"]["red"]["href"] = "file:///etc/hosts"
        (folder / "c.json").write_text(json.dumps(made))
        refused(server.address("c.json"), "file:///etc/hosts is not read")


# Masks


def write_masked(folder: Path, kind: str) -> Json:
    """Write four assets of which red has a mask, one kind or other; return their item."""
    left = np.ones((SIDES_20M[0] * 2 - 1, SIDES_20M[1] * 2), dtype=bool)
    left[3, 4] = left[-1, -1] = False
    for index, name in enumerate(NAMES):
        numbers = lopsided_numbers(*left.shape, -1000)[..., index : index + 1]
        more: Json = {}
        if name == "red" and kind == "alpha":
            numbers = np.concatenate([numbers, 255 * left[..., np.newaxis]], 2).astype(np.uint16)
            more = {"alpha": "YES"}
        elif name == "red":
            more = {"mask": left}
        path = write_scene_tif(
            folder / f"{name}.tif", numbers, scale=None, descriptions=None, **more
        )
        if kind == "overview":
            path.rename(folder / "plain.tif")
            copy(folder / "plain.tif", path, driver="COG", blocksize=128, overviews="AUTO")
    return stac_item({name: f"{name}.tif" for name in NAMES}, {"scale": 1e-4, "offset": -0.1})


SIDES_20M = (90, 75)


@pytest.mark.parametrize("kind", ["mask", "alpha", "overview"])
def test_the_mask_of_an_asset_is_no_data(tmp_path: Path, kind: str) -> None:
    """At 20 m a pixel is left out with any of those that it is made of: an odd row more, or less.

    GDAL rounds the size of an overview down, and of a view up.
    """
    path = write_stac(tmp_path / "a.json", write_masked(tmp_path, kind))
    with open_scene(path) as scene:
        valid = scene.read()[1]
        np.testing.assert_array_equal(np.argwhere(~valid), [(3, 4), (178, 149)])
        part = scene.read(Window(2, 3, 5, 4))[1]
        np.testing.assert_array_equal(part, valid[2:7, 3:7])
    with open_scene(path, Reading(resolution_m=20)) as scene:
        assert scene.cols == SIDES_20M[1]
        valid = scene.read()[1]
        np.testing.assert_array_equal(np.argwhere(~valid), [(1, 2), (scene.rows - 1, 74)])
        part = scene.read(Window(80, 70, scene.rows - 80, 5))[1]
        np.testing.assert_array_equal(part, valid[80:, 70:])


def test_an_asset_of_two_bands_of_which_none_is_alpha_is_refused(folder: Path) -> None:
    numbers = lopsided_numbers(*SIDES)[..., :2]
    write_scene_tif(folder / "bands" / "two.tif", numbers, descriptions=None)
    made = item()
    made["assets"]["red"]["href"] = "bands/two.tif"
    refused(write_stac(folder / "a.json", made), "two.tif holds 2 bands where B04 alone is due")


def test_an_asset_that_takes_its_pixels_from_another_file_is_refused(folder: Path) -> None:
    """An item from elsewhere could name any file of this machine."""
    write_vrt(folder / "bands" / "red.tif", folder / "bands" / "red.jp2", SIDES, ("red",))
    made = item()
    made["assets"]["red"]["href"] = "bands/red.tif"
    refused(write_stac(folder / "a.json", made), "red.tif is of GDAL's kind VRT")
