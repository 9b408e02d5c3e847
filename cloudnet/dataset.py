"""Data sets: folders of scenes with masks, paired by name, with the place of each."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow

from cloudnet.errors import CloudnetError, DatasetError
from cloudnet.files import quiet
from cloudnet.npy import map_npy
from cloudnet.reading import Reading, readable
from cloudnet.scene import Scene, find_scene_files, open_scene
from cloudnet.spec import CLEAR, CLOUD, LEVELS, NO_DATA
from cloudnet.tiles import Window

Mask: TypeAlias = NDArray[np.uint8]

SCENE_FOLDERS = ("subscenes", "scenes")
MASK_FOLDER = "masks"

SCENES_FILE = "scenes.csv"
"""A row a scene: its place, its kind of label, its kind of ground, its level."""

TAGS_FILE = "classification_tags.csv"
"""Of the Sentinel-2 Cloud Mask Catalogue, beside its scenes: a row a scene, tags of 0 and 1."""

PARTS = ("MAIN", "VALIDATION", "CALIBRATION")
"""Groups of annotation of the catalogue."""

PART_COLUMN = "dataset"
NO, YES = ("0", "0.0", ""), ("1", "1.0")
NO_TAGS = re.compile(r"|index|scene|difficulty|.*percent.*")
"""Columns of the tags that are none, even where they hold only 0 and 1."""

IN_MASK = np.isin(np.arange(256), (CLEAR, CLOUD, NO_DATA))
"""Whether a mask may hold a value of uint8: a table is looked up faster than three comparisons."""

SLAB_ROWS = 512

MGRS_TILE = re.compile(r"(?:^|_)T(\d{2}[C-HJ-NP-X][A-HJ-NP-Z]{2})(?:_|$)")
"""Military grid tile in a Sentinel-2 product name, as T49TGK (its products specification)."""


@dataclass(frozen=True)
class LabelledScene:
    """A scene and its mask on disk.

    Attributes
    ----------
    name
        Of the scene's file, without suffix.
    scene_path, mask_path
        The two files.
    rows, cols
        Size in pixels, the same for both.
    group
        The place. Scenes of one group never go to both sides of a split.
    labels
        Kind of label, such as "human"; empty where unknown.
    reading
        How the scene's numbers become reflectance.
    part
        Of the catalogue: in which group of annotation it is, such as "MAIN"; empty elsewhere.
    tags
        Of the catalogue: what the scene shows, such as "snow/ice" and "cirrus".
    ground
        Kind of ground, such as "water"; empty where untold.
    """

    name: str
    scene_path: Path
    mask_path: Path
    rows: int
    cols: int
    group: str
    labels: str = ""
    reading: Reading = field(default=Reading(), repr=False)
    part: str = ""
    tags: tuple[str, ...] = ()
    ground: str = ""

    def open(self) -> Scene:
        """Open the scene; the caller closes it."""
        return open_scene(self.scene_path, self.reading, checked=True)

    def read_mask(self, window: Window | None = None) -> Mask:
        """Read a window of the mask: (rows, cols) uint8, 0 clear, 1 cloud, 255 unlabelled.

        Raises
        ------
        DatasetError
            When it holds other values.
        """
        return read_mask(self.mask_path, window or Window(0, 0, self.rows, self.cols))

    def count_labels(self) -> LabelCounts:
        """Count the mask's pixels by label, reading it in slabs."""
        counts = np.zeros(256, dtype=np.int64)
        for row in range(0, self.rows, SLAB_ROWS):
            window = Window(row, 0, SLAB_ROWS, self.cols).clip(self.rows, self.cols)
            counts += np.bincount(self.read_mask(window).ravel(), minlength=256)
        return LabelCounts(int(counts[CLEAR]), int(counts[CLOUD]), int(counts[NO_DATA]))


