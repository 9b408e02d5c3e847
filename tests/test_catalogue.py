"""The catalogue: fetched from a server on this machine, its tags, and its protocol end to end."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cloudnet.archive import ArchiveError
from cloudnet.catalogue import (
    CHECK,
    DOWNLOAD,
    FILES,
    UNPACK,
    FetchProgress,
    fetch_catalogue,
    split_protocol,
)
from cloudnet.commands import main
from cloudnet.dataset import LabelledScene, open_dataset
from cloudnet.errors import DatasetError, OutputError
from cloudnet.fetch import FetchError
from cloudnet.simulate import simulate_scene
from cloudnet.spec import CATALOGUE_BANDS, CLEAR, CLOUD
from tests.helpers import tiny_config
from tests.test_fetch import RecordServer

ROOT = Path(__file__).parents[1]
TAGS = ("forest/jungle", "snow/ice", "open_water", "cumulus", "cirrus", "thin", "thick")
TILES = ("GK", "GL", "HK", "HL", "JK", "JL", "KK")


@dataclass(frozen=True)
class Row:
    """A scene of the generated catalogue: its part, the number of its place, what is to be seen."""

    part: str
    place: int
    ground: str
    cloud: str

    def name(self, number: int) -> str:
        """A product's name; the numbers make it one of its own."""
        date = f"2018{1 + number % 12:02d}{1 + number // 12:02d}T032011"
        return f"S2A_MSIL1C_{date}_N0206_R118_T49T{TILES[self.place]}_20180126T083810"


ROWS = (
    Row("MAIN", 0, "forest", "cumulus"),
    Row("MAIN", 0, "fields", "none"),
    Row("MAIN", 1, "water", "stratocumulus"),
    Row("VALIDATION", 2, "forest", "cumulus"),
    Row("MAIN", 2, "soil", "none"),  # its place is tested on
    Row("MAIN", 3, "snow", "cirrus"),
    Row("MAIN", 4, "shrub", "cumulus"),
    Row("CALIBRATION", 5, "snow", "cumulus"),
    Row("MAIN", 6, "coast", "stratus"),
)


def generate(size: tuple[int, int], rows: tuple[Row, ...] = ROWS) -> dict[str, bytes]:
    """Return the seven files of a catalogue of simulated scenes: names, shapes and tags are right.

    The members of some archives lie in a folder of their name, those of others do not.
    """
    arrays: dict[str, dict[str, bytes]] = {"subscenes": {}, "masks": {}, "alt_masks": {}}
    for number, row in enumerate(rows):
        scene = simulate_scene(
            number, size, ground=row.ground, cloud=row.cloud, bands=CATALOGUE_BANDS
        )
        clear = (scene.label == CLEAR) & ~scene.shadow
        mask = np.stack([clear, scene.label == CLOUD, scene.shadow], axis=2)
        name = f"{row.name(number)}.npy"
        arrays["subscenes"][f"subscenes/{name}"] = npy(scene.reflectance)
        arrays["masks"][name] = npy(mask)
        if row.part != "MAIN":
            arrays["alt_masks"][f"alt_masks/{name}"] = npy(mask)
    return {
        **{f"{kind}.zip": zipped(members) for kind, members in arrays.items()},
        "shapefiles.zip": zipped({f"{row.name(0)}/a.shp": b"shape" for row in rows[:1]}),
        "thumbnails.zip": zipped({f"thumbnails/{row.name(0)}.png": b"png" for row in rows[:1]}),
        "classification_tags.csv": tags_csv(rows).encode(),
        "README.pdf": b"%PDF-1.4 read me",
    }


