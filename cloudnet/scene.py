"""Scenes: `.npy` arrays and GeoTIFFs, read by window as reflectance and validity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, radians
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from cloudnet.errors import SceneError
from cloudnet.files import quiet
from cloudnet.spec import BAND_NAMES, BANDS, CATALOGUE_BANDS
from cloudnet.tiles import Window

Reflectance: TypeAlias = NDArray[np.float32]
Valid: TypeAlias = NDArray[np.bool_]

SCENE_SUFFIXES = (".npy", ".tif", ".tiff")

PLAUSIBLE_REFLECTANCE = (-0.5, 3.0)
"""What the 1st and 99th percentile of a scene may be. The largest top-of-atmosphere reflectance
in the Sentinel-2 Cloud Mask Catalogue is 1.94; atmospheric correction gives values a little below
0."""

METRES_PER_DEGREE = 111_320.0
"""Length of a degree of latitude on a sphere of the Earth's mean radius."""

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
    """

    bands: tuple[str, ...] | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None

    def __post_init__(self) -> None:
        if self.bands is not None and len(self.bands) != len(BANDS):
            raise SceneError(
                f"--bands names {len(self.bands)} bands; it takes {len(BANDS)}: "
                "red, green, blue, NIR, such as --bands 3,2,1,4"
            )
        if self.scale is not None and not (np.isfinite(self.scale) and self.scale > 0):
            raise SceneError(f"--scale is a number above 0, not {self.scale}")


class Scene(ABC):
    """One image of a place at a time, read by window.

    Attributes
    ----------
    path, name
        The file, and its name without the suffix.
    rows, cols
        Size in pixels.
    band_numbers
        Numbers, from 1, of the file's bands for red, green, blue and NIR.
    scale, offset
        (4,) float64: reflectance = number x scale + offset, band by band.
    units_told
        True where scale and offset come from the file.
    crs, transform
        Of the grid as rasterio gives them; None where the file has none.
    """

    path: Path
    rows: int
    cols: int
    band_numbers: tuple[int, ...]
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    dtype: np.dtype[Any]
    units_told: bool
    crs: Any = None
    transform: Any = None

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    @property
    def pixel_m(self) -> float | None:
        """Side of a pixel in metres, the mean of both axes; None without georeferencing."""
        if self.crs is None or self.transform is None:
            return None
        across = float(np.hypot(self.transform.a, self.transform.d))
        down = float(np.hypot(self.transform.b, self.transform.e))
        if self.crs.is_geographic:
            latitude = self.transform.f + self.transform.e * self.rows / 2
            across *= METRES_PER_DEGREE * cos(radians(latitude))
            down *= METRES_PER_DEGREE
        elif self.crs.is_projected:
            factor = float(self.crs.linear_units_factor[1])
            across, down = across * factor, down * factor
        else:
            return None
        return (across + down) / 2

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
            False where a band is no data, not a number or infinite, or all four numbers are 0.

        Raises
        ------
        SceneError
            When the file cannot be read there.
        """
        window = window or Window(0, 0, self.rows, self.cols)
        with readable(self.path):
            numbers, valid = self._numbers(window)
        valid &= numbers.any(axis=2)
        if numbers.dtype.kind == "f":
            valid &= np.isfinite(numbers).all(axis=2)
        reflectance = numbers.astype(np.float32)
        if (self.scale != 1.0).any():
            reflectance *= self.scale.astype(np.float32)
        if self.offset.any():
            reflectance += self.offset.astype(np.float32)
        reflectance[~valid] = 0.0
        return reflectance, valid

    @abstractmethod
    def _numbers(self, window: Window) -> tuple[NDArray[Any], Valid]:
        """Return the file's own numbers (rows, cols, 4) and its own idea of validity."""

    def close(self) -> None:
        """Give the file back."""

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set_scaling(
        self, reading: Reading, told: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    ) -> None:
        """Take scale and offset from the options, else from the file (`told`); never guess."""
        by_user = reading.scale is not None or reading.offset is not None
        if told is None and reading.scale is None and self.dtype.kind in "iu":
            raise SceneError(
                f"{self.path} holds {self.dtype} digital numbers and no scale; {SCALE_HINT}"
            )
        count = len(self.band_numbers)
        scale, offset = told or (np.ones(count), np.zeros(count))
        self.scale = scale if reading.scale is None else np.full(count, reading.scale)
        self.offset = offset if reading.offset is None else np.full(count, reading.offset)
        self.units_told = told is not None and not by_user

    def check_plausible(self) -> None:
        """Raise SceneError where a sample of the scene fits no reflectance (contract 7)."""
        side = 32
        sample = []
        for row in np.linspace(0, max(self.rows - side, 0), 5).astype(int):
            for col in np.linspace(0, max(self.cols - side, 0), 5).astype(int):
                window = Window(int(row), int(col), side, side).clip(self.rows, self.cols)
                reflectance, valid = self.read(window)
                sample.append(reflectance[valid].ravel())
        values = np.concatenate(sample)
        if values.size == 0:
            return
        low, high = np.percentile(values, [1, 99])
        if low < PLAUSIBLE_REFLECTANCE[0] or high > PLAUSIBLE_REFLECTANCE[1]:
            raise SceneError(
                f"{self.path}: its numbers, from {low:g} to {high:g}, fit no reflectance; "
                f"{SCALE_HINT}"
            )