@dataclass(frozen=True)
class LabelCounts:
    """Numbers of pixels: clear, cloud, unlabelled."""

    clear: int
    cloud: int
    unlabelled: int

    @property
    def cloud_share(self) -> float:
        """Share of cloud among the labelled pixels; 0 where none is labelled."""
        return self.cloud / max(self.clear + self.cloud, 1)

    @property
    def unlabelled_share(self) -> float:
        """Share of unlabelled pixels."""
        return self.unlabelled / max(self.clear + self.cloud + self.unlabelled, 1)

    def __add__(self, other: LabelCounts) -> LabelCounts:
        return LabelCounts(
            self.clear + other.clear, self.cloud + other.cloud, self.unlabelled + other.unlabelled
        )


@dataclass(frozen=True)
class DataSet:
    """Labelled scenes in the order of folders and names, and what was found wrong."""

    scenes: tuple[LabelledScene, ...]
    problems: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """The groups, sorted."""
        return tuple(sorted({scene.group for scene in self.scenes}))


def open_dataset(
    folders: Iterable[str | Path], reading: Reading | None = None, *, skip_bad: bool = False
) -> DataSet:
    """Find the labelled scenes of one or several folders.

    Parameters
    ----------
    folders
        Each holds `subscenes/` (the catalogue's layout) or `scenes/`, and `masks/` with files of
        the same names. A `scenes.csv` with columns `scene`, `group`, `labels`, `ground` and `level`
        ("L1C", "L2A") is read where it is, and so is the catalogue's `classification_tags.csv`,
        whose scenes were labelled by humans.
    reading
        What the scenes' files do not tell of their bands and units.
    skip_bad
        Leave out scenes with a problem, instead of refusing the data set. Masks are read whole for
        it; otherwise a value in their midst that is none of a mask shows when it is read.

    Raises
    ------
    DatasetError
        When a folder is missing, given twice, or holds no scenes, or, without `skip_bad`, something
        is wrong with a scene: no mask, a mask without scene, two files of one name, another size, a
        file that cannot be read.
    """
    scenes: list[LabelledScene] = []
    problems: list[str] = []
    seen: set[Path] = set()
    for folder in map(Path, folders):
        if folder.resolve() in seen:
            raise DatasetError(f"{folder} is given twice; name each folder once")
        seen.add(folder.resolve())
        found, wrong = _read_folder(folder, reading or Reading(), skip_bad)
        scenes += found
        problems += wrong
    if problems and not skip_bad:
        more = f" (and {len(problems) - 1} more like it)" if len(problems) > 1 else ""
        raise DatasetError(f"{problems[0]}{more}; mend it, or give --skip-bad to leave it out")
    if problems and not scenes:
        raise DatasetError(f"no scene can be used; the first problem: {problems[0]}")
    if not scenes:
        raise DatasetError("no folder of labelled scenes is given")
    return DataSet(tuple(scenes), tuple(problems))


def read_mask(path: Path, window: Window) -> Mask:
    """Read a window of a mask file: 0 clear, 1 cloud, 255 unlabelled.

    A `.npy` mask is (rows, cols, 2 or 3) one-hot CLEAR, CLOUD, CLOUD_SHADOW, where shadow is clear
    and a pixel without a channel is unlabelled, or (rows, cols) of 0, 1, 255. A GeoTIFF has one
    band of 0, 1, and 255 or its own nodata value.

    Raises
    ------
    DatasetError
        When it holds other values or another shape.
    SceneError
        When it cannot be read.
    """
    if _is_npy(path):
        return _read_npy(path, window)
    part = RasterioWindow(window.col, window.row, window.cols, window.rows)
    with readable(path), _open_raster(path) as source:
        if source.count != 1:
            raise DatasetError(f"{path} has {source.count} bands; a mask in a GeoTIFF has one")
        values, nodata = source.read(1, window=part), source.nodata
    if nodata is None:
        return _check_values(path, values)
    unlabelled = np.isnan(values) if np.isnan(nodata) else values == nodata
    mask = _check_values(path, np.where(unlabelled, values.dtype.type(CLEAR), values))
    mask[unlabelled] = NO_DATA
    return mask


