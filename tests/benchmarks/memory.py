"""Peak memory of training over the number of scenes, and of predicting.

    python -m tests.benchmarks.memory train
    python -m tests.benchmarks.memory predict MODEL.onnx [PYTHON]
    python -m tests.benchmarks.memory net MODEL.onnx
    python -m tests.benchmarks.memory height MODEL.onnx

`net` is what a pixel of a tile costs inside onnxruntime (`runtime.PIXEL_BYTES`), `height` streams
scenes of one width and of 2745 and 10980 rows.

PYTHON may be the interpreter of an environment with the core install alone.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import LARGE_SCENE, SCENES, peak_rss_mb, require_scenes

RUN = "from cloudnet.commands import main; main()"


def copies(folder: Path, count: int) -> Path:
    """Write a data set of `count` copies of real scenes of 256 x 256 pixels, each its own place."""
    for name in ("scenes", "masks"):
        (folder / name).mkdir(parents=True)
    small = [
        path
        for path in sorted((SCENES / "rgbn" / "scenes").glob("*.tif"))
        if path.stat().st_size < 1_000_000
    ]
    with (folder / "scenes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("scene", "group"))
        for number in range(count):
            source = small[number % len(small)]
            for kind in ("scenes", "masks"):
                mask_or_scene = source.parents[1] / kind / source.name
                shutil.copy(mask_or_scene, folder / kind / f"{number:04}.tif")
            writer.writerow((f"{number:04}", f"place{number:04}"))
    return folder


def train() -> None:
    """Print the peaks of two trainings of as many steps, on 60 and on 600 scenes."""
    require_scenes()
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (60, 600):
            data = copies(Path(folder, str(count)), count)
            command = [sys.executable, "-c", RUN, "train", str(data)]
            command += ["--out", f"{folder}/run{count}", "--epochs", "1", "--epoch-tiles", "1400"]
            peaks[count] = peak_rss_mb(command)
            print(f"training on {count} scenes: peak {peaks[count]:.0f} MB", flush=True)
    print(f"ratio {peaks[600] / peaks[60]:.3f}")


def predict(model: str, python: str = sys.executable) -> None:
    """Print the peak of predicting the large scene with all products."""
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-c", RUN, "predict", str(LARGE_SCENE), "-m", model]
        peak = peak_rss_mb([*command, "-o", folder, "--probability"])
    print(f"predicting {LARGE_SCENE.name}: peak {peak:.0f} MB")


NET = """
import numpy as np
from cloudnet.bench import _peak_bytes
from cloudnet.runtime import load_model
model = load_model({!r})
tile = np.full((1, {}, 1024, 4), 0.1, dtype=np.float32)
for _ in range(3):
    model.run(tile)
print(_peak_bytes())
"""

HEIGHT = """
import numpy as np
from cloudnet.bench import _peak_bytes
from cloudnet.runtime import load_model
model = load_model({!r})
class Scene:
    dtype = np.dtype(np.uint16)
    def read_numbers(self, window):
        numbers = np.full((4, window.rows, window.cols), 1000, dtype=np.uint16)
        return numbers, np.ones((window.rows, window.cols), dtype=bool)
    def to_reflectance(self, numbers):
        return np.ascontiguousarray(numbers.transpose(1, 2, 0).astype(np.float32) * 1e-4)
for _ in model.stream(Scene(), ({}, {})):
    pass
print(_peak_bytes())
"""


def run(code: str) -> float:
    """Return the number that a Python process prints."""
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def net(model: str) -> None:
    """Print the bytes of a pixel: the difference between two tiles over that of their pixels."""
    small, large = (run(NET.format(model, rows)) for rows in (512, 1536))
    per_pixel = (large - small) / (1024 * 1024)
    print(f"{model}: {per_pixel:.0f} bytes a pixel of a tile, its 16 of input included")


def height(model: str, cols: str = "10980") -> None:
    """Print the peaks of two scenes of one width."""
    peaks = {rows: run(HEIGHT.format(model, rows, cols)) / 1e6 for rows in (2745, 10980)}
    for rows, peak in peaks.items():
        print(f"{model}, {rows} rows of {cols}: peak {peak:.0f} MB", flush=True)
    print(f"ratio {peaks[10980] / peaks[2745]:.3f}")


if __name__ == "__main__":
    {"train": train, "predict": predict, "net": net, "height": height}[sys.argv[1]](*sys.argv[2:])
