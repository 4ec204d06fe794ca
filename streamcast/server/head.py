"""The head of a request: read first, then handed to whoever handles it.

The law of this file: no bytes of a connection go to a WebSocket parser before its head is whole,
and what comes behind the head goes to the connection only after it was accepted. A head that does
not come is refused, and one that was refused is cut, when keepalive says that it is late.
"""

import asyncio
import re
import socket
from http import HTTPStatus
from typing import cast

from websockets.http11 import Request
from websockets.server import ServerProtocol

from streamcast.server import handshake, health, target
from streamcast.server.connection import Connection
from streamcast.server.context import Context
from streamcast.server.guard import guarded
from streamcast.wire import Dialect

MAX_HEAD = 16 * 1024
"""How many bytes a head has at most."""

_END = b"\r\n\r\n"
_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*websocket", re.IGNORECASE)


class Head(asyncio.BufferedProtocol):
    """A connection whose request has not come yet, or was refused.

    `since`: when it was made, in the event loop's time.
    """

    __slots__ = ("_answered", "_buffer", "_context", "_socket", "_transport", "since")

    def __init__(self, context: Context, sock: socket.socket) -> None:
        self._context = context
        self._socket = sock
        self._buffer = bytearray()
        self._answered = False
        self._transport: asyncio.Transport
        self.since = 0.0

    @guarded
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the head."""
        self._transport = cast("asyncio.Transport", transport)
        if self._context.has_no_file_left:
            self._context.refused += 1
            self._transport.abort()
            return
        self.since = asyncio.get_running_loop().time()
        self._context.heads[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._context.heads.pop(self, None)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Have it received into the buffer that all clients share."""
        return self._context.intake.buffer

    @guarded
    def buffer_updated(self, nbytes: int) -> None:
        """Gather the head; hand it over once it is whole."""
        if self._answered:
            return
        data = self._context.intake.buffer[:nbytes]
        self._buffer += data
        end = self._buffer.find(_END, max(0, len(self._buffer) - len(data) - len(_END)))
        if end >= 0 and end <= MAX_HEAD:
            head = bytes(self._buffer[: end + len(_END)])
            rest = bytes(self._buffer[end + len(_END) :])
            self._buffer.clear()
            self._handle(head, rest)
        elif len(self._buffer) > MAX_HEAD:
            self._answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The head is too large.")

    @guarded
    def give_up(self) -> None:
        """Refuse a connection whose head does not come; cut one that was refused."""
        if self._answered:
            self.abort()
        else:
            self._answer(HTTPStatus.REQUEST_TIMEOUT, "No request came.")

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    def fail(self) -> None:
        """End for a fault."""
        if self._answered:
            self.abort()
        else:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error.")

    def _handle(self, head: bytes, rest: bytes) -> None:
        asked = handshake.read(head)
        if asked is not None and self._accept(asked, rest):
            return
        if _UPGRADE.search(head) is None:
            self._handle_plain_http(head)
            return
        protocol = handshake.server_protocol()
        protocol.receive_data(head)
        events = protocol.events_received()
        if protocol.parser_exc is not None or not events or not isinstance(events[0], Request):
            self._finish(protocol)
            return
        self._upgrade(protocol, events[0], rest)

    def _accept(self, asked: handshake.Asked, rest: bytes) -> bool:
        """Accept a request; return whether it was, and is not to be refused."""
        context = self._context
        if context.stopping or not asked.may_connect(context.server.allow_origin):
            return False
        place = target.parse(asked.path, context.server.default_room)
        if place is None:
            return False
        self._become(asked.dialect, asked.answer(context.messages.max_message), place, rest)
        return True

    def _become(self, dialect: Dialect, answer: bytes, place: target.Target, rest: bytes) -> None:
        """Answer that the connection is a WebSocket from here on, and have it be one."""
        connection = Connection(self._context, self._transport, self._socket, dialect)
        self._answered = True
        self._context.heads.pop(self, None)
        self._transport.write(answer)
        self._transport.set_protocol(connection)
        connection.open(place)
        if rest:
            connection.received(rest)

    def _upgrade(self, protocol: ServerProtocol, request: Request, rest: bytes) -> None:
        if self._context.stopping:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            protocol.send_response(protocol.reject(status, "This server is stopping.\n"))
            self._finish(protocol)
            return
        place = target.parse(request.path, self._context.server.default_room)
        if place is None:
            message = "There is nothing here; rooms are at /rooms/NAME.\n"
            protocol.send_response(protocol.reject(HTTPStatus.NOT_FOUND, message))
            self._finish(protocol)
            return
        context = self._context
        response = handshake.accept(
            protocol, request, context.server.allow_origin, context.messages.max_message
        )
        protocol.send_response(response)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._finish(protocol)
            return
        answer = b"".join(protocol.data_to_send())
        self._become(handshake.dialect(protocol), answer, place, rest)

    def _handle_plain_http(self, head: bytes) -> None:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            self._answer(HTTPStatus.BAD_REQUEST, "That is not HTTP/1.1.")
            return
        where = words[1].decode("latin-1")
        said = health.answer(where.partition("?")[0], self._context)
        asked = target.parse(where, self._context.server.default_room)
        if said is not None and words[0] in {b"GET", b"HEAD"}:
            self._answer(*said, "Cache-Control: no-store", body=words[0] == b"GET")
        elif said is not None:
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "It can only be read.", "Allow: GET, HEAD")
        elif asked is None:
            self._answer(HTTPStatus.NOT_FOUND, "There is nothing here; rooms are at /rooms/NAME.")
        elif words[0] != b"GET":
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "Rooms speak WebSocket.", "Allow: GET")
        else:
            upgrade = "Upgrade: websocket"
            self._answer(HTTPStatus.UPGRADE_REQUIRED, "Rooms speak WebSocket.", upgrade)

    def _answer(self, status: HTTPStatus, message: str, *more: str, body: bool = True) -> None:
        """Answer without WebSocket, and close. `more`: headers. No `body`: it is a HEAD."""
        content = message.encode() + b"\n"
        lines = (
            f"HTTP/1.1 {status.value} {status.phrase}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(content)}",
            *more,
            "Connection: close",
        )
        self._end("\r\n".join(lines).encode() + _END + (content if body else b""))

    def _finish(self, protocol: ServerProtocol) -> None:
        """Write what the handshake says to a request that it refuses, and close."""
        said = b"".join(protocol.data_to_send())
        if said:
            self._end(said)
        else:
            self._answer(HTTPStatus.BAD_REQUEST, "That is not a request of HTTP/1.1.")

    def _end(self, answer: bytes) -> None:
        """Write the answer and say that it was the last.

        The rest of what was refused may still be coming; closing over it would reset the connection
        and lose the answer (RFC 9112 section 9.6). It is read, for nothing.
        """
        self._answered = True
        self._buffer.clear()
        self._transport.write(answer)
        self._transport.write_eof()
