"""The plain dialect: a message is a frame, a frame is a message; no IDs, acks or notices.

What can't be told in-band closes the connection: a gap with 4300, a message that was not stored
with 1013, one too big with 1009, a bad room with 4400. An entry over the size limit is left out.
"""

from collections.abc import Sequence

from streamcast.errors import BadRoom, CodedError, NotReplicated, StoreError, TooBig
from streamcast.message import Gap, Item, MessageId
from streamcast.wire import frames
from streamcast.wire.close import Close, Code
from streamcast.wire.dialect import Batch, Reply
from streamcast.wire.requests import Invalid, Publish, Ref, Request


class Plain:
    """What `wscat` speaks."""

    name = ""

    def max_frame(self, max_message: int) -> int:
        """A frame is a message."""
        return max_message

    def encode(self, room: str, items: Sequence[Item]) -> Batch:
        """Encode each message's payload as one frame; a gap ends the connection."""
        parts: list[bytes] = []
        for item in items:
            if isinstance(item, Gap):
                reason = f"messages after {item.after} may be missing"
                return Batch(b"".join(parts), Close(Code.GAP, reason))
            if item.data is not None:
                parts.append((frames.text if item.text else frames.binary)(item.data))
        return Batch(b"".join(parts))

    def decode(self, data: bytes, max_message: int, room: str | None, text: bool) -> Request:
        """Take a frame as a message for the connection's room."""
        if room is None:
            return Invalid(BadRoom("This connection has no room."))
        if len(data) > max_message:
            return Invalid(TooBig(f"A message has at most {max_message} bytes."), room)
        return Publish(room, data, text)

    def joined(self, room: str, ref: Ref, head: MessageId, *, resumed: bool) -> Reply:
        """Say nothing."""
        return b""

    def left(self, room: str, ref: Ref) -> Reply:
        """Say nothing."""
        return b""

    def acked(self, room: str, ref: Ref, id: MessageId) -> bytes:
        """Say nothing."""
        return b""

    def pong(self, ref: Ref) -> Reply:
        """Say nothing: there are no pings."""
        return b""

    def error(self, error: CodedError, room: str | None, ref: Ref) -> Reply:
        """Close with the code that says whether to come back."""
        if isinstance(error, StoreError | NotReplicated):
            return Close(Code.TRY_LATER, str(error))
        if isinstance(error, TooBig):
            return Close(Code.TOO_BIG, str(error))
        return Close(Code.BAD_ROOM, str(error))
