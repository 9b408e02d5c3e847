"""Locks: one process at a time writes an output; what a dead one left behind is taken over."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeAlias
from uuid import uuid4

from cloudnet.errors import OutputError

if sys.platform != "win32":
    import fcntl

Holder: TypeAlias = dict[str, str | int]

_held: set[str] = set()
"""Tokens of the locks that this process holds."""


@contextmanager
def output_lock(path: Path) -> Iterator[None]:
    """Be the only one to write an output, for the length of the block.

    A file `.NAME.lock` beside the output tells who writes it. One that a dead process of this
    machine left is taken over (not on Windows); one of another machine is believed.

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
            yield
        finally:
            with suppress(OSError):
                lock.unlink()
    finally:
        _held.discard(str(holder["token"]))


def lock_path(path: Path) -> Path:
    """Return where the lock of an output lies."""
    return path.with_name(f".{path.name}.lock")


def _acquire(path: Path, lock: Path, holder: Holder) -> None:
    """Make the lock or take it over; where one is given back meanwhile, try again."""
    while True:
        try:
            _make(lock, holder)
            return
        except FileExistsError:
            pass
        except OSError as error:
            raise OutputError(f"{path} cannot be locked: {error.strerror or error}") from error
        try:
            if _take_over(lock, holder):
                return
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OutputError(f"{lock} cannot be read: {error.strerror or error}") from error
        raise OutputError(
            f"{path} is being written by another process{_named(lock)}; wait for it, or remove "
            f"{lock} if there is none"
        )


def _make(lock: Path, holder: Holder) -> None:
    """Make a lock; one that there is no room to write is none."""
    with lock.open("x", encoding="utf-8") as file:
        try:
            json.dump(holder, file)
            file.flush()
        except OSError:
            lock.unlink()
            raise


def _take_over(lock: Path, holder: Holder) -> bool:
    """Put our name into a lock whose process is dead; two that try at once do so in turn."""
    if sys.platform == "win32":
        return False
    with lock.open("r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # one is at it, or the file system knows no such locks
            return False
        if not os.path.samestat(os.fstat(file.fileno()), lock.stat()):
            raise FileNotFoundError(lock)
        if _alive(_read(file)):
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


def _alive(holder: Holder) -> bool:
    """Tell whether the process that made a lock may still be at work.

    A number that the system gave to a later process is told by when that one started; a worker
    that was killed and not yet waited for is dead.
    """
    pid, host = holder.get("pid"), holder.get("host")
    if not isinstance(pid, int) or host != socket.gethostname():
        return True
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
