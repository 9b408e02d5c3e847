"""Batches: each scene is predicted once, whatever is broken, killed or in the way."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cloudnet import predict_dataset
from cloudnet.batch import Spread
from cloudnet.claims import TAKEN, Claim, claim_path
from cloudnet.commands import main
from cloudnet.errors import CloudnetError, ComparisonError, OutputError
from cloudnet.lock import lock_path
from cloudnet.manifest import DONE, FAILED, SKIPPED, Manifest, Record
from cloudnet.predict import PredictOptions
from cloudnet.product import Outputs
from cloudnet.reading import Reading
from cloudnet.shipped import find_model
from cloudnet.task import scene_stamp
from tests.helpers import cloudy_scene, write_scene_tif
from tests.products import lopsided_numbers, write_loose
from tests.test_compare import tampered

ROOT = Path(__file__).parents[1]
NAMES = ("a", "b", "c", "d")
PLAIN = PredictOptions(quicklook=False)


@pytest.fixture(scope="session")
def net() -> Path:
    """The shipped net: it is there without TensorFlow."""
    return find_model()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Four scenes; not to be changed."""
    folder = tmp_path_factory.mktemp("scenes")
    return tuple(write_one(folder / f"{name}.tif", seed) for seed, name in enumerate(NAMES))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad") / "bad.tif"
    path.write_text("no image")
    return path


