"""Fetching: the files of a Zenodo record, resumed where they broke off, and checked byte by byte.

A file grows as NAME.part and gets its name once size and MD5 are those of the record.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote, urlsplit

from cloudnet._version import __version__
from cloudnet.errors import FAILED, CloudnetError, OutputError

Result = TypeVar("Result")
OnBytes: TypeAlias = Callable[[int], None]
"""Called with the number of bytes done."""

RECORD_URL = "https://zenodo.org/api/records/4172871"
"""The Sentinel-2 Cloud Mask Catalogue (Francis, Mrziglod, Sidiropoulos and Muller 2020)."""

CHUNK = 1 << 16
MOST_JSON_BYTES = 10_000_000
ADVANCE_BYTES = 1 << 20
"""A connection that brought so many new bytes was worth it: failures are counted anew."""

LONGEST_WAIT_S = 120.0
BUSY = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Answers of a server that may do better later (RFC 9110, section 15; RFC 6585)."""

PARTIAL, OUT_OF_RANGE = 206, 416


class FetchError(CloudnetError):
    """A file could not be fetched, or is not what the record says."""

    exit_code = FAILED


class _WrongBytesError(FetchError):
    """What came is of no use, nor is what it was to be added to."""


class _BrokenError(Exception):
    """A connection failed in a way that is worth another try, after `wait_s` at least."""

    def __init__(self, cause: str, wait_s: float = 0.0) -> None:
        super().__init__(cause)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Source:
    """Where a record is, and how patiently it is asked for.

    Attributes
    ----------
    url
        Of the record in the API of Zenodo. Plain http is followed only to the host that this
        names, or on this machine when it names this machine.
    timeout_s
        A connection that is silent for so long is broken off.
    tries
        Failures in a row, none of which brought anything new, after which it is given up.
    wait_s
        Pause after the first failure; after each further one it is twice as long.
    """

    url: str = RECORD_URL
    timeout_s: float = 30.0
    tries: int = 6
    wait_s: float = 1.0

    def __post_init__(self) -> None:
        if not self.trusts(self.url):
            raise CloudnetError(f"{self.url!r} is no https address of a record; mend --url")
        if self.tries < 1 or not self.timeout_s > 0 or not self.wait_s >= 0:
            raise CloudnetError("tries are 1 or more, the timeout is above 0, the wait 0 or more")

    def trusts(self, url: str) -> bool:
        """Tell whether an address may be asked: https, or plain http where `url` itself is."""
        try:
            to, home = urlsplit(url), urlsplit(self.url)
            to_loopback, home_loopback = _is_loopback(to.hostname), _is_loopback(home.hostname)
            if not to.hostname or to.port == 0:
                return False
        except (ValueError, TypeError, AttributeError):
            return False
        near = to.netloc == home.netloc or (to_loopback and home_loopback)
        return to.scheme == "https" or (to.scheme == home.scheme == "http" and near)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a record.

    Attributes
    ----------
    name
        Its key in the record.
    size
        In bytes.
    md5
        32 hexadecimal digits in lower case.
    url
        Where its bytes are.
    """

    name: str
    size: int
    md5: str
    url: str


def read_record(source: Source) -> dict[str, RemoteFile]:
    """Ask for a record and return its files by name.

    Zenodo has listed them in three ways: in `files` with `key`, `size` and `md5:…` (before October
    2023 and again now), with `filename`, `filesize` and bare digits (for a while after), and in
    `entries`, as InvenioRDM does on which it runs.

    Raises
    ------
    FetchError
        When the server cannot be reached, does not know the record, or answers something else.
    """

    def ask() -> bytes:
        with _open(source.url, source) as response:
            text = _read(response, MOST_JSON_BYTES)
            if response.length and len(text) < MOST_JSON_BYTES:
                raise _BrokenError(f"{source.url} broke off after {len(text)} bytes")
            return text

    text = _patiently(ask, source, lambda: 0)
    try:
        record = json.loads(text)
        files = record["files"] if "files" in record else record["entries"]
        if isinstance(files, Mapping):
            files = files.get("entries", files)
        entries = files.values() if isinstance(files, Mapping) else files
        remotes = [_remote_file(entry, source) for entry in entries]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise FetchError(
            f"{source.url} does not answer with a record that lists files with size and MD5 "
            f"({type(error).__name__}: {error}); check --url"
        ) from error
    return {remote.name: remote for remote in remotes}


def _remote_file(entry: Mapping[str, Any], source: Source) -> RemoteFile:
    """Return a file of a record; raises ValueError, TypeError or LookupError where it is none."""
    name = entry["key"] if "key" in entry else entry["filename"]
    size = entry["size"] if "size" in entry else entry["filesize"]
    md5 = entry["checksum"].removeprefix("md5:").lower()
    if not isinstance(name, str) or not re.fullmatch("[0-9a-f]{32}", md5):
        raise ValueError(f"{name!r} has the checksum {md5!r}, no MD5")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError(f"{name!r} has the size {size!r}")
    links = entry.get("links") or {}
    built = f"{source.url.rstrip('/')}/files/{quote(name)}/content"
    url = links.get("content") or links.get("download") or links.get("self") or built
    if not source.trusts(url):
        raise FetchError(f"{source.url} says that {name} is at {url}, which is refused: no https")
    return RemoteFile(name, size, md5, url)


def download(
    remote: RemoteFile,
    path: Path,
    source: Source,
    on_bytes: OnBytes | None = None,
    on_check: OnBytes | None = None,
) -> None:
    """Fetch a file to `path`, which appears when all is there and right.

    What came so far stands in `part_of(path)`. It stays when the connection breaks off, or the
    caller does, and the next call asks for the rest; a server that ignores this is asked anew.

    Parameters
    ----------
    remote
        The file.
    path
        Where it goes; replaced if there.
    source
        How patiently it is asked for.
    on_bytes
        Called as it grows.
    on_check
        Called as its MD5 is taken.

    Raises
    ------
    FetchError
        When the server fails for good, offers another size than the record, or sent wrong bytes:
        then the part is thrown away.
    OutputError
        When the part cannot be written.
    """
    part = part_of(path)

    def go_on() -> None:
        _go_on(remote, part, source, on_bytes or (lambda done: None))

    try:
        _patiently(go_on, source, lambda: size_of(part))
        if md5_of(part, on_check) != remote.md5:
            raise _WrongBytesError(
                f"{remote.url} sent other bytes than the record's: their MD5 is not {remote.md5}; "
                "they were thrown away, so start again"
            )
        part.replace(path)
    except _WrongBytesError:
        part.unlink()
        raise
    except OSError as error:
        raise OutputError(
            f"{part} cannot be written: {error.strerror or error}; the same command goes on there"
        ) from error


def part_of(path: Path) -> Path:
    """Return where a file grows before it gets its name."""
    return path.with_name(f"{path.name}.part")


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def md5_of(path: Path, on_bytes: OnBytes | None = None) -> str:
    """Return the MD5 of a file: a check against damage, not against malice."""
    digest, done = hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            done += len(piece)
            if on_bytes is not None:
                on_bytes(done)
    return digest.hexdigest()


def _go_on(remote: RemoteFile, part: Path, source: Source, tell: OnBytes) -> None:
    """Ask once for the bytes that the part lacks, and add what comes."""
    if size_of(part) > remote.size:  # of another file
        part.unlink()
    part.touch()
    done = size_of(part)
    tell(done)
    if done == remote.size:
        return
    with _open(remote.url, source, done) as response:
        done = _first_byte(response, remote, done)
        with part.open("r+b") as file:
            file.truncate(done)
            file.seek(done)
            # What comes past the end is not asked for: the MD5 tells whether all is right.
            while piece := _read(response, min(CHUNK, remote.size - done)):
                file.write(piece)
                done += len(piece)
                tell(done)
    if done < remote.size:
        raise _BrokenError(f"{remote.url} broke off after {done} of {remote.size} bytes")


def _first_byte(response: Any, remote: RemoteFile, asked: int) -> int:
    """Return at which byte of the file an answer begins.

    Raises
    ------
    FetchError
        When the file there has another size than the record says, or it begins elsewhere.
    """
    if response.status == PARTIAL:
        given = response.headers["Content-Range"] or ""
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", given)
        if found is None or int(found[1]) != asked or found[2] not in ("*", str(remote.size)):
            raise _WrongBytesError(
                f"{remote.url} was asked for bytes from {asked} on, of {remote.size}, and answers "
                f"{given!r}; what came before was thrown away, so start again"
            )
        return asked
    offered = response.headers["Content-Length"]
    if offered is not None and offered != str(remote.size):
        raise FetchError(
            f"{remote.url} offers {offered} bytes, the record says {remote.size}; try again later"
        )
    return 0


def _patiently(step: Callable[[], Result], source: Source, reached: Callable[[], int]) -> Result:
    """Do `step` until it does not break off, with longer and longer pauses.

    Raises
    ------
    FetchError
        After `source.tries` failures in a row without anything new.
    """
    failures, best = 0, reached()
    while True:
        try:
            return step()
        except _BrokenError as error:
            if (now := reached()) >= best + ADVANCE_BYTES:
                failures, best = 0, now
            failures += 1
            if failures >= source.tries:
                raise FetchError(
                    f"{error}, {failures} times in a row; the same command goes on from there"
                ) from error
            pause_s = max(source.wait_s * 2 ** (failures - 1), error.wait_s)
            time.sleep(min(pause_s, LONGEST_WAIT_S))


def _open(url: str, source: Source, offset: int = 0) -> Any:
    """Ask for an address from a byte on; the caller closes the answer.

    Raises
    ------
    _BrokenError
        When another try may help.
    FetchError
        When none will.
    """
    headers = {"User-Agent": f"cloudnet/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        return _opener(source).open(request, timeout=source.timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            raise _failure(error, url) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise FetchError(f"{url} does not prove whose it is ({error.reason})") from error
        raise _BrokenError(f"{url} cannot be reached ({error.reason})") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise FetchError(f"{url!r} is no address ({error})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(f"{url} broke off ({_words(error)})") from error


def _failure(error: urllib.error.HTTPError, url: str) -> Exception:
    """Return what an answer other than success amounts to."""
    said = f"{url} answers {error.code} {error.reason}".rstrip()
    if error.code in BUSY:
        wait = error.headers.get("Retry-After") or ""
        return _BrokenError(said, float(wait) if wait.isdecimal() else 0.0)
    if error.code == OUT_OF_RANGE:
        return _WrongBytesError(f"{said}; what came before was thrown away, so start again")
    return FetchError(f"{said}; check --url, or try again later")


def _read(response: Any, most: int) -> bytes:
    """Read up to so many bytes; raises _BrokenError."""
    try:
        return bytes(response.read(most))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _BrokenError(f"{response.url} broke off ({_words(error)})") from error


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _is_loopback(host: str | None) -> bool:
    """Tell whether a host is this machine, without asking any other."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else, nor to where we may not go."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        secure = urlsplit(newurl).scheme == "https"
        if not self.source.trusts(newurl) or (req.type == "https" and not secure):
            fp.close()
            raise FetchError(f"{req.full_url} leads to {newurl}, which is refused: no https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(source: Source) -> urllib.request.OpenerDirector:
    """Return an opener that knows http and https and nothing else, such as file or ftp."""
    opener = urllib.request.OpenerDirector()
    # A proxy does not stand between this machine and itself.
    proxies: dict[str, str] | None = {} if _is_loopback(urlsplit(source.url).hostname) else None
    for handler in (
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(source),
    ):
        opener.add_handler(handler)
    return opener
