"""Locks: one process at a time writes an output; what a dead one left behind is taken over."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeAlias
from uuid import uuid4

from cloudnet.errors import OutputError

if sys.platform != "win32":
    import fcntl

Holder: TypeAlias = dict[str, str | int]

BEAT_S = 5.0
"""A holder touches its lock as often."""

LEASE_S = 180.0
"""A lock of another machine is its holder's as long without a beat. Tracing the outlines of a mask
keeps every thread of a process from running, and may take a minute."""

MAKING_S = 15.0
"""A lock that names nobody is just being made, or its process was killed at that moment: the lease
of such a one. Disks of other machines may show a file some seconds before what is in it."""

LOOK_S = 1.0
"""How often a lock of another machine is looked at until it beats."""

_held: set[str] = set()
"""Tokens of the locks that this process holds."""


@contextmanager
def output_lock(path: Path) -> Iterator[None]:
    """Be the only one to write an output, for the length of the block.

    A file `.NAME.lock` beside the output tells who writes it, and is touched every few seconds
    meanwhile. One that a dead process of this machine left is taken over at once (not on Windows).
    Of another machine's process nobody here can tell but by its touch: one that was touched within
    the lease is watched until it is again, and the output refused, or until the lease is over, and
    the lock taken over.

    Parameters
    ----------
    path
        The output, in a folder that exists. Files that are written together need one lock.

    Raises
    ------
    OutputError
        When another process or thread writes it, or the lock cannot be made.
    """
    lock = lock_path(path)
    holder = _this_process()
    _held.add(str(holder["token"]))
    try:
        _acquire(path, lock, holder)
        try:
            with _touched(lock):
                yield
        finally:
            _release(lock, holder)
    finally:
        _held.discard(str(holder["token"]))


def lock_path(path: Path) -> Path:
    """Return where the lock of an output lies."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def _touched(lock: Path) -> Iterator[None]:
    """Touch a lock every few seconds, by the clock of the disk that it is on."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(BEAT_S):
            with suppress(OSError):
                os.utime(lock)

    thread = threading.Thread(target=touch, name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _release(lock: Path, holder: Holder) -> None:
    """Take our lock away; one whose lease we let run out may be another's by now."""
    with suppress(OSError):
        with lock.open(encoding="utf-8") as file:
            ours = _read(file).get("token") == holder["token"]
        if ours:
            lock.unlink()


class _Watch:
    """What has been seen of the lock of a holder of whom only its touch tells whether it lives."""

    def __init__(self) -> None:
        self.lives = False
        self.lease_s = LEASE_S
        self._touched: float | None = None
        self._age_s = 0.0
        self._began = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the lease has run out."""
        return self._age_s + time.monotonic() - self._began > self.lease_s

    def look(self, lock: Path, touched: float) -> None:
        """Take in when the lock was touched last."""
        if self._touched is None:
            self._age_s = max(_now_beside(lock, touched) - touched, 0.0)
        elif touched != self._touched:
            self.lives = True
        self._touched = touched


def _now_beside(lock: Path, otherwise: float) -> float:
    """Return the time by the clock of the disk that a lock is on."""
    trial = lock.with_name(f".{uuid4().hex[:8]}.part")
    try:
        trial.touch()
        now = trial.stat().st_mtime
        trial.unlink()
    except OSError:
        return otherwise
    return now


def _acquire(path: Path, lock: Path, holder: Holder) -> None:
    """Make the lock or take it over; where one is given back meanwhile, try again."""
    watch = _Watch()
    while True:
        try:
            _make(lock, holder)
            return
        except FileExistsError:
            pass
        except OSError as error:
            raise OutputError(f"{path} cannot be locked: {error.strerror or error}") from error
        try:
            if _take_over(lock, holder, watch):
                return
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OutputError(f"{lock} cannot be read: {error.strerror or error}") from error
        if watch.lives or watch.is_over:
            raise OutputError(
                f"{path} is being written by another process{_named(lock)}; wait for it, or remove "
                f"{lock} if there is none"
            )
        time.sleep(LOOK_S)


def _make(lock: Path, holder: Holder) -> None:
    """Make a lock; one that there is no room to write is none."""
    with lock.open("x", encoding="utf-8") as file:
        try:
            json.dump(holder, file)
            file.flush()
        except OSError:
            lock.unlink()
            raise


def _take_over(lock: Path, holder: Holder, watch: _Watch) -> bool:
    """Put our name into a lock whose process is dead; two that try at once do so in turn."""
    if sys.platform == "win32":
        watch.lives = True
        return False
    with lock.open("r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # one is at it, or the file system knows no such locks
            return False
        if not os.path.samestat(os.fstat(file.fileno()), lock.stat()):
            raise FileNotFoundError(lock)
        other = _read(file)
        watch.lease_s = LEASE_S if other else MAKING_S
        if _is_here(other):
            watch.lives = _alive(other)
        else:
            watch.look(lock, os.fstat(file.fileno()).st_mtime)
        if watch.lives or not (_is_here(other) or watch.is_over):
            return False
        file.seek(0)
        json.dump(holder, file)
        file.truncate()
        return True


def _read(file: IO[str]) -> Holder:
    """Return who holds a lock; empty where it does not say, as when it is just being made."""
    try:
        holder = json.load(file)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _named(lock: Path) -> str:
    """Return who holds a lock, in brackets, as far as it is known."""
    try:
        with lock.open(encoding="utf-8") as file:
            holder = _read(file)
    except OSError:
        return ""
    return (
        f" (number {holder['pid']} on {holder['host']})" if {"pid", "host"} <= set(holder) else ""
    )


def _this_process() -> Holder:
    pid = os.getpid()
    return {
        "pid": pid,
        "host": socket.gethostname(),
        "started": _started(pid),
        "token": uuid4().hex,
    }


def _is_here(holder: Holder) -> bool:
    """Tell whether a lock says that a process of this machine made it."""
    return isinstance(holder.get("pid"), int) and holder.get("host") == socket.gethostname()


def _alive(holder: Holder) -> bool:
    """Tell whether the process of this machine that made a lock may still be at work.

    A number that the system gave to a later process is told by when that one started; a worker
    that was killed and not yet waited for is dead.
    """
    pid = int(holder["pid"])
    if pid == os.getpid():
        return holder.get("token") in _held
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    started = _started(pid)
    return started != "dead" and holder.get("started") in ("", started)


def _started(pid: int) -> str:
    """Return when a process started, in a form of the system's own; "" where it does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *numbers = stat.rpartition(")")[2].split()
    return "dead" if state in "ZX" else numbers[18]