def write_one(path: Path, seed: int, size_px: int = 40) -> Path:
    values, _ = cloudy_scene(np.random.default_rng(seed), size_px, size_px)
    return write_scene_tif(path, values)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the products of a folder by name."""
    found = folder.iterdir()
    return {path.name: path.read_bytes() for path in found if path.name != "manifest.jsonl"}


def states(folder: Path) -> dict[str, str]:
    """Return the states in the manifest by name; a scene with two lines is an error."""
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert len({line["name"] for line in lines}) == len(lines)
    return {line["name"]: line["state"] for line in lines}


def run(*words: str | Path, **settings: Any) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, words)], **settings)


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*_*")}


def test_a_bad_scene_is_recorded_and_the_others_go_on(
    scenes: tuple[Path, ...], bad: Path, net: Path, tmp_path: Path
) -> None:
    told: list[Record] = []
    named = [scenes[0], bad, scenes[1]]
    records = predict_dataset(named, tmp_path, net, options=PLAIN, on_result=told.append)
    assert [record.state for record in records] == [DONE, FAILED, DONE]
    assert told == records
    assert [record.scene for record in records] == [str(path) for path in named]
    assert records[1].error and "bad.tif is no readable image" in records[1].error
    assert records[0].cloud_share and records[0].valid_share == 1.0 and records[0].seconds > 0
    assert states(tmp_path) == {"a": DONE, "bad": FAILED, "b": DONE}
    assert sorted(contents(tmp_path)) == [
        f"{name}_cloudmask.{suffix}" for name in "ab" for suffix in ("json", "tif")
    ]


def test_again_only_what_is_not_done_is_done(
    scenes: tuple[Path, ...], bad: Path, net: Path, tmp_path: Path
) -> None:
    predict_dataset([*scenes[:2], bad], tmp_path, net)
    before = stamps(tmp_path)
    told: list[str] = []
    records = predict_dataset(
        [*scenes, bad], tmp_path, net, on_result=lambda record: told.append(record.name)
    )
    assert told == ["c", "d", "bad"]
    assert [record.state for record in records] == [DONE] * 4 + [FAILED]
    now = stamps(tmp_path)
    assert {name: now[name] for name in before} == before
    assert states(tmp_path) == {**dict.fromkeys(NAMES, DONE), "bad": FAILED}


def test_a_product_that_was_removed_is_made_again(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path
) -> None:
    predict_dataset(scenes[:2], tmp_path, net, options=PLAIN)
    whole = contents(tmp_path)
    for path in tmp_path.glob("a_*"):
        path.unlink()
    told: list[Record] = []
    predict_dataset(scenes[:2], tmp_path, net, options=PLAIN, on_result=told.append)
    assert [record.name for record in told] == ["a"]
    assert contents(tmp_path) == whole


def test_a_scene_that_another_has_replaced_is_done_again(net: Path, tmp_path: Path) -> None:
    scenes = [write_one(tmp_path / "in" / f"{name}.tif", seed) for seed, name in enumerate("ab")]
    out = tmp_path / "out"
    predict_dataset(scenes, out, net, options=PLAIN)
    before = contents(out)
    write_one(scenes[0], 7)
    told: list[Record] = []
    predict_dataset(scenes, out, net, options=PLAIN, on_result=told.append)
    assert [(record.name, record.state) for record in told] == [("a", DONE)]
    changed = {name for name, content in contents(out).items() if content != before[name]}
    assert changed == {"a_cloudmask.tif", "a_cloudmask.json"}
    told.clear()
    scenes[0].unlink()
    predict_dataset(scenes, out, net, options=PLAIN, on_result=told.append)
    assert not told, "what is done stays so when its scene is cleared away"
    write_one(scenes[0], 8)
    predict_dataset(scenes, out, net, options=PLAIN, skip_existing=True, on_result=told.append)
    assert [record.state for record in told] == [SKIPPED]


def test_products_among_the_bands_of_a_scene_do_not_make_it_another(
    net: Path, tmp_path: Path
) -> None:
    place, reading = tmp_path / "loose", Reading(scale=1e-4)
    place.mkdir()
    write_loose(place, lopsided_numbers(40, 48))
    for wanted in (["loose"], []):
        told: list[Record] = []
        predict_dataset([place], place, net, options=PLAIN, reading=reading, on_result=told.append)
        assert [record.name for record in told if record.state == DONE] == wanted


def test_a_stamp_tells_files_and_what_lies_in_folders(tmp_path: Path) -> None:
    product = tmp_path / "product.SAFE"
    (product / "GRANULE").mkdir(parents=True)
    metadata = product / "MTD_MSIL1C.xml"
    metadata.write_text("one")
    before = scene_stamp(str(product))
    assert before == scene_stamp(str(product)) != scene_stamp(str(metadata))
    os.utime(product / "GRANULE", (1, 1))
    assert scene_stamp(str(product)) == before, "a folder's time tells of lists, not of content"
    os.utime(metadata, (1, 1))
    assert scene_stamp(str(product)) != before
    assert scene_stamp("https://example.com/scene.tif") is None
    assert scene_stamp(str(tmp_path / "gone.tif")) is None


def test_a_manifest_of_before_there_were_stamps_counts(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path
) -> None:
    predict_dataset(scenes[:1], tmp_path, net, options=PLAIN)
    path = tmp_path / "manifest.jsonl"
    line = json.loads(path.read_text())
    assert line.pop("stamp") == scene_stamp(str(scenes[0]))
    path.write_text(json.dumps(line) + "\n")
    told: list[Record] = []
    predict_dataset(scenes[:1], tmp_path, net, options=PLAIN, on_result=told.append)
    assert not told


def test_with_overwrite_all_is_done_again(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path
) -> None:
    options = replace(PLAIN, overwrite=True)
    for _ in range(2):
        told: list[Record] = []
        predict_dataset(scenes[:2], tmp_path, net, options=options, on_result=told.append)
        assert [record.name for record in told] == ["a", "b"]


def test_other_settings_are_another_product_which_is_in_the_way(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path
) -> None:
    predict_dataset(scenes[:2], tmp_path, net, options=PLAIN)
    other = replace(PLAIN, threshold=0.6)
    with pytest.raises(OutputError, match="with other options; give --overwrite"):
        predict_dataset(scenes[:2], tmp_path, net, options=other)
    predict_dataset(scenes[:2], tmp_path, net, options=replace(other, overwrite=True))
    predict_dataset(scenes[:2], tmp_path, net, options=other)


def test_a_scene_of_the_same_name_from_elsewhere_is_in_the_way(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path
) -> None:
    twin = write_one(tmp_path / "other" / "a.tif", 9)
    with pytest.raises(OutputError, match="bear one name"):
        predict_dataset([scenes[0], twin], tmp_path / "out", net)
    assert not (tmp_path / "out").exists()
    predict_dataset(scenes[:1], tmp_path / "out", net, options=PLAIN)
    with pytest.raises(OutputError, match=r"a_cloudmask\.tif exists; give --overwrite"):
        predict_dataset([twin], tmp_path / "out", net, options=PLAIN)


def test_skip_existing_leaves_out_what_is_there_and_says_so_once(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path
) -> None:
    for kind in ("cloudmask.tif", "cloudmask.json"):
        (tmp_path / f"a_{kind}").write_text("of yesterday")
    for _ in range(2):
        records = predict_dataset(scenes[:2], tmp_path, net, options=PLAIN, skip_existing=True)
        assert [record.state for record in records] == [SKIPPED, DONE]
    assert states(tmp_path) == {"a": SKIPPED, "b": DONE}
    assert (tmp_path / "a_cloudmask.tif").read_text() == "of yesterday"


def test_what_a_killed_process_left_is_done_anew(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path
) -> None:
    """Its claim is there, one product of two, and one that was not published."""
    (tmp_path / "a_cloudmask.tif").write_text("debris")
    (tmp_path / ".a_cloudmask.01234567.part.json").touch()
    (tmp_path / "mine.part.tif").touch()
    claim_path(tmp_path, "a").write_bytes(TAKEN)
    predict_dataset(scenes[:2], tmp_path, net, options=PLAIN)
    assert states(tmp_path) == {"a": DONE, "b": DONE}
    found = contents(tmp_path)
    assert len(found) == 5 and b"debris" not in found.values()


def test_what_another_process_is_at_is_left_to_it(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path
) -> None:
    part = tmp_path / ".a_cloudmask.01234567.part.tif"
    part.touch()
    claim = Claim.take(tmp_path, "a")
    assert claim
    records = predict_dataset(scenes[:2], tmp_path, net, options=PLAIN)
    assert [record.state for record in records] == [SKIPPED, DONE]
    assert records[0].error and "another process" in records[0].error
    assert part.exists()
    claim.release()
    predict_dataset(scenes[:2], tmp_path, net, options=PLAIN)
    assert states(tmp_path) == {"a": DONE, "b": DONE}
    assert not part.exists()


def test_an_unforeseen_error_is_a_sentence_of_its_scene(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("cloudnet.task.predict_scene", fail)
    (record,) = predict_dataset(scenes[:1], tmp_path, net)
    assert record.error and f"{scenes[0]} fails in an unforeseen way" in record.error
    assert "RuntimeError two lines" in record.error


def test_a_model_that_does_not_pass_writes_nothing(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path
) -> None:
    off = tampered(net, tmp_path / "off.onnx", weights=lambda array: array * 1.1)
    with pytest.raises(ComparisonError, match="does not say what Keras says"):
        predict_dataset(scenes, tmp_path / "out", off)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"jobs": 0}, "1 or more"), ({"jobs": 2, "scheduler": "tcp://h:1"}, "goes without")],
)
def test_a_spread_makes_sense(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(CloudnetError, match=says):
        Spread(**settings)


def test_the_command_counts_and_goes_on(
    scenes: tuple[Path, ...], bad: Path, net: Path, tmp_path: Path
) -> None:
    words = (f"{scenes[0].parent}/*.tif", bad, "-m", net, "-o", tmp_path, "--no-quicklook")
    first = run(*words)
    assert first.exit_code == 1
    failed, count = first.stderr.splitlines()
    assert failed.startswith("Failed: ") and "bad.tif is no readable image" in failed
    assert count.startswith(f"Error: 1 of 5 scenes failed; {tmp_path / 'manifest.jsonl'} says why")
    assert len(first.stdout.splitlines()) == 5
    again = run(*words)
    assert (again.exit_code, again.stdout.splitlines()[1:]) == (
        1,
        ["4 of 5 scenes were done before"],
    )


def test_the_command_takes_a_list_on_standard_input(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path
) -> None:
    listed = f"# a list\n\n{scenes[2]}\n"
    result = run("-", "-m", net, "-o", tmp_path, input=listed)
    assert (result.exit_code, result.stderr) == (0, "")
    assert states(tmp_path) == {"c": DONE}


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_a_name_that_is_no_utf_8_is_a_sentence_of_its_scene(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.npy"))
    np.save(odd, np.ones((4, 5, 4), np.float32))
    listed = os.fsencode(f"{odd}\n{scenes[2]}\n")
    result = run("-", "-m", net, "-o", tmp_path / "out", input=listed)
    assert result.exit_code == 1, result.exception
    assert "has a name that is no UTF-8" in result.stderr.splitlines()[0]
    assert states(tmp_path / "out") == {odd.stem: FAILED, "c": DONE}
    result = run(scenes[2], "-m", net, "-o", odd.with_suffix(""))
    assert result.exit_code == 2
    assert "no UTF-8; give another folder" in result.stderr


def test_standard_input_that_is_closed_names_no_scene(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("cloudnet.commands.predict")
    monkeypatch.setattr(module, "sys", SimpleNamespace(stdin=None))
    result = run("-", "-m", net, "-o", tmp_path / "out")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "the list on standard input names no scene" in result.stderr


def test_one_vector_file_for_several_scenes_stops_before_work(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path
) -> None:
    options = PredictOptions(vector=str(tmp_path / "all.geojson"))
    with pytest.raises(OutputError, match="one file for 2 scenes"):
        predict_dataset(scenes[:2], tmp_path / "out", net, options=options)
    assert not (tmp_path / "out").exists()


def test_a_lock_that_a_dead_worker_of_another_machine_left_is_waited_out(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudnet.lock.LEASE_S", 0.3)
    monkeypatch.setattr("cloudnet.lock.LOOK_S", 0.05)
    holder = {"pid": 1, "host": "elsewhere", "started": "", "token": "x"}
    lock_path(Outputs(tmp_path, "a").mask).write_text(json.dumps(holder))
    predict_dataset(scenes[:1], tmp_path, net, options=PLAIN)
    assert states(tmp_path) == {"a": DONE}
    assert len(contents(tmp_path)) == 2


def test_one_scene_is_as_ever(
    scenes: tuple[Path, ...], bad: Path, net: Path, tmp_path: Path
) -> None:
    assert run(bad, "-m", net, "-o", tmp_path).exit_code == 2
    assert run(scenes[0], "-m", net, "-o", tmp_path).exit_code == 0
    assert not (tmp_path / "manifest.jsonl").exists()
    skipped = run(scenes[0], "-m", net, "-o", tmp_path, "--skip-existing")
    assert skipped.exit_code == 0 and f"{scenes[0]}: skipped" in skipped.stdout


def test_skip_existing_excludes_overwrite(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path
) -> None:
    result = run(*scenes, "-m", net, "-o", tmp_path, "--skip-existing", "--overwrite")
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr


def started(folder: Path, out: Path, model: Path, *more: str) -> subprocess.Popen[str]:
    """Start the command over a folder, in a group of processes of its own."""
    words = ["predict", f"{folder}/*.tif", "-m", str(model), "-o", str(out), *more]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "cli.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen scenes that take some time each; not to be changed."""
    folder = tmp_path_factory.mktemp("archive")
    for seed in range(16):
        write_one(folder / f"s{seed:02d}.tif", seed, 200)
    return folder