class NpyScene(Scene):
    """A numpy array (rows, cols, bands) on disk, mapped anew for each window.

    Thirteen bands are those of the catalogue, four are red, green, blue, NIR.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = path
        with readable(path):
            array = self._map()
        if array.ndim != 3 or array.dtype.kind not in "fiu":
            raise SceneError(
                f"{path} holds {array.dtype} of shape {array.shape}; "
                "a scene is an array of numbers (rows, cols, bands)"
            )
        self.rows, self.cols, count = array.shape
        self.dtype = array.dtype
        names = {13: CATALOGUE_BANDS, 4: BANDS}.get(count, ())
        self.band_numbers = _find_bands(path, list(names), count, reading.bands)
        self._nodata = reading.nodata
        self._set_scaling(reading, None)

    def _map(self) -> NDArray[Any]:
        return np.load(self.path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]

    def _numbers(self, window: Window) -> tuple[NDArray[Any], Valid]:
        part = self._map()[window.slices]
        numbers = np.stack([part[..., number - 1] for number in self.band_numbers], axis=2)
        return numbers, _not_value(numbers, self._nodata)


class GeoTiffScene(Scene):
    """A raster file that GDAL reads, open until closed; for one thread at a time."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = path
        with readable(path), quiet(NotGeoreferencedWarning):
            self._file = rasterio.open(path)
        try:
            self._describe(reading)
        except BaseException:
            self._file.close()
            raise

    def _describe(self, reading: Reading) -> None:
        source = self._file
        self.rows, self.cols = source.height, source.width
        self.crs = source.crs
        self.transform = source.transform if source.crs or source.transform.a != 1.0 else None
        names = [name or "" for name in source.descriptions]
        self.band_numbers = _find_bands(self.path, names, source.count, reading.bands)
        chosen = [number - 1 for number in self.band_numbers]
        self.dtype = np.result_type(*(source.dtypes[index] for index in chosen))
        if self.dtype.kind not in "fiu":
            raise SceneError(f"{self.path} holds {self.dtype}; a scene holds real numbers")
        self._nodata = reading.nodata
        masked = {str(flag.name) for index in chosen for flag in source.mask_flag_enums[index]}
        self._has_mask = masked != {"all_valid"} and reading.nodata is None
        scales = np.array([source.scales[index] for index in chosen])
        offsets = np.array([source.offsets[index] for index in chosen])
        told = bool((scales != 1.0).any() or offsets.any())
        self._set_scaling(reading, (scales, offsets) if told else None)

    def _numbers(self, window: Window) -> tuple[NDArray[Any], Valid]:
        part = RasterioWindow(window.col, window.row, window.cols, window.rows)
        numbers = self._file.read(self.band_numbers, window=part).transpose(1, 2, 0)
        valid = _not_value(numbers, self._nodata)
        if self._has_mask:
            masks = self._file.read_masks(self.band_numbers, window=part)
            valid &= masks.all(axis=0)
        return numbers, valid

    def close(self) -> None:
        self._file.close()


