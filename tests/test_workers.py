"""Workers: processes side by side do as one does, and one that is killed loses no scene."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cloudnet import predict_dataset
from cloudnet.errors import BatchError, ComparisonError
from cloudnet.manifest import DONE, FAILED
from cloudnet.runtime import load_model
from cloudnet.task import Job, Outcome, Task, make_job, prepare
from cloudnet.workers import run_in_processes
from tests.test_batch import PLAIN, archive, bad, contents, net, recorded, scenes, started, wait_for
from tests.test_compare import tampered
from tests.test_predict import PASSED

__all__ = ["archive", "bad", "net", "scenes"]


@pytest.fixture
def job(net: Path, tmp_path: Path) -> Job:
    (tmp_path / "out").mkdir()
    return make_job(load_model(net), PASSED, tmp_path / "out", PLAIN, None)


def test_several_processes_make_the_same_bytes(
    scenes: tuple[Path, ...], bad: Path, net: Path, tmp_path: Path
) -> None:
    named = [*scenes, bad]
    one = predict_dataset(named, tmp_path / "one", net)
    two = predict_dataset(named, tmp_path / "two", net, jobs=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    for first, second in zip(one, two):
        assert replace(second, seconds=first.seconds, finished=first.finished) == first
    assert [record.state for record in two] == [DONE] * 4 + [FAILED]


def children(pid: int) -> list[int]:
    """Return the processes that a command has started for its scenes."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
    return [int(child) for child, line in lines.items() if b"spawn_main" in line]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found by /proc")
def test_a_worker_that_is_killed_loses_no_scene(archive: Path, net: Path, tmp_path: Path) -> None:
    with started(archive, tmp_path, net, "--jobs", "2") as command:
        wait_for(lambda: recorded(tmp_path) >= 4)
        os.kill(children(command.pid)[0], signal.SIGKILL)
        _, errors = command.communicate(timeout=120)
    assert (command.returncode, errors) == (0, "")
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["state"] for line in lines] == [DONE] * 16
    assert len(contents(tmp_path)) == 48
    assert not [name for name in contents(tmp_path) if name.startswith(".")]


def test_a_scene_that_kills_two_processes_has_failed(
    job: Job, scenes: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudnet.workers._serve", deadly)
    tasks = [Task(str(scenes[0]), "a"), Task("deadly", "deadly"), Task(str(scenes[1]), "b")]
    found = {task.name: outcome for task, outcome in run_in_processes(job, tasks, 1)}
    assert found["a"].error is None and found["b"].error is None
    error = found["deadly"].error or ""
    assert "each of 2 processes that did it was killed (SIGKILL)" in error


def deadly(pipe: object, job: Job) -> None:
    """Stand in for what a worker does: one kind of scene kills it."""
    pipe.send(None)  # type: ignore[attr-defined]
    while True:
        if pipe.recv().name == "deadly":  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)
        pipe.send(Outcome(1.0, 0.5, 1.0))  # type: ignore[attr-defined]


def test_a_process_that_dies_at_its_start_ends_the_run(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudnet.workers._serve", os._exit)
    with pytest.raises(BatchError, match="before it was ready"):
        [*run_in_processes(job, [Task("a.tif", "a")], 2)]


def test_each_process_replays_the_probe(
    job: Job, net: Path, scenes: tuple[Path, ...], tmp_path: Path
) -> None:
    """As where another machine, or another onnxruntime, says something else."""
    off = tampered(net, tmp_path / "off.onnx", weights=lambda array: array * 1.1)
    wrong = replace(job, content=off.read_bytes())
    with pytest.raises(ComparisonError, match="does not say what Keras says"):
        [*run_in_processes(wrong, [Task(str(scenes[0]), "a")], 2)]
    assert contents(job.folder) == {}


def test_other_versions_are_one_sentence(job: Job) -> None:
    other = replace(job, versions={**job.versions, "cloudnet": "99.1"})
    with pytest.raises(BatchError, match=r"the command cloudnet 99\.1.*; install the same on both"):
        prepare(other)


def test_a_folder_that_is_not_shared_is_noticed(job: Job, tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="is not to be seen by this worker"):
        prepare(replace(job, folder=tmp_path / "elsewhere"))


def test_the_settings_tell_what_the_products_depend_on(job: Job) -> None:
    same = replace(job, threads=7, options=replace(job.options, overwrite=True))
    assert same.settings == job.settings
    assert replace(job, sha256="1").settings != job.settings
    for change in ({"threshold": 0.6}, {"probability": True}, {"exact": True}):
        assert replace(job, options=replace(job.options, **change)).settings != job.settings
    reading = replace(job.reading, scale=2e-4)
    assert replace(job, reading=reading).settings != job.settings
