"""Which of a file's bands are red, green, blue and NIR, and which of their numbers are no data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloudnet.errors import SceneError
from cloudnet.spec import BAND_NAMES, BANDS

Valid: TypeAlias = NDArray[np.bool_]


def find_bands(
    path: str | Path, names: Sequence[str], count: int, wanted: Sequence[str] | None
) -> tuple[int, ...]:
    """Return the numbers, from 1, of red, green, blue and NIR in a file of `count` bands."""
    known = [name.strip().lower() for name in names]
    if wanted is None:
        found = [_named(known, BAND_NAMES[band]) for band in BANDS]
    else:
        found = [
            int(entry) if entry.strip().isdecimal() else _named(known, aliases(entry))
            for entry in wanted
        ]
    if any(number is None or not 1 <= number <= count for number in found):
        described = ", ".join(name for name in names if name) or "no descriptions"
        raise SceneError(
            f"{path} has {count} bands ({described}); name those for red, green, blue and NIR "
            "by number or description, such as --bands 3,2,1,4"
        )
    if len(set(found)) != len(found):
        raise SceneError(f"{path}: --bands {','.join(wanted or ())} names a band twice")
    return tuple(number for number in found if number is not None)


def aliases(name: str) -> tuple[str, ...]:
    """Return every way to write a band's name that `name` may stand for."""
    low = name.strip().lower()
    return next((names for names in BAND_NAMES.values() if low in names), (low,))


def _named(known: Sequence[str], aliases: Sequence[str]) -> int | None:
    """Return the number, from 1, of the one band that bears one of the names, if it is one."""
    found = [number for number, name in enumerate(known, start=1) if name and name in aliases]
    return found[0] if len(found) == 1 else None


def nodata_values(
    told: Sequence[float | None], by_user: float | None
) -> NDArray[np.float64] | None:
    """Return the value of no data by band, NaN for a band without; None where no band has one."""
    values = np.array([by_user if by_user is not None else value for value in told], dtype=float)
    return None if np.isnan(values).all() else values


def not_nodata(numbers: NDArray[Any], nodata: NDArray[np.float64] | None) -> Valid:
    """Return where no band (bands, rows, cols) has its value of no data."""
    valid = np.ones(numbers.shape[1:], dtype=bool)
    for band, value in zip(numbers, [] if nodata is None else nodata):
        if (same := as_number(value, numbers.dtype)) is not None:
            valid &= band != same
    return valid


def as_number(value: float, dtype: np.dtype[Any]) -> Any:
    """Return a value as a number of this type; None where it has none such.

    Integers are several times faster to compare with their own kind; and a file may write 0.1 as a
    double where its numbers are single.
    """
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(value)
    limits = np.iinfo(dtype)
    whole = np.isfinite(value) and value == int(value) and limits.min <= value <= limits.max
    return dtype.type(int(value)) if whole else None
