"""Which node a key is on.

The law of this file: one Redis has one node; where it is may change, and what it says counts only
while it is the master. Who is the master the node says itself, and the sentinels where there are
some: they are asked every second, and a node that most of them don't name is left.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol

import hiredis

from streamcast import log
from streamcast.config import StreamSettings
from streamcast.errors import StoreError, Unavailable
from streamcast.streams.endpoint import Endpoint, Engine, StoreUrl
from streamcast.streams.interface import Publication
from streamcast.streams.lane import Lane
from streamcast.streams.node import At, Node
from streamcast.streams.sentinel import Sentinels

LOOK_EVERY = 1.0
"""Seconds between two looks at who is the master."""
PATIENCE = 1.0
"""Seconds within which a node has to say what it is; it may be waiting for replicas."""


class Nodes(Protocol):
    """The masters of a store."""

    def __str__(self) -> str:
        """Return where they are, for people, without secrets."""

    def all(self) -> Sequence[Node]:
        """Return all nodes."""

    def masters(self) -> Collection[Node]:
        """Return those that keys are on."""

    def of(self, key: bytes) -> Node:
        """Return the node that a key is on."""

    def unfollow(self, key: bytes) -> None:
        """End following a key, on whichever node it is followed."""

    def publish(self, key: bytes, publication: Publication) -> None:
        """Add to a stream."""

    def held(self) -> Sequence[Publication]:
        """Return the publications that wait until it is known where their key is."""

    async def start(self) -> None:
        """Connect. Raises StartError, StoreError."""

    async def watch(self) -> None:
        """Look for ever who is the master."""

    async def close(self) -> None:
        """Disconnect."""


class OneNode:
    """The only node of a store that has one."""

    def __init__(self, settings: StreamSettings, max_message: int, url: StoreUrl) -> None:
        self._sentinels: Sentinels | None = None
        self._named: Endpoint | None = None
        if url.engine is Engine.SENTINEL:
            assert url.master is not None
            self._sentinels = Sentinels(url.endpoints, url.service, url.master)
        self._node = Node(settings, max_message, self._sentinels or At(url.endpoints[0]))
        # Adds to a stream, as `Nodes` says; there is no other node to look for.
        self.publish = self._node.writer.publish

    def __str__(self) -> str:
        return str(self._node.where)

    def all(self) -> Sequence[Node]:
        """Return it."""
        return [self._node]

    def masters(self) -> Collection[Node]:
        """Return it."""
        return [self._node]

    def of(self, key: bytes) -> Node:
        """Return it."""
        return self._node

    def unfollow(self, key: bytes) -> None:
        """End following a key."""
        self._node.unfollow(key)

    def held(self) -> Sequence[Publication]:
        """Return none: there is nowhere else to go."""
        return ()

    async def start(self) -> None:
        """Connect. Raises StartError, StoreError."""
        await self._node.start()

    async def watch(self) -> None:
        """Look for ever whether the node is still the master."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._sentinels is not None:
                await self._ask_sentinels(self._sentinels)
            roles = await asyncio.gather(*map(_role, self._node.lanes))
            # Each lane is asked: behind one address there may be one node and then another.
            if any(role not in {b"master", None} for role in roles):
                self._node.demoted()

    async def _ask_sentinels(self, sentinels: Sentinels) -> None:
        """Leave a node that they don't name any more, and go to the one that they name."""
        try:
            endpoint = await sentinels.endpoint()
        except Unavailable as error:
            log.debug("sentinels disagree", reason=str(error))
            return
        before, self._named = self._named, endpoint
        if self._node.leave_all_but(endpoint):
            log.warning("master changed", now=str(endpoint))
        if before != endpoint:
            self._node.hurry()

    async def close(self) -> None:
        """Disconnect."""
        await self._node.close()
        if self._sentinels is not None:
            await self._sentinels.close()


async def _role(lane: Lane) -> bytes | None:
    """Ask a lane's node what it is; None if it does not say."""
    try:
        async with asyncio.timeout(PATIENCE):
            role: bytes = (await lane.ask("HELLO", "3"))[b"role"]
            return role
    except (StoreError, hiredis.ReplyError, TimeoutError):
        return None
