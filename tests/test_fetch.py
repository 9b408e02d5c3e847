"""Fetching, against a server on this machine that breaks off, lies, and sends wrong bytes."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cloudnet import fetch
from cloudnet.errors import FAILED, USAGE, CloudnetError, OutputError
from cloudnet.fetch import FetchError, RemoteFile, Source, download, part_of, read_record

RECORD_PATH = "/api/records/4172871"


@dataclass
class Manners:
    """How a server behaves.

    Attributes
    ----------
    ranges
        Whether Range is honoured.
    breaks
        After how many bytes of an answer it breaks off, one answer after the other.
    statuses
        What it answers instead, one answer after the other; then it behaves.
    headers
        Sent too, and in place of its own; None: not sent.
    bodies
        Sent instead of a file's own bytes.
    moved
        Where a path leads to.
    silence_s
        How long it says nothing.
    """

    ranges: bool = True
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str | None] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    silence_s: float = 0.0


class RecordServer(ThreadingHTTPServer):
    """Serves a record and its files; `asked` is what it was asked for, with the Range."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.manners = Manners()
        self.asked: list[tuple[str, str | None]] = []
        self.record: bytes | None = None
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def home(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """Of the record."""
        return self.home + RECORD_PATH

    def source(self, **changes: Any) -> Source:
        return Source(**{"url": self.url, "timeout_s": 5.0, "tries": 3, "wait_s": 0.001, **changes})

    def remote(self, name: str) -> RemoteFile:
        return read_record(self.source())[name]

    def ranges_asked(self) -> list[str | None]:
        return [asked for path, asked in self.asked if path != RECORD_PATH]

    def describe(self) -> bytes:
        if self.record is not None:
            return self.record
        files = [
            {
                "key": name,
                "size": len(content),
                "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
                "links": {"self": f"{self.home}{RECORD_PATH}/files/{name}/content"},
            }
            for name, content in self.files.items()
        ]
        return json.dumps({"id": 4172871, "files": files}).encode()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: RecordServer

    def do_GET(self) -> None:
        manners, asked = self.server.manners, self.headers["Range"]
        self.server.asked.append((self.path, asked))
        if manners.silence_s:
            time.sleep(manners.silence_s)
        if self.path in manners.moved:
            self.reply(302, b"", {"Location": manners.moved[self.path]})
        elif manners.statuses:
            self.reply(manners.statuses.pop(0), b"no", manners.headers)
        elif self.path == RECORD_PATH:
            self.reply(200, self.server.describe(), {})
        else:
            self.send_file(self.path.split("/")[-2], asked)

    def send_file(self, name: str, asked: str | None) -> None:
        manners = self.server.manners
        body = manners.bodies.get(name, self.server.files.get(name, b""))
        begin = int(re.findall(r"\d+", asked)[0]) if asked and manners.ranges else 0
        where = {"Content-Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"} if begin else {}
        self.reply(206 if begin else 200, body[begin:], {**where, **manners.headers})

    def reply(self, status: int, body: bytes, headers: dict[str, str | None]) -> None:
        breaks = self.server.manners.breaks if self.path != RECORD_PATH else []
        # Before the headers: who has a redirect's is at the next answer at once.
        sent = body[: breaks.pop(0)] if breaks else body
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


CONTENT = bytes(range(256)) * 1200  # no piece of it that a read brings is like another's neighbour
NAME = "masks.zip"


@pytest.fixture
def server() -> Iterator[RecordServer]:
    with RecordServer({NAME: CONTENT, "other.csv": b"scene\n"}) as running:
        yield running
        running.shutdown()


def fetched(server: RecordServer, folder: Path, **changes: Any) -> Path:
    """Fetch NAME into a folder and return it."""
    path = folder / NAME
    download(server.remote(NAME), path, server.source(**changes))
    return path


# ---- the record


def test_a_record_lists_its_files(server: RecordServer) -> None:
    record = read_record(server.source())
    assert list(record) == [NAME, "other.csv"]
    md5 = hashlib.md5(CONTENT).hexdigest()
    url = f"{server.url}/files/{NAME}/content"
    assert record[NAME] == RemoteFile(NAME, len(CONTENT), md5, url)


MD5 = "0123456789abcdef0123456789abcdef"
OF_2023 = {"filename": "a.csv", "filesize": 3, "checksum": MD5}
OF_TODAY = {"key": "a.csv", "size": 3, "checksum": f"md5:{MD5.upper()}"}


@pytest.mark.parametrize(
    ("record", "path"),
    [
        ({"files": [{**OF_TODAY, "links": {"self": "https://x.org/a"}}]}, "https://x.org/a"),
        (
            {"files": [{**OF_2023, "links": {"self": "https://x.org/s", "download": "https://x.org/d"}}]},
            "https://x.org/d",
        ),
        (
            {"files": {"count": 1, "entries": {"a.csv": {**OF_TODAY, "links": {"content": "https://x.org/c"}}}}},
            "https://x.org/c",
        ),
        (
            {"entries": [{**OF_TODAY, "links": {"self": "https://x.org/s", "content": "https://x.org/c"}}]},
            "https://x.org/c",
        ),
        ({"files": [OF_TODAY]}, None),
    ],
)  # fmt: skip
def test_each_way_in_which_zenodo_listed_files(
    server: RecordServer, record: dict[str, Any], path: str | None
) -> None:
    server.record = json.dumps(record).encode()
    url = path or f"{server.url}/files/a.csv/content"
    assert read_record(server.source()) == {"a.csv": RemoteFile("a.csv", 3, MD5, url)}


@pytest.mark.parametrize(
    "record",
    [
        b"<html>log in here</html>",
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"files": 3}',
        b'{"files": ["a.csv"]}',
        b'{"files": [{"key": "a.csv", "size": 3}]}',
        b'{"files": [{"key": "a.csv", "size": -3, "checksum": "md5:%s"}]}' % MD5.encode(),
        b'{"files": [{"key": "a.csv", "size": "3", "checksum": "md5:%s"}]}' % MD5.encode(),
        b'{"files": [{"key": "a.csv", "size": 3, "checksum": "sha256:abc"}]}',
        b'{"files": [{"key": 5, "size": 3, "checksum": "md5:%s"}]}' % MD5.encode(),
        b'{"files": [{"key": "a.csv", "size": 3, "checksum": "md5:%s", "links": [1]}]}'
        % MD5.encode(),
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_an_answer_that_is_no_record_is_one_sentence(server: RecordServer, record: bytes) -> None:
    server.record = record
    with pytest.raises(FetchError, match="does not answer with a record") as caught:
        read_record(server.source())
    assert server.url in str(caught.value)


def test_a_record_that_breaks_off_is_asked_for_again(server: RecordServer) -> None:
    server.manners.statuses = [500]
    assert len(read_record(server.source())) == 2
    server.manners.statuses = [200]
    server.manners.headers = {"Content-Length": "99999"}
    assert len(read_record(server.source())) == 2


# ---- a file


def test_a_file_comes_whole(server: RecordServer, tmp_path: Path) -> None:
    told: list[int] = []
    checked: list[int] = []
    remote = server.remote(NAME)
    download(remote, tmp_path / NAME, server.source(), told.append, checked.append)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert told[0] == 0 and told[-1] == checked[-1] == len(CONTENT)
    assert told == sorted(told)
    assert list(tmp_path.iterdir()) == [tmp_path / NAME]
    assert server.ranges_asked() == [None]


def test_an_empty_file_comes_too(server: RecordServer, tmp_path: Path) -> None:
    server.files[NAME] = b""
    assert fetched(server, tmp_path).read_bytes() == b""


def test_a_broken_off_file_goes_on_where_it_was(server: RecordServer, tmp_path: Path) -> None:
    server.manners.breaks = [100_000, 50_000]
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges_asked() == [None, "bytes=100000-", "bytes=150000-"]


def test_without_a_content_length_too(server: RecordServer, tmp_path: Path) -> None:
    server.manners.headers = {"Content-Length": None}
    server.manners.breaks = [100_000]
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges_asked() == [None, "bytes=100000-"]


def test_a_server_that_ignores_ranges_is_asked_anew(server: RecordServer, tmp_path: Path) -> None:
    server.manners.ranges = False
    server.manners.breaks = [250_000, 50_000]
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges_asked() == [None, "bytes=250000-", "bytes=50000-"]


def test_what_came_stays_for_the_next_call(server: RecordServer, tmp_path: Path) -> None:
    server.manners.breaks = [100_000, 0, 0]
    with pytest.raises(FetchError, match=r"broke off after 100000 of 307200.*3 times in a row"):
        fetched(server, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["masks.zip.part"]
    assert part_of(tmp_path / NAME).read_bytes() == CONTENT[:100_000]
    server.asked.clear()
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges_asked() == ["bytes=100000-"]


def test_a_connection_that_brings_much_is_never_given_up(
    server: RecordServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "ADVANCE_BYTES", 20_000)
    server.manners.breaks = [30_000] * 10
    assert fetched(server, tmp_path, tries=2).read_bytes() == CONTENT


def test_one_that_begins_anew_each_time_is_given_up(
    server: RecordServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "ADVANCE_BYTES", 20_000)
    server.manners.ranges = False
    server.manners.breaks = [30_000] * 10
    with pytest.raises(FetchError, match="2 times in a row"):
        fetched(server, tmp_path, tries=2)
    assert len(server.ranges_asked()) == 2


class Killed(BaseException):
    """Ends a call at once, as Ctrl-C does."""


def test_a_killed_call_leaves_a_part_that_the_next_goes_on_from(
    server: RecordServer, tmp_path: Path
) -> None:
    def kill(done: int) -> None:
        if done > 100_000:
            raise Killed

    with pytest.raises(Killed):
        download(server.remote(NAME), tmp_path / NAME, server.source(), kill)
    left = part_of(tmp_path / NAME).stat().st_size
    assert 100_000 < left < len(CONTENT)
    assert not (tmp_path / NAME).exists()
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges_asked() == [None, f"bytes={left}-"]


def test_a_part_that_is_whole_is_only_checked(server: RecordServer, tmp_path: Path) -> None:
    part_of(tmp_path / NAME).write_bytes(CONTENT)
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges_asked() == []


def test_a_part_of_something_longer_is_begun_anew(server: RecordServer, tmp_path: Path) -> None:
    part_of(tmp_path / NAME).write_bytes(CONTENT + b"more")
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges_asked() == [None]


# ---- lies


@pytest.mark.parametrize("body", [CONTENT + b"more", CONTENT[:-1], b""])
def test_another_size_than_the_record_says_is_refused(
    server: RecordServer, tmp_path: Path, body: bytes
) -> None:
    server.manners.bodies = {NAME: body}
    words = f"offers {len(body)} bytes, the record says {len(CONTENT)}"
    with pytest.raises(FetchError, match=words):
        fetched(server, tmp_path)
    assert len(server.ranges_asked()) == 1
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("length", [10**9, 1000])
def test_a_header_that_lies_about_the_size_is_refused(
    server: RecordServer, tmp_path: Path, length: int
) -> None:
    server.manners.headers = {"Content-Length": str(length)}
    with pytest.raises(FetchError, match=f"offers {length} bytes"):
        fetched(server, tmp_path)
    assert not (tmp_path / NAME).exists()


def test_fewer_bytes_than_the_header_promises_break_off(
    server: RecordServer, tmp_path: Path
) -> None:
    server.manners.bodies = {NAME: CONTENT[:1000]}
    server.manners.headers = {"Content-Length": str(len(CONTENT))}
    with pytest.raises(FetchError, match="answers 'bytes 1000-999/1000'"):
        fetched(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("more", [b"", b"and more"])
def test_wrong_bytes_are_thrown_away(
    server: RecordServer, tmp_path: Path, length: bool, more: bytes
) -> None:
    server.manners.bodies = {NAME: CONTENT[::-1] + more}
    length_told = str(len(CONTENT)) if length else None
    server.manners.headers = {"Content-Length": length_told}
    with pytest.raises(FetchError, match="MD5") as caught:
        fetched(server, tmp_path)
    assert caught.value.exit_code == FAILED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "told", ["bytes 5-307199/307200", "bytes 1000-307199/307201", "pages 1-2/3", "bytes */307200"]
)
def test_a_range_that_was_not_asked_for_is_refused(
    server: RecordServer, tmp_path: Path, told: str
) -> None:
    part_of(tmp_path / NAME).write_bytes(CONTENT[:1000])
    server.manners.headers = {"Content-Range": told}
    with pytest.raises(FetchError, match="thrown away"):
        fetched(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- failures


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_a_refusal_is_one_sentence_at_once(
    server: RecordServer, tmp_path: Path, status: int
) -> None:
    server.manners.statuses = [status]
    with pytest.raises(FetchError, match=f"{RECORD_PATH} answers {status} ") as caught:
        read_record(server.source())
    assert len(server.asked) == 1
    assert "--url" in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: RecordServer, tmp_path: Path, status: int) -> None:
    remote = server.remote(NAME)
    server.manners.statuses = [status, status]
    download(remote, tmp_path / NAME, server.source())
    assert (tmp_path / NAME).read_bytes() == CONTENT
    server.manners.statuses = [status] * 3
    with pytest.raises(FetchError, match=f"answers {status} .*3 times in a row"):
        download(remote, tmp_path / NAME, server.source())


def test_pauses_grow_and_a_server_may_ask_for_longer_ones(
    server: RecordServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", pauses.append)
    server.manners.statuses = [503] * 4
    read_record(server.source(tries=5, wait_s=1.0))
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    server.manners.statuses = [429, 429, 429]
    server.manners.headers = {"Retry-After": "59"}
    read_record(server.source(tries=5, wait_s=1.0))
    assert pauses[-3:] == [59.0] * 3
    server.manners.statuses, server.manners.headers = [429], {"Retry-After": "86400"}
    read_record(server.source())
    assert pauses[-1] == fetch.LONGEST_WAIT_S


def test_out_of_range_begins_anew_next_time(server: RecordServer, tmp_path: Path) -> None:
    remote = server.remote(NAME)
    part_of(tmp_path / NAME).write_bytes(CONTENT[:1000])
    server.manners.statuses = [416]
    with pytest.raises(FetchError, match="416"):
        download(remote, tmp_path / NAME, server.source())
    assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_a_server_that_says_nothing_is_given_up(server: RecordServer) -> None:
    server.manners.silence_s = 0.5
    began = time.monotonic()
    with pytest.raises(FetchError, match=r"timed out.*2 times"):
        read_record(server.source(timeout_s=0.05, tries=2))
    assert time.monotonic() - began < 0.5


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = Source(f"http://127.0.0.1:{port}/x", tries=2, wait_s=0.0)
    with pytest.raises(FetchError, match="cannot be reached"):
        read_record(source)


def test_https_to_a_server_that_speaks_none_is_one_sentence(server: RecordServer) -> None:
    source = Source(server.url.replace("http:", "https:"), tries=2, wait_s=0.0, timeout_s=2.0)
    with pytest.raises(FetchError, match="cannot be reached"):
        read_record(source)


def test_a_part_that_cannot_be_written_is_one_sentence(
    server: RecordServer, tmp_path: Path
) -> None:
    part_of(tmp_path / NAME).mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        fetched(server, tmp_path)


def test_a_full_disk_leaves_what_came(
    server: RecordServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, room = Path.open, 100_000

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *why: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, piece: bytes) -> None:
            if self.file.tell() + len(piece) > room:
                raise OSError(28, "No space left on device")
            self.file.write(piece)

    monkeypatch.setattr(Path, "open", lambda path, mode: Full(real(path, mode)))
    with pytest.raises(OutputError, match="No space left on device"):
        fetched(server, tmp_path)
    monkeypatch.undo()
    assert 0 < part_of(tmp_path / NAME).stat().st_size <= room
    assert fetched(server, tmp_path).read_bytes() == CONTENT


# ---- where files may come from


@pytest.mark.parametrize(
    ("own", "url", "trusted"),
    [
        ("https://zenodo.org/api", "https://elsewhere.org/a", True),
        ("https://zenodo.org/api", "http://zenodo.org/a", False),
        ("https://zenodo.org/api", "http://127.0.0.1/a", False),
        ("https://zenodo.org/api", "file:///etc/passwd", False),
        ("https://zenodo.org/api", "ftp://zenodo.org/a", False),
        ("https://zenodo.org/api", "data:,a", False),
        ("https://zenodo.org/api", "//zenodo.org/a", False),
        ("https://zenodo.org/api", "https:///a", False),
        ("https://zenodo.org/api", "https://zenodo.org:port/a", False),
        ("https://zenodo.org/api", "https://[::1/a", False),
        ("https://zenodo.org/api", "", False),
        ("http://mirror.lan/api", "http://mirror.lan/a", True),
        ("http://mirror.lan/api", "http://mirror.lan:8080/a", False),
        ("http://mirror.lan/api", "http://127.0.0.1/a", False),
        ("http://mirror.lan/api", "http://elsewhere.lan/a", False),
        ("http://mirror.lan/api", "https://elsewhere.lan/a", True),
        ("http://127.0.0.1:80/api", "http://localhost:81/a", True),
        ("http://[::1]/api", "http://127.0.0.1:81/a", True),
        ("http://127.0.0.1/api", "http://zenodo.org/a", False),
    ],
)
def test_files_come_by_https_or_from_the_host_that_was_named(
    own: str, url: str, trusted: bool
) -> None:
    assert Source(own).trusts(url) is trusted


@pytest.mark.parametrize(
    "url",
    ["ftp://zenodo.org/a", "file:///etc/passwd", "zenodo.org/api", "", "https://", "http://:x"],
)
def test_an_address_of_another_kind_is_wrong_use(url: str) -> None:
    with pytest.raises(CloudnetError, match="--url") as caught:
        Source(url)
    assert caught.value.exit_code == USAGE


@pytest.mark.parametrize("changes", [{"tries": 0}, {"timeout_s": 0.0}, {"wait_s": -1.0}])
def test_settings_without_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CloudnetError):
        Source(**changes)


def test_a_link_to_plain_http_elsewhere_is_refused(server: RecordServer) -> None:
    record = json.loads(server.describe())
    record["files"][0]["links"]["self"] = "http://elsewhere.org/masks.zip"
    server.record = json.dumps(record).encode()
    with pytest.raises(FetchError, match="is refused"):
        read_record(server.source())


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://192.0.2.1/a", "data:,a"]
)
def test_a_redirect_to_elsewhere_is_refused(
    server: RecordServer, tmp_path: Path, target: str
) -> None:
    server.manners.moved = {f"{RECORD_PATH}/files/{NAME}/content": target}
    with pytest.raises(FetchError, match=re.escape(target)):
        fetched(server, tmp_path)
    assert not (tmp_path / NAME).exists()


def test_a_redirect_on_the_same_host_is_followed_with_its_range(
    server: RecordServer, tmp_path: Path
) -> None:
    server.manners.moved = {f"{RECORD_PATH}/files/{NAME}/content": f"/store/{NAME}/content"}
    server.manners.breaks = [0, 1000, 0]  # the redirect itself has no bytes to break off
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == (f"/store/{NAME}/content", "bytes=1000-")


def test_a_redirect_in_a_circle_ends(server: RecordServer, tmp_path: Path) -> None:
    path = f"{RECORD_PATH}/files/{NAME}/content"
    server.manners.moved = {path: path}
    with pytest.raises(FetchError, match="302"):
        fetched(server, tmp_path)


def test_https_never_leads_to_http(tmp_path: Path) -> None:
    class Answer:
        closed = False

        def close(self) -> None:
            self.closed = True

    answer = Answer()
    redirects = fetch._Redirects(Source("http://127.0.0.1/api"))
    request = urllib.request.Request("https://127.0.0.1/a")
    with pytest.raises(FetchError, match="refused"):
        redirects.redirect_request(request, answer, 302, "Found", {}, "http://127.0.0.1/a")
    assert answer.closed
    assert redirects.redirect_request(request, answer, 302, "Found", {}, "https://127.0.0.1/b")


def test_no_proxy_stands_between_this_machine_and_itself(
    server: RecordServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert NAME in read_record(server.source())
