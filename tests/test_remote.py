"""Addresses are read by ranges; those that fail are told in a sentence."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rasterio.shutil import copy

from cloudnet import remote
from cloudnet.commands import main
from cloudnet.errors import SceneError
from cloudnet.scene import Reading, open_scene
from cloudnet.spec import BANDS
from cloudnet.tiles import Window
from tests.helpers import write_scene_tif, write_vrt
from tests.server import Server, serving

ROWS, COLS = 1100, 1000


@pytest.fixture(scope="module")
def cog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    numbers = rng.integers(1, 9000, (ROWS, COLS, 4)).astype(np.uint16)
    folder = tmp_path_factory.mktemp("cog")
    plain = write_scene_tif(folder / "plain.tif", numbers)
    copy(plain, folder / "scene.tif", driver="COG", blocksize=256, compress="deflate")
    return folder / "scene.tif"


@pytest.fixture
def server(cog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote, "WAIT_S", 0.0)
    monkeypatch.setitem(remote.GDAL_SETTINGS, "retry_delay", "0.01")
    shutil.copy(cog, tmp_path / "scene.tif")
    with serving(tmp_path) as server:
        yield server


def refused(address: str, *words: str) -> None:
    with pytest.raises(SceneError) as caught, open_scene(address) as scene:
        scene.read()
    message = str(caught.value)
    assert "\n" not in message and "vsicurl" not in message
    for word in (address, *words):
        assert word in message


def test_a_cog_is_read_by_ranges(server: Server, tmp_path: Path) -> None:
    address = server.address("scene.tif")
    window = Window(500, 300, 20, 30)
    with open_scene(address) as scene, open_scene(tmp_path / "scene.tif") as same:
        np.testing.assert_array_equal(scene.read(window)[0], same.read(window)[0])
        assert (scene.name, scene.transform, scene.crs) == ("scene", same.transform, same.crs)
    size = (tmp_path / "scene.tif").stat().st_size
    assert server.sent < size / 3
    assert {path for path, _ in server.asked} == {"/scene.tif"}
    assert sum(not wanted for _, wanted in server.asked) <= 1  # how long it is, by HEAD


def test_at_20_m_the_overview_alone_is_fetched(server: Server, tmp_path: Path) -> None:
    with open_scene(server.address("scene.tif"), Reading(resolution_m=20)) as scene:
        assert (scene.rows, scene.cols, scene.pixel_m) == (550, 500, 20.0)
        scene.read()
    assert server.sent < (tmp_path / "scene.tif").stat().st_size / 2


def test_a_server_without_ranges(server: Server) -> None:
    server.ranges = False
    refused(server.address("scene.tif"), "no ranges", "download it first")


@pytest.mark.parametrize("status", [403, 404, 503])
def test_an_answer_that_is_none(server: Server, status: int) -> None:
    server.status = status
    refused(server.address("scene.tif"), f"answers {status}")
    assert len(server.asked) == (3 if status == 503 else 1)


def test_an_address_that_does_not_answer() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    refused(f"http://127.0.0.1:{port}/scene.tif", "does not answer", "refused")
    refused("http://127.0.0.1:99999/scene.tif", "does not answer")


def test_an_address_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(remote, "WAIT_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/scene.tif"
        refused(address, "does not answer", "timed out")


def test_an_address_that_breaks_off(server: Server) -> None:
    with open_scene(server.address("scene.tif")) as scene:
        server.most_bytes = 100
        with pytest.raises(SceneError, match="broke off") as caught:
            scene.read()
    assert server.address("scene.tif") in str(caught.value)


def test_an_address_of_something_else(server: Server, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html>" + "no image" * 1000)
    refused(server.address("page.html"), "is no readable image")


def test_an_address_of_a_file_that_takes_its_pixels_from_this_machine(
    server: Server, tmp_path: Path, cog: Path
) -> None:
    write_vrt(tmp_path / "vrt.tif", cog, (ROWS, COLS), BANDS)
    refused(server.address("vrt.tif"), "is of GDAL's kind VRT; a GeoTIFF or JPEG 2000 is due")
    with open_scene(tmp_path / "vrt.tif") as mine, open_scene(cog) as same:
        window = Window(500, 300, 20, 30)
        np.testing.assert_array_equal(mine.read(window)[0], same.read(window)[0])


def test_commands_take_addresses(server: Server, tmp_path: Path) -> None:
    address = server.address("scene.tif")
    shown = CliRunner().invoke(main, ["info", address])
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert f"scene ({address})" in shown.stdout
    out = tmp_path / "out"
    words = ["predict", address, "-o", str(out), "--resolution", "20"]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.stderr) == (0, "")
    assert (out / "scene_cloudmask.tif").exists()
    server.status = 404
    lost = CliRunner().invoke(main, ["info", server.address("other.tif")])
    assert (lost.exit_code, lost.stdout) == (2, "")
    assert lost.stderr.startswith(f"Error: {server.address('other.tif')} answers 404")
