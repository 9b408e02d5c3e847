"""Files that appear whole or not at all, and folders that are fit to be written to."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cloudnet.errors import OutputError

FULL_BYTES = 100_000
"""A disk with less room than this is taken to be why a write failed."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, renamed to it when the block ends without an error.

    The temporary name keeps the suffix, since several writers choose their format by it. Whatever
    ends the block early, Ctrl-C included, removes the temporary file.

    Raises
    ------
    OutputError
        When `path` is a folder or a device, the folder cannot be written to, or the disk is full:
        any OSError of the block counts as one of writing.
    """
    _refuse_non_file(path)
    scratch = _scratch(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        scratch.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {_cause(error, path.parent)}") from error
    finally:
        # Where the folder itself is at fault, unlink fails too and would hide the reason.
        with suppress(OSError):
            scratch.unlink()


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Give a folder beside `path` for what is written on the way to it; removed with the block."""
    folder = _scratch(path).with_suffix("")
    folder.mkdir()
    try:
        yield folder
    except OSError as error:
        # Once the folder is gone there is room again, and the cause could not be told.
        raise OSError(error.errno or 0, _cause(error, folder)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(path: Path) -> None:
    """Remove what a killed process left on its way to `path`; call it under the output's lock."""
    for left in path.parent.glob(f".{glob.escape(path.stem)}.{'[0-9a-f]' * 8}.part*"):
        remove(left)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")


def _cause(error: OSError, folder: Path) -> str:
    """Return why in one line; GDAL does not say so when the disk is full."""
    if error.strerror is None and folder.is_dir() and shutil.disk_usage(folder).free < FULL_BYTES:
        return os.strerror(errno.ENOSPC)
    return error.strerror or " ".join(str(error.__cause__ or error).split()) or type(error).__name__


def is_utf8(path: Path) -> bool:
    """Tell whether a path's bytes are UTF-8, as rasterio takes them."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def refuse_existing(paths: list[Path], overwrite: bool) -> None:
    """Raise OutputError if one of `paths` is there and may not be overwritten."""
    for path in paths:
        _refuse_non_file(path)
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists; give --overwrite to replace it")


def writable_folder(folder: Path) -> Path:
    """Make `folder` if need be and prove that a file can be written into it.

    Raises
    ------
    OutputError
        When it is a file, or cannot be made or written to.
    """
    if not is_utf8(folder.absolute()):
        raise OutputError(f"{folder} has a name that is no UTF-8; give another folder")
    trial = folder / f".{uuid.uuid4().hex[:8]}.part"
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file where an output folder is needed")
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to: {_cause(error, folder)}") from error
    return folder


def _refuse_non_file(path: Path) -> None:
    """Raise OutputError where a rename would fail, or would replace a device such as /dev/null."""
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder where a file is to be written; name a file")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path} is a device and cannot be replaced; name a file")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {_cause(error, path.parent)}") from error


class _Filters:
    """The warning filters as they were before the first of the blocks now open in any thread."""

    lock = threading.Lock()
    saved: warnings.catch_warnings[None] | None = None
    users = 0


@contextmanager
def quiet(*categories: type[Warning]) -> Iterator[None]:
    """Silence warnings that are no news to the user, for the length of the block.

    Python's filters belong to the process, and `warnings.catch_warnings` in two threads at once
    may leave them changed for good. Here they come back when the last of the blocks ends.
    """
    with _Filters.lock:
        if _Filters.users == 0:
            _Filters.saved = warnings.catch_warnings()
            _Filters.saved.__enter__()
        _Filters.users += 1
        for category in categories:
            warnings.simplefilter("ignore", category)
    try:
        yield
    finally:
        with _Filters.lock:
            _Filters.users -= 1
            if _Filters.users == 0 and _Filters.saved is not None:
                _Filters.saved.__exit__(None, None, None)
                _Filters.saved = None