def recorded(out: Path) -> int:
    path = out / "manifest.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGKILL")
def test_a_command_that_is_killed_goes_on_where_it_was(
    archive: Path, net: Path, tmp_path: Path
) -> None:
    with started(archive, tmp_path, net) as first:
        wait_for(lambda: recorded(tmp_path) >= 4)
        os.kill(first.pid, signal.SIGKILL)
    manifest = Manifest(tmp_path)
    done = {path.stem for path in archive.iterdir() if manifest.last(str(path))}
    assert 4 <= len(done) < 16
    before = stamps(tmp_path)
    with started(archive, tmp_path, net) as again:
        _, errors = again.communicate(timeout=120)
    assert (again.returncode, errors) == (0, "")
    now = stamps(tmp_path)
    assert all(now[name] == at for name, at in before.items() if name.partition("_")[0] in done)
    assert set(states(tmp_path).values()) == {DONE} and len(states(tmp_path)) == 16
    assert len(contents(tmp_path)) == 48


@pytest.mark.skipif(sys.platform == "win32", reason="it has other signals")
@pytest.mark.parametrize("more", [(), ("--jobs", "2")], ids=["one process", "two"])
def test_ctrl_c_ends_all_and_leaves_no_part(
    archive: Path, net: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    with started(archive, tmp_path, net, "--tile-px", "16", *more) as command:
        wait_for(lambda: recorded(tmp_path) >= 2)
        os.killpg(command.pid, signal.SIGINT)
        _, errors = command.communicate(timeout=60)
    assert command.returncode == 130
    assert errors == "\nStopped; the same command goes on where it was\n"
    assert not [name for name in contents(tmp_path) if ".part" in name]
    wait_for(lambda: not any_left(command.pid))


def any_left(group: int) -> bool:
    """Tell whether a process of a group is alive."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
