"""Data sets of simulated scenes, written in the layouts that `dataset` reads."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

from cloudnet.clouds import CLOUDS
from cloudnet.dataset import SCENES_FILE
from cloudnet.errors import DatasetError, OutputError
from cloudnet.fields import Size
from cloudnet.files import whole_file, write_text
from cloudnet.ground import GROUNDS
from cloudnet.light import SENTINEL2, Band
from cloudnet.simulate import WHITE_GROUNDS, SimulatedScene, simulate_scene
from cloudnet.spec import BANDS, CATALOGUE_BANDS, CLEAR, CLOUD, NO_DATA

COLUMNS = (
    "scene", "rows", "cols", "source", "labels", "group", "cloud_fraction", "unlabelled_fraction",
)  # fmt: skip
"""Of scenes.csv."""

NAME = re.compile(rf"sim_\d+_\d{{4,}}_({'|'.join(GROUNDS)})_({'|'.join(CLOUDS)})")
"""Of a simulated scene: its data set's seed, its number, its ground and cloud."""

BARELY_CLOUDY = 0.02
"""Cloud cover up to which there is none over white ground, where haze and contrails go unseen."""


@dataclass(frozen=True)
class Turn:
    """What every third scene is like: kinds of cloud in turn, least and most cloud cover."""

    clouds: tuple[str, ...]
    least: float
    most: float


@dataclass(frozen=True)
class Plan:
    """Kinds of ground and cloud of a data set, each taken in turn.

    Attributes
    ----------
    grounds
        Of `GROUNDS`.
    turns
        In turn: what the scenes' clouds are like.
    """

    grounds: tuple[str, ...] = GROUNDS
    turns: tuple[Turn, ...] = (
        Turn(("none", "none", "haze", "contrail"), 0.0, 0.02),
        Turn(CLOUDS[1:], 0.05, 0.9),
        Turn(
            ("stratus", "cirrus", "stratocumulus", "altocumulus", "haze", "stratus", "cirrus"),
            0.95,
            1.0,
        ),
    )


EASY = Plan(
    grounds=("fields", "forest", "shrub", "water", "soil", "coast"),
    turns=(
        Turn(("none",), 0.0, 0.0),
        Turn(("cumulus", "stratocumulus", "cumulus"), 0.1, 0.6),
        Turn(("stratus", "stratocumulus"), 0.95, 1.0),
    ),
)
"""Thick cloud over dark ground: what a small net learns in a minute."""


def write_dataset(
    folder: str | Path,
    scenes: int,
    seed: int,
    *,
    size: Size = (256, 256),
    layout: str = "geotiff",
    plan: Plan | None = None,
) -> list[Path]:
    """Write simulated scenes, their masks and scenes.csv; clear, mixed and overcast in equal parts,
    over all kinds of ground, unless `plan` says otherwise.

    The layout "geotiff" is scenes/NAME.tif with four bands and masks/NAME.tif; "catalogue", that of
    the Sentinel-2 Cloud Mask Catalogue, is subscenes/NAME.npy with 13 bands and masks/NAME.npy,
    (rows, cols, 3) bool: CLEAR, CLOUD, CLOUD_SHADOW. Scenes are of `size` (rows, cols); the same
    seed gives the same. Returns their paths in the order of scenes.csv.

    Raises
    ------
    DatasetError
        When the layout is unknown or `scenes` is not positive.
    OutputError
        When a file cannot be written; those that are there are whole.
    """
    if layout not in _WRITERS or scenes < 1:
        raise DatasetError(f"{scenes} scenes in layout {layout!r}: give 1 or more in {_LAYOUTS}")
    bands = BANDS if layout == "geotiff" else CATALOGUE_BANDS
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    paths = []
    for index in range(scenes):
        scene = planned_scene((seed, index), size, bands, plan)
        name = f"sim_{seed}_{index:04d}_{scene.ground}_{scene.cloud}"
        paths.append(_WRITERS[layout](Path(folder), name, scene, index))
        shares = [f"{(scene.label == value).mean():.4f}" for value in (CLOUD, NO_DATA)]
        rows.writerow([name, *size, "cloudnet.simulate", "simulated", name, *shares])
    write_text(Path(folder) / SCENES_FILE, table.getvalue())
    return paths


