"""Calibration: tiles that show all kinds of ground and cloud that labelled scenes hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloudnet.dataset import DataSet, LabelledScene, Mask
from cloudnet.errors import DatasetError
from cloudnet.mosaic import pad_mirrored
from cloudnet.spec import CLOUD, NO_DATA
from cloudnet.tiles import Window, grid, round_up

Tiles: TypeAlias = NDArray[np.float32]
"""Reflectance (n, side, side, 4)."""

CALIBRATION_TILES = 64
CALIBRATION_TILE_PX = 128
BATCH = 8
SEED = 20182

UNLABELLED, CLEAR, MIXED, OVERCAST = range(4)
BRIGHTNESS_BINS = 4


@dataclass(frozen=True)
class _Candidate:
    """A window that may become a calibration tile: its scene, cover and brightness."""

    scene: LabelledScene
    window: Window
    cover: int
    brightness: float


def calibration_tiles(dataset: DataSet, stride: int, count: int = CALIBRATION_TILES) -> Tiles:
    """Read tiles of all kinds of cover and brightness, spread over the scenes.

    Windows are drawn from every scene, none of which is held, and sorted into clear, mixed,
    overcast and unlabelled, each from dark to bright in four parts; tiles are then taken from these
    in turn.

    Returns
    -------
    (n, side, side, 4) float32 reflectance, n at most `count`, side a multiple of `stride`.

    Raises
    ------
    DatasetError
        When no scene has data.
    """
    rng = np.random.default_rng(SEED)
    side = round_up(CALIBRATION_TILE_PX, stride)
    each = max(4, ceil(4 * count / len(dataset.scenes)))
    drawn = [_draw_windows(scene, side, each, rng) for scene in dataset.scenes]
    candidates = [candidate for part in drawn for candidate in part]
    if not candidates:
        raise DatasetError("no scene holds enough data to calibrate on; give other scenes")
    tiles = []
    for candidate in _take_in_turn(_stratify(candidates, rng), count):
        with candidate.scene.open() as source:
            reflectance, _ = source.read(candidate.window)
        tiles.append(pad_mirrored(reflectance, side, side))
    return np.stack(tiles)


def _draw_windows(
    scene: LabelledScene, side: int, count: int, rng: np.random.Generator
) -> list[_Candidate]:
    """Draw windows of a scene without holding it; those mostly without data count for nothing."""
    windows = [tile.read for tile in grid(scene.rows, scene.cols, side, 0)]
    drawn = rng.permutation(len(windows))[:count]
    candidates = []
    with scene.open() as source:
        for window in (windows[number] for number in sorted(drawn)):
            reflectance, valid = source.read(window)
            if valid.mean() > 0.5:
                cover = _cover(scene.read_mask(window))
                brightness = float(reflectance[valid][:, :3].mean())
                candidates.append(_Candidate(scene, window, cover, brightness))
    return candidates


def _cover(mask: Mask) -> int:
    """Return what labels say of a window."""
    labelled = mask != NO_DATA
    if labelled.mean() < 0.5:
        return UNLABELLED
    share = np.count_nonzero(mask == CLOUD) / np.count_nonzero(labelled)
    return CLEAR if share < 0.05 else OVERCAST if share > 0.95 else MIXED


def _stratify(candidates: Sequence[_Candidate], rng: np.random.Generator) -> list[list[_Candidate]]:
    """Return the candidates by cover and brightness, each part in random order."""
    strata = []
    for cover in (UNLABELLED, CLEAR, MIXED, OVERCAST):
        alike = [candidate for candidate in candidates if candidate.cover == cover]
        alike.sort(key=lambda candidate: candidate.brightness)
        for part in np.array_split(np.arange(len(alike)), BRIGHTNESS_BINS):
            strata.append([alike[number] for number in rng.permutation(part)])
    return strata


def _take_in_turn(strata: list[list[_Candidate]], count: int) -> list[_Candidate]:
    """Take one from each stratum in turn, until there are enough or none is left."""
    longest = max(map(len, strata))
    turns = (part[turn] for turn in range(longest) for part in strata if turn < len(part))
    return [candidate for candidate, _ in zip(turns, range(count))]


def batches(tiles: Tiles) -> list[Tiles]:
    """Return tiles in parts of `BATCH`, the last of which may be shorter."""
    return [tiles[start : start + BATCH] for start in range(0, len(tiles), BATCH)]
