"""The metadata of a Sentinel-2 product: its level, its images, and the units of its numbers.

Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD), level 1C and 2A: reflectance =
(DN + offset) / quantification value, band by band, in every product since baseline 04.00, without
an offset before; DN 0 is no data, 65535 saturated, 1 to 32767 any other number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from math import isfinite

from cloudnet.errors import SceneError
from cloudnet.reading import SCALE_HINT, read_time
from cloudnet.spec import BANDS, CATALOGUE_BANDS
from cloudnet.xml_tree import elements, parse_xml, texts

OFFSETS_SINCE = 4.0
"""The baseline that brought offsets (25 January 2022)."""

NO_DATA_NUMBER = 0.0
"""In any band: numbers that are measured begin with 1, so a 0 in one band is not a dark pixel but
one that this band did not see, as along the edges of the footprint, where bands end apart."""

QUANTIFICATION = {
    "L1C": ("QUANTIFICATION_VALUE",),
    "L2A": ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"),
}
OFFSET = {"L1C": "RADIO_ADD_OFFSET", "L2A": "BOA_ADD_OFFSET"}
MOST_AEROSOL = 5.0
"""More than any product tells."""

IMAGES = ("IMAGE_FILE", "IMAGE_ID", "IMAGE_FILE_2A", "IMAGE_ID_2A")
"""Names of elements; the last of each are those of the first years."""


@dataclass(frozen=True)
class Units:
    """How digital numbers become reflectance.

    Attributes
    ----------
    quantification
        Digital numbers to a reflectance of 1.
    offsets
        Digital numbers to be added first, by band.
    """

    quantification: float
    offsets: dict[str, float]

    def scale_and_offset(self, band: str) -> tuple[float, float]:
        """Return them as reflectance = number x scale + offset."""
        return 1.0 / self.quantification, self.offsets[band] / self.quantification


class SafeMetadata:
    """What the metadata of one product say.

    Parameters
    ----------
    content
        Of the XML file.
    name
        What it is known by.

    Attributes
    ----------
    level, baseline
        Such as "L2A" and "05.09".

    Raises
    ------
    SceneError
        When they are not those of a Sentinel-2 product, or contradict themselves.
    """

    def __init__(self, content: bytes, name: str) -> None:
        self.name = name
        self._root = parse_xml(content, name)
        self.level = self._level()
        self._check_mission()
        self.baseline = self._only("PROCESSING_BASELINE")

    def _level(self) -> str:
        root = re.fullmatch(r"(?:\w+:)?Level-(1C|2A)_User_Product", self._root.tag)
        if root is None:
            raise SceneError(
                f"{self.name} begins with <{self._root.tag}>, and the metadata of a Sentinel-2 "
                "product of level 1C or 2A do not"
            )
        for told in texts(self._root, "PROCESSING_LEVEL"):
            if not told.startswith(f"Level-{root[1]}"):
                raise SceneError(
                    f"{self.name} begins as level {root[1]} and says PROCESSING_LEVEL {told}; "
                    "get the product again"
                )
        return f"L{root[1]}"

    def _check_mission(self) -> None:
        for craft in texts(self._root, "SPACECRAFT_NAME"):
            if not craft.startswith("Sentinel-2"):
                raise SceneError(f"{self.name} is of {craft}; give a product of Sentinel-2")

    @property
    def acquired(self) -> datetime | None:
        """When the product's first line was taken, in UTC; None where the metadata do not tell."""
        told = texts(self._root, "PRODUCT_START_TIME")
        return read_time(told[0]) if told else None

    @property
    def aerosol(self) -> float | None:
        """Optical thickness of aerosol at 550 nm that the processor reckoned with, in the mean, of
        Level-2A; None where the metadata do not tell."""
        told = [_number(text) for text in texts(self._root, "GRANULE_MEAN_AOT")]
        return told[0] if told and told[0] is not None and 0.0 <= told[0] <= MOST_AEROSOL else None

    def _only(self, *tags: str) -> str:
        """Return the one text that such elements hold; raise SceneError where there is not one."""
        found = sorted(set(texts(self._root, *tags)))
        if len(found) != 1:
            says = f"says {' and '.join(found)} of" if found else "does not tell"
            raise SceneError(f"{self.name} {says} its {tags[0]}; get the product again")
        return found[0]

    def granules(self) -> list[str]:
        """Return the names of the granules."""
        found = elements(self._root, "Granule", "Granules")
        return sorted({element.get("granuleIdentifier", "") for element in found})

    def image(self, band: str) -> str:
        """Return the path or name, without its suffix, of a band's image of 10 m.

        Raises
        ------
        SceneError
            When none is listed.
        """
        ending = rf"_{band}" if self.level == "L1C" else rf"_{band}_10m"
        found = [name for name in texts(self._root, *IMAGES) if name.endswith(ending)]
        if len(set(found)) != 1:
            raise SceneError(
                f"{self.name} lists {len(set(found))} images *{ending}; get the product again"
            )
        return found[0]

    def units(self) -> Units:
        """Return how numbers become reflectance.

        Raises
        ------
        SceneError
            When the metadata leave that open, or contradict themselves.
        """
        return Units(self._quantification(), self._offsets())

    def _quantification(self) -> float:
        tags = QUANTIFICATION[self.level]
        found = texts(self._root, *tags)
        value = _number(found[0]) if len(set(found)) == 1 else None
        if value is None or value <= 0:
            says = f"says {' and '.join(found)} of" if found else "does not tell"
            raise SceneError(f"{self.name} {says} its {tags[0]}; {SCALE_HINT}")
        return value

    def _offsets(self) -> dict[str, float]:
        tag = OFFSET[self.level]
        listed = {
            element.get("band_id", ""): _number(element.text)
            for element in elements(self._root, tag)
        }
        since = _number(self.baseline)
        if since is None:
            raise SceneError(f"{self.name} says {self.baseline!r} of its baseline; {SCALE_HINT}")
        if not listed:
            if since >= OFFSETS_SINCE:
                raise SceneError(
                    f"{self.name} is of baseline {self.baseline} and lists no {tag}, which "
                    f"products have from 04.00 on; {SCALE_HINT}"
                )
            return dict.fromkeys(BANDS, 0.0)
        if since < OFFSETS_SINCE and any(listed.values()):
            raise SceneError(
                f"{self.name} is of baseline {self.baseline} and lists {tag}, which products have "
                f"from 04.00 on only; {SCALE_HINT}"
            )
        return {band: self._offset_of(band, listed, tag) for band in BANDS}

    def _offset_of(self, band: str, listed: dict[str, float | None], tag: str) -> float:
        offset = listed.get(self._band_ids().get(band, ""))
        if offset is None:
            raise SceneError(
                f"{self.name} lists {tag} for some bands, not for {band}; {SCALE_HINT}"
            )
        return offset

    def _band_ids(self) -> dict[str, str]:
        """Return the ids of bands: as listed, else the place in the list of all bands."""
        listed = {
            _two_digits(element.get("physicalBand", "")): element.get("bandId", "")
            for element in elements(self._root, "Spectral_Information")
        }
        return listed or {band: str(number) for number, band in enumerate(CATALOGUE_BANDS)}


def mean_sun_zenith(content: bytes, name: str) -> float | None:
    """Return the sun's mean zenith angle, in degrees, that a granule's metadata tell.

    Parameters
    ----------
    content, name
        Of the XML file, as in `SafeMetadata`.

    Raises
    ------
    SceneError
        When it is malformed.
    """
    for angles in elements(parse_xml(content, name), "Mean_Sun_Angle"):
        for told in texts(angles, "ZENITH_ANGLE"):
            zenith = _number(told)
            return zenith if zenith is not None and 0.0 <= zenith <= 90.0 else None
    return None


def _two_digits(band: str) -> str:
    """Return B4 as B04."""
    return re.sub(r"^B(\d)$", r"B0\1", band)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if isfinite(value) else None
