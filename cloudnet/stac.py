"""STAC items: four assets of one place, by their names or their bands' common names.

STAC 1.0 with the eo and raster extensions (`eo:bands`, `raster:bands`), and STAC 1.1, where both
became `bands` with `eo:common_name`, `raster:scale` and `raster:offset`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urljoin, urlsplit

from cloudnet.band_files import BandFile, BandFilesScene
from cloudnet.errors import SceneError
from cloudnet.reading import SCALE_HINT, Reading, is_address, read_time
from cloudnet.remote import MOST_JSON_BYTES, gdal_path, parse_json
from cloudnet.safe_metadata import NO_DATA_NUMBER, OFFSETS_SINCE
from cloudnet.scene import Scene
from cloudnet.spec import BAND_NAMES, BANDS, LEVELS

Json: TypeAlias = Mapping[str, Any]

OFFSET_APPLIED = "earthsearch:boa_offset_applied"
"""True where the offset is in the numbers no more. Items of Earth Search say so and may name the
offset of before all the same (Element84/earth-search, issue 9)."""

BASELINES = ("s2:processing_baseline", "processing:version", "sentinel:processing_baseline")


def open_item(item: Any, reading: Reading) -> Scene:
    """Open a `pystac.Item`; its assets are relative to its self link."""
    content = item.to_dict(include_self_link=True, transform_hrefs=False)
    return open_item_dict(content, item.get_self_href() or str(Path.cwd() / "item.json"), reading)


def open_item_file(path: Path, reading: Reading) -> Scene:
    """Open an item's JSON file."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_JSON_BYTES + 1)
    except OSError as error:
        raise SceneError(f"{path} cannot be read: {error.strerror or error}") from error
    return open_item_dict(parse_json(content, str(path)), str(path), reading)


def open_item_dict(item: Any, home: str, reading: Reading) -> Scene:
    """Open an item.

    Parameters
    ----------
    item
        Its content.
    home
        Its path or address: what relative addresses of assets start from.
    reading
        What it does not tell, and the resolution; bands are names of assets.

    Raises
    ------
    SceneError
        When it is none, lacks a band, contradicts itself, or an asset cannot be read.
    """
    if not isinstance(item, dict) or not isinstance(item.get("assets"), dict):
        raise SceneError(f"{home} is no STAC item; give one with assets")
    assets, properties = item["assets"], item.get("properties") or {}
    try:
        files = [
            _band_file(band, assets[name], properties, f"{home}, asset {name}", home, reading)
            for band, name in zip(BANDS, _assets(assets, home, reading))
        ]
    except (AttributeError, TypeError, ValueError, KeyError, IndexError) as error:
        raise SceneError(f"{home} is no STAC item in order ({error}); get it again") from error
    baseline = next((str(properties[key]) for key in BASELINES if properties.get(key)), None)
    path = home if is_address(home) else Path(home)
    scene = BandFilesScene(path, files, reading, _level(item, properties), baseline)
    scene.acquired = read_time(str(properties.get("datetime")))
    scene.sun_zenith_deg = _sun_zenith(properties)
    return scene


def _level(item: Json, properties: Json) -> str | None:
    """Return the level that an item tells, by its product's type or its collection."""
    kinds = (
        properties.get("s2:product_type"),
        properties.get("processing:level"),
        item.get("collection"),
    )
    for kind in map(str, kinds):
        for level in LEVELS:
            if kind.upper().replace("-", "").endswith(level[1:]):
                return level
    return None


def _sun_zenith(properties: Json) -> float | None:
    """Return the sun's zenith angle in degrees, where the item tells its height."""
    try:
        zenith = 90.0 - float(properties["view:sun_elevation"])
    except (KeyError, TypeError, ValueError):
        return None
    return zenith if 0.0 <= zenith <= 90.0 else None


def _assets(assets: Json, home: str, reading: Reading) -> list[str]:
    """Return the names of the assets of red, green, blue and NIR."""
    if reading.bands is not None:
        if missing := [name for name in reading.bands if name not in assets]:
            raise SceneError(f"{home} has no asset {', '.join(missing)}, only {', '.join(assets)}")
        return list(reading.bands)
    return [_asset(band, assets, home) for band in BANDS]