def remove_simulated(folder: Path) -> None:
    """Remove the simulated scenes of a folder, in either layout, and other files not at all.

    Its scenes.csv goes first: what is left of the others, if that is stopped, is no data set that
    looks finished.

    Raises
    ------
    OutputError
        When a file cannot be removed.
    """
    parts = [folder / part for part in ("scenes", "subscenes", "masks")]
    files = [path for part in parts if part.is_dir() for path in part.iterdir()]
    try:
        (folder / SCENES_FILE).unlink(missing_ok=True)
        for path in files:
            if path.suffix in (".tif", ".npy") and NAME.fullmatch(path.stem):
                path.unlink()
        for part in parts:
            if part.is_dir() and not any(part.iterdir()):
                part.rmdir()
    except OSError as error:
        raise OutputError(f"{error.filename} cannot be removed: {error.strerror}") from error


def planned_scene(
    seed: tuple[int, int],
    size: Size,
    bands: Sequence[str] = BANDS,
    plan: Plan | None = None,
    *,
    attempts: int = 20,
    pixel_m: float = 20.0,
    optics: Mapping[str, Band] = SENTINEL2,
) -> SimulatedScene:
    """Draw the scene whose turn it is, with the nearest of some draws to the cover wanted.

    Parameters
    ----------
    seed
        Of the data set, and the number of the scene in it, which says whose turn it is.
    size
        (rows, cols).
    bands
        Of `CATALOGUE_BANDS`.
    plan
        Kinds of ground and cloud.
    attempts
        Most draws of the clouds.
    pixel_m
        Size of a pixel in metres.
    optics
        Of the instrument.
    """
    plan, index = plan or Plan(), seed[1]
    turn = plan.turns[index % len(plan.turns)]
    cloud = turn.clouds[index // len(plan.turns) % len(turn.clouds)]
    ground = plan.grounds[(index + index // len(plan.grounds)) % len(plan.grounds)]
    if ground in WHITE_GROUNDS and turn.most <= BARELY_CLOUDY:
        cloud = "none"
    return simulate_scene(
        int(np.random.SeedSequence((*seed, 0)).generate_state(1)[0]),
        size,
        ground=ground,
        cloud=cloud,
        bands=bands,
        pixel_m=pixel_m,
        optics=optics,
        cover=(turn.least, turn.most),
        attempts=attempts,
    )


def _write_geotiff(folder: Path, name: str, scene: SimulatedScene, index: int) -> Path:
    rows, cols = scene.label.shape
    profile = {
        "driver": "GTiff",
        "height": rows,
        "width": cols,
        "compress": "deflate",
        "crs": f"EPSG:{32601 + 7 * index % 60}",
        "transform": Affine(20.0, 0.0, 3e5 + 20.0 * (257 * index % 20000), 0.0, -20.0, 5e6),
    }
    if min(rows, cols) > 512:
        profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    path, mask_path = (folder / part / f"{name}.tif" for part in ("scenes", "masks"))
    mask = profile | {"count": 1, "dtype": "uint8", "nodata": NO_DATA}
    with whole_file(mask_path) as scratch, rasterio.open(scratch, "w", **mask) as file:
        file.write(scene.label, 1)
    image = profile | {"count": 4, "dtype": "uint16", "nodata": 0, "predictor": 2}
    with whole_file(path) as scratch, rasterio.open(scratch, "w", **image) as file:
        dn = np.clip(np.rint(scene.reflectance * 10000.0), 1, 65535).astype(np.uint16)
        file.write(dn.transpose(2, 0, 1))
        file.descriptions = BANDS
        file.scales, file.offsets = (1e-4,) * 4, (0.0,) * 4
    return path


def _write_catalogue(folder: Path, name: str, scene: SimulatedScene, index: int) -> Path:
    clear = (scene.label == CLEAR) & ~scene.shadow
    path, mask_path = (folder / part / f"{name}.npy" for part in ("subscenes", "masks"))
    with whole_file(mask_path) as scratch:
        np.save(scratch, np.stack([clear, scene.label == CLOUD, scene.shadow], axis=2))
    with whole_file(path) as scratch:
        np.save(scratch, scene.reflectance)
    return path


_WRITERS = {"geotiff": _write_geotiff, "catalogue": _write_catalogue}
_LAYOUTS = " or ".join(_WRITERS)
