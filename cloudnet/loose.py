"""Folders of loose band files: `…_B02.jp2`, `…_B02_10m.jp2`, GeoTIFFs named so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from cloudnet.errors import SceneError
from cloudnet.spec import BANDS

BAND_FILE = re.compile(
    r"(?:(?P<of>.*)[_.-])?(?P<band>B0[2348])(?:_(?P<metres>\d\d)m)?\.(?:jp2|tiff?)", re.IGNORECASE
)


def is_loose(names: Iterable[str]) -> bool:
    """Tell whether names, relative to a folder, are of band files at its top."""
    return any(BAND_FILE.fullmatch(name) for name in names)


def tells_level_2a(name: str) -> bool:
    """Tell whether a band file's name says its resolution, as in Level-2A and not in Level-1C."""
    match = BAND_FILE.fullmatch(name)
    return match is not None and match["metres"] is not None


def find_loose(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the file of each band, of 10 m where its name tells.

    Raises
    ------
    SceneError
        When one is missing, or the files are of more than one product.
    """
    found: dict[str, list[str]] = {band: [] for band in BANDS}
    owners = set()
    for name in sorted(names):
        match = BAND_FILE.fullmatch(name)
        if match and match["metres"] in (None, "10"):
            found[match["band"].upper()].append(name)
            owners.add(match["of"] or "")
    if len(owners) > 1:
        raise SceneError(
            f"{folder} holds band files of {len(owners)} granules ({', '.join(sorted(owners))}); "
            "give each in a folder of its own"
        )
    for band, files in found.items():
        if not files:
            raise SceneError(f"{folder} lacks the file of {band} at 10 m, such as …_{band}.jp2")
        if len(files) > 1:
            raise SceneError(f"{folder} holds {len(files)} files of {band}: {', '.join(files)}")
    return {band: files[0] for band, files in found.items()}
