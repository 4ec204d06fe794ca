"""Handing out what rooms have read, a slice at a time.

The law of this file: rooms take turns, and between two turns the event loop runs, so that a room
of many thousands does not hold up the others.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from streamcast import log

SLICE = 64
"""How many members of a room are written to before another room's turn."""
TURN = 0.00025
"""Seconds of handing out, about, before the event loop runs, where a room is not done with a slice.
A message on its way through a server waits for some eight turns. It is no shorter than the pace of
a lane, so that between two slices of a large room none rests."""
LONG_TURN = 0.004
"""The same where all rooms are. Only thousands that wait need it, and it is what gets the server
through them: the more come in one pass of the loop, the less each of them costs."""


class HandsOut(Protocol):
    """One who has a room with news; `queued` is the fan-out's own mark."""

    queued: bool

    def hand_out(self, limit: int) -> bool:
        """Write to at most `limit` more members. Returns whether there is more to hand out."""

    def broken(self) -> None:
        """Take in that handing out failed for a reason that nobody thought of."""


Calls = list[Callable[[], None]]


class FanOut:
    """The rooms that have something to hand out, in turn."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Rooms, and calls behind them.
        self._queue: deque[HandsOut | Calls] = deque()
        self._behind: Calls = []
        self._scheduled = False

    def add(self, owner: HandsOut) -> None:
        """Hand out a room's news, soon."""
        if not owner.queued:
            owner.queued = True
            self._queue.append(owner)
            if not self._scheduled:
                self._schedule()

    def behind(self, call: Callable[[], None]) -> None:
        """Call once when all that is added until the next turn has had a turn.

        So what the store answers at once can be taken in first, in whatever order it comes.
        """
        self._behind.append(call)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._behind:
            self._queue.append(self._behind)
            self._behind = []
        began = self._clock()
        end = began + LONG_TURN
        while self._queue:
            first = self._queue.popleft()
            if isinstance(first, list):
                _make(first)
            elif self._hand_out(first):
                end = began + TURN
            if self._clock() >= end:
                break
        if (self._queue or self._behind) and not self._scheduled:
            self._schedule()

    def _hand_out(self, owner: HandsOut) -> bool:
        """Hand out a slice; return whether that was not all.

        A fault in one room must not end the turns of all others.
        """
        owner.queued = False
        try:
            more = owner.hand_out(SLICE)
        except Exception as fault:  # noqa: BLE001 - the boundary between one room and all others
            log.error("fault", where="fan-out", fault=repr(fault), exc_info=True)
            owner.broken()
            return False
        if more and not owner.queued:
            owner.queued = True
            self._queue.append(owner)
        return owner.queued


def _make(calls: Calls) -> None:
    """Make calls. A fault in one must not end the turns of all rooms."""
    for call in calls:
        try:
            call()
        except Exception as fault:  # noqa: BLE001 - as in handing out
            log.error("fault", where="behind the fan-out", fault=repr(fault), exc_info=True)
