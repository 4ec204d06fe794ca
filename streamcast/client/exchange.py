"""What a client has to say to whatever server it is connected to, and what it heard.

The law of this file: it knows no connection. All state lies in the feeds and the outbox, and
outlives connections; nothing here waits, and whoever consumes slowly holds up nobody.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from weakref import WeakValueDictionary, finalize

from streamcast import log
from streamcast.backoff import Backoff
from streamcast.client.feed import Feed, State
from streamcast.client.outbox import Outbox, Publication
from streamcast.errors import (
    BadRequest,
    CodedError,
    Disconnected,
    RequestError,
    StoreError,
    TooBig,
    Unavailable,
)
from streamcast.message import MessageId, room_name
from streamcast.wire import JsonV1, Start, json_client
from streamcast.wire.told import Acked, Failed, Joined, Told

BUFFERS = 16 * 1024 * 1024
"""How many bytes all feeds may hold, shared among them."""
LARGEST_SHARE, SMALLEST_SHARE = 1024 * 1024, 64 * 1024
"""How many bytes one feed may hold at most, and in any case."""


_MAX_FRAME = JsonV1().max_frame


class Exchange:
    """The requests of a client, and what becomes of them.

    `publish_timeout`: seconds until a publication is given up. `something_to_send` is set when
    `next_frame` has something. `max_message`: bytes of payload that the server takes, if it said.
    """

    def __init__(self, publish_timeout: float) -> None:
        self.max_message: int | None = None
        self.something_to_send = asyncio.Event()
        self._publish_timeout = publish_timeout
        self._token = secrets.token_urlsafe(9)
        self._refs = 0
        # A feed is held by its subscription; a room whose subscription nobody holds is left.
        self._feeds: WeakValueDictionary[str, Feed] = WeakValueDictionary()
        self._outbox = Outbox()
        # Joins that were not answered, by ref.
        self._joins: dict[int, Feed] = {}
        # Joins and leaves; they go before what is published.
        self._requests: deque[str] = deque()
        self._pauses = Backoff(first=0.1, longest=2.0)
        self._trying_again: asyncio.TimerHandle | None = None
        self._expiring: asyncio.TimerHandle | None = None
        self._connected = False
        self._ended: Disconnected | None = None

    # What the user asks for

    def subscribe(self, room: str, start: Start) -> Feed:
        """Return a new feed of a room. Raises BadRoom, BadRequest, Disconnected."""
        if self._ended is not None:
            # The same one for all: without the way that it took before.
            raise self._ended.with_traceback(None)
        if room_name(room) in self._feeds:
            raise BadRequest(f"There is a subscription of {room} already; iterate over that one.")
        feed = self._feeds[room] = Feed(self, room, start)
        loop = asyncio.get_running_loop()
        # Whichever thread lets go of it last.
        feed.dropped = finalize(feed, _soon, loop, self._dropped, room)
        feed.dropped.atexit = False
        self.join(feed)
        return feed

    def publish(
        self, room: str, data: str | bytes, key: str | None, meta: str | None
    ) -> "asyncio.Future[MessageId]":
        """Take in a message to be published. Raises RequestError, Unavailable."""
        if self._ended is not None:
            raise Unavailable(f"It was not stored: {self._ended}")
        self._refs += 1
        ref = self._refs
        size = json_client.size_of(data)
        key = f"{self._token}-{ref}" if key is None else key
        frame = json_client.publish(room_name(room), ref, data, key, meta)
        self._check_size(size, len(frame))
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[MessageId] = loop.create_future()
        deadline = loop.time() + self._publish_timeout
        self._outbox.add(Publication(room, ref, frame, size, deadline, answer))
        self._watch_deadline()
        self.something_to_send.set()
        return answer

    def _check_size(self, payload: int, frame: int) -> None:
        """Refuse what the server would: such a frame would end the connection. Raises TooBig."""
        limit = self.max_message
        if limit is None:
            return
        if payload > limit:
            raise TooBig(f"A message has at most {limit} bytes, not {payload}.")
        if frame > _MAX_FRAME(limit):
            raise TooBig(f"With its meta, escaped, it has {frame} bytes, more than is taken.")

    # What its feeds ask for

    @property
    def share(self) -> int:
        """How many bytes a feed may hold."""
        return max(SMALLEST_SHARE, min(LARGEST_SHARE, BUFFERS // max(len(self._feeds), 1)))

    def join(self, feed: Feed) -> None:
        """Have a room joined where its feed goes on, if there is a connection."""
        if self._connected and feed.wants_to_join:
            self._refs += 1
            feed.state = State.JOINING
            feed.ref = self._refs
            self._joins[feed.ref] = feed
            self._request(json_client.join(feed.room, feed.ref, feed.start))

    def leave(self, feed: Feed) -> None:
        """Have a room left."""
        if feed.state in {State.JOINING, State.IN}:
            self._leave(feed.room)
            feed.state = State.OUT

    def close(self, feed: Feed) -> None:
        """Have a room left for good."""
        self.leave(feed)
        self._forget(feed)

    def _forget(self, feed: Feed) -> None:
        if feed.dropped is not None:
            feed.dropped.detach()
        if self._feeds.get(feed.room) is feed:
            del self._feeds[feed.room]

    def _dropped(self, room: str) -> None:
        """Take in that nobody holds a room's subscription any more."""
        if self._connected and room not in self._feeds:
            self._leave(room)

    def _leave(self, room: str) -> None:
        self._request(json_client.leave(room))

    def _request(self, frame: str) -> None:
        self._requests.append(frame)
        self.something_to_send.set()

    # What the connection asks for

    def next_frame(self) -> str | bytes | None:
        """Return what to send now, as a text frame, which counts as sent."""
        if self._requests:
            return self._requests.popleft()
        while (publication := self._outbox.next()) is not None:
            try:
                # This server may take less than the one that there was when it was published.
                self._check_size(publication.payload, len(publication.frame))
            except TooBig as error:
                self._outbox.failed(publication.ref, error)
            else:
                return publication.frame
        return None

    def connected(self) -> None:
        """Take in that there is a connection: join all rooms, publish what was not answered."""
        self._connected = True
        for feed in list(self._feeds.values()):
            self.join(feed)
        self.something_to_send.set()

    def disconnected(self) -> None:
        """Take in that there is none any more."""
        self._connected = False
        self._requests.clear()
        self._joins.clear()
        self._outbox.disconnected()
        for feed in list(self._feeds.values()):
            feed.disconnected()

    def end(self, why: Disconnected | None) -> None:
        """Take in that there will be none any more; None: because its user closed the client."""
        if self._ended is not None:
            return
        self._ended = why or Disconnected("the client was closed.")
        for timer in (self._trying_again, self._expiring):
            if timer is not None:
                timer.cancel()
        self._outbox.close(str(self._ended))
        for feed in list(self._feeds.values()):
            feed.end(why)

    # What the server tells

    def take(self, told: Told, size: int) -> None:
        """Take in what a server told in a frame of `size` bytes."""
        if isinstance(told, Acked):
            self._outbox.acked(told.ref, told.id)
            self.something_to_send.set()
        elif isinstance(told, Failed):
            self._failed(told.ref, told.error)
        elif isinstance(told, Joined):
            # Of an earlier join of the room nothing is taken.
            feed = self._joins.pop(told.ref, None)
            if feed is not None and feed.state is State.JOINING and told.ref == feed.ref:
                feed.joined(told)
        elif (feed := self._feeds.get(told.room)) is not None:  # else it is being left
            feed.take(told, size)

    def _failed(self, ref: int | None, error: CodedError) -> None:
        if ref is None:
            log.warning("request failed", code=error.code, reason=str(error))
            return
        feed = self._joins.pop(ref, None)
        if feed is None:
            self._outbox.failed(ref, error)
            self.something_to_send.set()
        elif feed.state is State.JOINING and feed.ref == ref:
            feed.disconnected()
            if isinstance(error, RequestError):
                self._forget(feed)
                feed.end(error)
        if isinstance(error, StoreError):
            self._try_again_soon()

    # Trying again, and giving up

    def _try_again_soon(self) -> None:
        if self._trying_again is None:
            loop = asyncio.get_running_loop()
            self._trying_again = loop.call_later(self._pauses.pause(), self._try_again)

    def _try_again(self) -> None:
        self._trying_again = None
        self._outbox.release()
        for feed in list(self._feeds.values()):
            self.join(feed)
        self.something_to_send.set()
        if self._outbox.has_held:
            self._try_again_soon()

    def _watch_deadline(self) -> None:
        if self._expiring is None and (deadline := self._outbox.deadline) is not None:
            self._expiring = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._expiring = None
        self._outbox.expire(asyncio.get_running_loop().time())
        self._watch_deadline()


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[str], None], room: str) -> None:
    """Have the loop call, from whichever thread this is, if it still runs."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, room)
