"""Start-up of whole processes, medians of interleaved rounds: `python -m tests.benchmarks.startup`.

`cloudnet --help` against Python's own start, and the mask of a 512 x 512 GeoTIFF, comparison and
quicklook included, against importing what cloudnet depends on.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cloudnet.bench import generate_scene

HEAVY = ("tensorflow", "onnxruntime", "rasterio", "numpy")
DEPENDENCIES = "import click, numpy, onnxruntime, rasterio"
PREDICT = (
    "from cloudnet.commands import main; "
    "main(['predict', {!r}, '-o', {!r}, '--overwrite', '-m', {!r}])"
)
HELP = "import sys; sys.argv = ['cloudnet', '--help']; from cloudnet.commands import main; main()"


def seconds(code: str) -> float:
    """Time a Python process that runs `code`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print medians of twenty interleaved rounds."""
    rounds = [(seconds(HELP), seconds("pass")) for _ in range(20)]
    shown, bare = (statistics.median(column) for column in zip(*rounds))
    print(f"cloudnet --help: {shown:.3f} s; python alone: {bare:.3f} s (medians of {len(rounds)})")
    code = (
        f"import sys, cloudnet.commands; print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    print(f"heavy modules imported: {loaded.stdout.strip()}")
    predict()


def predict() -> None:
    """Print the seconds from start to mask, with each shipped model."""
    with tempfile.TemporaryDirectory() as folder:
        scene = str(generate_scene(Path(folder, "scene.tif"), 512))
        codes = {"its dependencies": DEPENDENCIES}
        codes |= {name: PREDICT.format(scene, folder, name) for name in ("s2-rgbn", "s2-rgbn-int8")}
        rounds = [[seconds(code) for code in codes.values()] for _ in range(10)]
    for name, column in zip(codes, zip(*rounds)):
        print(f"512 x 512 GeoTIFF, {name}: {statistics.median(column):.3f} s")


if __name__ == "__main__":
    main()
