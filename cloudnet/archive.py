"""Zip archives from elsewhere: unpacked whole or not at all, and never outside their folder."""

from __future__ import annotations

import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from cloudnet.errors import FAILED, CloudnetError, OutputError

OnBytes: TypeAlias = Callable[[int, int], None]
"""Called with the number of bytes unpacked and of all bytes."""

CHUNK = 1 << 20

MOST_MEMBERS = 100_000
"""More files than any archive here has by far."""

FORBIDDEN = frozenset('\\:*?"<>|') | frozenset(map(chr, range(32)))
"""Characters that some system takes for a separator, a drive, a stream or a pattern."""

FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
)
"""What zipfile raises on archives that are damaged, encrypted or of a kind unknown to it."""


class ArchiveError(CloudnetError):
    """An archive is damaged, or holds what is not to be unpacked."""

    exit_code = FAILED


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes
    ----------
    info
        Its entry.
    path
        Where it goes, relative to the folder; proven to stay inside it.
    """

    info: zipfile.ZipInfo
    path: PurePosixPath


def unpack(
    archive: Path, folder: Path, *, max_bytes: int, on_bytes: OnBytes | None = None
) -> Counter[str]:
    """Unpack a zip archive to `folder`, which appears when all is there.

    A folder of the same name at the top of the archive is left out, so that both `masks/a.npy` and
    `a.npy` go to `folder/a.npy` when `folder` is called masks. Until all is unpacked it stands
    beside, in `NAME.part`; what an earlier, killed call left there is removed.

    Parameters
    ----------
    archive
        The zip file.
    folder
        May not be there, unless empty.
    max_bytes
        An archive that would unpack to more is refused.
    on_bytes
        Called after each piece.

    Returns
    -------
    Number of files by suffix.

    Raises
    ------
    ArchiveError
        When the archive is damaged, encrypted, or too large when unpacked; when a member's path
        leads out of the folder, is one that some system could take for such, or appears twice;
        when a member is a link or a device, or holds more or fewer bytes than its header says.
    OutputError
        When the folder is in the way or cannot be written, or the disk has not enough room.
    """
    if folder.is_symlink() or (folder.exists() and not _is_empty(folder)):
        raise OutputError(f"{folder} is in the way of what {archive.name} holds; move it away")
    scratch = _scratch(folder)
    with _opened(archive) as source:
        members = _members(source, archive, folder.name, max_bytes)
        total = sum(member.info.file_size for member in members)
        try:
            remove_leftovers(folder)
            scratch.mkdir(parents=True)
            require_room(folder.parent, total, f"to unpack {archive.name}")
            done = 0
            for member in members:
                for size in _extract(source, member, scratch, archive):
                    done += size
                    if on_bytes is not None:
                        on_bytes(done, total)
            if folder.exists():
                folder.rmdir()
            scratch.rename(folder)
        except OSError as error:
            raise OutputError(
                f"{archive} cannot be unpacked to {folder}: {error.strerror or error}"
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return Counter(member.path.suffix for member in members)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed `unpack` to `folder` left beside it."""
    scratch = _scratch(folder)
    try:
        if scratch.is_symlink() or scratch.is_file():
            scratch.unlink()
        elif scratch.exists():
            shutil.rmtree(scratch)
    except OSError as error:
        raise OutputError(f"{scratch} cannot be removed: {error.strerror or error}") from error


def require_room(folder: Path, size: int, purpose: str) -> None:
    """Raise OutputError unless the disk of `folder` has `size` bytes free."""
    if (free := shutil.disk_usage(folder).free) < size:
        raise OutputError(
            f"{folder} has {free / 1e9:.1f} GB free, and {size / 1e9:.1f} GB are needed {purpose}; "
            "make room, or give a folder on another disk"
        )


def is_unpacked(archive: Path, folder: Path) -> bool:
    """Tell whether `folder` holds every file of the archive at its size.

    Raises
    ------
    ArchiveError
        As `unpack` does, but for what only unpacking shows.
    """
    if not folder.is_dir():
        return False
    with _opened(archive) as source:
        members = _members(source, archive, folder.name, None)
    return all(_size(folder / member.path) == member.info.file_size for member in members)


def unpacked_bytes(archive: Path) -> int:
    """Return how many bytes an archive says that it unpacks to; raises as `is_unpacked`."""
    with _opened(archive) as source:
        return sum(member.info.file_size for member in _members(source, archive, "", None))


def list_members(archive: Path) -> list[Member]:
    """Return the files of an archive that is not to be unpacked; raises as `is_unpacked`."""
    with _opened(archive) as source:
        return _members(source, archive, "", None)


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive; what zipfile raises on it becomes ArchiveError."""
    try:
        with zipfile.ZipFile(archive) as source:
            yield source
    except FAULTS as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ArchiveError(
            f"{archive} cannot be unpacked ({cause}); remove it and get it again"
        ) from error
    except OSError as error:
        raise ArchiveError(f"{archive} cannot be read ({error.strerror or error})") from error


def _members(
    source: zipfile.ZipFile, archive: Path, top: str, max_bytes: int | None
) -> list[Member]:
    """Return the files of an archive, each with a path that is safe, once none is amiss."""
    entries = source.infolist()
    if len(entries) > MOST_MEMBERS:
        raise ArchiveError(f"{archive} holds {len(entries)} files, more than it may")
    paths = [_safe_path(info, archive) for info in entries]
    if paths and all(path.parts[:1] == (top,) for path in paths):
        paths = [PurePosixPath(*path.parts[1:]) for path in paths]
    members = [Member(info, path) for info, path in zip(entries, paths) if not info.is_dir()]
    # Case counts for nothing: on Windows and macOS two names would be one file.
    names = Counter(str(member.path).casefold() for member in members)
    names.update({str(path).casefold() for member in members for path in member.path.parents})
    for member in members:
        if names[str(member.path).casefold()] > 1:
            raise _refusal(archive, member.info, "stands there twice")
    total = sum(member.info.file_size for member in members)
    if max_bytes is not None and total > max_bytes:
        raise ArchiveError(
            f"{archive} says that it unpacks to {total / 1e9:.2f} GB, more than the "
            f"{max_bytes / 1e9:.2f} GB that it may; nothing was unpacked"
        )
    return members


def _safe_path(info: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """Return the path of an entry, proven to be a plain one to a plain file or folder."""
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise _refusal(archive, info, "leads out of the folder")
    if FORBIDDEN & set(name):
        raise _refusal(archive, info, "is no plain path")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refusal(archive, info, "is a link or a device")
    return path


def _extract(source: zipfile.ZipFile, member: Member, folder: Path, archive: Path) -> Iterator[int]:
    """Write a member below `folder`; yield the size of each piece."""
    target = folder / member.path
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.info.file_size
    with source.open(member.info) as stream, target.open("xb") as sink:
        while chunk := stream.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                break
            sink.write(chunk)
            yield len(chunk)
    if left:
        raise _refusal(archive, member.info, "does not hold as many bytes as its header says")


def _refusal(archive: Path, info: zipfile.ZipInfo, fault: str) -> ArchiveError:
    return ArchiveError(
        f"{archive} is refused: {info.orig_filename!r} in it {fault}; nothing was unpacked"
    )


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _scratch(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.part")
