"""Scenes: `.npy` arrays and GeoTIFFs, read by window as reflectance and validity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, hypot, radians
from pathlib import Path
from threading import Lock
from tokenize import TokenError
from typing import Any, TypeAlias

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from cloudnet.errors import SceneError
from cloudnet.files import quiet
from cloudnet.spec import BAND_NAMES, BANDS, CATALOGUE_BANDS
from cloudnet.tiles import Window, grid

Reflectance: TypeAlias = NDArray[np.float32]
Valid: TypeAlias = NDArray[np.bool_]

SCENE_SUFFIXES = (".npy", ".tif", ".tiff")

PLAUSIBLE_REFLECTANCE = (-0.5, 3.0)
"""What the 1st and 99th percentile of a scene may be. The largest top-of-atmosphere reflectance
in the Sentinel-2 Cloud Mask Catalogue is 1.94; atmospheric correction gives values a little below
0."""

DARKEST_SCENE = 1e-3
"""The 99th percentile of a scene is above this. The air alone scatters more than ten times as much
in the blue band; a scene below it was scaled twice."""

SAMPLE_PX = 32
SEARCH_PX = 512
"""Side of the windows that are looked at for plausible numbers: at first, and where those hold no
valid pixel."""

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
        if self.bands is not None and len(set(self.bands)) != len(self.bands):
            raise SceneError(f"--bands names a band twice: {','.join(self.bands)}")
        if self.scale is not None and not (np.isfinite(self.scale) and self.scale > 0):
            raise SceneError(f"--scale is a number above 0, not {self.scale}")
        if self.offset is not None and not np.isfinite(self.offset):
            raise SceneError(f"--offset is a number, not {self.offset}")


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
    dtype
        Of the numbers in the file.
    units_told
        True where scale and offset of every band come from the file.
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
        grid_to_map = self.transform
        if self.crs.is_geographic:
            latitude = grid_to_map.f + (grid_to_map.d * self.cols + grid_to_map.e * self.rows) / 2
            east, north = METRES_PER_DEGREE * cos(radians(latitude)), METRES_PER_DEGREE
        elif self.crs.is_projected:
            east = north = float(self.crs.linear_units_factor[1])
        else:
            return None
        across = hypot(grid_to_map.a * east, grid_to_map.d * north)
        down = hypot(grid_to_map.b * east, grid_to_map.e * north)
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
        valid &= numbers.any(axis=0)
        # Numbers of 64 bits may be finite and still too large for 32.
        with np.errstate(over="ignore", invalid="ignore"):
            bands = numbers.astype(np.float32)
            if (self.scale != 1.0).any():
                bands *= self.scale.astype(np.float32)[:, np.newaxis, np.newaxis]
            if self.offset.any():
                bands += self.offset.astype(np.float32)[:, np.newaxis, np.newaxis]
        if numbers.dtype.kind == "f":
            valid &= np.isfinite(bands).all(axis=0)
        reflectance = np.ascontiguousarray(bands.transpose(1, 2, 0))
        if not valid.all():
            reflectance[~valid] = 0.0
        return reflectance, valid

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


NPY_BANDS = {len(names): names for names in (CATALOGUE_BANDS, BANDS)}
"""Names of the bands of an array, by their number."""


class NpyScene(Scene):
    """A numpy array (rows, cols, bands) on disk, mapped anew for each window.

    Thirteen bands are those of the catalogue, four are red, green, blue, NIR.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = path
        array = map_npy(path)
        if array.ndim != 3 or array.dtype.kind not in "fiu":
            raise SceneError(
                f"{path} holds {array.dtype} of shape {array.shape}; "
                "a scene is an array of numbers (rows, cols, bands)"
            )
        self.rows, self.cols, count = array.shape
        self.dtype = array.dtype
        if count not in NPY_BANDS and reading.bands is None:
            raise SceneError(
                f"{path} has shape {array.shape}; a scene is (rows, cols, bands) with 13 bands "
                "(the catalogue's) or 4 (red, green, blue, NIR), and others need --bands"
            )
        names = NPY_BANDS.get(count, ())
        self.band_numbers = _find_bands(path, names, count, reading.bands)
        self._nodata = _nodata_values([None] * len(BANDS), reading.nodata)
        self._set_scaling(reading, np.ones(len(BANDS)), np.zeros(len(BANDS)))

    def _numbers(self, window: Window) -> tuple[NDArray[Any], Valid]:
        part = map_npy(self.path)[window.slices]
        numbers = np.stack([part[..., number - 1] for number in self.band_numbers])
        return numbers, _not_nodata(numbers, self._nodata)


