"""The opening handshake (RFC 6455 section 4.2), by websockets' Sans-I/O protocol."""

from collections.abc import Collection, Sequence
from http import HTTPStatus

from websockets.datastructures import MultipleValuesError
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from streamcast.server.parser import quiet
from streamcast.wire import DIALECTS, MAX_MESSAGE_HEADER, PLAIN, Dialect

VERSION = "13"
"""The version of the protocol (RFC 6455 section 4.1)."""

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


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
    if not _may_connect(request, allow_origin):
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


def _may_connect(request: Request, allow_origin: Collection[str]) -> bool:
    """Whether a page of an allowed origin, or something that is no browser, connects."""
    try:
        origin, host = request.headers.get("Origin"), request.headers.get("Host")
    except MultipleValuesError:
        return False
    return origin is None or origin in allow_origin or _is_own(origin, host or "")


def _is_own(origin: str, host: str) -> bool:
    """Whether a page of this origin came from this very host and port.

    Both are compared as they are, not as parts: what is hard to take apart is no origin of ours.
    """
    scheme, _, place = origin.lower().partition("://")
    default = _DEFAULT_PORTS.get(scheme, "")
    return bool(place) and place.removesuffix(default) == host.lower().removesuffix(default)
