"""What a server tells, as a client has it once it was read."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from streamcast.errors import CodedError
from streamcast.message import MessageId


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a room.

    `data` is text as str, anything else as bytes. `meta` was published with it. `fields` are there
    if another program added the entry without a field `message` or `binary`; `data` is the first.
    """

    room: str
    id: MessageId
    data: str | bytes
    meta: str | None = None
    fields: Mapping[str, str | bytes] | None = None

    @property
    def time(self) -> datetime | None:
        """When it was stored, by its ID; None where the ID is no time of this age."""
        return time_of(self.id)


@dataclass(frozen=True, slots=True)
class Gap:
    """What lay between `after` and `earliest` may be missing; messages go on from `earliest`.

    `earliest` is None where nothing is kept; `latest` is the newest ID that the stream gave out.
    """

    room: str
    after: MessageId
    earliest: MessageId | None
    latest: MessageId


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry of `size` bytes, over the server's limit, which it does not send."""

    room: str
    id: MessageId
    size: int


Item = Message | Gap | Skipped
"""What a room brings, in order."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A join is done; the room's messages follow, behind `head`."""

    room: str
    ref: int
    head: MessageId
    resumed: bool


@dataclass(frozen=True, slots=True)
class Acked:
    """A publish was stored under this ID."""

    ref: int
    id: MessageId


@dataclass(frozen=True, slots=True)
class Failed:
    """A request failed; `ref` is None where the server could not tell which."""

    ref: int | None
    error: CodedError


Told = Item | Joined | Acked | Failed
"""What a client has to hear."""


def time_of(id: MessageId) -> datetime | None:
    """Return the UTC time in an ID; None where it is no time that a calendar has."""
    try:
        return datetime.fromtimestamp(id.ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
