"""A server on this machine whose answers are spoiled on purpose, request by request."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = Callable[["Handler", bytes], bool]


@dataclass
class Served:
    """One file, and what is done to the requests for it, in turn; then it is served well.

    A fault returns whether the request is done with. asked: the headers of every request.
    """

    content: bytes
    tag: str | None = '"one"'
    ranges: bool = True
    length: bool = True
    faults: list[Fault] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    whole: int = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        file = self.server.files.get(self.path.partition("?")[0])
        self.send_response(404 if file is None else 200)
        self.send_header("Content-Length", str(0 if file is None else len(file.content)))
        self.end_headers()

    def do_GET(self):
        file = self.server.files.get(self.path.partition("?")[0])
        if file is None:
            self.answer(404)
            return
        with self.server.lock:
            file.asked.append(dict(self.headers))
            fault = file.faults.pop(0) if file.faults else None
        if fault is not None and fault(self, file.content):
            return
        self.serve(file)

    def serve(self, file: Served, status: int = 200, start: int = 0, stop: int | None = None):
        """The file or the range asked for, of which only what comes before `stop` is sent."""
        asked, end = self.headers.get("Range"), len(file.content)
        same = self.headers.get("If-Range") in (None, file.tag)
        if self.headers.get("If-Match") not in (None, file.tag):
            self.answer(412)
            return
        if asked and file.ranges and same:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, status, end = int(first), 206, min(end, int(last) + 1) if last else end
            if start >= len(file.content):
                self.answer(416)
                return
        body = file.content[start:end]
        self.send_response(status)
        if file.tag:
            self.send_header("ETag", file.tag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(file.content)}")
        if file.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body if stop is None else body[:stop])
        if stop is None and end == len(file.content):
            file.whole += 1

    def answer(self, status: int, body: bytes = b"", **headers: str):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def cut(self, reset: bool = False):
        """End the connection here, by a reset or quietly."""
        self.wfile.flush()
        if reset:
            now = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.lock = threading.Lock()

    def handle_error(self, *_):
        pass  # clients that go away are what is tested

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def slowly(piece: int, pause_s: float) -> Fault:
    """Send what is asked for in pieces, so slowly that a kill falls anywhere."""

    def fault(handler: Handler, content: bytes) -> bool:
        asked = handler.headers.get("Range", "bytes=0-")
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        handler.send_response(206 if start else 200)
        handler.send_header("ETag", '"one"')
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/*")
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        for first in range(start, len(content), piece):
            handler.wfile.write(content[first : first + piece])
            handler.wfile.flush()
            time.sleep(pause_s)
        return True

    return fault
