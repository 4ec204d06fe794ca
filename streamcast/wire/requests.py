"""What a client asks for, whatever dialect it speaks."""

from dataclasses import dataclass

from msgspec import Struct

from streamcast.errors import RequestError
from streamcast.message import MessageId

Ref = str | int | float | None
"""A client's own mark on a request, echoed in the reply."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a member starts in a room: from now on, unless one of these is set.

    `after`: behind that ID. `everything`: all that is kept, without a gap. `last`: the newest N.
    """

    after: MessageId | None = None
    everything: bool = False
    last: int | None = None

    @classmethod
    def parse_after(cls, text: str) -> "Start":
        """Read an `after`: an ID, or `0` for everything. Raises BadId."""
        return cls(everything=True) if text == "0" else cls(after=MessageId.parse(text))


NOW = Start()


class Join(Struct, frozen=True, gc=False):
    """Join a room; a second join re-positions."""

    room: str
    start: Start = NOW
    ref: Ref = None


class Leave(Struct, frozen=True, gc=False):
    """Leave a room."""

    room: str
    ref: Ref = None


class Publish(Struct, frozen=True, gc=False):
    """Store `data` in a room's stream. `key` makes a retry within 2 minutes store once."""

    room: str
    data: bytes
    text: bool
    ref: Ref = None
    key: str | None = None
    meta: str | None = None


class Ping(Struct, frozen=True, gc=False):
    """Answer with a pong."""

    ref: Ref = None


class Invalid(Struct, frozen=True):
    """A frame that asks for nothing that can be done.

    `malformed`: it was not a request at all.
    """

    error: RequestError
    room: str | None = None
    ref: Ref = None
    malformed: bool = False


Request = Join | Leave | Publish | Ping | Invalid
