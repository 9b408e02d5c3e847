"""Accuracy over speed: `python -m tests.benchmarks.front OUT.png ROWS.csv [SHIPPED ...]`.

A row of the table is `name,onnx,iou`, with a heading: a net's name, its file, its cloud IoU. Each
file is timed on one tile in interleaved rounds; names given after the table are marked.
"""

from __future__ import annotations

import csv
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cloudnet.runtime import open_session

ROUNDS = 9
TILE_PX = 1024


def main(output: str, table: str, *shipped: str) -> None:
    """Print the front and draw it."""
    with Path(table).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    speeds = megapixels_per_second([Path(row["onnx"]) for row in rows])
    points = [(row["name"], speed, float(row["iou"])) for row, speed in zip(rows, speeds)]
    for name, speed, iou in sorted(points, key=lambda point: point[1]):
        print(f"{name:32s} {speed:6.1f} MP/s   IoU {iou:.3f}")
    draw(points, shipped, Path(output))


def megapixels_per_second(paths: list[Path]) -> list[float]:
    """Return the median speed of each file on one tile."""
    sessions = [open_session(path.read_bytes()) for path in paths]
    tile = np.random.default_rng(0).uniform(0, 1, (1, TILE_PX, TILE_PX, 4)).astype(np.float32)
    seconds: list[list[float]] = [[] for _ in paths]
    for number in range(ROUNDS + 1):
        for session, taken in zip(sessions, seconds):
            began = time.perf_counter()
            session.run(None, {session.get_inputs()[0].name: tile})
            if number:
                taken.append(time.perf_counter() - began)
    return [TILE_PX**2 / 1e6 / statistics.median(taken) for taken in seconds]


def draw(points: list[tuple[str, float, float]], shipped: tuple[str, ...], path: Path) -> None:
    """Draw IoU over megapixels per second, the shipped nets filled."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, speed, iou in points:
        face = "tab:blue" if name in shipped else "white"
        axes.scatter(speed, iou, s=60, edgecolors="tab:blue", facecolors=face, zorder=2)
        axes.annotate(name, (speed, iou), xytext=(6, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="megapixels per second", ylabel="cloud IoU")
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
