"""What a room brings to a client: where the room was joined, and what was not consumed yet.

The law of this file: an item is taken once, in order. A feed that holds its share leaves the room,
and comes back to where it was when there is space again: what waits for a slow consumer is in the
stream, not in memory, and holds up no other room.
"""

import asyncio
from collections import deque
from enum import Enum, auto
from typing import Protocol
from weakref import finalize

from streamcast.errors import StreamcastError
from streamcast.message import ZERO, MessageId
from streamcast.wire import Start
from streamcast.wire.told import Gap, Item, Joined


class Owner(Protocol):
    """The client, as its feeds see it."""

    @property
    def share(self) -> int:
        """How many bytes a feed may hold."""

    def join(self, feed: "Feed") -> None:
        """Have a room joined where its feed goes on."""

    def leave(self, feed: "Feed") -> None:
        """Have a room left, for now."""

    def close(self, feed: "Feed") -> None:
        """Have a room left for good."""


class State(Enum):
    """Where a feed is with the server."""

    OUT = auto()
    JOINING = auto()
    IN = auto()
    ENDED = auto()


class Feed:
    """A room's items on their way to one consumer.

    `start`: where to join. `ref`: that of the last join. `head`: where the first join brought it.
    `changed` is set when there is something new for the consumer. `dropped` is called when nobody
    holds it any more.
    """

    def __init__(self, owner: Owner, room: str, start: Start) -> None:
        self.room = room
        self.start = start
        self.state = State.OUT
        self.ref = 0
        self.head: MessageId | None = None
        self.error: StreamcastError | None = None
        self.changed = asyncio.Event()
        self.dropped: finalize[..., Feed] | None = None
        self._owner = owner
        # Nothing at or below it is taken.
        self._floor = start.after
        self._last_gap: Gap | None = None
        self._items: deque[tuple[Item, int]] = deque()
        self._size = 0
        self._is_full = False

    # For the client

    @property
    def wants_to_join(self) -> bool:
        """Whether it has space for what a join brings."""
        return self.state is State.OUT and not self._is_full

    def joined(self, told: Joined) -> None:
        """Take in that the last join is done."""
        self.state = State.IN
        if self.head is None:
            self.head = told.head
            self.changed.set()
        if self.start.after is None:
            # To come back to before anything came. Whoever asked for all that is kept is told no
            # gap in front of it, and `after` 0-0 could bring one.
            everything = self.start.everything or (bool(self.start.last) and told.head == ZERO)
            self.start = Start(everything=True) if everything else Start(after=told.head)

    def take(self, item: Item, size: int) -> None:
        """Take in an item of `size` bytes."""
        if self.state is not State.IN:
            return
        if isinstance(item, Gap):
            last = self._last_gap
            if last is not None and (last.after, last.earliest) == (item.after, item.earliest):
                return  # told again, because the room was joined again before anything else came
            self._last_gap = item
            self._go_on_behind_gap(item)
        else:
            if self._floor is not None and item.id <= self._floor:
                return
            self._last_gap = None
            self._go_on_behind(item.id)
        self._items.append((item, size))
        self._size += size
        self.changed.set()
        if self._size > self._owner.share:
            self._is_full = True
            self._owner.leave(self)

    def _go_on_behind(self, id: MessageId) -> None:
        self._floor = id
        self.start = Start(after=id)

    def _go_on_behind_gap(self, gap: Gap) -> None:
        if gap.earliest is None:
            self._go_on_behind(gap.latest)
        else:
            # The place keeps its name until that message comes: only messages have names.
            self._floor = gap.earliest.before

    def disconnected(self) -> None:
        """Take in that the connection is gone."""
        if self.state is not State.ENDED:
            self.state = State.OUT

    def end(self, error: StreamcastError | None = None) -> None:
        """Take in that nothing comes any more, and why."""
        if self.state is not State.ENDED:
            self.state, self.error = State.ENDED, error
            self.changed.set()

    # For the consumer

    @property
    def is_joined(self) -> bool:
        """Whether what is published now comes at once."""
        return self.state is State.IN

    def next(self) -> Item | None:
        """Return the next item, if there is one."""
        if not self._items:
            return None
        item, size = self._items.popleft()
        self._size -= size
        if self._is_full and self._size <= self._owner.share // 2:
            self._is_full = False
            self._owner.join(self)
        return item

    def close(self) -> None:
        """Leave the room."""
        if self.state is not State.ENDED:
            self._owner.close(self)
            self.end()

    async def wait_changed(self) -> bool:
        """Wait for something new; False if nothing comes any more. Raises why it ended."""
        if self.state is State.ENDED:
            if self.error is not None:
                raise self.error.with_traceback(None)
            return False
        self.changed.clear()
        await self.changed.wait()
        return True
