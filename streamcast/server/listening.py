"""Taking a port.

The law of this file: a port is taken once, and never with SO_REUSEPORT, with which a second server
takes the same port without an error and gets part of the clients of the first.
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from streamcast.errors import StartError

BACKLOG = 2048
UNSENT = 64 * 1024
"""How many bytes for a client may wait in the kernel; who has more is left behind."""
_NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
NOT_HERE = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
"""What a machine says to addresses of a family that it does not have, as one of `localhost` may
be."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where clients are accepted, and what ends it."""

    url: str
    close: Callable[[], None]


async def listen(host: str, port: int) -> list[socket.socket]:
    """Return what listens at each address of a host, all at one port. Raises StartError."""
    sockets: list[socket.socket] = []
    try:
        await _listen(sockets, host, port)
    except OSError as error:
        close_all(sockets)
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"{where} is taken; choose another --port, or 0 for any.") from error
        raise StartError(f"Can't listen on {where}: {error.strerror or error}.") from error
    return sockets


async def _listen(sockets: list[socket.socket], host: str, port: int) -> None:
    """Add to the sockets. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    not_here = None
    for family, _, _, _, (address, _, *more) in found:
        if sockets:
            # The one that was picked, if any would do.
            port = sockets[0].getsockname()[1]
        try:
            sockets.append(_listen_at(family, (address, port, *more)))
        except OSError as error:
            if error.errno not in NOT_HERE:
                raise
            not_here = error
    if not_here is not None and not sockets:
        raise not_here


def _listen_at(family: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family)
    try:
        # Connections of a server that has just ended don't keep the port (socket(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if _NOTSENT_LOWAT is not None:
            # Whom it accepts inherits it: the kernel takes little more for a client than the
            # network does, so that a stall shows (tcp(7)).
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def close_all(sockets: Sequence[socket.socket]) -> None:
    """Close them."""
    for sock in sockets:
        sock.close()


def url_of(sockets: Sequence[socket.socket]) -> str:
    """Return where clients find them."""
    host, port = sockets[0].getsockname()[:2]
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"
