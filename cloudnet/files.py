"""Files that appear whole or not at all, and folders that are fit to be written to."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudnet.errors import OutputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, renamed to it when the block ends without an error.

    The temporary name keeps the suffix, since several writers choose their format by it. Whatever
    ends the block early, Ctrl-C included, removes the temporary file.

    Raises
    ------
    OutputError
        When the folder cannot be written to or the disk is full.
    """
    scratch = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        os.replace(scratch, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def refuse_existing(paths: list[Path], overwrite: bool) -> None:
    """Raise OutputError if one of `paths` is there and may not be overwritten."""
    for path in paths:
        if path.is_dir():
            raise OutputError(f"{path} is a folder where a file is to be written; remove it")
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists; give --overwrite to replace it")


def writable_folder(folder: Path) -> Path:
    """Make `folder` if need be and prove that a file can be written into it.

    Raises
    ------
    OutputError
        When it is a file, or cannot be made or written to.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file where an output folder is needed")
    trial = folder / f".{uuid.uuid4().hex[:8]}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to: {error.strerror or error}") from error
    return folder


@contextmanager
def quiet(*categories: type[Warning]) -> Iterator[None]:
    """Silence warnings that are no news to the user, for the length of the block."""
    with warnings.catch_warnings():
        for category in categories:
            warnings.simplefilter("ignore", category)
        yield