def _asset(band: str, assets: Json, home: str) -> str:
    """Return the name of a band's asset: by its own name, else by that of its only band."""
    known = BAND_NAMES[band]
    for wanted in (known, tuple(f"{name}_10m" for name in known)):
        if len(found := [name for name in assets if name.lower() in wanted]) == 1:
            return found[0]
    by_band: dict[str, float] = {}
    for name, asset in assets.items():
        bands = _bands(asset, "eo:bands")
        if len(bands) == 1 and {str(value).lower() for value in _names(bands[0])} & set(known):
            by_band[name] = float(asset.get("gsd") or bands[0].get("gsd") or 0)
    finest = [name for name, gsd in by_band.items() if gsd == min(by_band.values())]
    if len(finest) != 1:
        raise SceneError(
            f"{home} has {len(finest) or 'no'} assets for {band} ({known[-1]}) among "
            f"{', '.join(assets)}; name those for red, green, blue and NIR with --bands"
        )
    return finest[0]


def _bands(asset: Json, extension: str) -> list[Json]:
    found = asset.get("bands") or asset.get(extension) or []
    return [band for band in found if isinstance(band, dict)]


def _names(band: Json) -> list[Any]:
    keys = ("name", "common_name", "eo:common_name")
    return [band[key] for key in keys if band.get(key)]


def _band_file(
    band: str, asset: Any, properties: Json, label: str, home: str, reading: Reading
) -> BandFile:
    if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
        raise SceneError(f"{label} has no href")
    raster = _raster(asset)
    scale, offset, nodata = (_number(raster, key, label) for key in ("scale", "offset", "nodata"))
    if reading.scale is None or reading.offset is None:
        _check_offset(scale, offset, properties, label)
    if nodata is None and _is_sentinel_2(properties):
        nodata = NO_DATA_NUMBER
    address, path = _place(asset["href"], home)
    return BandFile(band, address, path, scale, offset, nodata)


def _raster(asset: Json) -> dict[str, Any]:
    """Return scale, offset and nodata, wherever the item's version of STAC has them."""
    told: dict[str, Any] = {}
    places = [asset, *_bands(asset, "raster:bands")[:1], *(asset.get("raster:bands") or [])[:1]]
    for place in places:
        for key in ("scale", "offset"):
            for name in (f"raster:{key}", *((key,) if place is not asset else ())):
                if place.get(name) is not None:
                    told[key] = place[name]
        if place.get("nodata") is not None:
            told["nodata"] = place["nodata"]
    return told


def _number(raster: Json, key: str, label: str) -> float | None:
    value = raster.get(key)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise SceneError(f"{label} says {key} {value!r}, which is no number") from error


def _check_offset(scale: float | None, offset: float | None, properties: Json, label: str) -> None:
    """Raise SceneError where the item contradicts itself on the offset, or leaves it open."""
    applied = properties.get(OFFSET_APPLIED)
    if applied and offset:
        raise SceneError(
            f"{label} says offset {offset:g}, and the item says {OFFSET_APPLIED}: true; "
            f"{SCALE_HINT}"
        )
    if not _is_sentinel_2(properties) or scale is None or offset is not None or applied:
        return
    for key in BASELINES:
        try:
            late = float(properties.get(key, 0)) >= OFFSETS_SINCE
        except (TypeError, ValueError):
            continue
        if late:
            raise SceneError(
                f"{label} says scale {scale:g} and no offset, which baseline {properties[key]} "
                f"has; {SCALE_HINT}"
            )


def _is_sentinel_2(properties: Json) -> bool:
    keys = ("constellation", "platform", "mission")
    return any(str(properties.get(key, "")).lower().startswith("sentinel-2") for key in keys)


def _place(href: str, home: str) -> tuple[str, str]:
    """Return what an asset is known by and what GDAL calls it."""
    if is_address(home):
        href = urljoin(home, href)
    if is_address(href):
        return href, gdal_path(href)
    scheme = urlsplit(href).scheme
    if len(scheme) > 1 and (scheme != "file" or is_address(home)):
        raise SceneError(f"{href} is not read; files and http(s) addresses are")
    path = Path(home).parent / (unquote(urlsplit(href).path) if scheme == "file" else href)
    if not path.is_file():
        raise SceneError(f"{path} does not exist, where {home} says that an asset lies")
    return str(path), str(path)
