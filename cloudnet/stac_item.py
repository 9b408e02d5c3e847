"""STAC items: a JSON file beside the products by which a catalogue finds them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cloudnet._version import __version__
from cloudnet.errors import OutputError
from cloudnet.layer import MASK_COLOURS, PERCENT
from cloudnet.map_grid import MapGrid
from cloudnet.spec import CLEAR, CLOUD, NO_DATA

STAC_VERSION = "1.1.0"

EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in (
        "eo/v1.1.0",
        "file/v2.1.0",
        "projection/v2.0.0",
        "raster/v2.0.0",
        "processing/v1.2.0",
        "classification/v2.0.0",
    )
)

EDGE_POINTS = 8
"""Points that an edge of the footprint has at least: a straight edge of a UTM tile bends by some
20 m between them in longitude and latitude."""

DIGITS = 7
"""Of degrees: a hundredth of a metre."""

SHA2_256 = "1220"
"""Head of a multihash: the function's number and the digest's length in bytes."""

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
TYPES = {
    ".tif": COG_TYPE,
    ".png": "image/png",
    ".json": "application/json",
    ".geojson": "application/geo+json",
    ".gpkg": "application/geopackage+sqlite3",
}
TITLES = {
    "mask": ("Cloud mask", ["data", "cloud"]),
    "probability": ("Probability of cloud", ["data", "cloud"]),
    "quicklook": ("True colour with the outline of the cloud", ["overview"]),
    "vector": ("Outlines of the clouds", ["data", "cloud"]),
    "summary": ("What was found, and by what", ["metadata"]),
}
CLASSES = {CLEAR: "clear", CLOUD: "cloud", NO_DATA: "no_data"}


def make_item(
    name: str,
    grid: MapGrid,
    acquired: datetime,
    files: Mapping[str, tuple[Path, Path]],
    summary: Mapping[str, Any],
    home: Path,
) -> dict[str, Any]:
    """Return the STAC item of a scene's products as JSON types.

    Parameters
    ----------
    name
        Of the scene.
    grid
        Of the products.
    acquired
        When the scene was taken; a time without zone is UTC.
    files
        By kind: where the file will lie, and where its content is now.
    summary
        Of the scene.
    home
        Folder of the item, from which addresses of files start.

    Notes
    -----
    STAC 1.1.0 with the extensions named in `EXTENSIONS`; `eo:cloud_cover` is a share of the valid
    pixels of the mask, and left out where there is none.
    """
    ring = footprint(grid, name)
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": f"{name}_cloudmask",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [*np.min(ring, axis=0).tolist(), *np.max(ring, axis=0).tolist()],
        "properties": _properties(name, grid, acquired, summary),
        "links": [],
        "assets": {
            kind: {"href": _href(final, home), **_asset(kind, final, content, grid)}
            for kind, (final, content) in files.items()
        },
    }


def footprint(grid: MapGrid, name: str) -> list[list[float]]:
    """Return the outline of a grid in longitude and latitude of WGS 84, counterclockwise, closed.

    The antimeridian is crossed by longitudes beyond 180 degrees.

    Raises
    ------
    OutputError
        When the grid, whose scene has this name, does not tell where on Earth it lies.
    """
    if grid.crs is None or grid.transform is None:
        raise OutputError(f"{name} has no CRS, which --stac needs; give a georeferenced scene")
    steps = np.arange(EDGE_POINTS) / EDGE_POINTS
    left, down = steps * 0.0, steps * grid.rows
    across = steps * grid.cols
    cols = np.r_[left, across, left + grid.cols, grid.cols - across]
    rows = np.r_[down, left + grid.rows, grid.rows - down, left]
    try:
        longitudes, latitudes = grid.to_degrees(cols.tolist(), rows.tolist())
    except OSError as error:
        raise OutputError(
            f"{name} has an outline that longitudes and latitudes cannot tell, which --stac needs; "
            "leave it out, or give a scene in another CRS"
        ) from error
    longitudes = np.unwrap(longitudes, period=360.0)
    points = np.round(np.stack([longitudes, latitudes], axis=1), DIGITS)
    turn = longitudes * np.roll(latitudes, -1) - np.roll(longitudes, -1) * latitudes
    ring: list[list[float]] = (points if turn.sum() > 0 else points[::-1]).tolist()
    return [*ring, ring[0]]


def in_utc(moment: datetime) -> str:
    """Return a time as RFC 3339 asks for; one without zone is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _properties(
    name: str, grid: MapGrid, acquired: datetime, summary: Mapping[str, Any]
) -> dict[str, Any]:
    model, share = summary["model"], summary["cloud_share"]
    code = grid.crs.to_epsg()
    properties = {
        "datetime": in_utc(acquired),
        "created": in_utc(datetime.now(UTC).replace(microsecond=0)),
        "title": f"Cloud mask of {name}",
        "eo:cloud_cover": None if share is None else round(100 * share, 4),
        "proj:code": None if code is None else f"EPSG:{code}",
        "proj:wkt2": grid.crs.to_wkt() if code is None else None,
        "proj:shape": [grid.rows, grid.cols],
        "proj:transform": list(grid.transform)[:6],
        "proj:bbox": list(grid.bounds),
        "processing:level": summary.get("level"),
        "processing:software": {"cloudnet": __version__, model["name"]: model["version"]},
        "processing:lineage": (
            f"{name}, by {model['name']} {model['version']} (SHA-256 {model['sha256']}), "
            f"threshold {summary['threshold']:g}"
        ),
    }
    nullable = "proj:code"
    return {key: value for key, value in properties.items() if value is not None or key == nullable}


def _href(file: Path, home: Path) -> str:
    """Return the address of a file, relative to the item where they share a disk."""
    try:
        relative = Path(os.path.relpath(file, home)).as_posix()
    except ValueError:  # on Windows, another drive
        return file.absolute().as_uri()
    return relative if relative.startswith("../") else f"./{relative}"


def _asset(kind: str, final: Path, content: Path, grid: MapGrid) -> dict[str, Any]:
    title, roles = TITLES[kind]
    with content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    asset = {
        "type": TYPES[final.suffix.lower()],
        "title": title,
        "roles": roles,
        "file:checksum": SHA2_256 + digest,
        "file:size": content.stat().st_size,
    }
    if kind in ("mask", "probability"):
        asset |= {"data_type": "uint8", "nodata": NO_DATA, "raster:sampling": "area"}
        asset |= {"raster:spatial_resolution": _resolution(grid)}
    if kind == "probability":
        asset |= {"raster:scale": 1.0 / PERCENT, "raster:offset": 0.0, "unit": "1"}
    if kind == "mask":
        asset["classification:classes"] = [
            {
                "value": value,
                "name": meaning,
                "color_hint": "{:02X}{:02X}{:02X}".format(*MASK_COLOURS[value]),
                **({"nodata": True} if value == NO_DATA else {}),
            }
            for value, meaning in CLASSES.items()
        ]
    return asset


def _resolution(grid: MapGrid) -> float:
    """Return the mean side of a pixel in metres, in units of the CRS where it tells no metres."""
    pixel = grid.pixel_m or (abs(grid.transform.a), abs(grid.transform.e))
    return float(round(sum(pixel) / 2, 4))
