"""Calibration tiles show all that the data hold, and fit the net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloudnet.calibration import calibration_tiles
from cloudnet.dataset import DataSet
from cloudnet.errors import DatasetError
from cloudnet.scene import Scene
from cloudnet.tiles import Window
from tests.helpers import lopsided_scene, write_labelled_scene


@pytest.fixture
def varied(tmp_path: Path) -> DataSet:
    """Scenes of 300 px: overcast, clear or unlabelled, each of another brightness; one black."""
    scenes = []
    for number, kind in enumerate([0, 1, 255] * 4):
        values = np.full((300, 300, 4), 0.02 + 0.05 * number, dtype=np.float32)
        mask = np.full((300, 300), kind, dtype=np.uint8)
        scenes.append(write_labelled_scene(tmp_path, f"s{number:02d}", values, mask))
    nothing = np.zeros((300, 300, 4), np.float32)
    scenes.append(write_labelled_scene(tmp_path, "void", nothing, np.zeros((300, 300))))
    return DataSet(tuple(scenes))


def test_calibration_tiles_show_all_that_the_data_hold(
    varied: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows: list[Window] = []
    read = Scene.read

    def spy(scene: Scene, window: Window) -> tuple[Any, Any]:
        windows.append(window)
        return read(scene, window)

    monkeypatch.setattr(Scene, "read", spy)
    tiles = calibration_tiles(varied, 16, 12)
    assert tiles.shape == (12, 128, 128, 4) and tiles.dtype == np.float32
    levels = np.unique(tiles.round(3))
    np.testing.assert_allclose(levels, 0.02 + 0.05 * np.arange(12), atol=1e-3)
    assert max(max(window.rows, window.cols) for window in windows) == 128
    np.testing.assert_array_equal(calibration_tiles(varied, 16, 12), tiles)


def test_calibration_tiles_fit_the_stride_and_small_scenes(tmp_path: Path) -> None:
    scene = lopsided_scene(70, 200)
    small = DataSet((write_labelled_scene(tmp_path, "small", scene, np.zeros((70, 200))),))
    tiles = calibration_tiles(small, 48)
    assert tiles.shape[1:] == (144, 144, 4)
    assert 2 <= len(tiles) <= 4
    np.testing.assert_array_equal(tiles[:, 70:140], tiles[:, 69::-1])


def test_data_without_data_are_refused(varied: DataSet) -> None:
    with pytest.raises(DatasetError, match="no scene holds enough data"):
        calibration_tiles(DataSet(varied.scenes[-1:]), 16)
