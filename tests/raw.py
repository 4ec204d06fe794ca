"""A client over a bare socket: it sends what no library would (RFC 6455 section 5.2)."""

import socket
import struct
from contextlib import suppress
from typing import NamedTuple, Protocol, Self

from websockets.frames import Opcode

from tests.clients import JSON, PATIENCE

MASK = b"\x37\xfa\x21\x3d"
NO_STATUS = 1005
PING = b"\x89\x00"
"""As the server sends it; no text has these bytes in it."""


class Serves(Protocol):
    """A server, wherever it runs."""

    @property
    def url(self) -> str: ...

    @property
    def port(self) -> int: ...


class Frame(NamedTuple):
    """A frame from the server; it sends no fragments."""

    opcode: int
    data: bytes


def frame(
    opcode: int,
    data: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: int | None = None,
) -> bytes:
    """A frame as a client sends it; `length`: what its header claims, if it lies."""
    claimed = len(data) if length is None else length
    first, mask_bit = fin << 7 | reserved << 4 | opcode, masked << 7
    if claimed < 126:
        header = struct.pack("!BB", first, mask_bit | claimed)
    elif claimed < 65536:
        header = struct.pack("!BBH", first, mask_bit | 126, claimed)
    else:
        header = struct.pack("!BBQ", first, mask_bit | 127, claimed)
    return header + (MASK + _mask(data) if masked else data)


def _mask(data: bytes) -> bytes:
    return bytes(byte ^ MASK[index % 4] for index, byte in enumerate(data))


def text(data: bytes | str, *, fin: bool = True) -> bytes:
    return frame(Opcode.TEXT, data.encode() if isinstance(data, str) else data, fin=fin)


def rest(data: bytes, *, fin: bool = False) -> bytes:
    """A further fragment."""
    return frame(Opcode.CONT, data, fin=fin)


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(Opcode.CLOSE, struct.pack("!H", code) + reason)


def request(
    path: str = "/rooms/live", *more: str, line: str = "GET {} HTTP/1.1", **headers: str | None
) -> bytes:
    """The head of an upgrade; `headers` change what is in it, None leaves one out."""
    usual: dict[str, str | None] = {
        "Host": "x",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    usual |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in usual.items() if value is not None]
    return "\r\n".join([line.format(path), *lines, *more, "", ""]).encode("latin-1")


class Raw:
    """A connection; nothing is sent until asked for."""

    def __init__(self, server: Serves, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if receive_buffer:
            # Before it connects, since the window is agreed on then (tcp(7)).
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    @classmethod
    def joined(
        cls, server: Serves, room: str, dialect: str = "plain", receive_buffer: int = 0
    ) -> Self:
        """A connection that has joined a room."""
        raw = cls(server, receive_buffer)
        more = [f"Sec-WebSocket-Protocol: {JSON}"] if dialect == "json" else []
        raw.send(request(f"/rooms/{room}", *more))
        assert raw.head().startswith("HTTP/1.1 101 ")
        if dialect == "json":
            assert b'"joined"' in raw.frame().data
        return raw

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, *data: bytes, chop: int = 0) -> None:
        """Send bytes, in one write or in pieces of `chop` bytes."""
        whole = b"".join(data)
        size = chop or len(whole) or 1
        for start in range(0, len(whole), size):
            self.socket.sendall(whole[start : start + size])

    def head(self) -> str:
        """The head of an answer."""
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head.decode()

    def frame(self) -> Frame:
        """The next frame."""
        opcode, length = self._take(2)
        assert opcode & 0xF0 == 0x80, "not fragmented, nothing reserved"
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        return Frame(opcode & 0x0F, self._take(length))

    def closed(self) -> int:
        """The code of a close, which has to be the next frame and the last."""
        opcode, data = self.frame()
        assert opcode == Opcode.CLOSE, (opcode, data)
        # Instead of an answer, which would be too many where this is one.
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        assert self.everything() == b""
        return int.from_bytes(data[:2], "big") if data else NO_STATUS

    def everything(self) -> bytes:
        """All that comes until the server ends the connection."""
        while more := self.socket.recv(65536):
            self._received += more
        data, self._received = self._received, b""
        return data

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive()
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    def _receive(self) -> None:
        more = self.socket.recv(65536)
        if not more:
            raise EOFError(f"the connection ended behind {self._received!r}")
        self._received += more