def npy(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tags_csv(rows: tuple[Row, ...] = ROWS, part: str = "dataset") -> str:
    """Return the catalogue's table: an index, the part, numbers, and tags of 0 and 1."""
    text = io.StringIO()
    writer = csv.writer(text)
    columns = ("index", "scene", part, "difficulty", "shadows_marked", "cloud_percent", *TAGS)
    writer.writerow(columns)
    for number, row in enumerate(rows):
        shown = {"forest": "forest/jungle", "snow": "snow/ice", "water": "open_water"}
        seen = {shown.get(row.ground), row.cloud, "thin" if row.cloud == "cirrus" else "thick"}
        cells = [number, row.name(number), row.part, 1, 1, 40.5]
        writer.writerow([*cells, *(int(tag in seen) for tag in TAGS)])
    return text.getvalue()


LEFT_OUT = [ROWS[4].name(4)]


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """The seven files, small."""
    return generate((64, 48))


@pytest.fixture
def server(files: dict[str, bytes]) -> Iterator[RecordServer]:
    with RecordServer(dict(files)) as running:
        yield running
        running.shutdown()


def names_asked(server: RecordServer) -> list[str]:
    """Return the files that the server was asked for, and forget them."""
    asked = [path.split("/")[-2] for path, _ in server.asked if path.endswith("/content")]
    server.asked.clear()
    return asked


def listing(folder: Path) -> dict[str, int]:
    """Return every file below a folder with the time of its last change."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---- fetching


def test_what_is_fetched_is_a_data_set(server: RecordServer, tmp_path: Path) -> None:
    told: list[FetchProgress] = []
    done = fetch_catalogue(tmp_path / "data", server.source(), on_progress=told.append)
    assert sorted(name for name in done if not name.endswith("/")) == sorted(FILES)
    assert {name for name in done if name.endswith("/")} == {
        "subscenes/", "masks/", "alt_masks/", "shapefiles/", "thumbnails/",
    }  # fmt: skip
    assert {progress.stage for progress in told} == {DOWNLOAD, CHECK, UNPACK}
    assert all(progress.done <= progress.total for progress in told)
    assert not list(tmp_path.rglob("*.part"))
    dataset = open_dataset([tmp_path / "data"])
    assert [(scene.rows, scene.cols) for scene in dataset.scenes] == [(64, 48)] * len(ROWS)
    assert Counter(scene.part for scene in dataset.scenes) == {
        "MAIN": 7, "VALIDATION": 1, "CALIBRATION": 1,
    }  # fmt: skip
    assert {scene.labels for scene in dataset.scenes} == {"human"}
    assert {scene.group for scene in dataset.scenes} == {f"T49T{TILES[row.place]}" for row in ROWS}
    by_name = {scene.name: scene for scene in dataset.scenes}
    assert by_name[ROWS[0].name(0)].tags == ("shadows_marked", "forest/jungle", "cumulus", "thick")
    assert by_name[ROWS[5].name(5)].tags == ("shadows_marked", "snow/ice", "cirrus", "thin")


def test_what_is_there_is_not_fetched_again(server: RecordServer, tmp_path: Path) -> None:
    fetch_catalogue(tmp_path, server.source())
    assert sorted(names_asked(server)) == sorted(FILES)
    before = listing(tmp_path)
    assert fetch_catalogue(tmp_path, server.source()) == []
    assert names_asked(server) == []
    assert listing(tmp_path) == before
    (tmp_path / "fetched.json").write_text('{"masks.zip": 3, "subscenes.zip": {"md5": []}} ')
    assert fetch_catalogue(tmp_path, server.source()) == []  # found right by its MD5
    (tmp_path / "fetched.json").unlink()
    shutil.rmtree(tmp_path / "masks")
    assert fetch_catalogue(tmp_path, server.source()) == ["masks/"]
    assert names_asked(server) == []
    assert open_dataset([tmp_path]).scenes


def test_a_file_is_read_for_its_md5_once(
    server: RecordServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_catalogue(tmp_path, server.source())

    def no_md5(path: Path, on_bytes: object = None) -> str:
        raise AssertionError(path)

    monkeypatch.setattr("cloudnet.catalogue.md5_of", no_md5)
    fetch_catalogue(tmp_path, server.source())
    content = (tmp_path / "masks.zip").read_bytes()
    (tmp_path / "masks.zip").write_bytes(content)
    with pytest.raises(AssertionError, match=r"masks\.zip"):
        fetch_catalogue(tmp_path, server.source())


def test_archives_are_discarded_and_not_fetched_again(server: RecordServer, tmp_path: Path) -> None:
    fetch_catalogue(tmp_path, server.source(), discard_archives=True)
    assert not list(tmp_path.glob("*.zip"))
    assert len(open_dataset([tmp_path]).scenes) == len(ROWS)
    names_asked(server)
    assert fetch_catalogue(tmp_path, server.source()) == []
    assert fetch_catalogue(tmp_path, server.source(), discard_archives=True) == []
    assert names_asked(server) == []
    next((tmp_path / "masks").iterdir()).unlink()
    with pytest.raises(OutputError, match=r"masks is there, but is not what masks\.zip holds"):
        fetch_catalogue(tmp_path, server.source())
    shutil.rmtree(tmp_path / "masks")
    assert fetch_catalogue(tmp_path, server.source()) == ["masks.zip", "masks/"]


def test_archives_that_were_kept_are_discarded_later(server: RecordServer, tmp_path: Path) -> None:
    fetch_catalogue(tmp_path, server.source())
    assert fetch_catalogue(tmp_path, server.source(), discard_archives=True) == []
    assert not list(tmp_path.glob("*.zip"))
    assert fetch_catalogue(tmp_path, server.source()) == []


def test_the_next_call_goes_on_where_the_server_gave_up(
    server: RecordServer, tmp_path: Path
) -> None:
    size = len(server.files["subscenes.zip"])
    server.manners.breaks = [10**9] * 6 + [size // 2, 0, 0]  # the last is the largest
    with pytest.raises(FetchError, match=r"subscenes\.zip/content broke off"):
        fetch_catalogue(tmp_path, server.source())
    assert (tmp_path / "masks").is_dir()
    assert not (tmp_path / "subscenes").exists()
    names_asked(server)
    assert fetch_catalogue(tmp_path, server.source()) == ["subscenes.zip", "subscenes/"]
    assert server.asked[-1][1] == f"bytes={size // 2}-"
    assert len(open_dataset([tmp_path]).scenes) == len(ROWS)


class Killed(BaseException):
    """Ends a call at once, as Ctrl-C does."""


@pytest.mark.parametrize("stage", [DOWNLOAD, CHECK, UNPACK])
def test_a_killed_call_leaves_nothing_that_looks_finished(
    server: RecordServer, tmp_path: Path, stage: str
) -> None:
    def kill(progress: FetchProgress) -> None:
        if (progress.stage, progress.name) == (stage, "subscenes.zip"):
            raise Killed

    with pytest.raises(Killed):
        fetch_catalogue(tmp_path, server.source(), on_progress=kill)
    assert not (tmp_path / "subscenes").exists()
    assert (tmp_path / "subscenes.zip").exists() == (stage == UNPACK)
    fetch_catalogue(tmp_path, server.source())
    assert len(open_dataset([tmp_path]).scenes) == len(ROWS)
    assert not list(tmp_path.glob("*.part"))


def test_two_calls_do_not_fetch_to_one_folder(server: RecordServer, tmp_path: Path) -> None:
    """They would write to the same parts, and remove each other's."""
    refusals: list[str] = []

    def fetch_too(progress: FetchProgress) -> None:
        if not refusals:
            with pytest.raises(OutputError) as caught:
                fetch_catalogue(tmp_path, server.source())
            refusals.append(str(caught.value))

    assert len(fetch_catalogue(tmp_path, server.source(), on_progress=fetch_too)) == 12
    assert "fetched.json is being written by another process" in refusals[0]
    assert fetch_catalogue(tmp_path, server.source()) == []


def test_wrong_bytes_of_one_file_leave_the_others(server: RecordServer, tmp_path: Path) -> None:
    server.manners.bodies = {"masks.zip": server.files["masks.zip"][::-1]}
    with pytest.raises(FetchError, match=r"masks\.zip/content sent other bytes"):
        fetch_catalogue(tmp_path, server.source())
    assert not list(tmp_path.glob("masks*"))
    server.manners.bodies = {}
    fetch_catalogue(tmp_path, server.source())
    assert len(open_dataset([tmp_path]).scenes) == len(ROWS)


@pytest.mark.parametrize("member", ["../evil.npy", "/tmp/evil.npy", "masks/../../evil.npy"])
def test_a_hostile_archive_is_refused(server: RecordServer, tmp_path: Path, member: str) -> None:
    server.files["masks.zip"] = zipped({"masks/a.npy": b"a", member: b"evil"})
    with pytest.raises(ArchiveError, match="leads out of the folder"):
        fetch_catalogue(tmp_path / "data", server.source())
    assert not list(tmp_path.rglob("evil*"))
    assert not (tmp_path / "data" / "masks").exists()


def test_a_bomb_is_refused(server: RecordServer, tmp_path: Path) -> None:
    server.files["shapefiles.zip"] = zipped({"a.shp": bytes(120_000_000)})
    for _ in range(2):  # the second time it is here already
        with pytest.raises(ArchiveError, match=r"unpacks to 0\.12 GB, more than"):
            fetch_catalogue(tmp_path, server.source())
        assert not (tmp_path / "shapefiles").exists()


def test_another_file_in_place_of_one_is_refused_and_left(
    server: RecordServer, tmp_path: Path
) -> None:
    mine = tmp_path / "masks.zip"
    mine.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"has 4 bytes.*masks\.zip\.part"):
        fetch_catalogue(tmp_path, server.source())
    mine.write_bytes(bytes(len(server.files["masks.zip"])))
    with pytest.raises((OutputError, ArchiveError), match="remove it"):
        fetch_catalogue(tmp_path, server.source())
    mine.unlink()
    mine.mkdir()
    with pytest.raises(OutputError, match="in the way"):
        fetch_catalogue(tmp_path, server.source())
    assert names_asked(server) == []


