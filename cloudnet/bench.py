"""Bench: how fast the models are on this machine, where the time goes, which settings to use."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from cloudnet.compare import replay_probe
from cloudnet.cores import usable_cores
from cloudnet.errors import ModelError
from cloudnet.files import quiet
from cloudnet.mosaic import SlabPixels, fill_in_blocks, read_slabs
from cloudnet.predict import GDAL_CACHE_MB
from cloudnet.runtime import CloudModel, load_model, to_mask
from cloudnet.scene import Reading, Scene, open_scene
from cloudnet.spec import BANDS
from cloudnet.tiles import Window

STAGES = ("read and decode", "convert", "infer", "blend", "write")

TILES_PX = (512, 1024, None)
"""Sides of tiles that are tried where the scene is larger; None: as the runtime chooses."""

GENERATED_PX = 2048
SEED = 7


@dataclass(frozen=True)
class Speed:
    """One setting, measured.

    Attributes
    ----------
    model
        Its name.
    threads
        Threads inside the net.
    tile_px
        Side of a tile; None: as the runtime chooses.
    megapixels_s
        Megapixels of the scene a second, halos included in the time; the median of the rounds.
    """

    model: str
    threads: int
    tile_px: int | None
    megapixels_s: float


@dataclass(frozen=True)
class Bench:
    """What was measured.

    Attributes
    ----------
    rows, cols
        Of the scene.
    cores
        That this process may use.
    speeds
        In the order in which they were measured.
    stages
        By model: seconds of each of `STAGES` when one follows the other on the whole scene.
    peak_mb
        By model: the largest resident memory of a process that predicts the scene, 10^6 bytes; None
        where the system does not tell.
    """

    rows: int
    cols: int
    cores: int
    speeds: tuple[Speed, ...]
    stages: dict[str, dict[str, float]]
    peak_mb: dict[str, float | None]

    def best(self, model: str) -> Speed:
        """Return the fastest setting of a model; of equals, to 3 %, the one that is chosen."""
        own = [speed for speed in self.speeds if speed.model == model]
        most = max(speed.megapixels_s for speed in own)
        close = [speed for speed in own if speed.megapixels_s >= 0.97 * most]
        return min(close, key=lambda speed: (speed.tile_px is not None, speed.threads))

    def to_dict(self) -> dict[str, Any]:
        """Return all as JSON types."""
        return {
            **asdict(self),
            "recommended": {name: asdict(self.best(name)) for name in self.stages},
        }


def run_bench(
    models: Sequence[str],
    scene: str | Path | None = None,
    *,
    rounds: int = 3,
    provider: str = "cpu",
    reading: Reading | None = None,
    on_step: Callable[[float], None] = lambda _: None,
) -> Bench:
    """Measure models on a scene over threads and tiles, each round through all of them.

    Parameters
    ----------
    models
        Names or ONNX files. Each is compared first.
    scene
        A scene; None: a generated one of 2048 x 2048 pixels. It is read into memory whole.
    rounds
        How often each setting is measured.
    provider
        As in `load_model`.
    reading
        What the scene's file does not tell.
    on_step
        Called with the share that is done.

    Raises
    ------
    ModelError, SceneError, ComparisonError
        When a model or the scene cannot be used.
    """
    threads = sorted({1, max(usable_cores() // 2, 1), usable_cores()})
    loaded = {
        (name, count): _compared(name, count, provider) for name in models for count in threads
    }
    with tempfile.TemporaryDirectory() as folder:
        path = generate_scene(Path(folder, "scene.tif")) if scene is None else scene
        with open_scene(path, reading) as opened:
            speeds = _measure_speeds(loaded, *opened.read(), rounds, on_step)
            stages = {
                name: stage_seconds(loaded[name, threads[-1]], opened, Path(folder, "mask.tif"))
                for name in models
            }
            size = opened.rows, opened.cols
        peaks = {name: peak_mb(name, path, provider, reading) for name in models}
    on_step(1.0)
    return Bench(*size, usable_cores(), speeds, stages, peaks)


def _compared(name: str, threads: int, provider: str) -> CloudModel:
    model = load_model(name, threads=threads, provider=provider)
    replay_probe(model).require(model.path)
    return model


def _measure_speeds(
    loaded: dict[tuple[str, int], CloudModel],
    reflectance: NDArray[np.float32],
    valid: NDArray[np.bool_],
    rounds: int,
    on_step: Callable[[float], None],
) -> tuple[Speed, ...]:
    """Return the median speed of each model, number of threads, and tile."""
    tiles = [tile_px for tile_px in TILES_PX if tile_px is None or tile_px < max(valid.shape)]
    settings = [(*key, tile_px) for key in loaded for tile_px in tiles]
    seconds: list[list[float]] = [[] for _ in settings]
    for number in range(rounds + 1):
        for step, (name, threads, tile_px) in enumerate(settings):
            spent = {"predict": 0.0}
            with _clock(spent, "predict"):
                loaded[name, threads].predict(reflectance, valid, tile_px=tile_px)
            if number:  # the first warms up
                seconds[step].append(spent["predict"])
            on_step(0.9 * (number + step / len(settings)) / (rounds + 1))
    megapixels = valid.size / 1e6
    return tuple(
        Speed(*setting, megapixels / statistics.median(column))
        for setting, column in zip(settings, seconds)
    )


def stage_seconds(model: CloudModel, scene: Scene, mask_path: Path) -> dict[str, float]:
    """Return the seconds of each of `STAGES` for a scene, one after the other.

    A prediction does them at the same time, so it takes less than their sum.
    """
    from cloudnet.layer import MASK, open_layer
    from cloudnet.map_grid import MapGrid

    size = scene.rows, scene.cols
    spent = dict.fromkeys(STAGES, 0.0)
    probability = np.empty(size, dtype=np.float32)
    with _clock(spent, "read and decode"):
        slabs = list(read_slabs(scene, size))
    pixels = SlabPixels(iter(slabs), scene.to_reflectance)
    for tile in model.stream_tiles(scene, size):
        window = tile.read.clip(*size)
        buffer = np.zeros((tile.read.rows, tile.read.cols, len(model.spec.bands)), np.float32)
        with _clock(spent, "convert"):
            pixels.advance(window)
            fill_in_blocks(pixels, window, buffer)
        with _clock(spent, "infer"):
            answer = model.run(buffer[np.newaxis])[0, ..., 0]
        with _clock(spent, "blend"):
            probability[tile.write.slices] = answer[tile.write.within(tile.read).slices]
    with _clock(spent, "write"), open_layer(mask_path, MapGrid.of(scene), MASK, {}) as layer:
        layer.write(Window(0, 0, *size), to_mask(probability, model.spec.threshold))
    return spent


@contextmanager
def _clock(spent: dict[Any, float], key: Any) -> Iterator[None]:
    """Add the seconds of a block to what a key has spent."""
    began = perf_counter()
    yield
    spent[key] += perf_counter() - began


def peak_mb(
    model: str, scene: str | Path, provider: str = "cpu", reading: Reading | None = None
) -> float | None:
    """Return the largest resident memory, in 10^6 bytes, of a process that streams a scene.

    None where the system does not tell.

    Raises
    ------
    ModelError
        When the process fails.
    """
    told = json.dumps(asdict(reading or Reading()))
    code = "import sys; from cloudnet.bench import stream_scene; stream_scene(*sys.argv[1:])"
    words = [sys.executable, "-c", code, model, str(scene), provider, told]
    child = subprocess.run(words, capture_output=True, text=True, check=False)
    if child.returncode:
        reason = child.stderr.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        raise ModelError(f"{model} failed on {scene} in a process of its own ({reason[0]})")
    return float(child.stdout) or None


def stream_scene(model: str, scene: str, provider: str, reading: str) -> None:
    """Stream a scene and write this process's largest resident memory to stdout, 0 if unknown.

    `reading` is a `Reading` as JSON.
    """
    told = json.loads(reading)
    told["bands"] = tuple(told["bands"]) if told["bands"] else None
    with (
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB),
        open_scene(scene, Reading(**told)) as opened,
    ):
        stream = load_model(model, provider=provider).stream
        with closing(stream(opened, (opened.rows, opened.cols))) as tiles:
            for _ in tiles:
                pass
    sys.stdout.write(str(_peak_bytes() / 1e6))


def _peak_bytes() -> float:
    # Linux counts into ru_maxrss what the process that started this one had.
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        return float(found[1]) * 1024 if found else 0.0
    try:
        import resource
    except ImportError:
        return 0.0
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def generate_scene(path: Path, size_px: int = GENERATED_PX) -> Path:
    """Write a GeoTIFF of smooth ground with noise, uint16 and deflated as products are."""
    rng = np.random.default_rng(SEED)
    coarse = rng.uniform(500, 9000, (len(BANDS), -(-size_px // 64), -(-size_px // 64)))
    ground = coarse.repeat(64, axis=1).repeat(64, axis=2)[:, :size_px, :size_px]
    numbers = (ground + rng.normal(0, 60, ground.shape)).clip(1).astype(np.uint16)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": len(BANDS), "tiled": True}
    size = {"width": size_px, "height": size_px, "blockxsize": 512, "blockysize": 512}
    with (
        quiet(NotGeoreferencedWarning),
        rasterio.open(path, "w", **profile, **size, compress="deflate", predictor=2) as file,
    ):
        file.write(numbers)
        file.descriptions = BANDS
        file.scales = (1e-4,) * len(BANDS)
    return path
