"""A way to a server on this machine that breaks where a test wants it to."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

BLOCK = 4096


class Relay:
    """Passes bytes on between clients and a server, a thread a direction of each connection.

    stops: of the connections to come, after how many bytes of the server's each is cut; those
    after them are not. holds: instead of being cut it passes nothing more, and says so by `held`.
    asked: all that clients have sent.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.stops: list[int] = []
        self.holds = False
        self.held = threading.Event()
        self.asked = bytearray()

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            stop = self.stops.pop(0) if self.stops else None
            server = socket.create_connection(("127.0.0.1", self._server))
            for work in ((self._ask, client, server), (self._answer, client, server, stop)):
                threading.Thread(target=work[0], args=work[1:], daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def requests(self) -> list[str]:
        """The head of every request, in lower case."""
        return [head for head in self.asked.decode("latin-1").lower().split("\r\n\r\n") if head]

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while block := client.recv(BLOCK):
                self.asked += block
                server.sendall(block)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _answer(self, client: socket.socket, server: socket.socket, stop: int | None) -> None:
        passed = 0
        with suppress(OSError), client, server:
            while block := server.recv(BLOCK if stop is None else min(BLOCK, stop - passed)):
                client.sendall(block)
                passed += len(block)
                if passed == stop:
                    self._stop(client)
                    return

    def _stop(self, client: socket.socket) -> None:
        if self.holds:
            self.held.set()
            while client.fileno() >= 0 and _is_open(client):
                threading.Event().wait(0.01)
        else:
            client.shutdown(socket.SHUT_RDWR)


def _is_open(client: socket.socket) -> bool:
    """Whether the other side is there still; whoever reads from it is another thread."""
    with suppress(OSError):
        return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1  # ESTABLISHED
    return False


@contextmanager
def relayed(port: int) -> Iterator[Relay]:
    """A relay to the server at `port`."""
    relay = Relay(port)
    thread = threading.Thread(target=relay.serve)
    thread.start()
    try:
        yield relay
    finally:
        relay.close()
        thread.join()