def test_a_folder_of_something_else_is_refused_before_anything_is_fetched(
    server: RecordServer, tmp_path: Path
) -> None:
    (tmp_path / "subscenes").mkdir()
    (tmp_path / "subscenes" / "mine.npy").write_bytes(b"mine")
    with pytest.raises(OutputError, match="move it away"):
        fetch_catalogue(tmp_path, server.source())
    assert names_asked(server) == []


REAL_SIZES = {
    "subscenes.zip": 15_197_196_473,
    "masks.zip": 20_000_000,
    "alt_masks.zip": 3_000_000,
    "shapefiles.zip": 2_000_000,
    "thumbnails.zip": 130_000_000,
    "classification_tags.csv": 100_000,
    "README.pdf": 900_000,
}
"""The largest is the record's; all have its 15.35 GB together."""


@pytest.mark.parametrize(
    ("free_gb", "discard", "enough"),
    [(44, False, False), (47, False, True), (44, True, False), (46, True, True), (1, True, False)],
)
def test_room_for_archives_and_what_they_hold_is_asked_for_first(
    server: RecordServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free_gb: int,
    discard: bool,
    enough: bool,
) -> None:
    entries = [
        {"key": name, "size": size, "checksum": "md5:" + "0" * 32}
        for name, size in REAL_SIZES.items()
    ]
    server.record = json.dumps({"files": entries}).encode()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, free_gb * 10**9))
    with pytest.raises(FetchError if enough else OutputError) as caught:
        fetch_catalogue(tmp_path, server.source(), discard_archives=discard)
    assert ("GB free" in str(caught.value)) is not enough
    assert bool(names_asked(server)) is enough