class GeoTiffScene(Scene):
    """A raster file that GDAL reads, open until closed; for one thread at a time."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = path
        with readable(path), quiet(NotGeoreferencedWarning):
            self._file = rasterio.open(path)
        try:
            with readable(path):
                self._describe(reading)
        except BaseException:
            self._file.close()
            raise

    def _describe(self, reading: Reading) -> None:
        source = self._file
        self.rows, self.cols = source.height, source.width
        self.crs = source.crs
        placed = source.crs is not None or not source.transform.is_identity
        self.transform = source.transform if placed else None
        names = [name or "" for name in source.descriptions]
        self.band_numbers = _find_bands(self.path, names, source.count, reading.bands)
        chosen = [number - 1 for number in self.band_numbers]
        kinds = {source.dtypes[index] for index in chosen}
        if any("complex" in kind for kind in kinds):
            raise SceneError(f"{self.path} holds complex numbers; a scene holds real ones")
        self.dtype = np.result_type(*kinds)
        self._nodata = _nodata_values(
            [source.nodatavals[index] for index in chosen], reading.nodata
        )
        self._mask_band = self._find_mask(chosen)
        scales = np.array([source.scales[index] for index in chosen])
        offsets = np.array([source.offsets[index] for index in chosen])
        self._set_scaling(reading, scales, offsets)

    def _find_mask(self, chosen: Sequence[int]) -> int | None:
        """Return the number of the alpha band, 0 for a mask beside the bands, None for neither.

        GDAL's own masks would not do: it gives one of nodata, mask and alpha and drops the others,
        sees no alpha band among five, and takes the fourth of four uint8 bands, our NIR, for one.
        """
        source = self._file
        for index, meaning in enumerate(source.colorinterp):
            if meaning == ColorInterp.alpha and index not in chosen:
                return index + 1
        flags = source.mask_flag_enums[chosen[0]]
        return 0 if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags else None

    def _numbers(self, window: Window) -> tuple[NDArray[Any], Valid]:
        part = RasterioWindow(window.col, window.row, window.cols, window.rows)
        numbers = self._file.read(self.band_numbers, window=part)
        valid = _not_nodata(numbers, self._nodata)
        if self._mask_band == 0:
            valid &= self._file.read_masks(self.band_numbers[0], window=part) != 0
        elif self._mask_band is not None:
            valid &= self._file.read(self._mask_band, window=part) != 0
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
        except BaseException:
            scene.close()
            raise
    return scene


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


_header_lock = Lock()


def map_npy(path: Path) -> NDArray[Any]:
    """Map the array of a `.npy` file, read-only; raises SceneError when it is none.

    `numpy.load` would also open an archive or a pickle that bears the suffix.
    """
    # Python 3.11 parses the header wrongly, now and then, when threads do so at once.
    with readable(path), _header_lock:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    return array


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what numpy and GDAL say of a bad file into one sentence."""
    try:
        yield
    except (RasterioError, ValueError, EOFError, OSError, OverflowError, TokenError) as error:
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
            int(entry) if entry.strip().isdecimal() else _named(known, _aliases(entry))
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


def _aliases(name: str) -> tuple[str, ...]:
    """Return every way to write a band's name that `name` may stand for."""
    low = name.strip().lower()
    return next((names for names in BAND_NAMES.values() if low in names), (low,))


def _named(known: Sequence[str], aliases: Sequence[str]) -> int | None:
    """Return the number, from 1, of the one band that bears one of the names, if it is one."""
    found = [number for number, name in enumerate(known, start=1) if name and name in aliases]
    return found[0] if len(found) == 1 else None


def _nodata_values(
    told: Sequence[float | None], by_user: float | None
) -> NDArray[np.float64] | None:
    """Return the value of no data by band, NaN for a band without; None where no band has one."""
    values = np.array([by_user if by_user is not None else value for value in told], dtype=float)
    return None if np.isnan(values).all() else values


def _not_nodata(numbers: NDArray[Any], nodata: NDArray[np.float64] | None) -> Valid:
    """Return where no band (bands, rows, cols) has its value of no data."""
    if nodata is None:
        return np.ones(numbers.shape[1:], dtype=bool)
    if numbers.dtype.kind == "f":
        # A file may write 0.1 as a double where its numbers are single: compare as they are.
        with np.errstate(over="ignore"):
            nodata = nodata.astype(numbers.dtype)
    return np.asarray((numbers != nodata[:, np.newaxis, np.newaxis]).all(axis=0))
