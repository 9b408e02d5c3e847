"""Plans: what predicting a scene would read, write and take, without doing it."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import rasterio

from cloudnet.errors import OutputError
from cloudnet.layer import SLAB_PX
from cloudnet.mosaic import READ_ROWS
from cloudnet.predict import GDAL_CACHE_MB, NO_REFINEMENT, PredictOptions, SceneJob
from cloudnet.product import Outputs
from cloudnet.runtime import PIXEL_BYTES, CloudModel
from cloudnet.scene import Reading, Scene, open_scene

PICTURE_BYTES = 20_000_000
"""Sums of a quicklook of 1024 px a side, and the image while it is encoded."""

FINISH_BYTES_PX = 12
"""Of a pixel of a slab while a mask is refined, warped and read back."""

LIBRARY_BYTES = 15_000_000
"""What GDAL and onnxruntime come to hold beside that: decoders, threads, heap that is not given
back."""

COMPRESSED_BYTES_PX = {"mask": 0.04, "probability": 0.25}
"""Of a pixel with overviews, as seen for a scene of broken cloud."""

OVERVIEWS = 4 / 3

SLABS_AHEAD = 2
"""Slabs of rows that are read while the tiles above are run."""

DECODING = 2
"""What JPEG 2000 takes at work over what is kept of it: its numbers are of 32 bits meanwhile."""


@dataclass(frozen=True)
class Plan:
    """What a scene takes.

    Attributes
    ----------
    source, size
        The scene and its (rows, cols).
    read_bytes
        Size of its file; None for a folder or an address.
    files
        What would be written.
    grid_size
        (rows, cols) of the products.
    tiles, tile_size
        Into how many tiles, of which side, it is cut.
    memory
        Largest resident size in bytes, by what takes it.
    disk_bytes, most_disk_bytes
        Of products and scratch files together: for usual clouds, and where nothing compresses.
    free_bytes
        Left on the disk of the output.
    """

    source: str
    size: tuple[int, int]
    read_bytes: int | None
    files: tuple[Path, ...]
    grid_size: tuple[int, int]
    tiles: int
    tile_size: tuple[int, int]
    memory: dict[str, int]
    disk_bytes: int
    most_disk_bytes: int
    free_bytes: int

    @property
    def memory_bytes(self) -> int:
        """Largest resident size."""
        return sum(self.memory.values())

    def to_lines(self) -> list[str]:
        """Return the plan as text."""
        terms = ", ".join(f"{name} {_mb(taken)}" for name, taken in self.memory.items())
        size = "" if self.read_bytes is None else f", {_mb(self.read_bytes)}"
        rows, cols = self.grid_size
        return [
            f"{self.source}: {self.size[0]} x {self.size[1]} pixels{size}",
            f"  in {self.tiles} tiles of {self.tile_size[0]} x {self.tile_size[1]} px",
            *(f"  writes {path}" for path in self.files),
            f"  on a grid of {rows} x {cols} pixels",
            f"  memory about {_mb(self.memory_bytes)}: {terms}",
            f"  disk about {_mb(self.disk_bytes)}, at most {_mb(self.most_disk_bytes)}; "
            f"{_mb(self.free_bytes)} free",
        ]


def plan_scene(
    path: str | Path,
    model: CloudModel,
    folder: str | Path,
    options: PredictOptions | None = None,
    reading: Reading | None = None,
) -> Plan:
    """Plan what `predict_scene` would do with the same arguments.

    Raises
    ------
    CloudnetError
        Where `predict_scene` would refuse before it writes.
    """
    model.require_scenes()
    options = options or PredictOptions()
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB), open_scene(path, reading) as scene:
        job = SceneJob(scene, model, options)
        outputs = Outputs(Path(folder), scene.name)
        size = (scene.rows, scene.cols)
        tiles = model.stream_tiles(scene, size, tile_px=options.tile_px, exact=options.exact)
        usual, most = disk_bytes(job)
        return Plan(
            source=str(path),
            size=size,
            read_bytes=Path(path).stat().st_size if Path(path).is_file() else None,
            files=tuple(options.wanted(outputs).values()),
            grid_size=(job.grid.rows, job.grid.cols),
            tiles=len(tiles),
            tile_size=(tiles[0].read.rows, tiles[0].read.cols),
            memory=memory_terms(scene, model, options, (tiles[0].read.rows, tiles[0].read.cols)),
            disk_bytes=usual,
            most_disk_bytes=most,
            free_bytes=_free(Path(folder)),
        )


def memory_terms(
    scene: Scene, model: CloudModel, options: PredictOptions, tile_size: tuple[int, int]
) -> dict[str, int]:
    """Return the largest resident size in bytes by what takes it.

    The process with its libraries and the loaded model is measured where it stands; the rest is
    added. To calibrate: predict scenes of 2745 x 10980 px with each kind of net and option, take
    the peak of the resident size less that before `predict_scene`, and fit the constants above.

    Parameters
    ----------
    scene, model, options
        As for `predict_scene`.
    tile_size
        (rows, cols) of a tile as read.
    """
    tile_px2 = tile_size[0] * tile_size[1]
    held_rows = min(tile_size[0] + SLABS_AHEAD * READ_ROWS, scene.rows)
    numbers = len(scene.band_numbers) * scene.dtype.itemsize
    floats = 2 * 4 * len(scene.band_numbers)
    blocks = scene.rows * scene.cols * (numbers + 1 + options.probability)
    slab_px = min(max(SLAB_PX, scene.cols), scene.rows * scene.cols)
    finishing = slab_px * FINISH_BYTES_PX if options.refinement != NO_REFINEMENT else 0
    net = tile_px2 * PIXEL_BYTES[model.precision]
    return {
        "process and model": resident_bytes(),
        "net": max(net, finishing),
        "tiles": tile_px2 * (numbers + floats + 3),
        "rows": held_rows * scene.cols * (numbers + 1),
        "decoding": DECODING * scene.kept_bytes,
        "GDAL's cache": min(GDAL_CACHE_MB * 2**20, blocks),
        "picture": PICTURE_BYTES if options.quicklook else 0,
        "libraries": LIBRARY_BYTES,
    }


def disk_bytes(job: SceneJob) -> tuple[int, int]:
    """Return the bytes on disk for usual clouds, and where nothing compresses."""
    scene_px = job.scene.rows * job.scene.cols
    product_px = job.grid.rows * job.grid.cols
    usual = most = 0.0
    for kind, share in COMPRESSED_BYTES_PX.items():
        if kind == "probability" and not job.options.probability:
            continue
        usual += share * (2 * scene_px + 2 * product_px * OVERVIEWS)
        most += scene_px + product_px * 2 * OVERVIEWS
    if job.options.refinement != NO_REFINEMENT:
        most += scene_px
    return round(usual), round(most)


def resident_bytes() -> int:
    """Return the resident size of this process; the largest so far where only that is known."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _free(folder: Path) -> int:
    """Return the room of the disk that a folder is on, or will be."""
    for place in (folder, *folder.absolute().parents):
        if place.is_dir():
            return shutil.disk_usage(place).free
    raise OutputError(f"{folder} cannot be made: there is no such disk")


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f} MB" if count >= 10_000_000 else f"{count / 1e6:.1f} MB"