@pytest.mark.parametrize("name", ["subscenes.zip", "masks.zip", "classification_tags.csv"])
def test_a_record_of_something_else_is_refused(
    server: RecordServer, tmp_path: Path, name: str
) -> None:
    del server.files[name]
    with pytest.raises(FetchError, match=f"lists no {name}"):
        fetch_catalogue(tmp_path, server.source())


def test_what_the_record_lists_besides_is_left_alone(server: RecordServer, tmp_path: Path) -> None:
    server.files |= {"../evil.csv": b"x", "more.zip": b"x"}
    del server.files["README.pdf"]
    fetch_catalogue(tmp_path / "data", server.source())
    assert not list(tmp_path.rglob("evil*")) + list(tmp_path.rglob("more*"))


# ---- the command


def cloudnet(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_fetches_and_says_so(server: RecordServer, tmp_path: Path) -> None:
    result = cloudnet("fetch", "catalogue", str(tmp_path), "--url", server.url)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"fetched: {tmp_path / 'subscenes.zip'}" in result.stdout
    assert f"unpacked: {tmp_path / 'subscenes'}" in result.stdout
    assert "cloudnet inspect" in result.stdout
    inspected = CliRunner().invoke(main, ["inspect", str(tmp_path), "--totals"])
    assert inspected.exit_code == 0, inspected.output
    assert "64 x 48 (9)" in inspected.output


def test_the_command_ends_with_one_sentence(server: RecordServer, tmp_path: Path) -> None:
    server.manners.bodies = {"masks.zip": server.files["masks.zip"][::-1]}
    result = CliRunner().invoke(main, ["fetch", "catalogue", str(tmp_path), "--url", server.url])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    result = CliRunner().invoke(main, ["fetch", "catalogue", str(tmp_path), "--url", "ftp://a.org"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["fetch", "catalogue", str(tmp_path / "file")])
    assert (result.exit_code, "is a file" in result.stderr) == (2, True)


def test_ctrl_c_is_no_loss(server: RecordServer, tmp_path: Path) -> None:
    small = tmp_path / "README.pdf"
    server.manners.silence_s = 0.2
    command = [sys.executable, str(ROOT / "cli.py"), "fetch", "catalogue", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--url", server.url], stderr=subprocess.PIPE, text=True
    ) as process:
        for _ in range(200):
            if small.exists():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Stopped; the same command goes on" in said
    assert "Traceback" not in said
    server.manners.silence_s = 0.0
    assert "README.pdf" not in fetch_catalogue(tmp_path, server.source())
    assert len(open_dataset([tmp_path]).scenes) == len(ROWS)


# ---- tags


@pytest.fixture(scope="session")
def data(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue as it is unpacked; not to be changed."""
    folder = tmp_path_factory.mktemp("catalogue") / "data"
    with RecordServer(dict(files)) as server:
        fetch_catalogue(folder, server.source(), discard_archives=True)
        server.shutdown()
    return folder


def with_tags(data: Path, folder: Path, text: str | None) -> Path:
    """Return a catalogue with other tags, or none."""
    folder.mkdir()
    for part in ("subscenes", "masks"):
        (folder / part).symlink_to(data / part)
    if text is not None:
        (folder / "classification_tags.csv").write_text(text, encoding="utf-8")
    return folder


def test_the_part_is_found_in_a_column_of_another_name(data: Path, tmp_path: Path) -> None:
    folder = with_tags(data, tmp_path / "data", "\ufeff" + tags_csv(part="Annotation Group"))
    assert {scene.part for scene in open_dataset([folder]).scenes} == {
        "MAIN", "VALIDATION", "CALIBRATION",
    }  # fmt: skip


def test_tags_are_whatever_there_is(data: Path, tmp_path: Path) -> None:
    name = ROWS[0].name(0)
    text = f"scene,Dataset,night , difficulty,n,half\n{name},main,1.0,1,7,\nother,MAIN,0,1,8,1\n"
    scenes = open_dataset([with_tags(data, tmp_path / "data", text)]).scenes
    tagged = [scene for scene in scenes if scene.part]
    assert [(scene.name, scene.part, scene.tags) for scene in tagged] == [
        (name, "MAIN", ("night",))
    ]
    assert [scene.labels for scene in scenes if not scene.part] == [""] * (len(ROWS) - 1)


def test_labels_of_scenes_csv_come_first(data: Path, tmp_path: Path) -> None:
    folder = with_tags(data, tmp_path / "data", tags_csv())
    (folder / "scenes.csv").write_text(f"scene,group,labels\n{ROWS[0].name(0)},here,second\n")
    scene = next(s for s in open_dataset([folder]).scenes if s.labels != "human")
    assert (scene.labels, scene.group, scene.part) == ("second", "here", "MAIN")


@pytest.mark.parametrize("text", ["product,dataset\na,MAIN\n", "", "\x00"])
def test_a_table_without_scenes_is_one_sentence(data: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(DatasetError, match=r"classification_tags\.csv"):
        open_dataset([with_tags(data, tmp_path / "data", text)])


# ---- the protocol


def scene(part: str, group: str, number: int = 0) -> LabelledScene:
    path = Path(f"{part}{group}{number}.npy")
    return LabelledScene(path.stem, path, path, 8, 8, group, part=part)


def test_the_protocol_splits_by_part_and_leaves_no_place_on_both_sides(data: Path) -> None:
    protocol = split_protocol(open_dataset([data]).scenes)
    assert {s.part for s in protocol.test} == {"VALIDATION", "CALIBRATION"}
    assert [s.name for s in protocol.left_out] == LEFT_OUT
    assert {s.part for s in (*protocol.train, *protocol.left_out)} == {"MAIN"}
    assert not {s.group for s in protocol.train} & {s.group for s in protocol.test}
    assert len(protocol.train) + len(protocol.test) + len(protocol.left_out) == len(ROWS)


@pytest.mark.parametrize(
    ("scenes", "words"),
    [
        ([scene("", "a"), scene("", "b")], "cloudnet fetch catalogue"),
        ([scene("MAIN", "a"), scene("TEST", "b"), scene("", "c")], "says 'TEST' of TESTb0.npy"),
        ([scene("MAIN", "a"), scene("", "b"), scene("VALIDATION", "c")], "does not know b0.npy"),
        ([scene("MAIN", "a"), scene("MAIN", "b")], "here are 0 and 2"),
        ([scene("CALIBRATION", "a")], "here are 1 and 0"),
        ([scene("CALIBRATION", "a"), scene("MAIN", "a")], "here are 1 and 0"),
    ],
)
def test_data_that_the_protocol_does_not_fit_are_refused(
    scenes: list[LabelledScene], words: str
) -> None:
    with pytest.raises(DatasetError, match=words):
        split_protocol(scenes)


def test_missing_tags_are_one_sentence_before_tensorflow(data: Path, tmp_path: Path) -> None:
    folder = with_tags(data, tmp_path / "data", None)
    arguments = ["train", str(folder), "--out", str(tmp_path / "run"), "--protocol", "catalogue"]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "classification_tags.csv" in result.stderr
    assert not (tmp_path / "run").exists()
    result = CliRunner().invoke(main, [*arguments, "--folds", "2"])
    assert (result.exit_code, "--folds" in result.stderr) == (2, True)


def test_train_and_test_by_the_protocol(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow", reason="the train extra is not installed")
    from cloudnet import recipe, train

    tiny = partial(train.TrainConfig, net=tiny_config().net)  # the CLI has no option for it
    for module in (train, recipe):
        monkeypatch.setattr(module, "TrainConfig", tiny)
    run = tmp_path / "run"
    command = ["train", str(data), "--out", str(run), "--protocol", "catalogue"]
    settings = ["--epochs", "1", "--epoch-tiles", "8", "--batch", "4", "--tile-px", "32"]
    result = CliRunner().invoke(main, [*command, *settings])
    assert result.exit_code == 0, result.output
    assert "left out, as their places are tested on: scenes 1, places 1" in result.stderr
    assert f"test: {run / 'test.json'}" in result.stdout
    assert json.loads((run / "spec.json").read_text(encoding="utf-8"))["levels"] == ["L1C"]
    assert sorted(path.name for path in run.glob("*.onnx")) == ["model.onnx"]
    check_split(run)
    check_scores(run, evaluate_alone(data, run))


def check_split(run: Path) -> None:
    """Check that a run was trained and validated on MAIN alone, on places of their own."""
    with (run / "split.csv").open(newline="") as file:
        split = list(csv.DictReader(file))
    wanted = {row.name(n) for n, row in enumerate(ROWS) if row.part == "MAIN"} - {*LEFT_OUT}
    assert {row["scene"] for row in split} == wanted
    train, validation = (
        {row["group"] for row in split if row["side"] == side} for side in ("train", "validation")
    )
    assert train and validation and not train & validation


def evaluate_alone(data: Path, run: Path) -> dict[str, float]:
    """Return the IoU of each scene as `cloudnet evaluate` finds it."""
    command = ["evaluate", str(data), "-m", str(run / "model.onnx"), "--json"]
    report = json.loads(CliRunner().invoke(main, command).stdout)
    return {entry["name"]: entry["iou"] for entry in report["per_scene"]}


def check_scores(run: Path, alone: dict[str, float]) -> None:
    """Check what a run says of its test."""
    report = json.loads((run / "test.json").read_text(encoding="utf-8"))
    tested = [row.name(n) for n, row in enumerate(ROWS) if row.part != "MAIN"]
    assert {entry["name"]: entry["iou"] for entry in report["per_scene"]} == {
        name: alone[name] for name in tested
    }
    assert report["left_out"] == LEFT_OUT
    assert report["train_and_validation_scenes"] == len(ROWS) - len(tested) - len(LEFT_OUT)
    assert list(report["by_labels"]) == ["human"]
    parts = report["by_part"]
    assert (parts["VALIDATION"]["scenes"], parts["CALIBRATION"]["scenes"]) == (1, 1)
    assert parts["VALIDATION"]["tn"] + parts["CALIBRATION"]["tn"] == report["pooled"]["tn"]
    assert report["by_tag"]["snow/ice"] == parts["CALIBRATION"]
    assert report["by_tag"]["cumulus"] == report["pooled"]
    assert "cirrus" not in report["by_tag"]
