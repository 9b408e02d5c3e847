"""Bench: each setting is measured, the recommendation is one of them, nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cloudnet.bench import STAGES, Bench, Speed, generate_scene, peak_mb, run_bench
from cloudnet.commands import main
from cloudnet.cores import usable_cores
from cloudnet.errors import ModelError
from cloudnet.scene import open_scene
from cloudnet.spec import BANDS


def bench_of(*speeds: Speed) -> Bench:
    return Bench(10, 10, 2, speeds, {"net": dict.fromkeys(STAGES, 1.0)}, {"net": None})


def test_the_fastest_is_recommended_and_of_equals_the_chosen_tile_with_fewest_threads() -> None:
    chosen, fewer = Speed("net", 2, None, 9.9), Speed("net", 1, None, 9.8)
    fast, other = Speed("net", 1, 512, 10.0), Speed("other", 1, None, 99.0)
    assert bench_of(fast, chosen, fewer, other).best("net") == fewer
    fastest = Speed("net", 2, 512, 20.0)
    assert bench_of(fast, fastest, chosen, other).best("net") == fastest


def test_a_generated_scene_is_a_scene_that_tells_all(tmp_path: Path) -> None:
    with open_scene(generate_scene(tmp_path / "scene.tif", 100)) as scene:
        assert scene.units_told
        reflectance, valid = scene.read()
    assert reflectance.shape == (100, 100, len(BANDS))
    assert valid.all()
    assert np.ptp(reflectance) > 0.1


def test_all_settings_are_measured(tiny_onnx: Path, geotiff_dataset: Path) -> None:
    scene = geotiff_dataset / "scenes" / "scene00.tif"
    shares: list[float] = []
    found = run_bench([str(tiny_onnx)], scene, rounds=1, on_step=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    with open_scene(scene) as opened:
        assert (found.rows, found.cols) == (opened.rows, opened.cols)
    settings = {(speed.threads, speed.tile_px) for speed in found.speeds}
    assert {(threads, None) for threads in (1, usable_cores())} <= settings
    assert all(speed.megapixels_s > 0 for speed in found.speeds)
    assert list(found.stages[str(tiny_onnx)]) == list(STAGES)
    assert all(seconds > 0 for seconds in found.stages[str(tiny_onnx)].values())
    peak = found.peak_mb[str(tiny_onnx)]
    assert peak is None or 30 < peak < 2000


def test_the_command_prints_tables_or_json(tiny_onnx: Path, geotiff_dataset: Path) -> None:
    scene = geotiff_dataset / "scenes" / "scene00.tif"
    words = ["bench", str(scene), "-m", str(tiny_onnx), "--rounds", "1"]
    shown = CliRunner().invoke(main, words)
    assert shown.exit_code == 0, shown.output
    assert "recommended: --threads" in shown.output
    assert "read and decode" in shown.output
    as_json = CliRunner().invoke(main, [*words, "--json"])
    assert as_json.exit_code == 0, as_json.output
    printed = json.loads(as_json.output)
    assert printed["recommended"][str(tiny_onnx)] in printed["speeds"]


def test_what_a_file_does_not_tell_is_given_by_options(tiny_onnx: Path, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(500, 4000, (40, 48, 4)).astype(np.uint16)
    scene = tmp_path / "scene.npy"
    np.save(scene, numbers)
    words = ["bench", str(scene), "-m", str(tiny_onnx), "--rounds", "1"]
    untold = CliRunner().invoke(main, words)
    assert untold.exit_code == 2
    assert "--scale" in untold.stderr
    told = CliRunner().invoke(main, [*words, "--scale", "0.0001", "--bands", "1,2,3,4"])
    assert told.exit_code == 0, told.output
    assert "40 x 48 pixels" in told.output


def test_bad_input_is_a_sentence(tiny_onnx: Path, tmp_path: Path) -> None:
    for words in (
        ["bench", str(tmp_path / "no.tif"), "-m", str(tiny_onnx)],
        ["bench", "-m", str(tmp_path / "no.onnx")],
        ["bench", "-m", str(tiny_onnx), "--provider", "cuda"],
    ):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1


def test_a_process_that_fails_says_why(tiny_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"in a process of its own .*does not exist"):
        peak_mb(str(tiny_onnx), tmp_path / "no.tif")
