"""How a load speaks to a server; each server that is compared with ours has one.

The law of this file: it is pure.
"""

import base64
import json
import re
from enum import Enum
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote

from streamcast.bench.frames import BINARY, TEXT, client_frame
from streamcast.bench.reception import Shapes
from streamcast.bench.schedule import FILLING
from streamcast.wire import JsonV1

_ACK = b'{"type":"ack"'


class Said(Enum):
    """What a frame that is no message says."""

    JOINED = "joined"
    REFUSED = "refused"
    NOTHING = "nothing"


class Dialect(Protocol):
    """One way to speak over a WebSocket."""

    subprotocol: str | None
    joins: bool
    """Whether the server says when a subscriber is in its room; else a message has to show it."""
    all_join: bool
    """Whether it says so to those who only publish as well, and they have to wait for it."""

    def path(self, room: str, *, listens: bool) -> str:
        """Return the path to connect to."""

    def join(self, room: str) -> bytes:
        """Return what to send to be in a room; nothing, if the path says it."""

    def publish(self, room: str, payload: bytes, key: str | None = None) -> bytes:
        """Return the frame that publishes. Raises ValueError for a key, if there are none."""

    def payload(self, opcode: int, data: bytes) -> bytes | None:
        """Return the payload in a frame; None where it is no message."""

    def said(self, opcode: int, data: bytes) -> Said:
        """Return what another frame says."""

    @property
    def shapes(self) -> Shapes | None:
        """How frames of messages begin, and those that mean nothing; None: they have no form."""

    def answer(self, room: str, opcode: int, data: bytes, *, listens: bool) -> bytes:
        """Return what another frame is to be answered with; nothing, if it need not be."""

    def id_of(self, data: bytes) -> str | None:
        """Return the ID in a message's frame, if it has one."""

    def rejoin(self, room: str, after: str) -> bytes:
        """Return what to send to be in a room behind a message. Raises ValueError if it can't."""


class PlainDialect:
    """A message is a frame. A publisher hears its room too."""

    subprotocol: str | None = None
    joins: bool = False
    all_join: bool = False
    # A payload begins so; what does not is looked at closely.
    shapes: Shapes | None = Shapes(FILLING, None)

    def path(self, room: str, *, listens: bool) -> str:
        """The room is in the path."""
        return f"/rooms/{quote(room)}"

    def join(self, room: str) -> bytes:
        """Nothing."""
        return b""

    def publish(self, room: str, payload: bytes, key: str | None = None) -> bytes:
        """Return the payload in a frame."""
        if key is not None:
            raise ValueError("plain frames have no keys")
        return client_frame(TEXT, payload)

    def payload(self, opcode: int, data: bytes) -> bytes | None:
        """Every frame with data is a message."""
        return data if opcode in {TEXT, BINARY} else None

    def said(self, opcode: int, data: bytes) -> Said:
        """Nothing."""
        return Said.NOTHING

    def answer(self, room: str, opcode: int, data: bytes, *, listens: bool) -> bytes:
        """Nothing is asked."""
        return b""

    def id_of(self, data: bytes) -> str | None:
        """Return none: there is none."""
        return None

    def rejoin(self, room: str, after: str) -> bytes:
        """Plain frames have no IDs to go on behind."""
        raise ValueError("plain frames have no IDs")


class JsonDialect:
    """`streamcast.v1`."""

    subprotocol: str | None = JsonV1.name
    joins: bool = True
    all_join: bool = False
    shapes: Shapes | None = Shapes(b'{"type":"message"', _ACK)

    def path(self, room: str, *, listens: bool) -> str:
        """No room: it is joined."""
        return "/rooms"

    def join(self, room: str) -> bytes:
        """Return a join."""
        return _object(type="join", room=room)

    def publish(self, room: str, payload: bytes, key: str | None = None) -> bytes:
        """Return a publish."""
        # What a load publishes needs no escapes, nor do its keys.
        head = b'{"type":"publish","room":%b,"data":"' % _quoted(room)
        end = b'"}' if key is None else b'","key":"%b"}' % key.encode()
        return client_frame(TEXT, head + payload + end)

    def payload(self, opcode: int, data: bytes) -> bytes | None:
        """Return a message's data."""
        if opcode != TEXT or not data.startswith(b'{"type":"message"'):
            return None
        # As our server writes it; what a load publishes needs no escapes.
        start = data.find(b'","data":"') + len(b'","data":"')
        end = data.find(b'"', start)
        if data[end:] == b'"}' and b"\\" not in data:
            return data[start:end]
        told = json.loads(data)
        if told.get("encoding") == "base64":
            return base64.b64decode(told["data"])
        text: str = told["data"]
        return text.encode()

    def said(self, opcode: int, data: bytes) -> Said:
        """Read what a server tells beside messages."""
        if opcode != TEXT or data.startswith(_ACK):
            # Acks come for each message: they are not read, so that the load has time for others.
            return Said.NOTHING
        return _SAID.get(json.loads(data).get("type"), Said.NOTHING)

    def answer(self, room: str, opcode: int, data: bytes, *, listens: bool) -> bytes:
        """Nothing is asked."""
        return b""

    def id_of(self, data: bytes) -> str | None:
        """Return a message's ID."""
        found = _ID.search(data)
        return None if found is None else found[1].decode()

    def rejoin(self, room: str, after: str) -> bytes:
        """Return a join behind an ID."""
        return _object(type="join", room=room, after=after)


_ID = re.compile(rb'"id":"([0-9]+-[0-9]+)"')
_SAID = {"joined": Said.JOINED, "error": Said.REFUSED}


@lru_cache(1 << 15)
def _quoted(room: str) -> bytes:
    return json.dumps(room).encode()


def _object(**members: str) -> bytes:
    return client_frame(TEXT, json.dumps(members, separators=(",", ":")).encode())


DIALECTS: dict[str, Dialect] = {"json": JsonDialect(), "plain": PlainDialect()}
"""By the name that `--dialect` gives them."""
