"""Reading the streams that changed.

The law of this file: a changed room is marked. Marked rooms are read together, one non-blocking
read a room, in one write. A mark is cleared when the read is sent, never when it is answered, and
every refusal sets it again. What changes while reads are under way is the next round; so the work
follows the rooms that speak, not the rooms that exist, and batches grow with the load.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import hiredis

from streamcast import log
from streamcast.errors import BadRoom, CodedError, Unavailable
from streamcast.message import Message, MessageId
from streamcast.proof import Kind, Read, Reply
from streamcast.streams.commands import (
    NO_STREAM,
    backwards,
    is_wrong_type,
    messages,
    packed,
    understood,
)
from streamcast.streams.interface import Follower
from streamcast.streams.lane import Lane, LaneLost, into

HISTORY_AT_ONCE = 8
"""How many pages of history are read at once; live reads don't wait behind more."""
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.25
"""Seconds until a refused read is tried again: the first time, and at most."""


class Reader:
    """Reads for its followers, by key, over one lane. `max_message`: bytes, see `Message`."""

    def __init__(self, max_message: int) -> None:
        self._max_message = max_message
        self._followers: dict[bytes, Follower] = {}
        # Those that wait for their first answer.
        self._opening: dict[bytes, Follower] = {}
        self._marked: dict[bytes, bool] = {}
        self._lane: Lane | None = None
        self._under_way = 0
        self._scheduled = False
        self._refused: dict[bytes, bool] = {}
        self._pause = 0.0
        self._history = asyncio.Semaphore(HISTORY_AT_ONCE)
        self.reads = 0
        self.empty_reads = 0
        self.examinations = 0
        self.refused_reads = 0

    # Who is followed

    def __len__(self) -> int:
        return len(self._followers)

    def __contains__(self, key: bytes) -> bool:
        return key in self._followers

    def keys(self) -> list[bytes]:
        """Return the keys that are followed."""
        return list(self._followers)

    def follow(self, key: bytes, follower: Follower) -> None:
        """Begin to follow a key."""
        self._followers[key] = follower
        self._opening[key] = follower
        self.mark(key)

    def unfollow(self, key: bytes) -> None:
        """End following a key."""
        self._followers.pop(key, None)
        self._opening.pop(key, None)
        self._marked.pop(key, None)

    # Which changed

    def mark(self, key: bytes, *, announced: bool = False) -> None:
        """Have a key read. `announced`: the store told that this very key changed."""
        if key in self._followers:
            self._marked[key] = announced or self._marked.get(key, False)
            self._schedule()

    def mark_all(self) -> None:
        """Have every followed key read."""
        for key in self._followers:
            self._marked.setdefault(key, False)
        self._schedule()

    def connected(self, lane: Lane) -> None:
        """Read over this lane from now on; everything has to be proved anew."""
        self._lane = lane
        self.mark_all()

    def disconnected(self) -> None:
        """Wait for another lane. Rooms that were to be opened are told that they can't be."""
        self._lane = None
        self._refuse_to_open()

    # Rounds

    def _schedule(self) -> None:
        if not self._scheduled and not self._under_way and self._marked:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        """Send one read for each room that is marked."""
        self._scheduled = False
        if self._lane is None:
            self._refuse_to_open()
            return
        marked, self._marked = self._marked, {}
        for key, announced in marked.items():
            follower = self._followers.get(key)
            read = follower.next_read(announced=announced) if follower is not None else None
            if follower is not None and read is not None:
                self._send(self._lane, key, follower, read)

    def _refuse_to_open(self) -> None:
        """Tell those who wait for a room to open that it can't be; open ones wait for a lane."""
        opening, self._opening = self._opening, {}
        for key, follower in opening.items():
            if self._followers.get(key) is follower:
                self._fail(key, follower, Unavailable("The store can't be reached."))

    def _send(self, lane: Lane, key: bytes, follower: Follower, read: Read) -> None:
        self.reads += 1
        self.examinations += read.kind is Kind.EXAMINE
        self._under_way += 1
        commands, ignored = packed(key, read)
        lane.calls(commands, (*(None,) * ignored, partial(self._answered, key, follower, read)))

    def _answered(self, key: bytes, follower: Follower, read: Read, raw: Any) -> None:
        self._under_way -= 1
        try:
            if self._followers.get(key) is not follower:
                return
            if isinstance(raw, LaneLost):
                # It is read again over the next lane; what the store told of it still holds.
                self.mark(key, announced=read.announced)
            else:
                self._hand(key, follower, read, raw)
        finally:
            if not self._under_way:
                self._schedule()

    def _hand(self, key: bytes, follower: Follower, read: Read, raw: Any) -> None:
        try:
            reply = understood(read, raw, self._max_message)
        except hiredis.ReplyError as error:
            if read.kind is Kind.RESOLVE:
                self._fail(key, follower, _refusal(error))
                return
            if not is_wrong_type(error):
                self._try_again(key, read, error)
                return
            # The key holds something else by now: for a room that is the end of a history.
            reply = NO_STREAM
        self._opening.pop(key, None)
        if not self._refused:
            self._pause = 0.0
        self.empty_reads += not reply.entries or (
            read.kind is Kind.RANGE and len(reply.entries) == 1
        )
        if follower.received(read, reply):
            self.mark(key)

    def _try_again(self, key: bytes, read: Read, error: hiredis.ReplyError) -> None:
        """Read a key again soon: the store registered nothing. Other keys don't wait for it."""
        self.refused_reads += 1
        if not self._pause:
            log.warning("read refused", error=str(error))
        if not self._refused:
            self._pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * self._pause))
            asyncio.get_running_loop().call_later(self._pause, self._mark_refused)
        self._refused[key] = read.announced

    def _mark_refused(self) -> None:
        refused, self._refused = self._refused, {}
        for key, announced in refused.items():
            self.mark(key, announced=announced)

    def _fail(self, key: bytes, follower: Follower, error: CodedError) -> None:
        self.unfollow(key)
        follower.failed(error)

    # History

    async def examine(self, key: bytes, read: Read) -> Reply:
        """Read history with XINFO in one step. Raises StoreError."""
        commands, ignored = packed(key, read)
        raw = await self._history_reply(commands, ignored)
        try:
            return understood(read, raw, self._max_message)
        except hiredis.ReplyError as error:
            if is_wrong_type(error):
                return NO_STREAM
            raise _refusal(error) from None

    async def before(self, key: bytes, end: MessageId, count: int) -> Sequence[Message]:
        """Read history from `end` down. Raises StoreError."""
        raw = await self._history_reply(backwards(key, end, count), 0)
        if isinstance(raw, hiredis.ReplyError):
            if is_wrong_type(raw):
                return ()
            raise _refusal(raw)
        return messages(raw, self._max_message)

    async def _history_reply(self, commands: bytes, ignored: int) -> Any:
        """Return what the store says, a hiredis.ReplyError too. Raises Unavailable."""
        await self._history.acquire()
        if self._lane is None:
            self._history.release()
            raise Unavailable("The store can't be reached.")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        hand_over = into(answer)

        def answered(raw: Any) -> None:
            # Not before: one who waits no longer does not take the command back.
            self._history.release()
            hand_over(raw)

        self._lane.calls(commands, (*(None,) * ignored, answered))
        raw = await answer
        if isinstance(raw, LaneLost):
            raise Unavailable(str(raw))
        return raw


def _refusal(error: hiredis.ReplyError) -> CodedError:
    if is_wrong_type(error):
        return BadRoom("The key under this room's name is not a stream.")
    return Unavailable(f"The store refused: {error}.")
