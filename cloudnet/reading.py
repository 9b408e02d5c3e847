"""How the numbers of a file become reflectance, and what is said of a file that cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tokenize import TokenError

import numpy as np
from rasterio._err import CPLE_BaseError  # the base of what GDAL raises, nowhere public
from rasterio.errors import RasterioError

from cloudnet.errors import SceneError
from cloudnet.spec import BANDS, LEVELS

RESOLUTIONS_M = (10, 20)
"""What scenes may be asked for at: the models' range begins with these."""

SCALE_HINT = (
    "give --scale and --offset (reflectance = number x scale + offset; Sentinel-2: --scale 0.0001 "
    "--offset 0, or --offset -0.1 from processing baseline 04.00 on)"
)


@dataclass(frozen=True)
class Reading:
    """How the numbers of a file become reflectance.

    Attributes
    ----------
    bands
        Numbers, from 1, or names of the bands for red, green, blue and NIR; None: told by the file.
    scale, offset
        reflectance = number x scale + offset; None: told by the file.
    nodata
        The number that stands for no data in any band; None: told by the file.
    resolution_m
        Side of the pixels in metres, 10 or 20: a file of 10 m is decoded at half its resolution for
        20 m. None: the file's own.
    level
        "L1C", at the top of the atmosphere, or "L2A", surface reflectance; None: told by the file.
    """

    bands: tuple[str, ...] | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    resolution_m: int | None = None
    level: str | None = None

    def __post_init__(self) -> None:
        if self.bands is not None and len(self.bands) != len(BANDS):
            raise SceneError(
                f"--bands names {len(self.bands)} bands; it takes {len(BANDS)}: "
                "red, green, blue, NIR, such as --bands 3,2,1,4"
            )
        if self.bands is not None and len(set(self.bands)) != len(self.bands):
            raise SceneError(f"--bands names a band twice: {','.join(self.bands)}")
        if self.scale is not None and not (np.isfinite(self.scale) and self.scale > 0):
            raise SceneError(f"--scale is a number above 0, not {self.scale}")
        if self.offset is not None and not np.isfinite(self.offset):
            raise SceneError(f"--offset is a number, not {self.offset}")
        if self.resolution_m not in (None, *RESOLUTIONS_M):
            raise SceneError(f"--resolution is 10 or 20 metres, not {self.resolution_m}")
        if self.level not in (None, *LEVELS):
            raise SceneError(f"--level is {' or '.join(LEVELS)}, not {self.level}")


@contextmanager
def readable(name: str | Path) -> Iterator[None]:
    """Turn what numpy and GDAL say of a bad file, or of a bad address, into one sentence."""
    try:
        yield
    except (RasterioError, ValueError, EOFError, OSError, OverflowError, TokenError) as error:
        cause = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        cause = re.sub(r"/vsi\w+[?/][^\s']*", str(name), cause)
        broken = (
            "broke off, or is no readable image"
            if is_address(name)
            else "is no readable image, or is cut short"
        )
        raise SceneError(f"{name} {broken} ({cause}); get the file again") from error


@contextmanager
def gdal_errors() -> Iterator[None]:
    """Turn GDAL's errors, some of which rasterio passes on as they are, into an OSError."""
    try:
        yield
    except CPLE_BaseError as error:
        raise OSError(error.errmsg) from error


def read_time(text: str) -> datetime | None:
    """Return a time of ISO 8601, UTC where it names no zone; None where it is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def is_address(name: object) -> bool:
    """Tell whether a scene lies at an http or https address, not at a path."""
    return isinstance(name, str) and name.lower().startswith(("http://", "https://"))
