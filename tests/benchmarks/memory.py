"""Peak memory of training over the number of scenes, and of predicting a large scene.

    python -m tests.benchmarks.memory train
    python -m tests.benchmarks.memory predict MODEL.onnx [PYTHON]

PYTHON may be the interpreter of an environment with the core install alone.
"""

from __future__ import annotations

import csv
import shutil
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


if __name__ == "__main__":
    {"train": train, "predict": predict}[sys.argv[1]](*sys.argv[2:])
