"""Products are read as they are downloaded; what is wrong with one is told in a sentence."""

from __future__ import annotations

import shutil
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine

from cloudnet.errors import SceneError
from cloudnet.safe import is_product
from cloudnet.scene import Reading, Scene, open_scene, scene_name
from cloudnet.spec import BANDS
from tests.helpers import UTM_10M
from tests.products import (
    L1C_AFTER,
    L1C_BEFORE,
    L1C_OLD,
    L2A_AFTER,
    L2A_BEFORE,
    Kind,
    Numbers,
    lopsided_numbers,
    metadata_xml,
    write_jp2,
    write_loose,
    write_safe,
    zip_product,
)

SIDES = (40, 50)
KINDS = {
    "L1C of the first year": L1C_OLD,
    "L1C before 04.00": L1C_BEFORE,
    "L1C after 04.00": L1C_AFTER,
    "L2A before 04.00": L2A_BEFORE,
    "L2A after 04.00": L2A_AFTER,
    "offset by band": Kind("L2A", "05.11", {i: -100 * (i + 1) for i in range(13)}),
}


def refused(path: object, *words: str, reading: Reading | None = None) -> str:
    with pytest.raises(SceneError) as caught, open_scene(path, reading) as scene:
        scene.read()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def offsets(kind: Kind) -> Numbers:
    """Return the offset of each band in digital numbers."""
    told = kind.offset if not isinstance(kind.offset, dict) else None
    if kind.offset is None or isinstance(told, int):
        return np.full(4, told or 0)
    return np.array([kind.offset[number] for number in (3, 2, 1, 7)])  # type: ignore[index]


def check(scene: Scene, kind: Kind, numbers: Numbers) -> None:
    """The reflectance is that of the metadata, to the bit that 32 bits give."""
    expected = (numbers.astype(np.float32) + offsets(kind).astype(np.float32)) * np.float32(1e-4)
    reflectance, valid = scene.read()
    np.testing.assert_array_equal(reflectance, expected)
    assert valid.all()
    assert (scene.level, scene.baseline) == (kind.level, kind.baseline)
    assert (scene.band_names, scene.units_told) == (BANDS, True)
    assert (scene.name, scene.transform, scene.crs) == (kind.name, UTM_10M, "EPSG:32633")


@pytest.mark.parametrize("what", KINDS)
def test_folder_zip_and_metadata_file_are_one_scene(tmp_path: Path, what: str) -> None:
    kind, numbers = KINDS[what], lopsided_numbers(*SIDES)
    product = write_safe(tmp_path, numbers, kind)
    stored = zip_product(product, tmp_path / f"{kind.name}.zip")
    packed = zip_product(product, tmp_path / f"{kind.name}.SAFE.zip", zipfile.ZIP_DEFLATED)
    for path in (product, str(product), product / kind.metadata, stored, packed):
        assert scene_name(path) == kind.name
        with open_scene(path) as scene:
            check(scene, kind, numbers)
    assert is_product(product)


def test_numbers_with_an_offset_give_the_reflectance_of_those_without(tmp_path: Path) -> None:
    numbers = lopsided_numbers(*SIDES)
    numbers[3, 4] = 0, 0, 0, 0
    shifted = np.where(numbers.any(axis=2, keepdims=True), numbers + 1000, 0).astype(np.uint16)
    before = write_safe(tmp_path / "a", numbers, L1C_BEFORE)
    after = write_safe(tmp_path / "b", shifted, L1C_AFTER)
    with open_scene(before) as old, open_scene(after) as new:
        for one, other in zip(old.read(), new.read()):
            np.testing.assert_array_equal(one, other)


def test_a_zip_without_the_products_folder_at_its_top(tmp_path: Path) -> None:
    product = write_safe(tmp_path, lopsided_numbers(*SIDES))
    archive = tmp_path / "flat.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in product.rglob("*.*"):
            file.write(path, path.relative_to(product))
    with open_scene(archive) as scene:
        assert (scene.rows, scene.cols, scene.name) == (*SIDES, "flat")


