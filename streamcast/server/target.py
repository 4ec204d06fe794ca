"""What a request's path asks for."""

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from streamcast.errors import BadId, BadRoom, RequestError
from streamcast.message import room_name
from streamcast.wire import Start
from streamcast.wire.json_v1 import count_of_last
from streamcast.wire.requests import NOW

ROOMS = "/rooms"


class Target(NamedTuple):
    """A room to join at once, and from where; no room where the path names none.

    `error` says what is wrong with the room or the place; the client is told in its dialect.
    """

    room: str | None
    start: Start = NOW
    error: RequestError | None = None


def parse(target: str, default_room: str) -> Target | None:
    """Read a request target (RFC 9112 section 3.2.1); None if there is nothing at its path."""
    path, _, query = target.partition("?")
    if path == "/":
        room = default_room
    elif path in {ROOMS, ROOMS + "/"}:
        return Target(None)
    elif path.startswith(ROOMS + "/"):
        try:
            room = room_name(unquote_to_bytes(path.removeprefix(ROOMS + "/")).decode())
        except UnicodeDecodeError:
            return Target(None, error=BadRoom("A room name is UTF-8, percent-encoded."))
        except BadRoom as error:
            return Target(None, error=error.alone())
    else:
        return None
    try:
        return Target(room, _start(query))
    except RequestError as error:
        return Target(room, error=error.alone())


def _start(query: str) -> Start:
    given = dict(parse_qsl(query, keep_blank_values=True))
    after, last = given.get("after"), given.get("last")
    if after is not None and last is not None:
        raise BadId("Give last or after, not both.")
    if after is not None:
        return Start.parse_after(after)
    if last is None:
        return NOW
    if not re.fullmatch(r"[0-9]{1,9}", last):
        raise BadId("last is a number of messages.")
    return Start(last=count_of_last(int(last)))
