"""A small http server with ranges, which can be told to misbehave."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TYPES = {".json": "application/geo+json", ".tif": "image/tiff", ".jp2": "image/jp2"}


class Server(ThreadingHTTPServer):
    """Serves a folder on this machine.

    Attributes
    ----------
    ranges
        Answer requests for ranges with them.
    status
        Answer everything with this code where it is not None.
    most_bytes
        Break off after so many bytes of an answer.
    breaks_after
        Answer with nothing once so many bytes were sent.
    asked
        The path and the range of each request.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.ranges = True
        self.status: int | None = None
        self.most_bytes: int | None = None
        self.breaks_after: int | None = None
        self.asked: list[tuple[str, str]] = []
        self.sent = 0

    def handle_error(self, *_: object) -> None:
        """Say nothing: a reader that breaks off is no fault here."""

    def address(self, name: str) -> str:
        """Return the address of a file."""
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append((self.path, wanted))
        path = self.server.folder / unquote(urlsplit(self.path).path).lstrip("/")
        if self.server.status is not None or not path.is_file():
            self.send_error(self.server.status or 404)
            return
        content = path.read_bytes()
        size, match = len(content), re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        if match and self.server.ranges:
            first, last = int(match[1]), min(int(match[2] or size), size - 1)
            content = content[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", TYPES.get(path.suffix, "application/octet-stream"))
        self.end_headers()
        if self.server.most_bytes is not None and len(content) > self.server.most_bytes:
            content = content[: self.server.most_bytes]
            self.close_connection = True
        if self.server.breaks_after is not None and self.server.sent >= self.server.breaks_after:
            content = b""
            self.close_connection = True
        if self.command == "GET":
            self.server.sent += len(content)
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a folder for the length of the block."""
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