def test_a_zero_in_any_band_is_no_data_and_a_saturated_number_is_bright(tmp_path: Path) -> None:
    numbers = lopsided_numbers(*SIDES)
    numbers[1, 2, 3] = 0
    numbers[5, 6] = 65535
    with open_scene(write_safe(tmp_path, numbers)) as scene:
        reflectance, valid = scene.read()
    np.testing.assert_array_equal(np.argwhere(~valid), [(1, 2)])
    assert not reflectance[1, 2].any()
    np.testing.assert_allclose(reflectance[5, 6], 6.4535, rtol=1e-6)


def test_the_user_has_the_last_word_on_units(tmp_path: Path) -> None:
    kind = replace(L2A_AFTER, quantification=None, offset=None)
    product = write_safe(tmp_path, lopsided_numbers(*SIDES), kind)
    with open_scene(product, Reading(scale=2e-4, offset=0.0)) as scene:
        np.testing.assert_allclose(scene.read()[0], lopsided_numbers(*SIDES) * 2e-4, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (replace(L2A_AFTER, offset=None), ("05.09", "BOA_ADD_OFFSET", "--offset")),
        (replace(L1C_AFTER, offset=None), ("05.09", "RADIO_ADD_OFFSET", "--offset")),
        (replace(L2A_BEFORE, offset=-1000), ("02.12", "BOA_ADD_OFFSET", "--offset")),
        (replace(L2A_AFTER, offset={0: -1000, 1: -1000}), ("BOA_ADD_OFFSET", "not for B04")),
        (replace(L2A_AFTER, quantification=None), ("BOA_QUANTIFICATION_VALUE", "--scale")),
        (replace(L1C_AFTER, quantification="many"), ("many", "QUANTIFICATION_VALUE", "--scale")),
        (replace(L1C_AFTER, baseline="new"), ("'new'", "baseline")),
        (replace(L2A_AFTER, mission="Landsat-8"), ("Landsat-8", "Sentinel-2")),
    ],
)
def test_gaps_and_contradictions_are_told(
    tmp_path: Path, kind: Kind, words: tuple[str, ...]
) -> None:
    product = write_safe(tmp_path, lopsided_numbers(8, 9), kind)
    refused(product, str(product), kind.metadata, *words)


def test_a_level_that_contradicts_itself(tmp_path: Path) -> None:
    product = write_safe(tmp_path, lopsided_numbers(8, 9))
    text = metadata_xml(L2A_AFTER).replace(">Level-2A</P", ">Level-1C</P")
    (product / L2A_AFTER.metadata).write_text(text)
    refused(product, "PROCESSING_LEVEL", "Level-1C")


def test_a_missing_band(tmp_path: Path) -> None:
    product = write_safe(tmp_path, lopsided_numbers(8, 9))
    (product / f"{L2A_AFTER.image('B08')}.jp2").unlink()
    refused(product, str(product), "B08.*".rstrip(".*"), "_B08_10m.jp2")


def test_a_band_that_the_metadata_do_not_list(tmp_path: Path) -> None:
    product = write_safe(tmp_path, lopsided_numbers(8, 9))
    path = product / L2A_AFTER.metadata
    path.write_text(path.read_text().replace("_B03_10m", "_B03_11m"))
    refused(product, "_B03_10m", L2A_AFTER.metadata)


def test_a_band_of_another_size_or_place(tmp_path: Path) -> None:
    product = write_safe(tmp_path, lopsided_numbers(8, 9))
    band = product / f"{L2A_AFTER.image('B08')}.jp2"
    write_jp2(band, lopsided_numbers(4, 5)[..., 3])
    refused(product, str(band), "4 x 5 pixels where B04 has 8 x 9")
    write_jp2(
        band, lopsided_numbers(8, 9)[..., 3], transform=Affine(20, 0, *UTM_10M[2:4], -20, UTM_10M.f)
    )
    refused(product, str(band), "lies elsewhere")
    write_jp2(band, lopsided_numbers(8, 9)[..., 3], crs="EPSG:32634")
    refused(product, str(band), "lies elsewhere")


