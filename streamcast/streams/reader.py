"""Reading the streams that changed.

The law of this file: a changed room is marked. Marked rooms are read together, one non-blocking
read a room, in one write, behind all that is added in the same turn. A mark is cleared when the
read is sent, never when it is answered, and every refusal sets it again. One read of a room is
under way at most, and what changes meanwhile is for the next one; so the work follows the rooms
that speak, not the rooms that exist, and batches grow with the load. What the store tells on this
lane it tells in order: a change that is told of before a read is answered came before that read,
which has seen it.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from streamcast import log
from streamcast.errors import BadRoom, CodedError, Unavailable
from streamcast.message import Message, MessageId
from streamcast.proof import EXAMINE, RANGE, RESOLVE, Read, Reply
from streamcast.streams.commands import (
    NO_STREAM,
    Command,
    backwards,
    forwards,
    is_away,
    is_wrong_type,
    messages,
    plainly,
    understood,
)
from streamcast.streams.interface import Follower
from streamcast.streams.lane import Callback, Lane, LaneLost, into

HISTORY_AT_ONCE = 8
"""How many pages of history are read at once; live reads don't wait behind more."""
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.25
"""Seconds until a refused read is tried again: the first time, and at most."""


Redirected = Callable[[bytes, hiredis.ReplyError, bool], bool]
"""Takes a refusal to read a key, and whether a change of it was told. Returns whether the key is
another node's from now on."""


class Rerouted(Unavailable):
    """A read was refused because the key is another node's, which is known by now."""


class Followed:
    """A key that is followed here. What was asked for before it came is not answered to it.

    `asking`: the key's slot is still on its way here (ASK). `gone`: it is followed no more.
    `reading`: the read that is under way. `marked`: it is to be read, behind that one if there is
    one, and whether a change was told; None: it is not.
    """

    __slots__ = ("_answered", "asking", "follower", "gone", "key", "marked", "reading")

    def __init__(
        self,
        key: bytes,
        follower: Follower,
        answered: Callable[["Followed", Any], None],
        *,
        asking: bool,
    ) -> None:
        self.key = key
        self.follower = follower
        self.asking = asking
        self.gone = False
        self.reading: Read | None = None
        self.marked: bool | None = None
        self._answered = answered

    def answered(self, raw: Any) -> None:
        """Hand an answer on to the reader."""
        self._answered(self, raw)


