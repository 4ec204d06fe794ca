"""The notifier `block`: waiting in XREAD BLOCK, only to learn which rooms changed.

The law of this file: rooms wait in groups, each on a connection of its own. What XREAD returns is
thrown away; it marks the room, and the reader reads it. A group waits behind the IDs that were
read, never behind `$`, and waits again when the rooms that it told of have been read: so what is
added between two waits ends the second one at once.

It tells of additions only. That a stream was deleted, or began anew with smaller IDs, is found by
the next read or by the audit.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from streamcast import log
from streamcast.errors import CodedError
from streamcast.proof import Read, Reply
from streamcast.streams.commands import NO_STREAM, is_wrong_type
from streamcast.streams.interface import Follower
from streamcast.streams.lane import Callback, Lane, LaneLost, pack
from streamcast.streams.link import Link
from streamcast.streams.reader import Reader

GROUP = 256
"""How many rooms wait on one connection; a wait costs the store work for each."""
LONGEST_WAIT = 2.0
"""Seconds that a wait takes at most."""
UNBLOCK_AGAIN = 0.002
"""Seconds until a wait is interrupted again, if it had not begun yet."""
RETRY = 0.1
"""Seconds until a wait that was refused is tried again."""

MakeLink = Callable[[str, Callable[[Lane], None], Callable[[], None]], Link]
Send = Callable[[bytes, Callback | None], None]


class Watched:
    """A follower as its group sees it: how far it has read.

    `seen` is the ID that its group waits behind, as text. It is None while there is nothing to
    wait for: the stream has not been read yet, its follower takes no more, the key is no stream.
    """

    __slots__ = ("_block", "_follower", "again", "group", "key", "seen")

    def __init__(self, block: "Block", key: bytes, follower: Follower, group: "Group") -> None:
        self._block = block
        self._follower = follower
        self.key = key
        self.group = group
        self.seen: str | None = None
        self.again: asyncio.TimerHandle | None = None

    def next_read(self, announced: bool) -> Read | None:
        """Ask the follower."""
        read = self._follower.next_read(announced)
        if read is None:
            self.seen = None
            self.group.was_read(self)
        return read

    def received(self, read: Read, reply: Reply) -> bool:
        """Tell the follower, and the group how far it has come."""
        more = self._follower.received(read, reply)
        if reply is NO_STREAM:
            self.seen = None
            self._block.look_again(self)
        elif reply.entries:
            self.seen = str(reply.entries[-1].id)
        elif reply.continues:
            self.seen = str(read.start)
        elif reply.info is not None:
            self.seen = str(reply.info.last)
        elif self.seen is None:
            self.seen = str(read.start)
        self.group.was_read(self)
        return more

    def failed(self, error: CodedError) -> None:
        """Tell the follower."""
        self._block.unwatch(self.key)
        self._follower.failed(error)


class Group:
    """Rooms that wait together."""

    def __init__(self, name: str, wait: float, reader: Reader, send: Send, make: MakeLink) -> None:
        self.members: dict[bytes, Watched] = {}
        self.link = make(name, self._connected, self._disconnected)
        self._wait_ms = int(wait * 1000)
        self._reader = reader
        self._send = send
        self._scheduled = False
        # Whom the wait under way is for; None while there is none.
        self._waiting_for: set[bytes] | None = None
        self._interrupted = False
        # Those that it told of, and that are still to be read.
        self._told: set[bytes] = set()

    def add(self, watched: Watched) -> None:
        """Have one wait with the others, once it has been read."""
        watched.group = self
        self.members[watched.key] = watched
        self.was_read(watched)

    def remove(self, watched: Watched) -> None:
        """Wait for one no more. A wait under way may still tell of it, for nothing."""
        self.members.pop(watched.key, None)
        self._told.discard(watched.key)
        self._schedule()

    def was_read(self, watched: Watched) -> None:
        """Take in that one was read, or takes nothing more."""
        self._told.discard(watched.key)
        if self._waiting_for is None:
            self._schedule()
        elif watched.seen is not None and watched.key not in self._waiting_for:
            self._interrupt()

    # Waiting

    def _connected(self, lane: Lane) -> None:
        self._schedule()

    def _disconnected(self) -> None:
        self._waiting_for = None
        self._interrupted = False

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._wait)

    def _wait(self) -> None:
        """Wait for all that have been read, unless some are to be read first."""
        self._scheduled = False
        if self.link.lane is None or self._waiting_for is not None or self._told:
            return
        awake = {key: each.seen for key, each in self.members.items() if each.seen is not None}
        if not awake:
            return
        self._waiting_for = set(awake)
        words = ("XREAD", "BLOCK", self._wait_ms, "COUNT", 1, "STREAMS")
        self.link.lane.call(pack((*words, *awake, *awake.values())), self._answered)

    def _answered(self, reply: Any) -> None:
        if isinstance(reply, LaneLost):
            return
        self._waiting_for = None
        self._interrupted = False
        if isinstance(reply, hiredis.ReplyError):
            self._refused(reply)
            return
        for key in reply or ():
            if key in self.members:
                self._told.add(key)
                self._reader.mark(key, announced=True)
        self._schedule()

    def _refused(self, error: hiredis.ReplyError) -> None:
        """Try again: soon, or once it is known which key is no stream."""
        if is_wrong_type(error):
            for key, watched in self.members.items():
                if watched.seen is not None:
                    self._told.add(key)
                    self._reader.mark(key)
        else:
            log.debug("wait refused", error=str(error))
            asyncio.get_running_loop().call_later(RETRY, self._schedule)

    def _interrupt(self) -> None:
        """End the wait, so that the next one is for more rooms; else they wait until its end."""
        if not self._interrupted:
            self._interrupted = True
            self._unblock()

    def _unblock(self) -> None:
        if self._interrupted and self.link.lane is not None:
            self._send(pack(("CLIENT", "UNBLOCK", self.link.lane.client_id)), self._unblocked)

    def _unblocked(self, reply: Any) -> None:
        if reply == 0:
            # The wait has not begun yet, or has just ended.
            asyncio.get_running_loop().call_later(UNBLOCK_AGAIN, self._unblock)


class Block:
    """Watches keys in groups. `wait`: seconds that a wait takes at most."""

    unwatched = b""

    def __init__(self, reader: Reader, wait: float, send: Send, make: MakeLink) -> None:
        self._reader = reader
        self._seconds = min(LONGEST_WAIT, wait)
        self._send = send
        self._make = make
        self._groups: list[Group] = []
        self._watched: dict[bytes, Watched] = {}
        self._made = 0
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def links(self) -> Sequence[Link]:
        """The connections that wait."""
        return [group.link for group in self._groups]

    async def set_up(self, lane: Lane) -> None:
        """Do nothing: the read lane only reads."""

    def pushed(self, push: list[Any]) -> None:
        """Do nothing: nothing was asked for."""

    def adds(self, key: bytes) -> bool:
        """Say whether it is watched, and no more: who waits for it tells of what is added."""
        return key in self._watched

    def watch(self, key: bytes, follower: Follower) -> Follower:
        """Begin to watch a key, on behalf of its follower."""
        watched = self._watched[key] = Watched(self, key, follower, self._group_with_room())
        watched.group.add(watched)
        return watched

    def unwatch(self, key: bytes) -> None:
        """End watching a key."""
        watched = self._watched.pop(key, None)
        if watched is not None:
            watched.group.remove(watched)
            self._thin_out(watched.group)

    def look_again(self, watched: Watched) -> None:
        """Have a key read in a while that is no stream now: nobody waits for it meanwhile."""
        if watched.again is not None:
            watched.again.cancel()
        loop = asyncio.get_running_loop()
        watched.again = loop.call_later(self._seconds, self._reader.mark, watched.key)

    async def close(self) -> None:
        """Close all connections."""
        groups, self._groups = self._groups, []
        await asyncio.gather(*(group.link.close() for group in groups), *self._closing)

    def _group_with_room(self) -> Group:
        for group in self._groups:
            if len(group.members) < GROUP:
                return group
        self._made += 1
        name = f"block-{self._made}"
        group = Group(name, self._seconds, self._reader, self._send, self._make)
        self._groups.append(group)
        group.link.open_soon()
        return group

    def _thin_out(self, group: Group) -> None:
        """Close a connection that few rooms are left for, if they fit on another one."""
        if len(group.members) > GROUP // 4:
            return
        others = (each for each in self._groups if each is not group)
        other = next((each for each in others if len(each.members) <= GROUP // 2), None)
        if other is None:
            return
        for watched in list(group.members.values()):
            group.remove(watched)
            other.add(watched)
        self._groups.remove(group)
        task = asyncio.create_task(group.link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
