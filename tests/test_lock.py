"""Locks: one writer at a time, and a dead one stands in nobody's way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import pytest

from cloudnet.errors import OutputError
from cloudnet.lock import _touched, lock_path, output_lock

ROOT = Path(__file__).parents[1]

HOLD = """
import sys, time
from pathlib import Path
from cloudnet.lock import _touched, output_lock
with output_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holding(path: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock of an output."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def write_lock(path: Path, **holder: str | int) -> Path:
    lock = lock_path(path)
    lock.write_text(json.dumps({"host": socket.gethostname(), "started": "", **holder}))
    return lock


def test_a_lock_tells_its_holder_and_is_gone_afterwards(tmp_path: Path) -> None:
    with output_lock(tmp_path / "mask.tif"):
        (lock,) = tmp_path.iterdir()
        assert lock == lock_path(tmp_path / "mask.tif")
        assert lock.name.startswith(".")
        assert json.loads(lock.read_text())["pid"] == os.getpid()
        assert json.loads(lock.read_text())["host"] == socket.gethostname()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), output_lock(tmp_path / "mask.tif"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_is_refused_in_one_process(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    with output_lock(path):
        with (
            pytest.raises(OutputError, match=r"mask\.tif is being written by another"),
            output_lock(path),
        ):
            pytest.fail("two writers")
        assert lock_path(path).exists()
        with output_lock(tmp_path / "other.tif"):
            pass


def test_another_process_is_waited_out_and_a_killed_one_is_not(tmp_path: Path) -> None:
    """Killed and not yet waited for, it is a zombie, which answers to its number."""
    path = tmp_path / "mask.tif"
    process = holding(path)
    try:
        with (
            pytest.raises(OutputError, match=rf"number {process.pid} on .*; wait for it"),
            output_lock(path),
        ):
            pytest.fail("two writers")
        process.kill()
        time.sleep(0.2)
        with output_lock(path):
            assert json.loads(lock_path(path).read_text())["pid"] == os.getpid()
    finally:
        process.kill()
        process.communicate()
    assert list(tmp_path.iterdir()) == []


def test_a_number_given_anew_is_another_process(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("the system does not tell when a process started")
    write_lock(tmp_path / "mask.tif", pid=os.getppid(), started="1", token="x")
    with output_lock(tmp_path / "mask.tif"):
        pass


def test_an_earlier_process_of_our_own_number_is_dead(tmp_path: Path) -> None:
    """As in a container that is started again, whose numbers are small and few."""
    write_lock(tmp_path / "mask.tif", pid=os.getpid(), token="of the one before")
    with output_lock(tmp_path / "mask.tif"):
        pass


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats and a lease that tests can wait for."""
    monkeypatch.setattr("cloudnet.lock.BEAT_S", 0.1)
    monkeypatch.setattr("cloudnet.lock.LOOK_S", 0.05)
    for lease in ("LEASE_S", "MAKING_S"):
        monkeypatch.setattr(f"cloudnet.lock.{lease}", 1.0)


UNTOLD = ["", "no JSON", "[]", '{"pid": "x"}', '{"pid": 1, "host": "elsewhere", "token": "x"}']
"""Locks of which this machine cannot tell whether their process lives; one is just being made."""


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("content", UNTOLD)
def test_a_lock_that_beats_is_believed(tmp_path: Path, content: str) -> None:
    lock = lock_path(tmp_path / "mask.tif")
    lock.write_text(content)
    with (
        _touched(lock),  # as its holder on another machine does
        pytest.raises(OutputError, match=r"remove .*\.mask\.tif\.lock if there is none") as refused,
        output_lock(tmp_path / "mask.tif"),
    ):
        pytest.fail("two writers")
    assert ("on elsewhere" in str(refused.value)) is ("elsewhere" in content)
    assert list(tmp_path.iterdir()) == [lock]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("content", UNTOLD)
def test_a_lock_that_beats_no_more_is_taken_over(tmp_path: Path, content: str) -> None:
    """One that was touched just now once its lease is over, an old one at once."""
    lock = lock_path(tmp_path / "mask.tif")
    for age_s, least_s, most_s in ((0.0, 0.9, 30.0), (3600.0, 0.0, 0.9)):
        lock.write_text(content)
        then = time.time() - age_s
        os.utime(lock, (then, then))
        began = time.monotonic()
        with output_lock(tmp_path / "mask.tif"):
            assert least_s <= time.monotonic() - began <= most_s
            assert json.loads(lock.read_text())["pid"] == os.getpid()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("short")
def test_a_lock_whose_process_was_killed_as_it_made_it_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudnet.lock.LEASE_S", 60.0)
    lock_path(tmp_path / "mask.tif").touch()
    began = time.monotonic()
    with output_lock(tmp_path / "mask.tif"):
        assert time.monotonic() - began < 30.0


@pytest.mark.usefixtures("short")
def test_a_lock_that_is_given_back_while_it_is_watched_is_made_anew(tmp_path: Path) -> None:
    lock = lock_path(tmp_path / "mask.tif")
    lock.write_text(UNTOLD[-1])
    threading.Timer(0.2, lock.unlink).start()
    began = time.monotonic()
    with output_lock(tmp_path / "mask.tif"):
        assert time.monotonic() - began < 0.9


@pytest.mark.usefixtures("short")
def test_a_holder_touches_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    with output_lock(path):
        os.utime(lock_path(path), (0, 0))
        time.sleep(0.5)
        assert lock_path(path).stat().st_mtime > 0


def test_a_lock_that_another_took_over_is_left_to_it(tmp_path: Path) -> None:
    """As where this process was stopped for longer than the lease."""
    path = tmp_path / "mask.tif"
    with output_lock(path):
        write_lock(path, pid=1, host="elsewhere", token="theirs")
    assert json.loads(lock_path(path).read_text())["token"] == "theirs"


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"mask\.tif cannot be locked: No such file"),
        output_lock(tmp_path / "gone" / "mask.tif"),
    ):
        pytest.fail("locked nothing")


def _enter(path: Path, wins: Path) -> None:
    try:
        with output_lock(path):
            (wins / str(os.getpid())).write_text(str(time.monotonic_ns()))
            time.sleep(0.3)
    except OutputError:
        pass


def test_of_many_that_take_over_at_once_one_wins(tmp_path: Path) -> None:
    write_lock(tmp_path / "mask.tif", pid=2**22 + 1, token="dead")
    wins = tmp_path / "wins"
    wins.mkdir()
    processes = [
        get_context("fork").Process(target=_enter, args=(tmp_path / "mask.tif", wins))
        for _ in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    times = sorted(int(path.read_text()) for path in wins.iterdir())
    assert times
    assert all(later - earlier > 0.29e9 for earlier, later in pairwise(times))
