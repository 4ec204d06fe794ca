"""The interface of a dialect."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from streamcast.errors import CodedError
from streamcast.message import Item, MessageId
from streamcast.wire.close import Close
from streamcast.wire.requests import Ref, Request

MAX_MESSAGE_HEADER = "Streamcast-Max-Message"
"""A header of the answer to a handshake: how many payload bytes a message has at most."""

Reply = bytes | Close
"""Frames to write (none: empty), or how to close."""


class Batch(Struct, frozen=True, gc=False):
    """Items of a room as frames, for any number of connections; then perhaps a close."""

    data: bytes
    close: Close | None = None


class Dialect(Protocol):
    """How a connection speaks. Stateless: one object serves every connection that speaks it."""

    @property
    def name(self) -> str:
        """The subprotocol offered for it; empty if none is."""

    def max_frame(self, max_message: int) -> int:
        """Return the largest frame in bytes that can hold a message of `max_message` bytes."""

    def encode(self, room: str, items: Sequence[Item]) -> Batch:
        """Encode items of a room, in order."""

    def decode(self, data: bytes, max_message: int, room: str | None, text: bool) -> Request:
        """Read a frame; `room` is the one of the connection's URL. Never raises.

        `text`: it was a text frame, and is UTF-8.
        """

    def joined(self, room: str, ref: Ref, head: MessageId, *, resumed: bool) -> Reply:
        """Tell that a join is done; messages of the room follow, behind `head`."""

    def left(self, room: str, ref: Ref) -> Reply:
        """Tell that a room was left."""

    def acked(self, room: str, ref: Ref, id: MessageId) -> bytes:
        """Tell that a message was stored under this ID."""

    def pong(self, ref: Ref) -> Reply:
        """Answer a ping."""

    def error(self, error: CodedError, room: str | None, ref: Ref) -> Reply:
        """Tell that a request failed."""