def mask_size(path: Path) -> tuple[int, int]:
    """Return (rows, cols) of a mask file; raises SceneError when it cannot be read."""
    if _is_npy(path):
        shape = map_npy(path).shape
        return (int(shape[0]), int(shape[1])) if len(shape) >= 2 else (0, 0)
    with readable(path), _open_raster(path) as source:
        return source.height, source.width


def _is_npy(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def _open_raster(path: Path) -> Any:
    """Open a raster that need not be georeferenced."""
    with quiet(NotGeoreferencedWarning):
        return rasterio.open(path)


def _read_npy(path: Path, window: Window) -> Mask:
    """Read a window of a mask in an array file."""
    array = map_npy(path)
    if array.dtype.kind not in "buif":
        raise DatasetError(
            f"{path} holds {array.dtype}; a mask holds 0 clear, 1 cloud, 255 unlabelled"
        )
    if array.ndim == 2:
        return _check_values(path, np.array(array[window.slices]))
    if array.ndim != 3 or array.shape[2] not in (2, 3):
        raise DatasetError(
            f"{path} has shape {array.shape}; a mask is (rows, cols) or (rows, cols, 3)"
        )
    channels = np.array(array[window.slices])
    if channels.dtype != bool and not np.isin(channels, (0, 1)).all():
        raise DatasetError(
            f"{path} holds channels of other values than 0 and 1; each stands for one class"
        )
    mask = np.full(channels.shape[:2], NO_DATA, dtype=np.uint8)
    mask[np.moveaxis(channels, 2, 0).any(axis=0)] = CLEAR
    mask[channels[..., 1] != 0] = CLOUD
    return mask


def _check_values(path: Path, values: NDArray[Any]) -> Mask:
    """Return the values of a mask as uint8; raises DatasetError where they are others."""
    if values.dtype == np.uint8:
        known = IN_MASK[values]
    else:
        known = (values == CLEAR) | (values == CLOUD) | (values == NO_DATA)
    if not known.all():
        raise DatasetError(
            f"{path} holds the value {values[~known].flat[0]}; "
            "a mask holds 0 clear, 1 cloud, 255 unlabelled"
        )
    return values.astype(np.uint8, copy=False)


def _read_folder(
    folder: Path, reading: Reading, whole_masks: bool
) -> tuple[list[LabelledScene], list[str]]:
    """Return the scenes of one folder and what is wrong in it."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder" if folder.exists() else f"{folder} is missing")
    layouts = [name for name in SCENE_FOLDERS if (folder / name).is_dir()]
    if len(layouts) != 1 or not (folder / MASK_FOLDER).is_dir():
        raise DatasetError(
            f"{folder} is no data set: it needs masks/ and one of subscenes/ (the catalogue's "
            "layout) and scenes/"
        )
    paths = _by_name(folder / layouts[0])
    masks = _by_name(folder / MASK_FOLDER)
    if not paths:
        raise DatasetError(f"{folder / layouts[0]} holds no .npy or .tif scene")
    rows, tags = _read_csv(folder / SCENES_FILE), _read_tags(folder / TAGS_FILE)
    if rows and not rows.keys() & paths.keys():
        raise DatasetError(
            f"{folder / SCENES_FILE} names no scene of {folder / layouts[0]}, but {min(rows)!r}; "
            "its column scene holds their names, without suffix"
        )
    scenes, problems = [], []
    for name, found in paths.items():
        candidates = masks.pop(name, [])
        try:
            scene = _pair(found, candidates, rows.get(name, {}), reading)
            if whole_masks:
                scene.count_labels()
            scenes.append(tags[name].on(scene) if name in tags else scene)
        except CloudnetError as error:
            problems.append(str(error))
    problems += [
        f"{path} has no scene in {folder / layouts[0]}" for left in masks.values() for path in left
    ]
    return scenes, problems


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """Return the scene or mask files of a folder, sorted, by name without suffix."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in find_scene_files(folder):
        files[path.stem].append(path)
    return files


def _pair(
    scene_files: Sequence[Path],
    mask_files: Sequence[Path],
    row: Mapping[str, str | None],
    reading: Reading,
) -> LabelledScene:
    """Make a labelled scene of the files of one name, proven to fit and to be whole."""
    for files in (scene_files, mask_files):
        if len(files) > 1:
            raise DatasetError(f"{files[0]} and {files[1].name} bear one name; remove one of them")
    path = scene_files[0]
    if (level := (row.get("level") or "").strip()) and reading.level is None:
        if level not in LEVELS:
            raise DatasetError(
                f"{path.parent.parent / SCENES_FILE} says level {level} of {path.stem}; it is "
                f"{' or '.join(LEVELS)}, or empty"
            )
        reading = replace(reading, level=level)
    if not mask_files:
        raise DatasetError(f"{path} has no mask of the same name in {MASK_FOLDER}/")
    mask_path = mask_files[0]
    with open_scene(path, reading) as scene:
        size = (scene.rows, scene.cols)
        # The last row is what a file that was cut short lacks.
        scene.read(Window(scene.rows - 1, 0, 1, scene.cols))
    if (found := mask_size(mask_path)) != size:
        raise DatasetError(
            f"{mask_path} has {found[0]} x {found[1]} pixels, its scene {size[0]} x {size[1]}"
        )
    read_mask(mask_path, Window(size[0] - 1, 0, 1, size[1]))
    return LabelledScene(
        name=path.stem,
        scene_path=path,
        mask_path=mask_path,
        rows=size[0],
        cols=size[1],
        group=(row.get("group") or "").strip() or place_of(path.stem),
        labels=(row.get("labels") or "").strip(),
        ground=(row.get("ground") or "").strip(),
        reading=reading,
    )


def place_of(name: str) -> str:
    """Return the MGRS tile in a product name, else the name itself: the scene stands alone."""
    found = MGRS_TILE.search(name)
    return f"T{found[1]}" if found else name


def _read_csv(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a `scenes.csv` by scene; empty where there is none."""
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            if "scene" not in reader.fieldnames:
                raise DatasetError(f"{path} has no column named scene")
            return {(row["scene"] or "").strip(): row for row in reader}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is no readable CSV file ({error})") from error


@dataclass(frozen=True)
class _Tags:
    """A row of the catalogue's tags."""

    part: str
    tags: tuple[str, ...]

    def on(self, scene: LabelledScene) -> LabelledScene:
        """Return the scene with its tags; the catalogue's scenes were labelled by humans."""
        return replace(scene, part=self.part, tags=self.tags, labels=scene.labels or "human")


def _read_tags(path: Path) -> dict[str, _Tags]:
    """Return the catalogue's tags by scene, whatever columns there are; empty where no file is.

    The part is that of the column `dataset`, else of any that holds the names of parts alone.
    """
    rows = _read_csv(path)
    columns = list(next(iter(rows.values()), {}))
    cells = {key: [(row.get(key) or "").strip() for row in rows.values()] for key in columns if key}
    parts = [
        key for key, values in cells.items() if {value.upper() for value in values} <= {*PARTS}
    ]
    part = PART_COLUMN if PART_COLUMN in cells else next(iter(parts), None)
    kinds = [
        key
        for key, values in cells.items()
        if {*values} <= {*NO, *YES} and not NO_TAGS.fullmatch(key.strip().lower())
    ]
    return {
        name: _Tags(
            part=cells[part][number].upper() if part else "",
            tags=tuple(key.strip() for key in kinds if cells[key][number] in YES),
        )
        for number, name in enumerate(rows)
    }


def total_counts(counts: Sequence[LabelCounts]) -> LabelCounts:
    """Add counts up."""
    return sum(counts, start=LabelCounts(0, 0, 0))
