"""Speed of the shipped models against what people would use instead, on one scene in memory.

    python -m tests.benchmarks.speed [--others PYTHON] [--rounds N] [--size-px N] [--large-px N]

PYTHON is the interpreter of an environment with `ukis-csmask[cpu]` and `s2cloudless`, which keep to
themselves. Each competitor is a process that waits while another one works; rounds are interleaved,
a turn lasts half a second or one scene, after one that is not timed: the first of ours after the
gigabytes of another took twice its time. What is printed is the median of the turns, with the
quartiles beside it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks import LARGE_SCENE, ROOT

TURN_S = 0.5
"""A turn lasts at least this long."""

SERVER = """
import sys, time
import numpy as np
scene = np.load(sys.argv[1])
{0}
work(scene)
print("ready", flush=True)
for _ in sys.stdin:
    work(scene)
    began, times = time.perf_counter(), 0
    while not times or time.perf_counter() - began < {1}:
        work(scene)
        times += 1
    print((time.perf_counter() - began) / times, flush=True)
"""

CLOUDNET = """
from cloudnet import load_model
model = load_model({!r})
work = model.predict
"""

CLOUDNET_NET = """
from cloudnet import load_model
model = load_model({!r})
stride = model.spec.stride
side = -(-scene.shape[0] // stride) * stride
tile = np.full((1, side, side, 4), 0.1, dtype=np.float32)
work = lambda _: model.run(tile)
"""

UKIS = """
import warnings
warnings.simplefilter("ignore")
from ukis_csmask.mask import CSmask
work = lambda scene: CSmask(scene.copy(), ["red", "green", "blue", "nir"], "l1c").csm
"""

UKIS_NET = """
from ukis_csmask.mask import CSmask
opened = CSmask(scene[:256, :256].copy(), ["red", "green", "blue", "nir"], "l1c")
tile = np.zeros((1, 4, 256, 256), dtype=np.float32)
tiles = round(scene.shape[0] * scene.shape[1] / 256 ** 2)
def work(_):
    for _ in range(tiles):
        opened.session.run(None, {opened.input_names: tile})
"""

S2CLOUDLESS = """
import warnings
warnings.simplefilter("ignore")
from s2cloudless import S2PixelCloudDetector
detector = S2PixelCloudDetector(threshold=0.4, average_over=4, dilation_size=2, all_bands=False)
bands = scene[..., [2, 2, 0, 3, 3, 3, 3, 3, 3, 3]]
work = lambda _: detector.get_cloud_masks(bands[np.newaxis])
"""

OURS = {
    "**s2-rgbn**": CLOUDNET.format("s2-rgbn"),
    "**s2-rgbn-int8**": CLOUDNET.format("s2-rgbn-int8"),
    "s2-rgbn, the net alone": CLOUDNET_NET.format("s2-rgbn"),
    "s2-rgbn-int8, the net alone": CLOUDNET_NET.format("s2-rgbn-int8"),
}
OTHERS = {
    "ukis-csmask, four bands": UKIS,
    "ukis-csmask, the net alone": UKIS_NET,
    "s2cloudless": S2CLOUDLESS,
}
BASELINE = "ukis-csmask, four bands"
SLOW_ROUNDS = 3
"""Rounds of those that take seconds: their spread is small against their time."""


class Competitor:
    """A process that does its work once whenever it is asked to."""

    def __init__(self, python: str, code: str, scene: Path) -> None:
        self.seconds: list[float] = []
        self._process = subprocess.Popen(
            [python, "-c", SERVER.format(code, TURN_S), str(scene)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            sys.exit("a competitor ended; is its package in the environment of --others?")
        return line

    def measure(self) -> None:
        """Let it work once."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.seconds.append(float(self._answer()))

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def scene_of(size_px: int) -> NDArray[np.float32]:
    """Return a square of reflectance: the large real scene, mirrored to the size, or noise."""
    if not LARGE_SCENE.is_file():
        noise = np.random.default_rng(1).uniform(0.02, 0.6, (size_px, size_px, 4))
        return noise.astype(np.float32)
    from cloudnet.scene import open_scene

    with open_scene(LARGE_SCENE) as scene:
        reflectance, _ = scene.read()
    missing = [(0, max(size_px - side, 0)) for side in reflectance.shape[:2]]
    grown = np.pad(reflectance, [*missing, (0, 0)], mode="symmetric")
    return np.ascontiguousarray(grown[:size_px, :size_px])


def compete(others: str | None, rounds: int, size_px: int) -> None:
    """Print the Markdown table of all that can run here."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "scene.npy")
        np.save(path, scene_of(size_px))
        runners = {name: Competitor(sys.executable, code, path) for name, code in OURS.items()}
        if others is not None:
            runners |= {name: Competitor(others, code, path) for name, code in OTHERS.items()}
        for number in range(rounds):
            for name, runner in runners.items():
                if name in OURS or number < SLOW_ROUNDS:
                    runner.measure()
        for runner in runners.values():
            runner.stop()
    baseline = statistics.median(runners[BASELINE].seconds) if BASELINE in runners else None
    megapixels = size_px**2 / 1e6
    print(f"| {size_px} x {size_px} | MP/s | quartiles | times {BASELINE} |\n|---|---|---|---|")
    for name, runner in runners.items():
        middle = statistics.median(runner.seconds)
        low, high = (megapixels / np.percentile(runner.seconds, share) for share in (75, 25))
        times = f"{baseline / middle:.1f}" if baseline else ""
        print(f"| {name} | {megapixels / middle:.2f} | {low:.2f} to {high:.2f} | {times} |")


def over_size(name: str, rounds: int, sizes: tuple[int, int]) -> None:
    """Print the seconds per megapixel of a large scene over those of a small one."""
    from cloudnet.runtime import load_model

    model = load_model(name)
    scenes = [scene_of(size_px) for size_px in sizes]
    seconds: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for scene, column in zip(scenes, seconds):
            spent = timed(lambda scene=scene: model.predict(scene))  # type: ignore[misc]
            if number:
                column.append(spent / (scene.shape[0] * scene.shape[1] / 1e6))
    small, large = map(statistics.median, seconds)
    tiles = model.tiles(scenes[1].shape[:2])
    read = sum(tile.read.rows * tile.read.cols for tile in tiles) / sizes[1] ** 2
    print(
        f"{name}: {sizes[1]} px against {sizes[0]} px a side, seconds per megapixel "
        f"{large / small:.3f}; {len(tiles)} tiles read {read:.3f} times its pixels"
    )


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    from time import perf_counter

    began = perf_counter()
    work()
    return perf_counter() - began


def main() -> None:
    """Take the options and print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--others", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size-px", type=int, default=1022)
    parser.add_argument("--large-px", type=int, default=4088)
    options = parser.parse_args()
    compete(options.others, options.rounds, options.size_px)
    print()
    for name in ("s2-rgbn", "s2-rgbn-int8"):
        over_size(name, 3, (options.size_px, options.large_px))


if __name__ == "__main__":
    main()
