"""A member's place in a room.

The law of this file: a place is a `Mark`, and marks are shared: every live member of a room holds
the room's very `tip`, so that being live is an identity and not a state, and the tip moves with all
who hold it. A member has no task, no queue and no timer; what it has not seen yet is the room's to
know.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from msgspec import Struct

from streamcast import log
from streamcast.errors import CodedError
from streamcast.message import Item, MessageId
from streamcast.outlet import Writes
from streamcast.wire import Batch, Close, Dialect
from streamcast.wire.close import Code
from streamcast.wire.requests import Ref


class Mark(Struct, eq=False, gc=False):
    """A place between two items of a room; compared by identity. Only a room's tip ever moves.

    `index` counts the items since the room was opened; BEFORE is a place in front of the window.
    `id` and `fingerprint` are those of the entry before the place. `history` counts the resets
    that the room had seen. `told`: the message that its holder knows to be the next, so that no
    gap in front of it is told; 0-0 if it asked for whatever is kept. `lost`: its holder had come
    so far in a history that is gone, and is to be told.
    """

    index: int
    id: MessageId
    fingerprint: int | None
    history: int
    told: MessageId | None = None
    lost: MessageId | None = None

    copy: ClassVar[Callable[["Mark"], "Mark"]] = Struct.__copy__  # type: ignore[attr-defined]
    """Returns the same place, as one that stays."""

    def __repr__(self) -> str:
        return f"<Mark {self.index} {self.id} history={self.history}>"


class Sink(Protocol):
    """A connection, as the core sees it. None of these calls waits or raises."""

    @property
    def writable(self) -> bool:
        """Whether the peer takes what is written; its rooms are told when that ends (`pause`)."""

    @property
    def outlet(self) -> Writes:
        """What rounds write to, while it is writable.

        The sink is to be told where that `fell_short`, or raised and so `broke`.
        """

    @property
    def dialect(self) -> Dialect:
        """How the peer is spoken to."""

    def write(self, data: bytes) -> None:
        """Write frames, whatever comes of it."""

    def fell_short(self, data: bytes, taken: int) -> None:
        """Write the rest of `data` later, before anything else."""

    def broke(self, data: bytes, fault: Exception) -> None:
        """Write `data` later if it only was too early; else end for the fault, and log it."""

    def close(self, how: Close) -> None:
        """Close the connection; it leaves all of its rooms."""

    def joined(self, cursor: "Cursor", head: MessageId, *, resumed: bool) -> None:
        """Tell that a join is done."""

    def refused(self, cursor: "Cursor", error: CodedError) -> None:
        """Tell that a join failed; the cursor is no member."""


def encoded(room: str, dialect: Dialect, items: Sequence[Item]) -> Batch:
    """Return items of a room as a dialect writes them.

    A fault in it ends those who were to get them, and nobody else; it is logged once.
    """
    try:
        return dialect.encode(room, items)
    except Exception as fault:  # noqa: BLE001 - the boundary between these members and all others
        log.error("fault", where="encoding", fault=repr(fault), exc_info=True)
        return Batch(b"", Close(Code.INTERNAL, "internal error"))


class Work(Protocol):
    """What is being done for a member, and takes a while."""

    def cancel(self) -> object:
        """Have it end soon."""


class Cursor:
    """One connection's membership of one room; `mark` is None before the join and after it left.

    `seat`: while it is live, its place in a `Row`. `work`: what reads the store for it, if anything
    does; it is not to outlive the membership.
    """

    __slots__ = ("gone", "mark", "ref", "room", "seat", "sink", "work")

    def __init__(self, sink: Sink, room: str, ref: Ref = None) -> None:
        self.sink = sink
        self.room = room
        self.ref = ref
        self.mark: Mark | None = None
        self.seat = -1
        self.gone = False
        self.work: Work | None = None

    def take(self, items: Sequence[Item]) -> None:
        """Write items to this member alone."""
        batch = encoded(self.room, self.sink.dialect, items)
        if batch.data:
            self.sink.write(batch.data)
        if batch.close is not None:
            self.sink.close(batch.close)
