"""How large pixels are, and which overview has those that are asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from rasterio.crs import CRS
from rasterio.transform import Affine

from cloudnet.errors import SceneError
from cloudnet.georeference import FILE_ITSELF, overview_level, pixel_size_m
from tests.helpers import UTM_10M

UTM, DEGREES = CRS.from_epsg(32633), CRS.from_epsg(4326)


def file(transform: Any = UTM_10M, crs: Any = UTM, overviews: tuple[int, ...] = (2, 4)) -> Any:
    return SimpleNamespace(
        crs=crs, transform=transform, height=50, width=60, overviews=lambda _: list(overviews)
    )


def test_the_size_of_pixels() -> None:
    assert pixel_size_m(UTM, UTM_10M, 5, 5) == 10.0
    assert pixel_size_m(UTM, Affine(8, -6, 0, -6, -8, 0), 5, 5) == pytest.approx(10.0)
    assert pixel_size_m(None, UTM_10M, 5, 5) is None
    assert pixel_size_m(UTM, None, 5, 5) is None
    at_60_north = Affine(2e-4, 0, 0, 0, -1e-4, 60.0 + 5e-3)
    assert pixel_size_m(DEGREES, at_60_north, 100, 9) == pytest.approx(11.13, abs=0.01)


@pytest.mark.parametrize(
    ("asked", "overviews", "halve", "level"),
    [
        (None, (2, 4), False, FILE_ITSELF),
        (10, (2, 4), False, FILE_ITSELF),
        (20, (2, 4), False, 0),
        (20, (4, 2), False, 1),
        (20, (), True, None),
    ],
)
def test_the_overview_of_a_resolution(
    asked: int | None, overviews: tuple[int, ...], halve: bool, level: int | None
) -> None:
    assert overview_level("a", file(overviews=overviews), asked, halve=halve) == level


def test_resolutions_that_are_not_there() -> None:
    with pytest.raises(SceneError, match=r"a can be decoded at 10, 40 m, not at 20 m"):
        overview_level("a", file(overviews=(4,)), 20, halve=False)
    with pytest.raises(SceneError, match=r"at 30, 60, 120 m, not at 20 m"):
        overview_level("a", file(Affine(30, 0, 0, 0, -30, 0)), 20, halve=True)
    with pytest.raises(SceneError, match="does not tell how large"):
        overview_level("a", file(crs=None), 20, halve=True)
