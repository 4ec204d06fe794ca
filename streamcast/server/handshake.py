"""The opening handshake (RFC 6455 section 4.2), by websockets' Sans-I/O protocol."""

import logging
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.datastructures import MultipleValuesError
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from streamcast.wire import DIALECTS, PLAIN, Dialect

_DEFAULT_PORTS = {"http": 80, "https": 443}

# The library tells every handshake and every close at info; we tell our own.
_quiet = logging.getLogger("streamcast.websockets")
_quiet.setLevel(logging.CRITICAL)


def server_protocol() -> ServerProtocol:
    """Return what reads a request and answers it."""
    return ServerProtocol(
        subprotocols=[Subprotocol(name) for name in DIALECTS],
        select_subprotocol=_select,
        logger=_quiet,
    )


def open_protocol(max_frame: int) -> Protocol:
    """Return what reads and writes frames after the handshake; it takes a fifth of the memory."""
    return Protocol(SERVER, state=OPEN, max_size=max_frame, logger=_quiet)


def accept(protocol: ServerProtocol, request: Request) -> Response:
    """Return the answer to a request: 101, or why not."""
    if not _is_own_origin(request):
        return protocol.reject(HTTPStatus.FORBIDDEN, "Pages of other origins may not connect.\n")
    return protocol.accept(request)


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


def _is_own_origin(request: Request) -> bool:
    """Whether a page that this very host served, or something that is no browser, connects."""
    try:
        origin, host = request.headers.get("Origin"), request.headers.get("Host")
    except MultipleValuesError:
        return False
    if origin is None:
        return True
    try:
        of_page = urlsplit(origin)
        default = _DEFAULT_PORTS.get(of_page.scheme)
        own = urlsplit(f"//{host}")
        same_port = (of_page.port or default) == (own.port or default)
        return host is not None and of_page.hostname == own.hostname and same_port
    except ValueError:
        return False
