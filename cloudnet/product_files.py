"""The files of a Sentinel-2 product, in a folder or in a zip that is read in place."""

from __future__ import annotations

import re
import zipfile
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from cloudnet.archive import FAULTS, ArchiveError, list_members
from cloudnet.errors import SceneError

METADATA = re.compile(r"(?:MTD_MSIL(?:1C|2A)|S2\w_\w+_MTD_SAFL(?:1C|2A)_\w+)\.xml")
"""Names of a product's metadata: since December 2016, and before."""

LEAST_RATIO = 0.999
"""Deflate adds five bytes to a block of 65,535 at most (RFC 1951, section 3.2.4)."""

GRANULES = "GRANULE"
MOST_XML_BYTES = 20_000_000
"""Several hundred times the size of real metadata."""

LARGEST_RATIO = 100
"""A zip squeezes metadata to a twentieth, and JPEG 2000, which is dense, hardly at all."""


class ProductFiles(ABC):
    """The files of one product.

    Attributes
    ----------
    path
        The folder or the zip.
    names
        Of the files, relative to the product's folder; in a folder, those at the top and those of
        the granules.
    """

    path: Path
    names: frozenset[str]

    @property
    def metadata(self) -> list[str]:
        """The names of metadata files at the top; a product has one."""
        return sorted(name for name in self.names if METADATA.fullmatch(name))

    @property
    def granules(self) -> list[str]:
        """The names of the granules' folders; a product in today's format has one."""
        prefix = f"{GRANULES}/"
        inside = (name.split("/") for name in self.names if name.startswith(prefix))
        return sorted({parts[1] for parts in inside if len(parts) > 2})

    @abstractmethod
    def label(self, name: str) -> str:
        """Return what the user knows a file by."""

    @abstractmethod
    def gdal_path(self, name: str) -> str:
        """Return what GDAL calls a file; raise SceneError where it is not to be given to GDAL."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of a small file; raise SceneError where it cannot be read."""


@dataclass(frozen=True)
class FolderFiles(ProductFiles):
    """A product's folder."""

    path: Path
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        try:
            found = [path for path in self.path.iterdir() if path.is_file()]
            found += [path for path in (self.path / GRANULES).rglob("*") if path.is_file()]
        except OSError as error:
            raise SceneError(f"{self.path} cannot be listed: {error.strerror}") from error
        names = (path.relative_to(self.path).as_posix() for path in found)
        object.__setattr__(self, "names", frozenset(names))

    def label(self, name: str) -> str:
        return str(self.path / name)

    def gdal_path(self, name: str) -> str:
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        path = self.path / name
        try:
            with path.open("rb") as file:
                content = file.read(MOST_XML_BYTES + 1)
        except OSError as error:
            raise SceneError(f"{path} cannot be read: {error.strerror or error}") from error
        return _not_too_large(content, str(path))


@dataclass(frozen=True)
class ZipFiles(ProductFiles):
    """A zip of a product, whose own folder may or may not stand at the top.

    Every member's path is checked, as if the zip were to be unpacked.
    """

    path: Path
    names: frozenset[str] = field(init=False)
    _members: dict[str, zipfile.ZipInfo] = field(init=False)

    def __post_init__(self) -> None:
        try:
            members = {str(member.path): member.info for member in list_members(self.path)}
        except ArchiveError as error:
            raise SceneError(str(error)) from error
        tops = {
            name.rpartition("/")[0]
            for name in members
            if name.count("/") < 2 and METADATA.fullmatch(name.rpartition("/")[2])
        }
        if len(tops) > 1:
            raise SceneError(
                f"{self.path} holds {len(tops)} products ({', '.join(sorted(tops))}); "
                "give each in a zip of its own"
            )
        prefix = f"{tops.pop()}/".lstrip("/") if tops else ""
        inside = {
            name.removeprefix(prefix): info
            for name, info in members.items()
            if name.startswith(prefix)
        }
        object.__setattr__(self, "_members", inside)
        object.__setattr__(self, "names", frozenset(inside))

    def label(self, name: str) -> str:
        return f"{self.path}/{self._members[name].filename}"

    def gdal_path(self, name: str) -> str:
        info = self._checked(name)
        return f"/vsizip/{{{self.path.absolute()}}}/{info.filename}"

    def read(self, name: str) -> bytes:
        info = self._checked(name)
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(info) as file:
                content = file.read(MOST_XML_BYTES + 1)
        except (*FAULTS, OSError) as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            raise SceneError(f"{self.label(name)} cannot be read ({cause})") from error
        return _not_too_large(content, self.label(name))

    def _checked(self, name: str) -> zipfile.ZipInfo:
        """Return a member whose sizes are credible and that no password protects."""
        info = self._members[name]
        stored = info.compress_type == zipfile.ZIP_STORED
        least = info.compress_size * (1.0 if stored else LEAST_RATIO) - (0 if stored else 64)
        most = info.compress_size * (1 if stored else LARGEST_RATIO)
        if not least <= info.file_size <= most:
            raise SceneError(
                f"{self.label(name)} says that {info.compress_size} bytes unpack to "
                f"{info.file_size}, which cannot be; get the zip again"
            )
        if info.flag_bits & 1:
            raise SceneError(f"{self.label(name)} is encrypted; unpack it first")
        return info


def _not_too_large(content: bytes, name: str) -> bytes:
    if len(content) > MOST_XML_BYTES:
        raise SceneError(f"{name} is far larger than any product's metadata; get the file again")
    return content
