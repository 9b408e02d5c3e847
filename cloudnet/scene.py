"""Scenes: one image of a place at a time, read by window as reflectance and validity."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Collection
from copy import copy
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from cloudnet.errors import SceneError
from cloudnet.files import is_utf8
from cloudnet.georeference import pixel_size_m
from cloudnet.reading import SCALE_HINT, is_address, readable
from cloudnet.reading import Reading as Reading
from cloudnet.spec import LEVELS, PLAUSIBLE_REFLECTANCE
from cloudnet.tiles import Window, grid

Reflectance: TypeAlias = NDArray[np.float32]
Valid: TypeAlias = NDArray[np.bool_]

SCENE_SUFFIXES = (".npy", ".tif", ".tiff")
ITEM_SUFFIXES = (".json", ".geojson")

PRODUCT_SUFFIX = re.compile(r"(\.SAFE)?\.zip$|\.SAFE$", re.IGNORECASE)

LEVEL_IN_NAME = re.compile(rf"(?<![A-Z0-9])(?:MSI)?({'|'.join(LEVELS)})(?![A-Z0-9])", re.IGNORECASE)

WHOLE_OFFSET = 1e-6
"""An offset this close to a whole digital number, as a share of it, is one: -0.1 / 0.0001."""

DARKEST_SCENE = 1e-3
"""The 99th percentile of a scene is above this. The air alone scatters more than ten times as much
in the blue band; a scene below it was scaled twice."""

SAMPLE_PX = 32
SEARCH_PX = 512
"""Side of the windows that are looked at for plausible numbers: at first, and where those hold no
valid pixel."""


class Scene(ABC):
    """One image of a place at a time, read by window.

    Attributes
    ----------
    path, name
        The file, folder, zip or address, and what its products are called: `scene_name`.
    rows, cols
        Size in pixels.
    band_numbers
        Numbers, from 1, of the file's bands for red, green, blue and NIR; 1 to 4 where each is in
        a file of its own.
    band_names
        What the file or the product calls them, as far as it does.
    scale, offset
        (4,) float64: reflectance = number x scale + offset, band by band.
    dtype
        Of the numbers in the file.
    units_told
        True where scale and offset of every band come from the file.
    level, baseline
        Of a Sentinel-2 product, such as "L2A" and "05.09"; None where the file does not tell. Its
        level a file also tells by a name that holds L1C or L2A, as S2A_MSIL2A_….
    sun_zenith_deg
        Of the sun, in the mean over the product; None where the file does not tell.
    aerosol
        Its optical thickness at 550 nm, in the mean, that a product of Level-2A was corrected for;
        None where the file does not tell.
    acquired
        When it was taken, with its time zone; None where the file does not tell.
    crs, transform
        Of the grid as rasterio gives them; None where the file has none.
    """

    path: str | Path
    name: str
    rows: int
    cols: int
    band_numbers: tuple[int, ...]
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    dtype: np.dtype[Any]
    units_told: bool
    band_names: tuple[str, ...] = ()
    level: str | None = None
    baseline: str | None = None
    sun_zenith_deg: float | None = None
    aerosol: float | None = None
    acquired: datetime | None = None
    crs: Any = None
    transform: Any = None

    @property
    def kept_bytes(self) -> int:
        """The most that is kept of what was decoded, beside GDAL's cache."""
        return 0

    @property
    def pixel_m(self) -> float | None:
        """Side of a pixel in metres, the mean of both axes; None without georeferencing."""
        return pixel_size_m(self.crs, self.transform, self.rows, self.cols)

    def read(self, window: Window | None = None) -> tuple[Reflectance, Valid]:
        """Read a window.

        Parameters
        ----------
        window
            Inside the scene; None reads all of it.

        Returns
        -------
        reflectance : (rows, cols, 4) float32
            Red, green, blue, NIR; 1.0 = 100 %; 0 where not valid.
        valid : (rows, cols) bool
            As from `read_numbers`.

        Raises
        ------
        SceneError
            When the file cannot be read there.
        """
        return self.convert(*self.read_numbers(window))

    def for_levels(self, levels: Collection[str]) -> Scene:
        """Return this scene as a net of some levels takes it.

        Of Level-2A, where that is none of them, it is brought to the top of the atmosphere (see
        `surface`); what is returned then stands on this one's files, and is not closed by itself.
        """
        if self.level != "L2A" or self.level in levels:
            return self
        from cloudnet.surface import clear_sky

        gain, path = clear_sky(self.sun_zenith_deg, self.aerosol)
        lifted = copy(self)
        lifted.scale, lifted.offset = self.scale * gain, self.offset * gain + path
        lifted.level = "L1C"
        return lifted

    def convert(self, numbers: NDArray[Any], valid: Valid) -> tuple[Reflectance, Valid]:
        """Return what `read` does for what `read_numbers` gave, or for a part of it.

        What turns out not valid is marked so in `valid` itself.
        """
        reflectance = self.to_reflectance(numbers)
        if numbers.dtype.kind == "f":
            valid &= np.isfinite(reflectance).all(axis=2)
        if not valid.all():
            reflectance[~valid] = 0.0
        return reflectance, valid

    def read_numbers(self, window: Window | None = None) -> tuple[NDArray[Any], Valid]:
        """Read a window as the file has it, for one who converts it piece by piece.

        Parameters
        ----------
        window
            Inside the scene; None reads all of it.

        Returns
        -------
        numbers : (4, rows, cols)
            Red, green, blue, NIR: integers, or floats in units of the file, 32 bits at most.
        valid : (rows, cols) bool
            False where a band is no data, not a number or infinite, or all four numbers are 0.

        Raises
        ------
        SceneError
            When the file cannot be read there.
        """
        window = window or Window(0, 0, self.rows, self.cols)
        with readable(self.path):
            numbers, valid = self._numbers(window)
        valid &= numbers.any(axis=0)
        if numbers.dtype.kind == "f":
            with np.errstate(over="ignore"):  # too large for 32 bits: infinite, so no data
                numbers = numbers.astype(np.float32, copy=False)
            valid &= np.isfinite(numbers).all(axis=0)
        return numbers, valid

    def to_reflectance(self, numbers: NDArray[Any]) -> Reflectance:
        """Return numbers (4, rows, cols) of this scene as reflectance (rows, cols, 4).

        The offset is added first, in digital numbers, where it is exact: numbers written with an
        offset give the reflectance, to the bit, of those written without.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            bands = numbers.astype(np.float32)
            if self.offset.any():
                bands += self._number_offset[:, np.newaxis, np.newaxis]
            if (self.scale != 1.0).any():
                bands *= self.scale.astype(np.float32)[:, np.newaxis, np.newaxis]
        return np.ascontiguousarray(bands.transpose(1, 2, 0))

    @property
    def _number_offset(self) -> NDArray[np.float32]:
        """The offset in numbers of the file, whole where it is but for rounding."""
        offset = self.offset / self.scale
        whole = np.rint(offset)
        close = np.abs(offset - whole) <= WHOLE_OFFSET * np.abs(whole)
        return np.where(close, whole, offset).astype(np.float32)

    @abstractmethod
    def _numbers(self, window: Window) -> tuple[NDArray[Any], Valid]:
        """Return the file's own numbers (4, rows, cols) and its own idea of validity.

        Bands come first, where sums and tests over them are several times faster.
        """

    def close(self) -> None:  # noqa: B027 - an array is mapped for each window, nothing stays open
        """Give the file back."""

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set_scaling(
        self, reading: Reading, scale: NDArray[np.float64], offset: NDArray[np.float64]
    ) -> None:
        """Take scale and offset from the options, else the file's own; never guess.

        The file's are 1 and 0 for a band of which it says nothing.
        """
        if reading.scale is None and self.dtype.kind in "iu" and (scale == 1.0).any():
            raise SceneError(
                f"{self.path} holds {self.dtype} digital numbers and no scale for each band; "
                f"{SCALE_HINT}"
            )
        by_user = reading.scale is not None or reading.offset is not None
        told = ((scale != 1.0) | (offset != 0.0)).all()
        self.scale = scale if reading.scale is None else np.full(len(scale), reading.scale)
        self.offset = offset if reading.offset is None else np.full(len(offset), reading.offset)
        self.units_told = bool(told) and not by_user
        usable = np.isfinite(self.scale) & (self.scale > 0) & np.isfinite(self.offset)
        if not usable.all():
            band = int(np.argmin(usable))
            raise SceneError(
                f"{self.path} says scale {self.scale[band]:g}, offset {self.offset[band]:g}, which "
                f"give no reflectance; {SCALE_HINT}"
            )

    def check_plausible(self) -> None:
        """Raise SceneError where a sample of the scene fits no reflectance (contract 7)."""
        values = self._sample()
        if values.size == 0:
            return
        low, high = np.percentile(values, [1, 99])
        if low < PLAUSIBLE_REFLECTANCE[0] or not DARKEST_SCENE < high < PLAUSIBLE_REFLECTANCE[1]:
            raise SceneError(
                f"{self.path}: its numbers, from {low:g} to {high:g}, fit no reflectance; "
                f"{SCALE_HINT}"
            )

    def _sample(self) -> NDArray[np.float32]:
        """Return valid numbers from 25 windows, else from the first larger one that has any."""
        found = [
            self._valid_numbers(Window(int(row), int(col), SAMPLE_PX, SAMPLE_PX))
            for row in np.linspace(0, max(self.rows - SAMPLE_PX, 0), 5)
            for col in np.linspace(0, max(self.cols - SAMPLE_PX, 0), 5)
        ]
        if any(values.size for values in found):
            return np.concatenate(found)
        for tile in grid(self.rows, self.cols, SEARCH_PX, 0):
            if (values := self._valid_numbers(tile.read)).size:
                return values
        return np.empty(0, dtype=np.float32)

    def _valid_numbers(self, window: Window) -> NDArray[np.float32]:
        reflectance, valid = self.read(window.clip(self.rows, self.cols))
        return reflectance[valid].ravel()


def open_scene(
    path: str | Path | Any, reading: Reading | None = None, *, checked: bool = False
) -> Scene:
    """Open a scene for reading by window.

    Parameters
    ----------
    path
        `.npy`: an array (rows, cols, 13), bands of the catalogue, or (rows, cols, 4). A Sentinel-2
        product: its SAFE folder, its zip, or a folder of its band files. A STAC item: its JSON
        file or address, or a `pystac.Item`. Anything else, a file or an http(s) address, is given
        to GDAL, GeoTIFF in the first place, its bands told by their descriptions.
    reading
        What the file does not tell: bands, scale, offset, nodata; and the resolution.
    checked
        The scene was opened like this before: do not look at its numbers again. Without it, a
        scene whose file tells no units is sampled, and refused if it fits no reflectance.

    Raises
    ------
    SceneError
        When the file is missing, is no image, lacks a band, contradicts itself, or holds numbers
        whose unit is unknown.
    """
    reading = reading or Reading()
    scene = _open(path, reading)
    scene.name = scene_name(path)
    scene.level = reading.level or scene.level or _level_in(scene.name)
    try:
        if scene.rows == 0 or scene.cols == 0:
            raise SceneError(f"{path} is empty: {scene.rows} x {scene.cols} pixels")
        if not checked and not scene.units_told:
            scene.check_plausible()
    except BaseException:
        scene.close()
        raise
    return scene


def _open(source: Any, reading: Reading) -> Scene:
    """Open a scene by its kind. The kinds build on this module, so each is imported when met."""
    if hasattr(source, "to_dict"):
        from cloudnet.stac import open_item

        return open_item(source, reading)
    if is_address(source):
        from cloudnet.remote import open_address

        return open_address(source, reading)
    path = Path(source)
    if not path.exists():
        raise SceneError(f"{path} does not exist")
    if not is_utf8(path.absolute()):
        raise SceneError(f"{path} has a name that is no UTF-8, which GDAL cannot open; rename it")
    if path.is_dir() or path.suffix.lower() in (".zip", ".xml"):
        from cloudnet.safe import open_product

        return open_product(path, reading)
    if path.suffix.lower() in ITEM_SUFFIXES:
        from cloudnet.stac import open_item_file

        return open_item_file(path, reading)
    if path.suffix.lower() == ".npy":
        from cloudnet.npy import NpyScene

        return NpyScene(path, reading)
    from cloudnet.raster import RasterScene

    return RasterScene(path, reading)


def scene_name(source: Any) -> str:
    """Return what the products of a scene are called, without opening it.

    Parameters
    ----------
    source
        As `open_scene` takes it. A product has its own name, without .SAFE and .zip; an item its
        id; a file or an address its last part without the suffix.
    """
    if hasattr(source, "to_dict"):
        return _plain(str(source.id))
    if is_address(source):
        last = unquote(urlsplit(source).path.rstrip("/").rpartition("/")[2])
        return _plain(re.sub(r"\.(tiff?|jp2|(geo)?json)$", "", last, flags=re.IGNORECASE))
    path = Path(source)
    if path.suffix.lower() in ITEM_SUFFIXES:
        return _item_id(path) or path.stem
    if path.suffix.lower() == ".xml":
        path = path.absolute().parent
    if PRODUCT_SUFFIX.search(path.name):
        return PRODUCT_SUFFIX.sub("", path.name)
    return path.resolve().name if path.is_dir() else path.stem


def _level_in(name: str) -> str | None:
    """Return the level that a name holds as a part of its own."""
    found = {match[1].upper() for match in LEVEL_IN_NAME.finditer(name)}
    return found.pop() if len(found) == 1 else None


def _item_id(path: Path) -> str:
    """Return the id of an item in a file; empty where it is none, which opening it tells."""
    try:
        item = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    told = item.get("id") if isinstance(item, dict) else None
    return _plain(str(told)) if told else ""


def _plain(name: str) -> str:
    """Return a name from elsewhere as one that stays in the folder of the products."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "scene"


def find_scene_files(folder: Path) -> list[Path]:
    """Return the scene files of a folder, sorted by name; raises SceneError where it cannot."""
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SCENE_SUFFIXES and not path.name.startswith(".")
        )
    except OSError as error:
        raise SceneError(f"{folder} cannot be listed: {error.strerror}") from error
