"""A room, as a client's user holds it."""

from typing import Self

from streamcast.client.feed import Feed
from streamcast.errors import Disconnected
from streamcast.message import ZERO, MessageId
from streamcast.wire.told import Gap, Item


class Subscription:
    """The items of a room, each once and in order, to be iterated over by one task.

    Made by `Client.subscribe`. `async with` waits until the room is joined, and leaves it at the
    end; so does `close`, and so does nobody's holding it any more. Iterating ends when it or the
    client is closed. Raises RequestError where the room can't be joined, and Disconnected where
    the server closed the connection for good.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._position: MessageId | None = None
        # Behind 0-0 is all that is kept, if a gap in front of it is told.
        self._asked = ZERO if feed.start.everything else feed.start.after

    @property
    def room(self) -> str:
        """The room's name."""
        return self._feed.room

    @property
    def position(self) -> MessageId | None:
        """What to give as `after` to go on from here another time.

        None: it is to begin now, or with the newest, and is not joined yet.
        """
        return self._position or self._feed.head or self._asked

    @property
    def is_joined(self) -> bool:
        """Whether what is published now comes at once: not while the client connects again."""
        return self._feed.is_joined

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while (item := self._feed.next()) is None:
            if not await self._feed.wait_changed():
                raise StopAsyncIteration
        if not isinstance(item, Gap):
            self._position = item.id
        elif item.earliest is None:
            self._position = item.latest
        return item

    async def wait_joined(self) -> None:
        """Wait until the room is joined: what is published from now on comes.

        Raises RequestError, and Disconnected also where it is closed before.
        """
        while self._feed.head is None:
            if not await self._feed.wait_changed():
                raise Disconnected(f"The subscription of {self.room} is closed.")

    def close(self) -> None:
        """Leave the room; what came already can still be iterated over."""
        self._feed.close()

    async def __aenter__(self) -> Self:
        try:
            await self.wait_joined()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
