"""The manifest of an archive: what became of each scene, a line each, that survives any end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from cloudnet.claims import lock_file
from cloudnet.errors import OutputError
from cloudnet.files import whole_file

MANIFEST_NAME = "manifest.jsonl"

DONE, SKIPPED, FAILED = "done", "skipped", "failed"
STATES = (DONE, SKIPPED, FAILED)

ESCAPE = "backslashreplace"
"""How bytes of a file's name that are no UTF-8 are written: JSON gives them back."""


@dataclass(frozen=True)
class Record:
    """What became of a scene: a line of the manifest.

    Attributes
    ----------
    scene, name
        Its absolute path or address, and the name that its products bear.
    state
        "done"; "skipped", as its products were there; "failed".
    seconds
        From opening the scene to its products; 0 where nothing was done.
    cloud_share, valid_share
        As in `Prediction`; None where nothing was done.
    error
        Why it failed or was skipped: a sentence.
    model, model_sha256, threshold
        Name and version, digest of the file, probability from which a pixel is cloud.
    settings
        Digest of the model and of every option that the products depend on.
    cloudnet
        The version that did it.
    finished
        When: ISO 8601, UTC.
    stamp
        Of the scene's files as they were read, as `task.scene_stamp` gives it.
    note
        As in `Prediction`.
    """

    scene: str
    name: str
    state: str
    seconds: float
    cloud_share: float | None
    valid_share: float | None
    error: str | None
    model: str
    model_sha256: str
    threshold: float
    settings: str
    cloudnet: str
    finished: str
    stamp: str | None = None
    note: str | None = None

    def to_line(self) -> str:
        """Return the record as JSON on one line, without its end."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)


_NEEDED = frozenset(field.name for field in fields(Record) if field.default is MISSING)


class Manifest:
    """The records of a folder, each appended whole; the last one of a scene counts.

    Several processes may append to one manifest. A last line that a killed process left half
    written is passed over, and so is any other that is no record.

    Parameters
    ----------
    folder
        Of the products.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / MANIFEST_NAME
        self._records: dict[str, Record] = {}
        self._inode, self._read_bytes = -1, 0
        self.refresh()

    def last(self, scene: str) -> Record | None:
        """Return the last record of a scene, by its absolute path or address."""
        return self._records.get(scene)

    def refresh(self) -> None:
        """Take in what this and other processes have appended since.

        Raises
        ------
        OutputError
            When the manifest cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                self._take_in(file)
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def append(self, record: Record) -> None:
        """Append a record, on the disk when this returns.

        Raises
        ------
        OutputError
            When it cannot be written.
        """
        line = f"{record.to_line()}\n".encode(errors=ESCAPE)
        with self._locked() as file:
            if file.seek(0, os.SEEK_END) and not self._ends_whole(file):
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.refresh()

    def compact(self) -> None:
        """Leave one line a scene, its last; nothing is written where that is so already.

        Raises
        ------
        OutputError
            When it cannot be written.
        """
        if not self.path.exists():
            return
        with self._locked() as file:
            self._inode = -1
            self._take_in(file)
            file.seek(0)
            if file.read().count(b"\n") == len(self._records):
                return
            lines = [f"{record.to_line()}\n" for record in self._records.values()]
            content = "".join(lines).encode(errors=ESCAPE)
            with whole_file(self.path) as scratch, scratch.open("wb") as fresh:
                fresh.write(content)
                fresh.flush()
                os.fsync(fresh.fileno())

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """Open the manifest for reading and appending, by one process at a time."""
        try:
            with lock_file(self.path) as file:
                yield file
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}"
            ) from error

    @staticmethod
    def _ends_whole(file: BinaryIO) -> bool:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"

    def _take_in(self, file: BinaryIO) -> None:
        """Read the whole lines that are new; all of them where the file is another one."""
        inode = os.fstat(file.fileno()).st_ino
        if inode != self._inode:
            self._inode, self._read_bytes = inode, 0
            self._records.clear()
        file.seek(self._read_bytes)
        lines, end, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(lines) + len(end)
        for line in lines.splitlines():
            if record := _parse(line):
                # To its end: a dict keeps the place of a key that it has.
                self._records.pop(record.scene, None)
                self._records[record.scene] = record


def _parse(line: bytes) -> Record | None:
    """Return the record of a line; None where it is none of this version's."""
    try:
        values: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not values.keys() >= _NEEDED:
        return None
    known = [field.name for field in fields(Record) if field.name in values]
    record = Record(**{name: values[name] for name in known})
    return record if isinstance(record.scene, str) and record.state in STATES else None
