"""The manifest: lines are whole, the last one of a scene counts, several processes may append."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cloudnet.errors import OutputError
from cloudnet.manifest import DONE, FAILED, Manifest, Record

ROOT = Path(__file__).parents[1]

RECORD = Record(
    scene="/data/a.tif",
    name="a",
    state=DONE,
    seconds=1.5,
    cloud_share=0.25,
    valid_share=1.0,
    error=None,
    model="tiny 1",
    model_sha256="0" * 64,
    threshold=0.5,
    settings="abc",
    cloudnet="0.1.0",
    finished="2026-11-25T12:00:00+00:00",
)
FAILURE = replace(RECORD, state=FAILED, error="/data/a.tif is cut short; get the file again – ü")


def lines(folder: Path) -> list[str]:
    return (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()


def test_a_record_is_a_line_that_is_read_back(tmp_path: Path) -> None:
    Manifest(tmp_path).append(FAILURE)
    (line,) = lines(tmp_path)
    assert json.loads(line)["error"] == FAILURE.error
    assert Manifest(tmp_path).last("/data/a.tif") == FAILURE
    assert Manifest(tmp_path).last("/data/b.tif") is None


def test_a_name_that_is_no_utf_8_is_kept_in_lines_that_are(tmp_path: Path) -> None:
    record = replace(RECORD, scene=os.fsdecode(b"/data/\xff \xc3\xbc.tif"))
    manifest = Manifest(tmp_path)
    for state in (FAILED, DONE):
        manifest.append(replace(record, state=state))
    assert Manifest(tmp_path).last(record.scene) == record
    manifest.compact()
    (line,) = lines(tmp_path)
    assert json.loads(line)["scene"] == record.scene
    assert "\\udcff ü" in line


def test_the_last_record_of_a_scene_counts_and_is_what_compacting_leaves(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    other = replace(RECORD, scene="/data/b.tif")
    for record in (FAILURE, other, RECORD):
        manifest.append(record)
    assert manifest.last(RECORD.scene) == RECORD
    assert len(lines(tmp_path)) == 3
    manifest.compact()
    assert lines(tmp_path) == [other.to_line(), RECORD.to_line()]
    manifest.append(FAILURE)
    assert Manifest(tmp_path).last(RECORD.scene) == FAILURE


def test_what_another_process_appends_is_taken_in(tmp_path: Path) -> None:
    ours, theirs = Manifest(tmp_path), Manifest(tmp_path)
    theirs.append(FAILURE)
    assert ours.last(RECORD.scene) is None
    ours.refresh()
    assert ours.last(RECORD.scene) == FAILURE
    theirs.append(RECORD)
    theirs.compact()
    ours.refresh()
    assert ours.last(RECORD.scene) == RECORD


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_last_line_half_written_is_passed_over(tmp_path: Path, share: float) -> None:
    path = tmp_path / "manifest.jsonl"
    line = replace(RECORD, scene="/data/half.tif").to_line()
    path.write_text(f"{RECORD.to_line()}\n{line[: int(len(line) * share)]}")
    manifest = Manifest(tmp_path)
    assert manifest.last(RECORD.scene) == RECORD
    assert manifest.last("/data/half.tif") is None
    manifest.append(replace(RECORD, scene="/data/next.tif"))
    again = Manifest(tmp_path)
    assert again.last(RECORD.scene) and again.last("/data/next.tif")
    assert again.last("/data/half.tif") is None


@pytest.mark.parametrize("line", ["7", "null", "{}", '{"scene": "/data/a.tif"}', "\x00\xff", "[]"])
def test_a_line_that_is_no_record_is_passed_over(tmp_path: Path, line: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(f"{line}\n{RECORD.to_line()}\n")
    assert Manifest(tmp_path).last(RECORD.scene) == RECORD


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"manifest\.jsonl cannot be read: Is a directory"):
        Manifest(tmp_path)


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {!r})
from tests.test_manifest import RECORD, Manifest
manifest = Manifest(Path(sys.argv[1]))
for number in range(60):
    manifest.append(replace(RECORD, scene=f"{{sys.argv[2]}} {{number}}", error="x" * 5000))
    if number % 7 == 0:
        manifest.compact()
"""


def test_processes_that_append_and_compact_at_once_lose_no_line(tmp_path: Path) -> None:
    code = WRITER.format(str(ROOT))
    command = [sys.executable, "-c", code, str(tmp_path)]
    writers = [subprocess.Popen([*command, name]) for name in "abc"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    found = {json.loads(line)["scene"] for line in lines(tmp_path)}
    assert found == {f"{name} {number}" for name in "abc" for number in range(60)}
