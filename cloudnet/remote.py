"""Scenes at http(s) addresses, read by ranges through GDAL."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cloudnet._version import __version__
from cloudnet.errors import SceneError
from cloudnet.reading import Reading
from cloudnet.scene import Scene

TIMEOUT_S = 20
TRIES = 3
WAIT_S = 0.5
BUSY = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Answers of a server that may do better later (RFC 9110, section 15; RFC 6585)."""

PARTIAL = 206
MOST_JSON_BYTES = 10_000_000

GDAL_SETTINGS = {
    "list_dir": "no",
    "empty_dir": "yes",
    "timeout": "60",
    "connecttimeout": str(TIMEOUT_S),
    "low_speed_time": "20",
    "low_speed_limit": "1000",
    "max_retry": "3",
    "retry_delay": "0.5",
}
"""Of /vsicurl: no look for files beside, an end to waiting, another try where a server is busy."""


@dataclass(frozen=True)
class Answer:
    """What an address answers to a request for its first bytes.

    Attributes
    ----------
    partial
        The server gives ranges.
    kind
        Media type, such as "image/tiff".
    """

    partial: bool
    kind: str


def open_address(address: str, reading: Reading) -> Scene:
    """Open a STAC item, or a raster file that is read by ranges, at an address.

    Raises
    ------
    SceneError
        When it does not answer, has no ranges, or is no scene.
    """
    answer = ask(address)
    if "json" in answer.kind or address.lower().endswith((".json", ".geojson")):
        from cloudnet.stac import open_item_dict

        return open_item_dict(fetch_json(address), address, reading)
    from cloudnet.raster import RasterScene

    return RasterScene(address, reading, gdal_path(address, answer))


def gdal_path(address: str, answer: Answer | None = None) -> str:
    """Return what GDAL calls an address, once it is known to give ranges.

    Raises
    ------
    SceneError
        When it does not answer, or would send the whole file for every part of it.
    """
    if not (answer or ask(address)).partial:
        raise SceneError(
            f"{address} cannot be read in parts: its server knows no ranges; download it first"
        )
    settings = "&".join(f"{key}={value}" for key, value in GDAL_SETTINGS.items())
    return f"/vsicurl?{settings}&url={quote(address, safe='')}"


def ask(address: str) -> Answer:
    """Ask for the first bytes of an address; raise SceneError where it does not answer."""
    with _opened(address, {"Range": "bytes=0-15"}) as response:
        return Answer(response.status == PARTIAL, response.headers.get_content_type())


def fetch_json(address: str) -> Any:
    """Return the JSON at an address; raise SceneError where there is none."""
    try:
        with _opened(address, {}) as response:
            content = response.read(MOST_JSON_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise SceneError(f"{address} broke off ({_cause(error)}); try again later") from error
    return parse_json(content, address)


def parse_json(content: bytes, name: str) -> Any:
    """Return JSON's content; raise SceneError where it is none."""
    if len(content) > MOST_JSON_BYTES:
        raise SceneError(f"{name} is far larger than any STAC item")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SceneError(f"{name} is no JSON ({error}); give a STAC item") from error


def _opened(address: str, headers: dict[str, str]) -> Any:
    """Open an address, trying again where that may help."""
    request = urllib.request.Request(
        address, headers={"User-Agent": f"cloudnet/{__version__}", **headers}
    )
    for last in (*[False] * (TRIES - 1), True):
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            if last or error.code not in BUSY:
                raise SceneError(
                    f"{address} answers {error.code} {error.reason}; check the address"
                ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            if last:
                raise SceneError(
                    f"{address} does not answer ({_cause(error)}); check the address, or try "
                    "again later"
                ) from error
        time.sleep(WAIT_S)
    raise AssertionError("the last try returns or raises")


def _cause(error: Exception) -> str:
    """Return why in one line."""
    reason = getattr(error, "reason", None) or error
    told = getattr(reason, "strerror", None) or str(reason)
    return " ".join(str(told).split()) or type(error).__name__
