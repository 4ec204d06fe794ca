"""The opening handshake (RFC 6455 section 4.2).

The law of this file: a request that is what browsers and libraries send is read and answered here,
which takes a twentieth of the time; any other is left to websockets' Sans-I/O protocol, which knows
how to refuse it. So nothing is accepted here that the library would not accept.
"""

import base64
import re
from collections.abc import Collection, Sequence
from hashlib import sha1
from http import HTTPStatus
from typing import NamedTuple

from websockets.datastructures import MultipleValuesError
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from streamcast.server.parser import quiet
from streamcast.wire import DIALECTS, MAX_MESSAGE_HEADER, PLAIN, Dialect

VERSION = "13"
"""The version of the protocol (RFC 6455 section 4.1)."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Each header once, none folded, in ASCII: RFC 9112 section 5 allows more.
_HEAD = re.compile(
    rb"GET (/[!-~]*) HTTP/1\.1\r\n((?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t -~]*\r\n){4,64})\r\n"
)
_MAX_HEAD = 8192
_KEY = re.compile(rb"[+/0-9A-Za-z]{21}[AQgw]==")
"""Sixteen bytes in base64; of the last digit only two bits count."""
_TOKENS = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+(?:[\t ]*,[\t ]*[-!#$%&'*+.^_`|~0-9A-Za-z]+)*")
# A request with a body is none.
_NOT_HERE = {b"content-length", b"transfer-encoding"}
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Asked(NamedTuple):
    """A request that is fine in itself; `origin` and `host` as it has them."""

    path: str
    key: bytes
    dialect: Dialect
    origin: str | None
    host: str

    def may_connect(self, allow_origin: Collection[str]) -> bool:
        """Whether it comes from a page of an allowed origin, or from something that is no page."""
        return _may_connect(self.origin, self.host, allow_origin)

    def answer(self, max_message: int) -> bytes:
        """Return the answer: 101. `max_message`: bytes, told to clients."""
        accepted = base64.b64encode(sha1(self.key + _GUID, usedforsecurity=False).digest())
        name = self.dialect.name
        chosen = f"Sec-WebSocket-Protocol: {name}\r\n" if name else ""
        return (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accepted.decode()}\r\n{chosen}"
            f"{MAX_MESSAGE_HEADER}: {max_message}\r\n\r\n"
        ).encode()


def read(head: bytes) -> Asked | None:
    """Read a request; None if it is to be left to the library."""
    found = _HEAD.fullmatch(head)
    if found is None or len(head) > _MAX_HEAD:
        return None
    lines = found[2].split(b"\r\n")[:-1]
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip(b"\t ")
    if len(headers) != len(lines) or not _NOT_HERE.isdisjoint(headers):
        return None
    key, get = headers.get(b"sec-websocket-key", b""), headers.get
    if (
        get(b"upgrade", b"").lower() != b"websocket"
        or b"upgrade" not in _tokens(get(b"connection", b"").lower())
        or get(b"sec-websocket-version") != VERSION.encode()
        or _KEY.fullmatch(key) is None
    ):
        return None
    spoken = _spoken(get(b"sec-websocket-protocol"))
    origin = get(b"origin")
    if spoken is None:
        return None
    host = get(b"host", b"").decode()
    return Asked(found[1].decode(), key, spoken, None if origin is None else origin.decode(), host)


def _tokens(value: bytes) -> Sequence[bytes]:
    """Return the tokens of a list; none, if it is written in any unusual way."""
    if _TOKENS.fullmatch(value) is None:
        return ()
    return [token.strip(b"\t ") for token in value.split(b",")]


def _spoken(offered: bytes | None) -> Dialect | None:
    """Return the first dialect offered that we speak; none offered: plain; only unknown: None."""
    if offered is None:
        return PLAIN
    for name in _tokens(offered):
        found = DIALECTS.get(name.decode())
        if found is not None:
            return found
    return None


def server_protocol() -> ServerProtocol:
    """Return what reads a request and answers it."""
    return ServerProtocol(
        subprotocols=[Subprotocol(name) for name in DIALECTS],
        select_subprotocol=_select,
        logger=quiet,
    )


def accept(
    protocol: ServerProtocol, request: Request, allow_origin: Collection[str], max_message: int
) -> Response:
    """Return the answer to a request: 101, or why not. `max_message`: bytes, told to clients."""
    versions = request.headers.get_all("Sec-WebSocket-Version")
    if versions and versions != [VERSION]:
        # RFC 6455 section 4.4.
        message = f"The version of WebSocket here is {VERSION}.\n"
        response = protocol.reject(HTTPStatus.UPGRADE_REQUIRED, message)
        response.headers["Sec-WebSocket-Version"] = VERSION
        return response
    if not _may_be_connected(request, allow_origin):
        return protocol.reject(HTTPStatus.FORBIDDEN, "Pages of other origins may not connect.\n")
    response = protocol.accept(request)
    if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
        response.headers[MAX_MESSAGE_HEADER] = str(max_message)
    return response


def dialect(protocol: ServerProtocol) -> Dialect:
    """Return what was agreed to be spoken."""
    return PLAIN if protocol.subprotocol is None else DIALECTS[protocol.subprotocol]


def _select(_protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Take the first dialect that we speak; none offered is fine, only unknown ones are not."""
    if not offered:
        return None
    for name in offered:
        if name in DIALECTS:
            return name
    raise NegotiationError(f"streamcast speaks {', '.join(DIALECTS)}; offer none for plain frames")


def _may_be_connected(request: Request, allow_origin: Collection[str]) -> bool:
    try:
        origin, host = request.headers.get("Origin"), request.headers.get("Host")
    except MultipleValuesError:
        return False
    return _may_connect(origin, host or "", allow_origin)


def _may_connect(origin: str | None, host: str, allow_origin: Collection[str]) -> bool:
    return origin is None or origin in allow_origin or _is_own(origin, host)


def _is_own(origin: str, host: str) -> bool:
    """Whether a page of this origin came from this very host and port.

    Both are compared as they are, not as parts: what is hard to take apart is no origin of ours.
    """
    scheme, _, place = origin.lower().partition("://")
    default = _DEFAULT_PORTS.get(scheme, "")
    return bool(place) and place.removesuffix(default) == host.lower().removesuffix(default)
