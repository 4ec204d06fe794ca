"""A room that is open: its stream's follower, and those who wait for something in it.

The law of this file: it has no opinion. It hands what was read to the room, and tells the relay
when the room opened, grew, or can't be opened.
"""

import asyncio
from typing import Protocol

from streamcast.config import RelaySettings
from streamcast.cursor import Cursor
from streamcast.errors import CodedError
from streamcast.message import ZERO
from streamcast.proof import RESOLVE, Read, Reply
from streamcast.room import Room
from streamcast.streams import Streams
from streamcast.wire import Close, Start
from streamcast.wire.close import Code


class Owner(Protocol):
    """The relay, as its open rooms see it."""

    @property
    def streams(self) -> Streams:
        """The streams of all rooms."""

    @property
    def settings(self) -> RelaySettings:
        """How much a room keeps in memory."""

    def opened(self, open_room: "OpenRoom") -> None:
        """Take in that the stream's position is known."""

    def grown(self, open_room: "OpenRoom") -> None:
        """Take in that more was read."""

    def forget(self, open_room: "OpenRoom") -> None:
        """Take in that it is open no more."""


class OpenRoom:
    """A room that somebody is in, or joining; it follows the room's stream.

    `room` is there once it `is_open`: once the stream's position was resolved. `gone`: the relay
    has parted with it.
    """

    __slots__ = (
        "_asked",
        "_held",
        "_relay",
        "_sent",
        "_waiting_out",
        "filling",
        "gone",
        "is_open",
        "name",
        "placing",
        "queued",
        "room",
        "waiting",
        "weight",
    )

    def __init__(self, relay: Owner, name: str) -> None:
        self._relay = relay
        self.name = name
        self.is_open = self.gone = False
        self.room: Room
        self.waiting: list[tuple[Cursor, Start]] = []
        self.placing = 0
        self.filling: asyncio.Task[None] | None = None
        self.weight = 0
        self.queued = False
        self._held = False
        # Those who wait for a read that begins after they asked: not sent, sent. Some, for the end.
        self._asked: list[tuple[asyncio.Future[None], bool]] = []
        self._sent: list[tuple[asyncio.Future[None], bool]] = []
        # Those who wait until all before an index is handed out.
        self._waiting_out: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def is_empty(self) -> bool:
        """Whether nobody is in the room, or on the way into it."""
        members = self.room.members if self.is_open else ()
        return not (self.waiting or self.placing or members)

    # As a follower

    def next_read(self, announced: bool) -> Read | None:
        """Return what to read now; nothing while too much waits to be handed out."""
        if not self.is_open:
            return Read(RESOLVE, ZERO, 1)
        read = self.room.next_read(announced)
        if read is None:
            self._held = True
        elif self._asked:
            self._sent += self._asked
            self._asked = []
        return read

    def received(self, read: Read, reply: Reply) -> bool:
        """Take in an answer: open the room, or extend it."""
        if not self.is_open:
            assert reply.info is not None
            self.room = Room(self.name, reply.info, self._relay.settings.window)
            self.is_open = True
            self._relay.opened(self)
            return False
        more = self.room.received(read, reply)
        if self._sent and not self.room.is_proving:
            sent, self._sent = self._sent, []
            for waiter, to_end in sent:
                if more and to_end:
                    self._sent.append((waiter, to_end))
                else:
                    _wake(waiter)
        self._relay.grown(self)
        return more

    def failed(self, error: CodedError) -> None:
        """Refuse those who wait."""
        self._relay.forget(self)
        for cursor, _ in self.waiting:
            cursor.sink.refused(cursor, error)

    # As one who hands out

    def hand_out(self, limit: int) -> bool:
        """Write to at most `limit` more members. Returns whether there is more to hand out.

        Then reading goes on, if that was held up, and who waits for what was handed out is told.
        """
        room = self.room
        more = room.hand_out(limit)
        if self._held and room.has_room:
            self._held = False
            self._relay.streams.changed(self.name)
        if self._waiting_out:
            self._tell_waiting(room.tip.index)
        return more

    def _tell_waiting(self, tip: int) -> None:
        for end, waiter in self._waiting_out:
            if end <= tip:
                _wake(waiter)
        self._waiting_out = [entry for entry in self._waiting_out if entry[0] > tip]

    def broken(self) -> None:
        """Part with the members; they come back to a room that is opened anew."""
        for cursor in list(self.room.members):
            cursor.sink.close(Close(Code.INTERNAL, "internal error"))

    async def wait_read(self, *, to_end: bool = False) -> None:
        """Wait until the stream was read after this call, perhaps to its end.

        What was asked of the store before, and answered, was of the room's history then, if that is
        still the same.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.append((waiter, to_end))
        self._relay.streams.changed(self.name)
        await waiter

    async def wait_fresh(self) -> None:
        """Wait until the stream was read after this call, and all of it was handed out."""
        await self.wait_read(to_end=True)
        end = self.room.window.end
        if end > self.room.tip.index:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting_out.append((end, waiter))
            await waiter


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
