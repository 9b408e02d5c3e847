"""A full-size Sentinel-2 product, and how long rasterio takes to decode its four bands.

    python -m tests.benchmarks.full_tile build FOLDER [SCENE.tif]
    python -m tests.benchmarks.full_tile decode FOLDER [ROUNDS [ROWS]]

`build` writes the SAFE folder of a Level-2A product after baseline 04.00: four JPEG 2000 bands of
10980 x 10980 pixels in tiles of 1024, without loss, of mirrored repeats of a scene and noise. A
band that is there already is kept, so the command can be stopped and started again. `decode` prints
the seconds for reading every band by rasterio alone, at 10 m and at 20 m, and by `open_scene`:
those that passed, and those of all cores together, which a busy machine does not change. ROWS, at
10 m, are read from the top; all by default.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import rasterio
from rasterio.windows import Window as RasterioWindow

from cloudnet.files import whole_file
from cloudnet.runtime import usable_cores
from cloudnet.scene import Reading, open_scene
from cloudnet.spec import BANDS
from cloudnet.tiles import Window
from tests.benchmarks import LARGE_SCENE
from tests.products import L2A_AFTER, Numbers, metadata_xml, write_jp2

SIDE_PX = 10980
TILE_PX = 1024
OFFSET = 1000
NOISE = 3.0
"""Standard deviation in digital numbers: a band then has about 120 MB, as a cloudy real one has."""

CACHE_MB = 256
"""Holds two rows of tiles of all bands, so that GDAL decodes no tile twice."""

SLAB_PX = 640
"""Rows that are asked for at a time by one who knows nothing of tiles."""


def build(folder: Path, scene: Path) -> Path:
    """Write the product into `folder`, band by band; return it."""
    product = folder / f"{L2A_AFTER.name}.SAFE"
    with rasterio.open(scene) as source:
        for number, band in enumerate(BANDS, start=1):
            path = product / f"{L2A_AFTER.image(band)}.jp2"
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as scratch, rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"):
                write_jp2(scratch, mosaic(source.read(number), number), RESOLUTIONS=6)
            print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB", flush=True)
    (product / L2A_AFTER.metadata).write_text(metadata_xml(L2A_AFTER), encoding="utf-8")
    return product


def mosaic(band: Numbers, seed: int) -> Numbers:
    """Return a band of full size: the scene and its mirror images, with noise of their own."""
    rng = np.random.default_rng(seed)
    pair = np.block([[band, band[:, ::-1]], [band[::-1], band[::-1, ::-1]]])
    repeats = [-(-SIDE_PX // side) for side in pair.shape]
    whole = np.tile(pair, repeats)[:SIDE_PX, :SIDE_PX]
    for row in range(0, SIDE_PX, TILE_PX):
        part = whole[row : row + TILE_PX]
        noisy = part + rng.normal(0.0, NOISE, part.shape).astype(np.float32)
        whole[row : row + TILE_PX] = np.clip(np.rint(noisy) + OFFSET, 1, 32767)
    return whole


def decode_bands(product: Path, level: int | None, share: float) -> None:
    """Read each band by rasterio, a row of JPEG 2000 tiles at a time, with all threads."""
    reduced = {} if level is None else {"OVERVIEW_LEVEL": level}
    with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS", GDAL_CACHEMAX=CACHE_MB):
        for band in BANDS:
            with rasterio.open(product / f"{L2A_AFTER.image(band)}.jp2", **reduced) as file:
                step = file.block_shapes[0][0]
                height = round(file.height * share)
                for row in range(0, height, step):
                    rows = min(step, height - row)
                    file.read(1, window=RasterioWindow(0, row, file.width, rows))


def slabs(rows: int, cols: int) -> Iterator[Window]:
    """Cover a scene with slabs over its whole width."""
    for row in range(0, rows, SLAB_PX):
        yield Window(row, 0, min(SLAB_PX, rows - row), cols)


def decode_scene(product: Path, metres: int, share: float) -> None:
    """Read the product's digital numbers by `open_scene`, slab by slab."""
    with open_scene(product, Reading(resolution_m=metres), checked=True) as scene:
        for window in slabs(round(scene.rows * share), scene.cols):
            scene.read_numbers(window)


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Return how long it takes, and how long on all cores together."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - busy


def decode(product: Path, rounds: int, rows: int) -> None:
    """Print medians of interleaved rounds, and their ratio to rasterio alone."""
    share = rows / SIDE_PX
    works: dict[str, Callable[[], None]] = {
        "rasterio, 10 m": lambda: decode_bands(product, None, share),
        "open_scene, 10 m": lambda: decode_scene(product, 10, share),
        "rasterio, 20 m": lambda: decode_bands(product, 0, share),
        "open_scene, 20 m": lambda: decode_scene(product, 20, share),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    print(f"{usable_cores()} cores, {rounds} rounds, {rows} rows")
    for name, taken in times.items():
        alone = zip(*times[f"rasterio, {name.partition(', ')[2]}"])
        for kind, found, base in zip(("passed", "on all cores"), zip(*taken), alone):
            ratio = median(found) / median(base)
            print(f"{name}: {median(found):.1f} s {kind}, {ratio:.2f} times rasterio alone")


if __name__ == "__main__":
    command, target, *rest = sys.argv[1:]
    if command == "build":
        print(build(Path(target), Path(rest[0]) if rest else LARGE_SCENE))
    else:
        rounds, rows = (*map(int, rest), *(3, SIDE_PX)[len(rest) :])
        decode(Path(target) / f"{L2A_AFTER.name}.SAFE", rounds, rows)
