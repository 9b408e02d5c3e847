"""Contact sheets show each scene beside its mask, the right way round, on a bounded sheet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from cloudnet.dataset import DataSet, LabelCounts, open_dataset
from cloudnet.errors import CloudnetError, MissingExtraError, OutputError
from cloudnet.files import quiet
from cloudnet.quicklook import NO_DATA_COLOR, true_color
from cloudnet.sheet import (
    BACKGROUND,
    GAP_PX,
    MASK_COLORS,
    MOST_SCENES,
    THUMB_PX,
    Layout,
    choose_evenly,
    draw_sheet,
    paint_mask,
    thumbnails,
)
from cloudnet.tiles import Window

Array = NDArray[Any]
Save = Callable[..., DataSet]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Return a function that saves scenes and masks, and opens all that were saved."""

    def save(name: str, reflectance: Array, mask: Array) -> DataSet:
        folder = tmp_path / "data"
        for kind in ("scenes", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        np.save(folder / "scenes" / f"{name}.npy", reflectance.astype(np.float32))
        np.save(folder / "masks" / f"{name}.npy", mask.astype(np.uint8))
        return open_dataset([folder])

    return save


def lopsided(rows: int, cols: int) -> tuple[Array, Array]:
    """Return a scene that is red in its upper left part alone, and a mask with cloud there."""
    reflectance = np.full((rows, cols, 4), 0.2)
    mask = np.zeros((rows, cols))
    reflectance[: rows // 2, : cols // 4] = (0.8, 0.02, 0.02, 0.3)
    mask[: rows // 2, : cols // 4] = 1
    mask[-rows // 4 :, -cols // 4 :] = 255
    return reflectance, mask


def read_png(path: Path) -> Array:
    with quiet(NotGeoreferencedWarning), rasterio.open(path) as source:
        return np.asarray(source.read().transpose(1, 2, 0)[..., :3])


def test_a_thumbnail_is_the_scene_thinned(save: Save) -> None:
    reflectance, mask = lopsided(600, 300)
    reflectance[580:, :100] = np.nan
    (scene,) = save("tall", reflectance, mask).scenes
    picture, thumb, counts = thumbnails(scene, 60)
    assert picture.shape == (60, 30, 3)
    assert counts == LabelCounts(600 * 300 - 300 * 75 - 150 * 75, 300 * 75, 150 * 75)
    assert picture[29, 6].tolist() == [255, 0, 0]
    assert picture[30, 6].tolist() == picture[29, 8].tolist()
    assert picture[59, 0].tolist() == list(NO_DATA_COLOR)
    # Labels are missing there, the colour is not.
    assert (
        picture[59, 29].tolist() == true_color(np.full((1, 1, 4), 0.2, np.float32))[0, 0].tolist()
    )
    assert (thumb[29, 6], thumb[30, 6], thumb[29, 8], thumb[59, 29]) == (1, 0, 0, 255)


def test_a_scene_is_never_read_whole(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudnet.npy import NpyScene

    (scene,) = save("long", np.full((1300, 4, 4), 0.2), np.zeros((1300, 4))).scenes
    rows: list[int] = []
    read = NpyScene.read

    def spy(self: NpyScene, window: Window | None = None) -> tuple[Array, Array]:
        assert window is not None
        rows.append(window.rows)
        return read(self, window)

    monkeypatch.setattr(NpyScene, "read", spy)
    thumbnails(scene, 50)
    assert sum(rows) == 1300
    assert max(rows) <= 256


def test_masks_are_painted_in_colours_that_differ() -> None:
    painted = paint_mask(np.array([[0, 1, 255]], dtype=np.uint8))
    assert painted.tolist() == [[list(MASK_COLORS[value]) for value in (0, 1, 255)]]
    colors = [*MASK_COLORS.values(), NO_DATA_COLOR, BACKGROUND]
    assert len(set(colors)) == len(colors)
    assert MASK_COLORS[1] == (255, 255, 255)


@pytest.mark.parametrize("count", [1, 2, 3, 44, 153, MOST_SCENES])
def test_cells_do_not_overlap_and_lie_on_the_sheet(count: int) -> None:
    layout = Layout.of(count)
    taken = np.zeros((layout.height, layout.width), dtype=np.uint8)
    for index in range(count):
        row, col = layout.corner(index)
        assert row >= 0 and row + layout.cell_height <= layout.height
        assert col >= 0 and col + layout.cell_width <= layout.width
        taken[row : row + layout.cell_height, col : col + layout.cell_width] += 1
    assert taken.max() == 1
    assert THUMB_PX[0] <= layout.thumb_px <= THUMB_PX[1]
    assert max(layout.width, layout.height) < 4000


def test_of_many_scenes_some_are_chosen_evenly(save: Save) -> None:
    scenes = [save("one", *lopsided(8, 8)).scenes[0]] * 3
    assert choose_evenly(scenes, 3) == scenes
    numbered = list(range(101))
    assert choose_evenly(numbered, 5) == [0, 25, 50, 75, 100]
    assert len(set(choose_evenly(numbered, 100))) == 100
    assert choose_evenly(numbered, 1) == [0]


def test_the_sheet_shows_scene_beside_mask_the_right_way_round(save: Save, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save("a_wide", *lopsided(160, 320))
    dataset = save("b_tall", *lopsided(320, 160))
    calls: list[tuple[int, int]] = []
    path = tmp_path / "out" / "sheet.png"
    draw_sheet(dataset, path, on_scene=lambda done, of: calls.append((done, of)))
    assert calls == [(1, 2), (2, 2)]
    assert list(path.parent.iterdir()) == [path]
    sheet, layout = read_png(path), Layout.of(2)
    assert sheet.shape == (layout.height, layout.width, 3)
    side = layout.thumb_px
    for index, (rows, cols) in enumerate([(160, 320), (320, 160)]):
        row, col = layout.corner(index)
        (scene, mask) = (
            sheet[row : row + side, left : left + side] for left in (col, col + side + GAP_PX)
        )
        top, left = (side - rows * side // 320) // 2, (side - cols * side // 320) // 2
        assert scene[top + 3, left + 3].tolist() == [255, 0, 0]
        assert mask[top + 3, left + 3].tolist() == list(MASK_COLORS[1])
        assert mask[top + 3, side - left - 4].tolist() == list(MASK_COLORS[0])
        assert mask[side - top - 4, left + 3].tolist() == list(MASK_COLORS[0])
        assert mask[side - top - 4, side - left - 4].tolist() == list(MASK_COLORS[255])
        if top:
            assert scene[top - 3, side // 2].tolist() == list(BACKGROUND)
        if left:
            assert scene[side // 2, left - 3].tolist() == list(BACKGROUND)


def test_a_scene_of_one_pixel_is_enlarged(save: Save, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    dataset = save("dot", np.full((1, 1, 4), 0.8), np.ones((1, 1)))
    draw_sheet(dataset, tmp_path / "sheet.png")
    row, col = Layout.of(1).corner(0)
    side = Layout.of(1).thumb_px
    assert (read_png(tmp_path / "sheet.png")[row : row + side, col : col + side] == 255).all()


def test_what_is_written_on_the_sheet(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    words: list[str] = []
    text = figures.Figure.text

    def spy(self: Any, x: float, y: float, content: str, **options: Any) -> Any:
        assert 0 <= x <= 1 and 0 <= y <= 1
        words.append(content)
        return text(self, x, y, content, **options)

    monkeypatch.setattr(figures.Figure, "text", spy)
    for index in range(4):
        dataset = save(f"scene_{index}_$_$_" + "long" * 40 + f"_end{index}", *lopsided(8, 8))
    save("z_雲", np.full((2, 2, 4), 0.2), np.full((2, 2), 255))
    dataset = save("z_last", *lopsided(8, 8))
    draw_sheet(dataset, tmp_path / "sheet.png", most=3)
    assert "3 of 6 labelled scenes, evenly chosen" in words
    assert {"clear", "cloud", "unlabelled", "no data"} <= set(words)
    first = next(line for line in words if line.startswith("scene_0_$_$"))
    name, facts = first.splitlines()
    assert "…" in name and name.endswith("_end0") and len(name) < 160
    # 8 of 60 labelled pixels are cloud, 4 of 64 are unlabelled.
    assert facts == "cloud 13% · unlabelled 6% · 8 x 8"
    words.clear()
    draw_sheet(dataset, tmp_path / "sheet.png")
    assert "6 labelled scenes" in words
    assert any(line.startswith("z_雲\nno labels · unlabelled 100%") for line in words)


def test_a_scene_that_cannot_be_read_leaves_the_last_sheet(save: Save, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save("a", *lopsided(8, 8))
    dataset = save("b", *lopsided(8, 8))
    path = tmp_path / "sheet.png"
    path.write_bytes(b"the last one")
    scene = tmp_path / "data" / "scenes" / "b.npy"
    scene.write_bytes(scene.read_bytes()[:-50])
    with pytest.raises(CloudnetError, match=r"b\.npy"):
        draw_sheet(dataset, path)
    assert path.read_bytes() == b"the last one"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["data", "sheet.png"]


def test_a_sheet_that_cannot_be_written_is_one_sentence(save: Save, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    dataset = save("a", *lopsided(8, 8))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"sheet\.png cannot be written"):
        draw_sheet(dataset, tmp_path / "file" / "sheet.png")
    with pytest.raises(OutputError, match=r"ends in \.png"):
        draw_sheet(dataset, tmp_path / "sheet.jpg")


def test_without_matplotlib_the_install_line_is_named(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = save("a", *lopsided(8, 8))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'pip install "cloudnet\[train\]"'):
        draw_sheet(dataset, tmp_path / "sheet.png")


def test_pyplot_and_its_global_state_are_left_alone(save: Save, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save("a", *lopsided(8, 8))
    code = (
        "import sys, pathlib, cloudnet.dataset, cloudnet.sheet\n"
        "data, out = map(pathlib.Path, sys.argv[1:])\n"
        "assert 'matplotlib' not in sys.modules\n"
        "cloudnet.sheet.draw_sheet(cloudnet.dataset.open_dataset([data]), out)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "data"), str(tmp_path / "sheet.png")]
    assert subprocess.run(arguments, check=False, capture_output=True).stderr == b""
    assert (tmp_path / "sheet.png").exists()
