"""Small Sentinel-2 products in the layouts in which they are delivered, written by the tests."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from cloudnet.spec import BANDS, CATALOGUE_BANDS
from tests.helpers import UTM_10M

Numbers = NDArray[np.uint16]

ALL_IDS = tuple(range(13))
TILE = "T33UUP_20230607T100601"
SENSED = "20230607T100601"


@dataclass(frozen=True)
class Kind:
    """What a product's metadata say.

    Attributes
    ----------
    level, baseline
        "L1C" or "L2A", and such as "05.09".
    offset
        Of the digital numbers: for all bands, or by band id; None: no list.
    quantification
        None: the element is missing.
    old
        In the naming before December 2016.
    """

    level: str = "L2A"
    baseline: str = "05.09"
    offset: int | Mapping[int, int] | None = -1000
    quantification: str | None = "10000"
    old: bool = False
    mission: str = "Sentinel-2A"

    @property
    def name(self) -> str:
        """The product's name without .SAFE."""
        if self.old:
            return f"S2A_OPER_PRD_MSI{self.level}_PDMC_20160318T145513_R108_V20160318T105009"
        return f"S2A_MSI{self.level}_{SENSED}_N0000_R022_T33UUP_20230607T143500"

    @property
    def granule(self) -> str:
        """The name of its granule's folder."""
        if self.old:
            return f"S2A_OPER_MSI_{self.level}_TL_SGS__20160318T163310_A003857_T33UUP_N02.01"
        return f"{self.level}_T33UUP_A041564_{SENSED}"

    @property
    def metadata(self) -> str:
        """The name of its metadata file."""
        if self.old:
            return f"S2A_OPER_MTD_SAF{self.level}_PDMC_20160318T145513_R108_V20160318T105009.xml"
        return f"MTD_MSI{self.level}.xml"

    def image(self, band: str, metres: int = 10) -> str:
        """Return where a band lies, without its suffix, from the product's folder."""
        images = f"GRANULE/{self.granule}/IMG_DATA"
        if self.old:
            return f"{images}/{self.granule.removesuffix('_N02.01')}_{band}"
        if self.level == "L1C":
            return f"{images}/{TILE}_{band}"
        return f"{images}/R{metres}m/{TILE}_{band}_{metres}m"


L1C_OLD = Kind("L1C", "02.01", None, old=True)
L1C_BEFORE = Kind("L1C", "03.01", None)
L1C_AFTER = Kind("L1C", "05.09")
L2A_BEFORE = Kind("L2A", "02.12", None)
L2A_AFTER = Kind("L2A", "05.09")


def lopsided_numbers(rows: int, cols: int, offset: int = 0) -> Numbers:
    """Return digital numbers (rows, cols, 4) without symmetry, from 201 up."""
    row, col, band = np.ogrid[:rows, :cols, :4]
    values = 201 + 2000 * row // rows + 3000 * col // cols + 1000 * band
    return np.asarray(values - offset, dtype=np.uint16)


