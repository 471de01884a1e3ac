"""A connection that can be cut at any byte, and mended."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress


class Line:
    """A connection to a server that can be cut: after so many bytes nothing passes, until it is mended."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target, self.left = target, -1
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._serve)

    def close(self) -> None:
        while any(thread.is_alive() for thread in self._threads):
            for end in list(self._ends):  # and those that were opened since the last time
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            time.sleep(0.01)
        for end in self._ends:
            end.close()

    def _start(self, run: Callable[..., None], *arguments: socket.socket) -> None:
        self._threads.append(threading.Thread(target=run, args=arguments, daemon=True))
        self._threads[-1].start()

    def _serve(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                client, _ = self._listener.accept()
                self._ends.append(client)
                if self.left == 0:
                    client.shutdown(socket.SHUT_RDWR)
                    continue
                server = socket.create_connection(self.target)
                self._ends.append(server)
                self._start(self._pass, client, server)
                self._start(self._pass, server, client)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                if self.left >= 0:
                    self.left = max(self.left - len(data), 0)
                    if self.left == 0:
                        break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
