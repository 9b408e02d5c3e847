"""The probe: a few real tiles with Keras's own answers, which travel inside the ONNX file."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cloudnet.dataset import LabelledScene
from cloudnet.errors import ModelError, RunError
from cloudnet.files import whole_file
from cloudnet.tiles import Window

Tiles: TypeAlias = NDArray[np.float32]

PROBE_TILES = 4
PROBE_TILE_PX = 64

INT8_ATOL = 0.05
"""How far, in probability, an INT8 net may be from its own answers at publication.

Its sums are whole numbers and the same anywhere; where another kernel rounds one of them to the
next of 256 steps, later layers move by a step too. With every layer run as floats, which is as far
as a kernel can be from ours, it moved by up to 0.043 on any four real tiles of the probe's size."""

STEPS = 10_000
"""Probe tiles are kept as whole multiples of 1 / STEPS, as Sentinel-2 keeps reflectance."""

UNREADABLE = (OSError, EOFError, KeyError, TypeError, ValueError, BadZipFile, zlib.error)
"""What numpy raises of a damaged archive; a lone array in its place is no context: a TypeError."""


@dataclass(frozen=True)
class Probe:
    """Tiles and answers.

    Attributes
    ----------
    tiles
        (n, rows, cols, 4) float32 reflectance.
    answers
        What Keras says of them: (n, rows, cols, 1) float32 probability, or (n, 224, 224) uint8
        masks of the tiles brought to the fixed contract's shape.
    atol
        None where the answers are Keras's. An INT8 net differs from Keras by more than rounding;
        its probe holds what it said itself when it was published, and this is the largest
        difference of probability from that which passes.
    """

    tiles: Tiles
    answers: NDArray[Any]
    atol: float | None = None

    def to_text(self) -> str:
        """Return the probe as ASCII text for a metadata field."""
        buffer = io.BytesIO()
        numbers = np.round(self.tiles * STEPS).astype(np.uint16)
        arrays = {"tiles": numbers, "answers": self.answers}
        if self.atol is not None:
            arrays["atol"] = np.array(self.atol)
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # allow_pickle is no array
        return base64.b64encode(buffer.getvalue()).decode("ascii")

    @classmethod
    def from_text(cls, text: str, source: str) -> Probe:
        """Rebuild a probe; raises ModelError, naming `source`, where the text is damaged."""
        try:
            with np.load(io.BytesIO(base64.b64decode(text, validate=True))) as arrays:
                tiles, answers = _tiles_of(arrays), arrays["answers"]
                atol = float(arrays["atol"]) if "atol" in arrays else None
            if len(tiles) != len(answers):
                raise ValueError("tiles and answers do not belong together")
            if atol is not None and not 0.0 <= atol <= INT8_ATOL:
                raise ValueError("a file may not allow itself more than an INT8 net needs")
        except UNREADABLE as error:
            raise ModelError(f"{source}: its probe is damaged; export the model again") from error
        return cls(tiles, answers, atol)


def from_steps(numbers: NDArray[np.uint16]) -> Tiles:
    """Return reflectance of digital numbers of 1 / STEPS."""
    return numbers.astype(np.float32) / np.float32(STEPS)


def _tiles_of(arrays: Any) -> Tiles:
    """Return the tiles of an archive; raises ValueError where they are none."""
    numbers = arrays["tiles"]
    if numbers.ndim != 4 or numbers.dtype != np.uint16:
        raise ValueError("tiles are (n, rows, cols, bands) in whole steps")
    return from_steps(numbers)


def cut_probe_tiles(scenes: Sequence[LabelledScene], tile_px: int = PROBE_TILE_PX) -> Tiles:
    """Cut tiles out of the middle of scenes spread over their order from clear to overcast.

    Parameters
    ----------
    scenes
        Labelled scenes, sorted by what the tiles are to differ in.
    tile_px
        Side of a tile in pixels; smaller scenes are mirrored to that size.

    Returns
    -------
    (n, tile_px, tile_px, 4) float32 reflectance, in whole steps of 1 / STEPS.
    """
    chosen = np.unique(np.linspace(0, len(scenes) - 1, PROBE_TILES).round().astype(int))
    tiles = []
    for index in chosen:
        scene = scenes[index]
        row, col = (max(length - tile_px, 0) // 2 for length in (scene.rows, scene.cols))
        window = Window(row, col, tile_px, tile_px).clip(scene.rows, scene.cols)
        with scene.open() as source:
            reflectance, _ = source.read(window)
        missing = [(0, tile_px - window.rows), (0, tile_px - window.cols), (0, 0)]
        tiles.append(np.pad(reflectance, missing, mode="symmetric"))
    numbers = np.clip(np.round(np.stack(tiles) * STEPS), 0, np.iinfo(np.uint16).max)
    return from_steps(numbers.astype(np.uint16))


def write_probe_tiles(path: Path, tiles: Tiles) -> None:
    """Write probe tiles, whole or not at all."""
    with whole_file(path) as scratch:
        np.savez_compressed(scratch, tiles=np.round(tiles * STEPS).astype(np.uint16))


def read_probe_tiles(path: Path) -> Tiles:
    """Read what `write_probe_tiles` wrote; raises RunError where it is missing or damaged."""
    try:
        # Opened here, since numpy leaves a file open that is no archive.
        with path.open("rb") as file, np.load(file) as arrays:
            return _tiles_of(arrays)
    except UNREADABLE as error:
        raise RunError(f"{path} is missing or damaged; train the run again") from error
