"""Reading what clients send: in turn, and no more than the store keeps up with.

The law of this file: what clients have published and the store has not acknowledged is bounded,
for one client and for all. What is more waits where it is: a slice here, the rest in the kernel,
and so at its sender. One who has nothing under way is read where those who have are not, so that a
flood does not shut the others out.
"""

import asyncio
from collections import deque
from typing import Protocol

SLICE = 8 * 1024
"""How many bytes of a client are read at once; one that sends more waits for its next turn."""
TURN = 32
"""How many clients have their turn before the event loop runs."""
OF_ONE = 256 * 1024
OF_ALL = 4 * 1024 * 1024
"""How many bytes of one client, and of all, are under way to the store at most.

A message larger than 64 KiB, where they are allowed, comes on top.
"""
SLICE_BRINGS = 160 * 1024
"""What a slice adds at most: publishes of 45 bytes that cost 500 more, and a large one's end."""


class Reads(Protocol):
    """A client, as one who is read from; `queued` is the intake's own mark."""

    queued: bool
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
        self._queue: deque[Reads] = deque()
        self._scheduled = False

    def has_room(self, client: Reads) -> bool:
        """Whether what a client publishes may be taken; one that is closing publishes nothing."""
        if client.is_closing:
            return True
        if not client.publishing:
            return self.publishing < OF_ALL - SLICE_BRINGS
        return self.publishing < OF_ALL * 3 // 4

    def add(self, client: Reads) -> None:
        """Read a client when it is its turn."""
        if not client.queued:
            client.queued = True
            self._queue.append(client)
            self._schedule()

    def began(self, client: Reads, size: int) -> None:
        """Take in that a client publishes `size` bytes."""
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
        self._scheduled = False
        some_went = False
        for _ in range(min(TURN, len(self._queue))):
            client = self._queue.popleft()
            if client.readable and not self.has_room(client):
                self._queue.append(client)
                continue
            client.queued = False
            if client.readable:
                client.take_turn()
                some_went = True
        # Where nobody could be read, the next answer of the store makes room.
        if self._queue and some_went:
            self._schedule()