def open_scene(path: str | Path, reading: Reading | None = None, *, checked: bool = False) -> Scene:
    """Open a scene for reading by window.

    Parameters
    ----------
    path
        `.npy`: an array (rows, cols, 13), bands of the catalogue, or (rows, cols, 4). Anything else
        is given to GDAL, GeoTIFF in the first place, its bands told by their descriptions.
    reading
        What the file does not tell: bands, scale, offset, nodata.
    checked
        The scene was opened like this before: do not look at its numbers again. Without it, a
        scene whose file tells no units is sampled, and refused if it fits no reflectance.

    Raises
    ------
    SceneError
        When the file is missing, is no image, lacks a band, or holds numbers whose unit is unknown.
    """
    path = Path(path)
    if not path.exists():
        raise SceneError(f"{path} does not exist")
    if path.is_dir():
        raise SceneError(f"{path} is a folder; a scene is a .npy or GeoTIFF file")
    kind = NpyScene if path.suffix.lower() == ".npy" else GeoTiffScene
    scene = kind(path, reading or Reading())
    if scene.rows == 0 or scene.cols == 0:
        raise SceneError(f"{path} is empty: {scene.rows} x {scene.cols} pixels")
    if not checked and not scene.units_told:
        try:
            scene.check_plausible()
        except SceneError:
            scene.close()
            raise
    return scene


def find_scene_files(folder: Path) -> list[Path]:
    """Return the scene files of a folder, sorted by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SCENE_SUFFIXES and not path.name.startswith(".")
    )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what numpy and GDAL say of a bad file into one sentence."""
    try:
        yield
    except (RasterioError, ValueError, EOFError, OSError) as error:
        cause = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        raise SceneError(
            f"{path} is no readable image, or is cut short ({cause}); get the file again"
        ) from error


def _find_bands(
    path: Path, names: Sequence[str], count: int, wanted: Sequence[str] | None
) -> tuple[int, ...]:
    """Return the numbers, from 1, of red, green, blue and NIR in a file of `count` bands."""
    known = [name.strip().lower() for name in names]
    if wanted is None:
        found = [_named(known, BAND_NAMES[band]) for band in BANDS]
    else:
        found = [
            int(entry) if entry.strip().isdigit() else _named(known, _aliases(entry))
            for entry in wanted
        ]
    if any(number is None or not 1 <= number <= count for number in found):
        described = ", ".join(name for name in names if name) or "no descriptions"
        raise SceneError(
            f"{path} has {count} bands ({described}); name those for red, green, blue and NIR "
            "by number or description, such as --bands 3,2,1,4"
        )
    return tuple(number for number in found if number is not None)


def _aliases(name: str) -> tuple[str, ...]:
    """Return every way to write a band's name that `name` may stand for."""
    low = name.strip().lower()
    return next((names for names in BAND_NAMES.values() if low in names), (low,))


def _named(known: Sequence[str], aliases: Sequence[str]) -> int | None:
    """Return the number, from 1, of the band that bears one of the names."""
    return next((known.index(name) + 1 for name in aliases if name in known), None)


def _not_value(numbers: NDArray[Any], nodata: float | None) -> Valid:
    """Return where no band (rows, cols, bands) has the value `nodata`."""
    if nodata is None or np.isnan(nodata):
        return np.ones(numbers.shape[:2], dtype=bool)
    return np.asarray((numbers != nodata).all(axis=2))