def test_two_granules(tmp_path: Path) -> None:
    product = write_safe(tmp_path, lopsided_numbers(8, 9))
    granule = product / "GRANULE" / L2A_AFTER.granule
    shutil.copytree(granule, granule.with_name("L2A_T33UUQ_A041564_20230607T100601"))
    refused(product, "2 granules", "T33UUP", "T33UUQ")
    shutil.rmtree(granule.with_name("L2A_T33UUQ_A041564_20230607T100601"))
    (product / L2A_AFTER.metadata).write_text(metadata_xml(L2A_AFTER, ("one", "other")))
    refused(product, "2 granules (one, other)")


def test_two_products_in_a_folder_or_a_zip(tmp_path: Path) -> None:
    product = write_safe(tmp_path, lopsided_numbers(8, 9))
    write_safe(tmp_path, lopsided_numbers(8, 9), L1C_BEFORE)
    both = tmp_path / "both.zip"
    with zipfile.ZipFile(both, "w") as file:
        for path in tmp_path.rglob("*.*"):
            if path.is_file() and path != both:
                file.write(path, path.relative_to(tmp_path))
    refused(both, str(both), "2 products")
    (product / L1C_BEFORE.metadata).write_text(metadata_xml(L1C_BEFORE))
    refused(product, "2 products", "MTD_MSIL1C.xml")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_truncated_band(tmp_path: Path, share: float) -> None:
    rng = np.random.default_rng(1)
    numbers = rng.integers(1, 5000, (300, 310, 4)).astype(np.uint16)
    product = write_safe(tmp_path, numbers, block_px=128)
    band = product / f"{L2A_AFTER.image('B02')}.jp2"
    content = band.read_bytes()
    band.write_bytes(content[: int(len(content) * share)])
    refused(product, str(band), "cut short", "get the file again")


@pytest.mark.parametrize("name", ["../MTD_MSIL2A.xml", "/etc/passwd", "a/../../b", "c:\\x"])
def test_a_zip_with_a_path_that_leaves_the_folder(tmp_path: Path, name: str) -> None:
    archive = zip_product(write_safe(tmp_path, lopsided_numbers(8, 9)), tmp_path / "a.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, b"x")
    refused(archive, str(archive), "is refused")


def lie(archive: Path, name: str, size: int) -> None:
    """Change the size that a zip says a member unpacks to."""
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        (info,) = (info for info in file.infolist() if info.filename.endswith(name))
        start, entry = info.header_offset, file.start_dir
        while data[entry + 46 : entry + 46 + len(info.filename)] != info.filename.encode():
            entry += 46 + sum(struct.unpack_from("<HHH", data, entry + 28))
    struct.pack_into("<I", data, start + 22, size)
    struct.pack_into("<I", data, entry + 24, size)
    archive.write_bytes(data)


@pytest.mark.parametrize("size", [0, 100, 10**6, 2**32 - 2])
@pytest.mark.parametrize("name", ["_B02_10m.jp2", "MTD_MSIL2A.xml"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_that_unpacks_to_other_than_it_says(
    tmp_path: Path, compression: int, name: str, size: int
) -> None:
    rng = np.random.default_rng(1)
    product = write_safe(tmp_path, rng.integers(1, 5000, (40, 50, 4)).astype(np.uint16))
    archive = zip_product(product, tmp_path / "a.zip", compression)
    lie(archive, name, size)
    refused(archive, str(archive))


def test_other_zips(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"PK\x03\x04 and nothing more")
    refused(archive, str(archive))
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "no product")
    refused(archive, str(archive), "is a zip", "SAFE")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("<n1:Level-2A_User_Product", "no well-formed XML"),
        ("", "no well-formed XML"),
        ("<html/>", "<html>"),
        (
            '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><Level-2A_User_Product>&e;'
            "</Level-2A_User_Product>",
            "document type",
        ),
        ('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>', "document type"),
    ],
)
def test_bad_metadata(tmp_path: Path, text: str, word: str) -> None:
    product = write_safe(tmp_path, lopsided_numbers(8, 9))
    (product / L2A_AFTER.metadata).write_text(text)
    refused(product, str(product / L2A_AFTER.metadata), word)


