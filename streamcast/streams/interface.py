"""The streams' interface, and what it guarantees on every engine and with every notifier.

Reading. A followed room is asked for its next read when it is first followed, when its stream may
have changed, when the store's connection is new, and once in an audit interval; and each read is
answered to that room in the order in which the store ran it. A change that the store tells of
after a read began is read again: no entry waits for the audit. A read that the store refuses or
that is lost is asked for again, until it is answered.

Publishing. A publication ends exactly once: with the ID under which the store has it, with
Unavailable where it provably was not stored, with Unknown where it may have been, or with a
RequestError. What one publisher publishes to one room is stored in the order given, as long as
none of it fails; nothing is sent twice. Publishers are served in turn, and what is under way to the
store is bounded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from streamcast.errors import CodedError
from streamcast.message import BINARY_FIELD, META_FIELD, TEXT_FIELD, Message, MessageId
from streamcast.proof import Read, Reply
from streamcast.wire.requests import Publish, Ref

OVERHEAD = 500
"""How many bytes of memory a publication costs beside its payload and what was said with it."""

Outcome = MessageId | CodedError
Done = Callable[["Publication", Outcome], None]
"""Takes a publication and how it ended."""


class State(StrEnum):
    """How a store does, the best first."""

    READY = "ready"
    READ_ONLY = "ready: read-only"
    DEAF = "deaf"
    NO_STORE = "no store"


class Follower(Protocol):
    """One who follows a room's stream. None of these calls waits or raises."""

    def next_read(self, announced: bool) -> Read | None:
        """Return what to read now; None: nothing, the follower will say when (`Streams.changed`).

        `announced`: the store told of a change of this very stream.
        """

    def received(self, read: Read, reply: Reply) -> bool:
        """Take in an answer. Returns whether there is more to read at once."""

    def failed(self, error: CodedError) -> None:
        """Take in that the stream can't be opened; it is followed no more."""


class Publication(Struct, eq=False):
    """A message on its way to the store. `done` is called with it and its outcome, once.

    `size`: about how many bytes of memory it holds. `attempts`: how often it was refused, and is
    tried again.
    """

    room: str
    fields: Sequence[bytes]
    publisher: object
    done: Done
    size: int
    key: str | None = None
    ref: Ref = None
    attempts: int = 0

    @staticmethod
    def of(publish: Publish, publisher: object, done: Done) -> "Publication":
        """Return what was asked to be published, as it goes to the store: see `as_message`."""
        data, key, ref, meta = publish.data, publish.key, publish.ref, publish.meta
        fields: tuple[bytes, ...] = TEXT_FIELD if publish.text else BINARY_FIELD, data
        size = OVERHEAD + len(data)
        if key is not None:
            size += len(key)
        if type(ref) is str:
            size += len(ref)
        if meta is not None:
            size += len(meta)
            fields += META_FIELD, meta.encode()
        return Publication(publish.room, fields, publisher, done, size, key, ref)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What streams have done so far, and hold now."""

    followed: int
    reads: int
    empty_reads: int
    examinations: int
    refused_reads: int
    audits: int
    published: int
    publishing: int
    publishing_bytes: int
    reconnects: int


class Health(Protocol):
    """Knows how a store does."""

    @property
    def state(self) -> State:
        """That of the master that does worst."""

    async def watch(self) -> None:
        """Look for ever how the masters do."""


class Streams(Protocol):
    """The streams of the rooms in one store. Rooms are given by name."""

    @property
    def health(self) -> Health:
        """Whether deliveries work."""

    @property
    def connections(self) -> int:
        """How many connections to the store it has at most."""

    async def start(self) -> None:
        """Connect. Raises StartError."""

    async def close(self) -> None:
        """Disconnect; what is under way ends as Unavailable or Unknown."""

    def follow(self, room: str, follower: Follower) -> None:
        """Begin to follow a room; its first read is asked for at once."""

    def unfollow(self, room: str) -> None:
        """End following."""

    def changed(self, room: str) -> None:
        """Ask a room's follower for a read, as if its stream had changed."""

    def publish(self, publication: Publication) -> None:
        """Add to a room's stream."""

    async def examine(self, room: str, read: Read) -> Reply:
        """Read history with XINFO in one step. Raises StoreError."""

    async def before(self, room: str, end: MessageId, count: int) -> Sequence[Message]:
        """Read up to `count` entries from `end` down, newest first. Raises StoreError."""

    def statistics(self) -> Statistics:
        """Return what was done so far."""
