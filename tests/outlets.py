"""Standing between a connection and its socket."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from streamcast.outlet.pure import Outlet
from streamcast.server.connection import Connection


def write_by(connection: Connection, send: Callable[[bytes], int]) -> None:
    """Have a connection, and all rooms that it is live in, write by this instead of the socket."""
    sock: Any = SimpleNamespace(send=send)
    outlet = Outlet(sock)
    held = connection.outlet.release()
    if held:
        outlet.hold(held)
    connection.outlet = outlet  # type: ignore[assignment]
    for cursor in connection._cursors.values():
        room = connection._context.relay._rooms[cursor.room].room
        if room.is_live(cursor):
            room._row_of(cursor).outlets[cursor.seat] = outlet