def metadata_xml(kind: Kind, granules: Sequence[str] | None = None) -> str:
    """Return a product's metadata, as short as they may be."""
    toa = kind.level == "L1C"
    tag = "QUANTIFICATION_VALUE" if toa else "BOA_QUANTIFICATION_VALUE"
    told = f'<{tag} unit="none">{kind.quantification}</{tag}>' if kind.quantification else ""
    told = told if toa else f"<QUANTIFICATION_VALUES_LIST>{told}</QUANTIFICATION_VALUES_LIST>"
    level = f"Level-{kind.level[1:]}"
    blocks = "".join(
        f'<{"Granules" if kind.old else "Granule"} granuleIdentifier="{granule}">{_images(kind)}'
        f"</{'Granules' if kind.old else 'Granule'}>"
        for granule in granules or (kind.granule,)
    )
    bands = "".join(
        f'<Spectral_Information bandId="{number}" physicalBand="{band.replace("B0", "B")}"/>'
        for number, band in enumerate(CATALOGUE_BANDS)
    )
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:{level}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/{level}.xsd">
<n1:General_Info><Product_Info>
<PROCESSING_LEVEL>{level}</PROCESSING_LEVEL>
<PROCESSING_BASELINE>{kind.baseline}</PROCESSING_BASELINE>
<Datatake><SPACECRAFT_NAME>{kind.mission}</SPACECRAFT_NAME></Datatake>
<Product_Organisation><Granule_List>{blocks}</Granule_List></Product_Organisation>
</Product_Info><Product_Image_Characteristics>
<Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
{told}{_offsets(kind)}
<Spectral_Information_List>{bands}</Spectral_Information_List>
</Product_Image_Characteristics></n1:General_Info></n1:{level}_User_Product>
"""


def _images(kind: Kind) -> str:
    """Return the list of images: at 20 m and 60 m too, as Level-2A has them, without B08 there."""
    if kind.old:
        names = [kind.image(band).rpartition("/")[2] for band in CATALOGUE_BANDS]
        return "".join(f"<IMAGE_ID>{name}</IMAGE_ID>" for name in names)
    names = [kind.image(band) for band in (*CATALOGUE_BANDS, "TCI")]
    if kind.level == "L2A":
        coarse = ("B02", "B03", "B04", "B8A")
        names = [kind.image(band, metres) for metres in (60, 20) for band in coarse]
        names += [kind.image(band) for band in (*BANDS, "TCI")]
    return "".join(f"<IMAGE_FILE>{name}</IMAGE_FILE>" for name in names)


def _offsets(kind: Kind) -> str:
    if kind.offset is None:
        return ""
    toa = kind.level == "L1C"
    tag, group = ("RADIO_ADD_OFFSET", "Radiometric_Offset_List")
    if not toa:
        tag, group = ("BOA_ADD_OFFSET", "BOA_ADD_OFFSET_VALUES_LIST")
    by_id = kind.offset if isinstance(kind.offset, Mapping) else dict.fromkeys(ALL_IDS, kind.offset)
    values = "".join(f'<{tag} band_id="{key}">{value}</{tag}>' for key, value in by_id.items())
    return f"<{group}>{values}</{group}>"


def write_jp2(path: Path, numbers: Numbers, *, block_px: int = 1024, **profile: Any) -> Path:
    """Write a band (rows, cols) without loss, as the ground segment does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, cols = numbers.shape
    settings: dict[str, Any] = {
        "driver": "JP2OpenJPEG",
        "height": rows,
        "width": cols,
        "count": 1,
        "dtype": numbers.dtype,
        "crs": "EPSG:32633",
        "transform": UTM_10M,
        "tiled": True,
        "REVERSIBLE": "YES",
        "QUALITY": 100,
        "BLOCKXSIZE": block_px,
        "BLOCKYSIZE": block_px,
    }
    with rasterio.open(path, "w", **{**settings, **profile}) as file:
        file.write(numbers, 1)
    return path


def write_safe(
    folder: Path, numbers: Numbers, kind: Kind = L2A_AFTER, bands: Sequence[str] = BANDS, **jp2: Any
) -> Path:
    """Write a SAFE folder of (rows, cols, bands) digital numbers into `folder`; return it."""
    product = folder / f"{kind.name}.SAFE"
    for index, band in enumerate(bands):
        write_jp2(product / f"{kind.image(band)}.jp2", numbers[..., index], **jp2)
    (product / kind.metadata).write_text(metadata_xml(kind), encoding="utf-8")
    (product / "manifest.safe").write_text("<xfdu/>", encoding="utf-8")
    return product


def zip_product(product: Path, archive: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    """Zip a SAFE folder as the archives do, its own folder at the top."""
    with zipfile.ZipFile(archive, "w", compression) as file:
        for path in sorted(product.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(product.parent))
    return archive


def write_loose(folder: Path, numbers: Numbers, pattern: str = f"{TILE}_{{}}_10m.jp2") -> Path:
    """Write a folder of loose band files."""
    for index, band in enumerate(BANDS):
        write_jp2(folder / pattern.format(band), numbers[..., index])
    return folder


def stac_item(hrefs: Mapping[str, str], band: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a STAC item whose assets, by name, lie at `hrefs` and share a raster:bands object."""
    told = {} if band is None else {"raster:bands": [dict(band)]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S2A_33UUP_20230607_L2A",
        "geometry": None,
        "properties": {"datetime": "2023-06-07T10:06:01Z"},
        "links": [],
        "assets": {name: {"href": href, **told} for name, href in hrefs.items()},
    }


def write_stac(path: Path, item: Mapping[str, Any]) -> Path:
    """Write a STAC item."""
    path.write_text(json.dumps(item), encoding="utf-8")
    return path
