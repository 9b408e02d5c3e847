"""The kind of ground is what the clear pixels show, unless it is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloudnet import terrain
from cloudnet.dataset import LabelledScene, open_dataset
from cloudnet.terrain import classify, measure_ground, tell_ground
from tests.helpers import make_dataset, write_labelled_scene

WATER = (0.04, 0.06, 0.09, 0.02)
FOREST = (0.05, 0.07, 0.08, 0.30)
CLOUD = (0.70, 0.71, 0.72, 0.75)


@pytest.mark.parametrize(
    ("reflectance", "kind"),
    [
        (WATER, "water"),
        ((0.13, 0.14, 0.12, 0.08), "water"),  # turbid
        (FOREST, "vegetation"),
        ((0.80, 0.82, 0.85, 0.75), "snow or ice"),
        ((0.45, 0.38, 0.30, 0.50), "bright ground"),  # sand
        ((0.45, 0.42, 0.38, 0.50), "bright ground"),  # a salt pan, brighter in red
        ((0.14, 0.13, 0.12, 0.19), "bare or sparse"),
    ],
)
def test_kinds_of_ground(reflectance: tuple[float, ...], kind: str) -> None:
    assert classify(reflectance) == kind


def scene_of(folder: Path, parts: list[tuple[int, tuple[float, ...], int]]) -> LabelledScene:
    """A scene of rows: how many, their reflectance, their label."""
    values = np.concatenate([np.full((rows, 8, 4), color) for rows, color, _ in parts])
    mask = np.concatenate([np.full((rows, 8), label) for rows, _, label in parts])
    return write_labelled_scene(folder, "scene", values.astype(np.float32), mask.astype(np.uint8))


def test_cloud_unlabelled_and_missing_pixels_have_no_say(tmp_path: Path) -> None:
    nothing = (0.0, 0.0, 0.0, 0.0)
    parts = [(10, CLOUD, 1), (9, FOREST, 255), (9, nothing, 0), (3, WATER, 0), (2, FOREST, 0)]
    assert measure_ground(scene_of(tmp_path, parts)) == "water"


def test_a_scene_is_measured_over_all_its_slabs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terrain, "SLAB_ROWS", 4)
    parts = [(6, WATER, 0), (7, FOREST, 0)]
    assert measure_ground(scene_of(tmp_path, parts)) == "vegetation"


def test_overcast_and_unlabelled(tmp_path: Path) -> None:
    nearly, just = ([(rows, CLOUD, 1), (1, WATER, 0), (9, WATER, 255)] for rows in (50, 49))
    assert measure_ground(scene_of(tmp_path / "a", nearly)) == "overcast"
    assert measure_ground(scene_of(tmp_path / "b", just)) == "water"
    assert measure_ground(scene_of(tmp_path / "c", [(4, WATER, 255)])) == "unlabelled"


def test_what_is_told_is_not_measured(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, scenes=2)
    (folder / "scenes.csv").write_text("scene,ground\nscene00, salt pan\nscene01,\n")
    dataset = open_dataset([folder])
    assert [scene.ground for scene in dataset.scenes] == ["salt pan", ""]
    assert [scene.ground for scene in tell_ground(dataset).scenes] == ["salt pan", "vegetation"]
