"""The connections of a load: many, opened in groups, and written to without waiting.

The law of this file: a connection sends what the kernel takes and keeps the rest; nobody waits.
"""

import base64
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from streamcast.bench.frames import PONG, client_frame
from streamcast.errors import Unreachable, reason_of

GROUP = 64
"""How many handshakes are under way at a time."""
PATIENCE = 10.0
"""Seconds that a server has to answer."""
CHUNK = 64 * 1024
_PONG = client_frame(PONG, b"")
# What a browser sends beside: servers keep it, or don't.
_BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-US,en;q=0.9\r\n"
    "Pragma: no-cache\r\nCache-Control: no-cache\r\n"
)


class Address(NamedTuple):
    """Where a server listens; `host` as the URL has it."""

    host: str
    port: int


class Connection:
    """An open WebSocket; `begun` are bytes that came with the handshake."""

    def __init__(self, sock: socket.socket, begun: bytes) -> None:
        self.sock = sock
        self.begun = begun
        self._waiting = bytearray()

    @property
    def is_behind(self) -> bool:
        """Whether the kernel takes no more for now."""
        return bool(self._waiting)

    def send(self, data: bytes) -> None:
        """Send now, or when `flush` is called. Raises OSError."""
        if self._waiting:
            self._waiting += data
            return
        sent = self._send(data)
        if sent < len(data):
            self._waiting += data[sent:]

    def flush(self) -> None:
        """Send what waits. Raises OSError."""
        del self._waiting[: self._send(self._waiting)]

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def receive(self) -> bytes | None:
        """Return what came; nothing at the end; None if nothing came. Raises OSError."""
        try:
            return self.sock.recv(CHUNK)
        except BlockingIOError:
            return None

    def give_sign(self) -> None:
        """Say that it is there, so that the server does not ask (RFC 6455 section 5.5.3)."""
        self.send(_PONG)

    def close(self) -> None:
        """Cut it."""
        self.sock.close()


def open_all(
    address: Address, paths: Sequence[str], subprotocol: str | None
) -> Iterator[Connection]:
    """Connect to each path, in order. Raises Unreachable."""
    asked: deque[socket.socket] = deque()
    try:
        # It is resolved once, which takes longer than a handshake, and to where somebody answers.
        with socket.create_connection(address, PATIENCE) as first:
            family, where = first.family, first.getpeername()
        for path in paths:
            asked.append(_connected(family, where))
            asked[-1].sendall(_request(address, path, subprotocol))
            if len(asked) == GROUP:
                yield _answered(address, asked.popleft())
        while asked:
            yield _answered(address, asked.popleft())
    except OSError as error:
        place = f"{address.host}:{address.port}"
        raise Unreachable(f"{place} can't be reached: {reason_of(error)}.") from error
    finally:
        for sock in asked:
            sock.close()


def _connected(family: int, where: Any) -> socket.socket:
    sock = socket.socket(family)
    try:
        sock.settimeout(PATIENCE)
        sock.connect(where)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return sock


def _request(address: Address, path: str, subprotocol: str | None) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    offer = "" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{address.port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        f"{offer}{_BROWSER}\r\n"
    ).encode()


def _answered(address: Address, sock: socket.socket) -> Connection:
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            chunk = sock.recv(CHUNK)
            if not chunk:
                raise ConnectionResetError(f"it closed after {data[:100]!r}")
            data += chunk
    except OSError:
        sock.close()
        raise
    head, _, begun = data.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].decode(errors="replace")
    if " 101 " not in f"{status} ":
        raise Unreachable(f"{address.host}:{address.port} answers {status}.")
    sock.setblocking(False)
    return Connection(sock, begun)
