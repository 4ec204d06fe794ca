"""Reading what clients send: in turn, and no more than the store keeps up with.

The law of this file: what clients have published and the store has not acknowledged is bounded,
for one client and for all. What is more waits where it is: a slice here, the rest in the kernel,
and so at its sender. Who published the longest ago goes first, so that no number of floods shuts
the others out.
"""

import asyncio
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

SLICE = 8 * 1024
"""How many bytes of a client are read at once; one that sends more waits for its next turn."""
TURN = 32
"""How many clients have their turn before the event loop runs."""
OF_ONE = 256 * 1024
OF_ALL = 2 * 1024 * 1024
"""How many bytes of one client, and of all, are under way to the store at most.

A message larger than 64 KiB, where they are allowed, comes on top.
"""
PIECE = 1024
"""How many bytes are read before it is asked again whether others wait, and for room."""
PIECE_BRINGS = 160 * 1024
"""What a piece adds at most: empty frames of 6 bytes that cost 500 each, and a large one's end."""

MOST_PUBLISHING = OF_ONE - PIECE_BRINGS
"""With so many bytes under way, a client is not read from."""
_MOST_OF_ALL = OF_ALL - PIECE_BRINGS


class Reads(Protocol):
    """A client, as one who is read from; `queued` and `last_published` are the intake's marks."""

    queued: bool
    last_published: int
    publishing: int
    """How many bytes it has under way."""

    @property
    def is_closing(self) -> bool:
        """Whether it takes no more requests."""

    @property
    def readable(self) -> bool:
        """Whether it takes its answers, and has not too much under way."""

    def take_turn(self) -> None:
        """Read on; it adds itself again where there is more."""


class Intake:
    """Those who are still to be read, in turn.

    `buffer`: what any of them is received into, for the moment. `publishing`: the bytes that all
    have under way.
    """

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(SLICE))
        self.publishing = 0
        # By when they last published; the count keeps equals in order.
        self._queue: list[tuple[int, int, Reads]] = []
        self._count = count()
        self._scheduled = False

    def has_room(self, client: Reads) -> bool:
        """Whether what a client publishes may be taken; one that is closing publishes nothing."""
        return self.publishing < _MOST_OF_ALL or client.is_closing

    def is_free(self, client: Reads) -> bool:
        """Whether a client may be read out of turn: nobody waits, and there is room."""
        # As has_room does, in place: each message comes by here.
        return not self._queue and (self.publishing < _MOST_OF_ALL or client.is_closing)

    def add(self, client: Reads) -> None:
        """Read a client when it is its turn."""
        if not client.queued:
            client.queued = True
            heappush(self._queue, (client.last_published, next(self._count), client))
            self._schedule()

    def began(self, client: Reads, size: int) -> None:
        """Take in that a client publishes `size` bytes."""
        client.last_published = next(self._count)
        client.publishing += size
        self.publishing += size

    def ended(self, client: Reads, size: int) -> None:
        """Take in that the store has answered to as many."""
        client.publishing -= size
        self.publishing -= size
        if self._queue:
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Let some read on; where there is no room, the store's next answer makes it."""
        self._scheduled = False
        for _ in range(min(TURN, len(self._queue))):
            _, _, client = self._queue[0]
            if client.readable and not self.has_room(client):
                return
            heappop(self._queue)
            client.queued = False
            if client.readable:
                client.take_turn()
        if self._queue:
            self._schedule()
