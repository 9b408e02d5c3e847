"""Sentinel-2 products as they are downloaded: SAFE folders, zips of them, loose band files."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from cloudnet.band_files import BandFile, BandFilesScene
from cloudnet.errors import SceneError
from cloudnet.loose import find_loose, is_loose, tells_level_2a
from cloudnet.product_files import FolderFiles, ProductFiles, ZipFiles
from cloudnet.reading import Reading
from cloudnet.safe_metadata import NO_DATA_NUMBER, SafeMetadata, mean_sun_zenith
from cloudnet.scene import Scene
from cloudnet.spec import BANDS
from cloudnet.xml_tree import parse_xml, texts

MANIFEST = "manifest.safe"

GRANULE_METADATA = re.compile(r"(^|/)(MTD_TL|S2._OPER_MTD_L.._TL_[^/]*)\.xml$")
"""Of today, and of the first years."""


def is_product(folder: Path) -> bool:
    """Tell whether a folder is a product, or holds band files: whether `open_product` takes it."""
    files = FolderFiles(folder)
    return bool(files.metadata) or MANIFEST in files.names or is_loose(files.names)


def open_product(path: Path, reading: Reading) -> Scene:
    """Open a product.

    Parameters
    ----------
    path
        A SAFE folder, its metadata file, a zip of it, or a folder of loose band files.
    reading
        What the metadata do not tell, and the resolution.

    Raises
    ------
    SceneError
        When it is none, is not whole, or leaves open how its numbers become reflectance.
    """
    if reading.bands is not None:
        raise SceneError(f"{path} is a product, whose bands are known; leave --bands out")
    files = _files(path)
    metadata = _metadata(files)
    if metadata is not None and (files.granules or not is_loose(files.names)):
        images = _granule_images(files, metadata)
    elif is_loose(files.names):
        images = find_loose(files.path, files.names)
    else:
        raise _no_product(files)
    return _scene(path, files, images, metadata, reading)


def _files(path: Path) -> ProductFiles:
    if path.suffix.lower() == ".zip":
        return ZipFiles(path)
    return FolderFiles(path if path.is_dir() else path.absolute().parent)


def _metadata(files: ProductFiles) -> SafeMetadata | None:
    """Return a product's metadata; None where there are none."""
    found = files.metadata
    if len(found) > 1:
        raise SceneError(
            f"{files.path} holds the metadata of {len(found)} products ({', '.join(found)}); "
            "give each in a folder of its own"
        )
    return SafeMetadata(files.read(found[0]), files.label(found[0])) if found else None


def _granule_images(files: ProductFiles, metadata: SafeMetadata) -> dict[str, str]:
    """Return the image of each band where the metadata say that it lies."""
    for granules in (metadata.granules(), files.granules):
        if len(granules) > 1:
            raise SceneError(
                f"{files.path} holds {len(granules)} granules ({', '.join(granules)}); "
                "give each in a product of its own"
            )
    images = {}
    for band in BANDS:
        image = f"{metadata.image(band)}.jp2"
        found = [name for name in files.names if f"/{name}".endswith(f"/{image}")]
        if len(found) != 1:
            raise SceneError(f"{files.path} lacks {image}, the image of {band}; get it again")
        images[band] = found[0]
    return images


def _scene(
    path: Path,
    files: ProductFiles,
    images: dict[str, str],
    metadata: SafeMetadata | None,
    reading: Reading,
) -> Scene:
    by_user = reading.scale is not None and reading.offset is not None
    units = None if metadata is None or by_user else metadata.units()
    bands = []
    for band in BANDS:
        scale, offset = units.scale_and_offset(band) if units else (None, None)
        name = images[band]
        bands.append(
            BandFile(band, files.label(name), files.gdal_path(name), scale, offset, NO_DATA_NUMBER)
        )
    level, baseline = (metadata.level, metadata.baseline) if metadata else (None, None)
    if level is None and all(tells_level_2a(image) for image in images.values()):
        level = "L2A"
    scene = BandFilesScene(path, bands, reading, level, baseline)
    scene.acquired = metadata.acquired if metadata else None
    if metadata and level == "L2A":
        scene.sun_zenith_deg, scene.aerosol = _sun_zenith(files), metadata.aerosol
    return scene


def _sun_zenith(files: ProductFiles) -> float | None:
    """Return the sun's zenith angle in the mean, where the granule's metadata tell it."""
    found = [name for name in files.names if GRANULE_METADATA.search(name)]
    if len(found) != 1:
        return None
    with suppress(SceneError):  # masks can do without it
        return mean_sun_zenith(files.read(found[0]), files.label(found[0]))
    return None


def _no_product(files: ProductFiles) -> SceneError:
    """Return why a folder or a zip is no product, by the mission that its manifest names."""
    if MANIFEST in files.names:
        manifest = parse_xml(files.read(MANIFEST), files.label(MANIFEST))
        mission = " ".join(texts(manifest, "familyName")[:1]) or "another mission"
        return SceneError(
            f"{files.path} is a product of {mission}: it has no metadata of Sentinel-2, "
            "MTD_MSIL1C.xml or MTD_MSIL2A.xml"
        )
    kind = "a zip" if isinstance(files, ZipFiles) else "a folder"
    return SceneError(
        f"{files.path} is {kind}; a scene is a .npy or GeoTIFF file, a STAC item, or a Sentinel-2 "
        "product: a SAFE folder, its zip, or a folder of files such as …_B02.jp2"
    )
