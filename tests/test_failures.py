"""The picture of failures shows the worst scenes first, each error in its place and colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloudnet.dataset import DataSet
from cloudnet.evaluate import ModelMasks, StoredMasks, evaluate
from cloudnet.failures import (
    COLORS,
    FALSE_CLOUD,
    HIT,
    KEY,
    MISSED,
    RIGHT_CLEAR,
    UNSCORED,
    draw_failures,
    failure,
    worst_scenes,
)
from cloudnet.quicklook import NO_DATA_COLOR
from cloudnet.sheet import GAP_PX, Layout
from tests.helpers import write_labelled_scene
from tests.test_evaluate import bright_model
from tests.test_sheet import read_png

NAN = float("nan")


def dataset(folder: Path, **scenes: tuple[object, object]) -> DataSet:
    """Scenes by name: the red band, which the model takes for the probability, and the labels."""
    pairs = []
    for name, (red, mask) in scenes.items():
        values = np.repeat(np.asarray(red, dtype=np.float32)[..., np.newaxis], 4, axis=2)
        pairs.append(write_labelled_scene(folder, name, values, np.asarray(mask, dtype=np.uint8)))
    return DataSet(tuple(pairs))


def test_every_error_in_its_place(tmp_path: Path) -> None:
    data = dataset(tmp_path, a=([[0.9, 0.1, 0.9], [0.1, 0.9, NAN]], [[1, 0, 0], [1, 255, 1]]))
    colors, errors = failure(data.scenes[0], ModelMasks(bright_model()), 0.5)
    assert errors.tolist() == [[HIT, RIGHT_CLEAR, FALSE_CLOUD], [MISSED, UNSCORED, UNSCORED]]
    assert colors[1, 2].tolist() == list(NO_DATA_COLOR)
    assert colors[0, 0].tolist() == [255, 255, 255]
    # As the scene was scored, at another threshold than the model's own.
    _, errors = failure(data.scenes[0], ModelMasks(bright_model()), 0.05)
    assert errors.tolist() == [[HIT, FALSE_CLOUD, FALSE_CLOUD], [HIT, UNSCORED, UNSCORED]]


def test_the_stretch_is_the_scenes_own(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0.1, 1.0, 50), (2, 1))
    snow, dark = dataset(tmp_path, a=(ramp, ramp > 2), b=(0.3 * ramp, ramp > 2)).scenes
    masks = ModelMasks(bright_model())
    bright, low = (failure(scene, masks, 0.5)[0] for scene in (snow, dark))
    assert bright[0, 44, 0] < 255  # a reflectance of 0.9
    assert bright[0, -1, 0] > 250
    assert 200 < low[0, -1, 0] < 250  # of 0.3, where white is 0.4


def test_a_large_scene_is_thinned_part_by_part(tmp_path: Path) -> None:
    rows, cols = np.mgrid[:1301, :700]
    red = 0.1 + 0.8 * ((rows // 8 + cols // 50) % 2)
    data = dataset(tmp_path, a=(red, cols > 300))
    _, errors = failure(data.scenes[0], ModelMasks(bright_model()), 0.5)
    kinds = np.array([[RIGHT_CLEAR, FALSE_CLOUD], [MISSED, HIT]])
    wanted = kinds[(cols > 300).astype(int), (red > 0.5).astype(int)]
    assert errors.tolist() == wanted[::3, ::3].tolist()


def test_the_worst_come_first_and_the_faultless_not_at_all(tmp_path: Path) -> None:
    data = dataset(
        tmp_path,
        good=([[0.9, 0.1]], [[1, 0]]),
        bad=([[0.9, 0.1]], [[0, 0]]),
        worse=([[0.9, 0.1]], [[0, 1]]),
    )
    evaluation = evaluate(data, ModelMasks(bright_model()))
    assert [scene.name for scene, _ in worst_scenes(data, evaluation)] == ["worse", "bad"]
    assert [scene.name for scene, _ in worst_scenes(data, evaluation, 1)] == ["worse"]


@pytest.mark.parametrize("stored", [False, True])
def test_the_picture(tmp_path: Path, stored: bool) -> None:
    pytest.importorskip("matplotlib")
    wide = np.tile([[0.9, 0.1, 0.9, 0.1]], (2, 1))
    one, two = ([1, 0, 0, 0], [0, 1, 255, 0])
    data = dataset(tmp_path, one=(wide, np.tile([one], (2, 1))), two=(wide, np.tile([two], (2, 1))))
    for name in ("one", "two"):
        np.save(tmp_path / f"{name}.npy", np.uint8(wide > 0.5))
    masks = StoredMasks(data, tmp_path) if stored else ModelMasks(bright_model())
    path = tmp_path / "worst.png"
    calls: list[tuple[int, int]] = []
    draw_failures(
        data,
        evaluate(data, masks),
        masks,
        path,
        on_scene=lambda done, of: calls.append((done, of)),
    )
    assert calls == [(1, 2), (2, 2)]
    picture, layout = read_png(path), Layout.of(2)
    first = [FALSE_CLOUD, MISSED, UNSCORED, RIGHT_CLEAR]
    second = [HIT, RIGHT_CLEAR, FALSE_CLOUD, RIGHT_CLEAR]
    for index, wanted in enumerate((first, second)):
        row, col = layout.corner(index)
        middle, left = row + layout.thumb_px // 2, col + layout.thumb_px + GAP_PX
        seen = [picture[middle, left + layout.thumb_px * (2 * n + 1) // 8] for n in range(4)]
        assert [color.tolist() for color in seen] == COLORS[wanted].tolist()


def test_the_picture_is_at_the_threshold_of_the_scores(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data = dataset(tmp_path, a=(np.full((4, 4), 0.3), np.zeros((4, 4))))
    low = evaluate(data, ModelMasks(bright_model(), 0.2))
    draw_failures(data, low, ModelMasks(bright_model()), tmp_path / "worst.png")
    layout = Layout.of(1)
    row, col = layout.corner(0)
    middle = (row + layout.thumb_px // 2, col + GAP_PX + layout.thumb_px * 3 // 2)
    assert read_png(tmp_path / "worst.png")[middle].tolist() == COLORS[FALSE_CLOUD].tolist()


def test_the_key_is_of_the_colours() -> None:
    assert [list(color) for _, color in KEY] == COLORS.tolist()
    assert len({color for _, color in KEY}) == len(KEY)