class Reader:
    """Reads for its followers, by key, over one lane. `max_message`: bytes, see `Message`."""

    def __init__(self, max_message: int, redirected: Redirected) -> None:
        self._max_message = max_message
        self._redirected = redirected
        self._followed: dict[bytes, Followed] = {}
        self.followed = self._followed.keys()
        # Those that wait for their first answer.
        self._opening: dict[bytes, Followed] = {}
        # Those that are marked, while there is a lane, and of which no read is under way.
        self._marked: list[Followed] = []
        self._lane: Lane | None = None
        self._refused: dict[bytes, bool] = {}
        self._pause = 0.0
        self._trying_again = False
        # Nothing can be read on this node just now, whatever the key.
        self._away = False
        self._history = asyncio.Semaphore(HISTORY_AT_ONCE)
        self.reads = 0
        self.empty_reads = 0
        self.examinations = 0
        self.refused_reads = 0

    # Who is followed

    def __len__(self) -> int:
        return len(self._followed)

    def __contains__(self, key: bytes) -> bool:
        return key in self._followed

    def follow(
        self, key: bytes, follower: Follower, *, asking: bool = False, opening: bool = True
    ) -> None:
        """Begin to follow a key, which is not yet.

        Not `opening`: it was followed on another node before.
        """
        assert key not in self._followed
        followed = Followed(key, follower, self._answered, asking=asking)
        self._followed[key] = followed
        if opening:
            self._opening[key] = followed
        self.mark(key)

    def is_announced(self, key: bytes) -> bool:
        """Whether a key is to be read, or being read, because a change of it was told."""
        followed = self._followed.get(key)
        if followed is not None:
            reading = followed.reading
            if followed.marked or (reading is not None and reading.announced):
                return True
        return self._refused.get(key, False)

    def has_come(self, key: bytes) -> None:
        """Take in that the slot of a key is here by now."""
        followed = self._followed.get(key)
        if followed is not None:
            followed.asking = False

    def is_opening(self, key: bytes) -> bool:
        """Whether a key that is followed has not been read yet."""
        return key in self._opening

    def unfollow(self, key: bytes) -> Follower | None:
        """End following a key; return who followed it."""
        self._opening.pop(key, None)
        followed = self._followed.pop(key, None)
        if followed is None:
            return None
        followed.gone = True
        return followed.follower

    # Which changed

    def mark(self, key: bytes, *, announced: bool = False) -> None:
        """Have a key read. `announced`: the store told that this very key changed."""
        followed = self._followed.get(key)
        if followed is not None:
            self._mark(followed, announced)

    def read_behind(self, key: bytes) -> bool:
        """Have a key that is added to read right behind that. Returns whether it is followed.

        Not where nothing can be read: there one key finds out for all.
        """
        followed = self._followed.get(key)
        if followed is None:
            return False
        if not self._away:
            self._mark(followed, False)
        return True

    def announce(self, keys: Sequence[bytes]) -> None:
        """Have keys read that the store told of on the lane that reads."""
        for key in keys:
            followed = self._followed.get(key)
            if followed is None:
                continue
            if followed.reading is None:
                self._mark(followed, True)
            else:
                followed.reading.announced = True

    def mark_all(self) -> None:
        """Have every followed key read."""
        for followed in self._followed.values():
            self._mark(followed, False)

    def _mark(self, followed: Followed, announced: bool) -> None:
        if followed.marked is None:
            followed.marked = announced
            if followed.reading is None:
                self._read_soon(followed)
        elif announced:
            followed.marked = True

    def _read_soon(self, followed: Followed) -> None:
        """Read what is marked with the next flush; while there is no lane, over the next one."""
        if self._lane is not None:
            if not self._marked:
                self._lane.flush_soon()
            self._marked.append(followed)
        elif self._opening:
            asyncio.get_running_loop().call_soon(self._refuse_to_open)

    def connected(self, lane: Lane) -> None:
        """Read over this lane from now on; everything has to be proved anew."""
        self._lane = lane
        lane.gather = self._read_marked
        lane.flush_soon()
        self._away = False
        self.mark_all()
        # Those too that were marked while there was no lane.
        self._marked = [each for each in self._followed.values() if each.reading is None]

    def disconnected(self) -> None:
        """Wait for another lane. Rooms that were to be opened are told that they can't be."""
        self._lane = None
        self._marked = []
        self._refuse_to_open()

    # Reading

    def _read_marked(self) -> None:
        """Send one read for each key that is marked."""
        lane = self._lane
        if lane is None:
            return
        marked, self._marked = self._marked, []
        plain: list[bytes] = []
        callbacks: list[Callback] = []
        for followed in marked:
            announced, followed.marked = followed.marked is True, None
            if followed.gone:
                continue
            try:
                read = followed.follower.next_read(announced)
                if read is None:
                    continue
                if read.kind is RANGE and not followed.asking:
                    plain.append(plainly(followed.key, read))
                    callbacks.append(followed.answered)
                    followed.reading = read
                else:
                    self.reads += 1
                    self.examinations += read.kind is EXAMINE
                    command = forwards(followed.key, read, asking=followed.asking)
                    followed.reading = read
                    command.send(lane, followed.answered)
            except Exception as fault:  # noqa: BLE001 - the boundary between one room and all others
                log.error("fault", where="reading", fault=repr(fault), exc_info=True)
        if plain:
            self.reads += len(plain)
            lane.calls(b"".join(plain), callbacks)
        if self._marked:
            # Meanwhile, when the lane had been asked to gather already.
            asyncio.get_running_loop().call_soon(lane.flush_soon)

    def _refuse_to_open(self) -> None:
        """Tell those who wait for a room to open that it can't be; open ones wait for a lane."""
        if self._lane is not None:
            return
        opening, self._opening = self._opening, {}
        for key, followed in opening.items():
            if self._followed.get(key) is followed:
                self._fail(key, followed, Unavailable("The store can't be reached."))

    def _answered(self, followed: Followed, raw: Any) -> None:
        read, followed.reading = followed.reading, None
        assert read is not None
        if followed.gone:
            return
        if followed.marked is not None:
            self._read_soon(followed)
        if isinstance(raw, LaneLost):
            # It is read again over the next lane; what the store told of it still holds.
            self._mark(followed, read.announced)
            return
        try:
            reply = understood(read, raw, self._max_message)
        except hiredis.ReplyError as error:
            if not self._is_end(followed, read, error):
                return
            reply = NO_STREAM
        if self._opening or self._away or self._pause:
            self._is_served(followed.key)
        if not reply.entries:
            self.empty_reads += 1
        if followed.follower.received(read, reply):
            self._mark(followed, False)

    def _is_served(self, key: bytes) -> None:
        """Take in that a key was read: it is open, and so may others be read that were refused."""
        self._opening.pop(key, None)
        if self._away:
            self._away = False
            self._mark_refused()
        if not self._refused:
            self._pause = 0.0

    def _is_end(self, followed: Followed, read: Read, error: hiredis.ReplyError) -> bool:
        """Take in a refusal to read a key. Returns whether the stream has ended.

        The key holds something else then: for a room that is the end of a history.
        """
        key = followed.key
        if self._redirected(key, error, read.announced):
            return False
        if read.kind is RESOLVE:
            self._fail(key, followed, _refusal(error))
            return False
        if is_wrong_type(error):
            return True
        self._try_again(key, read, error)
        return False

    def _try_again(self, key: bytes, read: Read, error: hiredis.ReplyError) -> None:
        """Read a key again soon: the store registered nothing. Other keys don't wait for it."""
        self.refused_reads += 1
        if not self._pause:
            log.warning("read refused", error=str(error))
        self._away = is_away(error)
        self._refused[key] = read.announced or self._refused.get(key, False)
        self._try_later()

    def _try_later(self) -> None:
        if not self._trying_again:
            self._trying_again = True
            self._pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * self._pause))
            asyncio.get_running_loop().call_later(self._pause, self._try_refused)

    def _try_refused(self) -> None:
        """Read again what was refused; where nothing could be read, one key finds out for all."""
        self._trying_again = False
        if not self._away:
            self._mark_refused()
        elif self._refused:
            key, announced = self._refused.popitem()
            self.mark(key, announced=announced)
            # The next one, if this one's follower wants nothing read just now.
            self._try_later()

    def _mark_refused(self) -> None:
        refused, self._refused = self._refused, {}
        for key, announced in refused.items():
            self.mark(key, announced=announced)

    def _fail(self, key: bytes, followed: Followed, error: CodedError) -> None:
        self.unfollow(key)
        followed.follower.failed(error)

    # History

    async def examine(self, key: bytes, read: Read) -> Reply:
        """Read history with XINFO in one step. Raises StoreError, Rerouted among them."""
        raw = await self._history_reply(key, forwards(key, read, asking=self._asks(key)))
        try:
            return understood(read, raw, self._max_message)
        except hiredis.ReplyError as error:
            if is_wrong_type(error):
                return NO_STREAM
            raise _refusal(error) from None

    async def before(self, key: bytes, end: MessageId, count: int) -> Sequence[Message]:
        """Read history from `end` down. Raises StoreError, Rerouted among them."""
        command = backwards(key, end, count, asking=self._asks(key))
        raw = await self._history_reply(key, command)
        if isinstance(raw, hiredis.ReplyError):
            if is_wrong_type(raw):
                return ()
            raise _refusal(raw)
        return messages(raw, self._max_message)

    def _asks(self, key: bytes) -> bool:
        followed = self._followed.get(key)
        return followed is not None and followed.asking

    async def _history_reply(self, key: bytes, command: Command) -> Any:
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

        command.send(self._lane, answered)
        raw = await answer
        if isinstance(raw, LaneLost):
            raise Unavailable(str(raw))
        if isinstance(raw, hiredis.ReplyError) and self._redirected(key, raw, False):
            raise Rerouted("The room is on another node by now.")
        return raw


def _refusal(error: hiredis.ReplyError) -> CodedError:
    if is_wrong_type(error):
        return BadRoom("The key under this room's name is not a stream.")
    return Unavailable(f"The store refused: {error}.")
