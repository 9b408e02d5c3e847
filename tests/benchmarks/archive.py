"""Archives: what survives a kill, and what a second Dask worker brings.

    python -m tests.benchmarks.archive kill [SCENES]
    python -m tests.benchmarks.archive dask [SCENES] [ROUNDS]

The first runs `cloudnet predict --jobs 2` over 200 small scenes of which 5 are broken, kills a
worker halfway and starts the command again; then the same with the whole command killed. The
second starts a Dask scheduler with one worker of one core, and with two, in turns.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio

import cloudnet
from tests.benchmarks import ROOT
from tests.helpers import cloudy_scene, write_scene_tif

BROKEN = 5
CLOUDNET = [sys.executable, str(ROOT / "cli.py")]
DASK = [sys.executable, "-m", "dask"]
SMALL_PX, LARGE_PX = 192, 1022


def write_archive(folder: Path, count: int, size_px: int) -> Path:
    """Write scenes s000.tif and on, all different."""
    for number in range(count):
        values, _ = cloudy_scene(np.random.default_rng(number), size_px, size_px)
        write_scene_tif(folder / f"s{number:03}.tif", values)
    return folder


def break_some(folder: Path) -> None:
    """Break five scenes: two cut short, two that are text, one that is empty."""
    paths = sorted(folder.iterdir())
    for index, path in enumerate(paths[7 :: len(paths) // BROKEN][:BROKEN]):
        content = path.read_bytes()
        half, text, empty = content[: len(content) // 2], b"no image\n", b""
        path.write_bytes((half, text, empty, half, text)[index])


def lines_of(manifest: Path) -> list[dict[str, str]]:
    """Return the whole lines of a manifest, none where it is not there yet."""
    text = manifest.read_text() if manifest.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def children(pid: int) -> list[int]:
    """Return the worker processes of a command, without multiprocessing's own helper."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in found
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def stamps(folder: Path) -> dict[str, int]:
    """Return when each product was written, in ns."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("s*")}


def kill(count: str = "200") -> None:
    """Print what is there after a kill, and after the command was started again."""
    with tempfile.TemporaryDirectory() as folder:
        scenes = write_archive(Path(folder, "scenes"), int(count), SMALL_PX)
        break_some(scenes)
        for victim in ("one worker", "the command"):
            kill_one(scenes, Path(folder, victim), victim)


def kill_one(scenes: Path, out: Path, victim: str) -> None:
    """Run over the scenes, kill what is named halfway, start again, and print what is there."""
    manifest, count = out / "manifest.jsonl", len(list(scenes.iterdir()))
    command = [*CLOUDNET, "predict", f"{scenes}/*.tif", "-o", str(out), "--jobs", "2"]
    with (out.parent / "log").open("w") as log:
        began = time.perf_counter()
        run = subprocess.Popen(command, stdout=log, stderr=log)
        while len(lines_of(manifest)) < count // 2:
            time.sleep(0.01)
        os.kill(children(run.pid)[0] if victim == "one worker" else run.pid, signal.SIGKILL)
        first = run.wait()
        seconds = time.perf_counter() - began
        lines, written = lines_of(manifest), stamps(out)
        finished = {line["name"] for line in lines if line["state"] == "done"}
        print(f"{victim} killed halfway: exit code {first}, {len(lines)} lines, {seconds:.0f} s")
        again = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    lines, now = lines_of(manifest), stamps(out)
    twice = {
        name
        for name, stamp in written.items()
        if now[name] != stamp and name.rpartition("_")[0] in finished
    }
    wanted = count - BROKEN
    print(f"  started again: exit code {again}, {Counter(line['state'] for line in lines)}")
    print(f"  right masks {right_masks(scenes, out)} of {wanted}, products {len(now)}")
    print(f"  products of finished scenes written again: {len(twice)}")
    print(f"  other files: {sorted(p.name for p in out.iterdir() if p.name not in now)}")


def right_masks(scenes: Path, out: Path) -> int:
    """Count the masks that are those of the whole scene in one piece."""
    model, right = cloudnet.load_model(), 0
    for path in out.glob("*_cloudmask.tif"):
        name = path.name.removesuffix("_cloudmask.tif")
        with cloudnet.open_scene(scenes / f"{name}.tif") as scene, rasterio.open(path) as mask:
            right += bool((mask.read(1) == model.mask(model.predict(*scene.read()))).all())
    return right


@contextmanager
def dask_cluster(folder: Path, workers: int) -> Iterator[str]:
    """Start a scheduler and workers of one core by their commands, and give the address."""
    file = folder / f"scheduler{workers}.json"
    address = ["--scheduler-file", str(file)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = [[*DASK, "scheduler", *address, "--port", "0", "--no-dashboard"]]
    commands += [[*DASK, "worker", *address, "--nthreads", "1", "--no-dashboard"]] * workers
    started = [subprocess.Popen(line, env=environment, **quiet) for line in commands]
    try:
        while not file.exists():
            time.sleep(0.1)
        from distributed import Client

        address_given = json.loads(file.read_text())["address"]
        with Client(address_given, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=120)
        yield address_given
    finally:
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def digest(out: Path) -> str:
    """Return a digest of all products, names and bytes."""
    found = hashlib.sha256()
    for path in sorted(out.glob("s*")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def dask(count: str = "16", rounds: str = "5") -> None:
    """Print scenes per second of one process, of one Dask worker, and of two."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        scenes = sorted(write_archive(folder / "scenes", int(count), LARGE_PX).iterdir())
        rates: dict[str, list[float]] = {}
        digests = set()
        with dask_cluster(folder, 1) as one, dask_cluster(folder, 2) as two:
            ways = {"one process": None, "1 worker": one, "2 workers": two}
            for number in range(int(rounds) + 1):
                for way, scheduler in ways.items():
                    out = folder / f"{number} {way}"
                    began = time.perf_counter()
                    cloudnet.predict_dataset(scenes, out, scheduler=scheduler)
                    rate = len(scenes) / (time.perf_counter() - began)
                    digests.add(digest(out))
                    if number:  # the first round warms up
                        rates.setdefault(way, []).append(rate)
        report(rates, len(scenes), len(digests))


def report(rates: dict[str, list[float]], scenes: int, digests: int) -> None:
    """Print the medians, the ratio round by round, and whether all bytes are the same."""
    load = os.getloadavg()[0]
    print(f"{scenes} scenes of {LARGE_PX} x {LARGE_PX}, load {load:.1f} on {os.cpu_count()} cores")
    for way, found in rates.items():
        print(f"  {way}: {statistics.median(found):.2f} scenes/s")
    ratios = [two / one for one, two in zip(rates["1 worker"], rates["2 workers"])]
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"  2 workers over 1: median {statistics.median(ratios):.2f} ({each})")
    print(f"  different sets of products by their bytes: {digests}")


if __name__ == "__main__":
    {"kill": kill, "dask": dask}[sys.argv[1]](*sys.argv[2:])
