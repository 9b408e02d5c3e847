"""A run folder: what is written is read back, and what is damaged is named."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudnet.dataset import LabelledScene
from cloudnet.errors import RunError
from cloudnet.run import HISTORY_FIELDS, Run, find_net
from cloudnet.spec import Spec
from cloudnet.split import Split


def row(epoch: int, **changes: float) -> dict[str, float]:
    numbers = {
        "loss": 0.1 + 0.2 / epoch,
        "iou": 1 / 3,
        "val_loss": 1e-17 * epoch,
        "val_iou": 2 / 7,
        "learning_rate": 3e-3 / 7,
        "seconds": 12.25,
    }
    return {"epoch": epoch, **numbers, **changes}


def scene(name: str, group: str, labels: str = "") -> LabelledScene:
    path = Path("data", "scenes", f"{name}.tif")
    return LabelledScene(name, path, Path("data", "masks", path.name), 8, 8, group, labels)


SCENES = scene("a", "one", "human"), scene("b, c", "two"), scene("d", "three", "teacher")
SPLIT = Split(train=SCENES[:2], validation=SCENES[2:])
SHARES = {one.scene_path: share for one, share in zip(SCENES, (0.0, 1 / 3, 1.0), strict=True)}


def test_history_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.read_history() == []
    rows = [row(1), row(2), row(3, val_iou=0.0)]
    run.write_history(rows)
    assert run.read_history() == rows
    with run.history_file.open(newline="", encoding="utf-8") as file:
        table = list(csv.reader(file))
    assert tuple(table[0]) == HISTORY_FIELDS
    assert [line[0] for line in table[1:]] == ["1", "2", "3"]


def test_writing_changes_no_row(tmp_path: Path) -> None:
    rows = [row(1)]
    Run(tmp_path).write_history(rows)
    assert rows == [row(1)]


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda text: text.replace("val_iou", "score"), "val_iou"),
        (lambda text: text.replace("12.25", "soon"), "soon"),
        (lambda text: text[: text.rindex(",", 0, -8)], "damaged"),
        (lambda text: text.replace("\n1,", "\n7,"), "1, 2, 3"),
        (lambda text: "\n".join(text.splitlines()[::2]), "1, 2, 3"),
        (lambda text: text.encode().replace(b"0.", b"\xff\xfe"), "utf-8"),
    ],
)
def test_a_damaged_history_is_named(tmp_path: Path, damage: Any, cause: str) -> None:
    run = Run(tmp_path)
    run.write_history([row(1), row(2)])
    damaged = damage(run.history_file.read_text(encoding="utf-8"))
    run.history_file.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with pytest.raises(RunError, match="start a new run") as caught:
        run.read_history()
    assert str(run.history_file) in str(caught.value) and cause in str(caught.value)
    assert "\n" not in str(caught.value)


def test_configuration_comes_back(tmp_path: Path) -> None:
    config = {"training": {"epochs": 3, "net": {"widths": [8, 12]}}, "ünicode": 0.1}
    Run(tmp_path).write_config(config)
    assert Run(tmp_path).read_config() == config


def test_a_folder_without_configuration_is_no_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunError, match=r"is no run: config\.json is missing") as caught:
            Run(folder).read_config()
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "3", '"run"'])
def test_a_damaged_configuration_is_named(tmp_path: Path, text: str) -> None:
    Run(tmp_path).config_file.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        Run(tmp_path).read_config()


def test_the_split_is_a_table_of_scenes(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_split(SPLIT, SHARES)
    with run.split_file.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(line["scene"], line["side"], line["group"]) for line in table] == [
        ("a", "train", "one"),
        ("b, c", "train", "two"),
        ("d", "validation", "three"),
    ]
    assert [float(line["cloud_share"]) for line in table] == [0.0, 0.3333, 1.0]
    assert [line["labels"] for line in table] == ["human", "", "teacher"]
    assert table[0]["path"] == "data/scenes/a.tif"


def test_a_run_knows_its_split_again(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_split(SPLIT, SHARES)
    assert run.has_split(SPLIT, SHARES)
    moved = replace(SCENES[0], scene_path=Path("elsewhere", "a.tif"))
    elsewhere = Split((moved, SCENES[1]), SCENES[2:])
    assert run.has_split(elsewhere, {**SHARES, moved.scene_path: 0.0}), "data may be moved"


@pytest.mark.parametrize(
    "other",
    [
        Split(SCENES[:1], SCENES[1:]),
        Split(SCENES[:2], ()),
        Split((SCENES[1], SCENES[0]), SCENES[2:]),
        Split((replace(SCENES[0], group="two"), SCENES[1]), SCENES[2:]),
        Split((replace(SCENES[0], labels=""), SCENES[1]), SCENES[2:]),
    ],
)
def test_another_split_is_told_from_its_own(tmp_path: Path, other: Split) -> None:
    run = Run(tmp_path)
    run.write_split(SPLIT, SHARES)
    assert not run.has_split(other, SHARES)
    assert not run.has_split(SPLIT, {**SHARES, SCENES[0].scene_path: 0.01})


def test_a_split_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(RunError, match=r"split\.csv is missing"):
        run.has_split(SPLIT, SHARES)
    run.split_file.write_bytes(b"\xff\xfe\x00scene")
    with pytest.raises(RunError, match=r"split\.csv is damaged"):
        run.has_split(SPLIT, SHARES)


def test_the_spec_is_written_as_json(tmp_path: Path) -> None:
    spec = Spec("mine", "7", threshold=0.25)
    Run(tmp_path).write_spec(spec)
    text = Run(tmp_path).spec_file.read_text(encoding="utf-8")
    assert Spec.from_json(text, "spec.json") == spec


def test_the_net_of_a_run_is_its_best(tmp_path: Path) -> None:
    net = tmp_path / "model.keras"
    (tmp_path / "last.keras").write_bytes(b"")
    with pytest.raises(RunError, match=r"holds no model\.keras") as caught:
        find_net(tmp_path)
    assert str(tmp_path) in str(caught.value)
    net.write_bytes(b"")
    assert find_net(tmp_path) == net
    assert find_net(net) == net
    # What does not exist is refused by what reads it.
    assert find_net(tmp_path / "other.keras") == tmp_path / "other.keras"
