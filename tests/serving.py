"""A web server on this machine that sends parts of files, or does not, and can lose connections."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from attrs import Factory, define


@define
class Served:
    """What a server sends, and what it was asked for.

    Args:
        files: contents by path.
        parts: whether it answers requests for parts.
        lost_after: bytes after which each connection is lost; None = never.
        tagged: whether it identifies its files by their digests.
        moved: paths that are answered with another path.
        asked: path and header `Range` of each request.
        address: of the server.
    """

    files: dict[str, bytes]
    parts: bool = True
    lost_after: int | None = None
    tagged: bool = False
    moved: dict[str, str] = Factory(dict)
    asked: list[tuple[str, str | None]] = Factory(list)
    address: str = ""


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            served.asked.append((self.path, wanted))
            if self.path in served.moved:
                self.send_response(302)
                self.send_header("Location", served.moved[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if self.path not in served.files:
                self.send_error(404)
                return
            content, first = served.files[self.path], 0
            tag = f'"{hashlib.md5(content).hexdigest()}"' if served.tagged else None
            if wanted and served.parts and self.headers["If-Range"] in (None, tag):
                first = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if first >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if tag is not None:
                self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            self.wfile.write(content[first:][: served.lost_after])

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
