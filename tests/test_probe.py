"""The probe: it travels as text without losing a bit, and shows damage."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloudnet.dataset import LabelledScene
from cloudnet.errors import ModelError, RunError
from cloudnet.probe import (
    STEPS,
    Probe,
    cut_probe_tiles,
    from_steps,
    read_probe_tiles,
    write_probe_tiles,
)
from tests.helpers import lopsided_scene, write_mask_npy, write_scene_npy

EVERY_STEP = np.arange(2**16, dtype=np.uint16).reshape(4, 64, 64, 4)
ANSWERS = np.random.default_rng(5).random((4, 64, 64, 1), dtype=np.float32)


def pack(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize("answers", [ANSWERS, (ANSWERS[..., 0] > 0.5).astype(np.uint8)])
def test_a_probe_comes_back_from_its_text_to_the_last_bit(answers: NDArray[Any]) -> None:
    probe = Probe(from_steps(EVERY_STEP), answers)
    text = probe.to_text()
    assert text.isascii() and "\n" not in text
    again = Probe.from_text(text, "a.onnx")
    np.testing.assert_array_equal(again.tiles, probe.tiles)
    np.testing.assert_array_equal(again.answers, answers)
    assert again.tiles.dtype == np.float32 and again.answers.dtype == answers.dtype
    assert again.tiles.max() == np.float32(6.5535)


def plain_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, EVERY_STEP)
    return buffer.getvalue()


WHOLE = pack(tiles=EVERY_STEP[:1, :8, :8], answers=ANSWERS[:1, :8, :8])
DAMAGED: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "junk": lambda: b"no archive",
    "the first half": lambda: WHOLE[: len(WHOLE) // 2],
    "all but the end": lambda: WHOLE[:-30],
    "a flipped bit": lambda: WHOLE[:90] + bytes([WHOLE[90] ^ 4]) + WHOLE[91:],
    "a plain array": plain_array,
    "no answers": lambda: pack(tiles=EVERY_STEP),
    "no tiles": lambda: pack(answers=ANSWERS),
    "floats for tiles": lambda: pack(tiles=EVERY_STEP / 1e4, answers=ANSWERS),
    "a single tile": lambda: pack(tiles=EVERY_STEP[0], answers=ANSWERS[0]),
    "fewer answers": lambda: pack(tiles=EVERY_STEP, answers=ANSWERS[:2]),
    "objects": lambda: pack(tiles=EVERY_STEP, answers=np.array([{}, {}, {}, {}])),
}


OF_ANSWERS = ("no answers", "fewer answers", "objects")


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_text_is_an_error_that_names_the_file(damage: str) -> None:
    text = base64.b64encode(DAMAGED[damage]()).decode()
    with pytest.raises(ModelError, match=r"^a\.onnx: its probe is damaged; export the model again"):
        Probe.from_text(text, "a.onnx")


@pytest.mark.parametrize("text", ["no base 64!", "ünicode", "AAA"])
def test_text_that_is_no_base64_is_an_error_that_names_the_file(text: str) -> None:
    with pytest.raises(ModelError, match=r"^a\.onnx: its probe is damaged"):
        Probe.from_text(text, "a.onnx")


def test_probe_tiles_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "run" / "probe_tiles.npz"
    write_probe_tiles(path, from_steps(EVERY_STEP))
    np.testing.assert_array_equal(read_probe_tiles(path), from_steps(EVERY_STEP))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "damage", ["missing", *(name for name in DAMAGED if name not in OF_ANSWERS)]
)
def test_a_damaged_file_of_probe_tiles_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "probe_tiles.npz"
    if damage != "missing":
        path.write_bytes(DAMAGED[damage]())
    with pytest.raises(RunError, match="is missing or damaged; train the run again") as caught:
        read_probe_tiles(path)
    assert str(path) in str(caught.value)


def write_scenes(folder: Path, sizes: list[tuple[int, int]]) -> list[LabelledScene]:
    """Scenes as the data set gives them, each of another brightness."""
    scenes = []
    for number, (rows, cols) in enumerate(sizes):
        values = lopsided_scene(rows, cols) + np.float32(0.05 * number)
        name = f"scene{number}"
        path = write_scene_npy(folder / "scenes" / f"{name}.npy", values)
        mask = write_mask_npy(folder / "masks" / f"{name}.npy", np.zeros((rows, cols), np.uint8))
        scenes.append(LabelledScene(name, path, mask, rows, cols, name))
    return scenes


def in_steps(reflectance: NDArray[np.float32]) -> NDArray[np.float32]:
    return (np.round(reflectance * STEPS) / STEPS).astype(np.float32)


def test_tiles_come_from_the_middle_of_scenes_spread_over_their_order(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path, [(20, 31)] * 10)
    tiles = cut_probe_tiles(scenes, 8)
    assert tiles.shape == (4, 8, 8, 4) and tiles.dtype == np.float32
    for tile, number in zip(tiles, (0, 3, 6, 9), strict=True):
        whole = lopsided_scene(20, 31) + np.float32(0.05 * number)
        np.testing.assert_array_equal(tile, in_steps(whole[6:14, 11:19]))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_scenes_than_tiles_give_a_tile_each(tmp_path: Path, count: int) -> None:
    tiles = cut_probe_tiles(write_scenes(tmp_path, [(9, 9)] * count), 8)
    assert len(tiles) == count
    assert len({tile.tobytes() for tile in tiles}) == count


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (20, 3), (5, 6)])
def test_a_small_scene_is_mirrored_to_the_size_of_a_tile(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    tile = cut_probe_tiles(write_scenes(tmp_path, [size]), 8)[0]
    row, col = (max(length - 8, 0) // 2 for length in size)
    part = lopsided_scene(*size)[row : row + 8, col : col + 8]

    def mirror(length: int) -> NDArray[np.int64]:
        index = np.arange(8) % (2 * length)
        return np.where(index < length, index, 2 * length - 1 - index)

    mirrored = part[np.ix_(mirror(part.shape[0]), mirror(part.shape[1]))]
    np.testing.assert_array_equal(tile, in_steps(mirrored))


def test_reflectance_out_of_the_steps_is_clipped(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path, [(8, 8)])
    values = lopsided_scene(8, 8)
    values[0, 0], values[1, 1] = -0.2, 9.0
    np.save(scenes[0].scene_path, values)
    tile = cut_probe_tiles(scenes, 8)[0]
    assert (tile[0, 0] == 0).all() and (tile[1, 1] == np.float32(6.5535)).all()