def test_a_product_of_another_mission(tmp_path: Path) -> None:
    product = tmp_path / "S1A_IW_GRDH.SAFE"
    product.mkdir()
    (product / "manifest.safe").write_text(
        "<xfdu:XFDU xmlns:xfdu='u'><safe:familyName xmlns:safe='v'>SENTINEL-1</safe:familyName>"
        "</xfdu:XFDU>"
    )
    refused(product, str(product), "product of SENTINEL-1")
    refused(zip_product(product, tmp_path / "S1A.zip"), "zip")


def test_a_folder_that_is_no_product(tmp_path: Path) -> None:
    refused(tmp_path, str(tmp_path), "is a folder; a scene is a")
    assert not is_product(tmp_path)


def test_bands_of_a_product_are_not_to_be_named(tmp_path: Path) -> None:
    product = write_safe(tmp_path, lopsided_numbers(8, 9))
    refused(product, "leave --bands out", reading=Reading(bands=("1", "2", "3", "4")))


# Loose band files


@pytest.mark.parametrize(
    "pattern", ["T33UUP_20230607T100601_{}.jp2", "T33UUP_2023_{}_10m.jp2", "{}.jp2", "a-{}.JP2"]
)
def test_loose_bands(tmp_path: Path, pattern: str) -> None:
    folder = write_loose(tmp_path / "loose.2023", lopsided_numbers(*SIDES), pattern)
    write_jp2(folder / "T33UUP_2023_B02_20m.jp2", lopsided_numbers(20, 25)[..., 0])
    write_jp2(folder / "T33UUP_2023_B8A.jp2", lopsided_numbers(20, 25)[..., 0])
    refused(folder, str(folder), "no scale", "--scale") if "2023_{}_" in pattern else None
    if pattern != "T33UUP_2023_{}_10m.jp2":
        (folder / "T33UUP_2023_B02_20m.jp2").unlink()
    with open_scene(folder, Reading(scale=1e-4)) as scene:
        reflectance, valid = scene.read()
        level = "L2A" if "_10m" in pattern else None
        assert (scene.name, scene.level) == ("loose.2023", level)
    np.testing.assert_allclose(reflectance, lopsided_numbers(*SIDES) * 1e-4, rtol=1e-6)
    assert valid.all() and is_product(folder)


def test_loose_bands_beside_their_metadata(tmp_path: Path) -> None:
    folder = write_loose(tmp_path / "loose", lopsided_numbers(*SIDES, -1000))
    (folder / "MTD_MSIL2A.xml").write_text(metadata_xml(L2A_AFTER))
    with open_scene(folder) as scene:
        np.testing.assert_allclose(scene.read()[0], lopsided_numbers(*SIDES) * 1e-4, rtol=1e-6)
        assert (scene.level, scene.baseline) == ("L2A", "05.09")


def test_loose_bands_of_two_granules_or_with_one_missing(tmp_path: Path) -> None:
    folder = write_loose(tmp_path / "loose", lopsided_numbers(8, 9), "T33UUP_{}.jp2")
    write_loose(folder, lopsided_numbers(8, 9), "T33UUQ_{}.jp2")
    refused(folder, "2 granules (T33UUP, T33UUQ)", reading=Reading(scale=1e-4))
    for path in folder.glob("T33UUQ*"):
        path.unlink()
    (folder / "T33UUP_B03.jp2").unlink()
    refused(folder, str(folder), "lacks the file of B03", reading=Reading(scale=1e-4))
