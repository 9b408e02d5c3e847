"""Claims: who is at which scene of a folder, also after a process was killed at it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cloudnet.errors import OutputError
from cloudnet.files import remove

if sys.platform != "win32":
    import fcntl

    def _lock(file: BinaryIO, wait: bool) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
else:
    import msvcrt

    FAR = 2**40
    """Windows locks bytes; this one no file has, so that the file can still be read."""

    def _lock(file: BinaryIO, wait: bool) -> None:
        file.seek(FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)


TAKEN = b"taken\n"
"""Stands in a claim once its lock is held: nobody has been at a scene whose claim is empty."""

PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part(\..*)?", re.DOTALL)
"""Name of what `files.whole_file` has not published, or of a scratch folder, and the stem of its
product in it."""


class Claim:
    """This process is at a scene. Made by `take`; a killed process's claim stays as a file.

    Attributes
    ----------
    remains
        True where a process was killed at this scene: what lies there of its products is debris.
    """

    def __init__(self, path: Path, file: BinaryIO, remains: bool) -> None:
        self.remains = remains
        self._path = path
        self._file = file

    @classmethod
    def take(cls, folder: Path, name: str) -> Claim | None:
        """Claim the scene of a name; None where another process is at it.

        Raises
        ------
        OutputError
            When the folder cannot be written to.
        """
        path = claim_path(folder, name)
        try:
            file = _open_locked(path, wait=False)
            try:
                remains = file.seek(0, os.SEEK_END) > 0
                if not remains:
                    file.write(TAKEN)
                    file.flush()
            except BaseException:
                file.close()
                raise
        except BlockingIOError:
            return None
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
        return cls(path, file, remains)

    def release(self) -> None:
        """End it: the scene is in order."""
        with suppress(OSError):
            self._path.unlink()
        self._file.close()

    def leave(self) -> None:
        """End it as the death of the process would: the scene may be in the middle of anything."""
        self._file.close()


def claim_path(folder: Path, name: str) -> Path:
    """Return the file that says that a process is, or was killed, at the scene of a name."""
    return folder / f".{name}.claim"


@contextmanager
def lock_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading and appending; other processes that do the same wait.

    Raises
    ------
    OSError
        When it cannot be opened or locked.
    """
    with _open_locked(path, wait=True) as file:
        yield file


def _open_locked(path: Path, wait: bool) -> BinaryIO:
    """Open and lock the file that bears a name now: the last one may have been taken away."""
    while True:
        file = path.open("a+b")
        try:
            _lock(file, wait)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def stems(products: Iterable[Path]) -> frozenset[str]:
    """Return what `unpublished` and `sweep` know products by."""
    return frozenset(product.stem for product in products)


def unpublished(folder: Path) -> frozenset[str]:
    """Return the stems of products that have not been published, or never will be."""
    return frozenset(stem for stem, _ in _parts(folder))


def sweep(folder: Path, known: Collection[str]) -> None:
    """Remove the unpublished files and scratch folders of products with these stems."""
    for stem, path in _parts(folder):
        if stem in known:
            remove(path)


def _parts(folder: Path) -> list[tuple[str, Path]]:
    matches = ((PART.fullmatch(entry.name), entry.path) for entry in os.scandir(folder))
    return [(match[1], Path(path)) for match, path in matches if match]
