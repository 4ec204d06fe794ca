"""Connecting to a server.

The law of this file: what websockets and the network raise ends here, as our own errors, which say
whether to try again.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.http11 import Response
from websockets.proxy import get_proxy
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from streamcast.errors import BadUrl, Disconnected, Unreachable, reason_of
from streamcast.wire import JsonV1

PATH = "/rooms"
"""Where a server is asked for rooms, below the URL's path."""
OPEN_TIMEOUT = 5.0
"""Seconds until a server must have answered."""
CLOSE_TIMEOUT = 1.0
PING_EVERY, PING_TIMEOUT = 10.0, 10.0
"""Seconds: how soon it is noticed that a server has silently gone."""
MAX_FRAME = 64 * 1024 * 1024
"""Bytes of the largest frame taken from a server."""
TOO_MANY = 429
SERVER_ERRORS = 500
"""From this HTTP status on it was not our fault, and may be otherwise later (RFC 9110 15.6)."""


@dataclass(frozen=True, slots=True)
class Dial:
    """How to reach one server; `url` names it, without its secrets."""

    url: str
    open: Callable[[], Awaitable[ClientConnection]]


def dial_to(url: str) -> Dial:
    """Return how to reach the server at a URL `ws://` or `wss://`. Raises BadUrl."""
    try:
        parse_uri(url).host.encode("idna")
        parts = urlsplit(url)
    except (InvalidURI, ValueError) as error:
        without_secrets = url.rpartition("@")[2]
        raise BadUrl(
            f"{without_secrets!r} is not the URL of a server; write one like ws://host:8080."
        ) from error
    path = parts.path.rstrip("/").removesuffix(PATH)
    if f"{PATH}/" in path:
        raise BadUrl(f"{parts.path!r} names a room; give the URL of the server alone.")
    path += PATH
    uri = urlunsplit(parts._replace(path=path))
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return Dial(shown, lambda: dial(uri, shown))


async def dial(uri: str, shown: str, **how: Any) -> ClientConnection:
    """Connect. Raises Unreachable, Disconnected where trying again won't help.

    `shown` is what errors call the server; `how` goes to websockets' `connect`.
    """
    try:
        connection = await open_websocket(
            uri,
            subprotocols=[Subprotocol(JsonV1.name)],
            compression=None,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
            ping_interval=PING_EVERY,
            ping_timeout=PING_TIMEOUT,
            max_size=MAX_FRAME,
            **how,
        )
    except InvalidStatus as error:
        raise _refused(shown, error.response) from error
    except InvalidMessage as error:
        if isinstance(error.__cause__, EOFError):
            raise Unreachable(f"{shown} closed the connection.") from error
        raise Disconnected(f"What answers at {shown} is not streamcast.") from error
    except (ProxyError, InvalidProxy, ImportError) as error:
        # Websockets takes it from the environment, and asks for a package where that needs one.
        raise Unreachable(f"The proxy on the way to {shown} can't be used: {error}.") from error
    except InvalidHandshake as error:
        raise Disconnected(f"What answers at {shown} is not streamcast: {error}.") from error
    except TimeoutError as error:
        raise Unreachable(f"{shown} does not answer.") from error
    except OSError as error:
        by = f" through {proxy}" if (proxy := _proxy(uri, how)) else ""
        raise Unreachable(f"{shown} can't be reached{by}: {reason_of(error)}.") from error
    if connection.subprotocol is None:
        connection.transport.abort()
        raise Disconnected(f"What answers at {shown} does not speak {JsonV1.name}.")
    return connection


def _proxy(uri: str, how: Mapping[str, Any]) -> str | None:
    """Return the proxy that the environment has us go through, without its secrets."""
    proxy = None if "sock" in how else get_proxy(parse_uri(uri))
    return None if proxy is None else f"the proxy {proxy.rpartition('@')[2]}"


def _refused(shown: str, response: Response) -> Disconnected:
    """Say how a handshake was answered; a server of ours says why in a line of plain text."""
    status = response.status_code
    words = [f"{shown} answers with HTTP status {status}"]
    if response.headers.get("Content-Type", "").startswith("text/plain") and response.body:
        words.append(response.body[:200].decode(errors="replace").splitlines()[0])
    may_change = status == TOO_MANY or status >= SERVER_ERRORS
    kind = Unreachable if may_change else Disconnected
    return kind(": ".join(words).rstrip(".") + ".", status)
